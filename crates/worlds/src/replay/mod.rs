//! A run computed again from its own commit records, in one process, to the same bits.
//!
//! The journal says for each committed iteration which path every microbatch took, what each node added to its sum and
//! in which order, in which order sums were reduced, clip factors and learning rates, and how lost stages were made
//! again. That decides every bit of the weights: the tasks are those of a live run, carried
//! out by the same [`Engine`](crate::live::store::Engine), and each digest in the records is checked on the way.

mod decisions;
mod error;
mod iteration;
mod machine;
mod needs;

pub use decisions::{DecisionsReport, OtherDecision};
pub use error::ReplayError;

use crate::live::publish::StateManifest;
use crate::live::store::{EngineSetup, Feed, StageState};
use iteration::{Computed, Run};
use machine::Machine;
use needs::{Needs, boundaries_of};
use serde::Serialize;
use skipstone_protocol::{CommitRecord, Entry, Rebuild, SavedStage, Task};
use skipstone_recovery::Lesson;
use skipstone_types::{Digest, Iteration, StageId};
use std::sync::Arc;

/// What a replay starts from.
#[derive(Debug)]
pub struct ReplaySource<'a> {
    /// The journal.
    pub entries: &'a [Entry],
    /// `state/`, checked when the replay gets there.
    pub saved: Option<&'a StateManifest>,
    /// What every node computed with; the number of threads has no bearing on any bit.
    pub setup: EngineSetup,
    /// The data; without it the token file is read.
    pub feed: Option<Feed>,
}

/// A stage at the end of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayedStage {
    /// The stage.
    pub stage: StageId,
    /// Its rebuilds.
    pub lineage: u32,
    /// Digest of weights, moments and counters.
    pub state: Digest,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ReplayReport {
    /// The iteration that would run next.
    pub iteration: Iteration,
    /// Records computed again, those that a rollback discarded included.
    pub records: u64,
    /// Gradient digests that agree.
    pub gradients: u64,
    /// State digests that agree: before steps, of rebuilt stages, and of `state/`.
    pub states: u64,
    /// Rebuilds carried out again.
    pub rebuilds: u64,
    /// Rollbacks to `state/`.
    pub rollbacks: u32,
    /// Coordinators that have reigned.
    pub terms: u64,
    /// Whether the replay came past `state/`, which then holds the same bits.
    pub saved_state_checked: bool,
    /// The stages at the end.
    pub stages: Vec<ReplayedStage>,
}

/// Computes a run again. `progress` hears how many of how many records are done.
///
/// # Errors
/// The first thing that differs from what the journal says, or can't be.
pub fn replay(
    source: &ReplaySource<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ReplayReport, ReplayError> {
    let total = source.entries.iter().filter(|entry| matches!(entry, Entry::Committed(_))).count() as u64;
    let mut replay = Replay::new(source)?;
    for entry in source.entries {
        replay.take(entry)?;
        progress(replay.report.records, total);
    }
    Ok(replay.end())
}

struct Replay<'a> {
    machines: Vec<Machine>,
    needs: Needs,
    saved: Option<&'a StateManifest>,
    generation: u32,
    iteration: Iteration,
    /// Of the last record of the surviving history, and of those before it, the digest and the stages' lineages: a rollback goes back
    /// to one.
    chain: Vec<(Iteration, Digest, Vec<u32>)>,
    /// What the stages were where the run began or went back to, while nothing has been trained since.
    untrained: Option<Vec<(u32, Arc<StageState>)>>,
    report: ReplayReport,
}

