//! What a stage's weights remember: one that was made from others starts anew, one that was restored from a copy goes on from it.

use skipstone_protocol::{CommitRecord, Rebuild};
use skipstone_types::{Iteration, StageId};
use std::collections::BTreeMap;

/// Where a lineage comes from: the lineage that it goes on from, and the iteration before which.
type Copied = (u32, Iteration);

/// Lineages that were restored from copies, by stage and lineage.
#[derive(Debug, Default)]
pub(super) struct Restored(BTreeMap<(StageId, u32), Copied>);

impl Restored {
    /// Takes in how a stage was made again. After a rollback lineages are counted anew, so the last word counts.
    pub(super) fn note(&mut self, rebuild: &Rebuild) {
        let key = (rebuild.stage, rebuild.lineage);
        match rebuild.goes_on_from() {
            Some(copied) => _ = self.0.insert(key, copied),
            None => _ = self.0.remove(&key),
        }
    }

    /// For every lineage that the stages' weights of now remember, the iteration before which; lineages that are not there are
    /// forgotten.
    pub(super) fn remembered(&self, current: &BTreeMap<StageId, u32>) -> BTreeMap<(StageId, u32), Iteration> {
        let mut remembered = BTreeMap::new();
        for (stage, lineage) in current {
            let (mut lineage, mut until) = (*lineage, Iteration(u64::MAX));
            remembered.insert((*stage, lineage), until);
            while let Some((copied, before)) = self.0.get(&(*stage, lineage)).filter(|(of, _)| *of < lineage)
            {
                (lineage, until) = (*copied, until.min(*before));
                remembered.insert((*stage, lineage), until);
            }
        }
        remembered
    }

    /// Where this lineage comes from, if it was restored.
    pub(super) fn copied(&self, stage: StageId, lineage: u32) -> Option<Copied> {
        self.0.get(&(stage, lineage)).copied()
    }
}

/// Microbatches that a stage's weights have learnt from, as records come.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    /// Its lineage now, and what it has learnt.
    now: BTreeMap<StageId, (u32, u64)>,
    /// What each lineage began with.
    began: BTreeMap<(StageId, u32), u64>,
}

impl Learnt {
    /// The stages and their lineages.
    pub(super) fn stages(&self) -> impl Iterator<Item = (StageId, u32)> + '_ {
        self.now.iter().map(|(stage, (lineage, _))| (*stage, *lineage))
    }

    /// The stage is of this lineage from now on; gives what it has forgotten by that.
    pub(super) fn goes_on_as(
        &mut self,
        stage: StageId,
        lineage: u32,
        restored: &Restored,
        history: &BTreeMap<Iteration, &CommitRecord>,
    ) -> u64 {
        let kept = restored.copied(stage, lineage).map_or(0, |(copied, before)| {
            let parts = history.range(..before).filter_map(|(_, record)| record.stage(stage));
            let of_lineage = parts.filter(|part| part.lineage == copied);
            self.began.get(&(stage, copied)).copied().unwrap_or(0)
                + of_lineage.map(|part| u64::from(part.microbatches())).sum::<u64>()
        });
        let learnt = self.now.insert(stage, (lineage, kept)).map_or(0, |(_, learnt)| learnt);
        self.began.insert((stage, lineage), kept);
        learnt.saturating_sub(kept)
    }

    /// The stage's lineage so far; this one, if it was not heard of before.
    pub(super) fn lineage_of(&mut self, stage: StageId, first: u32) -> u32 {
        self.now.entry(stage).or_insert((first, 0)).0
    }

    /// It has learnt from so many more microbatches.
    pub(super) fn add(&mut self, stage: StageId, microbatches: u64) {
        if let Some((_, learnt)) = self.now.get_mut(&stage) {
            *learnt += microbatches;
        }
    }
}
