//! One transformer layer, forward and backward.

use super::attention::{self, AttentionShape, Keys};
use super::cache::LayerCache;
use super::matmul::{View, Write, matmul};
use super::rope::RopeTable;
use super::{norm, swiglu};
use crate::layout::LayerRanges;
use crate::pool::BufferPool;

/// What a layer needs besides its weights. N = B·T.
#[derive(Clone, Copy)]
pub(crate) struct LayerShape {
    pub(crate) attention: AttentionShape,
    /// Width of the model, D.
    pub(crate) d: usize,
    /// Width of the MLP, F.
    pub(crate) f: usize,
    /// ε of the norms.
    pub(crate) eps: f32,
}

impl LayerShape {
    pub(crate) fn tokens(&self) -> usize {
        self.attention.batch * self.attention.context
    }
    /// Channels of the query heads.
    pub(crate) fn q(&self) -> usize {
        self.attention.heads * self.attention.head
    }
    /// Channels of queries, keys and values.
    pub(crate) fn qkv(&self) -> usize {
        self.q() + 2 * self.attention.kv_heads * self.attention.head
    }
}

/// What forward keeps of a layer for backward.
#[derive(Debug)]
pub(crate) struct LayerSaved {
    /// Input (N, D).
    x: Vec<f32>,
    /// 1/rms of the input's rows (N).
    x_inv: Vec<f32>,
    /// Queries, keys, values after rotary embedding (N, (Hq + 2·Hkv)·hd).
    qkv: Vec<f32>,
    /// Attention's output before `o_proj` (N, Hq·hd).
    attn: Vec<f32>,
    /// Log-sum-exp of the scores (B, Hq, T).
    lse: Vec<f32>,
    /// Residual stream between attention and MLP (N, D).
    mid: Vec<f32>,
    /// 1/rms of its rows (N).
    mid_inv: Vec<f32>,
    /// Gate and up before the activation (N, 2F).
    gate_up: Vec<f32>,
}

impl LayerSaved {
    pub(crate) fn recycle(self, pool: &mut BufferPool) {
        let Self { x, x_inv, qkv, attn, lse, mid, mid_inv, gate_up } = self;
        for buffer in [x, x_inv, qkv, attn, lse, mid, mid_inv, gate_up] {
            pool.give(buffer);
        }
    }
}

/// Values that [`LayerSaved`] holds.
pub(crate) fn saved_len(s: &LayerShape) -> usize {
    s.tokens() * (2 * s.d + 2 + s.qkv() + s.q() + s.attention.heads + 2 * s.f)
}

/// Values of the buffers that a forward and a backward of a layer borrow beyond what is saved.
pub(crate) fn workspace_len(s: &LayerShape) -> usize {
    s.tokens() * (s.d + s.f + s.q())
}

/// y (N, D) and what backward needs, from x (N, D). With a `cache`, the tokens come after those in it, see them
/// too, and are added to it; backward is not possible then.
pub(crate) fn forward(
    s: &LayerShape,
    rope: &RopeTable,
    params: &[f32],
    at: &LayerRanges,
    x: Vec<f32>,
    cache: Option<LayerCache<'_>>,
    pool: &mut BufferPool,
) -> (Vec<f32>, LayerSaved) {
    let (n, d, f, t) = (s.tokens(), s.d, s.f, s.attention.context);
    let mut h = pool.take(n * d);

    let mut x_inv = pool.take(n);
    norm::forward(&x, &params[at.attn_norm.clone()], s.eps, &mut h, &mut x_inv);
    let mut qkv = pool.take(n * s.qkv());
    linear(&mut qkv, &h, &params[at.qkv.clone()], (n, s.qkv(), d), Write::Set);
    let past = cache.as_ref().map_or(0, |c| c.past);
    rope.apply(&mut qkv, s.qkv(), s.attention.heads + s.attention.kv_heads, (past, t), false);
    let mut attn = pool.take(n * s.q());
    let mut lse = pool.take(n * s.attention.heads);
    if let Some(mut cache) = cache {
        let width = s.qkv() - s.q();
        cache.append(&qkv, s.qkv(), t, width);
        let keys =
            Keys { data: cache.data, width, key_at: 0, value_at: width / 2, rows: cache.capacity, past };
        attention::forward(s.attention, &qkv, keys, &mut attn, &mut lse);
    } else {
        let keys = Keys::among(s.attention, &qkv);
        attention::forward(s.attention, &qkv, keys, &mut attn, &mut lse);
    }
    let mut mid = pool.take(n * d);
    linear(&mut mid, &attn, &params[at.o_proj.clone()], (n, d, s.q()), Write::Onto(&x));

    let mut mid_inv = pool.take(n);
    norm::forward(&mid, &params[at.mlp_norm.clone()], s.eps, &mut h, &mut mid_inv);
    let mut gate_up = pool.take(n * 2 * f);
    linear(&mut gate_up, &h, &params[at.gate_up.clone()], (n, 2 * f, d), Write::Set);
    let mut act = pool.take(n * f);
    swiglu::forward(&gate_up, &mut act, f);
    let mut y = h;
    linear(&mut y, &act, &params[at.down.clone()], (n, d, f), Write::Onto(&mid));
    pool.give(act);
    (y, LayerSaved { x, x_inv, qkv, attn, lse, mid, mid_inv, gate_up })
}

