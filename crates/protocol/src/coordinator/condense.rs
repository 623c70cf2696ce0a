//! What of a journal a coordinator needs to take over, so that its memory does not grow with the run.

use super::HISTORY_ITERATIONS;
use super::known_copies::KnownCopies;
use super::strikes::STRUCK_NODES_MAX;
use crate::journal::{Beginning, Entry};
use crate::record::CommitRecord;
use skipstone_types::{Iteration, NodeId, RunId, StageId, Term};
use std::collections::{BTreeMap, VecDeque};

/// Strikes kept at most; of more, the oldest are forgotten.
const STRIKES_KEPT_MAX: usize = 4 * STRUCK_NODES_MAX;

/// Goes through a journal twice with `scan`, and keeps what [`super::Coordinator::open`] makes the same of as of all of it:
/// the last term, bound of node ids and rollback, the last records, for each stage the last record in which it stepped,
/// rebuilds after the last record, the last copies, the last checkpoint, what the last rollback undid, and the strikes that are
/// not forgotten yet.
///
/// A coordinator that is to `resume` a saved iteration rolls back to it as it opens, however long ago that was: what it then needs
/// are the records before it.
///
/// # Errors
/// Those of `scan`.
pub fn condense<T, E>(
    resume: Option<Iteration>,
    mut scan: impl FnMut(&mut dyn FnMut(Entry)) -> Result<T, E>,
) -> Result<(Vec<Entry>, T), E> {
    let mut rollbacks = Vec::new();
    let (mut index, mut beginning) = (0_usize, Beginning::default());
    scan(&mut |entry| {
        let begins_anew = beginning.take(&entry);
        if let Entry::RolledBack { iteration: to, .. } = entry {
            rollbacks.push(Rollback { index, to, begins_anew });
        }
        index += 1;
    })?;
    if let Some(to) = resume {
        let begins_anew = beginning.go_back_to(to);
        rollbacks.push(Rollback { index, to, begins_anew });
    }
    let last = rollbacks.last().copied();
    let mut kept = Kept { goes_back_to: last.map(|last| last.to), ..Kept::default() };
    let mut index = 0_usize;
    let scanned = scan(&mut |entry| {
        let fate = match &entry {
            Entry::Committed(record) => {
                let touches =
                    |of: &&Rollback| of.index > index && (of.begins_anew || of.to <= record.iteration);
                match rollbacks.iter().find(touches) {
                    None => Fate::Counts,
                    Some(of) if Some(*of) == last && of.to <= record.iteration => Fate::UndoneLast,
                    Some(_) => Fate::Left,
                }
            }
            _ => Fate::Counts,
        };
        kept.take(entry, fate);
        index += 1;
    })?;
    Ok((kept.entries(resume.is_some()), scanned))
}

/// What became of a record.
#[derive(Clone, Copy)]
enum Fate {
    Counts,
    /// The last rollback undid it.
    UndoneLast,
    /// An earlier one did, or it belongs to a history that the run has left.
    Left,
}

/// A rollback in a journal.
#[derive(Clone, Copy, PartialEq)]
struct Rollback {
    index: usize,
    to: Iteration,
    /// No record leads there.
    begins_anew: bool,
}

#[derive(Default)]
struct Kept {
    /// Where the last rollback leads to.
    goes_back_to: Option<Iteration>,
    opened: Option<(RunId, Term)>,
    node_ids_below: Option<NodeId>,
    rolled_back: Option<Entry>,
    rebuilt: Vec<Entry>,
    records: BTreeMap<Iteration, Box<CommitRecord>>,
    /// The last records that the last rollback undid.
    undone: BTreeMap<Iteration, Box<CommitRecord>>,
    /// The last iteration in which each stage stepped.
    stepped: BTreeMap<StageId, Iteration>,
    struck: VecDeque<(NodeId, Iteration)>,
    /// What the run can go back to.
    saved: Option<Entry>,
    /// Whether nothing but terms came after it: it may not be published.
    saved_last: bool,
    copies: KnownCopies,
}

