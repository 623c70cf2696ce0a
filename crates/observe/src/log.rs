//! The event log: `events.jsonl` in the run's folder.

use crate::read::{self, ReadError};
use skipstone_types::{EVENT_SCHEMA, Event, EventRecord, Iteration};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Pause between tries while the disk refuses.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// What waits for a disk that refuses; events beyond it are left out of the log.
const PENDING_BYTES_MAX: usize = 8 << 20;

/// The event log, `DIR/events.jsonl`, one JSON object a line. The parent process is its only writer.
///
/// A run never ends because its log can't be written: the first failure is kept for
/// [`EventLog::take_warning`], and writing is tried again each second; whole lines wait for it in bounded memory,
/// and none is ever written in part.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
    flushed: Instant,
    resumed_ms: u64,
    failed: bool,
    warning: Option<String>,
}

impl EventLog {
    /// Starts a log, or goes on with the one that is there. Of a log that was cut off, the torn last line is
    /// removed and the end is written (`Finished`, why `interrupted`), so that the nodes of then don't count as
    /// alive now.
    ///
    /// # Errors
    /// A log that can't be opened, or one of another schema.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        let path = dir.join("events.jsonl");
        let io = |source| ReadError::Io { path: path.clone(), source };
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
        let (mut whole_bytes, mut last, mut steps) = (0, None, 0);
        read::scan(&path, |record, end| {
            whole_bytes = end;
            if let Event::Committed { iteration, .. } = record.event {
                steps = iteration.0.saturating_add(1);
            }
            last = Some(record);
        })?;
        if file.metadata().map_err(io)?.len() > whole_bytes {
            file.set_len(whole_bytes).map_err(io)?;
        }
        let mut log = Self {
            file,
            pending: Vec::new(),
            flushed: Instant::now(),
            resumed_ms: last.as_ref().map_or(0, |record| record.time_ms),
            failed: false,
            warning: None,
            path,
        };
        if last.is_some_and(|record| !matches!(record.event, Event::Finished { .. })) {
            let event = Event::Finished { iteration: Iteration(steps), why: "interrupted".to_owned() };
            log.append(&EventRecord { schema: EVENT_SCHEMA, time_ms: log.resumed_ms, event });
        }
        Ok(log)
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The time of the last event that was there when the log was opened: a resumed run goes on from here.
    pub fn resumed_ms(&self) -> u64 {
        self.resumed_ms
    }

    /// Appends an event. The operating system has the line when this returns, so that a crash of this process loses none
    /// and one of the machine at most what the system had not written yet; while the disk refuses, lines wait.
    pub fn append(&mut self, record: &EventRecord) {
        match serde_json::to_vec(record) {
            Ok(line) if self.pending.len() + line.len() < PENDING_BYTES_MAX => {
                self.pending.extend_from_slice(&line);
                self.pending.push(b'\n');
            }
            Ok(_) => {} // the disk has refused for long: `note` has said so
            Err(why) => self.note(&why.into()),
        }
        if self.failed {
            self.tick();
        } else {
            self.flush();
        }
    }

    /// Tries again each second to write what a disk refused; call it now and then.
    pub fn tick(&mut self) {
        if !self.pending.is_empty() && self.flushed.elapsed() >= RETRY_EVERY {
            self.flush();
        }
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) {
        self.flushed = Instant::now();
        let mut written = 0;
        while written < self.pending.len() {
            match self.file.write(&self.pending[written..]) {
                Ok(0) => break,
                Ok(bytes) => written += bytes,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => {
                    self.note(&why);
                    break;
                }
            }
        }
        self.pending.drain(..written);
        self.failed &= !self.pending.is_empty();
    }

    /// The warning of the first failure, once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    fn note(&mut self, why: &io::Error) {
        if !self.failed {
            self.failed = true;
            self.warning = Some(format!(
                "can't write the event log {}: {why}; training goes on, but `show` and `replay` may miss events",
                self.path.display()
            ));
        }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_events;
    use skipstone_types::NodeId;

    fn joined(time_ms: u64) -> EventRecord {
        let event = Event::NodeJoined { node: NodeId(7), process: 0 };
        EventRecord { schema: EVENT_SCHEMA, time_ms, event }
    }

    #[test]
    fn a_torn_line_is_left_out_and_then_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(dir.path()).unwrap();
        (0..3).for_each(|t| log.append(&joined(t)));
        let path = log.path().to_owned();
        drop(log);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 5);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read_events(&path).unwrap(), [joined(0), joined(1)]);

        let mut log = EventLog::open(dir.path()).unwrap();
        assert_eq!(log.resumed_ms(), 1);
        log.append(&joined(9));
        drop(log);
        let events = read_events(&path).unwrap();
        assert_eq!(events.len(), 4);
        assert_eq!(events[2].event, Event::Finished { iteration: Iteration(0), why: "interrupted".into() });
        assert_eq!(events[3], joined(9));
    }

    #[test]
    fn another_schema_and_damage_are_refused_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let good = serde_json::to_string(&joined(1)).unwrap();
        let read = |text: String| {
            std::fs::write(&path, text).unwrap();
            read_events(&path).unwrap_err().to_string()
        };
        let newer = read(format!("{good}\n{{\"schema\":99,\"time_ms\":1,\"event\":\"from_the_future\"}}\n"));
        assert!(newer.contains("line 2") && newer.contains("schema 99"), "{newer}");
        let damaged = read(format!("{good}\nnot json\n{good}\n"));
        assert!(damaged.contains("line 2 is not an event"), "{damaged}");
        let long = read(format!("{}\n", "x".repeat(read::LINE_BYTES_MAX + 1)));
        assert!(long.contains("longer than"), "{long}");
        assert!(read_events(&dir.path().join("none")).unwrap_err().to_string().contains("can't read"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_one_warning() {
        let mut log = EventLog {
            path: "/dev/full".into(),
            file: OpenOptions::new().write(true).open("/dev/full").unwrap(),
            pending: Vec::new(),
            flushed: Instant::now(),
            resumed_ms: 0,
            failed: false,
            warning: None,
        };
        for t in 0..200_000 {
            log.append(&joined(t));
            assert!(log.pending.len() < PENDING_BYTES_MAX);
        }
        log.flush();
        assert!(log.take_warning().unwrap().contains("/dev/full"));
        log.flush();
        assert_eq!(log.take_warning(), None);
    }
}