/// Turns `dy` (N, D) into the gradient of the layer's input, in place, and adds the weights' gradients to
/// `grads` (the stage's flat buffer) if given. The saved buffers serve as workspace and return to the pool.
pub(crate) fn backward(
    s: &LayerShape,
    rope: &RopeTable,
    params: &[f32],
    at: &LayerRanges,
    mut saved: LayerSaved,
    dy: &mut [f32],
    mut grads: Option<&mut [f32]>,
    pool: &mut BufferPool,
) {
    let (n, d, f, t) = (s.tokens(), s.d, s.f, s.attention.context);
    let mut partials = pool.take(norm::partials_len(n, d));
    let mut h = pool.take(n * d);

    // MLP
    let mut act = pool.take(n * f); // first its gradient, then itself again
    linear_backward(&mut act, dy, &params[at.down.clone()], (n, d, f));
    swiglu::backward(&mut saved.gate_up, &mut act, f);
    if let Some(grads) = grads.as_deref_mut() {
        weight_gradient(&mut grads[at.down.clone()], dy, &act, (d, f, n));
    }
    pool.give(act);
    let w = &params[at.mlp_norm.clone()];
    if let Some(grads) = grads.as_deref_mut() {
        norm::recompute(&saved.mid, w, &saved.mid_inv, &mut h);
        weight_gradient(&mut grads[at.gate_up.clone()], &saved.gate_up, &h, (2 * f, d, n));
    }
    linear_backward(&mut h, &saved.gate_up, &params[at.gate_up.clone()], (n, 2 * f, d));
    let dw = grads.as_deref_mut().map(|g| &mut g[at.mlp_norm.clone()]);
    norm::backward(&saved.mid, w, &saved.mid_inv, &mut h, dy, dw, &mut partials);

    // Attention
    if let Some(grads) = grads.as_deref_mut() {
        weight_gradient(&mut grads[at.o_proj.clone()], dy, &saved.attn, (d, s.q(), n));
    }
    let mut d_attn = pool.take(n * s.q());
    linear_backward(&mut d_attn, dy, &params[at.o_proj.clone()], (n, d, s.q()));
    attention::backward(s.attention, &mut saved.qkv, &saved.attn, &saved.lse, &d_attn);
    pool.give(d_attn);
    rope.apply(&mut saved.qkv, s.qkv(), s.attention.heads + s.attention.kv_heads, (0, t), true);
    let w = &params[at.attn_norm.clone()];
    if let Some(grads) = grads.as_deref_mut() {
        norm::recompute(&saved.x, w, &saved.x_inv, &mut h);
        weight_gradient(&mut grads[at.qkv.clone()], &saved.qkv, &h, (s.qkv(), d, n));
    }
    linear_backward(&mut h, &saved.qkv, &params[at.qkv.clone()], (n, s.qkv(), d));
    let dw = grads.map(|g| &mut g[at.attn_norm.clone()]);
    norm::backward(&saved.x, w, &saved.x_inv, &mut h, dy, dw, &mut partials);

    pool.give(h);
    pool.give(partials);
    saved.recycle(pool);
}

/// y (n, out) = x (n, in) · w (out, in)ᵀ, or added to what `write` says.
pub(crate) fn linear(
    y: &mut [f32],
    x: &[f32],
    w: &[f32],
    (n, out, input): (usize, usize, usize),
    write: Write<'_>,
) {
    matmul(y, out, (n, out, input), View::rows(x, input), View::rows(w, input).t(), write);
}

/// dx (n, in) = dy (n, out) · w (out, in).
fn linear_backward(dx: &mut [f32], dy: &[f32], w: &[f32], (n, out, input): (usize, usize, usize)) {
    matmul(dx, input, (n, input, out), View::rows(dy, out), View::rows(w, input), Write::Set);
}

/// dw (out, in) += dy (n, out)ᵀ · x (n, in).
fn weight_gradient(dw: &mut [f32], dy: &[f32], x: &[f32], (out, input, n): (usize, usize, usize)) {
    matmul(dw, input, (out, input, n), View::rows(dy, out).t(), View::rows(x, input), Write::Add);
}
