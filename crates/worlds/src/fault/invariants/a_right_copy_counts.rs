//! A copy that arrives with the bits that its stage had counts, however long it was on its way.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{CoordinatorInput, Entry, Rebuild, ToCoordinator, ToWorker};
use skipstone_types::{Event, Iteration, NodeId, StageId};
use std::collections::BTreeMap;

/// Iterations until all replicas of a stage have said what they held.
const SAID_ITERATIONS: u64 = 3;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct ARightCopyCounts {
    /// Who was last asked to keep the stage, as it was before which iteration.
    asked: BTreeMap<StageId, (NodeId, Iteration)>,
    /// Such copies that have arrived as they should be, and don't count yet.
    right: BTreeMap<StageId, (NodeId, Iteration)>,
}

impl ARightCopyCounts {
    fn forget(&mut self, gone: impl Fn(StageId, NodeId) -> bool) {
        self.asked.retain(|stage, (node, _)| !gone(*stage, *node));
        self.right.retain(|stage, (node, _)| !gone(*stage, *node));
    }
}

impl Invariant for ARightCopyCounts {
    fn name(&self) -> &'static str {
        "a_right_copy_counts"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Written { entry: Entry::RolledBack { .. } }
            | Observation::Restored { .. }
            | Observation::BegunAnew => *self = Self::default(),
            // What was copied is not what the stage is now.
            Observation::Written { entry: Entry::Rebuilt(rebuild) } => {
                let Rebuild { stage, .. } = **rebuild;
                self.forget(|of, _| of == stage);
            }
            Observation::Written { entry: Entry::CopyKept(copy) } => _ = self.right.remove(&copy.stage),
            Observation::Disconnected { node } => self.forget(|_, keeper| keeper == *node),
            Observation::Log { event: Event::NodeLost { node, .. } | Event::NodeEmptied { node, .. } } => {
                self.forget(|_, keeper| keeper == *node);
            }
            Observation::Told { node, message } => match message {
                ToWorker::KeepCopy { stage, iteration, .. } => {
                    self.asked.insert(*stage, (*node, *iteration));
                }
                ToWorker::Assign { .. } | ToWorker::Welcome { .. } => {
                    self.forget(|_, keeper| keeper == *node);
                }
                ToWorker::DropCopy { stage } => {
                    self.asked.retain(|of, (keeper, _)| of != stage || keeper != node);
                    if let Some((keeper, iteration)) = self.right.remove(stage)
                        && keeper == *node
                        && iteration.0 + SAID_ITERATIONS < truth.committed()
                    {
                        return Err(format!("{node} drops {stage} as it was before {iteration}"));
                    }
                }
                _ => {}
            },
            // What is on its way to the coordinator when it gives the copy up comes too late.
            Observation::Heard { input: CoordinatorInput::Worker { node, message } } => {
                let ToCoordinator::CopyKept { stage, iteration, digest, .. } = message else { return Ok(()) };
                let is_right = truth.state(*stage, *iteration) == Some(*digest);
                if is_right && self.asked.get(stage) == Some(&(*node, *iteration)) {
                    self.right.insert(*stage, (*node, *iteration));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
