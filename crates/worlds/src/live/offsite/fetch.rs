//! Getting a run back from a store. Every file is checked against the hash that was put down when it was sent.

use super::manifest::{Checkpoint, OPTIONS, StoredFile};
use super::{read, stored};
use crate::live::folder::read_options;
use crate::live::supervisor::RunError;
use skipstone_store::{Store, StoreError};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Fills the folder of a run that is to go on from the checkpoint at `url`. What is there already is not fetched again; the
/// options come last. `says` hears what is going on.
///
/// # Errors
/// A store that can't be used or holds no checkpoint, files that arrive with other bytes, and a folder that holds others.
pub fn fetch_run(url: &str, dir: &Path, says: &mut dyn FnMut(&str)) -> Result<(), RunError> {
    let store = Store::open(url)?;
    let Some(checkpoint) = read(&store)? else {
        let why = "it holds no checkpoint; leave out --resume to start a run, or give the URL of one";
        return Err(stored(&store, why));
    };
    let bytes: u64 = checkpoint.files.iter().map(|file| file.bytes).sum();
    says(&format!(
        "fetching the state after {} iterations from {url}: {:.1} MB",
        checkpoint.iteration.0,
        bytes as f64 / 1e6
    ));
    fetch(&store, &checkpoint, dir, |file| file.name != OPTIONS)?;
    fetch(&store, &checkpoint, dir, |file| file.name == OPTIONS)?;
    let path = dir.join(OPTIONS);
    // Its folder is another one now.
    let text = read_options(&path)?.to_toml()?;
    let unwritable = |source| StoreError::File { path: path.clone(), source };
    Ok(skipstone_files::write(&path, &[text.as_bytes()]).map_err(unwritable)?)
}

/// Fetches those files of a checkpoint that are wanted and not there.
pub(super) fn fetch(
    store: &Store,
    checkpoint: &Checkpoint,
    dir: &Path,
    wanted: impl Fn(&StoredFile) -> bool,
) -> Result<(), RunError> {
    for file in checkpoint.files.iter().filter(|file| wanted(file)) {
        let to = dir.join(&file.name);
        let unreadable = |source| StoreError::File { path: to.clone(), source };
        if to.exists() {
            if hash_of(&mut File::open(&to).map_err(unreadable)?).map_err(unreadable)?.1 == file.hash {
                continue;
            }
            let why = format!("{} is there already, with other bytes; give an empty --out", to.display());
            return Err(stored(store, why));
        }
        fs::create_dir_all(to.parent().unwrap_or(dir)).map_err(unreadable)?;
        store.get_file(&file.object(), &to, file.bytes, &file.hash)?;
    }
    Ok(())
}

/// Length and BLAKE3 hash of what is left of a file.
pub(super) fn hash_of(file: &mut File) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(file, &mut hasher)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}
