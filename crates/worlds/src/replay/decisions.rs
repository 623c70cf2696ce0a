//! A coordinator's decisions made again, by its state machine, from the inputs that it got.

use serde::Serialize;
use skipstone_protocol::{Coordinator, CoordinatorCommand, CoordinatorInput, Entry, Opening};
use skipstone_types::Term;
use thiserror::Error;

/// What came of feeding recorded inputs to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DecisionsReport {
    /// Terms whose inputs were there.
    pub terms: u64,
    /// Inputs that were fed.
    pub inputs: u64,
    /// Entries of the journal that were made again, byte for byte.
    pub entries: u64,
    /// Entries of the journal for which there were no inputs: of terms that were not recorded, or not to their end. Counted
    /// by whoever has fed all terms.
    pub entries_without_inputs: u64,
}

/// The coordinator decided otherwise than the journal says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "term {}: from the same inputs the coordinator now writes {got} where the journal says {expected}; either the journal \
     or the recorded inputs were changed after the run, or the run used another build", term.0
)]
pub struct OtherDecision {
    /// The term.
    pub term: Term,
    /// The entry in the journal.
    pub expected: String,
    /// What the coordinator writes now.
    pub got: String,
}

impl DecisionsReport {
    /// Opens a coordinator on the journal as it was before `opening.term`, feeds it that term's inputs, and compares what
    /// it journals with what the journal holds of the term.
    ///
    /// # Errors
    /// The first entry that differs.
    pub fn feed(
        &mut self,
        journal: &[Entry],
        opening: &Opening,
        inputs: Vec<(u64, CoordinatorInput)>,
    ) -> Result<(), OtherDecision> {
        let term = opening.term;
        let opens = |entry: &Entry| matches!(entry, Entry::Opened { .. });
        let start =
            journal.iter().position(|entry| matches!(entry, Entry::Opened { term: of, .. } if *of == term));
        // A term that nothing was journalled of decided nothing.
        let Some(start) = start else { return Ok(()) };
        let end = journal[start + 1..].iter().position(opens).map_or(journal.len(), |next| start + 1 + next);
        let mut expected = journal[start..end].iter();
        self.terms += 1;
        let (mut coordinator, commands) =
            Coordinator::open(opening.settings.clone(), &journal[..start], opening.resume.clone(), 0);
        self.compare(term, &commands, &mut expected)?;
        for (now_us, input) in inputs {
            self.inputs += 1;
            let commands = coordinator.on(input, now_us);
            self.compare(term, &commands, &mut expected)?;
        }
        Ok(())
    }

    /// An entry beyond the journal's end is no difference: the coordinator died before it had written it.
    fn compare(
        &mut self,
        term: Term,
        commands: &[CoordinatorCommand],
        expected: &mut std::slice::Iter<'_, Entry>,
    ) -> Result<(), OtherDecision> {
        for command in commands {
            let CoordinatorCommand::Journal { entry } = command else { continue };
            match expected.next() {
                Some(known) if known == entry => self.entries += 1,
                Some(known) => {
                    return Err(OtherDecision { term, expected: words(known), got: words(entry) });
                }
                None => {}
            }
        }
        Ok(())
    }
}

fn words(entry: &Entry) -> String {
    match entry {
        Entry::Opened { term, .. } => format!("the opening of term {}", term.0),
        Entry::Struck { node, iteration } => format!("a strike of {node} in {iteration}"),
        Entry::NodesBelow { node } => format!("node ids below {}", node.0),
        Entry::RolledBack { iteration, .. } => format!("a rollback to {iteration}"),
        Entry::CopyKept(copy) => format!("a copy of {} before {}", copy.stage, copy.iteration),
        Entry::Rebuilt(rebuild) => format!("lineage {} of {}", rebuild.lineage, rebuild.stage),
        Entry::Committed(record) => {
            format!("{} ({}, record {})", record.iteration, record.attempt, record.digest())
        }
    }
}
