//! Rotary position embedding (Su et al. 2021) in Hugging Face's half-split convention.

use rayon::prelude::*;

use crate::config::{LlamaConfig, RopeScaling};
use crate::math::cos_sin_turns;
use crate::simd::multiversion;

/// Cosines and sines for each position and pair of channels.
#[derive(Clone, Debug)]
pub(crate) struct RopeTable {
    /// (T, hd/2)
    cos: Vec<f32>,
    /// (T, hd/2)
    sin: Vec<f32>,
    half: usize,
    frequencies: Vec<f32>,
}

impl RopeTable {
    /// Tables for `context` positions.
    pub(crate) fn new(config: &LlamaConfig, context: usize) -> Self {
        let half = config.head_width() / 2;
        let frequencies = frequencies(config);
        let mut table = Self { cos: Vec::new(), sin: Vec::new(), half, frequencies };
        table.grow(context);
        table
    }

    /// Adds positions until there are `context`.
    pub(crate) fn grow(&mut self, context: usize) {
        for position in self.cos.len() / self.half..context {
            for &f in &self.frequencies {
                let angle = position as f32 * f; // rounded to f32 as transformers does
                let (c, s) = cos_sin_turns(f64::from(angle) / std::f64::consts::TAU);
                self.cos.push(c as f32);
                self.sin.push(s as f32);
            }
        }
    }

    /// Turns the first `heads` heads of each row of `x` (B·T, width) in place, the sequences' first token being at
    /// position `first`; `inverse` turns them back (which is also the gradient).
    pub(crate) fn apply(
        &self,
        x: &mut [f32],
        width: usize,
        heads: usize,
        (first, context): (usize, usize),
        inverse: bool,
    ) {
        const ROWS: usize = 32;
        x.par_chunks_mut(width * ROWS).enumerate().for_each(|(tile, rows)| {
            for (r, row) in rows.chunks_exact_mut(width).enumerate() {
                let at = (first + (tile * ROWS + r) % context) * self.half;
                let (cos, sin) = (&self.cos[at..at + self.half], &self.sin[at..at + self.half]);
                rotate(&mut row[..heads * 2 * self.half], cos, sin, if inverse { -1.0 } else { 1.0 });
            }
        });
    }
}

multiversion! {
    fn rotate(heads: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let half = cos.len();
        for head in heads.chunks_exact_mut(2 * half) {
            let (a, b) = head.split_at_mut(half);
            for (((a, b), c), s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                let s = s * sign;
                let (x, y) = (*a, *b);
                *a = x * c - y * s;
                *b = y * c + x * s;
            }
        }
    }
}

/// θ^(−2i/hd) for i in 0..hd/2, slowed down where `rope_scaling` says so, rounded to f32.
fn frequencies(config: &LlamaConfig) -> Vec<f32> {
    let hd = config.head_width();
    (0..hd / 2)
        .map(|i| {
            let exponent = (2 * i) as f32 / hd as f32;
            let f = (1.0 / config.rope_theta.powf(f64::from(exponent))) as f32;
            match &config.rope_scaling {
                Some(s) if s.rope_type == "llama3" => llama3(f64::from(f), s) as f32,
                _ => f,
            }
        })
        .collect()
}

/// LLaMA 3.1's scaling, after `_compute_llama3_parameters` of transformers: wavelengths beyond
/// original/low_freq_factor divided by `factor`, those below original/high_freq_factor kept, blended between.
fn llama3(f: f64, s: &RopeScaling) -> f64 {
    let wavelength = std::f64::consts::TAU / f;
    let original = s.original_max_position_embeddings as f64;
    if wavelength < original / s.high_freq_factor {
        f
    } else if wavelength > original / s.low_freq_factor {
        f / s.factor
    } else {
        let smooth = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
        (1.0 - smooth) * f / s.factor + smooth * f
    }
}