impl Kept {
    fn take(&mut self, entry: Entry, fate: Fate) {
        self.saved_last = match entry {
            Entry::Opened { .. } => self.saved_last,
            _ => matches!(entry, Entry::Saved { .. }),
        };
        match entry {
            Entry::Opened { run, term } => {
                let highest = self.opened.map_or(term, |(_, before)| before.max(term));
                self.opened = Some((run, highest));
            }
            Entry::NodesBelow { node } => self.node_ids_below = self.node_ids_below.max(Some(node)),
            Entry::CopyKept(copy) => self.copies.remember(copy),
            Entry::Saved { .. } => self.saved = Some(entry),
            Entry::RolledBack { .. } => {
                self.copies = KnownCopies::default();
                self.saved = None;
                self.rebuilt.clear();
                self.rolled_back = Some(entry);
            }
            Entry::Struck { node, iteration } => {
                self.struck.push_back((node, iteration));
                if self.struck.len() > STRIKES_KEPT_MAX {
                    self.struck.pop_front();
                }
            }
            Entry::Rebuilt(_) => self.rebuilt.push(entry),
            Entry::Committed(record) => {
                self.rebuilt.clear();
                self.take_record(record, fate);
            }
        }
    }

    fn take_record(&mut self, record: Box<CommitRecord>, fate: Fate) {
        match fate {
            Fate::Left => {}
            Fate::UndoneLast => {
                self.undone.insert(record.iteration, record);
                while self.undone.len() > HISTORY_ITERATIONS {
                    self.undone.pop_first();
                }
            }
            Fate::Counts => {
                let steps = record.stages.iter().filter(|part| part.step).map(|part| part.stage);
                self.stepped.extend(steps.map(|stage| (stage, record.iteration)));
                self.records.insert(record.iteration, record);
                self.forget_old_records();
            }
        }
    }

    fn forget_old_records(&mut self) {
        let old = self.records.len().saturating_sub(HISTORY_ITERATIONS);
        let gone: Vec<_> = self
            .records
            .keys()
            .take(old)
            .copied()
            .filter(|iteration| !self.stepped.values().any(|last| last == iteration))
            // The chain goes on from it after a rollback.
            .filter(|iteration| self.goes_back_to != Some(iteration.next()))
            .collect();
        for iteration in gone {
            self.records.remove(&iteration);
        }
    }

