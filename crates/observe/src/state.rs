//! A run as it stands: the fold of its events.

use crate::account::NodeTime;
use crate::stage::{NodePhase, StageState};
use crate::story::{Stories, Story};
use crate::timeline::Timeline;
use crate::{History, RunInfo};
use serde::{Deserialize, Serialize};
use skipstone_types::{Digest, NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A stage or replica that was lost and serves again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// The stage.
    pub stage: StageId,
    /// The strategy's name for a stage that had no replica left; `copy` or `return` for a replica.
    pub kind: String,
    /// From the loss until it served again.
    pub seconds: f64,
}

/// A coordinator that came back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoordinatorRestart {
    /// Its new term.
    pub term: u64,
    /// How long there was none; unknown where nobody saw it die.
    pub seconds: Option<f64>,
}

/// The attempt that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Running {
    pub(crate) holes: Vec<StageId>,
}

/// What a committed iteration added to the totals, and a rollback takes away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Undoable {
    pub(crate) iteration: u64,
    pub(crate) good_us: u128,
    pub(crate) tokens: u64,
}

/// A run as it stands: the fold of its events, the same live and from a log. Its memory is bounded, whatever the
/// length of the run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunState {
    /// What was known before the first event.
    pub info: RunInfo,
    pub(crate) now_ms: u64,
    pub(crate) first_attempt_ms: Option<u64>,
    pub(crate) running: Option<Running>,
    /// Whether the run has gone back to a checkpoint, and no attempt has begun since.
    pub(crate) rolling_back: bool,
    /// Another invocation goes on with the run, and has not begun an attempt.
    pub(crate) resuming: bool,
    pub(crate) steps: u64,
    pub(crate) tokens: u64,
    pub(crate) undoable: VecDeque<Undoable>,
    pub(crate) commits: VecDeque<(u64, u64)>,
    pub(crate) last_record: Option<(u64, Digest)>,
    pub(crate) loss: History,
    pub(crate) validation: History,
    pub(crate) learning_rate: f64,
    pub(crate) stages: BTreeMap<StageId, StageState>,
    pub(crate) nodes: BTreeMap<NodeId, Option<StageId>>,
    /// The most nodes that were there at once.
    pub(crate) nodes_most: usize,
    /// Nodes that haven't been heard of since the coordinator came back.
    pub(crate) unconfirmed: BTreeSet<NodeId>,
    /// Stages whose nodes got other bits of the same share, of whom nobody can tell who is wrong; until one of them is lost.
    pub(crate) disputed: BTreeSet<StageId>,
    pub(crate) cores: usize,
    pub(crate) kills: u64,
    pub(crate) losses: u64,
    pub(crate) recoveries: VecDeque<Recovery>,
    pub(crate) recoveries_total: u64,
    pub(crate) restarts: VecDeque<CoordinatorRestart>,
    pub(crate) coordinator_killed_ms: Option<u64>,
    pub(crate) time: NodeTime,
    pub(crate) timeline: Timeline,
    pub(crate) stories: Stories,
    pub(crate) finished: Option<String>,
}

/// Commits that the recent rate is taken over.
pub(crate) const RECENT_COMMITS: usize = 24;

impl RunState {
    /// The most recoveries and coordinator restarts that are listed; the latest are kept.
    pub const LIST_MAX: usize = 4096;

    /// A run that has not begun.
    pub fn new(info: RunInfo) -> Self {
        let mut state = Self { info, ..Self::default() };
        if state.info.relay_stages > 0 {
            for stage in (0..=state.info.relay_stages).map(StageId) {
                state.stages.insert(stage, StageState::new(stage));
                state.draw_lane(stage);
            }
        }
        state
    }

