//! Whatever a worker keeps for later, there is at most so much of it.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;

/// See the file's name.
#[derive(Debug)]
pub(super) struct QueuesBounded;

impl Invariant for QueuesBounded {
    fn name(&self) -> &'static str {
        "queues_bounded"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        let Observation::Keeps { node, queues } = seen else { return Ok(()) };
        match queues.iter().find(|queue| queue.length > queue.bound) {
            None => Ok(()),
            Some(queue) => {
                Err(format!("{node} keeps {} {}, of at most {}", queue.length, queue.what, queue.bound))
            }
        }
    }
}
