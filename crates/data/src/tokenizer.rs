//! Text to tokens and back.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper};
use tokenizers::{TokenizerBuilder, TokenizerImpl};

use crate::corpus::{Corpus, END_OF_TEXT};
use crate::error::TokenizerError;
use crate::tokenizer_file;

/// The end-of-text tokens known from published tokenizers, the first one found is taken.
const ENDS: [&str; 6] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>"];

/// The most tokens a trained vocabulary may have.
const MAX_VOCAB: usize = 1 << 20;

/// The longest `tokenizer.json` that is read, in bytes; the largest published ones have about 35 MB.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The most tokens that a vocabulary from a file may have: an embedding of more fits nowhere.
const MAX_FILE_VOCAB: usize = 1 << 24;

/// Training looks at this many bytes of a larger corpus at most, spread evenly.
const TRAINING_BYTES: usize = 4 << 20;

/// Long documents are encoded in parallel pieces of about this many bytes.
const PIECE: usize = 64 << 10;

/// Where a tokenizer comes from: the value of `--tokenizer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerSource {
    /// A byte-level BPE of this many tokens, trained on the corpus.
    Train {
        /// Tokens of the vocabulary, end-of-text among them.
        vocab_size: usize,
    },
    /// One token a byte.
    Bytes,
    /// A `tokenizer.json`.
    File(std::path::PathBuf),
}

/// Turns text into tokens and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// One token a byte: no library needed to encode.
    bytes: bool,
    /// Whether text may be cut where [`pieces`] cuts without changing its tokens.
    divisible: bool,
    vocab_size: usize,
    eos: u32,
    /// The `tokenizer.json` that it was read from, which is handed on as it is: the library writes another one, of
    /// which tokens may be missing.
    file: Option<Arc<str>>,
}

impl Tokenizer {
    /// One token a byte, its id the byte's value; 256 is end-of-text.
    ///
    /// # Errors
    /// When the library refuses, which it has no reason to.
    pub fn bytes() -> Result<Self, TokenizerError> {
        let vocab: Vec<(String, u32)> =
            (0..=255).map(|byte| (letter_of(byte).to_string(), u32::from(byte))).collect();
        let model = BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), Vec::new());
        let model = model.build().map_err(|error| library(&*error))?;
        let mut inner = byte_level(model)?;
        inner.add_special_tokens([end_of_text()]).map_err(|error| library(&*error))?;
        Self::new(inner.into(), true, true).map_err(|why| TokenizerError::Library { why })
    }

    /// Trains a byte-level BPE of at most `vocab_size` tokens on the corpus (on a few megabytes of it, evenly spread, when
    /// it is larger). End-of-text is token 0. The same corpus gives the same tokenizer.
    ///
    /// # Errors
    /// When the vocabulary cannot hold all bytes and end-of-text, or the corpus is empty.
    pub fn train_bpe(corpus: &Corpus, vocab_size: usize) -> Result<Self, TokenizerError> {
        const MIN_VOCAB: usize = 257;
        if !(MIN_VOCAB..=MAX_VOCAB).contains(&vocab_size) {
            return Err(TokenizerError::VocabSize { vocab_size, min: MIN_VOCAB, max: MAX_VOCAB });
        }
        if corpus.is_empty() {
            return Err(TokenizerError::Empty);
        }
        let mut inner = byte_level(BPE::default())?;
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(vec![end_of_text()])
            .initial_alphabet((0..=255).map(letter_of).collect())
            .build();
        let stride = corpus.bytes().div_ceil(TRAINING_BYTES).max(1);
        let sample = corpus.documents().flat_map(samples).step_by(stride);
        inner.train(&mut trainer, sample).map_err(|error| library(&*error))?;
        Self::new(inner.into(), false, true).map_err(|why| TokenizerError::Library { why })
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file cannot be read, is not a tokenizer, or has no end-of-text token.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let json = skipstone_files::read(path, FILE_BYTES_MAX)
            .map_err(|source| TokenizerError::Io { path: path.to_owned(), source })?;
        let unusable = |why| TokenizerError::Unusable { path: path.to_owned(), why };
        tokenizer_file::check(&json).map_err(unusable)?;
        let read = guarded(|| {
            let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(|error| error.to_string())?;
            inner.with_padding(None);
            inner.with_truncation(None).map_err(|error| error.to_string())?;
            Self::new(inner, false, false)
        });
        let mut tokenizer = read.and_then(|made| made).map_err(unusable)?;
        if let Some(token) = tokenizer.number_twice() {
            return Err(unusable(format!("two words of its vocabulary are token {token}")));
        }
        if tokenizer.vocab_size > MAX_FILE_VOCAB {
            let last = tokenizer.vocab_size - 1;
            return Err(unusable(format!(
                "its largest token is {last}, and tokens below {MAX_FILE_VOCAB} are read"
            )));
        }
        let text = String::from_utf8(json).map_err(|error| unusable(error.to_string()))?;
        tokenizer.file = Some(text.into());
        Ok(tokenizer)
    }

    fn new(mut inner: tokenizers::Tokenizer, bytes: bool, divisible: bool) -> Result<Self, String> {
        let eos = ENDS
            .iter()
            .find_map(|token| inner.token_to_id(token))
            .ok_or_else(|| format!("it has no end-of-text token; add one of {} to it", ENDS.join(", ")))?;
        let last = inner.get_vocab(true).into_values().max().unwrap_or(eos);
        inner.set_encode_special_tokens(true);
        Ok(Self { inner, bytes, divisible, vocab_size: last as usize + 1, eos, file: None })
    }

    /// A token that stands for two words: the library would choose one of them at random.
    fn number_twice(&self) -> Option<u32> {
        let mut seen = BTreeSet::new();
        self.inner.get_vocab(false).into_values().find(|token| !seen.insert(*token))
    }

    /// The tokens of a text. What looks like a special token in it is text like any other.
    ///
    /// # Errors
    /// When a loaded tokenizer cannot encode the text (one without an unknown token, say).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if self.bytes {
            return Ok(text.bytes().map(u32::from).collect());
        }
        let encode = |piece: &str| {
            let encode = || self.inner.encode_fast(piece, false).map(|encoding| encoding.get_ids().to_vec());
            guarded(encode).map_err(|why| TokenizerError::Library { why })?.map_err(|error| library(&*error))
        };
        if !self.divisible || text.len() <= PIECE {
            return encode(text);
        }
        let pieces: Vec<_> = pieces(text).collect();
        let parts: Vec<Vec<u32>> = pieces.into_par_iter().map(encode).collect::<Result<_, _>>()?;
        Ok(parts.concat())
    }

    /// The tokens of every document, each followed by end-of-text; documents are encoded in parallel.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_corpus(&self, corpus: &Corpus) -> Result<Vec<u32>, TokenizerError> {
        let documents: Vec<&str> = corpus.documents().collect();
        let parts: Vec<Vec<u32>> = documents
            .par_iter()
            .map(|document| {
                let mut tokens = self.encode(document)?;
                tokens.push(self.eos);
                Ok(tokens)
            })
            .collect::<Result<_, TokenizerError>>()?;
        Ok(parts.concat())
    }

    /// The text of tokens, end-of-text tokens included; bytes that form no character become U+FFFD.
    ///
    /// # Errors
    /// When the library cannot decode.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        let decode = || self.inner.decode(tokens, false);
        guarded(decode).map_err(|why| TokenizerError::Library { why })?.map_err(|error| library(&*error))
    }

    /// One more than the greatest token: the rows of the embedding.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a document.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }

    /// The contents of `tokenizer.json`: those that it was read from, if it was.
    ///
    /// # Errors
    /// When the library cannot write it.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        match &self.file {
            Some(text) => Ok(text.as_ref().to_owned()),
            None => self.inner.to_string(true).map_err(|error| library(&*error)),
        }
    }

    /// The contents of `tokenizer_config.json`, with which `transformers.AutoTokenizer` opens the model's folder.
    pub fn config_json(&self) -> String {
        let eos = self.inner.id_to_token(self.eos).unwrap_or_default();
        let config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": eos,
            "pad_token": eos,
            "clean_up_tokenization_spaces": false,
        });
        format!("{config:#}\n")
    }

    /// Writes `tokenizer.json` at `path`, beside it first and then renamed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TokenizerError> {
        let json = self.to_json()?;
        skipstone_files::write(path, &[json.as_bytes()])
            .map_err(|source| TokenizerError::Io { path: path.to_owned(), source })
    }
}

