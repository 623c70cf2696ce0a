//! The data's ledger, read from a run's journal: every microbatch of every committed iteration counted exactly once
//! in each stage that its path reached.
//!
//! A rollback (`--resume`) starts a generation: what it discards is reported, and does not count. A rebuild starts a
//! lineage of its stage: what the lost weights had learnt is reported as forgotten.

mod kept;

use kept::{Learnt, Restored};
use serde::Serialize;
use skipstone_data::SampleOrder;
use skipstone_protocol::{Beginning, CommitRecord, Entry, JournalError, decode_journal};
use skipstone_types::{Digest, Iteration, Microbatch, StageId};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Complaints listed in a report; more are only counted.
const COMPLAINTS_MAX: usize = 20;

/// A rebuild of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forgotten {
    /// The stage.
    pub stage: StageId,
    /// The first iteration with the rebuilt stage.
    pub iteration: Iteration,
    /// Microbatches whose part in the stage's weights was lost with them.
    pub microbatches: u64,
}

/// What the weights of one (generation, stage, lineage) were trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerLine {
    /// Rollbacks before it.
    pub generation: u32,
    /// The stage.
    pub stage: StageId,
    /// Its rebuilds before it.
    pub lineage: u32,
    /// The first of its iterations.
    pub first: Iteration,
    /// The last of them.
    pub last: Iteration,
    /// Microbatches whose gradient is in the stage's weights at the end.
    pub surviving: u64,
    /// Microbatches whose part was lost with the stage's last replica.
    pub forgotten: u64,
    /// Microbatches of iterations that a rollback discarded.
    pub discarded: u64,
}

/// What the journal says of the data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AuditReport {
    /// The first iteration that this journal knows of: not 0 where the run began with a state that was fetched from a store.
    pub begins: u64,
    /// Committed iterations of the surviving history.
    pub iterations: u64,
    /// Microbatches of the surviving history.
    pub microbatches: u64,
    /// Visits: a microbatch counted in a stage.
    pub visits: u64,
    /// Samples (sequences) drawn by the surviving history; 0 where the order of samples is not known.
    pub samples: u64,
    /// Epochs begun.
    pub epochs: u64,
    /// Coordinators that have reigned.
    pub terms: u64,
    /// Rollbacks.
    pub rollbacks: u32,
    /// Iterations that rollbacks discarded.
    pub discarded_iterations: u64,
    /// Rebuilds, with what they forgot.
    pub forgotten: Vec<Forgotten>,
    /// By generation, stage and lineage.
    pub ledger: Vec<LedgerLine>,
    /// Rules broken; a sound run has none.
    pub violations: u64,
    /// The first of them, in words.
    pub complaints: Vec<String>,
}

impl AuditReport {
    /// Whether every rule holds.
    pub fn is_sound(&self) -> bool {
        self.violations == 0
    }

    /// A journal must reach as far as the state that was saved after so many iterations.
    pub fn check_end(&mut self, saved: u64) {
        let ends = self.begins + self.iterations;
        if saved > ends {
            self.complain(|| {
                format!("the journal ends after {ends} iterations, but state/ was saved after {saved}: its end is cut off")
            });
        }
    }

    fn complain(&mut self, what: impl FnOnce() -> String) {
        self.violations += 1;
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(what());
        }
    }
}

/// Why there is nothing to audit.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// There is no such folder.
    #[error("there is no folder {}; name a run's, the one given to --out", .0.display())]
    NoFolder(PathBuf),
    /// It is not a run's.
    #[error("{} holds no run: it has no journal/journal.bin; name the folder given to --out", .0.display())]
    NoRun(PathBuf),
    /// The journal can't be read.
    #[error("{} can't be read ({source}); name a run's folder, the one given to --out", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The journal is damaged.
    #[error("{}: {source}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// How.
        source: JournalError,
    },
}

