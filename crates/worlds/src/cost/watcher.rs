//! Who looks on while a run is simulated.

use skipstone_types::{Event, Iteration};

/// What there is to see.
#[derive(Debug, Clone)]
pub enum Seen {
    /// Something happened that a live run would write into its log.
    Event {
        /// When, in virtual microseconds.
        at_us: u64,
        /// What.
        event: Event,
    },
    /// What the stages are before an iteration is decided.
    Weights {
        /// When, in virtual microseconds.
        at_us: u64,
        /// Before which.
        iteration: Iteration,
        /// Parameters of each stage, origin first, as [`skipstone_model::StageLayout`] has them; none of a hole.
        stages: Vec<Option<Vec<f32>>>,
    },
}

/// Looks on.
pub trait Watcher {
    /// So many iterations are committed.
    fn progress(&mut self, committed: u64);

    /// There is something to see.
    ///
    /// # Errors
    /// What the simulation should end with.
    fn see(&mut self, seen: Seen) -> Result<(), String>;
}

/// Only counts.
pub(super) struct Progress<'a>(pub(super) &'a mut dyn FnMut(u64));

impl Watcher for Progress<'_> {
    fn progress(&mut self, committed: u64) {
        (self.0)(committed);
    }

    fn see(&mut self, _seen: Seen) -> Result<(), String> {
        Ok(())
    }
}
