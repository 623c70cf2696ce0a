//! The coordinator's disk: the bytes of its journal, and what a crash leaves of them.

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

    /// Appends an entry, synced.
    pub(super) fn append(&mut self, entry: Entry) {
        self.bytes.extend(encode_entry(&entry));
        self.written.push(entry);
    }

    /// Begins to append an entry, of which only `fraction` of the bytes arrive.
    pub(super) fn tear(&mut self, entry: &Entry, fraction: f64) {
        let bytes = encode_entry(entry);
        let kept = ((bytes.len() as f64 * fraction) as usize).min(bytes.len() - 1);
        self.bytes.extend(&bytes[..kept]);
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

    /// Entries whose write was completed.
    pub(super) fn written(&self) -> &[Entry] {
        &self.written
    }
}
