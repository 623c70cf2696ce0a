//! When microbatches that wait for a slot of their origin can end at the earliest.

use super::schedule::{NONE, Schedule};

/// Longest list of one origin's microbatches that is kept; longer ones go without.
const LENGTH_MAX: usize = 24;

/// The microbatches of one origin, in the order in which they start.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Where the list begins in `order`.
    first: u32,
    /// How many there are.
    length: u32,
    /// Slots of the origin.
    slots: u32,
    /// How many have started.
    started: u32,
}

/// Earliest ends of microbatches that have not started.
///
/// Where nothing but memory holds microbatches back, an origin's forwards start in a known order. When the k-th (from 0)
/// starts on an origin of m slots, at most m − 1 of the k before it are under way, so k − m + 1 have ended: it starts no
/// earlier than the (k − m + 1)-th smallest of their ends. With lower bounds in place of ends the same holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    order: Vec<u32>,
    origins: Vec<Turn>,
    /// Turn of each microbatch; empty: turns are of no use for this schedule.
    turn_of: Vec<u32>,
}

impl Turns {
    /// Starts over. Turns are kept only where every microbatch may start at once, and each origin's are neighbours.
    pub(crate) fn reset(&mut self, schedule: &Schedule, memory: &[u32], seen: &mut Vec<bool>) {
        self.order.clear();
        self.origins.clear();
        self.turn_of.clear();
        if schedule.release.iter().any(|release| *release > 0)
            || schedule.after.iter().any(|after| *after != NONE)
        {
            return;
        }
        seen.clear();
        seen.resize(memory.len(), false);
        let mut origin = NONE;
        for microbatch in 0..schedule.len() {
            let own = schedule.path(microbatch)[0];
            if own != origin {
                if std::mem::replace(&mut seen[own as usize], true) {
                    self.turn_of.clear();
                    return;
                }
                origin = own;
                self.origins.push(Turn {
                    first: microbatch as u32,
                    length: 0,
                    slots: memory[own as usize],
                    started: 0,
                });
            }
            self.turn_of.push(self.origins.len() as u32 - 1);
            self.order.push(microbatch as u32);
            if let Some(turn) = self.origins.last_mut() {
                turn.length += 1;
                // Insertion: the order is that of the list almost always.
                let place = |m: u32| (schedule.rank[m as usize], schedule.id_rank[m as usize]);
                let mut at = microbatch;
                while at > turn.first as usize && place(self.order[at]) < place(self.order[at - 1]) {
                    self.order.swap(at, at - 1);
                    at -= 1;
                }
            }
        }
    }

    /// Bounds all ends before the first event; `tail` is the unloaded time of a microbatch.
    pub(crate) fn bound_all(&self, finish: &mut [u64], tail: impl Fn(u32) -> u64) {
        if !self.turn_of.is_empty() {
            for turn in &self.origins {
                self.bound(turn, finish, &tail, &mut |_, _| {});
            }
        }
    }

    /// A microbatch starts.
    #[inline]
    pub(crate) fn start(&mut self, microbatch: usize) {
        if let Some(turn) = self.turn_of.get(microbatch) {
            self.origins[*turn as usize].started += 1;
        }
    }

    /// The end of `microbatch` has moved: bounds the ends of those who wait for its slot. `moved` hears of every end that
    /// moves: by how much, and where to.
    #[inline]
    pub(crate) fn moved(
        &self,
        microbatch: usize,
        finish: &mut [u64],
        tail: impl Fn(u32) -> u64,
        moved: &mut impl FnMut(u64, u64),
    ) {
        if let Some(turn) = self.turn_of.get(microbatch) {
            let turn = &self.origins[*turn as usize];
            if turn.started < turn.length {
                self.bound(turn, finish, &tail, moved);
            }
        }
    }

    fn bound(
        &self,
        turn: &Turn,
        finish: &mut [u64],
        tail: &impl Fn(u32) -> u64,
        moved: &mut impl FnMut(u64, u64),
    ) {
        let length = turn.length as usize;
        if length > LENGTH_MAX || turn.slots >= turn.length {
            return;
        }
        let order = &self.order[turn.first as usize..turn.first as usize + length];
        let mut ends = [0_u64; LENGTH_MAX];
        for (place, microbatch) in order.iter().enumerate() {
            if place >= (turn.started as usize).max(turn.slots as usize) {
                let end = ends[place - turn.slots as usize] + tail(*microbatch);
                let known = &mut finish[*microbatch as usize];
                if end > *known {
                    moved(end - *known, end);
                    *known = end;
                }
            }
            let end = finish[*microbatch as usize];
            let mut at = place;
            while at > 0 && ends[at - 1] > end {
                ends[at] = ends[at - 1];
                at -= 1;
            }
            ends[at] = end;
        }
    }
}
