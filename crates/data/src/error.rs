//! What can go wrong, one enum per operation; [`DataError`] holds any of them.

use std::io;
use std::path::PathBuf;

/// Reading a corpus failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is nothing at the path.
    #[error("no data at {}: give an existing text file, .jsonl file or folder to --data, or leave --data out for the embedded stories", path.display())]
    Missing {
        /// What was asked for.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot read {}: {source}; check that it is a file or folder this user may read", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder without a single file of a known kind.
    #[error("no .txt, .text, .md or .jsonl file under {}: put the corpus there under one of these names, or name a file directly", path.display())]
    NoFiles {
        /// The folder.
        path: PathBuf,
    },
    /// The files hold no text.
    #[error("{} holds no text: --data needs at least one document that is not empty", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// The corpus does not fit the limit.
    #[error("{} is larger than the limit of {limit} bytes: train on a part of it, or raise the limit if memory allows about six times that", path.display())]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// Folders nested deeper than anyone means.
    #[error("folders under {} are nested more than {limit} deep: name the folder that holds the texts", path.display())]
    TooDeep {
        /// The folder at which reading stopped.
        path: PathBuf,
        /// The greatest depth.
        limit: usize,
    },
    /// The text is not UTF-8.
    #[error("{} is not UTF-8 at byte {offset}: if it is text in another encoding, convert it (iconv -f LATIN1 -t UTF-8 IN > OUT); if it is compressed or binary, unpack it first", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first byte that is not part of a character, counted from 0.
        offset: usize,
    },
    /// A line of a `.jsonl` file is not an object with a string `text`.
    #[error("{}, line {line}: {why}; every line has to be a JSON object with a string field \"text\"", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser said.
        why: String,
    },
}

/// Making, reading, writing or using a tokenizer failed.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The vocabulary cannot hold all bytes and the end-of-text token, or is absurdly large.
    #[error("vocabulary of {vocab_size} tokens: choose between {min} (every byte and end-of-text) and {max}")]
    VocabSize {
        /// What was asked for.
        vocab_size: usize,
        /// The least possible.
        min: usize,
        /// The most possible.
        max: usize,
    },
    /// Nothing to train on.
    #[error("cannot train a tokenizer on an empty corpus: give --data some text")]
    Empty,
    /// The file cannot be read or written.
    #[error("tokenizer {}: {source}; pass bytes, bpe, or the path of a tokenizer.json", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a tokenizer.
    #[error("{} is not a usable tokenizer.json: {why}; give a tokenizer.json as `transformers` saves it, or `bytes`", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The library failed.
    #[error("the tokenizer failed: {why}; check tokenizer.json, or use --tokenizer bytes")]
    Library {
        /// What it said.
        why: String,
    },
}

/// Making, reading or writing a token dataset failed.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A split is shorter than one sample.
    #[error("the {split} split has {tokens} tokens, but one sample of context {context} needs {}: use more text or a shorter --context", context + 1)]
    TooShort {
        /// `train` or `validation`.
        split: &'static str,
        /// Its tokens.
        tokens: usize,
        /// T, in tokens.
        context: usize,
    },
    /// A token is not in the vocabulary.
    #[error(
        "token {token} at position {position} of the {split} split is outside the vocabulary of {vocab_size}: the tokenizer and the dataset do not belong together"
    )]
    OutsideVocab {
        /// `train` or `validation`.
        split: &'static str,
        /// Where.
        position: usize,
        /// The token.
        token: u32,
        /// Tokens in the vocabulary.
        vocab_size: usize,
    },
    /// The file cannot be read or written.
    #[error("token file {}: {source}; check the path, its permissions and the space left on the disk", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a token file, of another version, cut short or altered.
    #[error("token file {} is damaged: {why}; delete it and prepare the data again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A shape of samples that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// A size is zero.
    #[error("{name} is 0: it has to be at least 1")]
    Zero {
        /// Which size.
        name: &'static str,
    },
    /// Not one sample fits.
    #[error("{tokens} tokens hold no sample of context {context}, which needs {}: use more text or a shorter --context", context + 1)]
    TooShort {
        /// Tokens at hand.
        tokens: usize,
        /// T, in tokens.
        context: usize,
    },
}

/// Anything that can go wrong with data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Reading the corpus.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The token dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The order of samples.
    #[error(transparent)]
    Order(#[from] OrderError),
}
