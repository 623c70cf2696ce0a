//! Taking over: from a journal, with the nodes that still hold the run.

use super::attempt::majority;
use super::copies::Copies;
use super::known_copies::KnownCopies;
use super::rollback::Checkpoint;
use super::roster::{Arrival, Role};
use super::strikes::Strikes;
use super::{Base, Coordinator, GATHER_GRACE_US, Phase, RETURN_GRACE_US};
use crate::command::CoordinatorCommand;
use crate::journal::Entry;
use crate::message::{Holding, ToWorker};
use crate::record::{CommitRecord, SavedState};
use skipstone_types::{Attempt, Digest, Event, Iteration, NodeId, StageId, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) term: Term,
    pub(super) generation: u32,
    pub(super) node_ids_below: NodeId,
    records: BTreeMap<Iteration, Arc<CommitRecord>>,
    /// Stages rebuilt since the last record, with their lineage and state.
    rebuilt: BTreeMap<StageId, (u32, Digest)>,
    /// Where the current generation started, if it was rolled back.
    rolled_back: Option<SavedState>,
    pub(super) strikes: Strikes,
    /// The last copies of each stage.
    copies: KnownCopies,
    /// What the run can go back to.
    checkpoint: Option<SavedState>,
    /// Digest of the record before it, where the journal tells; else that is among the records.
    before_checkpoint: Option<Digest>,
    /// Records that the last rollback undid.
    undone: BTreeMap<Iteration, Arc<CommitRecord>>,
    /// Saved whole, and perhaps not published: the coordinator may have died in between.
    unpublished: Option<SavedState>,
}

impl Past {
    pub(super) fn of(journal: &[Entry]) -> Self {
        let mut past = Self { node_ids_below: NodeId(1), ..Self::default() };
        for entry in journal {
            if !matches!(entry, Entry::Opened { .. }) {
                // It was written after the last one had been published.
                past.unpublished = None;
            }
            match entry {
                Entry::Opened { term, .. } => past.term = past.term.max(*term),
                Entry::NodesBelow { node } => past.node_ids_below = past.node_ids_below.max(*node),
                Entry::RolledBack { iteration, generation, stages } => {
                    past.roll_back(SavedState { iteration: *iteration, stages: stages.clone() });
                    past.generation = *generation;
                }
                Entry::Rebuilt(rebuild) => {
                    past.rebuilt.insert(rebuild.stage, (rebuild.lineage, rebuild.state));
                }
                Entry::Struck { node, iteration } => _ = past.strikes.add(*node, *iteration),
                Entry::Saved { state, previous } => {
                    (past.checkpoint, past.before_checkpoint) = (Some(state.clone()), Some(*previous));
                    past.unpublished = Some(state.clone());
                }
                Entry::CopyKept(copy) => past.copies.remember(copy.clone()),
                Entry::Committed(record) => {
                    past.rebuilt.clear();
                    past.records.insert(record.iteration, Arc::new(record.as_ref().clone()));
                }
            }
        }
        past
    }

    fn roll_back(&mut self, saved: SavedState) {
        self.undone = self.records.split_off(&saved.iteration);
        let leads_there = |last: &Iteration| last.next() == saved.iteration;
        if !self.records.last_key_value().is_some_and(|(last, _)| leads_there(last)) {
            // The state is of a history that this journal does not tell of.
            self.records.clear();
        }
        while self.undone.len() > super::HISTORY_ITERATIONS {
            self.undone.pop_first();
        }
        self.rebuilt.clear();
        self.copies = KnownCopies::default();
        // What was saved but never published is of a past that no longer is.
        self.unpublished = None;
        (self.checkpoint, self.before_checkpoint) = (Some(saved.clone()), None);
        self.rolled_back = Some(saved);
    }
}

/// Nodes that a restarted coordinator waits for, and those that came.
#[derive(Debug, Default)]
pub(super) struct Returning {
    expected: BTreeSet<NodeId>,
    /// By their new ids.
    came: BTreeMap<NodeId, Came>,
}

/// A node that came back after a restart. It has a new id: under its old one it may have been fenced, which the
/// journal does not tell.
#[derive(Debug)]
struct Came {
    was: NodeId,
    holding: Holding,
}

