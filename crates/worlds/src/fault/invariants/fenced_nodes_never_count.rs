//! A node that was declared lost counts only if its share was in a reduced gradient that someone had reported before.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{CoordinatorInput, ToCoordinator};
use skipstone_types::{Attempt, Digest, Iteration, NodeId};
use std::collections::BTreeMap;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct FencedNodesNeverCount {
    /// When nodes were declared lost, counted in observations.
    lost: BTreeMap<NodeId, u64>,
    /// When a gradient was first reported, with who reported it.
    reported: BTreeMap<(Iteration, Attempt, Digest), u64>,
    now: u64,
}

impl Invariant for FencedNodesNeverCount {
    fn name(&self) -> &'static str {
        "fenced_nodes_never_count"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        self.now += 1;
        match seen {
            Observation::Disconnected { node }
            | Observation::Heard { input: CoordinatorInput::Lost { node, .. } } => {
                self.lost.entry(*node).or_insert(self.now);
            }
            Observation::Bound { node, .. } if self.lost.contains_key(node) => {
                return Err(format!("{node} is taken in again under the id that it was lost with"));
            }
            Observation::Heard {
                input:
                    CoordinatorInput::Worker {
                        message: ToCoordinator::Reduced { iteration, attempt, digest, .. },
                        ..
                    },
            } => {
                self.reported.entry((*iteration, *attempt, *digest)).or_insert(self.now);
            }
            _ => {}
        }
        let Some(record) = seen.committed() else { return Ok(()) };
        for part in &record.stages {
            if let Some(node) = part.members.iter().find(|node| self.lost.contains_key(node)) {
                return Err(format!("{node} is lost, and still a member of {}", part.stage));
            }
            for share in &part.shares {
                let Some(lost) = self.lost.get(&share.node) else { continue };
                let reported = self.reported.get(&(record.iteration, record.attempt, part.gradient));
                if reported.is_none_or(|reported| reported > lost) {
                    let (t, stage, node) = (record.iteration, part.stage, share.node);
                    return Err(format!("{node} was lost before {stage} was reduced, and counts in {t}"));
                }
            }
        }
        Ok(())
    }
}
