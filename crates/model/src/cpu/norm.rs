//! RMSNorm: y = x / √(mean(x²) + ε) · w (Zhang & Sennrich 2019), row by row.

use rayon::prelude::*;

use crate::simd::{dot, multiversion};

/// Rows of a tile; fixed, because the weight gradient is summed tile by tile.
pub(crate) const ROWS: usize = 32;

multiversion! {
    fn forward_rows(x: &[f32], w: &[f32], eps: f32, h: &mut [f32], inv: &mut [f32]) {
        let d = w.len();
        for ((x, h), inv) in x.chunks_exact(d).zip(h.chunks_exact_mut(d)).zip(inv) {
            *inv = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
            for ((h, x), w) in h.iter_mut().zip(x).zip(w) {
                *h = x * *inv * w;
            }
        }
    }
}

multiversion! {
    fn apply_rows(x: &[f32], w: &[f32], inv: &[f32], h: &mut [f32]) {
        let d = w.len();
        for ((x, h), inv) in x.chunks_exact(d).zip(h.chunks_exact_mut(d)).zip(inv) {
            for ((h, x), w) in h.iter_mut().zip(x).zip(w) {
                *h = x * inv * w;
            }
        }
    }
}

multiversion! {
    fn backward_rows(x: &[f32], w: &[f32], inv: &[f32], dh: &mut [f32], d_residual: &mut [f32], dw: &mut [f32]) {
        let d = w.len();
        let rows = x.chunks_exact(d).zip(dh.chunks_exact_mut(d)).zip(d_residual.chunks_exact_mut(d)).zip(inv);
        for (((x, dh), dr), inv) in rows {
            for (((g, x), w), dw) in dh.iter_mut().zip(x).zip(w).zip(dw.iter_mut()) {
                *dw += *g * x * inv;
                *g *= w;
            }
            let shared = dot(dh, x) / d as f32 * inv * inv * inv;
            for ((dr, g), x) in dr.iter_mut().zip(dh.iter()).zip(x) {
                *dr += g * inv - x * shared;
            }
        }
    }
}

/// h (N, D) = RMSNorm of x (N, D); `inv` (N) keeps 1/√(mean(x²) + ε) for backward.
pub(crate) fn forward(x: &[f32], w: &[f32], eps: f32, h: &mut [f32], inv: &mut [f32]) {
    let tile = ROWS * w.len();
    h.par_chunks_mut(tile)
        .zip(inv.par_chunks_mut(ROWS))
        .zip(x.par_chunks(tile))
        .for_each(|((h, inv), x)| forward_rows(x, w, eps, h, inv));
}

/// h (N, D) once more, from the saved `inv`.
pub(crate) fn recompute(x: &[f32], w: &[f32], inv: &[f32], h: &mut [f32]) {
    let tile = ROWS * w.len();
    h.par_chunks_mut(tile)
        .zip(inv.par_chunks(ROWS))
        .zip(x.par_chunks(tile))
        .for_each(|((h, inv), x)| apply_rows(x, w, inv, h));
}

/// Adds the gradient of x to `d_residual` (N, D), and of w to `dw`.
///
/// With g = dh·w: dx = inv·g − x·inv³·mean(g·x); dw = Σ dh·x·inv, summed per tile of [`ROWS`] rows in
/// `partials` (⌈N/ROWS⌉, D) and then over tiles in order. `dh` (N, D) is overwritten.
pub(crate) fn backward(
    x: &[f32],
    w: &[f32],
    inv: &[f32],
    dh: &mut [f32],
    d_residual: &mut [f32],
    dw: Option<&mut [f32]>,
    partials: &mut [f32],
) {
    let d = w.len();
    let tile = ROWS * d;
    d_residual
        .par_chunks_mut(tile)
        .zip(dh.par_chunks_mut(tile))
        .zip(partials.par_chunks_mut(d))
        .zip(inv.par_chunks(ROWS))
        .zip(x.par_chunks(tile))
        .for_each(|((((dr, dh), dw), inv), x)| {
            dw.fill(0.0);
            backward_rows(x, w, inv, dh, dr, dw);
        });
    if let Some(dw) = dw {
        for partial in partials.chunks_exact(d) {
            for (dw, p) in dw.iter_mut().zip(partial) {
                *dw += p;
            }
        }
    }
}

/// Length of `partials` for N rows of width D.
pub(crate) fn partials_len(rows: usize, width: usize) -> usize {
    rows.div_ceil(ROWS) * width
}