/// The entries of the journal in the run's folder `dir`.
///
/// # Errors
/// See [`AuditError`].
pub fn read_journal(dir: &Path) -> Result<Vec<Entry>, AuditError> {
    let path = dir.join("journal").join("journal.bin");
    let bytes = std::fs::read(&path).map_err(|source| match source.kind() {
        ErrorKind::NotFound if !dir.exists() => AuditError::NoFolder(dir.to_owned()),
        ErrorKind::NotFound => AuditError::NoRun(dir.to_owned()),
        _ => AuditError::Read { path: path.clone(), source },
    })?;
    let (entries, _) = decode_journal(&bytes).map_err(|source| AuditError::Journal { path, source })?;
    Ok(entries)
}

/// The first iteration of the history that a journal tells of. A run that goes on from a state that no record leads to, as it was fetched
/// from a store, begins there; all others begin at 0.
pub fn first_iteration(entries: &[Entry]) -> Iteration {
    let mut beginning = Beginning::default();
    entries.iter().for_each(|entry| _ = beginning.take(entry));
    beginning.begins
}

/// Checks the ledger. `order` gives the samples of each microbatch; without it samples are not counted.
pub fn audit(entries: &[Entry], order: Option<&SampleOrder>) -> AuditReport {
    let mut report = AuditReport { begins: first_iteration(entries).0, ..AuditReport::default() };
    let Histories { surviving: history, discarded, lineages: current, restored } =
        histories(entries, &mut report);
    let remembered = restored.remembered(&current);
    let mut ledger = Ledger::default();
    discarded.into_iter().for_each(|record| ledger.add(record, |line, _| &mut line.discarded));
    let mut previous: Option<&CommitRecord> = None;
    let mut learnt = Learnt::default();
    let mut seen: BTreeSet<(u64, u64)> = BTreeSet::new();
    let mut epoch = 0;
    for record in history.values() {
        report.iterations += 1;
        report.microbatches += record.paths.len() as u64;
        check_chain(record, previous, &mut report);
        check_counted_once(record, &mut report);
        follow_lineages(record, &history, &restored, &mut learnt, &mut report);
        ledger.add(record, |line, lineage| {
            let until = remembered.get(&(line.stage, lineage));
            let forgotten =
                current.contains_key(&line.stage) && until.is_none_or(|until| record.iteration >= *until);
            if forgotten { &mut line.forgotten } else { &mut line.surviving }
        });
        if let Some(order) = order {
            count_samples(record, order, &mut seen, &mut epoch, &mut report);
        }
        previous = Some(record);
    }
    forget_after_the_end(&current, learnt, &restored, &history, &mut report);
    report.ledger = ledger.lines.into_values().collect();
    report.epochs = if report.samples == 0 { 0 } else { epoch + 1 };
    report
}

/// What a journal's records became.
struct Histories<'a> {
    /// The records that count, by iteration.
    surviving: BTreeMap<Iteration, &'a CommitRecord>,
    /// Records that rollbacks took back.
    discarded: Vec<&'a CommitRecord>,
    /// The lineage that each stage has at the end.
    lineages: BTreeMap<StageId, u32>,
    restored: Restored,
}

