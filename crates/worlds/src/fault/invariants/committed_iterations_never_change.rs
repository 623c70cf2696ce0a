//! Each iteration is decided once, in order, in one chain of records; nobody is told another record of it.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{CommitRecord, Entry, ToWorker};
use skipstone_types::Digest;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct CommittedIterationsNeverChange {
    decided: u64,
    last: Digest,
}

impl Invariant for CommittedIterationsNeverChange {
    fn name(&self) -> &'static str {
        "committed_iterations_never_change"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        // What came after the saved state has never been, and nothing else of the past changes.
        if let Observation::Written { entry: Entry::RolledBack { iteration, .. } } = seen {
            if iteration.0 > self.decided {
                return Err(format!("{iteration} is gone back to after {} iterations", self.decided));
            }
            self.decided = iteration.0;
            self.last = truth.records.last().map(CommitRecord::digest).unwrap_or_default();
        }
        if let Some(record) = seen.committed() {
            if record.iteration.0 != self.decided {
                return Err(format!("{} is decided after {} iterations", record.iteration, self.decided));
            }
            if record.previous != self.last {
                return Err(format!("the record of {} does not follow the one before", record.iteration));
            }
            self.decided += 1;
            self.last = record.digest();
        }
        if let Observation::Told { node, message: ToWorker::Commit { record } } = seen
            && let Some(decided) = truth.records.get(record.iteration.0 as usize)
            && **record != *decided
        {
            return Err(format!(
                "{node} is told another record of {} than the decided one",
                record.iteration
            ));
        }
        Ok(())
    }
}
