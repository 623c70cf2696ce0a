//! Buffers that are not needed any more wait here for the engine; those that the network still sends wait longer.

use super::tensor::{Flat, Tensor};
use skipstone_model::Saved;
use std::collections::VecDeque;

/// Buffers still being sent that are remembered; the oldest is left to whoever reads it last.
const PENDING_MAX: usize = 64;

/// What the engine gets back.
#[derive(Debug, Default)]
pub(super) struct Recycler {
    free: Vec<Vec<f32>>,
    pending: VecDeque<Flat>,
}

impl Recycler {
    pub(super) fn give(&mut self, tensor: Tensor) {
        match tensor {
            Tensor::Flat(flat) => self.give_flat(flat),
            // Activations of an attempt that was given up are rare, and a state is large: both are freed.
            Tensor::Saved(saved) => drop::<Saved>(saved),
            Tensor::State(state) => drop(state),
            Tensor::Packed(copy) => drop(copy),
        }
    }

    fn give_flat(&mut self, flat: Flat) {
        match flat.into_buffer() {
            Ok(buffer) => self.free.push(buffer),
            // Two that wait for the same buffer would wait for each other.
            Err(Some(shared)) if self.pending.iter().any(|other| other.shares(&shared)) => {}
            Err(Some(shared)) => {
                if self.pending.len() == PENDING_MAX {
                    self.pending.pop_front();
                }
                self.pending.push_back(shared);
            }
            Err(None) => {}
        }
    }

    /// All buffers that are free now.
    pub(super) fn take(&mut self) -> Vec<Vec<f32>> {
        for flat in std::mem::take(&mut self.pending) {
            self.give_flat(flat);
        }
        std::mem::take(&mut self.free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_still_read_comes_back_later() {
        let mut recycler = Recycler::default();
        let flat = Flat::new(vec![1.0; 8]);
        let sending = flat.whole();
        recycler.give(Tensor::Flat(flat));
        assert!(recycler.take().is_empty());
        drop(sending);
        assert_eq!(recycler.take(), [vec![1.0; 8]]);
    }

    /// A stage with a single replica reduces the whole of its sum as part 0 of 1: once, that kept both for ever.
    #[test]
    fn a_sum_and_its_parts_are_one_buffer() {
        for parts in [1, 3] {
            let mut recycler = Recycler::default();
            let sum = Flat::new(vec![1.0; 8]);
            for index in 0..parts {
                recycler.give(Tensor::Flat(sum.part(index, parts)));
            }
            recycler.give(Tensor::Flat(sum));
            assert_eq!(recycler.take(), [vec![1.0; 8]], "{parts} parts");
            assert!(recycler.take().is_empty());
        }
    }
}
