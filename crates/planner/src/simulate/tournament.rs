//! The next event of every microbatch, and the earliest of them all.

/// A tournament over the next events of microbatches.
///
/// A microbatch is in one place at a time, so it has at most one event ahead. Replacing that event costs one
/// comparison a level and no branch, which beats a heap at the sizes of interest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tournament {
    /// `keys[1]` wins; the leaves are the upper half.
    keys: Vec<u64>,
    leaves: usize,
}

impl Tournament {
    /// No event ahead.
    pub(crate) const NEVER: u64 = u64::MAX;

    /// Starts over with one event for each microbatch.
    pub(crate) fn reset(&mut self, events: impl ExactSizeIterator<Item = u64>) {
        self.leaves = events.len().next_power_of_two().max(2);
        self.keys.clear();
        self.keys.resize(2 * self.leaves, Self::NEVER);
        for (place, key) in events.enumerate() {
            self.keys[self.leaves + place] = key;
        }
        for place in (1..self.leaves).rev() {
            self.keys[place] = self.keys[2 * place].min(self.keys[2 * place + 1]);
        }
    }

    /// The earliest event.
    #[inline]
    pub(crate) fn earliest(&self) -> u64 {
        self.keys[1]
    }

    /// Replaces the event of `microbatch`.
    #[inline]
    pub(crate) fn set(&mut self, microbatch: usize, key: u64) {
        let mut place = self.leaves + microbatch;
        let mut winner = key;
        self.keys[place] = key;
        while place > 1 {
            winner = winner.min(self.keys[place ^ 1]);
            place /= 2;
            self.keys[place] = winner;
        }
    }
}
