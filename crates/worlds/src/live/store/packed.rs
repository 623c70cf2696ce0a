//! Copies of states in fewer bytes.

use super::state::{CHUNK_VALUES, StageState, TRAILER_VALUES};
use super::tensor::Flat;
use skipstone_model::{StageLayout, hash_f32};
use skipstone_recovery::StateFormat;
use skipstone_types::{Digest, StageId};

/// Numbers of a block that share a scale.
const BLOCK: usize = StateFormat::BLOCK_VALUES;

/// A stage's state in a format that rounds. Packing the same state gives the same words on every machine.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedState {
    /// The stage.
    pub stage: StageId,
    format: StateFormat,
    /// Weights that the state has.
    count: usize,
    /// Weights, first moments and second moments, each from a word of its own on, then the counters. Words of 32 bits, as frames
    /// carry them: moved, and never computed with.
    words: Vec<f32>,
}

impl PackedState {
    /// The state in this format, which must be one that rounds.
    pub fn pack(state: &StageState, format: StateFormat) -> Self {
        let count = state.parameters.len();
        let mut words = Vec::with_capacity(3 * format.words(count) + TRAILER_VALUES);
        for (which, buffer) in state.buffers().into_iter().enumerate() {
            match format {
                StateFormat::Int8 => pack_int8(&mut words, buffer, which == SECOND_MOMENTS),
                StateFormat::F32 | StateFormat::Bf16 => pack_bf16(&mut words, buffer),
            }
        }
        words.extend_from_slice(&state.trailer());
        Self { stage: state.stage, format, count, words }
    }

    /// A copy of a stage with this layout, from its chunks in order, each of which is let go of once its words are taken.
    ///
    /// # Errors
    /// What doesn't fit, in words.
    pub fn join(
        stage: StageId,
        layout: &StageLayout,
        format: StateFormat,
        chunks: Vec<Flat>,
    ) -> Result<Self, String> {
        let count = layout.len();
        let expected = 3 * format.words(count) + TRAILER_VALUES;
        let actual: usize = chunks.iter().map(|chunk| chunk.as_slice().len()).sum();
        if actual != expected {
            return Err(format!("the chunks hold {actual} words, but a copy of the stage has {expected}"));
        }
        let mut words = Vec::with_capacity(expected);
        for chunk in chunks {
            words.extend_from_slice(chunk.as_slice());
        }
        Ok(Self { stage, format, count, words })
    }

    /// The state that comes out of it.
    pub fn unpack(&self) -> StageState {
        let [parameters, first_moments, second_moments] = [0, 1, 2].map(|which| self.buffer(which));
        let (optimizer_step, learning_rate_factor) =
            StageState::counters(&self.words[self.words.len() - TRAILER_VALUES..]);
        let stage = self.stage;
        StageState { stage, parameters, first_moments, second_moments, optimizer_step, learning_rate_factor }
    }

    fn buffer(&self, which: usize) -> Vec<f32> {
        let length = self.format.words(self.count);
        let words = &self.words[which * length..(which + 1) * length];
        match self.format {
            StateFormat::Int8 => unpack_int8(words, self.count, which == SECOND_MOMENTS),
            StateFormat::F32 | StateFormat::Bf16 => unpack_bf16(words, self.count),
        }
    }

    /// Digest of the state that comes out of it, without having more than a third of that at once.
    pub fn digest(&self) -> Digest {
        let (step, factor) = StageState::counters(&self.words[self.words.len() - TRAILER_VALUES..]);
        let hashes = [0, 1, 2].map(|which| hash_f32(&self.buffer(which)));
        StageState::digest_of(hashes, step, factor)
    }

    /// Chunks that it travels in.
    pub fn chunks(&self) -> u32 {
        self.words.len().div_ceil(CHUNK_VALUES) as u32
    }

    /// Bytes of all chunks together.
    pub fn chunk_bytes(&self) -> u64 {
        size_of_val(self.words.as_slice()) as u64
    }

