//! `state/state.json`: names the saved iteration that is whole. Written last, so that a crash leaves the older one.

use crate::text::{FILE_BYTES_MAX, from_json};
use serde::{Deserialize, Serialize};
use skipstone_protocol::{SavedStage, SavedState};
use skipstone_types::Iteration;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Version of `state.json`.
pub const STATE_FORMAT: u32 = 3;

/// What `state.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateManifest {
    /// [`STATE_FORMAT`].
    pub format: u32,
    /// The iteration that runs next.
    pub iteration: Iteration,
    /// Rollbacks before it.
    pub generation: u32,
    /// Stages saved, with the digests of their states and their lineages; a stage that is missing was lost.
    pub stages: Vec<SavedStage>,
}

impl StateManifest {
    /// The manifest of a saved iteration.
    pub fn new(iteration: Iteration, generation: u32, stages: Vec<SavedStage>) -> Self {
        Self { format: STATE_FORMAT, iteration, generation, stages }
    }

    /// What a coordinator goes back to.
    pub fn saved(&self) -> SavedState {
        SavedState { iteration: self.iteration, stages: self.stages.clone() }
    }
}

/// What manifests of all formats have.
#[derive(Deserialize)]
struct Format {
    format: Option<u64>,
}

/// Why there is no state to go on from.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// There is none.
    #[error("{} holds no saved state: nothing was saved before the run ended; start it again without --resume in a new --out", dir.display())]
    Missing {
        /// The run's folder.
        dir: PathBuf,
    },
    /// It can't be read.
    #[error("{} can't be read: {why}; restore it from a copy, or start again in a new --out", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The folder of one saved iteration.
pub fn state_dir(dir: &Path, iteration: Iteration) -> PathBuf {
    dir.join("state").join(iteration.0.to_string())
}

/// Makes the saved iteration the one that counts, and drops the others.
///
/// # Errors
/// The file system's.
pub fn publish(dir: &Path, manifest: &StateManifest) -> io::Result<()> {
    let iteration = manifest.iteration;
    let state = dir.join("state");
    let json = serde_json::to_vec_pretty(manifest).map_err(io::Error::other)?;
    skipstone_files::write(&state.join("state.json"), &[&json])?;
    for entry in fs::read_dir(&state)? {
        let entry = entry?;
        let older = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        if older.is_some_and(|older| older != iteration.0) {
            // A node may still be writing there, of a save that was given up: what can't be removed goes the next time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Removes what a save that failed has written.
pub fn discard(dir: &Path, iteration: Iteration) {
    // The state that counts may be of the same iteration: of it nothing is taken away.
    if read_state(dir).is_ok_and(|manifest| manifest.iteration == iteration) {
        return;
    }
    // What can't be removed now goes when the next save is published.
    let _ = fs::remove_dir_all(state_dir(dir, iteration));
}

/// The state that counts.
///
/// # Errors
/// See [`StateError`].
pub fn read_state(dir: &Path) -> Result<StateManifest, StateError> {
    let path = dir.join("state").join("state.json");
    let text = match skipstone_files::read_text(&path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return Err(StateError::Missing { dir: dir.to_owned() });
        }
        Err(why) => return Err(StateError::Unreadable { path, why: why.to_string() }),
    };
    // The format is looked at first: a manifest of another one needn't parse as one of ours.
    let unreadable = |why: String| StateError::Unreadable { path: path.clone(), why };
    match from_json::<Format>(&text).map_err(unreadable)?.format {
        Some(format) if format == u64::from(STATE_FORMAT) => from_json(&text).map_err(unreadable),
        Some(format) => {
            Err(unreadable(format!("it is of format {format}, this version reads {STATE_FORMAT}")))
        }
        None => Err(unreadable("it names no format".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_types::{Digest, StageId};

    #[test]
    fn the_last_published_state_counts_and_older_ones_go() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(matches!(read_state(dir.path()), Err(StateError::Missing { .. })));
        for iteration in [Iteration(3), Iteration(8)] {
            fs::create_dir_all(state_dir(dir.path(), iteration)).expect("made");
            let part = SavedStage { stage: StageId(0), state: Digest([7; 32]), lineage: 2 };
            publish(dir.path(), &StateManifest::new(iteration, 1, vec![part])).expect("published");
        }
        fs::create_dir_all(state_dir(dir.path(), Iteration(9))).expect("made");
        discard(dir.path(), Iteration(9));
        discard(dir.path(), Iteration(8));
        assert!(!state_dir(dir.path(), Iteration(9)).exists());
        assert!(state_dir(dir.path(), Iteration(8)).exists(), "the state that counts stays");
        let manifest = read_state(dir.path()).expect("the state");
        assert_eq!((manifest.iteration, manifest.generation), (Iteration(8), 1));
        assert_eq!(manifest.saved().stages[0].lineage, 2);
        assert!(!state_dir(dir.path(), Iteration(3)).exists());
        fs::write(dir.path().join("state").join("state.json"), "{").expect("written");
        assert!(matches!(read_state(dir.path()), Err(StateError::Unreadable { .. })));
    }
}
