//! What every device that computes stages offers.

use std::any::Any;

use crate::config::LlamaConfig;
use crate::error::Result;
use crate::layout::{StageLayout, StageSpec};
use crate::optimizer::OptimizerStep;

/// Activations that a forward leaves for its backward. Opaque: give it back to the backend that made it, to
/// `backward`/`embed_backward`, or to [`StageBackend::discard`] (dropping it works too, but frees its buffers).
pub struct Saved {
    inner: Box<dyn Any + Send>,
    bytes: u64,
}

impl Saved {
    /// Wraps a backend's own record of `bytes` bytes.
    pub fn new<T: Any + Send>(inner: T, bytes: u64) -> Self {
        Self { inner: Box::new(inner), bytes }
    }
    /// Memory held, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// The backend's own record, if it is a `T`.
    pub fn into_inner<T: Any>(self) -> Option<Box<T>> {
        self.inner.downcast().ok()
    }
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saved").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Loss of a microbatch and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct LossOut {
    /// d(loss_sum · loss_scale)/dx, (B, T, D).
    pub dx: Vec<f32>,
    /// Cross-entropy summed over tokens, in nats, without `loss_scale`.
    pub loss_sum: f64,
    /// Tokens that counted.
    pub tokens: usize,
}

/// Whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Every token's: (B, T, V).
    All,
    /// Each sequence's last token's: (B, V).
    Last,
}

/// A stage on some device. Parameters and gradients are flat buffers laid out by [`StageBackend::layout`].
///
/// Several microbatches may be in flight: each has its own [`Saved`]. All tensors are row-major `f32`.
/// Operations return [`crate::ModelError`] when a buffer's length, a token or the stage's role does not fit.
pub trait StageBackend: Send {
    /// The model.
    fn config(&self) -> &LlamaConfig;
    /// The stage, with the current microbatch shape.
    fn spec(&self) -> &StageSpec;
    /// Where its tensors lie.
    fn layout(&self) -> &StageLayout;
    /// Changes the shape of coming microbatches; those in flight keep theirs. Buffers waiting for reuse are freed.
    fn set_shape(&mut self, batch: usize, context: usize) -> Result<()>;

    /// Origin: embedding, then its own layers. `tokens` (B, T) → (B, T, D).
    fn embed(&mut self, params: &[f32], tokens: &[u32]) -> Result<(Vec<f32>, Saved)>;
    /// Relay: its layers. x (B, T, D) → (B, T, D).
    fn forward(&mut self, params: &[f32], x: &[f32]) -> Result<(Vec<f32>, Saved)>;
    /// Like `embed`, keeping nothing for backward.
    fn infer_embed(&mut self, params: &[f32], tokens: &[u32]) -> Result<Vec<f32>>;
    /// Like `forward`, keeping nothing for backward.
    fn infer(&mut self, params: &[f32], x: &[f32]) -> Result<Vec<f32>>;

    /// Origin: final norm, head, cross-entropy of x (B, T, D) against `targets` (B, T), where
    /// [`crate::IGNORE`] leaves a position out. Adds d(loss_sum · loss_scale) to `grads` if given.
    fn loss(
        &mut self,
        params: &[f32],
        x: &[f32],
        targets: &[u32],
        grads: Option<&mut [f32]>,
        loss_scale: f32,
    ) -> Result<LossOut>;
    /// Origin: the loss alone: (sum in nats, tokens that counted).
    fn evaluate(&mut self, params: &[f32], x: &[f32], targets: &[u32]) -> Result<(f64, usize)>;
    /// Origin: logits after x (B, T, D); T may be other than the stage's.
    fn logits(&mut self, params: &[f32], x: &[f32], positions: Positions) -> Result<Vec<f32>>;

    /// Relay: dy (B, T, D) → dx; adds the weights' gradients to `grads`, or spares that work if there are none.
    fn backward(
        &mut self,
        params: &[f32],
        saved: Saved,
        dy: &[f32],
        grads: Option<&mut [f32]>,
    ) -> Result<Vec<f32>>;
    /// Origin: backward of `embed`. Without `grads` there is nothing to do but to recycle `saved`.
    fn embed_backward(
        &mut self,
        params: &[f32],
        saved: Saved,
        dy: &[f32],
        grads: Option<&mut [f32]>,
    ) -> Result<()>;

    /// Takes back activations that no backward will use.
    fn discard(&mut self, saved: Saved);
    /// Takes back a buffer this backend returned, for reuse.
    fn recycle(&mut self, buffer: Vec<f32>);

    /// L2 norm of a flat gradient; the same bits everywhere. See [`crate::optimizer::grad_norm`].
    fn grad_norm(&mut self, grads: &[f32]) -> f64;
    /// One AdamW step; the same bits everywhere. See [`crate::optimizer::adamw_step`].
    fn optimizer_step(
        &mut self,
        params: &mut [f32],
        grads: &[f32],
        m: &mut [f32],
        v: &mut [f32],
        step: &OptimizerStep,
    ) -> Result<()>;
}
