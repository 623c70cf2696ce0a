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
        }
    }

    fn give_flat(&mut self, flat: Flat) {
        match flat.into_buffer() {
            Ok(buffer) => self.free.push(buffer),
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