impl Coordinator {
    pub(super) fn take_over(&mut self, mut past: Past, resume: Option<SavedState>) {
        self.journal(Entry::Opened { run: self.settings.run, term: self.term });
        if let Some(saved) = resume {
            self.generation = past.generation + 1;
            let SavedState { iteration, stages } = saved.clone();
            self.journal(Entry::RolledBack { iteration, generation: self.generation, stages });
            past.roll_back(saved);
        }
        self.strikes = std::mem::take(&mut past.strikes);
        if let Some(SavedState { iteration, stages }) = past.unpublished.take() {
            let generation = self.generation;
            self.out.push(CoordinatorCommand::Publish { iteration, generation, stages });
        }
        let is_whole = |saved: &SavedState| saved.stages.len() == self.stages.len();
        self.rollbacks.newest = past.checkpoint.take().filter(is_whole).map(|saved| {
            let before = saved.iteration.0.checked_sub(1).map(Iteration);
            let recorded = || past.records.get(&before?).map(|record| record.digest());
            let previous = past.before_checkpoint.or_else(recorded).unwrap_or_default();
            Checkpoint { saved, previous }
        });
        self.rollbacks.undone = std::mem::take(&mut past.undone);
        self.copies = Copies::of_journal(std::mem::take(&mut past.copies));
        let start = past.rolled_back.as_ref().map(|saved| saved.iteration).unwrap_or_default();
        let records: Vec<_> = past.records.into_values().collect();
        let trained_since_start = records.last().is_some_and(|record| record.iteration >= start);
        // What a stage was last is known from long ago if nothing has reached it since; the chain needs the newest.
        for record in &records {
            self.remember(record);
        }
        for record in records.into_iter().rev().take(super::HISTORY_ITERATIONS).rev() {
            self.committed(record);
        }
        if trained_since_start {
            for (stage, (lineage, state)) in past.rebuilt {
                let iteration = self.iteration;
                if let Some(known) =
                    self.stages.get_mut(usize::from(stage.0)).filter(|known| known.lineage < lineage)
                {
                    known.lineage = lineage;
                    known.digests.clear();
                    known.digests.insert(iteration, state);
                }
            }
            let expected = self
                .records
                .last_key_value()
                .map(|(_, record)| {
                    record.stages.iter().flat_map(|part| part.members.iter().copied()).collect()
                })
                .unwrap_or_default();
            self.phase = Phase::Returning {
                until_us: self.now_us + RETURN_GRACE_US,
                waiting: Returning { expected, came: BTreeMap::new() },
            };
        } else {
            self.iteration = start;
            let base = if past.rolled_back.is_some() { Base::Saved } else { Base::Seed };
            for part in past.rolled_back.map(|saved| saved.stages).unwrap_or_default() {
                let Some(known) = self.stages.get_mut(usize::from(part.stage.0)) else { continue };
                // More than the records say, where it was rebuilt and saved before any record named it.
                known.lineage = part.lineage;
                known.digests.insert(start, part.state);
                self.saved.insert(part.stage, part.state);
            }
            self.phase = Phase::Gathering { until_us: self.now_us + GATHER_GRACE_US, base };
        }
        self.log(Event::CoordinatorStarted { term: self.term, iteration: self.iteration });
    }

    /// Takes from a decided record what the rest of the run needs to know of the stages.
    fn remember(&mut self, record: &CommitRecord) {
        for part in &record.stages {
            if let Some(stage) = self.stages.get_mut(usize::from(part.stage.0)) {
                stage.lineage = part.lineage;
                stage.digests.clear();
                if part.step {
                    stage.gradient_norm = part.gradient_norm;
                    stage.last_step = Some(record.iteration);
                    stage.last_step_members = (part.members.clone(), part.lineage);
                } else if let Some(state) = part.state {
                    stage.digests.insert(record.iteration.next(), state);
                }
            }
        }
    }

    /// During the return: takes in a node that still holds the run. Gives the arrival back if it did not.
    pub(super) fn keep_returning(&mut self, arrival: Arrival, holding: Option<&Holding>) -> Option<Arrival> {
        let Phase::Returning { waiting, .. } = &self.phase else { return Some(arrival) };
        let Some(holding) = holding.cloned() else { return Some(arrival) };
        // One that has not heard that the run went back holds what was undone.
        let undone = holding.record.as_ref().is_some_and(|record| record.generation != self.generation);
        if undone
            || holding.node.0 == 0
            || holding.node >= self.node_ids_below
            || usize::from(holding.stage.0) >= self.stages.len()
        {
            return Some(arrival);
        }
        // An earlier coordinator may have taken it in under another id than the one that the last record knows it by.
        let was = holding.name_among(&waiting.expected).unwrap_or(holding.node);
        // It may come again before its last connection was seen to be gone.
        let before: Vec<_> = waiting
            .came
            .iter()
            .filter(|(node, came)| came.was == was || holding.is_named(**node))
            .map(|(node, _)| *node)
            .collect();
        for node in before {
            self.lose(node, "connection");
        }
        let node = self.new_node_id();
        self.welcome(arrival, node, false);
        let record = holding.record.clone();
        if let Phase::Returning { waiting, .. } = &mut self.phase {
            waiting.came.insert(node, Came { was, holding });
        }
        // A record that some node heard was decided, even if our disk lost it.
        if let Some(record) = record
            && record.iteration >= self.iteration
            && record.generation == self.generation
        {
            self.journal(Entry::Committed(record.clone()));
            self.remember(&record);
            self.committed(Arc::from(record));
        }
        None
    }

