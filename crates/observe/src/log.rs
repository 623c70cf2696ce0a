//! The event log: `events.jsonl` in the run's folder.

use crate::append::Append;
use crate::read::{self, ReadError};
use skipstone_types::{EVENT_SCHEMA, Event, EventRecord, Iteration};
use std::path::Path;
use std::time::Duration;

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
    file: Append,
    resumed_ms: u64,
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
        let file = Append::open(&path, RETRY_EVERY, PENDING_BYTES_MAX).map_err(io)?;
        let (mut whole_bytes, mut last, mut steps) = (0, None, 0);
        read::scan(&path, |record, end| {
            whole_bytes = end;
            if let Event::Committed { iteration, .. } = record.event {
                steps = iteration.0.saturating_add(1);
            }
            last = Some(record);
        })?;
        file.cut(whole_bytes).map_err(io)?;
        let resumed_ms = last.as_ref().map_or(0, |record| record.time_ms);
        let mut log = Self { file, resumed_ms };
        if last.is_some_and(|record| !matches!(record.event, Event::Finished { .. })) {
            let event = Event::Finished { iteration: Iteration(steps), why: "interrupted".to_owned() };
            log.append(&EventRecord { schema: EVENT_SCHEMA, time_ms: log.resumed_ms, event });
        }
        Ok(log)
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The time of the last event that was there when the log was opened: a resumed run goes on from here.
    pub fn resumed_ms(&self) -> u64 {
        self.resumed_ms
    }

    /// Appends an event. The operating system has the line when this returns, so that a crash of this process loses none
    /// and one of the machine at most what the system had not written yet; while the disk refuses, lines wait.
    pub fn append(&mut self, record: &EventRecord) {
        match serde_json::to_vec(record) {
            Ok(mut line) => {
                line.push(b'\n');
                self.file.push(&line);
            }
            Err(why) => self.file.fail(why.into()),
        }
        self.file.flush_unless_refused();
    }

    /// Tries again each second to write what a disk refused; call it now and then.
    pub fn tick(&mut self) {
        self.file.tick();
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) {
        self.file.flush();
    }

    /// The warning of the first failure, once.
    pub fn take_warning(&mut self) -> Option<String> {
        let why = self.file.take_failure()?;
        let path = self.path().display();
        Some(format!(
            "can't write the event log {path}: {why}; training goes on, but `show` and `replay` may miss events"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_events;
    use skipstone_types::NodeId;

    fn joined(time_ms: u64) -> EventRecord {
        let event = Event::NodeJoined { node: NodeId(7), process: 0, was: None };
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
        let file = Append::open(Path::new("/dev/full"), RETRY_EVERY, PENDING_BYTES_MAX).unwrap();
        let mut log = EventLog { file, resumed_ms: 0 };
        (0..2000).for_each(|t| log.append(&joined(t)));
        log.flush();
        assert!(log.take_warning().unwrap().contains("/dev/full"));
        log.flush();
        assert_eq!(log.take_warning(), None);
    }
}
