//! A sum of gradients that is wrong, in a way that its norm tells, is in no committed gradient.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_types::{Attempt, Iteration, NodeId};
use std::collections::BTreeSet;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct PoisonedSharesNeverCount {
    poisoned: BTreeSet<(Iteration, Attempt, NodeId)>,
}

impl Invariant for PoisonedSharesNeverCount {
    fn name(&self) -> &'static str {
        "poisoned_shares_never_count"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        if let Observation::Poisoned { node, iteration, attempt } = seen {
            self.poisoned.insert((*iteration, *attempt, *node));
        }
        let Some(record) = seen.committed() else { return Ok(()) };
        let (t, a) = (record.iteration, record.attempt);
        for part in &record.stages {
            if let Some(share) = part.shares.iter().find(|share| self.poisoned.contains(&(t, a, share.node)))
            {
                let (node, stage, norm) = (share.node, part.stage, share.norm);
                return Err(format!(
                    "{t} counts the share of {node} at {stage}, of norm {norm}: it is poisoned"
                ));
            }
        }
        self.poisoned.retain(|(of, ..)| *of > t);
        Ok(())
    }
}
