//! Cross-entropy in tiles of rows: the (B·T, V) logits never exist at once.

use rayon::prelude::*;

use super::matmul::{View, Write, matmul};
use crate::simd::{exp_sum, max, multiversion};

/// A target of this value is left out of the loss (Hugging Face's −100).
pub const IGNORE: u32 = u32::MAX;

/// Rows whose logits are kept at once: about 2M of them, and whole multiples of 64 rows.
pub(crate) fn tile_rows(vocab: usize, rows: usize) -> usize {
    ((1 << 21) / vocab).next_multiple_of(64).clamp(64, 1024).min(rows)
}

multiversion! {
    /// −log softmax(row)[target]; if `scale` is given, the row becomes its gradient, softmax − one-hot, times it.
    fn row_loss(row: &mut [f32], target: usize, scale: Option<f32>) -> f64 {
        let shift = max(row);
        let chosen = row[target];
        let sum = exp_sum(row, 1.0, shift);
        if let Some(scale) = scale {
            let factor = scale / sum;
            for p in row.iter_mut() { *p *= factor; }
            row[target] -= scale;
        }
        f64::from(sum).ln() + f64::from(shift) - f64::from(chosen)
    }
}

/// What [`cross_entropy`] should leave behind.
pub(crate) struct Gradients<'a> {
    /// The head's gradient (V, D), added to.
    pub(crate) head: Option<&'a mut [f32]>,
    /// Factor on the loss.
    pub(crate) scale: f32,
}

/// Sum of the losses of all rows and how many counted. `h` (N, D) is the normalised input of the head (V, D);
/// with `gradients` it is overwritten by its gradient. `logits` has room for [`tile_rows`] rows, `losses` for N.
pub(crate) fn cross_entropy(
    h: &mut [f32],
    head: &[f32],
    targets: &[u32],
    (d, v): (usize, usize),
    mut gradients: Option<Gradients<'_>>,
    logits: &mut [f32],
    losses: &mut [f64],
) -> (f64, usize) {
    let rows = tile_rows(v, targets.len());
    let tiles = h.chunks_mut(rows * d).zip(targets.chunks(rows)).zip(losses.chunks_mut(rows));
    for ((h, targets), losses) in tiles {
        let n = targets.len();
        let logits = &mut logits[..n * v];
        matmul(logits, v, (n, v, d), View::rows(h, d), View::rows(head, d).t(), Write::Set);
        let scale = gradients.as_ref().map(|g| g.scale);
        logits.par_chunks_exact_mut(v).zip(targets).zip(losses).for_each(|((row, &target), loss)| {
            if target == IGNORE {
                row.fill(0.0);
                *loss = 0.0;
            } else {
                *loss = row_loss(row, target as usize, scale);
            }
        });
        if let Some(gradients) = &mut gradients {
            let d_logits = View::rows(logits, v);
            if let Some(d_head) = &mut gradients.head {
                matmul(d_head, d, (v, d, n), d_logits.t(), View::rows(h, d), Write::Add);
            }
            matmul(h, d, (n, d, v), d_logits, View::rows(head, d), Write::Set);
        }
    }
    (losses.iter().sum(), targets.iter().filter(|&&t| t != IGNORE).count())
}
