//! Which Hugging Face tensors lie in which part of a stage's buffer: fused tensors are taken apart.

use std::ops::Range;

use crate::config::LlamaConfig;
use crate::layout::TensorSlot;

/// A tensor as Hugging Face names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HfTensor {
    /// Its name.
    pub(crate) name: String,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// Its elements in the stage's flat buffer.
    pub(crate) range: Range<usize>,
}

/// The tensors in one slot of a stage: three in a fused QKV projection, two in a fused gate and up, else one.
pub(crate) fn parts(config: &LlamaConfig, slot: &TensorSlot) -> Vec<HfTensor> {
    let (q, k, f) = (config.query_width(), config.key_width(), config.intermediate_size);
    let fused: &[(&str, usize)] = if slot.name.ends_with("qkv_proj.weight") {
        &[("q_proj", q), ("k_proj", k), ("v_proj", k)]
    } else if slot.name.ends_with("gate_up_proj.weight") {
        &[("gate_proj", f), ("up_proj", f)]
    } else {
        return vec![HfTensor { name: slot.name.clone(), shape: slot.shape.clone(), range: slot.range() }];
    };
    let stem = slot.name.trim_end_matches("qkv_proj.weight").trim_end_matches("gate_up_proj.weight");
    let width = slot.shape[1];
    let mut start = slot.offset;
    fused
        .iter()
        .map(|(part, rows)| {
            let range = start..start + rows * width;
            start = range.end;
            HfTensor { name: format!("{stem}{part}.weight"), shape: vec![*rows, width], range }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Role, StageLayout};

    #[test]
    fn parts_cover_the_buffer_once() {
        let config = LlamaConfig { num_key_value_heads: 2, ..LlamaConfig::tiny() };
        let layout = StageLayout::new(&config, Role::Origin, 0..2);
        let all: Vec<HfTensor> = layout.tensors().iter().flat_map(|t| parts(&config, t)).collect();
        let mut end = 0;
        for tensor in &all {
            assert_eq!(tensor.range.start, end, "{}", tensor.name);
            assert_eq!(tensor.range.len(), tensor.shape.iter().product::<usize>());
            end = tensor.range.end;
        }
        assert_eq!(end, layout.len());
        assert_eq!(all.len(), 3 + 2 * 9);
        assert!(
            all.iter().any(|t| t.name == "model.layers.1.self_attn.v_proj.weight" && t.shape == [64, 128])
        );
        assert!(all.iter().any(|t| t.name == "model.layers.0.mlp.up_proj.weight"));
    }
}
