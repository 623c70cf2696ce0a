//! What a node tells its parent: how much it has sent, and on a machine without the run's folder what becomes of it.

use super::start::{NodeNews, SentCount};
use serde::Serialize;
use skipstone_protocol::{ToCoordinator, ToWorker};
use skipstone_types::StageId;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How often the parent hears how much was sent.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Tells news on standard output, each once.
#[derive(Debug)]
pub(super) struct Reporter {
    tells: bool,
    counts: bool,
    stage: Option<StageId>,
    works: bool,
    sent_bytes: u64,
    told: Instant,
}

impl Reporter {
    /// One that tells what becomes of the node, or not; and how much it sends, or not.
    pub(super) fn new(tells: bool, counts: bool) -> Self {
        Self { tells, counts, stage: None, works: false, sent_bytes: 0, told: Instant::now() }
    }

    fn tell(&self, news: &NodeNews) {
        if self.tells {
            write(news);
        }
    }

    /// So many bytes of a tensor are on their way to another node.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
        if self.told.elapsed() >= TELL_EVERY {
            self.tell_sent();
        }
    }

    fn tell_sent(&mut self) {
        self.told = Instant::now();
        let sent_bytes = self.sent_bytes;
        if self.tells {
            write(&NodeNews::Sent { sent_bytes });
        } else if self.counts {
            write(&SentCount { process: std::process::id(), sent_bytes });
        }
    }

    /// A message of the coordinator.
    pub(super) fn heard(&mut self, message: &ToWorker) {
        match message {
            ToWorker::Welcome { node, empty, .. } => {
                // A coordinator that came back leaves a node what it holds.
                self.stage = self.stage.filter(|_| !empty);
                self.works = false;
                self.tell(&NodeNews::Welcome { node: *node });
            }
            ToWorker::Assign { stage, .. } => {
                (self.stage, self.works) = (Some(*stage), false);
                self.tell(&NodeNews::Fetching { stage: *stage });
            }
            ToWorker::Leave => self.tell(&NodeNews::Left),
            ToWorker::Refuse { why } => self.tell(&NodeNews::Refused { why: why.clone() }),
            _ => {}
        }
    }

    /// A message to the coordinator.
    pub(super) fn said(&mut self, message: &ToCoordinator) {
        if let (ToCoordinator::ShareDone { iteration, .. }, Some(stage), false) =
            (message, self.stage, self.works)
        {
            self.works = true;
            self.tell(&NodeNews::Working { stage, iteration: *iteration });
        }
    }

    /// The connection to the coordinator is gone.
    pub(super) fn away(&self) {
        self.tell(&NodeNews::Away);
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.tell_sent();
    }
}

fn write(line: &impl Serialize) {
    if let Ok(mut line) = serde_json::to_vec(line) {
        line.push(b'\n');
        let mut out = io::stdout().lock();
        // Without a parent to hear it this process is about to end.
        drop(out.write_all(&line).and_then(|()| out.flush()));
    }
}
