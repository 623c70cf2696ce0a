//! The journal on disk: one file, one owner, every entry synced before what follows from it is heard.

use skipstone_protocol::{
    Decoded, Entry, JOURNAL_HEADER, JournalError, condense, decode_entry, encode_entry,
};
use skipstone_types::Iteration;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// A coordinator that was killed may hold the lock for a moment longer.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Why a journal can't be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalFileError {
    /// The file system refuses.
    #[error("{}: {source}; check the folder's permissions and free space", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another coordinator has it.
    #[error("{} is in use by another coordinator; wait until that run has ended, or use another --out", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It does not check.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// How.
        source: JournalError,
    },
}

/// The journal of a run, open and locked.
#[derive(Debug)]
pub struct JournalFile {
    file: File,
    /// Where the last whole entry ends, in bytes.
    end: u64,
    /// Whether something of an entry that could not be written whole may lie behind it.
    torn: bool,
}

impl JournalFile {
    /// Opens (or starts) the journal under the run's folder `dir`, drops a torn tail, and gives those entries that a
    /// coordinator needs to take over, going back to the iteration `resume` if there is one. However long the run, they are few, and
    /// the file is never in memory as a whole.
    ///
    /// # Errors
    /// See [`JournalFileError`].
    pub fn open(dir: &Path, resume: Option<Iteration>) -> Result<(Self, Vec<Entry>), JournalFileError> {
        let path = dir.join("journal").join("journal.bin");
        let failed = |source| JournalFileError::File { path: path.clone(), source };
        std::fs::create_dir_all(dir.join("journal")).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        lock(&file, &path)?;
        let (entries, valid) = condense(resume, |each| {
            file.rewind().map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            match scan(&mut BufReader::new(&file), length, each).map_err(failed)? {
                Ok(valid) => Ok(valid),
                Err(source) => Err(JournalFileError::Content { path: path.clone(), source }),
            }
        })?;
        file.set_len(valid).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        if valid == 0 {
            file.write_all(JOURNAL_HEADER).map_err(failed)?;
        }
        file.sync_data().map_err(failed)?;
        let end = file.stream_position().map_err(failed)?;
        Ok((Self { file, end, torn: false }, entries))
    }

    /// Appends an entry; it is on disk when this returns.
    ///
    /// # Errors
    /// A full disk, say: what would follow from the entry must not be heard.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        if self.torn {
            self.cut()?;
        }
        let bytes = encode_entry(entry);
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(why) = written {
            self.torn = true;
            // What can't be cut off now goes before the next try; what is told is why the entry was not written.
            let _ = self.cut();
            return Err(why);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Leaves no half entry behind: the next one begins where the last whole one ends.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(self.end))?;
        self.torn = false;
        Ok(())
    }
}

/// Gives every entry to `each`; answers with the bytes that are sound (what follows is a torn tail).
fn scan(
    reader: &mut impl Read,
    length: u64,
    each: &mut dyn FnMut(Entry),
) -> io::Result<Result<u64, JournalError>> {
    let mut buffer = vec![0; length.min(JOURNAL_HEADER.len() as u64) as usize];
    reader.read_exact(&mut buffer)?;
    if buffer != JOURNAL_HEADER {
        let torn = JOURNAL_HEADER.starts_with(&buffer);
        return Ok(if torn { Ok(0) } else { Err(JournalError::Header) });
    }
    let mut at = buffer.len() as u64;
    buffer.clear();
    loop {
        match decode_entry(&buffer, (length - at) as usize) {
            Decoded::Entry { entry, bytes } => {
                at += bytes as u64;
                buffer.clear();
                each(*entry);
            }
            Decoded::Needs(bytes) => {
                let have = buffer.len();
                buffer.resize(bytes, 0);
                reader.read_exact(&mut buffer[have..])?;
            }
            Decoded::End => return Ok(Ok(at)),
            Decoded::Damaged => return Ok(Err(JournalError::Damaged(at as usize))),
        }
    }
}

fn lock(file: &File, path: &Path) -> Result<(), JournalFileError> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(JournalFileError::InUse { path: path.to_owned() });
            }
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(JournalFileError::File { path: path.to_owned(), source });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_types::{NodeId, RunId, Term};

    #[test]
    fn entries_survive_and_a_torn_tail_is_dropped() {
        let dir = tempfile::tempdir().expect("a folder");
        let entry = Entry::Opened { run: RunId(1), term: Term(1) };
        let (mut journal, entries) = JournalFile::open(dir.path(), None).expect("a new journal");
        assert!(entries.is_empty());
        journal.append(&entry).expect("appended");
        assert!(matches!(JournalFile::open(dir.path(), None), Err(JournalFileError::InUse { .. })));
        drop(journal);
        let path = dir.path().join("journal").join("journal.bin");
        let mut bytes = std::fs::read(&path).expect("the file");
        bytes.extend(&encode_entry(&Entry::NodesBelow { node: NodeId(3) })[..9]);
        std::fs::write(&path, &bytes).expect("written");
        let (mut journal, entries) = JournalFile::open(dir.path(), None).expect("the journal");
        assert_eq!(entries, std::slice::from_ref(&entry));
        journal.append(&Entry::NodesBelow { node: NodeId(7) }).expect("appended");
        drop(journal);
        let (_, entries) = JournalFile::open(dir.path(), None).expect("the journal");
        assert_eq!(entries, [entry, Entry::NodesBelow { node: NodeId(7) }]);
        let mut bytes = std::fs::read(&path).expect("the file");
        bytes[30] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert!(matches!(JournalFile::open(dir.path(), None), Err(JournalFileError::Content { .. })));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_half_entry_that_the_disk_would_not_cut_off_goes_before_the_next() {
        let dir = tempfile::tempdir().expect("a folder");
        let entries = [3, 7].map(|node| Entry::NodesBelow { node: NodeId(node) });
        let (mut journal, _) = JournalFile::open(dir.path(), None).expect("a new journal");
        journal.append(&entries[0]).expect("appended");
        // Half an entry is written, and then the disk refuses everything: what follows, and that this is cut off.
        let half = &encode_entry(&Entry::Opened { run: RunId(1), term: Term(1) })[..20];
        journal.file.write_all(half).expect("written");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("the device");
        let file = std::mem::replace(&mut journal.file, full);
        assert_eq!(journal.append(&entries[1]).expect_err("a full disk").kind(), io::ErrorKind::StorageFull);
        assert!(journal.append(&entries[1]).is_err(), "it still is");
        journal.file = file;
        journal.append(&entries[1]).expect("appended");
        drop(journal);
        let bytes = std::fs::read(dir.path().join("journal").join("journal.bin")).expect("the file");
        let (read, whole) = skipstone_protocol::decode_journal(&bytes).expect("the journal");
        assert_eq!((read.as_slice(), whole), (entries.as_slice(), bytes.len()));
    }
}
