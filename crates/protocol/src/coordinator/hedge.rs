//! Hedging: a replica that is through with its own share takes microbatches over from one that is late.
//!
//! Dean & Barroso, "The Tail at Scale" (CACM 56, 2013) send a second request when the first is late, and take the answer
//! that comes first. A gradient is added to a sum that can't be subtracted from, so here a microbatch is not done twice but
//! moved: the late node is asked to give up what is not in its sum ([`ToWorker::GiveUp`]). What it says that it gave up
//! ([`ToCoordinator::GaveUp`](crate::ToCoordinator::GaveUp)) is replayed elsewhere, as if it had been a lost node's. A node that doesn't answer is
//! judged as any other: by its silence, or by a task that never ends.
//!
//! A node is late when a replica has been through for as long as it would itself hardly ever need for one more microbatch, and
//! the node has added none meanwhile. What a node gives up is up to it: only what waits for it, and not for others. So one
//! that stands in the queue behind a slow node of another stage keeps its own.

use super::Coordinator;
use super::attempt::ReducePhase;
use super::roster::Role;
use crate::message::ToWorker;
use skipstone_types::{Attempt, Event, Iteration, Microbatch, NodeId, StageId};
use std::collections::BTreeMap;

/// A microbatch takes longer than the mean by so many deviations (the deviation is at least the mean) hardly ever.
const HEDGE_DEVIATIONS: f64 = 3.0;

/// What a stage's hedges need to know, within an attempt. Times are the coordinator's running time.
#[derive(Debug, Default)]
pub(super) struct Hedging {
    /// When each node last added a microbatch, or was last asked and gave nothing up.
    progressed_us: BTreeMap<NodeId, u64>,
    /// When each node was first through with its share.
    completed_us: BTreeMap<NodeId, u64>,
    /// Who is asked and has not answered; one at a time.
    asked: Option<Asked>,
    /// For how long the stage had waited for a node when it last gave something up.
    gave_up_us: BTreeMap<NodeId, u64>,
    /// Nobody is late before, unless something happens. Lateness is looked for every tick, in every stage of a large swarm.
    quiet_until_us: u64,
}

/// A node that is asked to give up what it can.
#[derive(Debug, Clone, Copy)]
struct Asked {
    node: NodeId,
    /// For how long it had added nothing while a replica was idle, and what was too long.
    waited_us: u64,
    limit_us: f64,
}

impl Hedging {
    /// The node has added a microbatch.
    pub(super) fn progressed(&mut self, node: NodeId, now_us: u64) {
        self.progressed_us.insert(node, now_us);
    }

    /// The node is through with what it owns.
    pub(super) fn completed(&mut self, node: NodeId, now_us: u64) {
        self.completed_us.entry(node).or_insert(now_us);
        self.look_again();
    }

    /// Who owns what, who is idle or who lives has changed: someone may be late sooner than it seemed.
    pub(super) fn look_again(&mut self) {
        self.quiet_until_us = 0;
    }

    /// Nodes that gave something up, and for how long it had been waited for, in microseconds.
    pub(super) fn gave_up(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.gave_up_us.iter().map(|(node, waited_us)| (*node, *waited_us))
    }
}

impl Coordinator {
    /// Asks late nodes to give up microbatches, where a replica is idle. Never in a deterministic run: who counts what must
    /// follow from its plan. Nor while a share is computed again: what moves is not what is checked.
    pub(super) fn hedge_late_microbatches(&mut self) {
        if self.settings.deterministic || self.attempt.is_none() || self.checks_are_under_way() {
            return;
        }
        let stages: Vec<_> = self.stage_ids().collect();
        for stage in stages {
            let quiet = self.attempt.as_ref().is_some_and(|attempt| {
                self.now_us < attempt.stages[usize::from(stage.0)].hedging.quiet_until_us
            });
            if !quiet {
                self.hedge_late_microbatch(stage);
            }
        }
    }

    /// Who is there has changed.
    pub(super) fn look_for_late_nodes(&mut self) {
        if let Some(attempt) = self.attempt.as_mut() {
            attempt.stages.iter_mut().for_each(|part| part.hedging.look_again());
        }
    }

    fn hedge_late_microbatch(&mut self, stage: StageId) {
        let (asked, helpers) = match self.late_node(stage) {
            Ok(late) => late,
            Err(until_us) => {
                if let Some(attempt) = self.attempt.as_mut() {
                    attempt.stage(stage).hedging.quiet_until_us = until_us;
                }
                return;
            }
        };
        // What moves at once is bounded: as much as those who take it can hold.
        let microbatches_max = helpers as u32 * self.settings.slots;
        let Some(attempt) = self.attempt.as_mut() else { return };
        attempt.stage(stage).hedging.asked = Some(asked);
        let (iteration, attempt) = (attempt.iteration, attempt.attempt);
        self.send(asked.node, ToWorker::GiveUp { iteration, attempt, microbatches_max });
    }

