//! A node that comes with what a stage is now, or lacks only a step that it can take, is not told to forget it while nobody else
//! serves the stage: no stage is lost to the death of coordinators.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{Entry, Holding, ToWorker};
use skipstone_types::{Digest, Event, NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet};

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct NeededStatesAreKept {
    /// What the nodes came with.
    brought: BTreeMap<NodeId, Holding>,
    serving: BTreeMap<StageId, BTreeSet<NodeId>>,
    /// Stages of which a state was given away, with who held it.
    given_away: BTreeMap<StageId, NodeId>,
    /// Stages that were rebuilt since the last commit: what they were before is of no use.
    rebuilt: BTreeMap<StageId, Digest>,
}

/// Whether the stage's last step names it, and it is what its stage is now, or was before that step, with the gradient for it.
fn is_of_use(holding: &Holding, truth: &Truth) -> bool {
    if truth.state(holding.stage, holding.iteration) != Some(holding.state) {
        return false;
    }
    // Without a record that names it, nobody can say that it ever held the stage.
    let stepped =
        truth.records.iter().rev().filter_map(|record| record.stage(holding.stage)).find(|part| part.step);
    let Some(part) = stepped.filter(|part| part.members.iter().any(|member| holding.is_named(*member)))
    else {
        return false;
    };
    let now = truth.committed();
    holding.iteration.0 == now || holding.iteration.0 + 1 == now && holding.reduced == Some(part.gradient)
}

impl NeededStatesAreKept {
    /// Whether the stage has not become something else since. One that was made anew twice by the same recipe without sources
    /// is twice the same, so the bits alone don't tell.
    fn is_not_rebuilt(&self, holding: &Holding, truth: &Truth) -> bool {
        let rebuilt = self.rebuilt.get(&holding.stage);
        rebuilt.is_none_or(|state| *state == holding.state && holding.iteration.0 == truth.committed())
    }
}

impl Invariant for NeededStatesAreKept {
    fn name(&self) -> &'static str {
        "needed_states_are_kept"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Restored { .. } | Observation::BegunAnew => {
                *self = Self { rebuilt: std::mem::take(&mut self.rebuilt), ..Self::default() };
            }
            Observation::Written { entry: Entry::Rebuilt(rebuild) } => {
                self.rebuilt.insert(rebuild.stage, rebuild.state);
            }
            Observation::Written { entry: Entry::Committed(_) | Entry::RolledBack { .. } } => {
                self.rebuilt.clear();
            }
            Observation::Bound { node, holding: Some(holding) } => {
                self.brought.insert(*node, (*holding).clone());
            }
            Observation::Disconnected { node } => {
                self.brought.remove(node);
                self.serving.values_mut().for_each(|nodes| {
                    nodes.remove(node);
                });
            }
            Observation::Told { node, message: ToWorker::Welcome { empty: true, .. } } => {
                if let Some(holding) = self.brought.remove(node)
                    && is_of_use(&holding, truth)
                    && self.is_not_rebuilt(&holding, truth)
                    && self.serving.get(&holding.stage).is_none_or(BTreeSet::is_empty)
                {
                    self.given_away.insert(holding.stage, *node);
                }
            }
            Observation::Log { event: Event::NodeEntered { node, stage, .. } } => {
                self.serving.entry(*stage).or_default().insert(*node);
                self.given_away.remove(stage);
            }
            Observation::Log {
                event: Event::StageLost { stage, .. } | Event::RebuildStarted { stage, .. },
            } => {
                if let Some(node) = self.given_away.get(stage) {
                    return Err(format!("{stage} is lost although {node} came with what it is"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
