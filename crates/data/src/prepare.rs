//! From `--data` and `--tokenizer` to tokens.

use std::path::PathBuf;

use crate::corpus::{Corpus, Limits};
use crate::dataset::TokenDataset;
use crate::error::DataError;
use crate::story::StoryCorpus;
use crate::tokenizer::{Tokenizer, TokenizerSource};

/// What to train on.
#[derive(Debug, Clone)]
pub struct DataRequest {
    /// A file or folder; `None` for the embedded stories.
    pub data: Option<PathBuf>,
    /// Where the tokenizer comes from.
    pub tokenizer: TokenizerSource,
    /// Seeds the embedded stories.
    pub seed: u64,
    /// Bytes of embedded stories to train on; a tenth of it more is for validation.
    pub story_bytes: usize,
    /// T, in tokens, of which each split has to hold at least one sample.
    pub context: usize,
    /// Bounds of what is read.
    pub limits: Limits,
}

/// A tokenizer and the tokens it made.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The tokens.
    pub dataset: TokenDataset,
    /// The least loss on the validation split that any model can expect, in nats per token; known for the embedded stories.
    pub entropy_floor: Option<f64>,
    /// Bytes of text in both splits.
    pub bytes: usize,
    /// Documents in both splits.
    pub documents: usize,
}

/// Mixed into the seed of the stories to validate on.
const VALIDATION_SEED: u64 = 0x5ca1_ab1e_0000_0001;

/// Loads or generates the text, trains or loads the tokenizer, encodes, splits.
///
/// # Errors
/// Whatever can go wrong with any of these.
pub fn prepare(request: &DataRequest) -> Result<Prepared, DataError> {
    let prepared = match &request.data {
        None => {
            let train = StoryCorpus::generate(request.seed, request.story_bytes);
            let share = request.story_bytes / TokenDataset::VALIDATION_SHARE;
            let validation = StoryCorpus::generate(request.seed ^ VALIDATION_SEED, share);
            let nats = validation.nats;
            let (train, validation) = (Corpus::from(train), Corpus::from(validation));
            let tokenizer = tokenizer_for(&request.tokenizer, &train)?;
            let tokens = tokenizer.encode_corpus(&validation)?;
            let entropy_floor = (!tokens.is_empty()).then(|| nats / tokens.len() as f64);
            let dataset =
                TokenDataset::new(tokenizer.encode_corpus(&train)?, tokens, tokenizer.vocab_size())?;
            let (bytes, documents) = (train.bytes() + validation.bytes(), train.len() + validation.len());
            Prepared { tokenizer, dataset, entropy_floor, bytes, documents }
        }
        Some(path) => {
            let corpus = Corpus::load(path, request.limits)?;
            let tokenizer = tokenizer_for(&request.tokenizer, &corpus)?;
            let tokens = tokenizer.encode_corpus(&corpus)?;
            let dataset =
                TokenDataset::split(tokens, tokenizer.vocab_size(), TokenDataset::VALIDATION_SHARE)?;
            let (bytes, documents) = (corpus.bytes(), corpus.len());
            Prepared { tokenizer, dataset, entropy_floor: None, bytes, documents }
        }
    };
    prepared.dataset.check_context(request.context)?;
    Ok(prepared)
}

fn tokenizer_for(source: &TokenizerSource, corpus: &Corpus) -> Result<Tokenizer, DataError> {
    Ok(match source {
        TokenizerSource::Train { vocab_size } => Tokenizer::train_bpe(corpus, *vocab_size)?,
        TokenizerSource::Bytes => Tokenizer::bytes()?,
        TokenizerSource::File(path) => Tokenizer::from_file(path)?,
    })
}
