//! The event log's vocabulary (`events.jsonl`): what happened, in numbers, without prose.
//!
//! The protocol cores emit [`Event`]s; the driver stamps them ([`EventRecord`]) and the parent process is the
//! only writer of the log. Every kind and field is documented in `docs/events.md`, which a test holds to this file.

use crate::{Attempt, Difference, Digest, Iteration, NodeId, Ruling, StageId, Term};
use serde::{Deserialize, Serialize};

/// Version of the event schema; raised whenever a field changes its meaning or goes away.
pub const EVENT_SCHEMA: u32 = 1;

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// [`EVENT_SCHEMA`].
    pub schema: u32,
    /// Milliseconds since the run's start (virtual in a simulation).
    pub time_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// A stage's part of a committed iteration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommittedStage {
    /// The stage.
    pub stage: StageId,
    /// Microbatches that reached it.
    pub microbatches: u32,
    /// Nodes that serve it.
    pub nodes: Vec<NodeId>,
    /// L2 norm of its gradient, before clipping; 0 where nothing reached it.
    pub gradient_norm: f64,
    /// How its shares and their sum came about; none where nothing reached it.
    #[serde(default)]
    pub pace: Option<StagePace>,
}

/// When a stage's shares were complete, and when its replicas agreed on their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagePace {
    /// Milliseconds from the attempt's start until the last share was there.
    pub shares_ms: u64,
    /// The node whose share came last.
    pub last: NodeId,
    /// Milliseconds that this node computed: the rest of its time it waited for others.
    pub last_busy_ms: u64,
    /// Milliseconds from then until all replicas agreed.
    pub reduced_ms: u64,
}

/// Why a node's share of a gradient was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Some of its numbers are infinite, or none at all.
    NotFinite,
    /// Its norm is far from those of its stage.
    Outlying,
    /// Its norm is, to the last bit, that of a share that counted before: it is that share.
    Repeated,
}

