//! The run's folder as a crash leaves it: the files under `state/`, and the manifest that names those that count.

use super::provenance::{self as made, Origin};
use skipstone_protocol::SavedStage;
use skipstone_types::{Digest, Iteration, StageId};
use std::collections::BTreeMap;

/// What the manifest says: the iteration that runs next, and the stages saved.
pub(crate) type Manifest = (Iteration, Vec<SavedStage>);

/// `state/` on disk. Files and manifest are written beside, synced and renamed: each is there whole, or not at all.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    files: BTreeMap<(Iteration, StageId, Digest), Origin>,
    manifest: Option<Manifest>,
    /// Nothing can be written until then.
    pub(crate) full_until_us: u64,
}

impl Folder {
    /// A node has written a stage.
    pub(crate) fn write(&mut self, iteration: Iteration, stage: StageId, state: Origin) {
        self.files.insert((iteration, stage, made::digest(state)), state);
    }

    /// A stage's state, if it is there.
    pub(crate) fn read(&self, iteration: Iteration, stage: StageId, state: Digest) -> Option<Origin> {
        self.files.get(&(iteration, stage, state)).copied()
    }

    /// The manifest is on disk; states of other iterations are deleted.
    pub(crate) fn publish(&mut self, iteration: Iteration, stages: Vec<SavedStage>) {
        self.manifest = Some((iteration, stages));
        self.files.retain(|(of, ..), _| *of == iteration);
    }

    /// The manifest.
    pub(crate) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Loses a file that was synced, as no disk should (only for tampering).
    pub(crate) fn lose_file(&mut self) {
        self.files.pop_last();
    }
}
