//! What a node has given up it never adds, unless it is given it anew; a microbatch is given up at most once in each stage
//! and attempt, and never in a deterministic run.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{Addition, CoordinatorInput, Entry, Task, ToCoordinator, ToWorker};
use skipstone_types::{Attempt, Iteration, Microbatch, NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet};

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct GivenUpMicrobatchesNeverCount {
    /// The attempt that each node was last told of.
    told: BTreeMap<NodeId, (Iteration, Attempt)>,
    /// By node, of that attempt.
    given_up: BTreeMap<NodeId, BTreeSet<Microbatch>>,
    /// What nodes have added all the same. It does no harm if nothing of theirs counts.
    added: BTreeMap<NodeId, (Iteration, Attempt, Microbatch)>,
    /// Of the iteration under way.
    moved: BTreeSet<(Iteration, Attempt, StageId, Microbatch)>,
}

impl Invariant for GivenUpMicrobatchesNeverCount {
    fn name(&self) -> &'static str {
        "given_up_microbatches_never_count"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            // Iterations run again from where the state was saved, with the same numbers.
            Observation::BegunAnew | Observation::Written { entry: Entry::RolledBack { .. } } => {
                *self = Self::default();
            }
            Observation::Told { node, message: ToWorker::GiveUp { .. } } if truth.settings.deterministic => {
                return Err(format!("{node} is to give up work in a deterministic run"));
            }
            Observation::Told { node, message: ToWorker::Begin { iteration, attempt, .. } } => {
                self.told.insert(*node, (*iteration, *attempt));
                self.given_up.remove(node);
            }
            Observation::Told { node, message: ToWorker::Reroute { duties, .. } } => {
                let Some(given_up) = self.given_up.get_mut(node) else { return Ok(()) };
                for duty in duties.iter().filter(|duty| duty.replay) {
                    given_up.remove(&duty.microbatch);
                }
            }
            // Whoever took them over may be checked by who gave them up: then they count for nothing here.
            Observation::Told { node, message: ToWorker::Check { additions, .. } } => {
                let Some(given_up) = self.given_up.get_mut(node) else { return Ok(()) };
                for Addition::Loss(microbatch) | Addition::Backward(microbatch) in additions {
                    given_up.remove(microbatch);
                }
            }
            Observation::Heard {
                input:
                    CoordinatorInput::Worker {
                        node,
                        message: ToCoordinator::GaveUp { iteration, attempt, microbatches },
                    },
            } => {
                let Some(stage) = truth.serves(*node) else { return Ok(()) };
                if self.told.get(node) != Some(&(*iteration, *attempt)) {
                    return Ok(());
                }
                for microbatch in microbatches {
                    self.given_up.entry(*node).or_default().insert(*microbatch);
                    if !self.moved.insert((*iteration, *attempt, stage, *microbatch)) {
                        return Err(format!("{microbatch} is given up twice at {stage} in {iteration}"));
                    }
                }
            }
            Observation::Started { node, task, .. } => {
                let (Task::Loss { microbatch, .. }
                | Task::Backward { microbatch }
                | Task::EmbedBackward { microbatch, .. }) = task
                else {
                    return Ok(());
                };
                let given_up = self.given_up.get(node).filter(|given_up| given_up.contains(microbatch));
                if let Some((iteration, attempt)) = self.told.get(node).filter(|_| given_up.is_some()) {
                    self.added.insert(*node, (*iteration, *attempt, *microbatch));
                }
            }
            _ => {}
        }
        if let Some(record) = seen.committed() {
            let shares = record.stages.iter().flat_map(|part| &part.shares);
            for share in shares.filter(|share| !share.microbatches.is_empty()) {
                let Some((iteration, attempt, microbatch)) = self.added.get(&share.node) else { continue };
                if (*iteration, *attempt) == (record.iteration, record.attempt) {
                    return Err(format!("{} gave {microbatch} up, and adds it in {iteration}", share.node));
                }
            }
            self.moved.retain(|(iteration, ..)| *iteration > record.iteration);
        }
        Ok(())
    }
}