/// What becomes of microbatches whose share was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// Replicas compute them again.
    Replica,
    /// There is none to ask: the iteration runs again.
    Retry,
    /// The node made the same of them before: it is the data's or the model's doing, and they count. If they are not finite,
    /// the stage takes no step.
    Counts,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The parent started the processes of a swarm on one machine.
    SwarmStarted {
        /// Processor cores that they share.
        cores: usize,
    },
    /// A coordinator opened the journal.
    CoordinatorStarted {
        /// Its term; above 1 after a restart.
        term: Term,
        /// The iteration that comes next.
        iteration: Iteration,
    },
    /// A node was welcomed.
    NodeJoined {
        /// Its id.
        node: NodeId,
        /// Its process id where it runs on this machine, 0 if unknown.
        process: u32,
        /// The id under which the same process belonged to the run before, if nobody has been told that it was lost:
        /// the node is not new, it has another name. What it serves it goes on serving, unless it is
        /// [`Event::NodeEmptied`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<NodeId>,
    },
    /// What a node came back with is of no use any more (others have stepped on without it): it lives, but serves
    /// nothing until it is given a stage anew.
    NodeEmptied {
        /// The node.
        node: NodeId,
        /// The stage that it served.
        stage: StageId,
    },
    /// Nodes without a stage are about to be given one, or two that serve to change places, as the planner has found best.
    Placed {
        /// `search`: by links and speeds; `plan`: as a given plan says; `order`: as they came, because no search was made in
        /// time, or there was nothing to choose.
        by: String,
        /// The nodes, each with its stage.
        places: Vec<(NodeId, StageId)>,
        /// Milliseconds that an iteration is expected to take with them; none: not estimated.
        expected_ms: Option<u64>,
        /// Milliseconds that it was expected to take where two change places; none where nodes without a stage get one.
        before_ms: Option<u64>,
        /// Milliseconds for which the weights of two that change places are on their way.
        copies_ms: Option<u64>,
        /// Stages that a single region can take away, and pairs of adjacent ones that it takes together; none: not known.
        lost_with_a_region: Option<u32>,
        /// Milliseconds of an iteration that were to be given for each of those.
        domain_price_ms: u64,
    },
    /// A node was given a stage, and gets its weights.
    NodeAssigned {
        /// The node.
        node: NodeId,
        /// The stage.
        stage: StageId,
        /// `initialise`, `load`, `copy` (from replicas), `rebuild` or `return` (came back with what it had).
        how: String,
    },
    /// A node has got so much of the state that it was assigned; told after each tenth.
    StateArriving {
        /// The node.
        node: NodeId,
        /// The stage that it is about to serve.
        stage: StageId,
        /// Chunks that have arrived.
        chunks: u32,
        /// Of how many.
        chunks_total: u32,
        /// Bytes that have arrived, as far as chunks are of equal size.
        bytes: u64,
        /// Of how many.
        bytes_total: u64,
        /// Nodes that the chunks come from now.
        donors: u32,
    },
    /// A node serves its stage from this attempt on.
    NodeEntered {
        /// The node.
        node: NodeId,
        /// The stage.
        stage: StageId,
        /// The first iteration that it works on.
        iteration: Iteration,
        /// Milliseconds since it was assigned.
        took_ms: u64,
    },
    /// A node was declared lost, and is fenced.
    NodeLost {
        /// The node.
        node: NodeId,
        /// The stage that it served or was about to.
        stage: Option<StageId>,
        /// What made it known: `connection`, `silence`, `stuck`, `numbers`, `check`, `hash`, `left`, `rollback`, or the words of its
        /// own failure.
        why: String,
        /// Busy microseconds of the current attempt that are thrown away with it.
        wasted_us: u64,
    },
    /// A node has been silent for longer than its heartbeats make credible: it is about to be declared lost.
    Silent {
        /// The node.
        node: NodeId,
        /// −log₁₀ of the probability that a living node is silent for so long (phi accrual).
        phi: f64,
        /// Milliseconds of silence, as far as the coordinator itself was running.
        silence_ms: f64,
        /// The mean interval between the node's heartbeats, in milliseconds.
        interval_ms: f64,
        /// Its deviation, in milliseconds.
        deviation_ms: f64,
    },
    /// A node has said that it is about to leave; once others have its place it is lost with `left`.
    Leaving {
        /// The node.
        node: NodeId,
        /// The stage that it serves or is about to.
        stage: Option<StageId>,
    },
    /// A node lives, but one of its tasks does not end: it is about to be declared lost.
    Stuck {
        /// The node.
        node: NodeId,
        /// Milliseconds for which the task has been seen under way.
        waited_ms: f64,
        /// When a whole microbatch would be late, by the node's own history, in milliseconds.
        late_ms: f64,
        /// The limit that follows from it, in milliseconds.
        limit_ms: f64,
    },
    /// The share of a lost node is replayed by living replicas.
    Repaired {
        /// The stage.
        stage: StageId,
        /// The lost node.
        lost: NodeId,
        /// Microbatches that moved.
        microbatches: u32,
    },
    /// A node was late, and gave up microbatches that were not in its sum; idle replicas replay them.
    Hedged {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The stage.
        stage: StageId,
        /// The late node.
        node: NodeId,
        /// Microbatches that moved.
        microbatches: u32,
        /// The replicas that they moved to.
        takers: Vec<NodeId>,
        /// Milliseconds for which a replica had been idle, and the node had added nothing, when it was asked.
        waited_ms: f64,
        /// The limit, in milliseconds: what a microbatch hardly ever takes that replica, by its own history.
        limit_ms: f64,
    },
    /// A node's share of a gradient was refused before it was added to the others'.
    ShareRefused {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The stage.
        stage: StageId,
        /// The node.
        node: NodeId,
        /// Why.
        why: Refusal,
        /// Microbatches in the share.
        microbatches: u32,
        /// Its L2 norm; none if that is not finite.
        norm: Option<f64>,
        /// What so many microbatches usually have: the median of the stage's last shares; none if too few are known.
        usual_norm: Option<f64>,
        /// How many deviations its logarithm is from the median's; none if that can't be said.
        deviations: Option<f64>,
        /// Beyond this it is refused.
        deviations_max: f64,
        /// Shares that the median is of.
        shares: u32,
        /// What becomes of the microbatches.
        then: Remedy,
    },
    /// A node's share was refused, and then came out right, of a replica or of itself.
    Struck {
        /// The node.
        node: NodeId,
        /// The stage that it serves.
        stage: StageId,
        /// The iteration.
        iteration: Iteration,
        /// Its strikes lately, this one included.
        strikes: u32,
        /// With so many it is set aside, if its stage has another replica.
        strikes_max: u32,
    },
    /// A replica computed a node's share again, and got the same bits.
    SpotChecked {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The stage.
        stage: StageId,
        /// Whose share it is.
        node: NodeId,
        /// Who computed it again.
        by: NodeId,
        /// Microbatches in the share.
        microbatches: u32,
        /// Milliseconds from when the stage's shares were there until the answer was.
        took_ms: u64,
    },
    /// A spot check came to nothing.
    SpotCheckDropped {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The stage.
        stage: StageId,
        /// Whose share was to be computed again.
        node: NodeId,
        /// `lost`, `moved`, `slow` or `order`.
        why: String,
    },
    /// Nodes computed the same share, and got other bits.
    Disputed {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The stage.
        stage: StageId,
        /// Whose share it is.
        node: NodeId,
        /// Who computed it again, in the order in which they were asked.
        by: Vec<NodeId>,
        /// In what they differ.
        differ: Difference,
        /// Digests of what they differ in: the node's, then those of `by`.
        digests: Vec<Digest>,
        /// What follows.
        then: Ruling,
        /// Who is set aside.
        wrong: Option<NodeId>,
    },
    /// A stage has no living replica.
    StageLost {
        /// The stage.
        stage: StageId,
        /// The iteration during which it was lost.
        iteration: Iteration,
    },
    /// A node of another stage keeps a copy of a stage's state, in case the stage is lost.
    CopyKept {
        /// The stage.
        stage: StageId,
        /// The state is that before this iteration.
        iteration: Iteration,
        /// Who keeps it.
        node: NodeId,
    },
    /// A stage was lost, and the whole model goes back to its last checkpoint.
    RolledBack {
        /// The stage.
        stage: StageId,
        /// The iteration that would have come next.
        from: Iteration,
        /// The one that comes next instead.
        iteration: Iteration,
        /// Rollbacks so far.
        generation: u32,
    },
    /// A lost stage is being rebuilt.
    RebuildStarted {
        /// The stage.
        stage: StageId,
        /// The node that rebuilds it.
        node: NodeId,
        /// Stages that it is made from, with their coefficients; none = fresh weights.
        sources: Vec<(StageId, f64)>,
        /// Microbatches that it learns from, or, of a stage that is restored from its copy, computes again: its neighbours have kept
        /// what came to it, and what it made or what gradient came back.
        #[serde(default, skip_serializing_if = "is_zero")]
        lessons: u32,
    },
    /// A lost stage is served again, or, at the end of a run, saved as its copy was.
    StageRebuilt {
        /// The stage.
        stage: StageId,
        /// The strategy whose way it was made, or how else it is there again.
        kind: String,
        /// Stages that it was made from.
        sources: Vec<StageId>,
        /// Milliseconds from the loss to the first attempt with the stage.
        took_ms: u64,
        /// The first iteration with the stage.
        iteration: Iteration,
    },
    /// A lost stage can't be rebuilt by the strategy.
    RebuildRefused {
        /// The stage.
        stage: StageId,
        /// Why.
        why: String,
    },
    /// An attempt began.
    AttemptStarted {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// Stages without a node, which paths go around.
        holes: Vec<StageId>,
        /// Milliseconds until all replicas agree, as the plan expects; none: it was made without an estimate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected_ms: Option<u64>,
    },
    /// An attempt was given up: a stage lost its last replica, a share was refused that no replica could make again, a spot check set
    /// a node aside, a stage's replicas did not hold the same bits, or the model goes back to a checkpoint.
    AttemptAborted {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// Milliseconds that it had run.
        ran_ms: u64,
    },
    /// An iteration was committed.
    Committed {
        /// The iteration.
        iteration: Iteration,
        /// The attempt that succeeded.
        attempt: Attempt,
        /// Mean loss per token, in nats.
        loss: f64,
        /// Tokens counted.
        tokens: u64,
        /// The learning rate, before stages' own factors.
        learning_rate: f64,
        /// Per stage.
        stages: Vec<CommittedStage>,
        /// Busy node-microseconds of counted work, by the wall clock: microbatches, reduction, and the optimiser step
        /// of the iteration before.
        busy_us: u64,
        /// Busy node-microseconds of work done again for lost nodes.
        replay_us: u64,
        /// Node-microseconds that nodes waited for a free slot.
        memory_wait_us: u64,
        /// Node-microseconds that nodes were idle while a tensor that they needed was on the wire to them.
        #[serde(default)]
        link_us: u64,
        /// Milliseconds since the attempt began.
        took_ms: u64,
        /// Digest of the commit record.
        record: Digest,
    },
    /// `state/` holds every served stage at this iteration.
    StateSaved {
        /// The iteration that would run next.
        iteration: Iteration,
    },
    /// A save was due while the one before was still being written, and is left out; the next will be tried as usual.
    SaveSkipped {
        /// The iteration that would run next.
        iteration: Iteration,
        /// The iteration whose state is still being written.
        writing: Iteration,
    },
    /// The run is to end, and something is still waited for; told every few seconds.
    EndWaits {
        /// Milliseconds since it was to end.
        for_ms: u64,
        /// What is waited for, from whom and for how much longer, in words.
        what: Vec<String>,
    },
    /// A save failed; the next one will be tried as usual.
    SaveFailed {
        /// Why.
        why: String,
    },
    /// A saved state, and what else it takes to go on, is whole in the store of `--checkpoint-to`.
    StateStored {
        /// The iteration that would run next.
        iteration: Iteration,
        /// Bytes that were sent: what the store had already is not sent again.
        bytes: u64,
        /// Milliseconds since it was begun.
        took_ms: u64,
    },
    /// A saved state did not reach the store of `--checkpoint-to`, which still holds the one before.
    StoreFailed {
        /// The iteration that would run next.
        iteration: Iteration,
        /// Why.
        why: String,
    },
    /// A peer or message was refused.
    Refused {
        /// Who.
        node: Option<NodeId>,
        /// Why.
        why: String,
    },
    /// The owner of an admin's ticket had something done from elsewhere.
    Managed {
        /// The ticket's number.
        ticket: u64,
        /// `issue`, `revoke`, `save`, `stop` or `drain`.
        order: String,
        /// The number of the ticket that was issued or revoked, or of the node that is to leave.
        of: Option<u64>,
    },
    /// The parent killed a process (demo, churn, chaos).
    Killed {
        /// `node` or `coordinator`.
        target: String,
        /// The node, if it was one.
        node: Option<NodeId>,
        /// The stage that it served.
        stage: Option<StageId>,
    },
    /// The parent made another fault on purpose (chaos): a link was cut, a process was stopped, …
    Injected {
        /// `stop`, `partition`, `slow`, `corrupt`, `drain` or `lie`.
        fault: String,
        /// The node that it was done to.
        node: NodeId,
        /// The other end of the link, if it was done to one; node 0 is the coordinator.
        peer: Option<NodeId>,
        /// How long it lasts, in milliseconds; 0 for a moment.
        for_ms: u64,
    },
    /// The parent started a process in place of a lost one.
    Respawned {
        /// `node` or `coordinator`.
        target: String,
    },
    /// Validation loss of the whole model, in nats per token.
    Validated {
        /// The iteration.
        iteration: Iteration,
        /// Mean loss per token, in nats.
        loss: f64,
    },
    /// The run ended.
    Finished {
        /// Iterations committed.
        iteration: Iteration,
        /// Why: `done`, `stopped`, `interrupted`, or an error.
        why: String,
    },
}

