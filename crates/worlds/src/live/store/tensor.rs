//! What a handle stands for.

use super::boundary::BLOCK;
use super::{PackedState, StageState};
use skipstone_model::Saved;
use std::ops::Range;
use std::sync::Arc;

/// A run of numbers, shared without a copy.
#[derive(Debug, Clone)]
pub struct Flat {
    values: Arc<Vec<f32>>,
    range: Range<usize>,
    /// Whether the buffer came from the network: it is not handed to the engine for reuse, or the engine's
    /// store of buffers would grow with every frame.
    foreign: bool,
}

impl Flat {
    /// All of a buffer of our own.
    pub fn new(values: Vec<f32>) -> Self {
        let range = 0..values.len();
        Self { values: Arc::new(values), range, foreign: false }
    }

    /// All of a buffer that came with a frame.
    pub(super) fn received(values: Arc<Vec<f32>>) -> Self {
        let range = 0..values.len();
        Self { values, range, foreign: true }
    }

    /// Part `index` of `count`, of nearly equal lengths. Blocks of numbers that are rounded together stay together, so that it makes
    /// no difference to them how many parts there are.
    #[must_use]
    pub fn part(&self, index: u32, count: u32) -> Self {
        let (length, count) = (self.range.len() as u128, u128::from(count.max(1)));
        let block = if length < count * BLOCK as u128 { 1 } else { BLOCK as u128 };
        let blocks = length.div_ceil(block);
        let cut = |index: u32| (blocks * u128::from(index) / count * block).min(length) as usize;
        let range = self.range.start + cut(index)..self.range.start + cut(index + 1);
        Self { values: self.values.clone(), range, foreign: self.foreign }
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[f32] {
        &self.values[self.range.clone()]
    }

    /// A buffer that holds exactly these numbers: shared if possible, copied if this is a part.
    pub fn whole(&self) -> Arc<Vec<f32>> {
        if self.range.len() == self.values.len() {
            self.values.clone()
        } else {
            Arc::new(self.as_slice().to_vec())
        }
    }

    /// The buffer to write to: copied first if someone else still reads it.
    pub(super) fn make_mut(&mut self) -> &mut [f32] {
        if self.range.len() != self.values.len() {
            *self = Self::new(self.as_slice().to_vec());
        }
        self.foreign = false;
        let values: &mut Vec<f32> = Arc::make_mut(&mut self.values);
        values
    }

    /// Whether both lie in the same buffer.
    pub(super) fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.values, &other.values)
    }

    /// The buffer, if it is ours and nobody else reads it; else what is to be tried again later.
    pub(super) fn into_buffer(self) -> Result<Vec<f32>, Option<Self>> {
        if self.foreign {
            return Err(None);
        }
        let Self { values, range, foreign } = self;
        Arc::try_unwrap(values).map_err(|values| Some(Self { values, range, foreign }))
    }
}

/// A tensor, or a group of them.
#[derive(Debug)]
pub enum Tensor {
    /// Weights and moments of a stage.
    State(Arc<StageState>),
    /// A copy of them, in fewer bytes.
    Packed(Arc<PackedState>),
    /// An activation, a gradient, a sum, a part or a chunk.
    Flat(Flat),
    /// Activations kept for backward.
    Saved(Saved),
}

impl Tensor {
    /// A second name for it; activations for backward have only one.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::State(state) => Some(Self::State(state.clone())),
            Self::Packed(copy) => Some(Self::Packed(copy.clone())),
            Self::Flat(flat) => Some(Self::Flat(flat.clone())),
            Self::Saved(_) => None,
        }
    }
}
