//! While a living node keeps the newest copy of a lost stage, the stage is made again from it, and from nothing else; a run that ends
//! without a node for the stage saves the copy.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{Entry, KeptCopy, Method, StageCopy, ToCoordinator, ToWorker};
use skipstone_types::{Event, Iteration, NodeId, StageId};
use std::collections::BTreeMap;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct AKeptCopyIsUsed {
    /// The newest that were journalled.
    newest: BTreeMap<StageId, StageCopy>,
    keepers: BTreeMap<StageId, NodeId>,
    /// What was last published as `state/`.
    published: Option<(Iteration, Vec<StageId>)>,
}

impl AKeptCopyIsUsed {
    fn forget_node(&mut self, node: NodeId) {
        self.keepers.retain(|_, keeper| *keeper != node);
    }

    fn forget(&mut self, node: NodeId, stage: StageId) {
        self.keepers.retain(|of, keeper| *of != stage || *keeper != node);
    }
}

impl Invariant for AKeptCopyIsUsed {
    fn name(&self) -> &'static str {
        "a_kept_copy_is_used"
    }

    fn section(&self) -> &'static str {
        "§5"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Written { entry: Entry::CopyKept(copy) } => {
                self.newest.insert(copy.stage, copy.clone());
            }
            Observation::Written { entry: Entry::RolledBack { .. } } => *self = Self::default(),
            Observation::Restored { .. } | Observation::BegunAnew => self.keepers.clear(),
            Observation::Log { event: Event::CopyKept { stage, node, .. } } => {
                self.keepers.insert(*stage, *node);
            }
            Observation::Bound { node, holding: Some(holding) } => {
                for KeptCopy { stage, iteration, digest } in &holding.copies {
                    let newest = self.newest.get(stage);
                    let is_newest =
                        newest.is_some_and(|copy| (copy.iteration, copy.state) == (*iteration, *digest));
                    if is_newest && !self.keepers.contains_key(stage) {
                        self.keepers.insert(*stage, *node);
                    }
                }
            }
            Observation::Published { iteration, stages } => {
                self.published = Some((*iteration, stages.iter().map(|saved| saved.stage).collect()));
            }
            Observation::Ended { bound, .. } => {
                let saved = self.published.as_ref().filter(|(iteration, _)| iteration.0 == truth.committed());
                let left_out = |(stage, keeper): &(&StageId, &NodeId)| {
                    bound.contains(keeper) && saved.is_some_and(|(_, stages)| !stages.contains(stage))
                };
                if let Some((stage, keeper)) = self.keepers.iter().find(left_out) {
                    return Err(format!("the run ends without {stage}, of which {keeper} keeps a copy"));
                }
            }
            Observation::Disconnected { node } => self.forget_node(*node),
            Observation::Told { node, message } => match message {
                ToWorker::Welcome { empty: true, .. } => self.forget_node(*node),
                ToWorker::Assign { method, .. } if *method != Method::Keep => self.forget_node(*node),
                ToWorker::DropCopy { stage } => self.forget(*node, *stage),
                _ => {}
            },
            Observation::Reported { node, message } => match message {
                // It has taken the place of the one before, and may have other bits than it should.
                ToCoordinator::CopyKept { stage, .. } => self.forget(*node, *stage),
                ToCoordinator::TransferFailed { .. } => self.forget_node(*node),
                _ => {}
            },
            Observation::Log { event: Event::RebuildStarted { stage, node, sources, .. } } => {
                let restores = matches!(sources[..], [(source, _)] if source == *stage);
                let keeper = self.keepers.get(stage).filter(|keeper| *keeper != node);
                if let Some(keeper) = keeper.filter(|_| !restores) {
                    return Err(format!(
                        "{stage} is made from {sources:?} although {keeper} keeps a copy of it"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
