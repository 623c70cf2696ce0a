//! Clipping and AdamW on flat buffers, with the same bits on every machine.
//!
//! Only +, ×, ÷ and √ of IEEE 754 in a fixed order: no fused multiply-add, no libm. Replicas of a stage on
//! different CPUs therefore hold identical weights after identical gradients.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Result, expect_len};
use crate::layout::StageLayout;
use crate::math::powi;
use crate::simd::multiversion;

/// Numbers of one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerStep {
    /// Steps taken by these moments, this one included: 1, 2, ….
    pub step: u64,
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay (matrices only); 0 makes AdamW Adam.
    pub weight_decay: f32,
    /// Factor on the gradients, from [`clip_factor`]; it may also hold 1/tokens.
    pub clip_factor: f32,
}

impl Default for OptimizerStep {
    /// CheckFree's setting: Adam (0.9, 0.999), no weight decay, rate 3e-4.
    fn default() -> Self {
        Self {
            step: 1,
            learning_rate: 3e-4,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_factor: 1.0,
        }
    }
}

/// Values that one task handles. Fixed, because sums are taken per tile.
const TILE: usize = 1 << 15;

/// Coefficients of a step that are the same for every value.
#[derive(Clone, Copy)]
struct Factors {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    step_size: f32,
    root_correction: f32,
    epsilon: f32,
    keep: f32,
    clip: f32,
}

multiversion! {
    fn adam_tile(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        let Factors { beta1, rest1, beta2, rest2, step_size, root_correction, epsilon, keep, clip } = f;
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * clip;
            *m = beta1 * *m + rest1 * g;
            *v = beta2 * *v + rest2 * (g * g);
            *p = keep * *p - step_size * *m / (v.sqrt() / root_correction + epsilon);
        }
    }
}

/// One AdamW step (Loshchilov & Hutter 2019) in place. With g = clip_factor·grad:
/// m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← (1 − lr·decay)·p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
///
/// The coefficients are worked out in `f64` and rounded once; decay applies where the layout says.
///
/// # Errors
/// [`crate::ModelError::Length`] if a buffer does not fit the layout.
pub fn adamw_step(
    layout: &StageLayout,
    params: &mut [f32],
    grads: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    step: &OptimizerStep,
) -> Result<()> {
    expect_len("parameters", params.len(), layout.len())?;
    expect_len("gradients", grads.len(), layout.len())?;
    expect_len("first moments", m.len(), layout.len())?;
    expect_len("second moments", v.len(), layout.len())?;
    let (b1, b2, lr) = (f64::from(step.beta1), f64::from(step.beta2), f64::from(step.learning_rate));
    let plain = Factors {
        beta1: step.beta1,
        rest1: (1.0 - b1) as f32,
        beta2: step.beta2,
        rest2: (1.0 - b2) as f32,
        step_size: (lr / (1.0 - powi(b1, step.step))) as f32,
        root_correction: (1.0 - powi(b2, step.step)).sqrt() as f32,
        epsilon: step.epsilon,
        keep: 1.0,
        clip: step.clip_factor,
    };
    if step.weight_decay == 0.0 {
        step_range(params, grads, m, v, plain);
        return Ok(());
    }
    let decayed = Factors { keep: (1.0 - lr * f64::from(step.weight_decay)) as f32, ..plain };
    let mut at = 0;
    let end = std::iter::once(layout.len()..layout.len());
    for range in layout.decay_ranges().into_iter().chain(end) {
        for (r, factors) in [(at..range.start, plain), (range.clone(), decayed)] {
            step_range(&mut params[r.clone()], &grads[r.clone()], &mut m[r.clone()], &mut v[r], factors);
        }
        at = range.end;
    }
    Ok(())
}

fn step_range(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], factors: Factors) {
    p.par_chunks_mut(TILE)
        .zip(g.par_chunks(TILE))
        .zip(m.par_chunks_mut(TILE))
        .zip(v.par_chunks_mut(TILE))
        .for_each(|(((p, g), m), v)| adam_tile(p, g, m, v, factors));
}

