//! While a living node keeps a copy of a lost stage, the stage is made again from the newest that one keeps, and from nothing else; a
//! run that ends without a node for the stage saves a copy.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{Entry, KeptCopy, Method, ToCoordinator, ToWorker};
use skipstone_types::{Event, Iteration, NodeId, StageId};
use std::collections::BTreeMap;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct AKeptCopyIsUsed {
    /// Before which iteration the stage was as the node keeps it.
    kept: BTreeMap<(StageId, NodeId), Iteration>,
    /// What was last published as `state/`.
    published: Option<(Iteration, Vec<StageId>)>,
}

impl AKeptCopyIsUsed {
    fn forget_node(&mut self, node: NodeId) {
        self.kept.retain(|(_, keeper), _| *keeper != node);
    }

    /// The newest copy of a stage that a node other than `but` keeps.
    fn newest(&self, stage: StageId, but: NodeId) -> Option<Iteration> {
        let of_others = self.kept.iter().filter(|((of, keeper), _)| *of == stage && *keeper != but);
        of_others.map(|(_, iteration)| *iteration).max()
    }
}

impl Invariant for AKeptCopyIsUsed {
    fn name(&self) -> &'static str {
        "a_kept_copy_is_used"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Written { entry: Entry::RolledBack { .. } } => *self = Self::default(),
            Observation::Restored { .. } | Observation::BegunAnew => self.kept.clear(),
            Observation::Log { event: Event::CopyKept { stage, iteration, node } } => {
                self.kept.insert((*stage, *node), *iteration);
            }
            // What counts for nothing it is told to drop.
            Observation::Bound { node, holding: Some(holding) } => {
                for KeptCopy { stage, iteration, .. } in &holding.copies {
                    self.kept.insert((*stage, *node), *iteration);
                }
            }
            Observation::Published { iteration, stages } => {
                self.published = Some((*iteration, stages.iter().map(|saved| saved.stage).collect()));
            }
            Observation::Ended { bound, .. } => {
                let saved = self.published.as_ref().filter(|(iteration, _)| iteration.0 == truth.committed());
                let left_out = |(stage, keeper): &&(StageId, NodeId)| {
                    bound.contains(keeper) && saved.is_some_and(|(_, stages)| !stages.contains(stage))
                };
                if let Some((stage, keeper)) = self.kept.keys().find(left_out) {
                    return Err(format!("the run ends without {stage}, of which {keeper} keeps a copy"));
                }
            }
            Observation::Disconnected { node } => self.forget_node(*node),
            Observation::Told { node, message } => match message {
                ToWorker::Welcome { empty: true, .. } => self.forget_node(*node),
                ToWorker::Assign { stage, method, .. } if *method != Method::Keep => {
                    let donor = match method {
                        Method::Rebuild { recipe, donors, .. } if recipe.restores(*stage) => donors.first(),
                        _ => None,
                    };
                    if let Some((donor, newest)) = donor.zip(self.newest(*stage, *node))
                        && self.kept.get(&(*stage, *donor)).is_none_or(|given| *given < newest)
                    {
                        return Err(format!(
                            "{stage} is made from what {donor} keeps; there is a copy before {newest}"
                        ));
                    }
                    self.forget_node(*node);
                }
                ToWorker::DropCopy { stage } => _ = self.kept.remove(&(*stage, *node)),
                _ => {}
            },
            Observation::Reported { node, message } => match message {
                // It has taken the place of the one before, and may have other bits than it should.
                ToCoordinator::CopyKept { stage, .. } => _ = self.kept.remove(&(*stage, *node)),
                ToCoordinator::TransferFailed { .. } => self.forget_node(*node),
                _ => {}
            },
            Observation::Log { event: Event::RebuildStarted { stage, node, sources, .. } } => {
                let restores = matches!(sources[..], [(source, _)] if source == *stage);
                if let Some(newest) = self.newest(*stage, *node).filter(|_| !restores) {
                    return Err(format!(
                        "{stage} is made from {sources:?} although a copy of it before {newest} is kept"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
