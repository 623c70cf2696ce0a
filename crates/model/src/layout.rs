//! Where each tensor of a stage lies in its one flat parameter buffer.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};

/// What a stage does besides its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Owns embedding, final norm, head and loss; its layers come right after the embedding.
    Origin,
    /// Layers only.
    Relay,
}

/// One stage of a model: its role, its layers and the shape of a microbatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSpec {
    /// Origin or relay.
    pub role: Role,
    /// Absolute indices of the layers held.
    pub layers: Range<usize>,
    /// Sequences in a microbatch, B.
    pub batch: usize,
    /// Tokens in a sequence, T.
    pub context: usize,
}

impl StageSpec {
    /// Tokens in a microbatch, B·T.
    pub fn tokens(&self) -> usize {
        self.batch * self.context
    }

    /// Parameters of the stage: what its [`StageLayout`] comes to, without laying it out.
    pub fn parameters(&self, config: &LlamaConfig) -> usize {
        let edge = if self.role == Role::Origin { config.edge_parameters() } else { 0 };
        self.layers.len() * config.layer_parameters() + edge
    }

    /// Checks the stage against its model.
    ///
    /// # Errors
    /// [`ModelError::Config`] or [`ModelError::Spec`].
    pub fn validate(&self, config: &LlamaConfig) -> Result<()> {
        config.validate()?;
        let bad = |why: String| Err(ModelError::Spec(why));
        if self.layers.start > self.layers.end || self.layers.end > config.num_hidden_layers {
            return bad(format!(
                "layers {:?} are outside the model's {}; cut it differently",
                self.layers, config.num_hidden_layers
            ));
        }
        if self.role == Role::Relay && self.layers.is_empty() {
            return bad("a relay stage holds no layers; use fewer stages or more layers".to_owned());
        }
        if self.batch == 0 || self.context == 0 {
            return bad(format!("batch {} × context {}; both must be positive", self.batch, self.context));
        }
        Ok(())
    }
}

/// One tensor inside the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSlot {
    /// Name in Hugging Face's style; fused ones are `…self_attn.qkv_proj.weight` and `…mlp.gate_up_proj.weight`.
    pub name: String,
    /// Row-major shape, `[out, in]` or `[width]`.
    pub shape: Vec<usize>,
    /// First element in the flat buffer.
    pub offset: usize,
    /// Whether weight decay applies (matrices yes, norms no).
    pub decay: bool,
    /// Number of elements.
    pub len: usize,
}

impl TensorSlot {
    /// Its range in the flat buffer.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// Ranges of one layer's tensors in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRanges {
    /// RMSNorm before attention, `[D]`.
    pub attn_norm: Range<usize>,
    /// Queries, keys, values: `[(Hq + 2·Hkv)·hd, D]`.
    pub qkv: Range<usize>,
    /// Output projection `[D, Hq·hd]`.
    pub o_proj: Range<usize>,
    /// RMSNorm before the MLP, `[D]`.
    pub mlp_norm: Range<usize>,
    /// Gate above up: `[2·F, D]`.
    pub gate_up: Range<usize>,
    /// Down projection `[D, F]`.
    pub down: Range<usize>,
}

/// Ranges of an origin's own tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginRanges {
    /// Embedding `[V, D]`.
    pub embedding: Range<usize>,
    /// Final RMSNorm `[D]`.
    pub final_norm: Range<usize>,
    /// Head `[V, D]`; the embedding's range when tied.
    pub head: Range<usize>,
}

/// Names, shapes and offsets of all tensors of a stage, in buffer order:
/// embedding (origin), layers, final norm and head (origin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageLayout {
    tensors: Vec<TensorSlot>,
    layers: Vec<LayerRanges>,
    origin: Option<OriginRanges>,
    len: usize,
}

struct Builder {
    tensors: Vec<TensorSlot>,
    len: usize,
}

impl Builder {
    fn add(&mut self, name: String, shape: &[usize]) -> Range<usize> {
        let len = shape.iter().product();
        let offset = self.len;
        self.tensors.push(TensorSlot { name, shape: shape.to_vec(), offset, decay: shape.len() > 1, len });
        self.len += len;
        offset..offset + len
    }
}

