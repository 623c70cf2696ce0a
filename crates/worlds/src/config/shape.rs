//! How the model is cut.

use super::{ConfigError, RunConfig};
use crate::text;
use serde::{Deserialize, Serialize};
use skipstone_data::BatchShape;
use skipstone_model::{LlamaConfig, Role, StageSpec};
use skipstone_types::StageId;
use std::path::Path;

/// The most relay stages of a run.
pub(super) const STAGES_MAX: usize = 1000;

/// Stands for a vocabulary that is not known yet, and has no bearing.
pub(super) const ANY_VOCABULARY: usize = 1;

/// One token a byte, and end-of-text.
pub(super) const BYTES_VOCABULARY: usize = 257;

/// A model and how it is cut: what a node needs to compute any stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunShape {
    /// The model.
    pub model: LlamaConfig,
    /// Relay stages.
    pub stages: u16,
    /// Layers of the origin.
    pub origin_layers: usize,
    /// Layers of each relay stage.
    pub relay_layers: usize,
    /// Sizes of the batches.
    pub batches: BatchShape,
}

impl RunShape {
    pub(super) fn new(config: &RunConfig, tokens: usize) -> Result<Self, ConfigError> {
        let model = model_config(config, tokens)?;
        model.validate()?;
        if config.deterministic && model.tie_word_embeddings {
            return Err(ConfigError::DeterministicTied);
        }
        let context = config.context_of()?;
        if context > model.max_position_embeddings {
            return Err(ConfigError::Context { context, max: model.max_position_embeddings });
        }
        let relay_layers = layers_per_relay(config, model.num_hidden_layers)?;
        let shape = Self {
            model,
            stages: config.stages,
            origin_layers: config.origin_layers,
            relay_layers,
            batches: config.batch_shape()?,
        };
        for stage in [0, config.stages] {
            shape.stage_spec(StageId(stage)).validate(&shape.model)?;
        }
        Ok(shape)
    }

    /// What a stage holds: the origin the first layers, relays equal numbers of those that follow.
    pub fn stage_spec(&self, stage: StageId) -> StageSpec {
        let (role, layers) = if stage.is_origin() {
            (Role::Origin, 0..self.origin_layers)
        } else {
            let start = self.origin_layers + (usize::from(stage.0) - 1) * self.relay_layers;
            (Role::Relay, start..start + self.relay_layers)
        };
        StageSpec { role, layers, batch: self.batches.batch, context: self.batches.context }
    }

    /// Parameters of a stage.
    pub fn parameters(&self, stage: StageId) -> usize {
        self.stage_spec(stage).parameters(&self.model)
    }

    /// Tokens of a microbatch.
    pub fn tokens(&self) -> usize {
        self.batches.batch * self.batches.context
    }

    /// Digest of all that weights and moments depend on: a saved state of another digest doesn't fit.
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(&(&self.model, self.stages, self.origin_layers, self.relay_layers));
        // A shape holds only numbers and strings, which JSON always writes.
        skipstone_types::Digest::of(text.unwrap_or_default().as_bytes()).to_string()
    }
}

pub(super) fn model_config(config: &RunConfig, tokens: usize) -> Result<LlamaConfig, ConfigError> {
    let path = Path::new(&config.model);
    let from_file = path.extension().is_some_and(|extension| extension == "json");
    let mut model = if from_file { read_model(path)? } else { LlamaConfig::preset(&config.model)? };
    if let Some(layers) = config.layers {
        model.num_hidden_layers = layers;
    }
    if let Some(width) = config.width {
        model.hidden_size = width;
        if !from_file {
            model.intermediate_size = skipstone_model::config::swiglu_width(width);
        }
    }
    if let Some(heads) = config.heads {
        model.num_attention_heads = heads;
        model.num_key_value_heads = heads;
    }
    if let Some(heads) = config.kv_heads {
        model.num_key_value_heads = heads;
    }
    if let Some(ffn) = config.ffn {
        model.intermediate_size = ffn;
    }
    if from_file {
        if tokens > model.vocab_size {
            return Err(ConfigError::Vocabulary { tokens, vocab: model.vocab_size });
        }
    } else {
        model.vocab_size = tokens;
        // A preset has no learnt positions: its context is a matter of choice.
        model.max_position_embeddings = config.context.unwrap_or(model.max_position_embeddings);
    }
    Ok(model)
}

fn read_model(path: &Path) -> Result<LlamaConfig, ConfigError> {
    let text = skipstone_files::read_text(path, text::FILE_BYTES_MAX)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text::from_json(&text).map_err(|why| ConfigError::ModelFile { path: path.to_owned(), why })
}

/// Layers of each relay stage, if they can be shared out equally.
pub(super) fn layers_per_relay(config: &RunConfig, layers: usize) -> Result<usize, ConfigError> {
    let (origin, stages) = (config.origin_layers, usize::from(config.stages.max(1)));
    let relays = layers.saturating_sub(origin);
    if relays >= stages && relays.is_multiple_of(stages) {
        return Ok(relays / stages);
    }
    Err(ConfigError::Cut { layers, origin, stages: config.stages, remedy: remedy(layers, origin, stages) })
}

/// The nearest numbers of stages and layers that work.
fn remedy(layers: usize, origin: usize, stages: usize) -> String {
    let relays = layers.saturating_sub(origin);
    let fits = |stages: usize| stages > 0 && relays.is_multiple_of(stages) && stages <= relays;
    // No run has more stages, and nobody waits while a model of 2^61 layers is looked through.
    let below = (1..stages.min(STAGES_MAX)).rev().find(|stages| fits(*stages));
    let above = (stages + 1..=relays.min(STAGES_MAX)).find(|stages| fits(*stages));
    let mut ways: Vec<String> =
        [below, above].into_iter().flatten().map(|stages| format!("--stages {stages}")).collect();
    let rounded_down = relays / stages * stages;
    for total in [rounded_down, rounded_down.saturating_add(stages)] {
        if total > 0 {
            ways.push(format!("--layers {}", total.saturating_add(origin)));
        }
    }
    ways.join(" or ")
}