    /// Chunk `index`; empty past the end.
    pub fn chunk(&self, index: u32) -> Vec<f32> {
        self.words.chunks(CHUNK_VALUES).nth(index as usize).unwrap_or_default().to_vec()
    }
}

/// The buffer whose roots are kept.
const SECOND_MOMENTS: usize = 2;

/// The upper half, rounded to nearest, ties to even; what is no number stays none.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x0040;
    }
    let rounding = 0x7fff + ((bits >> 16) & 1);
    ((bits + rounding) >> 16) as u16
}

fn pack_bf16(words: &mut Vec<f32>, values: &[f32]) {
    words.extend(values.chunks(2).map(|pair| {
        let half = |at: usize| pair.get(at).map_or(0, |value| u32::from(to_bf16(*value)));
        f32::from_bits(half(0) | half(1) << 16)
    }));
}

fn unpack_bf16(words: &[f32], count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count);
    for word in words {
        let bits = word.to_bits();
        values.push(f32::from_bits(bits << 16));
        if values.len() < count {
            values.push(f32::from_bits(bits & 0xffff_0000));
        }
    }
    values
}

/// Per block a scale and a byte a number. `roots`: of numbers that are not negative, the root, rounded up.
fn pack_int8(words: &mut Vec<f32>, values: &[f32], roots: bool) {
    let steps = if roots { 255.0 } else { 127.0 };
    for block in values.chunks(BLOCK) {
        let of = |value: f32| if roots { value.sqrt() } else { value };
        let largest = block.iter().fold(0.0_f32, |largest, value| {
            let size = of(*value).abs();
            // What is no number makes the whole block none.
            if size.is_nan() || largest.is_nan() { f32::NAN } else { largest.max(size) }
        });
        let scale = if largest.is_finite() { largest / steps } else { f32::NAN };
        words.push(scale);
        let byte = |value: f32| {
            // Of a scale of zero or of none nothing is asked.
            let ratio = if scale > 0.0 { of(value) / scale } else { 0.0 };
            if roots {
                ratio.ceil().clamp(0.0, 255.0) as u8
            } else {
                ratio.round().clamp(-127.0, 127.0) as i8 as u8
            }
        };
        words.extend(block.chunks(4).map(|four| {
            let mut bytes = [0; 4];
            for (byte_of, value) in bytes.iter_mut().zip(four) {
                *byte_of = byte(*value);
            }
            f32::from_bits(u32::from_le_bytes(bytes))
        }));
    }
}

