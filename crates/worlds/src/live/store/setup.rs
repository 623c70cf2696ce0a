//! What a node computes with.

use crate::config::{ConfigError, RunConfig, RunShape};
use crate::live::folder::tokens_path;
use crate::wire_format::WireFormat;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

/// Adam's constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OptimizerSetup {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// What is left after a step of what a rebuild has added to the stage's learning rate: 1, all of it.
    pub raise_kept: f32,
}

/// What each step leaves of a raise of the learning rate that decays to 1/e within so many iterations.
fn raise_kept(decay_iterations: Option<NonZeroU64>) -> f32 {
    decay_iterations.map_or(1.0, |iterations| (1.0 - 1.0 / iterations.get() as f64) as f32)
}

/// What every node of a run computes with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineSetup {
    /// Model, stages and batches.
    pub shape: RunShape,
    /// Adam's constants.
    pub optimizer: OptimizerSetup,
    /// Seeds the weights and the order of samples.
    pub seed: u64,
    /// In which numbers boundary tensors leave a stage.
    pub wire: WireFormat,
    /// In which numbers replicas add up a stage's gradient.
    pub reduce: WireFormat,
    /// Whether boundary tensors and sums are hashed, because replicas check each other.
    pub digests: bool,
    /// Compute threads.
    pub threads: usize,
    /// The token file, read when this node first serves the origin.
    pub tokens: PathBuf,
    /// The run's `state/`.
    pub state: PathBuf,
}

impl EngineSetup {
    /// What `config` means for the computations of the run in `dir`, with a vocabulary of `tokens` tokens.
    ///
    /// # Errors
    /// A model that can't be built or cut so.
    pub fn of(config: &RunConfig, dir: &Path, tokens: usize) -> Result<Self, ConfigError> {
        let strategy = skipstone_recovery::strategy(&config.recovery)?;
        Ok(Self {
            shape: config.shape(tokens)?,
            optimizer: OptimizerSetup {
                beta1: config.beta1,
                beta2: config.beta2,
                epsilon: config.epsilon,
                weight_decay: config.weight_decay,
                raise_kept: raise_kept(strategy.rate_decay()),
            },
            seed: config.seed,
            wire: config.wire,
            reduce: config.reduce,
            digests: config.spot_check_every() > 0,
            threads: config.threads_per_node(),
            tokens: tokens_path(dir),
            state: dir.join("state"),
        })
    }
}
