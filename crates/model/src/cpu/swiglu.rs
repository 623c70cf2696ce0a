//! SwiGLU (Shazeer 2020): silu(gate)·up, with silu(g) = g / (1 + e⁻ᵍ).

use rayon::prelude::*;

use crate::simd::{exp, multiversion};

/// Rows of a task.
const ROWS: usize = 16;

multiversion! {
    fn forward_row(gate: &[f32], up: &[f32], act: &mut [f32]) {
        for ((a, g), u) in act.iter_mut().zip(gate).zip(up) {
            let sigmoid = 1.0 / (1.0 + exp(-g));
            *a = g * sigmoid * u;
        }
    }
}

multiversion! {
    fn backward_row(gate: &mut [f32], up: &mut [f32], act: &mut [f32]) {
        for ((a, g), u) in act.iter_mut().zip(gate).zip(up) {
            let sigmoid = 1.0 / (1.0 + exp(-*g));
            let silu = *g * sigmoid;
            let da = *a;
            *a = silu * *u;
            *g = da * *u * (sigmoid + silu * (1.0 - sigmoid));
            *u = da * silu;
        }
    }
}

/// act (N, F) = silu(gate)·up, from `gate_up` (N, 2F).
pub(crate) fn forward(gate_up: &[f32], act: &mut [f32], f: usize) {
    act.par_chunks_mut(ROWS * f).zip(gate_up.par_chunks(ROWS * 2 * f)).for_each(|(act, gu)| {
        for (act, gu) in act.chunks_exact_mut(f).zip(gu.chunks_exact(2 * f)) {
            let (gate, up) = gu.split_at(f);
            forward_row(gate, up, act);
        }
    });
}

/// Overwrites `gate_up` (N, 2F) with its gradient, given that of act (N, F), and that with act as it was in forward:
/// the gradient of the next weights needs it, and its exponentials are the same.
pub(crate) fn backward(gate_up: &mut [f32], act: &mut [f32], f: usize) {
    gate_up.par_chunks_mut(ROWS * 2 * f).zip(act.par_chunks_mut(ROWS * f)).for_each(|(gu, act)| {
        for (gu, act) in gu.chunks_exact_mut(2 * f).zip(act.chunks_exact_mut(f)) {
            let (gate, up) = gu.split_at_mut(f);
            backward_row(gate, up, act);
        }
    });
}
