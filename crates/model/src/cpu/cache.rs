//! Keys and values of the tokens already seen, for inference token by token.

use super::backend::CpuBackend;
use super::{embedding, layer};
use crate::error::{ModelError, Result, expect_len};

/// What a stage remembers of the tokens before, so that generating the next one costs one token's work.
/// Made by [`crate::CpuBackend::new_cache`]; every stage on a path has its own.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Per layer (B, capacity, 2·Hkv·hd): keys after rotary embedding, then values.
    pub(super) layers: Vec<Vec<f32>>,
    batch: usize,
    capacity: usize,
    width: usize,
    len: usize,
}

impl KvCache {
    pub(super) fn new(layers: usize, batch: usize, capacity: usize, width: usize) -> Self {
        Self { layers: vec![vec![0.0; batch * capacity * width]; layers], batch, capacity, width, len: 0 }
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }
    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
    /// Tokens seen so far, per sequence.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether no token has been seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Forgets all tokens from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// How many new tokens per sequence `rows` rows are; checks that they fit and that the cache is the stage's.
    pub(super) fn expect(&self, rows: usize, layers: usize, width: usize) -> Result<usize> {
        let tokens = rows / self.batch;
        if self.layers.len() != layers || self.width != width {
            return Err(ModelError::Spec(
                "the cache was made for another stage; make one for this stage".to_owned(),
            ));
        }
        if tokens == 0 || tokens * self.batch != rows {
            return Err(ModelError::Spec(format!(
                "{rows} rows do not divide into the {} sequences of the cache",
                self.batch
            )));
        }
        if self.len + tokens > self.capacity {
            return Err(ModelError::Spec(format!(
                "{} tokens seen and {tokens} new do not fit a cache of {}; make a larger one or cut the text",
                self.len, self.capacity
            )));
        }
        Ok(tokens)
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// One layer's part of a cache while new tokens pass.
pub(super) struct LayerCache<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) capacity: usize,
    /// Tokens seen before the new ones.
    pub(super) past: usize,
}

impl LayerCache<'_> {
    /// Appends the keys and values at the end of each row of `qkv` (B·T, row).
    pub(super) fn append(&mut self, qkv: &[f32], row: usize, context: usize, width: usize) {
        for (i, source) in qkv.chunks_exact(row).enumerate() {
            let at = (i / context * self.capacity + self.past + i % context) * width;
            self.data[at..at + width].copy_from_slice(&source[row - width..]);
        }
    }
}

impl CpuBackend {
    /// An empty cache for this stage: `batch` sequences of up to `capacity` tokens.
    pub fn new_cache(&self, batch: usize, capacity: usize) -> KvCache {
        KvCache::new(self.layout.layers().len(), batch.max(1), capacity, 2 * self.config.key_width())
    }

    /// Inference token by token, origin: the next `tokens` (B, n) after those in `cache` → (B, n, D).
    /// The stage's own microbatch shape does not matter.
    ///
    /// # Errors
    /// [`ModelError`] if the cache is full or another stage's, or a token or the stage's role does not fit.
    pub fn infer_embed_cached(
        &mut self,
        params: &[f32],
        tokens: &[u32],
        cache: &mut KvCache,
    ) -> Result<Vec<f32>> {
        let at = self.origin()?;
        self.check_params(params)?;
        self.check_vocabulary(tokens, false)?;
        let d = self.config.hidden_size;
        let mut x = vec![0.0; tokens.len() * d];
        embedding::forward(&params[at.embedding], tokens, &mut x, d);
        self.run_cached(params, x, cache)
    }

    /// Inference token by token, relay: x (B, n, D) of the tokens after those in `cache` → (B, n, D).
    ///
    /// # Errors
    /// As [`CpuBackend::infer_embed_cached`].
    pub fn infer_cached(&mut self, params: &[f32], x: &[f32], cache: &mut KvCache) -> Result<Vec<f32>> {
        self.relay()?;
        self.check_params(params)?;
        self.run_cached(params, x.to_vec(), cache)
    }

    fn run_cached(&mut self, params: &[f32], mut x: Vec<f32>, cache: &mut KvCache) -> Result<Vec<f32>> {
        let d = self.config.hidden_size;
        expect_len("x", x.len(), x.len() / d * d)?;
        let tokens = cache.expect(x.len() / d, self.layout.layers().len(), 2 * self.config.key_width())?;
        let (past, capacity) = (cache.len(), cache.capacity());
        self.rope.grow(past + tokens);
        let shape = self.layer_shape((cache.batch(), tokens));
        let (rope, buffers, layout) = (&self.rope, &mut self.buffers, &self.layout);
        let y = self.threads.install(|| {
            for (at, data) in layout.layers().iter().zip(&mut cache.layers) {
                let layer = LayerCache { data, capacity, past };
                let (y, saved) = layer::forward(&shape, rope, params, at, x, Some(layer), buffers);
                saved.recycle(buffers);
                x = y;
            }
            x
        });
        cache.advance(tokens);
        Ok(y)
    }
}
