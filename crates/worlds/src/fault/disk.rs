//! The coordinator's disk: the bytes of its journal, and what a crash leaves of them.

use super::random::Random;
use skipstone_protocol::{Entry, JOURNAL_HEADER, decode_journal, encode_entry};

/// A journal on disk.
#[derive(Debug)]
pub(super) struct Disk {
    bytes: Vec<u8>,
    /// Entries whose write was completed.
    written: Vec<Entry>,
}

impl Disk {
    /// A new journal.
    pub(super) fn new() -> Self {
        Self { bytes: JOURNAL_HEADER.to_vec(), written: Vec::new() }
    }

    /// Appends an entry, synced; `twice` as no disk should (only for tampering).
    pub(super) fn append(&mut self, entry: Entry, twice: bool) {
        for _ in 0..=u8::from(twice) {
            self.bytes.extend(encode_entry(&entry));
        }
        self.written.push(entry);
    }

    /// Begins to append an entry, whose sync does not return: what reaches the disk is a prefix, or blocks of it in any
    /// order with zeros where the others belong.
    pub(super) fn tear(&mut self, entry: &Entry, random: &mut Random) {
        let whole = encode_entry(entry);
        let mut bytes = whole.clone();
        let last = bytes.len() - 1;
        let mark = random.between(0, last as u64) as usize;
        match random.between(0, 3) {
            0 => bytes[mark..].fill(0),
            1 => bytes[..=mark].fill(0),
            _ => bytes.truncate(mark),
        }
        if bytes == whole {
            bytes.truncate(mark);
        }
        self.bytes.extend(&bytes);
    }

    /// Forgets the last entry, as no disk should (only for tampering).
    pub(super) fn forget_last(&mut self) {
        if let Ok((mut entries, _)) = decode_journal(&self.bytes) {
            entries.pop();
            self.bytes = JOURNAL_HEADER.to_vec();
            self.bytes.extend(entries.iter().flat_map(encode_entry));
        }
    }

    /// What a restart finds. The torn tail is cut off.
    pub(super) fn restore(&mut self) -> Result<Vec<Entry>, String> {
        let (entries, valid) = decode_journal(&self.bytes).map_err(|error| error.to_string())?;
        self.bytes.truncate(valid.max(JOURNAL_HEADER.len()));
        Ok(entries)
    }

    /// What a restart would find if the file ended after `length` bytes.
    pub(super) fn cut(&self, length: usize) -> Result<Vec<Entry>, String> {
        let bytes = self.bytes.get(..length).unwrap_or(&self.bytes);
        decode_journal(bytes).map(|(entries, _)| entries).map_err(|error| error.to_string())
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Entries whose write was completed.
    pub(super) fn written(&self) -> &[Entry] {
        &self.written
    }
}
