//! The run's folder, where it is on another machine.

use std::io;
use std::path::Path;

/// Brings files of the run's folder here, and there.
pub trait RunFiles: Send + Sync {
    /// Has the file at `path`, which lies in this machine's stand-in for the run's folder; does nothing if it is there.
    ///
    /// # Errors
    /// The network's or the file system's.
    fn fetch(&self, path: &Path) -> io::Result<()>;

    /// Brings the file at `path` to the run's folder, and removes it here.
    ///
    /// # Errors
    /// The network's or the file system's; the file stays here then.
    fn deliver(&self, path: &Path) -> io::Result<()>;
}
