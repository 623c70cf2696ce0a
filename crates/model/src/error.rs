//! What can go wrong when a stage computes.

use crate::config::ConfigError;

/// Errors of stages and backends. Messages say what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The configuration cannot be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The stage's own shape makes no sense.
    #[error("stage: {0}")]
    Spec(String),
    /// A buffer has the wrong number of elements.
    #[error("{what}: expected {expected} values, got {actual}; shapes of caller and stage differ")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Elements wanted.
        expected: usize,
        /// Elements given.
        actual: usize,
    },
    /// A token is not in the vocabulary.
    #[error("token {token} at position {position} is outside the vocabulary of {vocab}; check the tokenizer")]
    Token {
        /// The token.
        token: u32,
        /// Its index in the batch.
        position: usize,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// An origin's operation was asked of a relay stage, or the reverse.
    #[error("{0}")]
    Role(&'static str),
    /// Saved activations of another backend or stage.
    #[error("saved activations do not belong to this backend; pass back what its forward returned")]
    ForeignSaved,
    /// The thread pool could not be built.
    #[error("cannot start {threads} compute threads: {why}; ask for fewer")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The system's reason.
        why: String,
    },
}

/// Result of model operations.
pub type Result<T> = std::result::Result<T, ModelError>;

/// Checks a buffer's length.
pub(crate) fn expect_len(what: &'static str, actual: usize, expected: usize) -> Result<()> {
    if actual == expected { Ok(()) } else { Err(ModelError::Length { what, expected, actual }) }
}
