//! The coordinator's journal: bytes only; the driver writes, syncs and locks the file.
//!
//! A file is a header (magic, version), then entries: length, digest of the body, body. A torn tail (the last
//! write, of which the disk has kept some blocks and not others) is dropped: nothing follows it, as every write is
//! synced before the next. What does not check and is followed by an entry is an error, so that damage is never
//! taken for history.

use crate::record::{CommitRecord, SavedStage, SavedState};
use serde::{Deserialize, Serialize};
use skipstone_recovery::Recipe;
use skipstone_types::{Digest, Iteration, NodeId, RunId, StageId, Term};
use thiserror::Error;

/// First bytes of a journal: name and version.
pub const JOURNAL_HEADER: &[u8; 12] = b"SKIPJRNL\x08\0\0\0";

/// Length and digest, before each entry's body.
const HEAD_BYTES: usize = 20;

/// Largest entry, in bytes.
const ENTRY_BYTES_MAX: usize = 16 << 20;

/// Kinds of entries: postcard writes the kind first.
const ENTRY_KINDS: u8 = 8;

/// Bytes of the body's digest before an entry.
const DIGEST_BYTES: usize = 16;

/// Bytes that are digested to tell a torn tail from damage.
const DIGESTED_BYTES_MAX: usize = 1 << 30;

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A coordinator took over.
    Opened {
        /// The run.
        run: RunId,
        /// Its term.
        term: Term,
    },
    /// Node ids below this one are used up.
    NodesBelow {
        /// The bound.
        node: NodeId,
    },
    /// The run goes on from `state/` at this iteration: records from it on are discarded.
    RolledBack {
        /// The iteration that runs next.
        iteration: Iteration,
        /// The generation that starts.
        generation: u32,
        /// What `state/` holds; a stage that is missing was lost when it was saved.
        stages: Vec<SavedStage>,
    },
    /// A stage that had been lost entered again with a state made from others, ahead of any record that names it.
    Rebuilt(Box<Rebuild>),
    /// An iteration was decided.
    Committed(Box<CommitRecord>),
    /// A node's share of a decided iteration was refused, and another's of the same was not. Said again when the node gets
    /// another name.
    Struck {
        /// Whose.
        node: NodeId,
        /// Of which iteration.
        iteration: Iteration,
    },
    /// A node of another stage keeps a copy of a stage's state.
    CopyKept(StageCopy),
    /// `state/` is complete for an iteration, and about to be published: the run can go back to it.
    Saved {
        /// What is saved: all stages.
        state: SavedState,
        /// Digest of the record before it; zero if there is none.
        previous: Digest,
    },
}

/// A copy of a stage's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCopy {
    /// The stage.
    pub stage: StageId,
    /// The state is that before this iteration.
    pub iteration: Iteration,
    /// The stage's rebuilds so far.
    pub lineage: u32,
    /// Digest of the state.
    pub state: Digest,
}

/// How a lost stage was made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rebuild {
    /// The stage.
    pub stage: StageId,
    /// Its rebuilds so far, this one included.
    pub lineage: u32,
    /// The sources' states are those before this iteration.
    pub from: Iteration,
    /// What was mixed how.
    pub recipe: Recipe,
    /// Lineages of the recipe's sources then, in its order.
    pub source_lineages: Vec<u32>,
    /// Digest of the state that it gave.
    pub state: Digest,
}

impl Rebuild {
    /// Of a stage that was restored from a copy of itself, what it goes on from: a lineage of its own, and the iteration before which
    /// it is what that was. They are the copy's, or later ones if it took steps again.
    pub fn goes_on_from(&self) -> Option<(u32, Iteration)> {
        let copied = self.source_lineages.first().filter(|_| self.recipe.restores(self.stage))?;
        let last = self.recipe.retracing.as_ref().and_then(|retracing| retracing.iterations.last());
        Some(last.map_or((*copied, self.from), |last| (last.lineage, last.iteration.next())))
    }
}

