//! Compute that takes its modelled time (`--pace`).

use crate::wan::{PaceCount, TaskTimes};
use std::io::Write;
use std::time::{Duration, Instant};

/// How often the parent hears how true the pace is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Holds a node's compute thread to the modelled times.
#[derive(Debug)]
pub(super) struct Pacer {
    pub(super) times: TaskTimes,
    count: PaceCount,
    told: Instant,
}

impl Pacer {
    pub(super) fn new(times: TaskTimes) -> Self {
        let count = PaceCount { process: std::process::id(), ..PaceCount::default() };
        Self { times, count, told: Instant::now() }
    }

    /// A task that began then is over: its modelled time is waited for, or found too short.
    pub(super) fn stretch(&mut self, began: Instant, modelled: Duration) {
        self.count.note(modelled, began.elapsed());
        std::thread::sleep(modelled.saturating_sub(began.elapsed()));
        if self.told.elapsed() >= TELL_EVERY {
            self.tell();
        }
    }

    /// Tells the parent; one that is gone is no concern of ours.
    fn tell(&mut self) {
        self.told = Instant::now();
        if let Ok(mut line) = serde_json::to_vec(&self.count) {
            line.push(b'\n');
            let mut out = std::io::stdout().lock();
            drop(out.write_all(&line).and_then(|()| out.flush()));
        }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.tell();
    }
}
