//! Corpora, tokenizers, and the order of samples as a function of (seed, iteration, microbatch).
//!
//! [`prepare()`] goes from what the command line says to tokens: a [`Corpus`] is read, or [`story`] tells one whose entropy
//! is known; a [`Tokenizer`] is loaded or trained; a [`TokenDataset`] holds both splits and goes through a checked file to
//! the processes that need it. [`SampleOrder`] says which windows of it a microbatch holds, [`validation_batches`] what is
//! validated on, [`bigram_loss`] what a model without a memory achieves.

mod bench;
mod bigram;
mod corpus;
mod dataset;
mod error;
mod file;
mod order;
mod permutation;
mod prepare;
pub mod story;
mod tokenizer;
mod tokenizer_file;
mod validation;

pub use bench::{DataBench, bench_data};
pub use bigram::bigram_loss;
pub use corpus::{Corpus, Limits};
pub use dataset::TokenDataset;
pub use error::{DataError, DatasetError, LoadError, OrderError, TokenizerError};
pub use order::{BatchShape, SampleId, SampleOrder};
pub use prepare::{DataRequest, Prepared, prepare};
pub use tokenizer::{Tokenizer, TokenizerSource};
pub use validation::{ValidationBatch, validation_batches};
