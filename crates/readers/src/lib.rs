//! Every reader of bytes that come from outside, behind one face: what it is given, what it may take, what it owes.
//!
//! Skipstone reads frames and messages of peers, files that a user names, and folders of runs that may have been
//! damaged or made to harm. For each of these there is a [`Reader`] here, which hands bytes to the very function that
//! the program uses and checks what is promised of it:
//!
//! * it ends, and doesn't panic;
//! * it refuses with a sentence, or takes;
//! * it never holds more memory than its stated bound ([`Reader::memory_max`]);
//! * what it took and writes again reads as the same.
//!
//! Two programs try it: `tests/attacks.rs` with the hostile files of `attacks/`, in every test run, and the fuzz targets
//! of `fuzz/`, with whatever a coverage-guided fuzzer thinks of. [`Reader::seeds`] are good inputs, made by the real
//! encoders, that both start from.

// One signature for all readers, though some can't fail at making seeds or refuse in words.
#![allow(clippy::unnecessary_wraps)]

mod boundary;
mod churn;
mod corpus;
mod events;
mod frames;
mod instance;
mod journal;
mod messages;
pub mod meter;
mod model_config;
mod plan;
mod run_config;
mod run_folder;
mod scratch;
mod stage_file;
mod tickets;
mod tokenizer;
mod tokens;
mod weights;

pub use meter::Meter;

use std::error::Error;

/// A reader of outside bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// Names its fuzz target, and its folder of `attacks/`.
    pub name: &'static str,
    /// What it reads.
    pub what: &'static str,
    /// Whether it reads text.
    pub text: bool,
    /// The most memory, in bytes, that it holds at once for an input of so many bytes.
    pub memory_max: fn(usize) -> usize,
    /// Reads.
    pub read: fn(&[u8]) -> Result<Verdict, Broken>,
    /// The input with every checksum and counter made right, if the format has any: else a fuzzer would never get
    /// past them.
    pub mend: Option<Mend>,
    /// Good inputs, with names.
    pub seeds: fn() -> Result<Vec<Seed>, SeedError>,
}

/// All of them.
pub const READERS: [Reader; 22] = [
    frames::READER,
    messages::TO_WORKER,
    messages::TO_COORDINATOR,
    messages::TO_PEER,
    journal::READER,
    instance::READER,
    plan::READER,
    model_config::READER,
    weights::WEIGHTS,
    weights::INDEX,
    run_config::READER,
    run_folder::STATE,
    run_folder::FACTS,
    stage_file::READER,
    events::READER,
    churn::READER,
    corpus::READER,
    tokenizer::READER,
    tokens::READER,
    boundary::READER,
    tickets::TICKET,
    tickets::QUESTION,
];

/// Makes checksums and counters right.
pub type Mend = fn(&[u8]) -> Vec<u8>;

/// A name and a good input.
pub type Seed = (String, Vec<u8>);

/// Why seeds can't be made.
pub type SeedError = Box<dyn Error + Send + Sync>;

/// What became of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was read.
    Taken,
    /// It was not, and this is what the user hears.
    Refused(String),
}

/// A promise that a reader didn't keep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It took more memory than it may.
    #[error("the reader held {held} bytes at once, and {allowed} are allowed for an input of {input} bytes")]
    Memory {
        /// Bytes that it held.
        held: usize,
        /// Bytes that it may hold.
        allowed: usize,
        /// Bytes of the input.
        input: usize,
    },
    /// What was read, written and read again is not the same.
    #[error("what was read does not read the same when it is written again: {0}")]
    RoundTrip(String),
    /// A refusal that doesn't help.
    #[error("the refusal says nothing")]
    Mute,
    /// The file system refuses, which says nothing about the reader.
    #[error("no place to write the input: {0}")]
    Scratch(String),
}

impl Reader {
    /// The reader of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        READERS.iter().find(|reader| reader.name == name)
    }

    /// Reads the input, and the mended input too where there is one.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn try_on(&self, bytes: &[u8]) -> Result<Verdict, Broken> {
        if let Some(mend) = self.mend {
            self.once(&mend(bytes))?;
        }
        self.once(bytes)
    }

    fn once(&self, bytes: &[u8]) -> Result<Verdict, Broken> {
        match (self.read)(bytes)? {
            Verdict::Refused(why) if why.trim().is_empty() => Err(Broken::Mute),
            verdict => Ok(verdict),
        }
    }
}

/// Runs the reader proper, and holds its memory against the bound.
fn within<T>(allowed: usize, input: &[u8], read: impl FnOnce() -> T) -> Result<T, Broken> {
    let (made, held) = meter::measure(read);
    if held > allowed { Err(Broken::Memory { held, allowed, input: input.len() }) } else { Ok(made) }
}

/// Bytes that were read, and those that come of writing and reading again: equal, or the promise is broken.
fn same<T: PartialEq + std::fmt::Debug>(one: &T, again: &T) -> Result<Verdict, Broken> {
    if one == again {
        return Ok(Verdict::Taken);
    }
    let clipped = |value: &T| format!("{value:?}").chars().take(500).collect::<String>();
    Err(Broken::RoundTrip(format!("{} became {}", clipped(one), clipped(again))))
}

/// A refusal.
fn refused(why: impl std::fmt::Display) -> Result<Verdict, Broken> {
    Ok(Verdict::Refused(why.to_string()))
}

/// What was read could not be read again.
fn lost(why: impl std::fmt::Display) -> Broken {
    Broken::RoundTrip(why.to_string())
}
