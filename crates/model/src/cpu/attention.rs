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
    /// Query rows of a tile: whole kernel tiles whose scores stay within half a megabyte (L2), whatever the number
    /// of keys.
    fn tile(&self, keys: usize) -> usize {
        ((131_072 / keys).clamp(12, 48) / 12 * 12).min(self.context)
    }
}

/// Row stride of scores and transposed keys: off powers of two, which would share cache sets.
fn off_stride(keys: usize) -> usize {
    keys.next_multiple_of(16) + 16
}

/// Where keys and values lie.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// Rows of keys and values, `rows` for each sequence.
    pub(crate) data: &'a [f32],
    /// Channels of a row.
    pub(crate) width: usize,
    /// Channel of the first key head.
    pub(crate) key_at: usize,
    /// Channel of the first value head.
    pub(crate) value_at: usize,
    /// Rows of a sequence.
    pub(crate) rows: usize,
    /// Keys before the first query's own.
    pub(crate) past: usize,
}

impl<'a> Keys<'a> {
    /// In the same rows as the queries.
    pub(crate) fn among(s: AttentionShape, qkv: &'a [f32]) -> Self {
        let (key_at, value_at) = (s.heads * s.head, (s.heads + s.kv_heads) * s.head);
        Self { data: qkv, width: s.width(), key_at, value_at, rows: s.context, past: 0 }
    }
}