fn histories<'a>(entries: &'a [Entry], report: &mut AuditReport) -> Histories<'a> {
    let mut surviving: BTreeMap<Iteration, &CommitRecord> = BTreeMap::new();
    let (mut discarded, mut lineages) = (Vec::new(), BTreeMap::new());
    let mut restored = Restored::default();
    // What lineages were where the run began or went back to, while nothing has been trained since.
    let mut untrained = Some(BTreeMap::new());
    let mut beginning = Beginning::default();
    for entry in entries {
        let begins_anew = beginning.take(entry);
        match entry {
            Entry::Opened { .. } => {
                report.terms += 1;
                // A coordinator that finds nothing trained begins there again.
                lineages = untrained.clone().unwrap_or(lineages);
            }
            Entry::NodesBelow { .. } | Entry::Struck { .. } | Entry::CopyKept(_) | Entry::Saved { .. } => {}
            Entry::Rebuilt(rebuild) => {
                lineages.insert(rebuild.stage, rebuild.lineage);
                restored.note(rebuild);
            }
            Entry::RolledBack { iteration, stages, .. } => {
                report.rollbacks += 1;
                let taken_back = surviving.split_off(iteration);
                report.discarded_iterations += taken_back.len() as u64;
                discarded.extend(taken_back.into_values());
                if begins_anew {
                    // Another machine went on from what was recorded here; what it recorded is there.
                    discarded.extend(std::mem::take(&mut surviving).into_values());
                }
                // A stage that was not saved goes on from what it was last.
                let before = surviving.last_key_value().map(|(_, record)| &record.stages);
                lineages = before.into_iter().flatten().map(|part| (part.stage, part.lineage)).collect();
                lineages.extend(stages.iter().map(|stage| (stage.stage, stage.lineage)));
                untrained = Some(lineages.clone());
            }
            Entry::Committed(record) => {
                untrained = None;
                check_lineages(record, &lineages, report);
                lineages.extend(record.stages.iter().map(|part| (part.stage, part.lineage)));
                if let Some(earlier) = surviving.insert(record.iteration, record)
                    && earlier.digest() != record.digest()
                {
                    report.complain(|| format!("{} was committed twice, differently", record.iteration));
                }
            }
        }
    }
    Histories { surviving, discarded, lineages, restored }
}

/// The ledger's lines.
#[derive(Default)]
struct Ledger {
    lines: BTreeMap<(u32, StageId, u32), LedgerLine>,
}

impl Ledger {
    /// Adds a record's microbatches to the account that `account` picks from a line and its lineage.
    fn add(&mut self, record: &CommitRecord, account: impl Fn(&mut LedgerLine, u32) -> &mut u64) {
        for part in &record.stages {
            let key = (record.generation, part.stage, part.lineage);
            let line = self.lines.entry(key).or_insert(LedgerLine {
                generation: record.generation,
                stage: part.stage,
                lineage: part.lineage,
                first: record.iteration,
                last: record.iteration,
                surviving: 0,
                forgotten: 0,
                discarded: 0,
            });
            line.first = line.first.min(record.iteration);
            line.last = line.last.max(record.iteration);
            *account(line, part.lineage) += u64::from(part.microbatches());
        }
    }
}

/// A stage that was rebuilt after the last record has forgotten too.
fn forget_after_the_end(
    current: &BTreeMap<StageId, u32>,
    mut learnt: Learnt,
    restored: &Restored,
    history: &BTreeMap<Iteration, &CommitRecord>,
    report: &mut AuditReport,
) {
    let iteration = history.keys().next_back().map_or(Iteration(0), |last| last.next());
    let stages: Vec<_> = learnt.stages().collect();
    for (stage, lineage) in stages {
        if let Some(current) = current.get(&stage).filter(|current| **current > lineage) {
            let microbatches = learnt.goes_on_as(stage, *current, restored, history);
            report.forgotten.push(Forgotten { stage, iteration, microbatches });
        }
    }
}

fn check_chain(record: &CommitRecord, previous: Option<&CommitRecord>, report: &mut AuditReport) {
    let begins = Iteration(report.begins);
    let (expected, digest) = previous
        .map_or((begins, Digest::default()), |previous| (previous.iteration.next(), previous.digest()));
    if record.iteration != expected {
        report.complain(|| format!("{} follows where {expected} should", record.iteration));
    } else if record.previous != digest {
        report.complain(|| format!("{} does not continue the record before it", record.iteration));
    }
}

/// No stage is made again unless the journal says how.
fn check_lineages(record: &CommitRecord, lineages: &BTreeMap<StageId, u32>, report: &mut AuditReport) {
    for part in &record.stages {
        let known = lineages.get(&part.stage).copied();
        // A run begins with the first lineage of all; a state that was gone back to may leave stages out.
        let known = known.or((record.iteration == Iteration(0)).then_some(0));
        if let Some(known) = known.filter(|known| *known != part.lineage) {
            report.complain(|| {
                format!(
                    "{}: lineage {} of {} follows {known} without a rebuild",
                    record.iteration, part.lineage, part.stage
                )
            });
        }
    }
}

