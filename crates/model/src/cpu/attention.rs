//! Causal attention in tiles of query rows (after FlashAttention, Dao et al. 2022): forward keeps the logarithm
//! of each row's sum of exponentials, backward computes the tiles anew; a (T, T) matrix is never stored.

use rayon::prelude::*;

use super::matmul::{View, Write, matmul_small};
use super::scratch::{SharedMut, with_scratch};
use crate::simd::{dot, exp, exp_sum, max, multiversion};

/// Shape of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    /// Sequences, B.
    pub(crate) batch: usize,
    /// Tokens of a sequence, T.
    pub(crate) context: usize,
    /// Query heads, Hq.
    pub(crate) heads: usize,
    /// Key and value heads, Hkv.
    pub(crate) kv_heads: usize,
    /// Channels of a head.
    pub(crate) head: usize,
}

impl AttentionShape {
    /// Channels of a row of qkv.
    fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head
    }
    fn scale(&self) -> f32 {
        1.0 / (self.head as f32).sqrt()
    }
    /// Query rows of a tile: a tile's scores stay within a quarter of a megabyte (L2), whatever the context.
    fn tile(&self) -> usize {
        (65_536 / self.context).clamp(16, 64).min(self.context)
    }
}

multiversion! {
    /// Rows of scaled scores → probabilities and log-sum-exp. Row r may see the first `visible + r` keys.
    fn softmax_rows(scores: &mut [f32], stride: usize, visible: usize, scale: f32, lse: &mut [f32]) {
        for ((r, row), lse) in scores.chunks_exact_mut(stride).enumerate().zip(lse) {
            let (seen, hidden) = row.split_at_mut(visible + r);
            let shift = max(seen) * scale;
            let sum = exp_sum(seen, scale, shift);
            let inv = 1.0 / sum;
            for p in seen { *p *= inv; }
            hidden.fill(0.0);
            *lse = shift + sum.ln();
        }
    }
}

multiversion! {
    /// Rows of scaled scores → probabilities, from the saved log-sum-exp.
    fn softmax_again(scores: &mut [f32], stride: usize, visible: usize, scale: f32, lse: &[f32]) {
        for ((r, row), lse) in scores.chunks_exact_mut(stride).enumerate().zip(lse) {
            let (seen, hidden) = row.split_at_mut(visible + r);
            for p in seen { *p = exp(*p * scale - lse); }
            hidden.fill(0.0);
        }
    }
}

multiversion! {
    /// dS = P∘(dP − Δ)·scale with Δ = Σ dO·O of the row, written over dP.
    fn score_gradient(p: &[f32], dp: &mut [f32], stride: usize, delta: &[f32], scale: f32) {
        for ((p, dp), delta) in p.chunks_exact(stride).zip(dp.chunks_exact_mut(stride)).zip(delta) {
            for (dp, p) in dp.iter_mut().zip(p) {
                *dp = p * (*dp - delta) * scale;
            }
        }
    }
}

multiversion! {
    fn row_dot(a: &[f32], b: &[f32]) -> f32 { dot(a, b) }
}

/// `out` (B·T, Hq·hd) and `lse` (B, Hq, T) from `qkv` (B·T, (Hq + 2·Hkv)·hd), rotary embedding already applied.
pub(crate) fn forward(s: AttentionShape, qkv: &[f32], out: &mut [f32], lse: &mut [f32]) {
    let (w, hd, t, tile) = (s.width(), s.head, s.context, s.tile());
    let out_width = s.heads * hd;
    let out = SharedMut::new(out);
    lse.par_chunks_mut(t).enumerate().for_each(|(index, lse)| {
        let (b, h) = (index / s.heads, index % s.heads);
        let base = b * t * w;
        let kv = h / (s.heads / s.kv_heads);
        let keys = View::rows(&qkv[base + (s.heads + kv) * hd..], w);
        let values = View::rows(&qkv[base + (s.heads + s.kv_heads + kv) * hd..], w);
        with_scratch(tile * (t + hd), |scratch| {
            let (scores, o) = scratch.split_at_mut(tile * t);
            for q0 in (0..t).step_by(tile) {
                let rows = tile.min(t - q0);
                let seen = q0 + rows;
                let scores = &mut scores[..rows * seen];
                let queries = View::rows(&qkv[base + q0 * w + h * hd..], w);
                matmul_small(scores, seen, (rows, seen, hd), queries, keys.t(), 1.0, Write::Set);
                softmax_rows(scores, seen, q0 + 1, s.scale(), &mut lse[q0..q0 + rows]);
                matmul_small(o, hd, (rows, hd, seen), View::rows(scores, seen), values, 1.0, Write::Set);
                for r in 0..rows {
                    // SAFETY: rows of one head of one sequence, which only this task writes.
                    let to = unsafe { out.slice((b * t + q0 + r) * out_width + h * hd, hd) };
                    to.copy_from_slice(&o[r * hd..(r + 1) * hd]);
                }
            }
        });
    });
}