    /// Ends the return once everyone is there or time is up: nodes that hold the run go on, the rest starts empty.
    pub(super) fn end_returning_if_due(&mut self) {
        let Phase::Returning { until_us, waiting } = &mut self.phase else { return };
        waiting.came.retain(|node, _| self.nodes.contains_key(node));
        let here: BTreeSet<_> = waiting.came.values().map(|came| came.was).collect();
        let all = waiting.expected.is_subset(&here);
        // Without an origin the run can't go on: it is given longer to come.
        let origin = waiting.came.values().any(|came| came.holding.stage.is_origin());
        let until_us = if origin { *until_us } else { *until_us + 3 * RETURN_GRACE_US };
        if !all && self.now_us < until_us {
            return;
        }
        let Returning { expected, came } = std::mem::take(waiting);
        self.phase = Phase::Running;
        let absent: Vec<_> = expected.difference(&here).copied().collect();
        if !absent.is_empty() {
            let living: Vec<_> = self.nodes.keys().copied().collect();
            for node in living {
                self.send(node, ToWorker::Fence { nodes: absent.clone() });
            }
        }
        for node in &absent {
            let stage = self.stage_in_last_record(*node);
            self.log(Event::NodeLost { node: *node, stage, why: "connection".to_owned(), wasted_us: 0 });
        }
        self.settle_states(&came);
        for (node, came) in came {
            self.take_up(node, &came);
        }
        // Who was cut off before the restart is back under another id.
        let here: Vec<_> = self.nodes.keys().copied().collect();
        for node in here {
            let addresses = self.addresses_for(node);
            self.send(node, ToWorker::Know { addresses });
        }
        for stage in self.holes() {
            self.stages[usize::from(stage.0)].lost_since_us = Some(self.now_us);
            self.log(Event::StageLost { stage, iteration: self.iteration });
        }
    }

    /// Where the journal does not tell what a stage is now, most of those who came do.
    fn settle_states(&mut self, came: &BTreeMap<NodeId, Came>) {
        let iteration = self.iteration;
        for stage in self.stage_ids() {
            let said = came
                .iter()
                .filter(|(_, came)| came.holding.stage == stage && came.holding.iteration == iteration);
            let said = said.map(|(node, came)| (*node, came.holding.state)).collect();
            let known = &mut self.stages[usize::from(stage.0)].digests;
            if let Some(state) = majority(&said).filter(|_| !known.contains_key(&iteration)) {
                known.insert(iteration, state);
            }
        }
    }

    fn stage_in_last_record(&self, node: NodeId) -> Option<StageId> {
        let (_, record) = self.records.last_key_value()?;
        record.stages.iter().find(|part| part.members.contains(&node)).map(|part| part.stage)
    }

    /// The node takes no orders for an attempt that it has heard of already, perhaps under another coordinator, and perhaps while its
    /// step of the iteration before went on.
    pub(super) fn begin_after(&mut self, holding: &Holding) {
        let (iteration, attempt) = holding.newest;
        if iteration == self.iteration {
            self.next_attempt = self.next_attempt.max(Attempt(attempt.0.saturating_add(1)));
        }
    }

    fn take_up(&mut self, node: NodeId, came: &Came) {
        let holding = &came.holding;
        let stage = holding.stage;
        let current = holding.iteration == self.iteration;
        let steps_with_record = self
            .records
            .get(&holding.iteration)
            .filter(|_| holding.iteration.next() == self.iteration)
            .filter(|record| {
                record.stage(stage).is_some_and(|part| {
                    part.members.contains(&came.was)
                        && part.lineage == self.stages[usize::from(stage.0)].lineage
                        && (!part.step || holding.reduced == Some(part.gradient))
                })
            })
            .cloned();
        self.begin_after(holding);
        let agrees = current
            && self.stages[usize::from(stage.0)]
                .digests
                .get(&self.iteration)
                .is_none_or(|known| *known == holding.state);
        if agrees {
            let known = &mut self.stages[usize::from(stage.0)];
            known.digests.insert(self.iteration, holding.state);
            known.votes.entry(self.iteration).or_default().insert(node, holding.state);
        } else if let Some(record) = &steps_with_record {
            self.send(node, ToWorker::Commit { record: record.clone() });
        } else {
            // What it holds is of no use: it comes in again as if newly started.
            self.send_welcome(node, true);
            self.log(Event::NodeEmptied { node, stage });
            return;
        }
        self.nodes.set_role(node, Role::Serving { stage });
        self.take_copies(node, &holding.copies);
        let iteration = self.iteration;
        self.log(Event::NodeEntered { node, stage, iteration, took_ms: 0 });
    }
}
