//! What a rebuilt stage learns from what its neighbours have kept, before it enters.
//!
//! A stage is a function. What it was given, and what it made of that, its neighbours on the paths have had in their hands: the
//! activations that were sent to it, and those that came from it. They keep those of the last iterations; no byte is sent for it in
//! calm times. A stage that is made of others' weights then takes a few steps towards giving the same answers again, before
//! anybody trains with it. (Neither paper has this.)

use crate::spec::{Spec, SpecError};
use serde::{Deserialize, Serialize};
use skipstone_types::{Iteration, Microbatch};

/// Most lessons of one rebuild, the newest: an activation each way for every one of them.
pub const LESSONS_MAX: usize = 64;

/// Most iterations whose activations are kept.
const KEPT_ITERATIONS_MAX: u64 = 16;

/// Most steps of one rebuild.
const STEPS_MAX: u64 = 10_000;

/// One microbatch that passed through the stage when it still lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lesson {
    /// The iteration, which committed.
    pub iteration: Iteration,
    /// The microbatch.
    pub microbatch: Microbatch,
}

/// How a rebuilt stage learns to answer as it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matching {
    /// Steps of Adam, each over one sequence, of each lesson in turn. The rate rises for the first few, then falls to zero.
    pub steps: u32,
    /// The highest learning rate of them.
    pub rate: f64,
    /// What there is to learn from, in ascending order; none: the stage stays what its sources make it.
    pub lessons: Vec<Lesson>,
}

/// What multiplies the rate of a stage that was learned so, as its optimiser begins anew: it knows no second moments yet.
pub(crate) const RATE_FACTOR: f64 = 0.3;

/// Iterations within which the rate is nearly what it was again.
pub(crate) const RATE_DECAY_ITERATIONS: u64 = 10;

/// The options of a strategy that matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MatchingOptions {
    steps: u32,
    /// Iterations whose activations are kept.
    pub(crate) kept: u64,
    /// The highest rate, as a multiple of the run's peak.
    rate: f64,
}

impl MatchingOptions {
    /// The options `steps`, `kept` and `rate`.
    pub(crate) fn of(spec: &mut Spec<'_>) -> Result<Self, SpecError> {
        Ok(Self {
            steps: spec.whole("steps", 160, &(1..=STEPS_MAX))? as u32,
            kept: spec.whole("kept", 4, &(1..=KEPT_ITERATIONS_MAX))?,
            // Higher rates are as near after so few steps, but leave larger weights, which learn more slowly from then on.
            rate: spec.number("rate", 1.5, &(0.01..=100.0))?,
        })
    }

    /// For a run whose learning rate is this at its peak; the lessons are for who knows who lives.
    pub(crate) fn matching(self, learning_rate_peak: f64) -> Matching {
        Matching { steps: self.steps, rate: self.rate * learning_rate_peak, lessons: Vec::new() }
    }
}