/// Whether there is nothing to tell of.
// serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// An event of every kind. A new kind doesn't compile in `known` until it is named, and belongs in here too.
    fn all() -> Vec<Event> {
        let (node, stage, iteration) = (NodeId(1), StageId(2), Iteration(3));
        let (attempt, why, took_ms) = (Attempt(0), String::new(), 4);
        vec![
            Event::CoordinatorStarted { term: Term(1), iteration },
            Event::SwarmStarted { cores: 2 },
            Event::NodeJoined { node, process: 5, was: Some(NodeId(9)) },
            Event::NodeEmptied { node, stage },
            Event::Placed {
                by: String::new(),
                places: vec![(node, stage)],
                expected_ms: Some(1),
                before_ms: None,
                copies_ms: None,
                lost_with_a_region: Some(0),
                domain_price_ms: 1,
            },
            Event::NodeAssigned { node, stage, how: String::new() },
            Event::StateArriving {
                node,
                stage,
                chunks: 1,
                chunks_total: 2,
                bytes: 3,
                bytes_total: 6,
                donors: 1,
            },
            Event::NodeEntered { node, stage, iteration, took_ms },
            Event::NodeLost { node, stage: None, why: why.clone(), wasted_us: 0 },
            Event::Silent { node, phi: 9.0, silence_ms: 1.0, interval_ms: 1.0, deviation_ms: 1.0 },
            Event::Leaving { node, stage: Some(stage) },
            Event::Stuck { node, waited_ms: 1.0, late_ms: 1.0, limit_ms: 1.0 },
            Event::Repaired { stage, lost: node, microbatches: 1 },
            Event::Hedged {
                iteration,
                attempt,
                stage,
                node,
                microbatches: 1,
                takers: vec![node],
                waited_ms: 1.0,
                limit_ms: 1.0,
            },
            Event::ShareRefused {
                iteration,
                attempt,
                stage,
                node,
                why: Refusal::Outlying,
                microbatches: 1,
                norm: Some(1.0),
                usual_norm: None,
                deviations: None,
                deviations_max: 8.0,
                shares: 1,
                then: Remedy::Replica,
            },
            Event::Struck { node, stage, iteration, strikes: 1, strikes_max: 3 },
            Event::SpotChecked { iteration, attempt, stage, node, by: node, microbatches: 1, took_ms },
            Event::SpotCheckDropped { iteration, attempt, stage, node, why: why.clone() },
            Event::Disputed {
                iteration,
                attempt,
                stage,
                node,
                by: vec![node],
                differ: Difference::Sum,
                digests: vec![Digest::default(); 2],
                then: Ruling::Undecided,
                wrong: None,
            },
            Event::StageLost { stage, iteration },
            Event::CopyKept { stage, iteration, node },
            Event::RolledBack { stage, from: iteration, iteration, generation: 1 },
            Event::RebuildStarted { stage, node, sources: Vec::new(), lessons: 1 },
            Event::StageRebuilt { stage, kind: String::new(), sources: Vec::new(), took_ms, iteration },
            Event::RebuildRefused { stage, why: why.clone() },
            Event::AttemptStarted { iteration, attempt, holes: Vec::new(), expected_ms: Some(1) },
            Event::AttemptAborted { iteration, attempt, ran_ms: 1 },
            Event::Committed {
                iteration,
                attempt,
                loss: 1.0,
                tokens: 1,
                learning_rate: 1.0,
                stages: vec![CommittedStage {
                    stage,
                    microbatches: 1,
                    nodes: vec![node],
                    gradient_norm: 1.0,
                    pace: Some(StagePace { shares_ms: 1, last: node, last_busy_ms: 1, reduced_ms: 1 }),
                }],
                busy_us: 1,
                replay_us: 1,
                memory_wait_us: 1,
                link_us: 1,
                took_ms,
                record: Digest::default(),
            },
            Event::StateSaved { iteration },
            Event::SaveSkipped { iteration, writing: iteration },
            Event::EndWaits { for_ms: 1, what: vec![String::new()] },
            Event::SaveFailed { why: why.clone() },
            Event::StateStored { iteration, bytes: 1, took_ms },
            Event::StoreFailed { iteration, why: why.clone() },
            Event::Refused { node: None, why: why.clone() },
            Event::Managed { ticket: 1, order: String::new(), of: None },
            Event::Killed { target: String::new(), node: None, stage: None },
            Event::Injected { fault: String::new(), node, peer: None, for_ms: 1 },
            Event::Respawned { target: String::new() },
            Event::Validated { iteration, loss: 1.0 },
            Event::Finished { iteration, why },
        ]
    }

    /// The number of kinds, as long as this compiles.
    fn known(event: &Event) -> usize {
        match event {
            Event::CoordinatorStarted { .. }
            | Event::SwarmStarted { .. }
            | Event::NodeJoined { .. }
            | Event::NodeEmptied { .. }
            | Event::Placed { .. }
            | Event::NodeAssigned { .. }
            | Event::StateArriving { .. }
            | Event::NodeEntered { .. }
            | Event::NodeLost { .. }
            | Event::Silent { .. }
            | Event::Leaving { .. }
            | Event::Stuck { .. }
            | Event::Repaired { .. }
            | Event::Hedged { .. }
            | Event::ShareRefused { .. }
            | Event::Struck { .. }
            | Event::SpotChecked { .. }
            | Event::SpotCheckDropped { .. }
            | Event::Disputed { .. }
            | Event::StageLost { .. }
            | Event::CopyKept { .. }
            | Event::RolledBack { .. }
            | Event::RebuildStarted { .. }
            | Event::StageRebuilt { .. }
            | Event::RebuildRefused { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptAborted { .. }
            | Event::Committed { .. }
            | Event::StateSaved { .. }
            | Event::SaveSkipped { .. }
            | Event::EndWaits { .. }
            | Event::SaveFailed { .. }
            | Event::StateStored { .. }
            | Event::StoreFailed { .. }
            | Event::Refused { .. }
            | Event::Managed { .. }
            | Event::Killed { .. }
            | Event::Injected { .. }
            | Event::Respawned { .. }
            | Event::Validated { .. }
            | Event::Finished { .. } => 41,
        }
    }

    #[test]
    fn every_kind_and_field_is_documented_and_nothing_else() {
        let mut documented: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut kind = "";
        for line in include_str!("../../../docs/events.md").lines() {
            if let Some(name) = line.strip_prefix("## ") {
                kind = name;
                documented.insert(kind, BTreeSet::new());
            } else if let Some(rest) = line.strip_prefix("- `")
                && let Some(fields) = documented.get_mut(kind)
                && let Some((field, _)) = rest.split_once('`')
            {
                fields.insert(field);
            }
        }
        let events = all();
        assert_eq!(events.len(), known(&events[0]));
        assert_eq!(documented.len(), events.len(), "a kind that does not exist is documented");
        for event in events {
            let json = serde_json::to_value(&event).unwrap();
            let kind = json["event"].as_str().unwrap();
            let fields: BTreeSet<&str> =
                json.as_object().unwrap().keys().map(String::as_str).filter(|key| *key != "event").collect();
            assert_eq!(documented.get(kind), Some(&fields), "{kind}");
            if let Event::Committed { stages, .. } = &event {
                let stage = serde_json::to_value(&stages[0]).unwrap();
                let text = include_str!("../../../docs/events.md");
                for key in stage.as_object().unwrap().keys().chain(stage["pace"].as_object().unwrap().keys())
                {
                    assert!(text.contains(&format!("`{key}`")), "{key}");
                }
            }
        }
    }
}