/// Where the history that a journal tells of begins, as its entries come.
///
/// It begins with iteration 0, unless the run goes back to a state that no record leads to: one that was fetched from a store, or that
/// another machine has made of this run meanwhile. Then nothing that was recorded before belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beginning {
    /// The first iteration of the history.
    pub begins: Iteration,
    /// The iteration that comes next.
    next: Iteration,
}

impl Beginning {
    /// Takes in the next entry; whether the history begins anew with it.
    pub fn take(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Committed(record) => self.next = record.iteration.next(),
            Entry::RolledBack { iteration, .. } => return self.go_back_to(*iteration),
            _ => {}
        }
        false
    }

    /// The run goes back to the state before `iteration`; whether its history begins anew with it.
    pub fn go_back_to(&mut self, iteration: Iteration) -> bool {
        let is_known = (self.begins..=self.next).contains(&iteration);
        self.next = iteration;
        if !is_known {
            self.begins = iteration;
        }
        !is_known
    }
}

/// Why a journal can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Not a journal, or of another version.
    #[error(
        "not a journal of this version ({}); go on with the build that wrote it, or start a run in a new folder",
        JOURNAL_HEADER[8]
    )]
    Header,
    /// An entry in the middle is damaged.
    #[error(
        "the journal is damaged at byte {0}; in a copy of the folder, remove journal/ and go on from state/ with --resume: what \
         came before can't be audited or replayed then"
    )]
    Damaged(usize),
}

/// The bytes that append `entry`.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    // Entries hold only numbers, vectors and options, which postcard always writes.
    let body = postcard::to_stdvec(entry).unwrap_or_default();
    let mut bytes = Vec::with_capacity(body.len() + HEAD_BYTES);
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&Digest::of(&body).0[..16]);
    bytes.extend_from_slice(&body);
    bytes
}

/// The entries of a journal, and how many of its bytes they take (what follows is a torn tail).
///
/// # Errors
/// See [`JournalError`].
pub fn decode_journal(bytes: &[u8]) -> Result<(Vec<Entry>, usize), JournalError> {
    if bytes.len() < JOURNAL_HEADER.len() {
        return if JOURNAL_HEADER.starts_with(bytes) {
            Ok((Vec::new(), 0))
        } else {
            Err(JournalError::Header)
        };
    }
    if &bytes[..JOURNAL_HEADER.len()] != JOURNAL_HEADER {
        return Err(JournalError::Header);
    }
    let mut entries = Vec::new();
    let mut at = JOURNAL_HEADER.len();
    loop {
        let rest = &bytes[at..];
        match decode_entry(rest, rest.len()) {
            Decoded::Entry { entry, bytes } => {
                entries.push(*entry);
                at += bytes;
            }
            Decoded::End | Decoded::Needs(_) => return Ok((entries, at)),
            Decoded::Damaged => return Err(JournalError::Damaged(at)),
        }
    }
}

/// What the bytes at some place of a journal are.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// An entry of so many bytes.
    Entry {
        /// The entry.
        entry: Box<Entry>,
        /// Its bytes.
        bytes: usize,
    },
    /// So many bytes are needed to say.
    Needs(usize),
    /// The end, or a torn tail.
    End,
    /// Not an entry, although more follows.
    Damaged,
}

/// Decodes the entry at the start of `bytes`, the first of `remaining` that are left in the journal.
pub fn decode_entry(bytes: &[u8], remaining: usize) -> Decoded {
    if remaining < HEAD_BYTES {
        return Decoded::End;
    }
    let Some(whole) = bytes.first_chunk().map(|length| HEAD_BYTES + u32::from_le_bytes(*length) as usize)
    else {
        return Decoded::Needs(HEAD_BYTES);
    };
    if whole <= remaining.min(HEAD_BYTES + ENTRY_BYTES_MAX) {
        if bytes.len() < whole {
            return Decoded::Needs(whole);
        }
        if let Checked::Sound(entry) = check(bytes) {
            return Decoded::Entry { entry: Box::new(entry), bytes: whole };
        }
    }
    // One write may be torn, and nothing follows it.
    if remaining > HEAD_BYTES + ENTRY_BYTES_MAX {
        return Decoded::Damaged;
    }
    if bytes.len() < remaining {
        return Decoded::Needs(remaining);
    }
    if holds_an_entry(&bytes[1..remaining]) { Decoded::Damaged } else { Decoded::End }
}

