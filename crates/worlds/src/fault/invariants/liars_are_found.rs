//! A share that is checked and wrong never passes; with three replicas whoever lied in a check is set aside by its end; and a node that
//! lies about all its shares in a stage of three or more does not outlive so many checks there.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_types::{Attempt, Event, Iteration, NodeId, Ruling, StageId};
use std::collections::{BTreeMap, BTreeSet};

/// Checks of its stage that a node which always lies hardly ever outlives, for each replica: of R nodes it is checked, or checks first,
/// in at least one of R checks, so that it outlives R · this with a probability of e⁻²⁰.
const CHECKS_MAX: u64 = 20;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct LiarsAreFound {
    /// Who lied about its share.
    own: BTreeSet<(Iteration, Attempt, NodeId)>,
    /// Who lied about one that it checked.
    others: BTreeSet<(Iteration, Attempt, NodeId)>,
    /// Nodes of each stage in the last attempt that was committed.
    members: BTreeMap<StageId, usize>,
    /// Checks of its stage that a node has outlived while it lied about its own shares.
    outlived: BTreeMap<NodeId, u64>,
}

impl LiarsAreFound {
    /// A check has ended in the stage, and nobody was set aside.
    fn passed(&mut self, of: (Iteration, Attempt), stage: StageId, truth: &Truth) -> Result<(), String> {
        let members = self.members.get(&stage).copied().unwrap_or(0);
        let liars: Vec<_> =
            self.own.iter().filter(|(t, a, _)| (*t, *a) == of).map(|(.., liar)| *liar).collect();
        for liar in liars.into_iter().filter(|liar| truth.serves(*liar) == Some(stage) && members >= 3) {
            let outlived = self.outlived.entry(liar).or_default();
            *outlived += 1;
            if *outlived > CHECKS_MAX * members as u64 {
                return Err(format!("{liar} lies, and has outlived {outlived} checks of {stage}"));
            }
        }
        Ok(())
    }
}

impl Invariant for LiarsAreFound {
    fn name(&self) -> &'static str {
        "liars_are_found"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Lied { node, iteration, attempt, checks, .. } => {
                let lied = if *checks { &mut self.others } else { &mut self.own };
                lied.insert((*iteration, *attempt, *node));
            }
            Observation::Log { event: Event::SpotChecked { iteration, attempt, stage, node, by, .. } } => {
                let of = (*iteration, *attempt);
                if self.own.contains(&(of.0, of.1, *node)) {
                    return Err(format!("{by} finds nothing wrong with the share of {node} in {iteration}"));
                }
                if self.others.contains(&(of.0, of.1, *by)) {
                    return Err(format!("{by} lies about the share of {node} in {iteration}, and it passes"));
                }
                return self.passed(of, *stage, truth);
            }
            Observation::Log {
                event:
                    Event::Disputed {
                        iteration,
                        attempt,
                        stage,
                        node,
                        by,
                        then: Ruling::Undecided,
                        wrong: None,
                        ..
                    },
            } => {
                let of = (*iteration, *attempt);
                let (t, a) = of;
                let lied = by.iter().filter(|by| self.others.contains(&(t, a, **by))).count();
                let lied = lied + usize::from(self.own.contains(&(t, a, *node)));
                if by.len() >= 2 && lied < 2 {
                    return Err(format!(
                        "{by:?} have computed the share of {node} in {iteration}, and nobody is wrong"
                    ));
                }
                return self.passed(of, *stage, truth);
            }
            _ => {}
        }
        if let Some(record) = seen.committed() {
            self.own.retain(|(of, ..)| *of > record.iteration);
            self.others.retain(|(of, ..)| *of > record.iteration);
            self.members = record.stages.iter().map(|part| (part.stage, part.members.len())).collect();
        }
        Ok(())
    }
}
