//! Paths of microbatches through stages, and the rules that they obey (`docs/instances.md`).

use crate::{NodeId, StageId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One stop of a path: a stage, and the node that serves it for this microbatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Visit {
    /// The stage visited.
    pub stage: StageId,
    /// The node that owns this microbatch at that stage.
    pub node: NodeId,
}

/// The ordered visits of one microbatch, origin first; backward walks it in reverse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Path(pub Vec<Visit>);

impl Path {
    /// Whether the path visits `stage`.
    pub fn reaches(&self, stage: StageId) -> bool {
        self.0.iter().any(|visit| visit.stage == stage)
    }

    /// Who sends a relay stage its activation on this path, and who gets what it makes of it: after the last relay the origin. None:
    /// the path doesn't visit it, or it is the origin.
    pub fn neighbours(&self, stage: StageId) -> Option<(Visit, Visit)> {
        let place = self.0.iter().position(|visit| visit.stage == stage)?;
        let before = self.0.get(place.checked_sub(1)?)?;
        let after = self.0.get(place + 1).or(self.0.first())?;
        Some((*before, *after))
    }
}

/// Which orders of stages a path may take (SkipPipe, arXiv 2502.19913; the limits are its code's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRules {
    /// Largest distance behind the frontier that a swap may go back.
    pub swap_distance_max: u16,
    /// Most swaps in one path.
    pub swap_count_max: u16,
    /// Largest sum of swap distances in one path.
    pub swap_total_distance_max: u16,
    /// Largest |next − frontier|.
    pub jump_max: u16,
}

impl Default for PathRules {
    fn default() -> Self {
        Self { swap_distance_max: 1, swap_count_max: 2, swap_total_distance_max: 2, jump_max: 4 }
    }
}

/// The first rule that a path breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathViolation {
    /// The path is empty or does not start at the origin.
    #[error("a path starts at the origin (stage 0)")]
    Start,
    /// A stage appears twice.
    #[error("{0} is visited twice")]
    Twice(StageId),
    /// A swap goes back too far.
    #[error("the swap back to {0} is too long")]
    SwapDistance(StageId),
    /// There are too many swaps, or their distances add up to too much.
    #[error("the path has too many swaps")]
    SwapCount,
    /// A jump past the frontier is too long.
    #[error("the jump to {0} is too long")]
    Jump(StageId),
}

impl PathRules {
    /// Checks the order of stages of `path` against the rules.
    ///
    /// # Errors
    /// The first rule broken, in the order of the path.
    pub fn check(&self, stages: &[StageId]) -> Result<(), PathViolation> {
        let Some((first, rest)) = stages.split_first() else { return Err(PathViolation::Start) };
        if !first.is_origin() {
            return Err(PathViolation::Start);
        }
        let (mut frontier, mut swaps, mut distance) = (0_u16, 0_u16, 0_u16);
        for (index, stage) in rest.iter().enumerate() {
            if stages[..=index].contains(stage) {
                return Err(PathViolation::Twice(*stage));
            }
            if stage.0.abs_diff(frontier) > self.jump_max {
                return Err(PathViolation::Jump(*stage));
            }
            if stage.0 < frontier {
                let back = frontier - stage.0;
                if back > self.swap_distance_max {
                    return Err(PathViolation::SwapDistance(*stage));
                }
                swaps += 1;
                distance += back;
                if swaps > self.swap_count_max || distance > self.swap_total_distance_max {
                    return Err(PathViolation::SwapCount);
                }
            }
            frontier = frontier.max(stage.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stages: &[u16]) -> Result<(), PathViolation> {
        let stages: Vec<_> = stages.iter().copied().map(StageId).collect();
        PathRules::default().check(&stages)
    }

    #[test]
    fn rules_of_the_planner_document() {
        assert_eq!(check(&[0, 1, 2, 3]), Ok(()));
        assert_eq!(check(&[0, 2, 1, 4, 3]), Ok(()));
        assert_eq!(check(&[1, 2]), Err(PathViolation::Start));
        assert_eq!(check(&[0, 2, 2]), Err(PathViolation::Twice(StageId(2))));
        assert_eq!(check(&[0, 3, 1]), Err(PathViolation::SwapDistance(StageId(1))));
        assert_eq!(check(&[0, 2, 1, 4, 3, 6, 5]), Err(PathViolation::SwapCount));
        assert_eq!(check(&[0, 5]), Err(PathViolation::Jump(StageId(5))));
    }
}
