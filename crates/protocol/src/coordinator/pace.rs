//! How fast nodes are, as their last iterations show; and nodes that live but get nothing done.
//!
//! A slow node's share shrinks with its speed: plans are asked for with every node's pace. One that has shrunk to
//! nothing gets a microbatch now and then, so that a recovery shows. A node whose task goes on and on is set aside; how
//! long is too long follows from its own history.

use super::Coordinator;
use super::attempt::AttemptState;
use super::roster::{JoinKind, Node, Role};
use crate::message::{Spent, ToWorker};
use crate::statistics::Durations;
use skipstone_recovery::{Recipe, Retracing};
use skipstone_types::{Event, Iteration, NodeId, Pace, StageId};

/// Iterations that a node's pace is taken from: few, so that it follows a change.
const PACE_ITERATIONS: usize = 4;

/// A node without a share for so many iterations gets a microbatch, however slow it was.
const PROBE_ITERATIONS: u64 = 4;

/// A node of which nothing is heard for so long is asked what it computes; it is asked again as often.
const POLL_US: u64 = 1_000_000;

/// A microbatch is late when it takes longer than the mean by so many deviations (the deviation is at least the mean).
const LATE_DEVIATIONS: f64 = 7.0;

/// A single task that takes as long as so many late microbatches never ends.
const STUCK_FACTOR: f64 = 20.0;

/// … and no task that takes less than this: tasks of small models are short, and a machine may be busy for seconds.
const STUCK_US_MIN: f64 = 10e6;

/// So much more time is given where more is at stake or less is known: to a stage's last replica, and to tasks that are
/// not part of a microbatch (steps, saves, transfers).
const PATIENCE: f64 = 4.0;

/// A joiner is given twice the time of the one before it that was stuck, at most so many times.
const STUCK_JOINERS_MAX: u32 = 6;

/// What is known of a node's speed.
#[derive(Debug)]
pub(super) struct Speed {
    /// Computing time of a microbatch in each of the last iterations, in microseconds, with its part of what is computed once
    /// an iteration: whether one is late is judged by this.
    microbatches: Durations,
    /// The same without that part, and that part: plans are made by these.
    net: Durations,
    fixed: Durations,
    /// The last iteration in which it had a share.
    worked: Iteration,
    /// When it was last heard, and last asked, in the coordinator's running time.
    heard_us: u64,
    asked_us: u64,
    /// The task that it was at when asked, and how often in a row it gave this answer.
    task: Option<(u64, u64)>,
}

impl Speed {
    pub(super) fn new(iteration: Iteration, now_us: u64) -> Self {
        Self {
            microbatches: Durations::new(PACE_ITERATIONS),
            net: Durations::new(PACE_ITERATIONS),
            fixed: Durations::new(PACE_ITERATIONS),
            worked: iteration,
            heard_us: now_us,
            asked_us: now_us,
            task: None,
        }
    }

    /// An iteration is over in which the node computed `done` microbatches, in this time.
    fn learn(&mut self, spent: &Spent, done: u64) {
        let all_us = spent.busy_us.saturating_add(spent.replay_us);
        self.microbatches.add(all_us / done);
        self.net.add(all_us.saturating_sub(spent.fixed_us) / done);
        self.fixed.add(spent.fixed_us.min(all_us));
    }

    /// When a microbatch is late, if that is known yet, in microseconds.
    fn late_us(&self) -> Option<f64> {
        self.beyond_us(LATE_DEVIATIONS)
    }

    /// What a microbatch takes if it takes longer than the mean by so many deviations, if that is known yet, in microseconds.
    pub(super) fn beyond_us(&self, deviations: f64) -> Option<f64> {
        (self.microbatches.len() > 0).then(|| {
            let usual = self.microbatches.usual(0.0, 0.0, 0.0);
            usual.mean_us + deviations * usual.deviation_us
        })
    }
}

impl Coordinator {
    /// What the next plan should know of the nodes' speeds. Nothing in a deterministic run: its plans, and with them the
    /// order of its sums, must not depend on time.
    pub(super) fn paces(&self) -> Vec<Pace> {
        if self.settings.deterministic {
            return Vec::new();
        }
        self.nodes
            .iter()
            .filter(|(_, node)| {
                matches!(node.role, Role::Serving { .. }) && node.speed.microbatches.len() > 0
            })
            .map(|(id, node)| Pace {
                node: *id,
                microbatch_us: node.speed.net.usual(0.0, 0.0, 0.0).mean_us as u64,
                fixed_us: node.speed.fixed.usual(0.0, 0.0, 0.0).mean_us as u64,
                probe: node.speed.worked.0 + PROBE_ITERATIONS <= self.iteration.0,
            })
            .collect()
    }

    /// An attempt begins with these shares.
    pub(super) fn note_shares(&mut self, attempt: &AttemptState) {
        for (owner, _) in attempt.stages.iter().flat_map(|part| part.shares.owners()) {
            if let Some(node) = self.nodes.get_mut(owner) {
                node.speed.worked = attempt.iteration;
            }
        }
    }

