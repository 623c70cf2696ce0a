//! Whoever holds the state of a stage before an iteration holds the same bits, and the record names them.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::ToCoordinator;
use skipstone_types::NodeId;
use std::collections::BTreeSet;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct ReplicasBitwiseEqual {
    /// Nodes that have computed wrong numbers: what they hold is told from the others' before anything comes of it.
    wrong: BTreeSet<NodeId>,
}

impl Invariant for ReplicasBitwiseEqual {
    fn name(&self) -> &'static str {
        "replicas_bitwise_equal"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        if let Some(record) = seen.committed() {
            for part in record.stages.iter().filter(|part| !part.members.is_empty()) {
                if part.state.is_none() || part.state != truth.state(part.stage, record.iteration) {
                    let (t, stage, state) = (record.iteration, part.stage, part.state);
                    return Err(format!("the record of {t} says that {stage} was {state:?}"));
                }
                let deviates = |node: &&NodeId| {
                    let held = truth.held.get(node).filter(|held| held.iteration == record.iteration);
                    held.is_some_and(|held| Some(held.digest) != part.state)
                };
                if let Some(node) = part.members.iter().find(deviates) {
                    return Err(format!("{node} is a member of {} and holds other bits", part.stage));
                }
            }
        }
        if let Observation::Miscomputed { node } = seen {
            self.wrong.insert(*node);
        }
        let Observation::Reported { node, message } = seen else { return Ok(()) };
        let ToCoordinator::Holds { transfer, stage, iteration, digest } = message else { return Ok(()) };
        if iteration.0 > truth.committed() {
            return Err(format!("{node} holds {stage} for {iteration}, which is not reached yet"));
        }
        // A state made anew is nobody's replica until it has entered.
        let made_anew = truth.rebuilt.get(digest).is_some_and(|rebuilt| rebuilt.stage == *stage);
        // Who copies from a donor that has computed wrong numbers holds those: it is compared with the others before it enters.
        let is_wrong_of_stage =
            |wrong: &NodeId| truth.held.get(wrong).is_some_and(|held| held.stage == *stage);
        let served = truth.served(*stage, *iteration, *digest);
        if transfer.is_some() && !made_anew && !served && self.wrong.iter().any(is_wrong_of_stage) {
            self.wrong.insert(*node);
        }
        if made_anew || self.wrong.contains(node) || served {
            Ok(())
        } else {
            let how = if transfer.is_some() { "after a transfer" } else { "after a step" };
            Err(format!("{node} holds other bits of {stage} for {iteration} {how}"))
        }
    }
}
