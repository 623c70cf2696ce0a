//! In each stage that its path reaches, a microbatch is in one share of the record, its owner's; and in no other.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::CommitRecord;
use skipstone_types::{Microbatch, NodeId, PathRules, StageId};
use std::collections::BTreeMap;

/// See the file's name.
#[derive(Debug)]
pub(super) struct EachMicrobatchCountedOnce;

impl Invariant for EachMicrobatchCountedOnce {
    fn name(&self) -> &'static str {
        "each_microbatch_counted_once"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        let Some(record) = seen.committed() else { return Ok(()) };
        check_paths(record, truth)?;
        for part in &record.stages {
            let mut counted: BTreeMap<Microbatch, NodeId> = BTreeMap::new();
            for share in &part.shares {
                for microbatch in &share.microbatches {
                    if let Some(other) = counted.insert(*microbatch, share.node) {
                        let (stage, node) = (part.stage, share.node);
                        return Err(format!("{microbatch} counts twice at {stage}: by {other} and {node}"));
                    }
                }
            }
            let reached = owners(record, part.stage);
            if counted != reached {
                let t = record.iteration;
                return Err(format!("{t}, {}: paths say {reached:?}, shares say {counted:?}", part.stage));
            }
        }
        Ok(())
    }
}

/// Who owns each microbatch that reaches the stage, by the executed paths.
fn owners(record: &CommitRecord, stage: StageId) -> BTreeMap<Microbatch, NodeId> {
    let paths = record.paths.iter().enumerate();
    paths
        .filter_map(|(index, path)| {
            let visit = path.0.iter().find(|visit| visit.stage == stage)?;
            Some((Microbatch(index as u32), visit.node))
        })
        .collect()
}

fn check_paths(record: &CommitRecord, truth: &Truth) -> Result<(), String> {
    if record.paths.len() != truth.settings.microbatches as usize {
        return Err(format!("{} has {} paths", record.iteration, record.paths.len()));
    }
    let settings = &truth.settings;
    for (microbatch, path) in (0..).zip(&record.paths) {
        let stages: Vec<_> = path.0.iter().map(|visit| visit.stage).collect();
        // The balanced chooser climbs, but for the swaps that the run asks for; its jumps may be longer than the rules allow
        // where there are holes.
        let mut ordered = stages.clone();
        ordered.sort_unstable();
        let climbs =
            ordered.windows(2).all(|pair| pair[0] < pair[1]) && ordered.first() == Some(&StageId::ORIGIN);
        if let Some((_, relays)) = ordered.split_first_mut() {
            let rules = PathRules::default();
            settings.edge_swaps.order(microbatch, settings.relay_stages, &rules, relays, |stage| *stage);
        }
        if !climbs || stages != ordered {
            let numbers: Vec<_> = stages.iter().map(|stage| stage.0).collect();
            return Err(format!("{}: microbatch {microbatch} ran over stages {numbers:?}", record.iteration));
        }
    }
    Ok(())
}
