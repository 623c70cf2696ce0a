//! Checkpoints outside the run's folder: what `--checkpoint-to` names gets each saved state, and all else that a run goes on with.
//!
//! Objects are named by the hash of their bytes (`parts/<hash>`), so none is ever written over by other bits; the manifest that
//! names them (`checkpoint.json`) is put last. Until then the checkpoint before is the one that counts, and every object of it is
//! there. The parent sends, on a thread of its own: one state is on its way, one at most waits, the newest. Before it puts a manifest
//! it looks whether the one there is still its own: two processes that sent to one store would delete each other's objects.

mod fetch;
mod manifest;
mod sender;

pub use fetch::fetch_run;

use super::folder::{RunFolder, read_facts};
use super::publish::{StateError, read_state};
use super::supervisor::RunError;
use crate::config::RunConfig;
use manifest::Checkpoint;
use sender::{Sender, Snapshot};
use skipstone_store::{Location, Store};
use skipstone_types::{Event, Iteration};
use std::path::{Path, PathBuf};

/// A store that was tried out, before the run's folder is taken.
#[derive(Debug)]
pub(super) struct Tried {
    store: Store,
    known: Option<Checkpoint>,
}

/// Where a run's checkpoints go.
#[derive(Debug)]
pub(super) struct Offsite {
    url: String,
    dir: PathBuf,
    sender: Sender,
}

fn stored(store: &Store, why: impl Into<String>) -> RunError {
    RunError::Stored { url: store.url().to_owned(), why: why.into() }
}

/// The checkpoint that a store holds.
fn read(store: &Store) -> Result<Option<Checkpoint>, RunError> {
    let Some(bytes) = store.get_bytes(manifest::NAME, manifest::BYTES_MAX)? else { return Ok(None) };
    let checkpoint = Checkpoint::parse(&bytes).map_err(|why| {
        stored(
            store,
            format!("{} can't be read: {why}; restore it from a copy, or give another URL", manifest::NAME),
        )
    })?;
    Ok(Some(checkpoint))
}

/// What is said where a folder is behind the store: to go on from the folder would put an older state in place of the newer one.
fn newer_there(there: Iteration, here: Iteration, dir: &Path) -> String {
    let (there, here, dir) = (there.0, here.0, dir.display());
    format!(
        "it holds this run's state after {there} iterations, and {dir} that after {here}: going on from here would replace the newer \
         one. To go on from that, give an empty --out (with --resume and this --checkpoint-to), or remove {dir}/state, which is \
         then fetched; to go on from the older one, give another --checkpoint-to"
    )
}

impl Offsite {
    /// Tries the store out; none if the run has none.
    ///
    /// # Errors
    /// A store that can't be used, or that holds another run or a state of this one that is newer than the folder's.
    pub(super) fn open(config: &RunConfig, resume: bool) -> Result<Option<Tried>, RunError> {
        let Some(url) = &config.checkpoint_to else { return Ok(None) };
        let store = Store::open(url)?;
        if let Location::Folder { path, .. } = Location::parse(url)? {
            let whole =
                |path: &std::path::Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            if whole(&path).starts_with(whole(&config.out)) {
                let why = "it is in the run's own folder, and would be lost with it; give a folder elsewhere";
                return Err(stored(&store, why));
            }
        }
        store.try_out()?;
        let known = read(&store)?;
        let own = resume.then(|| read_facts(&config.out).ok()).flatten().map(|facts| facts.run);
        if let Some(other) = known.as_ref().map(|known| known.run).filter(|run| Some(*run) != own) {
            let why = format!(
                "it holds run {other}, another one; go on with that by --resume in an empty --out, or give another URL"
            );
            return Err(stored(&store, why));
        }
        // Without a state the folder gets the store's.
        if let (Some(known), Ok(state)) = (&known, read_state(&config.out))
            && known.iteration > state.iteration
        {
            return Err(stored(&store, newer_there(known.iteration, state.iteration, &config.out)));
        }
        Ok(Some(Tried { store, known }))
    }

    /// Hands the newest saved state over, if its files are still there: else a newer one is about to be told of.
    pub(super) fn offer(&self) {
        let Ok(manifest) = read_state(&self.dir) else { return };
        if let Ok(snapshot) = Snapshot::open(&self.dir, &manifest) {
            self.sender.offer(snapshot);
        }
    }

    /// What became of what was handed over, since the last look.
    pub(super) fn news(&self) -> Vec<Event> {
        self.sender.news()
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.sender.is_idle()
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Tried {
    /// Begins to send. A run that goes on without its state gets it from the store first, if that has one.
    ///
    /// # Errors
    /// A state that can't be had, and a thread that can't be started.
    pub(super) fn start(self, folder: &RunFolder, resume: bool) -> Result<Offsite, RunError> {
        let (dir, url) = (folder.dir.clone(), self.store.url().to_owned());
        if let Some(known) = self.known.as_ref().filter(|_| resume)
            && matches!(read_state(&dir), Err(StateError::Missing { .. }))
        {
            fetch::fetch(&self.store, known, &dir, manifest::StoredFile::is_of_state)?;
        }
        let sender = Sender::start(self.store, dir.clone(), folder.facts.run, self.known)
            .map_err(|source| RunError::Spawn { what: "the thread that sends checkpoints", source })?;
        Ok(Offsite { url, dir, sender })
    }
}
