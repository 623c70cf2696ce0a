//! A node whose share is refused in three iterations that come out right without it is cut off before the next attempt, if
//! the stage that it serves by then has another replica. Its strikes outlive a cut link and the death of a coordinator.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_types::{Event, Iteration, NodeId, Remedy, StageId};
use std::collections::{BTreeMap, BTreeSet};

/// So many strikes are one too many.
const STRIKES: usize = 3;

/// Strikes count for so many iterations.
const REMEMBERED_ITERATIONS: u64 = 200;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct StruckNodesAreSetAside {
    /// Whose share of the iteration under way was refused.
    refused: BTreeMap<NodeId, StageId>,
    /// Stages where a refused share counts after all.
    confirmed: BTreeSet<StageId>,
    strikes: BTreeMap<NodeId, Vec<Iteration>>,
    /// To be cut off now, as long as one of these replicas is there.
    due: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Invariant for StruckNodesAreSetAside {
    fn name(&self) -> &'static str {
        "struck_nodes_are_set_aside"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            // Another coordinator gives everyone another id. What the last one died over it may not have written.
            Observation::Restored { .. } => {
                let mut strikes = std::mem::take(&mut self.strikes);
                strikes.values_mut().for_each(|of| of.retain(|strike| strike.0 + 1 < truth.committed()));
                *self = Self { strikes, ..Self::default() };
            }
            Observation::Bound { node, holding: Some(holding) } => {
                let names = holding.names.iter().chain([&holding.node]);
                let strikes: Vec<_> = names.filter_map(|name| self.strikes.remove(name)).flatten().collect();
                self.strikes.insert(*node, strikes);
            }
            Observation::Disconnected { node } => {
                self.due.remove(node);
                self.due.retain(|_, others| {
                    others.remove(node);
                    !others.is_empty()
                });
                self.refused.remove(node);
            }
            Observation::Log { event: Event::ShareRefused { node, stage, then, .. } } => {
                self.refused.insert(*node, *stage);
                if *then == Remedy::Counts {
                    self.confirmed.insert(*stage);
                }
            }
            Observation::Log { event: Event::AttemptStarted { iteration, .. } } => {
                if let Some(node) = self.due.keys().next() {
                    return Err(format!("{iteration} goes on with {node}, which has {STRIKES} strikes"));
                }
            }
            _ => {}
        }
        let Some(record) = seen.committed() else { return Ok(()) };
        let confirmed = std::mem::take(&mut self.confirmed);
        for (node, stage) in std::mem::take(&mut self.refused) {
            if confirmed.contains(&stage) {
                continue;
            }
            let strikes = self.strikes.entry(node).or_default();
            strikes.retain(|strike| strike.0 + REMEMBERED_ITERATIONS > record.iteration.0);
            strikes.push(record.iteration);
            // It may have been given another stage since.
            let serves = record.stages.iter().find(|part| part.members.contains(&node));
            let members = serves.or(record.stage(stage)).map_or(&[][..], |part| &part.members);
            let others: BTreeSet<_> = members.iter().copied().filter(|member| *member != node).collect();
            if strikes.len() >= STRIKES && !others.is_empty() {
                self.due.insert(node, others);
            }
        }
        Ok(())
    }
}