multiversion! {
    fn square_sum(g: &[f32]) -> f64 {
        const LANES: usize = 16;
        let mut lanes = [0.0f64; LANES];
        let (chunks, rest) = g.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                let x = f64::from(chunk[i]);
                lanes[i] += x * x;
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(x) * f64::from(x);
        }
        lanes.iter().sum()
    }
}

/// L2 norm in `f64`: squares summed in lanes within fixed tiles, tiles added in order.
pub fn grad_norm(grads: &[f32]) -> f64 {
    let mut tiles = vec![0.0f64; grads.len().div_ceil(TILE)];
    tiles.par_iter_mut().zip(grads.par_chunks(TILE)).for_each(|(sum, tile)| *sum = square_sum(tile));
    tiles.iter().sum::<f64>().sqrt()
}

/// Sets a buffer to zero.
pub fn zero(buffer: &mut [f32]) {
    buffer.par_chunks_mut(TILE).for_each(|tile| tile.fill(0.0));
}

/// The factor that brings a gradient of that norm down to `max`, as `clip_grad_norm_` does:
/// min(1, max / (norm + 1e-6)). A `max` that is not positive means no clipping.
pub fn clip_factor(norm: f64, max: f64) -> f64 {
    if max > 0.0 { (max / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LlamaConfig;
    use crate::layout::Role;

    /// The step value by value, as the formula reads.
    fn reference(p: f32, g: f32, m: f32, v: f32, decay: bool, s: &OptimizerStep) -> (f32, f32, f32) {
        let g = g * s.clip_factor;
        let m = s.beta1 * m + (1.0 - f64::from(s.beta1)) as f32 * g;
        let v = s.beta2 * v + (1.0 - f64::from(s.beta2)) as f32 * (g * g);
        let lr = f64::from(s.learning_rate);
        let size = (lr / (1.0 - f64::from(s.beta1).powi(s.step as i32))) as f32;
        let root = (1.0 - f64::from(s.beta2).powi(s.step as i32)).sqrt() as f32;
        let keep = if decay { (1.0 - lr * f64::from(s.weight_decay)) as f32 } else { 1.0 };
        (keep * p - size * m / (v.sqrt() / root + s.epsilon), m, v)
    }

    #[test]
    fn every_value_takes_the_formula_s_step_on_any_number_of_threads() {
        let layout = StageLayout::new(&LlamaConfig::tiny(), Role::Origin, 0..2);
        let values = |k: f32| -> Vec<f32> { (0..layout.len()).map(|i| (i as f32 * k).sin()).collect() };
        let (p0, g, m0, v0) = (values(0.37), values(1.7), values(0.11), values(0.7));
        let v0: Vec<f32> = v0.iter().map(|x| x.abs()).collect();
        let step = OptimizerStep { step: 3, weight_decay: 0.1, clip_factor: 0.3, ..OptimizerStep::default() };
        let mut first: Option<Vec<f32>> = None;
        for threads in [1, 3] {
            let (mut p, mut m, mut v) = (p0.clone(), m0.clone(), v0.clone());
            crate::ComputePool::new(threads)
                .unwrap()
                .install(|| adamw_step(&layout, &mut p, &g, &mut m, &mut v, &step))
                .unwrap();
            for t in layout.tensors() {
                for i in t.range() {
                    assert_eq!((p[i], m[i], v[i]), reference(p0[i], g[i], m0[i], v0[i], t.decay, &step));
                }
            }
            assert!(first.is_none_or(|f| f == p));
            first = Some(p);
        }
    }

    #[test]
    fn norm_and_clip() {
        let g: Vec<f32> = (0..100_003).map(|i| (i as f32 * 0.3).cos()).collect();
        let want = g.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let norm = grad_norm(&g);
        assert!((norm / want - 1.0).abs() < 1e-12);
        for threads in [1, 2, 5] {
            assert_eq!(crate::ComputePool::new(threads).unwrap().install(|| grad_norm(&g)), norm);
        }
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
        assert_eq!(clip_factor(4.0, 0.0), 1.0);
        assert_eq!(grad_norm(&[]), 0.0);
    }
}
