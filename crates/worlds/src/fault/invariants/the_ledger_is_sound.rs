//! `skipstone audit` finds nothing wrong in the journal of a run that has ended, whatever happened to it.

use super::{Invariant, Observation};
use crate::audit::audit;
use crate::fault::truth::Truth;
use skipstone_protocol::Entry;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct TheLedgerIsSound {
    journal: Vec<Entry>,
}

impl Invariant for TheLedgerIsSound {
    fn name(&self) -> &'static str {
        "the_ledger_is_sound"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Written { entry } => self.journal.push((*entry).clone()),
            Observation::Ended { .. } => {
                let report = audit(&self.journal, None);
                if !report.is_sound() {
                    return Err(report.complaints.join("; "));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
