//! Why a run can't be started or watched.

use crate::config::{ConfigError, bytes_in_units};
use crate::live::folder::FolderError;
use crate::live::health::HealthError;
use crate::live::publish::StateError;
use skipstone_observe::ReadError;
use std::io;
use thiserror::Error;

/// Why a run can't be started or watched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The options.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Where it was to say how it is.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// The folder or the data.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// There is no state to go on from.
    #[error(transparent)]
    State(#[from] StateError),
    /// The event log.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The model is too large for the machine.
    #[error(
        "weights, gradients and moments of all nodes take {}, but this machine has {} of memory; pass a smaller --model, fewer --replicas, or use a larger machine",
        bytes_in_units(*needed),
        bytes_in_units(*present)
    )]
    Memory {
        /// Bytes that the run takes at the least.
        needed: u64,
        /// Bytes of memory and swap.
        present: u64,
    },
    /// Checkpoints can't go where they should.
    #[error("--checkpoint-to {0}")]
    Store(#[from] skipstone_store::StoreError),
    /// What is stored there is not this run's, or can't be used.
    #[error("--checkpoint-to {url}: {why}")]
    Stored {
        /// The store.
        url: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Processes can't be started.
    #[error("{what} can't be started: {source}; check the limits on processes and open files")]
    Spawn {
        /// What.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Signals can't be listened to.
    #[error("signals can't be listened to: {0}")]
    Signals(#[source] io::Error),
    /// Children die as soon as they are started.
    #[error("{what} keeps dying at the start; its last words:\n{words}")]
    KeepsDying {
        /// What.
        what: &'static str,
        /// The end of its log.
        words: String,
    },
    /// The coordinator lives, and does not begin.
    #[error(
        "the coordinator has not begun for {waited_s} s, and was ended; look whether the disk of --out answers, then try again. Its last words:\n{words}"
    )]
    Silent {
        /// Seconds that it was waited for.
        waited_s: u64,
        /// The end of its log.
        words: String,
    },
    /// The coordinator died, and is not to be replaced.
    #[error("the coordinator died; leave out --no-respawn, or go on with --resume")]
    CoordinatorDied,
    /// Other machines can't be let in.
    #[error("other machines can't be let in: {0}")]
    Listen(String),
    /// Ctrl-C, twice.
    #[error("ended at once; if a state was saved, --resume goes on from it")]
    Interrupted,
    /// Ctrl-C, while the data was read.
    #[error("ended before the run began: its data was being read; nothing of it was kept")]
    NotBegun,
}
