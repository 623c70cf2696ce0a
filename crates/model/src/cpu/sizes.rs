//! How large a stage's buffers are.

use super::attention::AttentionShape;
use super::layer::{self, LayerShape};
use super::{loss, norm};
use crate::config::LlamaConfig;
use crate::layout::{Role, StageSpec};

/// The shape of the model's layers for (batch, context).
pub(super) fn layer_shape(c: &LlamaConfig, (batch, context): (usize, usize)) -> LayerShape {
    LayerShape {
        attention: AttentionShape {
            batch,
            context,
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head: c.head_width(),
        },
        d: c.hidden_size,
        f: c.intermediate_size,
        eps: c.rms_norm_eps,
    }
}

/// Bytes of the activations one microbatch keeps for backward.
pub(crate) fn saved_bytes(config: &LlamaConfig, spec: &StageSpec) -> u64 {
    let layers = spec.layers.len() * layer::saved_len(&layer_shape(config, (spec.batch, spec.context)));
    let tokens = if spec.role == Role::Origin { spec.tokens() } else { 0 };
    4 * (layers + tokens) as u64
}

/// Bytes of the buffers that wait for reuse once every operation has run.
pub(crate) fn workspace_bytes(config: &LlamaConfig, spec: &StageSpec) -> u64 {
    let shape = layer_shape(config, (spec.batch, spec.context));
    let (n, d) = (spec.tokens(), config.hidden_size);
    let partials = norm::partials_len(n, d);
    let layers = if spec.layers.is_empty() { 0 } else { layer::workspace_len(&shape) };
    let loss = match spec.role {
        Role::Origin => n * d + n + loss::tile_rows(config.vocab_size, n) * config.vocab_size,
        Role::Relay => 0,
    };
    4 * (layers + partials + loss) as u64
}