/// `to` (columns, stride) = transpose of the rows of `columns` values at `from`, `width` apart.
fn transpose(from: &[f32], width: usize, columns: usize, to: &mut [f32], stride: usize, rows: usize) {
    for r0 in (0..rows).step_by(16) {
        for c in 0..columns {
            for r in r0..rows.min(r0 + 16) {
                to[c * stride + r] = from[r * width + c];
            }
        }
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
    fn score_gradient(p: &[f32], dp: &mut [f32], stride: usize, seen: usize, delta: &[f32], scale: f32) {
        for ((p, dp), delta) in p.chunks_exact(stride).zip(dp.chunks_exact_mut(stride)).zip(delta) {
            for (dp, p) in dp[..seen].iter_mut().zip(p) {
                *dp = p * (*dp - delta) * scale;
            }
        }
    }
}

multiversion! {
    fn row_dot(a: &[f32], b: &[f32]) -> f32 { dot(a, b) }
}

/// `out` (B·T, Hq·hd) and `lse` (B, Hq, T) from the queries in `qkv` (B·T, (Hq + 2·Hkv)·hd) and the keys and
/// values in `keys`, rotary embedding already applied. A query sees the `past` keys and those up to its own.
pub(crate) fn forward(s: AttentionShape, qkv: &[f32], keys: Keys<'_>, out: &mut [f32], lse: &mut [f32]) {
    let (w, hd, t, past) = (s.width(), s.head, s.context, keys.past);
    let (tile, stride) = (s.tile(past + t), off_stride(past + t));
    let out_width = s.heads * hd;
    let out = SharedMut::new(out);
    lse.par_chunks_mut(t).enumerate().for_each(|(index, lse)| {
        let (b, h) = (index / s.heads, index % s.heads);
        let base = b * t * w;
        let kv = h / (s.heads / s.kv_heads);
        let rows = &keys.data[b * keys.rows * keys.width..];
        let values = View::rows(&rows[keys.value_at + kv * hd..], keys.width);
        with_scratch(tile * (stride + hd) + hd * stride, |scratch| {
            let (scores, rest) = scratch.split_at_mut(tile * stride);
            let (o, keys_t) = rest.split_at_mut(tile * hd);
            transpose(&rows[keys.key_at + kv * hd..], keys.width, hd, keys_t, stride, past + t);
            let keys_t = View::rows(keys_t, stride);
            for q0 in (0..t).step_by(tile) {
                let rows = tile.min(t - q0);
                let seen = past + q0 + rows;
                let queries = View::rows(&qkv[base + q0 * w + h * hd..], w);
                let scores = &mut scores[..rows * stride];
                matmul_small(scores, stride, (rows, seen, hd), queries, keys_t, Write::Set);
                softmax_rows(scores, stride, past + q0 + 1, s.scale(), &mut lse[q0..q0 + rows]);
                matmul_small(o, hd, (rows, hd, seen), View::rows(scores, stride), values, Write::Set);
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
    let (w, hd, t, tile, stride) = (s.width(), s.head, s.context, s.tile(s.context), off_stride(s.context));
    let (group, out_width) = (s.heads / s.kv_heads, s.heads * hd);
    let qkv = SharedMut::new(qkv);
    (0..s.batch * s.kv_heads).into_par_iter().for_each(|task| {
        let (b, kv) = (task / s.kv_heads, task % s.kv_heads);
        with_scratch(2 * (tile + hd) * stride + tile * (2 * hd + 1) + 3 * t * hd, |scratch| {
            let (p, rest) = scratch.split_at_mut(tile * stride);
            let (ds, rest) = rest.split_at_mut(tile * stride);
            let (keys_t, rest) = rest.split_at_mut(hd * stride);
            let (values_t, rest) = rest.split_at_mut(hd * stride);
            let (q, rest) = rest.split_at_mut(tile * hd);
            let (dq, rest) = rest.split_at_mut(tile * hd);
            let (delta, rest) = rest.split_at_mut(tile);
            let (keys, rest) = rest.split_at_mut(t * hd);
            let (dk, dv) = rest.split_at_mut(t * hd);
            let (k_at, v_at) = ((s.heads + kv) * hd, (s.heads + s.kv_heads + kv) * hd);
            // SAFETY (all `slice` calls here): a task touches the columns of its own key head and of the query
            // heads of its group, in its own sequence; no other task does, and no two parts here overlap.
            for r in 0..t {
                dv[r * hd..][..hd].copy_from_slice(unsafe { qkv.slice((b * t + r) * w + v_at, hd) });
                keys[r * hd..][..hd].copy_from_slice(unsafe { qkv.slice((b * t + r) * w + k_at, hd) });
            }
            transpose(dv, hd, hd, values_t, stride, t);
            transpose(keys, hd, hd, keys_t, stride, t);
            let (keys_t, values_t) = (View::rows(keys_t, stride), View::rows(values_t, stride));
            let keys = View::rows(keys, hd);
            dk.fill(0.0);
            dv.fill(0.0);
            for h in kv * group..(kv + 1) * group {
                let lse = &lse[(b * s.heads + h) * t..][..t];
                for q0 in (0..t).step_by(tile) {
                    let rows = tile.min(t - q0);
                    let seen = q0 + rows;
                    let (p, ds) = (&mut p[..rows * stride], &mut ds[..rows * stride]);
                    let at = |r: usize| (b * t + q0 + r) * out_width + h * hd;
                    for r in 0..rows {
                        // SAFETY: see above.
                        let row = unsafe { qkv.slice((b * t + q0 + r) * w + h * hd, hd) };
                        q[r * hd..][..hd].copy_from_slice(row);
                        delta[r] = row_dot(&out[at(r)..][..hd], &d_out[at(r)..][..hd]);
                    }
                    let queries = View::rows(q, hd);
                    let d_rows = View::rows(&d_out[at(0)..], out_width);
                    matmul_small(p, stride, (rows, seen, hd), queries, keys_t, Write::Set);
                    softmax_again(p, stride, q0 + 1, s.scale(), &lse[q0..seen]);
                    matmul_small(dv, hd, (seen, hd, rows), View::rows(p, stride).t(), d_rows, Write::Add);
                    matmul_small(ds, stride, (rows, seen, hd), d_rows, values_t, Write::Set);
                    score_gradient(p, ds, stride, seen, &delta[..rows], s.scale());
                    let ds = View::rows(ds, stride);
                    matmul_small(dq, hd, (rows, hd, seen), ds, keys, Write::Set);
                    matmul_small(dk, hd, (seen, hd, rows), ds.t(), queries, Write::Add);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, k: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * k).sin()).collect()
    }

    /// Attention and its gradient as the formulas read, in f64: (out, d_qkv).
    fn naive(s: AttentionShape, qkv: &[f32], d_out: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let (w, hd, t) = (s.width(), s.head, s.context);
        let ow = s.heads * hd;
        let (mut out, mut grad) = (vec![0.0; s.batch * t * ow], vec![0.0; qkv.len()]);
        for (b, h, i) in (0..s.batch * s.heads * t).map(|x| (x / t / s.heads, x / t % s.heads, x % t)) {
            let kv = h / (s.heads / s.kv_heads);
            let (q, k, v) = (h * hd, (s.heads + kv) * hd, (s.heads + s.kv_heads + kv) * hd);
            let at = |row: usize, c: usize| (b * t + row) * w + c;
            let x = |row: usize, c: usize| f64::from(qkv[at(row, c)]);
            let o = (b * t + i) * ow + h * hd;
            let scale = 1.0 / (hd as f64).sqrt();
            let exps: Vec<f64> = (0..=i)
                .map(|j| ((0..hd).map(|c| x(i, q + c) * x(j, k + c)).sum::<f64>() * scale).exp())
                .collect();
            let sum: f64 = exps.iter().sum();
            let p: Vec<f64> = exps.iter().map(|e| e / sum).collect();
            let dp: Vec<f64> =
                (0..=i).map(|j| (0..hd).map(|c| f64::from(d_out[o + c]) * x(j, v + c)).sum()).collect();
            let delta: f64 = p.iter().zip(&dp).map(|(p, d)| p * d).sum();
            for j in 0..=i {
                let ds = p[j] * (dp[j] - delta) * scale;
                for c in 0..hd {
                    out[o + c] += p[j] * x(j, v + c);
                    grad[at(j, v + c)] += p[j] * f64::from(d_out[o + c]);
                    grad[at(i, q + c)] += ds * x(j, k + c);
                    grad[at(j, k + c)] += ds * x(i, q + c);
                }
            }
        }
        (out, grad)
    }

    #[test]
    fn agrees_with_the_formulas_across_tiles_and_groups() {
        let shape =
            |batch, context, heads, kv_heads, head| AttentionShape { batch, context, heads, kv_heads, head };
        let shapes = [
            shape(1, 1, 1, 1, 2),
            shape(2, 47, 2, 1, 6),
            shape(1, 48, 3, 3, 32),
            shape(2, 49, 4, 2, 10),
            shape(1, 150, 6, 2, 16),
            shape(1, 12_000 / 16, 1, 1, 4),
        ];
        for s in shapes {
            let n = s.batch * s.context;
            let mut qkv = noise(n * s.width(), 0.917);
            let d_out = noise(n * s.heads * s.head, 0.413);
            let (want, want_grad) = naive(s, &qkv, &d_out);
            let mut out = vec![0.0; want.len()];
            let mut lse = vec![0.0; n * s.heads];
            forward(s, &qkv, Keys::among(s, &qkv), &mut out, &mut lse);
            backward(s, &mut qkv, &out, &lse, &d_out);
            for (got, want) in out.iter().zip(&want).chain(qkv.iter().zip(&want_grad)) {
                assert!((f64::from(*got) - want).abs() < 3e-5, "{s:?}: {got} {want}");
            }
        }
    }
}
