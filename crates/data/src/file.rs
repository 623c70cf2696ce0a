//! `tokens.bin`: a header of 80 bytes and the tokens, training split first, little-endian throughout.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `SKIPTOKS` |
//! | 8..12 | version, 1 |
//! | 12..16 | bytes per token: 2 if the vocabulary has at most 65 536 tokens, else 4 |
//! | 16..24 | tokens in the vocabulary |
//! | 24..32 | tokens of the training split |
//! | 32..40 | tokens of the validation split |
//! | 40..48 | zero |
//! | 48..80 | BLAKE3 of bytes 0..48 and all the tokens |

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::dataset::TokenDataset;
use crate::error::DatasetError;

const MAGIC: [u8; 8] = *b"SKIPTOKS";
const VERSION: u32 = 1;
const SIGNED: usize = 48;
const HEADER: usize = 80;

/// What the header says.
struct Shape {
    width: usize,
    vocab_size: usize,
    train: usize,
    validation: usize,
}

impl Shape {
    fn of(dataset: &TokenDataset) -> Self {
        Self {
            width: width_for(dataset.vocab_size()),
            vocab_size: dataset.vocab_size(),
            train: dataset.train().len(),
            validation: dataset.validation().len(),
        }
    }

    fn to_bytes(&self) -> [u8; SIGNED] {
        let mut bytes = [0; SIGNED];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.width as u32).to_le_bytes());
        for (i, count) in [self.vocab_size, self.train, self.validation].into_iter().enumerate() {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&(count as u64).to_le_bytes());
        }
        bytes
    }

    /// Bytes of the tokens, if that many can be.
    fn payload(&self) -> Option<usize> {
        self.train.checked_add(self.validation)?.checked_mul(self.width)
    }

    fn from_bytes(bytes: &[u8; SIGNED]) -> Result<Self, String> {
        let word =
            |at: usize| bytes[at..at + 4].iter().rev().fold(0_u32, |sum, &byte| sum << 8 | u32::from(byte));
        let long = |at: usize| {
            let value = u64::from(word(at)) | u64::from(word(at + 4)) << 32;
            usize::try_from(value).map_err(|_| format!("a count of {value}"))
        };
        if bytes[..8] != MAGIC {
            return Err("it does not begin like a token file".into());
        }
        if word(8) != VERSION {
            return Err(format!("it is of version {}, this program reads version {VERSION}", word(8)));
        }
        let shape =
            Self { width: word(12) as usize, vocab_size: long(16)?, train: long(24)?, validation: long(32)? };
        if shape.width != width_for(shape.vocab_size) {
            return Err(format!("{} bytes per token for a vocabulary of {}", shape.width, shape.vocab_size));
        }
        Ok(shape)
    }
}

fn width_for(vocab_size: usize) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

fn tokens_to_bytes(tokens: &[u32], width: usize) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes().into_iter().take(width)).collect()
}

fn tokens_from_bytes(bytes: &[u8], width: usize) -> Vec<u32> {
    let token = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
    bytes.chunks_exact(width).map(token).collect()
}

fn hash_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Header, training and validation tokens as the file has them, and their hash.
fn encode(dataset: &TokenDataset) -> ([u8; SIGNED], [Vec<u8>; 2], [u8; 32]) {
    let shape = Shape::of(dataset);
    let header = shape.to_bytes();
    let tokens = [dataset.train(), dataset.validation()].map(|tokens| tokens_to_bytes(tokens, shape.width));
    let hash = hash_of(&[&header, &tokens[0], &tokens[1]]);
    (header, tokens, hash)
}

pub(crate) fn hash(dataset: &TokenDataset) -> [u8; 32] {
    encode(dataset).2
}

pub(crate) fn write(path: &Path, dataset: &TokenDataset) -> Result<[u8; 32], DatasetError> {
    let (header, tokens, hash) = encode(dataset);
    skipstone_files::write(path, &[&header, &hash, &tokens[0], &tokens[1]])
        .map_err(|source| DatasetError::Io { path: path.to_owned(), source })?;
    Ok(hash)
}

pub(crate) fn read(path: &Path) -> Result<TokenDataset, DatasetError> {
    let io = |source| DatasetError::Io { path: path.to_owned(), source };
    let damaged = |why: String| DatasetError::Damaged { path: path.to_owned(), why };
    let mut file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let (mut signed, mut hash) = ([0; SIGNED], [0; HEADER - SIGNED]);
    for part in [&mut signed[..], &mut hash[..]] {
        file.read_exact(part).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(format!("it ends within its header, at byte {length}")),
            _ => io(error),
        })?;
    }
    let shape = Shape::from_bytes(&signed).map_err(damaged)?;
    let wanted = shape.payload().and_then(|payload| (payload as u64).checked_add(HEADER as u64));
    if wanted != Some(length) {
        return Err(damaged(format!(
            "its header promises {} + {} tokens of {} bytes, it has {length} bytes in all",
            shape.train, shape.validation, shape.width
        )));
    }
    let mut payload = Vec::with_capacity(length as usize - HEADER);
    file.take(length).read_to_end(&mut payload).map_err(io)?;
    if hash_of(&[&signed, &payload]) != hash || Some(payload.len()) != shape.payload() {
        return Err(damaged("its hash does not match its contents".into()));
    }
    let (train, validation) = payload.split_at(shape.train * shape.width);
    let [train, validation] = [train, validation].map(|bytes| tokens_from_bytes(bytes, shape.width));
    TokenDataset::new(train, validation, shape.vocab_size)
}
