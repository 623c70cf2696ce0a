//! Reading an event log back.

use skipstone_types::{EVENT_SCHEMA, EventRecord};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The longest line that is read; a commit of a thousand stages with 64 replicas takes about a megabyte.
pub(crate) const LINE_BYTES_MAX: usize = 4 << 20;

/// Why an event log can't be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file can't be opened or read.
    #[error("can't read the event log {}: {source}; pass the folder of a run (it holds events.jsonl)", path.display())]
    Io {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A log of another version of skipstone.
    #[error(
        "{} line {line}: event schema {found}, but this skipstone reads schema {EVENT_SCHEMA}; use the version \
         of skipstone that wrote the log",
        path.display()
    )]
    Schema {
        /// The log.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Its schema.
        found: u64,
    },
    /// A line before the last that isn't an event.
    #[error("{} line {line} is not an event ({why}); the file was changed or damaged: remove that line to read the rest", path.display())]
    Line {
        /// The log.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a whole event log. A last line without its end is left out: the run was cut off while it was written.
///
/// # Errors
/// A file that can't be read, a damaged line, or a log of another schema.
pub fn read_events(path: &Path) -> Result<Vec<EventRecord>, ReadError> {
    let mut events = Vec::new();
    scan(path, |record, _| events.push(record))?;
    Ok(events)
}

/// Calls `each` with every record and the offset of the byte after its line.
pub(crate) fn scan(path: &Path, mut each: impl FnMut(EventRecord, u64)) -> Result<(), ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let (mut bytes, mut offset) = (Vec::new(), 0_u64);
    for line in 1.. {
        bytes.clear();
        let read =
            reader.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes).map_err(io)?;
        if read > LINE_BYTES_MAX {
            let why = format!("longer than {LINE_BYTES_MAX} bytes");
            return Err(ReadError::Line { path: path.to_owned(), line, why });
        }
        if bytes.pop_if(|last| *last == b'\n').is_none() {
            return Ok(()); // the end of the file, or a torn line
        }
        offset += read as u64;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        each(parse(&bytes, path, line)?, offset);
    }
    Ok(())
}

/// What events of all schemas have.
#[derive(serde::Deserialize)]
struct Schema {
    schema: Option<u64>,
}

fn parse(bytes: &[u8], path: &Path, line: usize) -> Result<EventRecord, ReadError> {
    let damaged =
        |why: serde_json::Error| ReadError::Line { path: path.to_owned(), line, why: why.to_string() };
    // The schema is looked at first: an event of another schema needn't parse as one of ours.
    match serde_json::from_slice::<Schema>(bytes).map_err(damaged)?.schema {
        Some(schema) if schema == u64::from(EVENT_SCHEMA) => serde_json::from_slice(bytes).map_err(damaged),
        Some(found) => Err(ReadError::Schema { path: path.to_owned(), line, found }),
        None => Err(ReadError::Line { path: path.to_owned(), line, why: "it has no \"schema\"".to_owned() }),
    }
}
