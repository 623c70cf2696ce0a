//! Every member of a stage has reported the digest of the reduced gradient before the record is written.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{CoordinatorInput, ToCoordinator};
use skipstone_types::{Attempt, Digest, Iteration, NodeId};
use std::collections::BTreeMap;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct HashesBeforeStep {
    reported: BTreeMap<(NodeId, Iteration, Attempt), Digest>,
}

impl Invariant for HashesBeforeStep {
    fn name(&self) -> &'static str {
        "hashes_before_step"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Restored { .. } => self.reported.clear(),
            Observation::Heard {
                input:
                    CoordinatorInput::Worker {
                        node,
                        message: ToCoordinator::Reduced { iteration, attempt, digest, .. },
                    },
            } => {
                self.reported.insert((*node, *iteration, *attempt), *digest);
            }
            _ => {}
        }
        let Some(record) = seen.committed() else { return Ok(()) };
        for part in record.stages.iter().filter(|part| !part.shares.is_empty()) {
            for node in &part.members {
                let said = self.reported.get(&(*node, record.iteration, record.attempt));
                if said != Some(&part.gradient) {
                    let (t, stage, gradient) = (record.iteration, part.stage, part.gradient);
                    return Err(format!("{t} commits {gradient:?} at {stage}, and {node} said {said:?}"));
                }
            }
        }
        self.reported.retain(|(_, t, _), _| *t > record.iteration);
        Ok(())
    }
}
