//! Which sample is trained on when: a function of (seed, iteration, microbatch) alone.

use crate::error::OrderError;
use crate::permutation::{Permutation, mix};

/// A sample: window `index` of the training split as epoch `epoch` cuts it. Each is trained on once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct SampleId {
    /// Passes over the training split before this one.
    pub epoch: u64,
    /// The window's place in the split, counted from its start.
    pub index: u64,
}

/// Sizes of the training batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BatchShape {
    /// T: input tokens of a sample.
    pub context: usize,
    /// B: samples of a microbatch.
    pub batch: usize,
    /// M: microbatches of an iteration.
    pub microbatches: usize,
}

/// The order of samples.
///
/// Epoch *e* cuts the training split into windows of T input tokens, from an offset drawn for the epoch (so that the cuts
/// fall elsewhere each time), and visits all of them in an order drawn for the epoch. Samples are numbered through:
/// sample *b* of microbatch *m* of iteration *t* is number (t·M + m)·B + b, whatever happens to the nodes.
#[derive(Debug, Clone)]
pub struct SampleOrder {
    seed: u64,
    tokens: usize,
    shape: BatchShape,
    windows: u64,
}

impl SampleOrder {
    /// The order in which a training split of `tokens` tokens is visited.
    ///
    /// # Errors
    /// When a size is zero, or the split holds less than one sample (T + 1 tokens).
    pub fn new(seed: u64, tokens: usize, shape: BatchShape) -> Result<Self, OrderError> {
        let sizes =
            [("context", shape.context), ("batch", shape.batch), ("microbatches", shape.microbatches)];
        if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(OrderError::Zero { name });
        }
        if tokens <= shape.context {
            return Err(OrderError::TooShort { tokens, context: shape.context });
        }
        // One window fewer than would fit leaves room for any offset below T.
        let windows = (tokens / shape.context).saturating_sub(1).max(1) as u64;
        Ok(Self { seed, tokens, shape, windows })
    }

    /// Sizes of the batches.
    pub fn shape(&self) -> BatchShape {
        self.shape
    }

    /// Samples of one epoch.
    pub fn samples_per_epoch(&self) -> u64 {
        self.windows
    }

    /// The samples of a microbatch, in the order of its rows. Microbatches are counted from 0.
    ///
    /// # Panics
    /// When `microbatch` is not below M, or numbers pass 2⁶⁴.
    pub fn sample_ids(&self, iteration: u64, microbatch: usize) -> Vec<SampleId> {
        let first = self.first_number(iteration, microbatch);
        let mut cut = self.cut(first / self.windows);
        let numbers = first..first + self.shape.batch as u64;
        numbers.map(|number| self.at(number, &mut cut).0).collect()
    }

    /// Writes the B·T inputs and targets of a microbatch, row after row; a target is the token after its input.
    ///
    /// # Panics
    /// When the slices are not B·T long, `tokens` is not the split this order is for, or as [`SampleOrder::sample_ids`].
    pub fn fill(
        &self,
        tokens: &[u32],
        iteration: u64,
        microbatch: usize,
        inputs: &mut [u32],
        targets: &mut [u32],
    ) {
        let BatchShape { context, batch, .. } = self.shape;
        assert_eq!(tokens.len(), self.tokens, "the order of samples was made for another training split");
        assert_eq!((inputs.len(), targets.len()), (batch * context, batch * context), "batch times context");
        let first = self.first_number(iteration, microbatch);
        let mut cut = self.cut(first / self.windows);
        let rows = inputs.chunks_exact_mut(context).zip(targets.chunks_exact_mut(context));
        for (number, (inputs, targets)) in (first..).zip(rows) {
            let start = self.at(number, &mut cut).1;
            inputs.copy_from_slice(&tokens[start..start + context]);
            targets.copy_from_slice(&tokens[start + 1..=start + context]);
        }
    }

    /// Where a sample's inputs begin in the training split, in tokens.
    ///
    /// # Panics
    /// When there is no such sample.
    pub fn start_of(&self, sample: SampleId) -> usize {
        assert!(sample.index < self.windows, "window {} of {}", sample.index, self.windows);
        self.cut(sample.epoch).offset + sample.index as usize * self.shape.context
    }

    fn first_number(&self, iteration: u64, microbatch: usize) -> u64 {
        let BatchShape { batch, microbatches, .. } = self.shape;
        assert!(microbatch < microbatches, "microbatch {microbatch} of {microbatches}");
        iteration
            .checked_mul(microbatches as u64)
            .and_then(|before| before.checked_add(microbatch as u64))
            .and_then(|before| before.checked_mul(batch as u64))
            .filter(|first| first.checked_add(batch as u64).is_some())
            .expect("fewer than 2^64 samples")
    }

    /// A sample by its number, and where it begins; `cut` follows the epoch.
    fn at(&self, number: u64, cut: &mut Cut) -> (SampleId, usize) {
        let (epoch, position) = (number / self.windows, number % self.windows);
        if cut.epoch != epoch {
            *cut = self.cut(epoch);
        }
        let index = cut.order.apply(position);
        (SampleId { epoch, index }, cut.offset + index as usize * self.shape.context)
    }

    fn cut(&self, epoch: u64) -> Cut {
        let mut hasher = blake3::Hasher::new_derive_key("skipstone 2026 order of samples");
        hasher.update(&self.seed.to_le_bytes()).update(&epoch.to_le_bytes());
        let key = *hasher.finalize().as_bytes();
        let slack = self.tokens - 1 - self.windows as usize * self.shape.context;
        let draw = mix(key.iter().take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte)));
        Cut {
            epoch,
            offset: (draw % (slack as u64 + 1)) as usize,
            order: Permutation::new(self.windows, &key),
        }
    }
}

/// How an epoch cuts and orders the training split.
struct Cut {
    epoch: u64,
    offset: usize,
    order: Permutation,
}