    /// The node that the stage has waited for the longest, if that is too long, and how many replicas are idle; else until when
    /// nobody will have been waited for too long, if nothing happens that makes the stage look again.
    fn late_node(&self, stage: StageId) -> Result<(Asked, usize), u64> {
        const NEVER: u64 = u64::MAX;
        let attempt = self.attempt.as_ref().ok_or(0_u64)?;
        let part = attempt.stages.get(usize::from(stage.0)).ok_or(NEVER)?;
        let unanswered = part.hedging.asked.is_some_and(|asked| self.nodes.contains_key(&asked.node));
        if part.phase != ReducePhase::Open || unanswered {
            return Err(NEVER);
        }
        // Since when each idle replica has been idle, and when one more microbatch of its own would be late.
        let idle: Vec<_> = self
            .workers_of(stage)
            .into_iter()
            .filter(|node| {
                part.shares.left_of(*node).len() == 0
                    && !part.refused.contains(node)
                    && !part.hedging.gave_up_us.contains_key(node)
            })
            .filter_map(|node| {
                let since_us = part.hedging.completed_us.get(&node).copied().unwrap_or(attempt.began_us);
                Some((since_us, self.nodes.get(&node)?.speed.beyond_us(HEDGE_DEVIATIONS)?))
            })
            .collect();
        let first = idle.iter().copied().min_by(|one, other| one.0.cmp(&other.0));
        let (idle_since_us, limit_us) = first.ok_or(NEVER)?;
        let since_us = |node: &NodeId| {
            let progressed_us = part.hedging.progressed_us.get(node).copied();
            progressed_us.unwrap_or(attempt.began_us).max(idle_since_us)
        };
        let late = part
            .shares
            .left()
            .filter(|(node, left)| left.iter().any(|microbatch| !attempt.is_replay(*node, *microbatch)));
        let longest = late.map(|(node, _)| node).min_by_key(|node| (since_us(node), *node));
        let node = longest.ok_or(NEVER)?;
        let waited_us = self.now_us.saturating_sub(since_us(&node));
        if waited_us as f64 >= limit_us {
            return Ok((Asked { node, waited_us, limit_us }, idle.len()));
        }
        // Whoever adds a microbatch meanwhile is waited for anew.
        Err(since_us(&node).saturating_add(limit_us.ceil() as u64))
    }

    /// A node gave these up: replicas replay them.
    pub(super) fn on_gave_up(&mut self, node: NodeId, of: (Iteration, Attempt), microbatches: &[Microbatch]) {
        let Some(Role::Serving { stage }) = self.nodes.get(&node).map(|node| &node.role) else { return };
        let (stage, now_us) = (*stage, self.now_us);
        let mut heirs = self.workers_of(stage);
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.is(of)) else { return };
        let part = attempt.stage(stage);
        let Some(asked) = part.hedging.asked.take_if(|asked| asked.node == node) else { return };
        part.hedging.look_again();
        let given: Vec<_> =
            part.shares.left_of(node).filter(|microbatch| microbatches.contains(microbatch)).collect();
        if given.is_empty() {
            part.hedging.progressed(node, now_us);
            return;
        }
        heirs.retain(|heir| *heir != node && !part.refused.contains(heir));
        let mut takes: BTreeMap<NodeId, u32> = BTreeMap::new();
        for microbatch in &given {
            let heir = heirs.iter().copied().min_by_key(|heir| {
                (part.hedging.gave_up_us.contains_key(heir), part.shares.left_of(*heir).len(), *heir)
            });
            // The replica has died since: nobody has these now.
            let Some(heir) = heir else { return self.abort_attempt() };
            part.shares.give(*microbatch, heir);
            *takes.entry(heir).or_default() += 1;
        }
        part.hedging.gave_up_us.insert(node, asked.waited_us);
        for microbatch in &given {
            // Should they come back to it, they are new to it.
            attempt.told.remove(&(node, *microbatch));
        }
        let (iteration, attempt) = of;
        self.log(Event::Hedged {
            iteration,
            attempt,
            stage,
            node,
            microbatches: given.len() as u32,
            takers: takes.into_keys().collect(),
            waited_ms: asked.waited_us as f64 / 1e3,
            limit_ms: asked.limit_us / 1e3,
        });
        self.reroute(&given);
        self.seal_if_complete(stage);
    }
}
