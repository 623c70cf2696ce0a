//! Nobody hears of a commit or steps before the record is on disk, and steps are as the record says.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use crate::fault::truth::clip_factor;
use skipstone_protocol::{Task, ToWorker};

/// See the file's name.
#[derive(Debug)]
pub(super) struct CommitIsJournalledFirst;

impl Invariant for CommitIsJournalledFirst {
    fn name(&self) -> &'static str {
        "commit_is_journalled_first"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Told { node, message: ToWorker::Commit { record } }
                if record.iteration.0 >= truth.committed() =>
            {
                Err(format!("{node} is told to commit {}, which is not on disk", record.iteration))
            }
            Observation::Started {
                node,
                task: Task::Step { iteration, learning_rate, clip_factor: clip },
                makes: Some(stage),
            } => {
                if iteration.0 >= truth.committed() {
                    return Err(format!("{node} steps in {iteration}, which is not committed"));
                }
                let norms = truth.norms.get(iteration.0 as usize + 1);
                let norm = norms.and_then(|norms| norms.get(usize::from(stage.0))).copied().unwrap_or(0.0);
                let rate = truth.settings.learning_rate.at(*iteration);
                if *learning_rate == rate && *clip == clip_factor(&truth.settings, norm) {
                    Ok(())
                } else {
                    Err(format!(
                        "{node} steps with rate {learning_rate} and clip factor {clip} in {iteration}"
                    ))
                }
            }
            _ => Ok(()),
        }
    }
}
