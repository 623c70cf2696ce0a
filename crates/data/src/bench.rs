//! How fast data is made ready: `skipstone bench data`.

use std::time::Instant;

use crate::corpus::Corpus;
use crate::error::DataError;
use crate::order::{BatchShape, SampleOrder};
use crate::story::StoryCorpus;
use crate::tokenizer::Tokenizer;

/// Speeds on this machine, all cores.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DataBench {
    /// Bytes of embedded stories the figures are for.
    pub corpus_bytes: usize,
    /// Stories generated, in MB (10⁶ bytes) a second.
    pub corpus_mb_per_s: f64,
    /// Time to train the tokenizer, in seconds.
    pub tokenizer_train_s: f64,
    /// Tokens of its vocabulary.
    pub vocab_size: usize,
    /// Tokens encoded a second.
    pub encode_tokens_per_s: f64,
    /// Bytes of text a token stands for.
    pub bytes_per_token: f64,
    /// Samples written into batches a second.
    pub fill_samples_per_s: f64,
    /// T, in tokens, of those samples.
    pub context: usize,
}

/// Measures on `corpus_bytes` bytes of embedded stories, a vocabulary of at most `vocab_size` and samples of `context` tokens.
///
/// # Errors
/// When the sizes are impossible.
pub fn bench_data(corpus_bytes: usize, vocab_size: usize, context: usize) -> Result<DataBench, DataError> {
    let start = Instant::now();
    let stories = StoryCorpus::generate(0, corpus_bytes);
    let generated = start.elapsed().as_secs_f64();
    let corpus_bytes = stories.text.len();
    let corpus = Corpus::from(stories);

    let start = Instant::now();
    let tokenizer = Tokenizer::train_bpe(&corpus, vocab_size)?;
    let tokenizer_train_s = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let tokens = tokenizer.encode_corpus(&corpus)?;
    let encoded = start.elapsed().as_secs_f64();

    let shape = BatchShape { context, batch: 32, microbatches: 1 };
    let order = SampleOrder::new(0, tokens.len(), shape)?;
    let (mut inputs, mut targets) = (vec![0; 32 * context], vec![0; 32 * context]);
    let start = Instant::now();
    let iterations = (order.samples_per_epoch() / 32).clamp(100, 10_000);
    for iteration in 0..iterations {
        order.fill(&tokens, iteration, 0, &mut inputs, &mut targets);
        std::hint::black_box((&inputs, &targets));
    }
    let filled = start.elapsed().as_secs_f64();

    Ok(DataBench {
        corpus_bytes,
        corpus_mb_per_s: corpus_bytes as f64 / generated / 1e6,
        tokenizer_train_s,
        vocab_size: tokenizer.vocab_size(),
        encode_tokens_per_s: tokens.len() as f64 / encoded,
        bytes_per_token: corpus_bytes as f64 / tokens.len() as f64,
        fill_samples_per_s: (32 * iterations) as f64 / filled,
        context,
    })
}
