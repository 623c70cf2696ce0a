//! What arms of a seed train on.

use super::LabError;
use crate::config::RunConfig;
use crate::cost::Numbers;
use crate::live::store::{EngineSetup, Feed};
use skipstone_data::{SampleOrder, TokenDataset, prepare};
use std::path::Path;
use std::sync::Arc;

/// Tokens, prepared once for all arms of a seed.
#[derive(Debug, Clone)]
pub(super) struct Data {
    dataset: Arc<TokenDataset>,
    vocabulary: usize,
    /// Tells it from others.
    pub(super) digest: String,
}

impl Data {
    pub(super) fn prepare(config: &RunConfig) -> Result<Self, LabError> {
        let prepared = prepare(&config.data_request()?)?;
        let mut hasher = blake3::Hasher::new();
        for split in [prepared.dataset.train(), prepared.dataset.validation()] {
            hasher.update(&(split.len() as u64).to_le_bytes());
            hasher.update(bytemuck::cast_slice(split));
        }
        let digest = hasher.finalize().to_hex()[..16].to_owned();
        let vocabulary = prepared.tokenizer.vocab_size();
        Ok(Self { dataset: Arc::new(prepared.dataset), vocabulary, digest })
    }

    /// What the nodes of a run on this data compute with.
    pub(super) fn numbers(&self, config: &RunConfig) -> Result<Numbers, LabError> {
        // Nothing is read from a folder: the feed is given, and files are not simulated.
        let setup = EngineSetup::of(config, Path::new(""), self.vocabulary)?;
        let order = SampleOrder::new(config.seed, self.dataset.train().len(), setup.shape.batches)?;
        Ok(Numbers { setup, feed: Feed::new(self.dataset.clone(), order) })
    }

    /// The first tokens to validate on, at most so many.
    pub(super) fn validation(&self, tokens_max: usize) -> &[u32] {
        let tokens = self.dataset.validation();
        &tokens[..tokens.len().min(tokens_max)]
    }
}