fn unpack_int8(words: &[f32], count: usize, roots: bool) -> Vec<f32> {
    let mut values = Vec::with_capacity(count);
    for block in words.chunks(1 + BLOCK / 4) {
        let Some((scale, bytes)) = block.split_first() else { break };
        let left = (count - values.len()).min(BLOCK);
        let bytes = bytes.iter().flat_map(|word| word.to_bits().to_le_bytes());
        values.extend(bytes.take(left).map(|byte| {
            if scale.is_nan() {
                f32::NAN
            } else if roots {
                let root = f32::from(byte) * scale;
                root * root
            } else {
                f32::from(byte as i8) * scale
            }
        }));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Numbers of all sizes.
    fn state(count: usize, seed: u64) -> StageState {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut value = |low: f32, high: f32| {
            let size = 10.0_f32.powf(low + (high - low) * random.random::<f32>());
            if random.random() { size } else { -size }
        };
        let mut values = |low, high| (0..count).map(|_| value(low, high)).collect::<Vec<_>>();
        let mut state = StageState::fresh(StageId(3), values(-3.0, 0.0), 1.21);
        state.first_moments = values(-9.0, -2.0);
        state.second_moments = values(-14.0, -4.0).into_iter().map(f32::abs).collect();
        state.optimizer_step = 123_456_789_012;
        state
    }

    fn largest(values: &[f32]) -> f32 {
        values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
    }

    #[test]
    fn a_copy_says_what_comes_out_of_it_and_survives_its_chunks() {
        for format in [StateFormat::Bf16, StateFormat::Int8] {
            for count in [1, 2, 63, 64, 65, 1000] {
                let state = state(count, count as u64);
                let packed = PackedState::pack(&state, format);
                let out = packed.unpack();
                assert_eq!(out.digest(), packed.digest());
                assert_eq!((out.stage, out.parameters.len()), (StageId(3), count));
                assert_eq!((out.optimizer_step, out.learning_rate_factor), (state.optimizer_step, 1.21));
                assert_eq!(packed.chunk_bytes() as usize, 4 * (3 * format.words(count) + TRAILER_VALUES));
                assert_eq!(packed.chunk(0).len() * 4, packed.chunk_bytes() as usize);
                assert!(packed.chunk(1).is_empty());
            }
        }
    }

    #[test]
    fn halves_are_rounded_to_nearest() {
        let state = state(999, 5);
        let out = PackedState::pack(&state, StateFormat::Bf16).unpack();
        for (of, buffer) in out.buffers().into_iter().zip(state.buffers()) {
            assert!(of.iter().zip(buffer).all(|(of, was)| (of - was).abs() <= was.abs() / 256.0));
        }
        let twice = PackedState::pack(&out, StateFormat::Bf16).unpack();
        assert_eq!(twice, out, "what is rounded stays as it is");
        for special in [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let rounded = f32::from_bits(u32::from(to_bf16(special)) << 16);
            assert!(rounded.to_bits() == special.to_bits() || special == f32::MAX && rounded.is_infinite());
        }
        assert!(f32::from_bits(u32::from(to_bf16(f32::from_bits(0x7f80_0001))) << 16).is_nan());
    }

    #[test]
    fn bytes_are_within_half_a_step_and_no_second_moment_gets_smaller() {
        let state = state(1000, 6);
        let out = PackedState::pack(&state, StateFormat::Int8).unpack();
        for (of, was) in [(&out.parameters, &state.parameters), (&out.first_moments, &state.first_moments)] {
            for (of, was) in of.chunks(BLOCK).zip(was.chunks(BLOCK)) {
                let step = largest(was) / 127.0;
                assert!(of.iter().zip(was).all(|(of, was)| (of - was).abs() <= 0.5001 * step));
            }
        }
        for (of, was) in out.second_moments.chunks(BLOCK).zip(state.second_moments.chunks(BLOCK)) {
            let step = largest(was).sqrt() / 255.0;
            for (of, was) in of.iter().zip(was) {
                assert!(of.sqrt() >= was.sqrt() * 0.99999 && of.sqrt() <= was.sqrt() + 1.0001 * step);
            }
        }
        let zeros = StageState::fresh(StageId(1), vec![0.0; 70], 1.0);
        assert_eq!(PackedState::pack(&zeros, StateFormat::Int8).unpack(), zeros);
        let mut broken = zeros;
        broken.parameters[3] = f32::NAN;
        let out = PackedState::pack(&broken, StateFormat::Int8).unpack();
        assert!(out.parameters[..64].iter().all(|value| value.is_nan()) && out.parameters[64] == 0.0);
    }

    #[test]
    fn chunks_of_another_stage_or_format_are_refused() {
        use crate::config::RunConfig;
        let config = RunConfig { stages: 1, ..RunConfig::default() };
        let shape = config.shape(300).unwrap();
        let layout = StageLayout::of(&shape.model, &shape.stage_spec(StageId(1)));
        let state = StageState::fresh(StageId(1), vec![0.5; layout.len()], 1.0);
        let packed = PackedState::pack(&state, StateFormat::Bf16);
        let chunks = || (0..packed.chunks()).map(|index| Flat::new(packed.chunk(index))).collect::<Vec<_>>();
        let joined = PackedState::join(StageId(1), &layout, StateFormat::Bf16, chunks()).unwrap();
        assert_eq!((joined.digest(), joined.unpack()), (packed.digest(), state));
        assert!(PackedState::join(StageId(1), &layout, StateFormat::Int8, chunks()).is_err());
        let mut short = chunks();
        short.pop();
        assert!(PackedState::join(StageId(1), &layout, StateFormat::Bf16, short).is_err());
    }
}
