//! How each event changes a [`RunState`].

use crate::account::{Doing, Reported};
use crate::stage::{NodePhase, StageState};
use crate::state::{CoordinatorRestart, RECENT_COMMITS, Recovery, RunState, Running, Undoable};
use crate::timeline::Mark;
use skipstone_types::{CommittedStage, Event, EventRecord, NodeId, StageId};
use std::collections::VecDeque;

/// Iterations that are remembered, in case the run goes back.
const UNDOABLE_MAX: usize = 1 << 16;

/// Why nodes are let go when the run goes back to a checkpoint.
pub(crate) const ROLLBACK: &str = "rollback";

impl RunState {
    /// Lets the run's time pass; an earlier time is ignored.
    pub fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.time.advance(u128::from(self.now_ms) * 1000);
    }

    /// Takes the next event in.
    pub fn apply(&mut self, record: &EventRecord) {
        self.advance(record.time_ms);
        self.confirm(&record.event);
        match record.event {
            Event::SwarmStarted { .. } => self.begin_session(true),
            Event::CoordinatorStarted { .. } | Event::NodeJoined { .. } => self.begin_session(false),
            // After the end only a validation, a save and the like count: a run's processes go down with it.
            Event::Validated { .. }
            | Event::StateSaved { .. }
            | Event::SaveSkipped { .. }
            | Event::SaveFailed { .. }
            | Event::StateStored { .. }
            | Event::StoreFailed { .. } => {}
            _ if self.finished.is_some() || self.knows(&record.event) => return,
            _ => {}
        }
        match &record.event {
            Event::CoordinatorStarted { term, iteration } => {
                // A run that goes on after its parent was killed does so from what was saved.
                if iteration.0 < self.steps {
                    self.undo(iteration.0);
                }
                self.coordinator_started(term.0);
            }
            Event::NodeJoined { node, was, .. } => self.joined(*node, *was),
            Event::NodeEmptied { node, .. } => self.emptied(*node),
            Event::NodeAssigned { node, stage, how } => self.assigned(*node, *stage, how),
            Event::NodeEntered { node, stage, .. } => self.entered(*node, *stage),
            // It lives, and comes again under another id.
            Event::NodeLost { node, why, .. } if why == ROLLBACK => self.emptied(*node),
            Event::RolledBack { iteration, .. } => {
                self.roll_back(iteration.0);
            }
            Event::NodeLost { node, stage, wasted_us, .. } => {
                self.time.waste(*wasted_us);
                stage.iter().for_each(|stage| _ = self.disputed.remove(stage));
                self.lost(*node, *stage);
            }
            Event::StageLost { stage, .. } => {
                let now_ms = self.now_ms;
                self.stage_mut(*stage).lost_since_ms.get_or_insert(now_ms);
            }
            Event::RebuildStarted { stage, .. } => {
                self.stage_mut(*stage).rebuilding = true;
                self.draw_lane(*stage);
            }
            Event::StageRebuilt { stage, kind, took_ms, .. } => self.rebuilt(*stage, kind, *took_ms),
            Event::RebuildRefused { stage, .. } => {
                self.stage_mut(*stage).rebuilding = false;
                self.draw_lane(*stage);
            }
            Event::SwarmStarted { cores } => self.cores = *cores,
            Event::AttemptStarted { holes, .. } => {
                self.time.start();
                self.rolling_back = false;
                self.resuming = false;
                self.first_attempt_ms.get_or_insert(self.now_ms);
                self.running = Some(Running { holes: holes.clone() });
            }
            Event::AttemptAborted { .. } => {
                self.time.abort();
                self.running = None;
            }
            Event::Committed { .. } => self.committed(&record.event),
            Event::Killed { target, node, stage } => self.killed(target, *node, *stage),
            Event::Validated { iteration, loss } => self.validation.push(iteration.0, *loss),
            Event::Finished { why, .. } => {
                self.time.finish();
                self.unconfirmed.clear();
                self.running = None;
                self.finished = Some(why.clone());
            }
            _ => {} // Repaired, Hedged, StateSaved, SaveSkipped, SaveFailed, EndWaits, StateStored, StoreFailed, Refused, Managed, Respawned: told, not counted
        }
        self.tell(&record.event);
    }

    /// A run that had finished goes on with other nodes.
    /// The run has ended and goes on, or its parent was killed, and another one (`anew`) goes on with it.
    fn begin_session(&mut self, anew: bool) {
        if self.finished.take().is_none() {
            if !anew {
                return;
            }
            let nodes: Vec<_> = self.nodes.keys().copied().collect();
            nodes.into_iter().for_each(|node| self.time.set(node, None));
        }
        self.resuming = true;
        self.nodes.clear();
        self.commits.clear();
        self.coordinator_killed_ms = None;
        let stages: Vec<StageId> = self.stages.keys().copied().collect();
        for stage in stages {
            let state = self.stage_mut(stage);
            *state = StageState { microbatches: state.microbatches, ..StageState::new(stage) };
            self.draw_lane(stage);
        }
    }

    /// Whether the event says nothing new: a coordinator that came back says again who serves, and doesn't know yet
    /// who was killed.
    fn knows(&self, event: &Event) -> bool {
        let Event::NodeEntered { node, stage, .. } = event else { return false };
        let phase = self.stages.get(stage).and_then(|stage| stage.nodes.get(node));
        matches!(phase, Some(NodePhase::Serving | NodePhase::Dead))
    }

    /// Notes who has been heard of since the coordinator came back.
    fn confirm(&mut self, event: &Event) {
        if self.unconfirmed.is_empty() {
            return;
        }
        match event {
            Event::NodeJoined { node, was, .. } => {
                self.unconfirmed.remove(node);
                was.map(|was| self.unconfirmed.remove(&was));
            }
            Event::NodeAssigned { node, .. } | Event::NodeEntered { node, .. } => {
                self.unconfirmed.remove(node);
            }
            // The last record, announced again, names nodes as they were called then.
            Event::Committed { iteration, record, .. }
                if self.last_record == Some((iteration.0, *record)) => {}
            Event::Committed { stages, .. } => {
                stages.iter().flat_map(|stage| &stage.nodes).for_each(|node| {
                    self.unconfirmed.remove(node);
                });
                // Whoever has not come again until the first commit died while there was no coordinator.
                for node in std::mem::take(&mut self.unconfirmed) {
                    self.lost(node, None);
                }
            }
            _ => {}
        }
    }

    fn coordinator_started(&mut self, term: u64) {
        self.time.coordinator_away(false);
        // Who stops a run and goes on with it has not lost a coordinator.
        if term <= 1 || self.resuming {
            return;
        }
        let killed_ms = self.coordinator_killed_ms;
        let seconds = killed_ms.map(|ms| self.now_ms.saturating_sub(ms) as f64 / 1000.0);
        push_bounded(&mut self.restarts, CoordinatorRestart { term, seconds });
        self.unconfirmed = self.nodes.keys().copied().collect();
    }

    fn joined(&mut self, node: NodeId, was: Option<NodeId>) {
        if was.is_some_and(|was| self.renamed(was, node)) {
            return;
        }
        self.nodes.entry(node).or_insert_with(|| {
            self.time.set(node, Some(Doing::Idle));
            None
        });
        self.nodes_most = self.nodes_most.max(self.nodes.len());
    }

    /// A node that is known has another id: whoever serves goes on serving, what was on its way to a stage starts
    /// anew. Whether it is known.
    fn renamed(&mut self, was: NodeId, node: NodeId) -> bool {
        if self.nodes.contains_key(&node) {
            return false;
        }
        let Some(placed) = self.nodes.remove(&was) else { return false };
        let doing = self.time.doing(was).unwrap_or(Doing::Idle);
        let stays = matches!(doing, Doing::Serving | Doing::Dead);
        self.time.set(was, None);
        self.time.set(node, Some(if stays { doing } else { Doing::Idle }));
        self.nodes.insert(node, placed.filter(|_| stays));
        if let Some(stage) = placed {
            let phase = self.stage_mut(stage).nodes.remove(&was);
            if let Some(phase) = phase.filter(|_| stays) {
                self.stage_mut(stage).nodes.insert(node, phase);
            }
            self.draw_lane(stage);
        }
        true
    }

    /// A living node has nothing any more; one that was killed stays dead.
    fn emptied(&mut self, node: NodeId) {
        if matches!(self.time.doing(node), None | Some(Doing::Dead)) {
            return;
        }
        let served = self.time.doing(node) == Some(Doing::Serving);
        self.time.set(node, Some(Doing::Idle));
        let Some(stage) = self.nodes.insert(node, None).flatten() else { return };
        let now_ms = self.now_ms;
        let state = self.stage_mut(stage);
        state.nodes.remove(&node);
        if served {
            state.lost_replica(now_ms);
        }
        self.draw_lane(stage);
    }

    fn assigned(&mut self, node: NodeId, stage: StageId, how: &str) {
        let starts = matches!(how, "initialise" | "load") && !self.rolling_back;
        let doing = if starts { Doing::Starting } else { Doing::Recovering };
        self.time.set(node, Some(doing));
        let since_ms = self.now_ms;
        self.place(node, stage, NodePhase::Joining { since_ms });
        self.draw_lane(stage);
    }

    fn entered(&mut self, node: NodeId, stage: StageId) {
        self.time.set(node, Some(Doing::Serving));
        self.place(node, stage, NodePhase::Serving);
        let state = self.stage_mut(stage);
        state.served = true;
        let lost_ms = state.unreplaced_ms.pop_front();
        self.draw_lane(stage);
        // A stage that had no replica left is a recovery of its own kind (`rebuilt`).
        if let Some(lost_ms) = lost_ms
            && self.stage_mut(stage).lost_since_ms.is_none()
            && !self.rolling_back
        {
            self.recovered(stage, "copy", self.now_ms.saturating_sub(lost_ms));
        }
    }

    fn lost(&mut self, node: NodeId, stage: Option<StageId>) {
        let Some(placed) = self.nodes.remove(&node) else { return };
        self.losses += 1;
        let killed = self.time.doing(node) == Some(Doing::Dead);
        let served = matches!(self.time.doing(node), Some(Doing::Dead | Doing::Serving));
        self.time.set(node, None);
        if !killed {
            self.mark_death(placed.or(stage), false, false);
        }
        let Some(stage) = placed else { return };
        let now_ms = self.now_ms;
        let state = self.stage_mut(stage);
        state.nodes.remove(&node);
        if served {
            state.lost_replica(now_ms);
        }
        self.draw_lane(stage);
    }

    fn rebuilt(&mut self, stage: StageId, kind: &str, took_ms: u64) {
        let state = self.stage_mut(stage);
        let since_ms = state.lost_since_ms.take();
        state.rebuilding = false;
        // A coordinator that came back counts from its own start.
        let took_ms = took_ms.max(since_ms.map_or(0, |ms| self.now_ms.saturating_sub(ms)));
        self.draw_lane(stage);
        self.recovered(stage, kind, took_ms);
    }

    fn recovered(&mut self, stage: StageId, kind: &str, ms: u64) {
        self.recoveries_total += 1;
        let recovery = Recovery { stage, kind: kind.to_owned(), seconds: ms as f64 / 1000.0 };
        push_bounded(&mut self.recoveries, recovery);
    }

    fn killed(&mut self, target: &str, node: Option<NodeId>, stage: Option<StageId>) {
        self.kills += 1;
        if target == "coordinator" {
            self.coordinator_killed_ms = Some(self.now_ms);
            self.time.coordinator_away(true);
            self.mark_death(None, true, true);
            return;
        }
        let placed = node.and_then(|node| self.nodes.get(&node).copied().flatten());
        self.mark_death(placed.or(stage), false, true);
        let Some(node) = node.filter(|node| self.nodes.contains_key(node)) else { return };
        self.time.set(node, Some(Doing::Dead));
        if let Some(stage) = placed {
            self.stage_mut(stage).nodes.insert(node, NodePhase::Dead);
            self.draw_lane(stage);
        }
    }

    fn mark_death(&mut self, stage: Option<StageId>, coordinator: bool, killed: bool) {
        let mark = Mark { at_ms: self.now_ms, iteration: self.steps, stage, coordinator, killed };
        self.timeline.mark(mark);
    }

    fn committed(&mut self, event: &Event) {
        let Event::Committed {
            iteration,
            loss,
            tokens,
            learning_rate,
            stages,
            busy_us,
            replay_us,
            memory_wait_us,
            link_us,
            record,
            ..
        } = event
        else {
            return;
        };
        // A coordinator that came back announces the last record once more.
        if self.last_record == Some((iteration.0, *record)) {
            return;
        }
        self.last_record = Some((iteration.0, *record));
        let good_us = self.time.commit(Reported {
            busy: *busy_us,
            replay: *replay_us,
            memory_wait: *memory_wait_us,
            link: *link_us,
        });
        self.running = None;
        self.steps = iteration.0.saturating_add(1);
        self.tokens = self.tokens.saturating_add(*tokens);
        self.undoable.push_back(Undoable { iteration: iteration.0, good_us, tokens: *tokens });
        if self.undoable.len() > UNDOABLE_MAX {
            self.undoable.pop_front();
        }
        self.loss.push(iteration.0, *loss);
        self.learning_rate = *learning_rate;
        self.commits.push_back((self.now_ms, *tokens));
        if self.commits.len() > RECENT_COMMITS {
            self.commits.pop_front();
        }
        for stage in stages {
            self.committed_stage(stage);
        }
    }

    /// What was committed from this iteration on has never been.
    fn roll_back(&mut self, to: u64) {
        self.undo(to);
        self.running = None;
        self.rolling_back = true;
    }

    /// What came from this iteration on does not count.
    fn undo(&mut self, to: u64) {
        let mut good_us = 0;
        while let Some(undone) = self.undoable.pop_back_if(|of| of.iteration >= to) {
            good_us += undone.good_us;
            self.tokens = self.tokens.saturating_sub(undone.tokens);
        }
        self.time.roll_back(good_us);
        self.steps = to;
    }

    fn committed_stage(&mut self, committed: &CommittedStage) {
        let state = self.stage_mut(committed.stage);
        state.microbatches = committed.microbatches;
        state.gradient_norm = committed.gradient_norm;
    }
}

fn push_bounded<T>(list: &mut VecDeque<T>, item: T) {
    list.push_back(item);
    if list.len() > RunState::LIST_MAX {
        list.pop_front();
    }
}