    /// Stages of whose nodes a spot check has found two that differ, where nobody can tell who is wrong.
    pub fn disputed_stages(&self) -> impl Iterator<Item = StageId> + '_ {
        self.disputed.iter().copied()
    }

    /// The time of the last event or tick, in milliseconds of the run.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Iterations committed.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Tokens trained on.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Training loss by iteration, in nats per token.
    pub fn loss(&self) -> &History {
        &self.loss
    }

    /// Mean training loss of the last iterations: a twentieth of them, at most 20.
    pub fn final_train_loss(&self) -> Option<f64> {
        self.loss.recent((self.steps / 20).clamp(1, 20))
    }

    /// Validation loss by iteration, in nats per token.
    pub fn validation(&self) -> &History {
        &self.validation
    }

    /// The learning rate of the last iteration.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    /// Tokens per second over the whole run.
    pub fn tokens_per_s(&self) -> f64 {
        rate(self.tokens as f64, self.now_ms)
    }

    /// Tokens per second over the last few iterations; it falls while none ends.
    pub fn recent_tokens_per_s(&self) -> f64 {
        self.recent().map_or(0.0, |(_, tokens, ms)| rate(tokens as f64, ms))
    }

    /// Iterations that the run is to make in all; none if nobody knows, or if it has made more before.
    pub fn steps_aimed_at(&self) -> Option<u64> {
        Some(self.info.steps).filter(|steps| *steps > 0 && *steps >= self.steps)
    }

    /// Seconds until the last iteration at the recent pace.
    pub fn remaining_s(&self) -> Option<f64> {
        let left = self.steps_aimed_at()?.checked_sub(self.steps)?;
        let (iterations, _, ms) = self.recent()?;
        (left > 0 && ms > 0).then(|| left as f64 * ms as f64 / 1000.0 / iterations as f64)
    }

    /// Iterations, tokens and milliseconds of the recent commits.
    fn recent(&self) -> Option<(u64, u64, u64)> {
        let (first, last) = (self.commits.front()?.0, self.commits.back()?.0);
        let iterations = (self.commits.len() - 1) as u64;
        let tokens = self.commits.iter().skip(1).map(|(_, tokens)| *tokens).fold(0, u64::saturating_add);
        let span = last.saturating_sub(first);
        let stalled = self.now_ms.saturating_sub(last);
        // A wait of a few iterations' time is a stall, and slows the pace that is shown.
        let wait = if iterations > 0 && stalled > 3 * (span / iterations) { stalled } else { 0 };
        (iterations > 0).then_some((iterations, tokens, span.saturating_add(wait)))
    }

    /// Every stage that is known.
    pub fn stages(&self) -> impl Iterator<Item = &StageState> {
        self.stages.values()
    }

    /// A stage.
    pub fn stage(&self, stage: StageId) -> Option<&StageState> {
        self.stages.get(&stage)
    }

    /// Living nodes; none once the run has finished.
    pub fn living(&self) -> usize {
        if self.finished.is_some() { 0 } else { self.nodes.len() }
    }

    /// Living nodes without a stage.
    pub fn spares(&self) -> usize {
        if self.finished.is_some() { 0 } else { self.nodes.values().filter(|stage| stage.is_none()).count() }
    }

    /// Processor cores that all nodes share; 0 if they don't run on one machine, or if it isn't known.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Processes that skipstone killed: nodes and coordinators.
    pub fn kills(&self) -> u64 {
        self.kills
    }

    /// Nodes that were lost, for whatever reason.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// Stages and replicas that were lost and serve again; the latest [`RunState::LIST_MAX`].
    pub fn recoveries(&self) -> impl ExactSizeIterator<Item = &Recovery> + Clone {
        self.recoveries.iter()
    }

    /// How many stages and replicas came back.
    pub fn recoveries_total(&self) -> u64 {
        self.recoveries_total
    }

    /// Coordinators that came back; the latest [`RunState::LIST_MAX`].
    pub fn restarts(&self) -> impl ExactSizeIterator<Item = &CoordinatorRestart> + Clone {
        self.restarts.iter()
    }

    /// Where the node-seconds went.
    pub fn time(&self) -> &NodeTime {
        &self.time
    }

    /// When each stage was served, and what was killed when.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The last incidents, oldest first.
    pub fn stories(&self) -> impl DoubleEndedIterator<Item = &Story> {
        self.stories.iter()
    }

    /// Why the run ended, if it has.
    pub fn finished(&self) -> Option<&str> {
        self.finished.as_deref()
    }

    /// Replicas that a stage should have.
    pub(crate) fn replicas(&self) -> usize {
        usize::from(self.info.replicas.max(1))
    }

    pub(crate) fn draw_lane(&mut self, stage: StageId) {
        let replicas = self.replicas();
        if let Some(state) = self.stages.get(&stage) {
            self.timeline.set(stage, state.kind(replicas), self.now_ms);
        }
    }

    pub(crate) fn stage_mut(&mut self, stage: StageId) -> &mut StageState {
        self.stages.entry(stage).or_insert_with(|| StageState::new(stage))
    }

    /// Puts a node where the coordinator says it is.
    pub(crate) fn place(&mut self, node: NodeId, stage: StageId, phase: NodePhase) {
        if let Some(Some(before)) = self.nodes.insert(node, Some(stage))
            && before != stage
        {
            self.stage_mut(before).nodes.remove(&node);
            self.draw_lane(before);
        }
        self.stage_mut(stage).nodes.insert(node, phase);
    }
}

/// What `amount` in `ms` is per second.
fn rate(amount: f64, ms: u64) -> f64 {
    if ms == 0 { 0.0 } else { amount / (ms as f64 / 1000.0) }
}