impl<'a> Replay<'a> {
    fn new(source: &ReplaySource<'a>) -> Result<Self, ReplayError> {
        let machines = (0..=source.setup.shape.stages)
            .map(|stage| Machine::new(StageId(stage), source.setup.clone(), source.feed.clone()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(ReplayError::Start)?;
        let mut replay = Self {
            machines,
            needs: Needs::of(source.entries),
            saved: source.saved,
            generation: 0,
            iteration: Iteration(0),
            chain: Vec::new(),
            untrained: None,
            report: ReplayReport::default(),
        };
        for index in 0..replay.machines.len() {
            let machine = &mut replay.machines[index];
            let stage = machine.stage;
            let made = machine.make_state(Task::Initialise { stage }, &[]);
            made.map_err(|why| ReplayError::Computation { iteration: Iteration(0), stage, why })?;
            replay.note_state(stage)?;
        }
        replay.untrained = replay.stages_now();
        Ok(replay)
    }

    fn stages_now(&self) -> Option<Vec<(u32, Arc<StageState>)>> {
        self.machines.iter().map(|machine| Some((machine.lineage, machine.shared_state()?))).collect()
    }

    /// A coordinator that finds nothing trained since the run began or went back begins there again.
    fn begin_again(&mut self) {
        for (machine, (lineage, state)) in self.machines.iter_mut().zip(self.untrained.iter().flatten()) {
            if machine.lineage != *lineage {
                machine.restore(state.clone());
                machine.lineage = *lineage;
            }
        }
    }

    fn take(&mut self, entry: &Entry) -> Result<(), ReplayError> {
        match entry {
            Entry::Opened { .. } => {
                self.report.terms += 1;
                self.begin_again();
            }
            Entry::NodesBelow { .. } | Entry::Struck { .. } | Entry::CopyKept(_) | Entry::Saved { .. } => {}
            Entry::RolledBack { iteration, generation, stages } => {
                self.roll_back(*iteration, *generation, stages)?;
            }
            Entry::Rebuilt(rebuild) => self.rebuild(rebuild)?,
            Entry::Committed(record) => self.commit(record)?,
        }
        Ok(())
    }

    fn machine(&mut self, stage: StageId) -> Result<&mut Machine, ReplayError> {
        let iteration = self.iteration;
        self.machines.get_mut(usize::from(stage.0)).ok_or_else(|| ReplayError::Impossible {
            iteration,
            stage,
            why: "the run has no such stage".to_owned(),
        })
    }

    /// Compares a digest from the journal with ours.
    fn check_state(
        &mut self,
        stage: StageId,
        what: &'static str,
        expected: Digest,
    ) -> Result<(), ReplayError> {
        let iteration = self.iteration;
        let got = self.machine(stage)?.digest();
        if got == Some(expected) {
            self.report.states += 1;
            return Ok(());
        }
        let got = got.map_or("nothing".to_owned(), |digest| digest.to_string());
        Err(ReplayError::Differs { iteration, stage, what, expected: expected.to_string(), got })
    }

    /// A stage has the state for the iteration that comes next: it may be needed later, and is compared with `state/`.
    fn note_state(&mut self, stage: StageId) -> Result<(), ReplayError> {
        let iteration = self.iteration;
        let machine = &self.machines[usize::from(stage.0)];
        let key = (stage, machine.lineage, iteration);
        let lineage = machine.lineage;
        if self.needs.wants(key)
            && let Some(state) = machine.shared_state()
        {
            self.needs.keep(key, state);
        }
        let saved = self
            .saved
            .filter(|saved| (saved.iteration, saved.generation) == (iteration, self.generation))
            .and_then(|saved| saved.stages.iter().find(|part| part.stage == stage))
            .filter(|part| part.lineage == lineage);
        if let Some(part) = saved {
            self.check_state(stage, "saved state", part.state)?;
            self.report.saved_state_checked = true;
        }
        Ok(())
    }

    fn roll_back(
        &mut self,
        iteration: Iteration,
        generation: u32,
        stages: &[SavedStage],
    ) -> Result<(), ReplayError> {
        self.report.rollbacks += 1;
        self.generation = generation;
        self.iteration = iteration;
        self.chain.retain(|(of, ..)| *of < iteration);
        // A stage that was not saved is of the lineage that it had last, and has no state until it is made again.
        let before = self.chain.last().map(|(_, _, lineages)| lineages.clone()).unwrap_or_default();
        for (index, machine) in self.machines.iter_mut().enumerate() {
            machine.lineage = before.get(index).copied().unwrap_or(0);
        }
        for part in stages {
            let kept = self.needs.take((part.stage, part.lineage, iteration));
            let machine = self.machine(part.stage)?;
            if let Some(state) = kept {
                machine.restore(state);
            }
            machine.lineage = part.lineage;
            self.check_state(part.stage, "state that the run went back to", part.state)?;
            self.note_state(part.stage)?;
        }
        self.untrained = self.stages_now();
        Ok(())
    }

    fn rebuild(&mut self, rebuild: &Rebuild) -> Result<(), ReplayError> {
        let (stage, iteration) = (rebuild.stage, self.iteration);
        let mut sources = Vec::new();
        for (source, lineage) in rebuild.recipe.sources.iter().zip(&rebuild.source_lineages) {
            let state = self.needs.take((source.stage, *lineage, rebuild.from)).ok_or_else(|| {
                let why =
                    format!("it was rebuilt from {} as of {}, which never was", source.stage, rebuild.from);
                ReplayError::Impossible { iteration, stage, why }
            })?;
            sources.push(state);
        }
        let mut boundaries = Vec::new();
        for key in boundaries_of(rebuild) {
            boundaries.push(self.needs.take_boundary(key).ok_or_else(|| {
                let Lesson { iteration: of, microbatch } = key.1;
                let why = format!("it was made from {microbatch} of {of}, which never passed through it");
                ReplayError::Impossible { iteration, stage, why }
            })?);
        }
        let machine = self.machine(stage)?;
        let mut inputs: Vec<_> = sources.into_iter().map(|state| machine.adopt(state)).collect();
        for payload in boundaries {
            let tensor = machine.receive(payload);
            inputs.push(tensor.map_err(|why| ReplayError::Computation { iteration, stage, why })?);
        }
        let task = Task::Rebuild { stage, recipe: rebuild.recipe.clone() };
        machine.make_state(task, &inputs).map_err(|why| ReplayError::Computation {
            iteration,
            stage,
            why,
        })?;
        machine.lineage = rebuild.lineage;
        self.check_state(stage, "rebuilt state", rebuild.state)?;
        self.report.rebuilds += 1;
        self.note_state(stage)
    }

    fn commit(&mut self, record: &CommitRecord) -> Result<(), ReplayError> {
        if record.iteration != self.iteration {
            return Err(ReplayError::Gap { expected: self.iteration, found: record.iteration });
        }
        let previous = self.chain.last().map(|(_, digest, _)| *digest).unwrap_or_default();
        if record.previous != previous {
            return Err(ReplayError::Chain { iteration: record.iteration });
        }
        for part in &record.stages {
            let known = self.machine(part.stage)?.lineage;
            if known != part.lineage {
                let why = format!("lineage {} follows {known} without a rebuild", part.lineage);
                return Err(ReplayError::Impossible { iteration: record.iteration, stage: part.stage, why });
            }
            if let Some(state) = part.state {
                self.check_state(part.stage, "state before the step", state)?;
            }
        }
        self.untrained = None;
        let computed = Run::new(record, &mut self.machines, &mut self.needs)?.compute()?;
        self.compare(record, &computed)?;
        self.step(record, computed)?;
        let lineages = self.machines.iter().map(|machine| machine.lineage).collect();
        self.chain.push((record.iteration, record.digest(), lineages));
        self.iteration = record.iteration.next();
        self.report.records += 1;
        for stage in 0..self.machines.len() {
            self.note_state(StageId(stage as u16))?;
        }
        Ok(())
    }

    fn compare(&mut self, record: &CommitRecord, computed: &Computed) -> Result<(), ReplayError> {
        let iteration = record.iteration;
        let differs = |stage, what, expected: String, got: String| {
            Err(ReplayError::Differs { iteration, stage, what, expected, got })
        };
        let expected = (record.loss_sum, record.tokens);
        let got = (computed.loss_sum, computed.tokens);
        if (expected.0.to_bits(), expected.1) != (got.0.to_bits(), got.1) {
            let words = |(loss, tokens)| format!("{loss} over {tokens} tokens");
            return differs(StageId::ORIGIN, "loss", words(expected), words(got));
        }
        for part in record.stages.iter().filter(|part| !part.shares.is_empty()) {
            let Some((_, digest, norm)) = computed.gradients.get(&part.stage) else { continue };
            if *digest != part.gradient {
                return differs(part.stage, "gradient", part.gradient.to_string(), digest.to_string());
            }
            if norm.to_bits() != part.gradient_norm.to_bits() {
                let (expected, got) = (part.gradient_norm.to_string(), norm.to_string());
                return differs(part.stage, "norm of the gradient", expected, got);
            }
            if part.step != norm.is_finite() {
                let step = |steps: bool| if steps { "a step" } else { "no step" }.to_owned();
                return differs(part.stage, "step", step(part.step), step(norm.is_finite()));
            }
            self.report.gradients += 1;
        }
        Ok(())
    }

    fn step(&mut self, record: &CommitRecord, computed: Computed) -> Result<(), ReplayError> {
        for (stage, (gradient, ..)) in computed.gradients {
            let machine = self.machine(stage)?;
            let Some(part) = record.stage(stage).filter(|part| part.step) else {
                machine.forget(&[gradient]);
                continue;
            };
            let task = Task::Step {
                iteration: record.iteration,
                learning_rate: record.learning_rate,
                clip_factor: part.clip_factor,
            };
            machine.step(task, gradient).map_err(|why| ReplayError::Computation {
                iteration: record.iteration,
                stage,
                why,
            })?;
        }
        Ok(())
    }

    fn end(mut self) -> ReplayReport {
        self.report.iteration = self.iteration;
        self.report.stages = self
            .machines
            .iter()
            .filter_map(|machine| {
                let state = machine.digest()?;
                Some(ReplayedStage { stage: machine.stage, lineage: machine.lineage, state })
            })
            .collect();
        self.report
    }
}
