//! First weights of a stage, the same however the model is cut.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;

use crate::config::LlamaConfig;
use crate::layout::StageLayout;
use crate::math::{cos_sin_turns, ln};

/// Standard deviation of fresh weights, as in Hugging Face's `initializer_range`.
pub const INIT_STD: f64 = 0.02;

/// Values drawn from one ChaCha stream; fixed, so that the number of threads does not matter.
const CHUNK: usize = 1 << 14;

/// Fills `params` with the first weights of a stage.
///
/// Matrices are N(0, 0.02²); projections that write to the residual stream (`o_proj`, `down_proj`) are scaled by
/// 1/√(2·layers of the model), as in GPT-2; norms are 1. A tensor's values depend on `seed` and its name only.
/// The arithmetic avoids libm, so every machine draws the same bits.
///
/// # Panics
/// If `params` is not as long as the layout says.
pub fn initialise(config: &LlamaConfig, layout: &StageLayout, seed: u64, params: &mut [f32]) {
    assert_eq!(params.len(), layout.len(), "parameter buffer and layout differ");
    let residual_scale = 1.0 / ((2 * config.num_hidden_layers) as f64).sqrt();
    for tensor in layout.tensors() {
        let slice = &mut params[tensor.range()];
        if tensor.shape.len() == 1 {
            slice.fill(1.0);
            continue;
        }
        let residual = tensor.name.ends_with("o_proj.weight") || tensor.name.ends_with("down_proj.weight");
        let std = if residual { INIT_STD * residual_scale } else { INIT_STD };
        let key = tensor_key(seed, &tensor.name);
        slice.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
            let mut rng = ChaCha8Rng::from_seed(key);
            rng.set_stream(i as u64);
            fill_normal(&mut rng, std, chunk);
        });
    }
}

/// The first weights of a stage in a buffer of their own; see [`initialise`].
pub fn initial_parameters(config: &LlamaConfig, layout: &StageLayout, seed: u64) -> Vec<f32> {
    let mut params = vec![0.0; layout.len()];
    initialise(config, layout, seed, &mut params);
    params
}

fn tensor_key(seed: u64, name: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("skipstone 2026 initial weights");
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Box and Muller: two normals from two uniforms.
fn fill_normal(rng: &mut ChaCha8Rng, std: f64, out: &mut [f32]) {
    const UNIT: f64 = 1.0 / (1u64 << 32) as f64;
    for pair in out.chunks_mut(2) {
        let u = (f64::from(rng.next_u32()) + 0.5) * UNIT; // (0, 1)
        let turns = f64::from(rng.next_u32()) * UNIT;
        let radius = (-2.0 * ln(u)).sqrt() * std;
        let (c, s) = cos_sin_turns(turns);
        pair[0] = (radius * c) as f32;
        if let Some(second) = pair.get_mut(1) {
            *second = (radius * s) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Role;

    #[test]
    fn any_split_starts_with_the_same_weights() {
        let config = LlamaConfig { num_hidden_layers: 4, ..LlamaConfig::tiny() };
        let whole = StageLayout::new(&config, Role::Origin, 0..4);
        let all = initial_parameters(&config, &whole, 7);
        for range in [0..2, 1..4, 3..4] {
            let part = StageLayout::new(&config, Role::Relay, range);
            let params = initial_parameters(&config, &part, 7);
            for t in part.tensors() {
                assert_eq!(params[t.range()], all[whole.tensor(&t.name).unwrap().range()], "{}", t.name);
            }
        }
        assert_ne!(all, initial_parameters(&config, &whole, 8));
    }

    #[test]
    fn moments_of_the_normal() {
        let config = LlamaConfig::tiny();
        let layout = StageLayout::new(&config, Role::Relay, 0..1);
        let params = initial_parameters(&config, &layout, 1);
        for (name, want) in [("mlp.gate_up_proj", 0.02), ("mlp.down_proj", 0.02 / 8f64.sqrt())] {
            let t = layout.tensor(&format!("model.layers.0.{name}.weight")).unwrap();
            let v: Vec<f64> = params[t.range()].iter().map(|&x| f64::from(x)).collect();
            let n = v.len() as f64;
            let mean = v.iter().sum::<f64>() / n;
            let var = v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
            let kurtosis = v.iter().map(|x| (x - mean).powi(4)).sum::<f64>() / n / (var * var);
            assert!(mean.abs() < 5.0 * want / n.sqrt(), "{mean}");
            assert!((var.sqrt() / want - 1.0).abs() < 0.02, "{var}");
            assert!((kurtosis - 3.0).abs() < 0.2, "{kurtosis}");
        }
    }
}
