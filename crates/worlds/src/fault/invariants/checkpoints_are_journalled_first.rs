//! Where a lost stage sends the run back to a checkpoint, no state is published that the coordinator would not go back to: what is
//! published takes the place of the one before.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::Entry;
use skipstone_types::Iteration;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct CheckpointsAreJournalledFirst {
    journalled: Option<Iteration>,
}

impl Invariant for CheckpointsAreJournalledFirst {
    fn name(&self) -> &'static str {
        "checkpoints_are_journalled_first"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Written { entry: Entry::Saved { state, .. } } => {
                self.journalled = Some(state.iteration);
            }
            Observation::Published { iteration, stages }
                if truth.settings.recovery.starts_with("checkpoint") =>
            {
                let is_whole = stages.len() == usize::from(truth.settings.relay_stages) + 1;
                if is_whole && self.journalled != Some(*iteration) {
                    return Err(format!(
                        "{iteration} is published, and the journal names {:?}",
                        self.journalled
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
