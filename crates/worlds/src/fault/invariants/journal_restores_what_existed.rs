//! A restart finds every entry whose write was completed, in order, and nothing else.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;

/// See the file's name.
#[derive(Debug)]
pub(super) struct JournalRestoresWhatExisted;

impl Invariant for JournalRestoresWhatExisted {
    fn name(&self) -> &'static str {
        "journal_restores_what_existed"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        let Observation::Restored { entries, written } = seen else { return Ok(()) };
        if entries == written {
            return Ok(());
        }
        let equal = entries.iter().zip(*written).take_while(|(found, wrote)| found == wrote).count();
        Err(format!(
            "{} entries were written and {} found; they agree on {equal}",
            written.len(),
            entries.len()
        ))
    }
}
