//! A node on a machine without the run's folder tells its parent what becomes of it.

use super::start::NodeNews;
use skipstone_protocol::{ToCoordinator, ToWorker};
use skipstone_types::StageId;
use std::io::{self, Write};

/// Tells news on standard output, each once.
#[derive(Debug)]
pub(super) struct Reporter {
    tells: bool,
    stage: Option<StageId>,
    works: bool,
}

impl Reporter {
    /// One that tells, or not.
    pub(super) fn new(tells: bool) -> Self {
        Self { tells, stage: None, works: false }
    }

    fn tell(&self, news: &NodeNews) {
        if self.tells
            && let Ok(line) = serde_json::to_string(news)
        {
            // Without a parent to hear it this process is about to end.
            let _ = writeln!(io::stdout().lock(), "{line}");
        }
    }

    /// A message of the coordinator.
    pub(super) fn heard(&mut self, message: &ToWorker) {
        match message {
            ToWorker::Welcome { node, .. } => {
                (self.stage, self.works) = (None, false);
                self.tell(&NodeNews::Welcome { node: *node });
            }
            ToWorker::Assign { stage, .. } => {
                (self.stage, self.works) = (Some(*stage), false);
                self.tell(&NodeNews::Fetching { stage: *stage });
            }
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
