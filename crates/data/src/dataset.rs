//! Tokens to train on and tokens to validate on.

use std::path::Path;

use crate::error::DatasetError;
use crate::file;

/// A corpus as tokens, in two splits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenDataset {
    train: Vec<u32>,
    validation: Vec<u32>,
    vocab_size: usize,
}

impl TokenDataset {
    /// The share of a corpus that is kept for validation unless one says otherwise: 1 of 10, its end.
    pub const VALIDATION_SHARE: usize = 10;

    /// Two splits that were made apart.
    ///
    /// # Errors
    /// When a token is outside the vocabulary.
    pub fn new(train: Vec<u32>, validation: Vec<u32>, vocab_size: usize) -> Result<Self, DatasetError> {
        for (split, tokens) in [("train", &train), ("validation", &validation)] {
            if let Some(position) = tokens.iter().position(|&token| token as usize >= vocab_size) {
                return Err(DatasetError::OutsideVocab {
                    split,
                    position,
                    token: tokens[position],
                    vocab_size,
                });
            }
        }
        Ok(Self { train, validation, vocab_size })
    }

    /// Keeps the last 1 of `share` tokens for validation (at least as many, rounded down).
    ///
    /// # Errors
    /// When a token is outside the vocabulary.
    ///
    /// # Panics
    /// When `share` is 0.
    pub fn split(mut tokens: Vec<u32>, vocab_size: usize, share: usize) -> Result<Self, DatasetError> {
        let validation = tokens.split_off(tokens.len() - tokens.len() / share);
        Self::new(tokens, validation, vocab_size)
    }

    /// The tokens to train on.
    pub fn train(&self) -> &[u32] {
        &self.train
    }

    /// The tokens to validate on.
    pub fn validation(&self) -> &[u32] {
        &self.validation
    }

    /// Every token is below this.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Checks that each split holds at least one sample of `context` tokens and the targets that follow.
    ///
    /// # Errors
    /// When one does not.
    pub fn check_context(&self, context: usize) -> Result<(), DatasetError> {
        for (split, tokens) in [("train", self.train.len()), ("validation", self.validation.len())] {
            if tokens <= context {
                return Err(DatasetError::TooShort { split, tokens, context });
            }
        }
        Ok(())
    }

    /// Writes the token file at `path`, beside it first and then renamed. Returns its hash (BLAKE3), by which two nodes
    /// tell that they hold the same data.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<[u8; 32], DatasetError> {
        file::write(path, self)
    }

    /// Reads and checks a token file.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged in any bit.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        file::read(path)
    }

    /// The hash that [`TokenDataset::write`] returns, without writing.
    pub fn hash(&self) -> [u8; 32] {
        file::hash(self)
    }
}
