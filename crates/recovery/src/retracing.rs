//! The steps that a restored stage takes again.
//!
//! A copy is some iterations old. What the stage was sent in those iterations, and the gradients that came back to it, its neighbours
//! on the paths have made, and had in their hands. They keep those of the last iterations; no byte is sent for it in calm times. A
//! stage that is restored from its copy then computes the same forwards, backwards and steps again, and is what it was when it was
//! lost: bit for bit, if its copy was. (Neither paper has this. In databases it is redo from a log: a checkpoint, and what came
//! since.)

use crate::Lesson;
use serde::{Deserialize, Serialize};
use skipstone_types::{Digest, Iteration, Microbatch};

/// Most microbatches that one stage takes again: an activation and a gradient for every one of them.
pub const RETRACED_MAX: usize = 256;

/// Most iterations of which nodes keep what they made.
pub const RETRACED_ITERATIONS_MAX: u64 = 16;

/// A committed iteration in which the stage stepped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retraced {
    /// The iteration.
    pub iteration: Iteration,
    /// The stage's lineage then: it may have been restored since its copy was taken, and have gone on from there.
    pub lineage: u32,
    /// The microbatches of each of the stage's replicas, in the order in which their gradients were added, and the replicas in the
    /// order of summation.
    pub shares: Vec<Vec<Microbatch>>,
    /// The learning rate, before the stage's own factor.
    pub learning_rate: f64,
    /// Multiplies the gradient in the step.
    pub clip_factor: f64,
}

/// How a restored stage becomes what it was when it was lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retracing {
    /// Digest of the copy that it begins with.
    pub copy: Digest,
    /// What came after it, in ascending order; at least one.
    pub iterations: Vec<Retraced>,
}

impl Retracing {
    /// Every microbatch, in the order in which it is computed again.
    pub fn microbatches(&self) -> impl Iterator<Item = Lesson> {
        self.iterations.iter().flat_map(|retraced| {
            let iteration = retraced.iteration;
            let all = retraced.shares.iter().flatten();
            all.map(move |microbatch| Lesson { iteration, microbatch: *microbatch })
        })
    }
}
