//! What goes into the two state machines, and what comes out.

use crate::domain::FailureDomain;
use crate::journal::Entry;
use crate::message::{ToCoordinator, ToPeer, ToWorker};
use crate::record::SavedStage;
use crate::task::{Handle, Outcome, Task, TaskId};
use serde::{Deserialize, Serialize};
use skipstone_types::{
    Digest, Event, Iteration, NodeId, PlaceAnswer, PlaceProblem, Plan, PlanProblem, StageId, Term,
};

/// What happens to a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerInput {
    /// The connection to the coordinator stands (anew): the worker says hello.
    CoordinatorUp,
    /// The coordinator can't be reached; what was given is finished meanwhile.
    CoordinatorDown,
    /// The machine is about to be taken away: leave as soon as others have what is needed of this node.
    Leave,
    /// The coordinator says something, in its term.
    Coordinator {
        /// The term of the sender.
        term: Term,
        /// What it says.
        message: ToWorker,
    },
    /// The connection to a peer stands (anew): what it may have missed is sent again.
    PeerUp {
        /// The peer.
        peer: NodeId,
    },
    /// A peer says something.
    Peer {
        /// The peer.
        from: NodeId,
        /// What it says.
        message: ToPeer,
        /// The frame's payload, which the driver has put into the store.
        payload: Option<Handle>,
        /// Since when the frame has been on the wire for certain, by the worker's clock; now, if the driver can't tell.
        began_us: u64,
    },
    /// A task has ended.
    Computed {
        /// The task.
        id: TaskId,
        /// How.
        outcome: Outcome,
    },
    /// A [`WorkerCommand::Write`] has ended.
    Written {
        /// Which.
        id: TaskId,
        /// Whether the state is on the disk for good; else why not, and nothing is left of it.
        written: Result<(), String>,
    },
}

/// What a worker wants done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerCommand {
    /// Run a task; at most one is under way at a time. Answer with [`WorkerInput::Computed`].
    Compute {
        /// Names the task.
        id: TaskId,
        /// What to do.
        task: Task,
        /// What goes in.
        inputs: Vec<Handle>,
        /// What comes out, under these names.
        outputs: Vec<Handle>,
    },
    /// Write a state to `state/`, beside the tasks; at most one write is under way at a time. The state is taken as it is when
    /// this is carried out: right afterwards it may be consumed or dropped. Answer with [`WorkerInput::Written`].
    Write {
        /// Names the write.
        id: TaskId,
        /// The stage.
        stage: StageId,
        /// The iteration that the state belongs to.
        iteration: Iteration,
        /// The state's digest.
        digest: Digest,
        /// The state.
        state: Handle,
    },
    /// Forget tensors.
    Drop {
        /// Their names. A handle may name an output of a task that failed: then there is nothing to drop.
        handles: Vec<Handle>,
    },
    /// Tell the coordinator; lost without harm if it can't be reached.
    SendCoordinator {
        /// What.
        message: ToCoordinator,
    },
    /// Tell a peer; lost without harm if it can't be reached, because [`WorkerInput::PeerUp`] sends it again.
    SendPeer {
        /// Whom.
        to: NodeId,
        /// What.
        message: ToPeer,
        /// With this tensor.
        payload: Option<Handle>,
    },
    /// Peers may be needed at these addresses: the driver dials when it first sends.
    Know {
        /// Peers and addresses.
        addresses: Vec<(NodeId, String)>,
    },
    /// Never again exchange anything with these peers.
    Forget {
        /// The peers.
        peers: Vec<NodeId>,
    },
    /// The worker's part is over; the process ends.
    Exit {
        /// Why.
        why: String,
        /// Whether that is as it should be.
        success: bool,
    },
}

/// What happens to a coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CoordinatorInput {
    /// Time passes. Drivers send one at least every 100 ms; what is longer is not counted as anybody's silence.
    Tick,
    /// A worker says hello on a new connection. The driver names connections; the answer goes to that name until
    /// [`CoordinatorCommand::Bind`] gives it a node id.
    Hello {
        /// The connection.
        connection: u64,
        /// The message, a [`ToCoordinator::Hello`].
        hello: ToCoordinator,
        /// What fails together with the worker.
        domain: FailureDomain,
    },
    /// A bound worker says something.
    Worker {
        /// The node.
        node: NodeId,
        /// What it says.
        message: ToCoordinator,
    },
    /// A bound worker's connection is gone, or it has been silent for too long.
    Lost {
        /// The node.
        node: NodeId,
        /// `connection` or `silence`.
        why: String,
    },
    /// The answer to [`CoordinatorCommand::Plan`].
    Planned {
        /// The plan.
        plan: Plan,
    },
    /// The answer to [`CoordinatorCommand::Place`].
    Placed {
        /// Who should go where.
        answer: PlaceAnswer,
    },
    /// Save `state/` at the next boundary, and go on.
    Save,
    /// Finish the iteration, save, and end.
    Stop,
}

/// What a coordinator wants done, in order: a command is begun only when those before it are complete, so that
/// what follows a [`CoordinatorCommand::Journal`] happens only once it is on disk.
#[derive(Debug, Clone, PartialEq)]
pub enum CoordinatorCommand {
    /// The connection belongs to this node from now on.
    Bind {
        /// The connection.
        connection: u64,
        /// The node.
        node: NodeId,
    },
    /// Answer a connection that has no node id, then close it.
    Reject {
        /// The connection.
        connection: u64,
        /// Why.
        why: String,
    },
    /// Tell a worker.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: ToWorker,
    },
    /// Close the node's connection: it is fenced.
    Disconnect {
        /// The node.
        node: NodeId,
    },
    /// Append to the journal, and sync it.
    Journal {
        /// The entry.
        entry: Entry,
    },
    /// Find paths; answer with [`CoordinatorInput::Planned`].
    Plan {
        /// What is asked.
        problem: PlanProblem,
    },
    /// Find stages for nodes; answer with [`CoordinatorInput::Placed`], soon: without places to name if need be. Asked only where
    /// `Settings::places` says so.
    Place {
        /// What is asked.
        problem: PlaceProblem,
    },
    /// `state/` is complete for this iteration: publish it (manifest last, atomically), drop older ones.
    Publish {
        /// The iteration that runs next.
        iteration: Iteration,
        /// The generation that it belongs to.
        generation: u32,
        /// The stages saved; a stage that is missing is a hole.
        stages: Vec<SavedStage>,
    },
    /// A save failed: what was written of it is of no use, and its space is needed.
    Discard {
        /// The iteration that was being saved.
        iteration: Iteration,
    },
    /// For the log.
    Log {
        /// What happened.
        event: Event,
    },
    /// The run is over; the process ends.
    End {
        /// How.
        end: End,
    },
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All iterations are committed and saved.
    Done,
    /// Asked to stop; saved.
    Stopped,
    /// Can't go on, because of this.
    Failed {
        /// Why.
        why: String,
    },
}
