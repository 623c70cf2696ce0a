//! What a simulation tells: a report, or the promise that was broken.

use super::kinds::Fault;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A run that kept every promise.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Nodes at the start.
    pub nodes: usize,
    /// Iterations committed.
    pub iterations: u64,
    /// Attempts given up.
    pub aborted: u64,
    /// Coordinators that opened the journal.
    pub terms: u64,
    /// Stages that lost their last replica.
    pub stages_lost: u64,
    /// Stages that were rebuilt.
    pub rebuilt: u64,
    /// Copies of stages that nodes of other stages came to keep.
    pub copies: u64,
    /// Rebuilds from such a copy that began.
    pub restored: u64,
    /// Stages that were made of others and learned from what neighbours had kept.
    pub learned: u64,
    /// Stages that were restored from copies and took steps again that they had taken since.
    pub retraced: u64,
    /// Stages that nobody served at the end, and that were saved as their copies were.
    pub saved_copies: u64,
    /// Times that a run went back to its last checkpoint.
    pub rolled_back: u64,
    /// Shares of lost nodes that replicas replayed.
    pub repaired: u64,
    /// Times that a late node's microbatches moved to a replica.
    pub hedged: u64,
    /// Shares that were refused.
    pub refused: u64,
    /// Nodes whose shares were refused too often.
    pub struck: u64,
    /// Shares that a replica computed again, with the same bits.
    pub checked: u64,
    /// Nodes that spot checks set aside.
    pub found: u64,
    /// Committed iterations with at least one hole.
    pub around_holes: u64,
    /// Times that a run was begun anew with `--resume`.
    pub resumed: u64,
    /// What went wrong, and how often.
    pub faults: BTreeMap<Fault, u64>,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// Events simulated.
    pub events: u64,
    /// How the run ended.
    pub ended: String,
}

/// A broken promise.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// The invariant, by the name of its file.
    pub invariant: String,
    /// What was seen.
    pub what: String,
    /// When, in virtual microseconds.
    pub at_us: u64,
    /// The command that shows it again.
    pub reproduce: String,
    /// What happened just before, oldest first (if traced).
    pub trace: Vec<String>,
    /// The cores at that moment (if traced).
    pub dump: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} broke {}", self.seed, self.invariant)?;
        writeln!(f, "  at {:.6} s: {}", self.at_us as f64 / 1e6, self.what)?;
        write!(f, "  again: {}", self.reproduce)
    }
}

impl std::error::Error for Violation {}

/// The outcome of many seeds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SeedsReport {
    /// Seeds run.
    pub seeds: u64,
    /// Iterations committed in all of them.
    pub iterations: u64,
    /// Attempts given up.
    pub aborted: u64,
    /// Coordinators that opened a journal.
    pub terms: u64,
    /// Stages that lost their last replica.
    pub stages_lost: u64,
    /// Stages that were rebuilt.
    pub rebuilt: u64,
    /// Copies of stages that nodes of other stages came to keep.
    pub copies: u64,
    /// Rebuilds from such a copy that began.
    pub restored: u64,
    /// Stages that were made of others and learned from what neighbours had kept.
    pub learned: u64,
    /// Stages that were restored from copies and took steps again that they had taken since.
    pub retraced: u64,
    /// Stages that nobody served at the end, and that were saved as their copies were.
    pub saved_copies: u64,
    /// Times that a run went back to its last checkpoint.
    pub rolled_back: u64,
    /// Shares of lost nodes that replicas replayed.
    pub repaired: u64,
    /// Times that a late node's microbatches moved to a replica.
    pub hedged: u64,
    /// Shares that were refused.
    pub refused: u64,
    /// Nodes whose shares were refused too often.
    pub struck: u64,
    /// Shares that a replica computed again, with the same bits.
    pub checked: u64,
    /// Nodes that spot checks set aside.
    pub found: u64,
    /// Committed iterations with at least one hole.
    pub around_holes: u64,
    /// Times that a run was begun anew with `--resume`.
    pub resumed: u64,
    /// What went wrong, and how often.
    pub faults: BTreeMap<Fault, u64>,
    /// How runs ended, and how often.
    pub ended: BTreeMap<String, u64>,
    /// Events simulated.
    pub events: u64,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// Wall-clock seconds.
    pub wall_s: f64,
    /// Broken promises, by seed.
    pub violations: Vec<Violation>,
}

impl SeedsReport {
    /// Adds the outcome of a seed.
    pub(super) fn add(&mut self, outcome: Result<Report, Box<Violation>>) {
        self.seeds += 1;
        match outcome {
            Ok(report) => {
                self.iterations += report.iterations;
                self.aborted += report.aborted;
                self.terms += report.terms;
                self.stages_lost += report.stages_lost;
                self.rebuilt += report.rebuilt;
                self.copies += report.copies;
                self.restored += report.restored;
                self.learned += report.learned;
                self.retraced += report.retraced;
                self.saved_copies += report.saved_copies;
                self.rolled_back += report.rolled_back;
                self.repaired += report.repaired;
                self.hedged += report.hedged;
                self.refused += report.refused;
                self.struck += report.struck;
                self.checked += report.checked;
                self.found += report.found;
                self.around_holes += report.around_holes;
                self.resumed += report.resumed;
                self.events += report.events;
                self.virtual_s += report.virtual_s;
                *self.ended.entry(report.ended).or_default() += 1;
                for (fault, count) in report.faults {
                    *self.faults.entry(fault).or_default() += count;
                }
            }
            Err(violation) => self.violations.push(*violation),
        }
    }
}
