//! A journal cut at any byte restores a state that the run once had.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;

/// See the file's name.
#[derive(Debug)]
pub(super) struct JournalCutAnywhereIsAPast;

impl Invariant for JournalCutAnywhereIsAPast {
    fn name(&self) -> &'static str {
        "journal_cut_anywhere_is_a_past"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        let Observation::Cut { entries, written } = seen else { return Ok(()) };
        match entries {
            Ok(entries) if written.starts_with(entries) => Ok(()),
            Ok(entries) => Err(format!("{} entries that were never there in this order", entries.len())),
            Err(why) => Err(format!("a cut journal is refused: {why}")),
        }
    }
}