    /// If the coordinator `resumes`, the last rollback is still to come.
    fn entries(mut self, resumes: bool) -> Vec<Entry> {
        let saved_last = self.saved_last;
        let last_saved = self.saved.take_if(|_| saved_last);
        let opened = self.opened.map(|(run, term)| Entry::Opened { run, term });
        let below = self.node_ids_below.map(|node| Entry::NodesBelow { node });
        let records = self.records.into_values().map(Entry::Committed);
        let undone: Vec<_> = self.undone.into_values().map(Entry::Committed).collect();
        let (undone, to_be_undone) = if resumes { (Vec::new(), undone) } else { (undone, Vec::new()) };
        let struck = self.struck.into_iter().map(|(node, iteration)| Entry::Struck { node, iteration });
        let copies = self.copies.into_entries();
        // What comes after a checkpoint tells that it was published.
        let first = opened.into_iter().chain(undone).chain(self.rolled_back).chain(self.saved).chain(below);
        let last =
            records.chain(to_be_undone).chain(self.rebuilt).chain(copies).chain(struck).chain(last_saved);
        first.chain(last).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Coordinator;
    use super::*;
    use crate::fixtures::settings;
    use crate::journal::{Rebuild, StageCopy};
    use crate::record::{SavedStage, SavedState, StageRecord};
    use skipstone_recovery::{Recipe, StateFormat};
    use skipstone_types::{Attempt, Digest, PlanEpoch};

    /// A record in which the stages step that `steps` names.
    fn record(iteration: u64, mark: u8, steps: &[u16], lineage: u32) -> Entry {
        let stages = (0..3)
            .map(|stage| StageRecord {
                stage: StageId(stage),
                members: vec![NodeId(u32::from(stage) + 1)],
                shares: Vec::new(),
                gradient: Digest([mark; 32]),
                gradient_norm: f64::from(mark) + f64::from(stage),
                clip_factor: 1.0,
                step: steps.contains(&stage),
                state: Some(Digest([mark ^ stage as u8; 32])),
                lineage: if stage == 2 { lineage } else { 0 },
            })
            .collect();
        Entry::Committed(Box::new(CommitRecord {
            run: RunId(5),
            term: Term(1),
            generation: 0,
            iteration: Iteration(iteration),
            attempt: Attempt(0),
            plan_epoch: PlanEpoch(1),
            paths: Vec::new(),
            stages,
            loss_sum: 0.0,
            tokens: 1,
            learning_rate: 1.0,
            previous: Digest([mark; 32]),
        }))
    }

    fn rebuilt(lineage: u32) -> Entry {
        let recipe = Recipe { sources: Vec::new(), ..Recipe::restore(StageId(2), StateFormat::F32) };
        Entry::Rebuilt(Box::new(Rebuild {
            stage: StageId(2),
            lineage,
            from: Iteration(0),
            recipe,
            source_lineages: Vec::new(),
            state: Digest([lineage as u8; 32]),
        }))
    }

    fn copied(iteration: u64) -> Entry {
        let (stage, iteration) = (StageId(1), Iteration(iteration));
        Entry::CopyKept(StageCopy { stage, iteration, lineage: 0, state: Digest([iteration.0 as u8; 32]) })
    }

    fn opens_alike(all: &[Entry], resume: Option<SavedState>) {
        let target = resume.as_ref().map(|saved| saved.iteration);
        let (kept, ()) = condense(target, |each: &mut dyn FnMut(Entry)| {
            all.iter().cloned().for_each(each);
            Ok::<_, ()>(())
        })
        .unwrap_or_else(|()| unreachable!());
        let case = format!("{} entries, resumed {target:?}", all.len());
        assert!(kept.len() <= 2 * HISTORY_ITERATIONS + 3 + 8, "{} of {case}", kept.len());
        let (full, commands) = Coordinator::open(settings(), all, resume.clone(), 0);
        let (short, same) = Coordinator::open(settings(), &kept, resume, 0);
        assert_eq!(commands, same, "{case}");
        assert_eq!(format!("{:?}", full.stages), format!("{:?}", short.stages), "{case}");
        assert_eq!(full.records, short.records, "{case}");
        assert_eq!(format!("{full:?}"), format!("{short:?}"), "{case}");
        assert_eq!(full.rollbacks.newest, short.rollbacks.newest, "{case}");
        assert_eq!(full.rollbacks.undone, short.rollbacks.undone, "{case}");
        let known = |c: &Coordinator| (c.generation, c.last_digest, c.next_node, c.node_ids_below);
        assert_eq!(known(&full), known(&short), "{case}");
    }

    #[test]
    fn a_coordinator_makes_the_same_of_what_is_kept() {
        let mut journal =
            vec![Entry::Opened { run: RunId(5), term: Term(1) }, Entry::NodesBelow { node: NodeId(65) }];
        let stages = |lineage| {
            (0..3).map(move |stage| SavedStage { stage: StageId(stage), state: Digest::default(), lineage })
        };
        // Stage 2 steps for the last time long before the end.
        journal.extend((0..60).map(|t| record(t, t as u8, if t < 7 { &[0, 1, 2] } else { &[0, 1] }, 0)));
        journal.extend([copied(50), rebuilt(1)]);
        journal.extend((60..90).map(|t| record(t, t as u8, &[0], 1)));
        let rolled =
            Entry::RolledBack { iteration: Iteration(50), generation: 1, stages: stages(0).collect() };
        journal.extend([Entry::Opened { run: RunId(5), term: Term(2) }, rolled]);
        journal.extend((50..95).map(|t| record(t, t as u8 + 100, &[0, 1], 0)));
        let saved = |t| Entry::Saved {
            state: SavedState { iteration: Iteration(t), stages: stages(1).collect() },
            previous: Digest([9; 32]),
        };
        journal.extend([copied(60), saved(70), copied(70)]);
        journal.extend([rebuilt(1), Entry::NodesBelow { node: NodeId(129) }, saved(90)]);
        journal.push(Entry::Opened { run: RunId(5), term: Term(3) });
        // A state of another history of the run, and then an older one than that.
        for (generation, target) in [(2, 110), (3, 112), (4, 60)] {
            let stages = stages(1).collect();
            journal.push(Entry::RolledBack { iteration: Iteration(target), generation, stages });
            journal.extend((target..target + 20).map(|t| record(t, t as u8 + 7, &[0], 1)));
        }
        for end in 0..=journal.len() {
            // A state that is resumed may be of any age.
            for resume in [None, Some(0), Some(9), Some(51), Some(75), Some(200)] {
                let saved = |t| SavedState { iteration: Iteration(t), stages: stages(0).collect() };
                opens_alike(&journal[..end], resume.map(saved));
            }
        }
    }
}
