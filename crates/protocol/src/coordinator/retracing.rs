//! Which steps a restored stage takes again.

use super::Coordinator;
use crate::journal::{Rebuild, StageCopy};
use skipstone_recovery::{RETRACED_MAX, Recipe, Retraced};
use skipstone_types::{Iteration, NodeId, Visit};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Restored lineages of a stage that are remembered: as many as a stage can have in the iterations that are kept.
const LINEAGES_MAX: usize = 16;

/// A lineage that did not start anew.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Restored {
    lineage: u32,
    /// The lineage that it goes on from,
    from: u32,
    /// as that was before this iteration.
    before: Iteration,
}

/// What a stage's last lineages go on from.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RestoredLineages(VecDeque<Restored>);

impl RestoredLineages {
    /// The stage was made again.
    pub(super) fn note(&mut self, rebuild: &Rebuild) {
        let Some((from, before)) = rebuild.goes_on_from() else { return };
        self.0.push_back(Restored { lineage: rebuild.lineage, from, before });
        while self.0.len() > LINEAGES_MAX {
            self.0.pop_front();
        }
    }

    /// The lineages that go on from a copy, each with the iteration before which what it had learned was lost: the copy's own, and
    /// those that were restored from where this one was later.
    fn since(&self, copy: &StageCopy) -> BTreeMap<u32, Iteration> {
        let mut since = BTreeMap::new();
        let (mut lineage, mut begins) = (copy.lineage, copy.iteration);
        // The last that goes on from a lineage counts; what others made of it is lost. Lineages are counted up, so it ends.
        while let Some(next) = self.0.iter().rfind(|next| next.from == lineage && next.lineage > lineage) {
            if next.before < begins {
                // It goes on from an older copy.
                break;
            }
            since.insert(lineage, next.before);
            (lineage, begins) = (next.lineage, next.before);
        }
        since.insert(lineage, Iteration(u64::MAX));
        since
    }
}

/// Who has again what a stage made in iterations in which others served it: the node that took those steps again.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MadeAgain(Option<(NodeId, BTreeSet<Iteration>)>);

impl MadeAgain {
    /// `node` has made the stage with this recipe, and serves it.
    pub(super) fn of(node: NodeId, recipe: &Recipe) -> Self {
        let iterations: BTreeSet<_> = recipe.made_again().map(|lesson| lesson.iteration).collect();
        Self((!iterations.is_empty()).then_some((node, iterations)))
    }

    fn by(&self, iteration: Iteration) -> Option<NodeId> {
        self.0.as_ref().filter(|(_, iterations)| iterations.contains(&iteration)).map(|(node, _)| *node)
    }
}

impl Coordinator {
    /// The iterations in which a stage has stepped since a copy of it was taken, as far as there is for each of their microbatches
    /// who was before and after the stage on its path, or has made again what they had made, and has kept it; those two of each. `node`
    /// is to take the steps again; after a try that has failed there are none, so that what can't be had is not asked for again. The
    /// origin makes its activations and gradients itself, and is never retraced.
    pub(super) fn steps_since(
        &self,
        copy: &StageCopy,
        node: NodeId,
    ) -> (Vec<Retraced>, Vec<(NodeId, NodeId)>) {
        let (mut retraced, mut teachers) = (Vec::new(), Vec::new());
        let stage = copy.stage;
        let has_failed = self.stages[usize::from(stage.0)].lessons_failed;
        if !self.strategy.retraces() || stage.is_origin() || has_failed {
            return (retraced, teachers);
        }
        let keeper = |visit: Visit, iteration: Iteration| {
            let serves = |other: &NodeId| {
                *other != node && self.nodes.serving(visit.stage).binary_search(other).is_ok()
            };
            let again = || self.stages[usize::from(visit.stage.0)].made_again.by(iteration);
            Some(visit.node).filter(serves).or_else(|| again().filter(serves))
        };
        let lineages = self.stages[usize::from(stage.0)].restored.since(copy);
        let kept_from = self.iteration.0.saturating_sub(self.strategy.iterations_kept());
        for iteration in (copy.iteration.0..self.iteration.0).map(Iteration) {
            let Some(record) = self.records.get(&iteration).filter(|_| iteration.0 >= kept_from) else {
                break;
            };
            let Some(part) = record.stage(stage) else { break };
            let is_lost = lineages.get(&part.lineage).is_none_or(|until| iteration >= *until);
            if !part.step || is_lost {
                continue;
            }
            let shares: Vec<_> = part.shares.iter().map(|share| share.microbatches.clone()).collect();
            let neighbours = shares.iter().flatten().map(|microbatch| {
                let path = record.paths.get(microbatch.0 as usize)?;
                let (before, after) = path.neighbours(stage)?;
                Some((keeper(before, iteration)?, keeper(after, iteration)?))
            });
            let Some(neighbours) = neighbours.collect::<Option<Vec<_>>>() else { break };
            if teachers.len() + neighbours.len() > RETRACED_MAX {
                break;
            }
            teachers.extend(neighbours);
            let (lineage, learning_rate, clip_factor) =
                (part.lineage, record.learning_rate, part.clip_factor);
            retraced.push(Retraced { iteration, lineage, shares, learning_rate, clip_factor });
        }
        (retraced, teachers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_types::{Digest, StageId};

    fn copy(lineage: u32, iteration: u64) -> StageCopy {
        StageCopy { stage: StageId(1), iteration: Iteration(iteration), lineage, state: Digest::default() }
    }

    fn since(restored: &[(u32, u32, u64)], copy: &StageCopy) -> Vec<(u32, u64)> {
        let all = restored.iter().map(|(lineage, from, before)| Restored {
            lineage: *lineage,
            from: *from,
            before: Iteration(*before),
        });
        let since = RestoredLineages(all.collect()).since(copy);
        since.into_iter().map(|(lineage, until)| (lineage, until.0)).collect()
    }

    #[test]
    fn a_stage_that_was_lost_again_goes_on_from_all_that_it_was() {
        const ALL: u64 = u64::MAX;
        assert_eq!(since(&[], &copy(0, 8)), [(0, ALL)]);
        // Lost before 14 and before 16, and each time all steps were taken again.
        assert_eq!(since(&[(1, 0, 14), (2, 1, 16)], &copy(0, 8)), [(0, 14), (1, 16), (2, ALL)]);
        // The second time only those up to 12: what lineage 1 learned, and what 0 learned after that, is lost.
        assert_eq!(since(&[(1, 0, 14), (2, 0, 12)], &copy(0, 8)), [(0, 12), (2, ALL)]);
        // A copy that it did not go on from: it becomes what it was when that lineage ended.
        assert_eq!(since(&[(1, 0, 6)], &copy(0, 8)), [(0, ALL)]);
        assert_eq!(since(&[(1, 0, 14)], &copy(1, 20)), [(1, ALL)]);
        // An average in between starts anew.
        assert_eq!(since(&[(1, 0, 14), (3, 2, 20)], &copy(0, 8)), [(0, 14), (1, ALL)]);
    }
}
