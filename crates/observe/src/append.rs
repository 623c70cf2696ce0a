//! A file that only grows, and must not end a run when the disk refuses.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is handed to the system at once in busy times.
const FLUSH_BYTES: usize = 64 << 10;

/// A file that only grows. What is appended is handed to the system after a while, whole pieces in their order; when it
/// refuses, they wait in bounded memory and are tried again, and the first failure is kept as a warning.
#[derive(Debug)]
pub(crate) struct Append {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
    pending_bytes_max: usize,
    flush_every: Duration,
    flushed: Instant,
    /// Whether the disk refused the last time.
    refused: bool,
    /// Whether the first failure has been kept.
    failed: bool,
    warning: Option<io::Error>,
}

impl Append {
    /// Opens a file, or makes it. At most `pending_bytes_max` wait for a disk that refuses.
    pub(crate) fn open(path: &Path, flush_every: Duration, pending_bytes_max: usize) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            pending: Vec::new(),
            pending_bytes_max,
            flush_every,
            flushed: Instant::now(),
            refused: false,
            failed: false,
            warning: None,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts off what lies behind the first `bytes`.
    pub(crate) fn cut(&self, bytes: u64) -> io::Result<()> {
        if self.file.metadata()?.len() > bytes { self.file.set_len(bytes) } else { Ok(()) }
    }

    /// Appends a piece, or leaves it out where the disk has refused for long: the warning has said so.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if self.pending.len() + piece.len() <= self.pending_bytes_max {
            self.pending.extend_from_slice(piece);
        }
        if self.pending.len() >= FLUSH_BYTES {
            self.flush_unless_refused();
        }
        self.tick();
    }

    /// Flushes when the last flush is long ago.
    pub(crate) fn tick(&mut self) {
        if self.flushed.elapsed() >= self.flush_every {
            self.flush();
        }
    }

    /// Hands everything to the operating system now, unless the disk refused the last time: then [`Append::tick`] will.
    pub(crate) fn flush_unless_refused(&mut self) {
        if !self.refused {
            self.flush();
        }
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&mut self) {
        self.flushed = Instant::now();
        self.refused = false;
        let mut written = 0;
        while written < self.pending.len() {
            match self.file.write(&self.pending[written..]) {
                Ok(0) => break,
                Ok(bytes) => written += bytes,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => {
                    self.refused = true;
                    self.fail(why);
                    break;
                }
            }
        }
        self.pending.drain(..written);
    }

    /// Keeps the first failure.
    pub(crate) fn fail(&mut self, why: io::Error) {
        if !self.failed {
            self.failed = true;
            self.warning = Some(why);
        }
    }

    /// The first failure, once.
    pub(crate) fn take_failure(&mut self) -> Option<io::Error> {
        self.warning.take()
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_and_the_file_can_be_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = Append::open(&path, Duration::MAX, 100).unwrap();
        file.push(b"one ");
        file.push(b"two");
        assert_eq!(std::fs::read(&path).unwrap(), b"", "it waits");
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"one two");
        let mut file = Append::open(&path, Duration::ZERO, 100).unwrap();
        file.cut(4).unwrap();
        file.push(b"three");
        assert_eq!(std::fs::read(&path).unwrap(), b"one three");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_one_failure_in_bounded_memory() {
        let mut file = Append::open(Path::new("/dev/full"), Duration::ZERO, 1000).unwrap();
        for _ in 0..2000 {
            file.push(b"a line\n");
            assert!(file.pending.len() <= 1000);
        }
        assert_eq!(file.pending.len(), 994, "whole pieces");
        assert_eq!(file.take_failure().unwrap().kind(), io::ErrorKind::StorageFull);
        file.flush();
        assert!(file.take_failure().is_none());
    }
}
