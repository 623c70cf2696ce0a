//! A stage's weights and moments, and how they travel.

use super::tensor::Flat;
use skipstone_model::{StageLayout, hash_f32};
use skipstone_types::{Digest, StageId};

/// Values of a chunk: 4 MiB.
pub const CHUNK_VALUES: usize = 1 << 20;

/// Values after the buffers: the counters, as numbers that `f32` holds exactly.
pub(super) const TRAILER_VALUES: usize = 4;

/// Bits of a counter that go into one value.
const COUNTER_BITS: u32 = 20;

/// Weights, moments and counters of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageState {
    /// The stage.
    pub stage: StageId,
    /// The weights, laid out by [`StageLayout`].
    pub parameters: Vec<f32>,
    /// Adam's first moments.
    pub first_moments: Vec<f32>,
    /// Adam's second moments.
    pub second_moments: Vec<f32>,
    /// Steps taken by these moments.
    pub optimizer_step: u64,
    /// Multiplies the run's learning rate.
    pub learning_rate_factor: f32,
}

impl StageState {
    /// Weights with moments of zero.
    pub fn fresh(stage: StageId, parameters: Vec<f32>, learning_rate_factor: f32) -> Self {
        let zeros = vec![0.0; parameters.len()];
        Self {
            stage,
            first_moments: zeros.clone(),
            second_moments: zeros,
            parameters,
            optimizer_step: 0,
            learning_rate_factor,
        }
    }

    /// Digest of every bit.
    pub fn digest(&self) -> Digest {
        let hashes = self.buffers().map(hash_f32);
        Self::digest_of(hashes, self.optimizer_step, self.learning_rate_factor)
    }

    /// Digest of a state whose buffers have these hashes.
    pub(super) fn digest_of(hashes: [[u8; 32]; 3], optimizer_step: u64, learning_rate_factor: f32) -> Digest {
        let mut bytes = Vec::with_capacity(3 * 32 + 12);
        for hash in hashes {
            bytes.extend_from_slice(&hash);
        }
        bytes.extend_from_slice(&optimizer_step.to_le_bytes());
        bytes.extend_from_slice(&learning_rate_factor.to_le_bytes());
        Digest::of(&bytes)
    }

    /// Weights, first moments and second moments.
    pub(super) fn buffers(&self) -> [&[f32]; 3] {
        [&self.parameters, &self.first_moments, &self.second_moments]
    }

    /// The counters, as numbers.
    pub(super) fn trailer(&self) -> [f32; TRAILER_VALUES] {
        let digits =
            |place: u32| (self.optimizer_step >> (place * COUNTER_BITS) & ((1 << COUNTER_BITS) - 1)) as f32;
        [digits(0), digits(1), digits(2), self.learning_rate_factor]
    }

    /// Chunks that the state travels in.
    pub fn chunks(&self) -> u32 {
        self.chunk_values().div_ceil(CHUNK_VALUES) as u32
    }

    /// Bytes of all chunks together.
    pub fn chunk_bytes(&self) -> u64 {
        (self.chunk_values() * size_of::<f32>()) as u64
    }

    fn chunk_values(&self) -> usize {
        3 * self.parameters.len() + TRAILER_VALUES
    }

    /// Chunk `index` of weights, moments and counters, one after the other; empty past the end.
    pub fn chunk(&self, index: u32) -> Vec<f32> {
        let trailer = self.trailer();
        let (mut start, mut left) = (index as usize * CHUNK_VALUES, CHUNK_VALUES);
        let mut values = Vec::with_capacity(CHUNK_VALUES);
        for part in self.buffers().into_iter().chain([trailer.as_slice()]) {
            if start >= part.len() {
                start -= part.len();
                continue;
            }
            let taken = (part.len() - start).min(left);
            values.extend_from_slice(&part[start..start + taken]);
            start = 0;
            left -= taken;
            if left == 0 {
                break;
            }
        }
        values
    }

    /// The state of a stage with this layout, from its chunks in order, each of which is let go of once its values are taken.
    ///
    /// # Errors
    /// What doesn't fit, in words.
    pub fn join(stage: StageId, layout: &StageLayout, chunks: Vec<Flat>) -> Result<Self, String> {
        let count = layout.len();
        let expected = 3 * count + TRAILER_VALUES;
        let actual: usize = chunks.iter().map(|chunk| chunk.as_slice().len()).sum();
        if actual != expected {
            return Err(format!("the chunks hold {actual} values, but the stage has {expected}"));
        }
        let mut buffers = [0; 3].map(|_: i32| Vec::with_capacity(count));
        let mut trailer = Vec::with_capacity(TRAILER_VALUES);
        for chunk in chunks {
            let mut rest = chunk.as_slice();
            for buffer in &mut buffers {
                let (now, later) = rest.split_at(rest.len().min(count - buffer.len()));
                buffer.extend_from_slice(now);
                rest = later;
            }
            trailer.extend_from_slice(rest);
        }
        let [parameters, first_moments, second_moments] = buffers;
        let (optimizer_step, learning_rate_factor) = Self::counters(&trailer);
        Ok(Self { stage, parameters, first_moments, second_moments, optimizer_step, learning_rate_factor })
    }

    /// The optimiser's steps and the rate's factor, from what [`Self::trailer`] gave.
    pub(super) fn counters(trailer: &[f32]) -> (u64, f32) {
        let digits = |place: u32| (trailer[place as usize] as u64) << (place * COUNTER_BITS);
        (digits(0) | digits(1) | digits(2), trailer[3])
    }
}
