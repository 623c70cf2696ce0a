//! `state/` holds what every stage was before its iteration.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;

/// See the file's name.
#[derive(Debug)]
pub(super) struct PublishedStateIsCommitted;

impl Invariant for PublishedStateIsCommitted {
    fn name(&self) -> &'static str {
        "published_state_is_committed"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        let Observation::Published { iteration, stages } = seen else { return Ok(()) };
        for skipstone_protocol::SavedStage { stage, state: digest, .. } in *stages {
            let rebuilt = truth.rebuilt.get(digest).is_some_and(|rebuilt| rebuilt.stage == *stage);
            // A state made anew enters with the next record, and may be saved before that.
            let adopted_next = rebuilt && iteration.0 == truth.committed();
            if truth.state(*stage, *iteration) != Some(*digest) && !adopted_next {
                return Err(format!("state/ of {iteration} has other bits of {stage}"));
            }
        }
        Ok(())
    }
}
