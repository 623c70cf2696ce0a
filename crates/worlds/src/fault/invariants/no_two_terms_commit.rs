//! Terms only grow, and a record is written by the term that stands.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::Entry;
use skipstone_types::Term;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct NoTwoTermsCommit {
    term: Term,
}

impl Invariant for NoTwoTermsCommit {
    fn name(&self) -> &'static str {
        "no_two_terms_commit"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        if let Observation::Written { entry: Entry::Opened { term, .. } } = seen {
            if *term <= self.term {
                return Err(format!("a coordinator took over in {term} after {}", self.term));
            }
            self.term = *term;
        }
        match seen.committed() {
            Some(record) if record.term != self.term => Err(format!(
                "{} is committed by {} while {} stands",
                record.iteration, record.term, self.term
            )),
            _ => Ok(()),
        }
    }
}
