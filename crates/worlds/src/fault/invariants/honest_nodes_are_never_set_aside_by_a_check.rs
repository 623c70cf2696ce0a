//! Whoever a spot check sets aside has lied in the attempt: about its own share, or about the one that it computed again.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_types::{Attempt, Event, Iteration, NodeId};
use std::collections::BTreeSet;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct HonestNodesAreNeverSetAsideByACheck {
    lied: BTreeSet<(Iteration, Attempt, NodeId)>,
}

impl Invariant for HonestNodesAreNeverSetAsideByACheck {
    fn name(&self) -> &'static str {
        "honest_nodes_are_never_set_aside_by_a_check"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Lied { node, iteration, attempt, .. } => {
                self.lied.insert((*iteration, *attempt, *node));
            }
            Observation::Log { event: Event::Disputed { iteration, attempt, wrong: Some(wrong), .. } }
                if !self.lied.contains(&(*iteration, *attempt, *wrong)) =>
            {
                return Err(format!("{wrong} is set aside in {iteration}, and has not lied"));
            }
            Observation::Log { event: Event::NodeLost { node, why, .. } }
                if why == "check" && !self.lied.iter().any(|(.., liar)| liar == node) =>
            {
                return Err(format!("{node} is lost for a check, and has not lied"));
            }
            _ => {}
        }
        if let Some(record) = seen.committed() {
            self.lied.retain(|(of, ..)| *of > record.iteration);
        }
        Ok(())
    }
}
