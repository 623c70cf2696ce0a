//! In each stage that its path reaches, a microbatch is in one share of the record, its owner's; and in no other.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::CommitRecord;
use skipstone_types::{Microbatch, NodeId, StageId};
use std::collections::BTreeMap;

/// See the file's name.
#[derive(Debug)]
pub(super) struct EachMicrobatchCountedOnce;

impl Invariant for EachMicrobatchCountedOnce {
    fn name(&self) -> &'static str {
        "each_microbatch_counted_once"
    }

    fn section(&self) -> &'static str {
        "§4.3"
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
    for path in &record.paths {
        let stages: Vec<_> = path.0.iter().map(|visit| visit.stage.0).collect();
        // The balanced chooser climbs; its jumps may be longer than the rules allow where there are holes.
        if stages.first() != Some(&0) || stages.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(format!("{} has a path over stages {stages:?}", record.iteration));
        }
    }
    Ok(())
}