/// What a place is taken for.
enum Checked {
    /// A whole entry.
    Sound(Entry),
    /// Nothing, after the digest of so many bytes was computed.
    Unsound(usize),
}

/// Takes the start of `bytes` for an entry.
fn check(bytes: &[u8]) -> Checked {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Checked::Unsound(0) };
    let length = u32::from_le_bytes(*length) as usize;
    let Some((digest, rest)) = rest.split_first_chunk::<DIGEST_BYTES>() else { return Checked::Unsound(0) };
    // The first byte tells the kind of entry: what can't be one needs no digest.
    let body = rest.get(..length).filter(|body| body.first().is_some_and(|kind| *kind < ENTRY_KINDS));
    let Some(body) = body.filter(|_| length <= ENTRY_BYTES_MAX) else { return Checked::Unsound(0) };
    let sound = Digest::of(body).0[..DIGEST_BYTES] == digest[..];
    match sound.then(|| postcard::from_bytes(body).ok()).flatten() {
        Some(entry) => Checked::Sound(entry),
        None => Checked::Unsound(length),
    }
}

/// Whether a whole entry starts anywhere. Bytes made to be looked at for long count as one: they are no torn write.
fn holds_an_entry(bytes: &[u8]) -> bool {
    let mut digested = 0;
    (0..bytes.len()).any(|at| match check(&bytes[at..]) {
        Checked::Sound(_) => true,
        Checked::Unsound(length) => {
            digested += length;
            digested > DIGESTED_BYTES_MAX
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> (Vec<Entry>, Vec<u8>) {
        let entries = vec![
            Entry::Opened { run: RunId(1), term: Term(1) },
            Entry::NodesBelow { node: NodeId(9) },
            Entry::Struck { node: NodeId(4), iteration: Iteration(2) },
            Entry::CopyKept(StageCopy {
                stage: StageId(1),
                iteration: Iteration(3),
                lineage: 0,
                state: Digest([7; 32]),
            }),
            Entry::Saved {
                state: SavedState { iteration: Iteration(4), stages: Vec::new() },
                previous: Digest([1; 32]),
            },
            Entry::RolledBack { iteration: Iteration(4), generation: 1, stages: Vec::new() },
        ];
        let mut bytes = JOURNAL_HEADER.to_vec();
        for entry in &entries {
            bytes.extend(encode_entry(entry));
        }
        (entries, bytes)
    }

    #[test]
    fn cut_at_any_byte_it_restores_a_state_that_existed() {
        let (entries, bytes) = journal();
        assert_eq!(decode_journal(&bytes), Ok((entries.clone(), bytes.len())));
        for end in 0..bytes.len() {
            let (got, valid) = decode_journal(&bytes[..end]).unwrap();
            assert!(valid <= end && entries.starts_with(&got), "cut at {end}");
        }
    }

    #[test]
    fn blocks_of_a_torn_write_may_be_missing_anywhere() {
        let (entries, whole) = journal();
        let before = &entries[..entries.len() - 1];
        let last = encode_entry(&entries[before.len()]).len();
        let start = whole.len() - last;
        for mark in 0..last {
            let (mut end, mut front) = (whole.clone(), whole.clone());
            end[start + mark..].fill(0);
            front[start..=start + mark].fill(0);
            for torn in [end, front] {
                let (got, valid) = decode_journal(&torn).unwrap();
                // A byte that is zero anyway may be the only one that was lost.
                assert!((got == before && valid == start) || torn == whole, "torn at {mark}");
            }
        }
    }

    #[test]
    fn damage_is_not_history() {
        let (all, bytes) = journal();
        for at in 0..bytes.len() - 30 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            let outcome = decode_journal(&damaged);
            assert!(
                outcome.as_ref().map_or(true, |(entries, _)| entries.len() < all.len()),
                "a flipped byte at {at} went unseen"
            );
        }
    }
}
