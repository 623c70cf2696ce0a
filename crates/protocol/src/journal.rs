//! The coordinator's journal: bytes only; the driver writes, syncs and locks the file.
//!
//! A file is a header (magic, version), then entries: length, digest of the body, body. A torn tail (the last
//! write, of which the disk has kept some blocks and not others) is dropped: nothing follows it, as every write is
//! synced before the next. What does not check and is followed by an entry is an error, so that damage is never
//! taken for history.

use crate::record::{CommitRecord, SavedStage};
use serde::{Deserialize, Serialize};
use skipstone_recovery::Recipe;
use skipstone_types::{Digest, Iteration, NodeId, RunId, StageId, Term};
use thiserror::Error;

/// First bytes of a journal: name and version.
pub const JOURNAL_HEADER: &[u8; 12] = b"SKIPJRNL\x02\0\0\0";

/// Largest entry, in bytes.
const ENTRY_BYTES_MAX: usize = 16 << 20;

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

/// Why a journal can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Not a journal, or of another version.
    #[error(
        "not a journal of this version (2); go on with the build that wrote it, or start a run in a new folder"
    )]
    Header,
    /// An entry in the middle is damaged.
    #[error("the journal is damaged at byte {0}; go on from state/ with --resume in a copy of the folder")]
    Damaged(usize),
}

/// The bytes that append `entry`.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    // Entries hold only numbers, vectors and options, which postcard always writes.
    let body = postcard::to_stdvec(entry).unwrap_or_default();
    let mut bytes = Vec::with_capacity(body.len() + 20);
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
    while at < bytes.len() {
        match entry_at(&bytes[at..]) {
            Some((entry, length)) => {
                entries.push(entry);
                at += length;
            }
            None if (at + 1..bytes.len()).any(|later| entry_at(&bytes[later..]).is_some()) => {
                return Err(JournalError::Damaged(at));
            }
            None => break,
        }
    }
    Ok((entries, at))
}

/// The entry that starts here, and its bytes; none if what is here is not a whole one.
fn entry_at(bytes: &[u8]) -> Option<(Entry, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > ENTRY_BYTES_MAX {
        return None;
    }
    let (digest, rest) = rest.split_first_chunk::<16>()?;
    let body = rest.get(..length)?;
    if Digest::of(body).0[..16] != digest[..] {
        return None;
    }
    postcard::from_bytes(body).ok().map(|entry| (entry, 20 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> (Vec<Entry>, Vec<u8>) {
        let entries = vec![
            Entry::Opened { run: RunId(1), term: Term(1) },
            Entry::NodesBelow { node: NodeId(9) },
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
        let last = encode_entry(&entries[2]).len();
        let start = whole.len() - last;
        for mark in 0..last {
            let (mut end, mut front) = (whole.clone(), whole.clone());
            end[start + mark..].fill(0);
            front[start..=start + mark].fill(0);
            for torn in [end, front] {
                let (got, valid) = decode_journal(&torn).unwrap();
                // A byte that is zero anyway may be the only one that was lost.
                assert!((got == entries[..2] && valid == start) || torn == whole, "torn at {mark}");
            }
        }
    }

    #[test]
    fn damage_is_not_history() {
        let (_, bytes) = journal();
        for at in 0..bytes.len() - 30 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            let outcome = decode_journal(&damaged);
            assert!(
                outcome.as_ref().map_or(true, |(entries, _)| entries.len() < 3),
                "a flipped byte at {at} went unseen"
            );
        }
    }
}