impl StageLayout {
    /// Lays out a stage with the given role and absolute layer indices.
    pub fn new(config: &LlamaConfig, role: Role, layers: Range<usize>) -> Self {
        let mut b = Builder { tensors: Vec::new(), len: 0 };
        let (v, d, f) = (config.vocab_size, config.hidden_size, config.intermediate_size);
        let (q, k) = (config.query_width(), config.key_width());
        let is_origin = role == Role::Origin;
        let embedding = is_origin.then(|| b.add("model.embed_tokens.weight".to_owned(), &[v, d]));
        let layers = layers
            .map(|i| {
                let name = |part: &str| format!("model.layers.{i}.{part}.weight");
                LayerRanges {
                    attn_norm: b.add(name("input_layernorm"), &[d]),
                    qkv: b.add(name("self_attn.qkv_proj"), &[q + 2 * k, d]),
                    o_proj: b.add(name("self_attn.o_proj"), &[d, q]),
                    mlp_norm: b.add(name("post_attention_layernorm"), &[d]),
                    gate_up: b.add(name("mlp.gate_up_proj"), &[2 * f, d]),
                    down: b.add(name("mlp.down_proj"), &[d, f]),
                }
            })
            .collect();
        let origin = embedding.map(|embedding| {
            let final_norm = b.add("model.norm.weight".to_owned(), &[d]);
            let head = if config.tie_word_embeddings {
                embedding.clone()
            } else {
                b.add("lm_head.weight".to_owned(), &[v, d])
            };
            OriginRanges { embedding, final_norm, head }
        });
        Self { tensors: b.tensors, layers, origin, len: b.len }
    }

    /// The layout of a stage.
    pub fn of(config: &LlamaConfig, spec: &StageSpec) -> Self {
        Self::new(config, spec.role, spec.layers.clone())
    }

    /// All tensors, in buffer order.
    pub fn tensors(&self) -> &[TensorSlot] {
        &self.tensors
    }
    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorSlot> {
        self.tensors.iter().find(|t| t.name == name)
    }
    /// Elements of the flat buffer.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether the stage has no parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Ranges of each layer, in order.
    pub fn layers(&self) -> &[LayerRanges] {
        &self.layers
    }
    /// Ranges of embedding, final norm and head; none for a relay.
    pub fn origin(&self) -> Option<&OriginRanges> {
        self.origin.as_ref()
    }
    /// The whole of layer `index` (counted from the stage's first): its tensors are contiguous, so recovery
    /// recipes can mix a layer as one slice.
    ///
    /// # Panics
    /// If the stage has no such layer.
    pub fn layer_range(&self, index: usize) -> Range<usize> {
        self.layers[index].attn_norm.start..self.layers[index].down.end
    }
    /// Ranges to which weight decay applies, adjacent ones merged, in order.
    pub fn decay_ranges(&self) -> Vec<Range<usize>> {
        let mut out: Vec<Range<usize>> = Vec::new();
        for t in self.tensors.iter().filter(|t| t.decay) {
            match out.last_mut() {
                Some(last) if last.end == t.offset => last.end = t.offset + t.len,
                _ => out.push(t.range()),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up_to_the_model() {
        for tie in [false, true] {
            let config = LlamaConfig { tie_word_embeddings: tie, ..LlamaConfig::tiny() };
            let origin = StageLayout::new(&config, Role::Origin, 0..1);
            let relay = StageLayout::new(&config, Role::Relay, 1..4);
            assert_eq!(origin.len() + relay.len(), config.parameters());
            for layout in [&origin, &relay] {
                let mut end = 0;
                for t in layout.tensors() {
                    assert_eq!(t.offset, end);
                    end += t.len;
                }
                assert_eq!(end, layout.len());
            }
            assert_eq!(relay.layer_range(1).len(), config.layer_parameters());
            for (layout, role, layers) in [(&origin, Role::Origin, 0..1), (&relay, Role::Relay, 1..4)] {
                let spec = StageSpec { role, layers, batch: 1, context: 8 };
                assert_eq!(spec.parameters(&config), layout.len());
            }
        }
    }

    #[test]
    fn decay_leaves_out_norms_only() {
        let layout = StageLayout::new(&LlamaConfig::tiny(), Role::Relay, 0..2);
        let decayed: usize = layout.decay_ranges().iter().map(ExactSizeIterator::len).sum();
        assert_eq!(decayed, layout.len() - 4 * 128);
    }

    #[test]
    fn refuses_impossible_stages() {
        let config = LlamaConfig::tiny();
        let spec = |role, layers, batch| StageSpec { role, layers, batch, context: 8 };
        assert!(spec(Role::Relay, 1..2, 1).validate(&config).is_ok());
        assert!(spec(Role::Origin, 0..0, 1).validate(&config).is_ok());
        assert!(spec(Role::Relay, 2..2, 1).validate(&config).is_err());
        assert!(spec(Role::Relay, 3..5, 1).validate(&config).is_err());
        assert!(spec(Role::Relay, 0..1, 0).validate(&config).is_err());
    }
}
