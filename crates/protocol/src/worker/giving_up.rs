//! Giving up duties that a replica can take: what waits for this node, and is not in its sum.
//!
//! Sums can't be subtracted from, so a duty can be given up only before its first addition has begun. From the answer on it
//! will never be added here: the answer is what the coordinator relies on when it makes another node the owner.

use super::Worker;
use super::passage::Passage;
use crate::message::ToCoordinator;
use skipstone_types::{Attempt, Iteration, Microbatch};

impl Worker {
    /// Gives up at most so many duties of the attempt, those first that cost the least: not begun, and latest in the queue.
    pub(super) fn give_up(&mut self, of: (Iteration, Attempt), most: usize) {
        let Some(stage) = self.held.as_ref().map(|held| held.stage) else { return };
        let Some(work) = self.work.as_mut().filter(|work| (work.iteration, work.attempt) == of) else {
            return;
        };
        let mut offered: Vec<_> = work
            .passages
            .iter()
            .filter(|(_, passage)| {
                // A replay has moved once already. It also tells a duty that is given anew from an order that was sent
                // before the coordinator heard of its being given up.
                passage.duty.counted
                    && !passage.duty.replay
                    && passage.is_unadded(stage.is_origin())
                    && passage.waits_here(stage)
            })
            .map(|(microbatch, passage)| (passage.is_untouched(), passage.arrival(), *microbatch))
            .collect();
        offered.sort_unstable();
        let microbatches: Vec<Microbatch> =
            offered.into_iter().rev().take(most).map(|(_, _, microbatch)| microbatch).collect();
        let mut handles = Vec::new();
        for microbatch in &microbatches {
            // A forward under way ends, and what comes out of it is dropped.
            handles.extend(work.passages.remove(microbatch).iter().flat_map(Passage::handles));
            work.given_up.insert(*microbatch);
        }
        let any = !microbatches.is_empty();
        self.drop_handles(handles);
        let (iteration, attempt) = of;
        self.report(ToCoordinator::GaveUp { iteration, attempt, microbatches });
        if any {
            self.measure_if_complete(iteration, attempt);
        }
    }
}
