//! Once faults are over, the next iteration commits, or the run ends, within a bounded time.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;

/// Virtual time that a run without faults has for its next iteration, or its end.
const CALM_US: u64 = 60_000_000;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct IterationsCommitWhenFaultsEnd {
    /// Whether an iteration was committed since the last look.
    progressed: bool,
    /// When the last one was, or when faults ended.
    since_us: u64,
}

impl Invariant for IterationsCommitWhenFaultsEnd {
    fn name(&self) -> &'static str {
        "iterations_commit_when_faults_end"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        if seen.committed().is_some() {
            self.progressed = true;
        }
        let Observation::Standing { now_us, calm_since_us, .. } = seen else { return Ok(()) };
        let Some(calm_since_us) = calm_since_us else { return Ok(()) };
        if std::mem::take(&mut self.progressed) || self.since_us < *calm_since_us {
            self.since_us = *now_us;
        }
        if *now_us <= self.since_us + CALM_US {
            return Ok(());
        }
        Err(format!(
            "faults ended at {:.3} s, {} of {} iterations are committed, and nothing more has been for {} s",
            *calm_since_us as f64 / 1e6,
            truth.committed(),
            truth.settings.steps,
            CALM_US / 1_000_000
        ))
    }
}
