//! What a worker keeps for later, and how much of it there can be.

use super::{EARLY_REQUESTS_MAX, LAG_ITERATIONS_MAX, Worker};
use crate::message::COPIES_HELD_MAX;
use skipstone_recovery::{LESSONS_MAX, RETRACED_MAX};

/// Something that grows while a worker waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Of what.
    pub what: &'static str,
    /// How much there is.
    pub length: usize,
    /// How much there may be.
    pub bound: usize,
}

impl Worker {
    /// Everything that the worker keeps for later. Tensors are counted by whoever holds them.
    pub fn queues(&self) -> Vec<Queue> {
        let settings = self.settings.as_deref();
        let microbatches = settings.map_or(0, |settings| settings.microbatches as usize);
        let nodes = settings.map_or(0, skipstone_types::Settings::nodes);
        let queue = |what, length, bound| Queue { what, length, bound };
        vec![
            queue("early frames", self.early.len(), self.early_frames_max()),
            queue("early requests for chunks", self.early_requests.len(), EARLY_REQUESTS_MAX),
            queue("microbatches", self.microbatches_passing(), microbatches),
            queue("microbatches to check", self.microbatches_checked(), microbatches),
            queue("boundary tensors to send again", self.boundaries_sent_again(), 4 * microbatches),
            // One to each that joins, and one to the keeper of a copy.
            queue("donations", self.donations.len(), nodes + 1),
            queue("copies of stages", self.copies.len(), COPIES_HELD_MAX),
            queue("iterations of boundary tensors", self.kept.iterations(), self.kept.iterations_max()),
            queue(
                "boundary tensors to rebuild with",
                self.lessons_awaited(),
                2 * LESSONS_MAX.max(RETRACED_MAX),
            ),
            // A follower gives up when it lags further behind; a reduction may be under way beside.
            queue("commits to step", self.commits.len(), LAG_ITERATIONS_MAX),
            queue("reductions", self.reductions.len(), LAG_ITERATIONS_MAX + 1),
            queue("reduced gradients", self.gradients.len(), LAG_ITERATIONS_MAX + 1),
            queue("saves asked for", self.saving.wanted(), LAG_ITERATIONS_MAX),
            queue("copies to save", self.saving.copies_to_save(), COPIES_HELD_MAX),
            // Per part of a reduction one task, per donation its window of chunks and a freeze, and a few of their own.
            queue("urgent tasks", self.compute.queued(), 2 * nodes + 16 * nodes + 8),
        ]
    }
}