/// Every microbatch is in exactly one share of each stage on its path, the path's owner's, and in no other stage's.
fn check_counted_once(record: &CommitRecord, report: &mut AuditReport) {
    for part in &record.stages {
        let mut counted: BTreeMap<Microbatch, u32> = BTreeMap::new();
        for share in &part.shares {
            for microbatch in &share.microbatches {
                *counted.entry(*microbatch).or_default() += 1;
                let visit = record
                    .paths
                    .get(microbatch.0 as usize)
                    .and_then(|path| path.0.iter().find(|visit| visit.stage == part.stage));
                if visit.is_none_or(|visit| visit.node != share.node) {
                    report.complain(|| {
                        format!(
                            "{}: {} counts {microbatch} in {}, which its path does not say",
                            record.iteration, share.node, part.stage
                        )
                    });
                }
            }
        }
        for (index, path) in record.paths.iter().enumerate() {
            let microbatch = Microbatch(index as u32);
            let times = counted.get(&microbatch).copied().unwrap_or(0);
            if times != u32::from(path.reaches(part.stage)) {
                report.complain(|| {
                    format!("{}: {microbatch} counted {times} times in {}", record.iteration, part.stage)
                });
            }
            report.visits += u64::from(times);
        }
    }
}

fn follow_lineages(
    record: &CommitRecord,
    history: &BTreeMap<Iteration, &CommitRecord>,
    restored: &Restored,
    learnt: &mut Learnt,
    report: &mut AuditReport,
) {
    for part in &record.stages {
        let before = learnt.lineage_of(part.stage, part.lineage);
        if part.lineage > before {
            let microbatches = learnt.goes_on_as(part.stage, part.lineage, restored, history);
            let (stage, iteration) = (part.stage, record.iteration);
            report.forgotten.push(Forgotten { stage, iteration, microbatches });
        } else if part.lineage < before {
            report.complain(|| format!("{}: the lineage of {} went back", record.iteration, part.stage));
        }
        learnt.add(part.stage, u64::from(part.microbatches()));
    }
}

