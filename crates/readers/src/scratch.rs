//! A folder for readers that read files: one a thread, gone with it.

use crate::{Broken, SeedError};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

thread_local! {
    static FOLDER: std::io::Result<TempDir> = new_folder();
}

/// A folder that no disk has to sync, where there is such a thing.
fn new_folder() -> std::io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

/// The thread's folder.
///
/// # Errors
/// [`Broken::Scratch`].
pub(crate) fn folder() -> Result<PathBuf, Broken> {
    FOLDER.with(|made| match made {
        Ok(dir) => Ok(dir.path().to_owned()),
        Err(why) => Err(Broken::Scratch(why.to_string())),
    })
}

/// Writes a file in the thread's folder, in folders that are made if need be.
///
/// # Errors
/// [`Broken::Scratch`].
pub(crate) fn file(name: &str, bytes: &[u8]) -> Result<PathBuf, Broken> {
    let path = folder()?.join(name);
    let written = match std::fs::write(&path, bytes) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&path, bytes))
        }
        other => other,
    };
    written.map_err(|why| Broken::Scratch(why.to_string()))?;
    Ok(path)
}

/// What is made in a folder of its own: seeds of readers that read files.
///
/// # Errors
/// What `make` says.
pub(crate) fn made_in<T>(make: impl FnOnce(&Path) -> Result<T, SeedError>) -> Result<T, SeedError> {
    let dir = new_folder()?;
    make(dir.path())
}
