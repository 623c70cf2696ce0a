//! The event log's vocabulary (`events.jsonl`): what happened, in numbers, without prose.
//!
//! The protocol cores emit [`Event`]s; the driver stamps them ([`EventRecord`]) and the parent process is the
//! only writer of the log.

use crate::{Attempt, Digest, Iteration, NodeId, StageId, Term};
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
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
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
        /// What made it known: `connection`, `silence`, `stuck`, `hash`, `left`.
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
    /// A stage has no living replica.
    StageLost {
        /// The stage.
        stage: StageId,
        /// The iteration during which it was lost.
        iteration: Iteration,
    },
    /// A lost stage is being rebuilt.
    RebuildStarted {
        /// The stage.
        stage: StageId,
        /// The node that rebuilds it.
        node: NodeId,
        /// Stages that it is made from, with their coefficients; none = fresh weights.
        sources: Vec<(StageId, f64)>,
    },
    /// A lost stage is served again.
    StageRebuilt {
        /// The stage.
        stage: StageId,
        /// The strategy's name.
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
    },
    /// An attempt was given up: a stage lost its last replica.
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
        /// Busy node-microseconds of counted work.
        busy_us: u64,
        /// Busy node-microseconds of work done again for lost nodes.
        replay_us: u64,
        /// Node-microseconds that nodes waited for a free slot.
        memory_wait_us: u64,
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
    /// A save failed; the next one will be tried as usual.
    SaveFailed {
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
    /// The parent killed a process (demo, churn, chaos).
    Killed {
        /// `node` or `coordinator`.
        target: String,
        /// The node, if it was one.
        node: Option<NodeId>,
        /// The stage that it served.
        stage: Option<StageId>,
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
        /// Why: `done`, `stopped`, or an error.
        why: String,
    },
}