fn count_samples(
    record: &CommitRecord,
    order: &SampleOrder,
    seen: &mut BTreeSet<(u64, u64)>,
    epoch: &mut u64,
    report: &mut AuditReport,
) {
    for microbatch in 0..record.paths.len() {
        for sample in order.sample_ids(record.iteration.0, microbatch) {
            report.samples += 1;
            if sample.epoch > *epoch {
                // Samples come in the order of epochs, so an epoch that is over needs no memory.
                *epoch = sample.epoch;
                let now = *epoch;
                seen.retain(|(of, _)| *of + 1 >= now);
            }
            if !seen.insert((sample.epoch, sample.index)) {
                report.complain(|| {
                    format!("{}: sample {} twice in epoch {}", record.iteration, sample.index, sample.epoch)
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_protocol::{Rebuild, SavedStage, Share, StageRecord};
    use skipstone_recovery::{Recipe, StateFormat};
    use skipstone_types::{Attempt, NodeId, Path, PlanEpoch, RunId, Term, Visit};

    #[test]
    fn a_run_that_began_with_a_fetched_state_is_sound_from_there_on() {
        let back = Entry::RolledBack { iteration: Iteration(7), generation: 0, stages: Vec::new() };
        let first = record(7, Digest::default(), 0);
        let second = record(8, first.digest(), 0);
        let commit = |record: &CommitRecord| Entry::Committed(Box::new(record.clone()));
        let report = audit(&[back.clone(), commit(&first), commit(&second)], None);
        assert!(report.is_sound() && report.begins == 7, "{:?}", report.complaints);
        // The same where this folder had recorded less than that state has learnt from: another machine went on.
        let mut here = run();
        here.extend([back.clone(), commit(&first), commit(&second)]);
        let report = audit(&here, None);
        assert!(report.is_sound() && report.begins == 7, "{:?}", report.complaints);
        assert_eq!((report.iterations, first_iteration(&here)), (2, Iteration(7)));
        let discarded: u64 = report.ledger.iter().map(|line| line.discarded).sum();
        assert_eq!(discarded, 8, "the visits of two iterations before");
        // What is missing in between still is.
        assert!(!audit(&[back, commit(&second)], None).is_sound());
        assert!(!audit(&[commit(&first), commit(&second)], None).is_sound());
    }

    fn record(iteration: u64, previous: Digest, lineage: u32) -> CommitRecord {
        let visit = |stage: u16| Visit { stage: StageId(stage), node: NodeId(u32::from(stage) + 1) };
        let stages = (0..3_u16)
            .map(|stage| StageRecord {
                stage: StageId(stage),
                members: vec![NodeId(u32::from(stage) + 1)],
                shares: if stage == 2 {
                    vec![]
                } else {
                    let microbatches = vec![Microbatch(1), Microbatch(0)];
                    vec![Share { node: visit(stage).node, microbatches, losses: Vec::new(), norm: 1.0 }]
                },
                gradient: Digest::default(),
                gradient_norm: 1.0,
                clip_factor: 1.0,
                step: stage != 2,
                state: None,
                lineage: if stage == 1 { lineage } else { 0 },
            })
            .collect();
        CommitRecord {
            run: RunId(1),
            term: Term(1),
            generation: 0,
            iteration: Iteration(iteration),
            attempt: Attempt(0),
            plan_epoch: PlanEpoch(1),
            paths: vec![Path(vec![visit(0), visit(1)]); 2],
            stages,
            loss_sum: 1.0,
            tokens: 1,
            learning_rate: 1e-3,
            previous,
        }
    }

    fn run() -> Vec<Entry> {
        let first = record(0, Digest::default(), 0);
        let second = record(1, first.digest(), 1);
        let [first, second] = [first, second].map(|record| Entry::Committed(Box::new(record)));
        vec![first, rebuilt(1), second]
    }

    /// The stage between is an average of others.
    fn rebuilt(lineage: u32) -> Entry {
        Entry::Rebuilt(Box::new(Rebuild {
            stage: StageId(1),
            lineage,
            from: Iteration(1),
            recipe: Recipe { sources: Vec::new(), ..Recipe::restore(StageId(1), StateFormat::F32) },
            source_lineages: Vec::new(),
            state: Digest::default(),
        }))
    }

    #[test]
    fn what_was_made_again_before_anything_was_trained_is_void_once_a_coordinator_begins_anew() {
        let opened = |term| Entry::Opened { run: RunId(1), term: Term(term) };
        let commit = |lineage| Entry::Committed(Box::new(record(0, Digest::default(), lineage)));
        let complaints = |entries: &[Entry]| audit(entries, None).complaints;
        let none: &[String] = &[];
        assert_eq!(complaints(&[opened(1), rebuilt(1), opened(2), commit(0)]), none);
        assert_eq!(complaints(&[opened(1), rebuilt(1), commit(1)]), none);
        assert!(complaints(&[opened(1), rebuilt(1), opened(2), commit(1)])[0].contains("without a rebuild"));
        let report = audit(&[opened(1), rebuilt(1), opened(2), commit(0), opened(3)], None);
        assert!(report.forgotten.is_empty(), "{:?}", report.forgotten);
        // Once something has been trained a rebuild counts, whoever opens.
        let second = record(1, record(0, Digest::default(), 0).digest(), 1);
        let second = Entry::Committed(Box::new(second));
        assert_eq!(complaints(&[opened(1), commit(0), rebuilt(1), opened(2), second]), none);
    }

    #[test]
    fn a_sound_run_passes_and_its_rebuild_is_reported() {
        let report = audit(&run(), None);
        assert!(report.is_sound(), "{:?}", report.complaints);
        assert_eq!((report.iterations, report.microbatches, report.visits), (2, 4, 8));
        let forgotten = Forgotten { stage: StageId(1), iteration: Iteration(1), microbatches: 2 };
        assert_eq!(report.forgotten, [forgotten]);
        let account = |stage, lineage| {
            let line = |line: &&LedgerLine| line.stage == StageId(stage) && line.lineage == lineage;
            report.ledger.iter().find(line).map(|line| (line.surviving, line.forgotten, line.discarded))
        };
        assert_eq!(account(0, 0), Some((4, 0, 0)));
        assert_eq!((account(1, 0), account(1, 1)), (Some((0, 2, 0)), Some((2, 0, 0))));
    }

    #[test]
    fn a_stage_that_was_restored_from_a_copy_forgets_only_what_came_after_the_copy() {
        let mut records: Vec<CommitRecord> = Vec::new();
        for t in 0..6 {
            let previous = records.last().map(CommitRecord::digest).unwrap_or_default();
            records.push(record(t, previous, if t < 3 { 0 } else { 1 + u32::from(t == 5) }));
        }
        let restored = |lineage, from, copied| {
            Entry::Rebuilt(Box::new(Rebuild {
                stage: StageId(1),
                lineage,
                from: Iteration(from),
                recipe: Recipe::restore(StageId(1), StateFormat::F32),
                source_lineages: vec![copied],
                state: Digest::default(),
            }))
        };
        let mut entries: Vec<_> =
            records.into_iter().map(|record| Entry::Committed(Box::new(record))).collect();
        // Lost before 3, as it was before 2; lost again before 5, and the copy is still the same.
        entries.insert(5, restored(2, 2, 0));
        entries.insert(3, restored(1, 2, 0));
        let report = audit(&entries, None);
        assert!(report.is_sound(), "{:?}", report.complaints);
        let forgotten: Vec<_> = report.forgotten.iter().map(|of| (of.iteration.0, of.microbatches)).collect();
        assert_eq!(forgotten, [(3, 2), (5, 4)], "one iteration, and two of the lineage after it");
        let lines = report.ledger.iter().filter(|line| line.stage == StageId(1));
        let account: Vec<_> = lines.map(|line| (line.lineage, line.surviving, line.forgotten)).collect();
        assert_eq!(account, [(0, 4, 2), (1, 0, 4), (2, 2, 0)]);
    }

    #[test]
    fn what_a_rollback_discards_does_not_count() {
        let mut entries = run();
        let stages = (0..3)
            .map(|stage| SavedStage { stage: StageId(stage), state: Digest::default(), lineage: 0 })
            .collect();
        entries.push(Entry::RolledBack { iteration: Iteration(1), generation: 1, stages });
        let report = audit(&entries, None);
        assert!(report.is_sound());
        assert_eq!((report.iterations, report.rollbacks, report.discarded_iterations), (1, 1, 1));
        let discarded = |line: &LedgerLine| (line.surviving, line.forgotten, line.discarded);
        let relay: Vec<_> =
            report.ledger.iter().filter(|line| line.stage == StageId(1)).map(discarded).collect();
        assert_eq!(relay, [(2, 0, 0), (0, 0, 2)], "lineage 1 was rolled back together with its iteration");
    }

    #[test]
    fn every_kind_of_tampering_is_seen() {
        let tamper = |change: &dyn Fn(&mut CommitRecord)| {
            let mut entries = run();
            if let Some(Entry::Committed(record)) = entries.last_mut() {
                change(record);
            }
            audit(&entries, None).violations
        };
        assert_eq!(tamper(&|_| ()), 0);
        assert!(tamper(&|record| record.stages[1].shares[0].microbatches.push(Microbatch(0))) > 0, "twice");
        assert!(tamper(&|record| _ = record.stages[1].shares[0].microbatches.pop()) > 0, "not at all");
        assert!(tamper(&|record| record.stages[1].shares[0].node = NodeId(9)) > 0, "another's");
        assert!(tamper(&|record| record.iteration = Iteration(2)) > 0, "a gap");
        assert!(tamper(&|record| record.previous = Digest([1; 32])) > 0, "another history");
        assert!(tamper(&|record| record.stages[1].lineage = 2) > 0, "made again nobody knows how");
    }
}
