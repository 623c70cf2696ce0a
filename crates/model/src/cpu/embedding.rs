//! The embedding: rows looked up, and gradients added back to them.

use rayon::prelude::*;

/// x (N, D) = rows of `table` (V, D).
pub(crate) fn forward(table: &[f32], tokens: &[u32], x: &mut [f32], d: usize) {
    x.par_chunks_exact_mut(d).with_min_len(64).zip(tokens).for_each(|(x, &token)| {
        x.copy_from_slice(&table[token as usize * d..][..d]);
    });
}

/// Adds dx (N, D) to the rows of `d_table` (V, D), in the order of the tokens.
pub(crate) fn backward(d_table: &mut [f32], tokens: &[u32], dx: &[f32], d: usize) {
    for (dx, &token) in dx.chunks_exact(d).zip(tokens) {
        for (t, g) in d_table[token as usize * d..][..d].iter_mut().zip(dx) {
            *t += g;
        }
    }
}
