//! A run that goes on with `--resume` starts from the state that was published last, bit for bit.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{End, Entry, SavedStage};
use skipstone_types::Iteration;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct ResumeGoesOnFromWhatWasSaved {
    /// What the run went back to.
    saved: Option<(Iteration, Vec<SavedStage>)>,
    /// What is about to be published, as the journal says.
    written: Option<(Iteration, Vec<SavedStage>)>,
}

impl Invariant for ResumeGoesOnFromWhatWasSaved {
    fn name(&self) -> &'static str {
        "resume_goes_on_from_what_was_saved"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Written { entry: Entry::Saved { state, .. } } => {
                self.written = Some((state.iteration, state.stages.clone()));
            }
            Observation::Written { entry: Entry::RolledBack { iteration, stages, .. } } => {
                self.saved = Some((*iteration, stages.clone()));
                let goes_back_to = |saved: &Option<(Iteration, Vec<SavedStage>)>| *saved == self.saved;
                if !goes_back_to(&truth.published) && !goes_back_to(&self.written) {
                    return Err(format!("goes on from {iteration}; saved is {:?}", truth.published));
                }
            }
            Observation::Loaded { iteration, stage, digest } => {
                // Until something is committed the run may have to start once more from the same files.
                let saved = self.saved.as_ref().filter(|(saved, _)| saved == iteration);
                let Some((_, stages)) = saved else {
                    return Err(format!("{stage} is loaded for {iteration}, which was not gone back to"));
                };
                if !stages.iter().any(|saved| saved.stage == *stage && saved.state == *digest) {
                    return Err(format!("{stage} is loaded with other bits than were published"));
                }
            }
            Observation::Ended { end: End::Failed { why }, .. } if why.contains("first weights") => {
                return Err(format!("what was saved can't be gone on from: {why}"));
            }
            _ => {}
        }
        Ok(())
    }
}