    /// An attempt is committed: how long did each node take?
    pub(super) fn learn_paces(&mut self, attempt: &AttemptState) {
        for part in &attempt.stages {
            for (id, spent) in &part.spent {
                let done = part.shares.done_by(*id) as u64;
                if done > 0
                    && let Some(node) = self.nodes.get_mut(*id)
                {
                    node.speed.learn(spent, done);
                }
            }
            // Who got nothing done, because all was given to others in the end, was at least as slow as they waited.
            for (id, waited_us) in part.hedging.gave_up() {
                let nothing_done = part.shares.done_by(id) == 0;
                if let Some(node) = self.nodes.get_mut(id).filter(|_| nothing_done) {
                    node.speed.microbatches.add(waited_us);
                    node.speed.net.add(waited_us);
                }
            }
        }
    }

    /// What a node has shown at one stage does not tell how fast it is at another.
    pub(super) fn forget_pace(&mut self, node: NodeId) {
        let speed = Speed::new(self.iteration, self.now_us);
        if let Some(node) = self.nodes.get_mut(node) {
            node.speed = speed;
        }
    }

    /// A node said something.
    pub(super) fn note_heard(&mut self, node: NodeId) {
        let now_us = self.now_us;
        if let Some(node) = self.nodes.get_mut(node) {
            node.speed.heard_us = now_us;
        }
    }

    /// Asks nodes with a task, from whom nothing has been heard for a while, what they are at.
    pub(super) fn ask_quiet_nodes(&mut self) {
        let now_us = self.now_us;
        let due = |node: &Node| {
            !matches!(node.role, Role::Spare)
                && now_us >= node.speed.heard_us + POLL_US
                && now_us >= node.speed.asked_us + POLL_US
        };
        let quiet: Vec<_> = self.nodes.iter().filter(|(_, node)| due(node)).map(|(id, _)| *id).collect();
        for id in quiet {
            if let Some(node) = self.nodes.get_mut(id) {
                node.speed.asked_us = now_us;
            }
            self.send(id, ToWorker::Poll);
        }
    }

    /// The answer: the number of the task under way, and whether it is a microbatch's. A node that gives the same answer
    /// for too long is set aside, as if it were dead. Answers are counted, not the time between them: whoever answers
    /// was running, and so was the coordinator that asked.
    pub(super) fn on_computing(&mut self, id: NodeId, task: Option<u64>, duty: bool) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        let speed = &mut node.speed;
        speed.task = task.map(|task| match speed.task {
            Some((before, answers)) if before == task => (task, answers + 1),
            _ => (task, 0),
        });
        let Some((_, answers)) = speed.task else { return };
        let stage = match &node.role {
            Role::Spare => return,
            Role::Joining(join) => join.stage,
            Role::Serving { stage } => *stage,
        };
        let Some(late_us) = self.late_us(id, stage) else { return };
        let serves = matches!(self.nodes.get(&id).map(|node| &node.role), Some(Role::Serving { .. }));
        let alone = serves && self.serving(stage).len() == 1;
        if alone && stage.is_origin() {
            // Nothing can take its place: to wait is the only hope.
            return;
        }
        // Nothing is lost with a joiner but time: another is given its place. It gets more time than the last one that was
        // stuck at this, so that what really takes long is not begun for ever.
        let patience = if serves {
            let unknown = if duty { 1.0 } else { PATIENCE };
            if alone { unknown * PATIENCE } else { unknown }
        } else {
            let stuck_joiners = self.stages[usize::from(stage.0)].stuck_joiners.min(STUCK_JOINERS_MAX);
            f64::from(1_u32 << stuck_joiners) * self.microbatches_of_joining(id)
        };
        let limit_us = (STUCK_FACTOR * late_us).max(STUCK_US_MIN) * patience;
        let waited_us = (answers * POLL_US) as f64;
        if waited_us >= limit_us {
            let (waited_ms, late_ms, limit_ms) = (waited_us / 1e3, late_us / 1e3, limit_us / 1e3);
            self.log(Event::Stuck { node: id, waited_ms, late_ms, limit_ms });
            if !serves {
                self.stages[usize::from(stage.0)].stuck_joiners += 1;
            }
            self.lose(id, "stuck");
        }
    }

    /// In how many microbatches' time a joiner's longest task ends: one that learns its stage computes a microbatch in each step,
    /// one that retraces it those that it had computed.
    fn microbatches_of_joining(&self, joiner: NodeId) -> f64 {
        match self.nodes.join(joiner).map(|join| &join.kind) {
            Some(JoinKind::Rebuild(making)) if !making.teachers.is_empty() => {
                let Recipe { matching, retracing, .. } = &making.recipe;
                let steps = matching.as_ref().map_or(0.0, |matching| f64::from(matching.steps));
                let retraced = retracing.iter().flat_map(Retracing::microbatches).count();
                1.0 + steps + retraced as f64
            }
            _ => 1.0,
        }
    }

    /// When a microbatch of the node is late: by its own history, else by that of the stage's other nodes, else by that
    /// of any.
    fn late_us(&self, id: NodeId, stage: StageId) -> Option<f64> {
        let own = self.nodes.get(&id).and_then(|node| node.speed.late_us());
        let of_stage =
            self.serving(stage).into_iter().filter_map(|other| self.nodes.get(&other)?.speed.late_us());
        let of_all = self.nodes.values().filter_map(|node| node.speed.late_us());
        own.or_else(|| of_stage.reduce(f64::max)).or_else(|| of_all.reduce(f64::max))
    }
}