/// Overwrites `qkv` with its gradient, given that of `out`.
///
/// For a tile of queries: P from the scores and `lse`; dV += Pᵀ·dO; dP = dO·Vᵀ; dS = P∘(dP − Δ)·scale;
/// dQ = dS·K; dK += dSᵀ·Q. One task per key head of a sequence: it adds up the heads of its group in order.
pub(crate) fn backward(s: AttentionShape, qkv: &mut [f32], out: &[f32], lse: &[f32], d_out: &[f32]) {
    let (w, hd, t, tile) = (s.width(), s.head, s.context, s.tile());
    let (group, out_width) = (s.heads / s.kv_heads, s.heads * hd);
    let qkv = SharedMut::new(qkv);
    (0..s.batch * s.kv_heads).into_par_iter().for_each(|task| {
        let (b, kv) = (task / s.kv_heads, task % s.kv_heads);
        with_scratch(tile * (2 * t + 2 * hd + 1) + 4 * t * hd, |scratch| {
            let (p, rest) = scratch.split_at_mut(tile * t);
            let (ds, rest) = rest.split_at_mut(tile * t);
            let (q, rest) = rest.split_at_mut(tile * hd);
            let (dq, rest) = rest.split_at_mut(tile * hd);
            let (delta, rest) = rest.split_at_mut(tile);
            let (keys, rest) = rest.split_at_mut(t * hd);
            let (values, rest) = rest.split_at_mut(t * hd);
            let (dk, dv) = rest.split_at_mut(t * hd);
            let (k_at, v_at) = ((s.heads + kv) * hd, (s.heads + s.kv_heads + kv) * hd);
            // SAFETY (all `slice` calls here): a task touches the columns of its own key head and of the query
            // heads of its group, in its own sequence; no other task does, and no two parts here overlap.
            for r in 0..t {
                keys[r * hd..][..hd].copy_from_slice(unsafe { qkv.slice((b * t + r) * w + k_at, hd) });
                values[r * hd..][..hd].copy_from_slice(unsafe { qkv.slice((b * t + r) * w + v_at, hd) });
            }
            let (keys, values) = (View::rows(keys, hd), View::rows(values, hd));
            dk.fill(0.0);
            dv.fill(0.0);
            for h in kv * group..(kv + 1) * group {
                let lse = &lse[(b * s.heads + h) * t..][..t];
                for q0 in (0..t).step_by(tile) {
                    let rows = tile.min(t - q0);
                    let seen = q0 + rows;
                    let (p, ds) = (&mut p[..rows * seen], &mut ds[..rows * seen]);
                    let at = |r: usize| (b * t + q0 + r) * out_width + h * hd;
                    for r in 0..rows {
                        // SAFETY: see above.
                        let row = unsafe { qkv.slice((b * t + q0 + r) * w + h * hd, hd) };
                        q[r * hd..][..hd].copy_from_slice(row);
                        delta[r] = row_dot(&out[at(r)..][..hd], &d_out[at(r)..][..hd]);
                    }
                    let queries = View::rows(q, hd);
                    let d_rows = View::rows(&d_out[at(0)..], out_width);
                    matmul_small(p, seen, (rows, seen, hd), queries, keys.t(), 1.0, Write::Set);
                    softmax_again(p, seen, q0 + 1, s.scale(), &lse[q0..q0 + rows]);
                    matmul_small(dv, hd, (seen, hd, rows), View::rows(p, seen).t(), d_rows, 1.0, Write::Add);
                    matmul_small(ds, seen, (rows, seen, hd), d_rows, values.t(), 1.0, Write::Set);
                    score_gradient(p, ds, seen, &delta[..rows], s.scale());
                    let ds = View::rows(ds, seen);
                    matmul_small(dq, hd, (rows, hd, seen), ds, keys, 1.0, Write::Set);
                    matmul_small(dk, hd, (seen, hd, rows), ds.t(), queries, 1.0, Write::Add);
                    for r in 0..rows {
                        // SAFETY: see above.
                        let row = unsafe { qkv.slice((b * t + q0 + r) * w + h * hd, hd) };
                        row.copy_from_slice(&dq[r * hd..][..hd]);
                    }
                }
            }
            for r in 0..t {
                // SAFETY: see above.
                unsafe { qkv.slice((b * t + r) * w + k_at, hd) }.copy_from_slice(&dk[r * hd..][..hd]);
                // SAFETY: see above.
                unsafe { qkv.slice((b * t + r) * w + v_at, hd) }.copy_from_slice(&dv[r * hd..][..hd]);
            }
        });
    });
}