/// The letter that stands for a byte in byte-level vocabularies, as GPT-2 chose them: the byte's own where it is printable
/// Latin-1, else one from U+0100 on.
fn letter_of(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count();
    char::from_u32(256 + before as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn end_of_text() -> AddedToken {
    AddedToken::from(END_OF_TEXT, true)
}

/// What a call of the library gives. It panics at some files that contradict themselves (a merge longer than any token, a
/// damaged table of characters); that must cost the file, not the process.
fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| "the library can't cope with it".to_owned())
}

fn library(error: &(dyn std::error::Error + Send + Sync)) -> TokenizerError {
    TokenizerError::Library { why: error.to_string() }
}

type ByteLevelBpe = TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel>;

fn byte_level(model: BPE) -> Result<ByteLevelBpe, TokenizerError> {
    let level = ByteLevel::new(false, false, true);
    TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(None)
        .with_pre_tokenizer(Some(level))
        .with_post_processor(Some(level))
        .with_decoder(Some(level))
        .build()
        .map_err(|error| library(&*error))
}

/// Cuts a text into pieces of about [`PIECE`] bytes, each but the first beginning with a line end that a character other than
/// white space follows. The pattern that splits byte-level text into words keeps such a line end apart from what is before it
/// and after it, so the pieces have the tokens of the whole.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    cut_into(text, |rest| {
        let ends = rest.match_indices('\n').map(|(at, _)| at).skip_while(|&at| at < PIECE);
        let mut ends = ends.filter(|at| rest[at + 1..].starts_with(|next: char| !next.is_whitespace()));
        ends.next().unwrap_or(rest.len())
    })
}

/// As [`pieces`], but cuts within a word where a text has no line ends: good enough to learn from, and bounded.
fn samples(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).flat_map(|piece| cut_into(piece, |rest| rest.ceil_char_boundary(2 * PIECE)))
}

/// Cuts a text again and again where `length` says, until nothing is left.
fn cut_into(text: &str, length: impl Fn(&str) -> usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, left) = rest.split_at(if rest.is_empty() { 0 } else { length(rest) });
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
}
