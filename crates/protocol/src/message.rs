//! What coordinator, workers and peers say to each other. Payload bytes stay in `net`; here are the headers.

use crate::record::{Addition, CommitRecord};
use serde::{Deserialize, Serialize};
use skipstone_recovery::{Lesson, Recipe, StateFormat};
use skipstone_types::{Attempt, Digest, Iteration, Microbatch, NodeId, RunId, Settings, StageId, Term};
use std::sync::Arc;

/// States of other stages that a node holds at most, those on their way included: copies of two stages that it keeps, and one that
/// takes the place of one of these, or of one whose keeper is lost.
pub const COPIES_HELD_MAX: usize = 3;

/// Names one handing-over of weights; unique in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransferId {
    /// The coordinator's term.
    pub term: Term,
    /// Counts transfers within the term.
    pub number: u32,
}

/// Names one reduction over the replicas of a stage; unique in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReduceId {
    /// The coordinator's term.
    pub term: Term,
    /// Counts reductions within the term.
    pub number: u64,
}

/// One microbatch's passage through one node. For the origin, `next` is the first relay and `previous` the last:
/// its path is a circle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duty {
    /// The microbatch.
    pub microbatch: Microbatch,
    /// Whether the node adds the gradient to its sum. If not, another node's share already counts, and this node
    /// only makes again what its neighbours on the path miss.
    pub counted: bool,
    /// Whether the duty was another node's first.
    pub replay: bool,
    /// Whether the path goes on at the relay stage below, with which this one is swapped.
    pub goes_back: bool,
    /// Who sends the activation (and gets the gradient).
    pub previous: NodeId,
    /// Who gets the activation (and sends the gradient).
    pub next: NodeId,
}

/// How a node gets the state of the stage that it is to serve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Method {
    /// From the run's seed.
    Initialise,
    /// From `state/`.
    Load {
        /// Its digest there.
        state: Digest,
    },
    /// From living replicas, which froze it; the node follows the reduced gradients meanwhile.
    Copy {
        /// The donors.
        donors: Vec<NodeId>,
    },
    /// From other stages.
    Rebuild {
        /// How.
        recipe: Recipe,
        /// One donor a source, in the order of the recipe's sources; none: the driver remembers what the stage was.
        donors: Vec<NodeId>,
        /// For each of the recipe's lessons, in its order, who was before the stage on the microbatch's path, and who after it.
        teachers: Vec<(NodeId, NodeId)>,
    },
    /// The node has it already.
    Keep,
}

/// From the coordinator to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToWorker {
    /// The worker belongs to the run, under this id.
    Welcome {
        /// Its id.
        node: NodeId,
        /// The run.
        settings: Box<Settings>,
        /// Whether what it holds is of no use: it starts empty.
        empty: bool,
    },
    /// The worker can't belong to the run, because of this; it ends.
    Refuse {
        /// Why.
        why: String,
    },
    /// Get the state of a stage.
    Assign {
        /// Names the transfer.
        transfer: TransferId,
        /// The stage.
        stage: StageId,
        /// The iteration that the state belongs to.
        iteration: Iteration,
        /// How.
        method: Method,
        /// Addresses of the donors.
        addresses: Vec<(NodeId, String)>,
    },
    /// Freeze your state as it is before this iteration's step, or the copy of another stage's that you keep, and hand it
    /// to `to`.
    Donate {
        /// Names the transfer.
        transfer: TransferId,
        /// Whose state: your own stage's, or one that you keep a copy of.
        stage: StageId,
        /// The iteration.
        iteration: Iteration,
        /// Who will ask.
        to: NodeId,
        /// In what numbers. If that rounds your own state, the answer is [`ToCoordinator::CopyFrozen`].
        format: StateFormat,
    },
    /// Pull a copy of another stage's state and keep it, in place of the one before. The answer is [`ToCoordinator::CopyKept`].
    KeepCopy {
        /// Names the transfer.
        transfer: TransferId,
        /// The stage.
        stage: StageId,
        /// Its state before this iteration.
        iteration: Iteration,
        /// In what numbers it comes, and is kept.
        format: StateFormat,
        /// Who freezes it.
        donor: NodeId,
        /// Addresses that you may lack.
        addresses: Vec<(NodeId, String)>,
    },
    /// Keep no copy of this stage any longer.
    DropCopy {
        /// The stage.
        stage: StageId,
    },
    /// The transfer is over: drop what was frozen for it, and what of a copy has arrived by it.
    Release {
        /// The transfer.
        transfer: TransferId,
    },
    /// An attempt begins; whatever is left of an earlier one is dropped.
    Begin {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The node's duties, in ascending order of microbatch.
        duties: Vec<Duty>,
        /// Addresses of all nodes of the attempt.
        addresses: Vec<(NodeId, String)>,
    },
    /// Duties that are new or have new neighbours.
    Reroute {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The duties.
        duties: Vec<Duty>,
    },
    /// Nothing from these nodes counts any more.
    Fence {
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// The attempt is over; drop its sums, slots and reductions.
    Abort {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
    },
    /// All shares of the node's stage are complete: reduce them. Replaces any earlier reduction of the attempt.
    Seal {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// Names the reduction.
        reduce: ReduceId,
        /// All replicas; the n-th sums the n-th part.
        members: Vec<NodeId>,
        /// Those of them that have a share, in the order of summation.
        contributors: Vec<NodeId>,
        /// Nodes that follow without a share.
        listeners: Vec<NodeId>,
        /// Microbatches that reached the stage.
        microbatches: u32,
    },
    /// The iteration is decided: step.
    Commit {
        /// The record, journalled.
        record: Arc<CommitRecord>,
    },
    /// Write your state as it is before this iteration's step.
    Save {
        /// The iteration.
        iteration: Iteration,
    },
    /// Nothing depends on you any more: go.
    Leave,
    /// Say which task is under way ([`ToCoordinator::Computing`]).
    Poll,
    /// The run is over.
    Finish,
    /// A replica is through with its own: give up duties that wait for you, and not for others, as long as nothing of them
    /// is in your sum. The answer is [`ToCoordinator::GaveUp`].
    GiveUp {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// At most so many.
        microbatches_max: u32,
    },
    /// Compute another node's share again, beside your own, and say what comes of it ([`ToCoordinator::Checked`]). Its gradient counts
    /// for nothing, and nothing of it is passed on.
    Check {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// Whose share.
        of: NodeId,
        /// Every addition to that node's sum, in order.
        additions: Vec<Addition>,
    },
    /// Send these boundary tensors to one more node as well, now or when they are made.
    Resend {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// To whom.
        to: NodeId,
        /// Which, of those that you make.
        boundaries: Vec<(Microbatch, Direction)>,
    },
    /// The run ends while nobody serves this stage: write what your copy of it gives.
    SaveCopy {
        /// The stage.
        stage: StageId,
        /// The iteration that is saved.
        iteration: Iteration,
        /// The iteration before which the copy was taken.
        copied: Iteration,
        /// How the stage is made of its copy.
        recipe: Recipe,
    },
    /// Where a node is that comes back: who has cut it off under its old id lets it in under this one.
    Know {
        /// The node and its address.
        addresses: Vec<(NodeId, String)>,
    },
}

/// From a worker to the coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToCoordinator {
    /// First message of each connection.
    Hello {
        /// What the worker was before, if it was anything.
        holding: Option<Box<Holding>>,
        /// Where peers reach it.
        address: String,
        /// Its process id, 0 if unknown.
        process: u32,
        /// Its id so far, if it had one, whether it holds anything or not.
        was: Option<NodeId>,
    },
    /// The gradient of a counted duty was added to the sender's sum.
    ShareDone {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The microbatch.
        microbatch: Microbatch,
        /// At the origin: the loss.
        loss: Option<LossShare>,
    },
    /// All counted duties that the sender has are in its sum: how large is it?
    Measured {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// Microbatches in the sum.
        microbatches: u32,
        /// The sum's L2 norm; not finite if any of its numbers isn't.
        norm: f64,
        /// What a replica must get that computes the same; in runs with spot checks.
        digests: Option<ShareDigests>,
    },
    /// The answer to [`ToWorker::Check`].
    Checked {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// Whose share.
        of: NodeId,
        /// What came of it.
        digests: ShareDigests,
    },
    /// The sender holds the reduced gradient.
    Reduced {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The reduction.
        reduce: ReduceId,
        /// Digest of the reduced gradient.
        digest: Digest,
        /// Its L2 norm.
        norm: f64,
        /// How the sender spent the attempt so far.
        spent: Spent,
    },
    /// The sender holds the state for this iteration (after a transfer, or after a step).
    Holds {
        /// Names the transfer, after one.
        transfer: Option<TransferId>,
        /// The stage.
        stage: StageId,
        /// The iteration that the state is for.
        iteration: Iteration,
        /// Its digest.
        digest: Digest,
    },
    /// The state couldn't be had.
    TransferFailed {
        /// The transfer.
        transfer: TransferId,
        /// Why.
        why: String,
    },
    /// The state was written.
    Saved {
        /// The stage.
        stage: StageId,
        /// The iteration that it is for.
        iteration: Iteration,
        /// Its digest.
        digest: Digest,
    },
    /// The state couldn't be written.
    SaveFailed {
        /// The stage.
        stage: StageId,
        /// The iteration that it is for.
        iteration: Iteration,
        /// Why.
        why: String,
    },
    /// The sender is about to leave: its work is to be moved ([`ToWorker::Leave`] ends the wait).
    Leaving,
    /// The answer to [`ToWorker::Poll`].
    Computing {
        /// The number of the task under way; tasks count up.
        task: Option<u64>,
        /// Whether it is part of a microbatch.
        duty: bool,
    },
    /// The worker can't go on (its compute failed): count it as lost.
    Broken {
        /// Why.
        why: String,
    },
    /// How far a transfer is; at most ten times in each.
    Obtained {
        /// The transfer.
        transfer: TransferId,
        /// Chunks that have arrived.
        chunks: u32,
        /// Of how many.
        chunks_total: u32,
        /// Bytes of all of them together.
        bytes_total: u64,
        /// Nodes that they come from now.
        donors: u32,
    },
    /// A copy that the sender was to save can't be had from it.
    CopyUnusable {
        /// The stage.
        stage: StageId,
        /// The iteration before which the copy was taken.
        iteration: Iteration,
        /// Why.
        why: String,
    },
    /// The sender has frozen its own state, rounded, for a copy.
    CopyFrozen {
        /// The transfer.
        transfer: TransferId,
        /// Digest of the state before it was rounded.
        digest: Digest,
        /// Digest of what comes of the copy.
        rounded: Digest,
    },
    /// The sender keeps a copy of a stage's state.
    CopyKept {
        /// The transfer that brought it.
        transfer: TransferId,
        /// The stage.
        stage: StageId,
        /// The state is that before this iteration.
        iteration: Iteration,
        /// Its digest.
        digest: Digest,
    },
    /// The answer to [`ToWorker::GiveUp`]. Nothing of these microbatches is in the sender's sum, and nothing will be, unless
    /// they are given to it anew, as a replay.
    GaveUp {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// Which; perhaps none.
        microbatches: Vec<Microbatch>,
    },
}

/// What a share was made of, and what of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShareDigests {
    /// Of the boundary tensors that came in, by microbatch.
    pub inputs: Digest,
    /// Of those that were made, by microbatch.
    pub outputs: Digest,
    /// Of the gradients' sum.
    pub sum: Digest,
}

/// A microbatch's loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossShare {
    /// Sum over its tokens, in nats.
    pub loss_sum: f64,
    /// Its tokens.
    pub tokens: u64,
    /// Additions to the sender's sum before this loss's gradient was added.
    pub place: u32,
}

/// Microseconds by use, from the end of the last attempt on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Computing: the node's own duties, the reduction of the gradient, and the step of the iteration before.
    pub busy_us: u64,
    /// Computing for lost nodes.
    pub replay_us: u64,
    /// What of [`Self::busy_us`] does not grow with microbatches: the sum of gradients, its reduction, and the step.
    pub fixed_us: u64,
    /// Idle with an activation at hand, but no free slot.
    pub memory_wait_us: u64,
    /// Idle while a tensor that it needed, and had no other work without, was on the wire to it for certain.
    pub link_us: u64,
}

/// Ids that a worker remembers of itself.
pub const NAMES_MAX: usize = 16;

/// What a worker that comes back holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holding {
    /// The run.
    pub run: RunId,
    /// The term in which it had its id.
    pub term: Term,
    /// Its id then.
    pub node: NodeId,
    /// Its ids since the last record that names it, that one first: several, when one coordinator after another took it
    /// in and died before it decided anything. At most [`NAMES_MAX`].
    pub names: Vec<NodeId>,
    /// The stage it serves.
    pub stage: StageId,
    /// The iteration that its state is for.
    pub iteration: Iteration,
    /// The newest attempt that the worker has heard of, perhaps of the iteration after: it takes no orders for it or older ones.
    pub newest: (Iteration, Attempt),
    /// Digest of the state.
    pub state: Digest,
    /// Digest of the reduced gradient of that iteration, if the worker holds one.
    pub reduced: Option<Digest>,
    /// The last commit record that it has seen.
    pub record: Option<Box<CommitRecord>>,
    /// Copies of other stages' states that it keeps, at most one of each.
    pub copies: Vec<KeptCopy>,
}

/// A copy of a stage's state with a node of another stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCopy {
    /// The stage.
    pub stage: StageId,
    /// The state is that before this iteration.
    pub iteration: Iteration,
    /// Its digest.
    pub digest: Digest,
}

impl Holding {
    /// The id under which it is among these nodes, if it is: the newest of them.
    pub fn name_among<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> Option<NodeId> {
        nodes.into_iter().copied().filter(|node| self.is_named(*node)).max()
    }

    /// Whether it is, or was, this node.
    pub fn is_named(&self, node: NodeId) -> bool {
        self.node == node || self.names.iter().take(NAMES_MAX).any(|name| *name == node)
    }
}

/// Between workers. Frames of a payload kind carry one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToPeer {
    /// A boundary tensor: an activation going forward, or the gradient with respect to it coming back.
    Boundary {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The microbatch.
        microbatch: Microbatch,
        /// The stage that it comes from.
        stage: StageId,
        /// Which way it goes.
        direction: Direction,
    },
    /// A contributor's part of the gradient sum, to the member that sums it.
    Part {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The reduction.
        reduce: ReduceId,
        /// Which part.
        index: u32,
    },
    /// A reduced part, to every member and listener.
    Reduced {
        /// The iteration.
        iteration: Iteration,
        /// The attempt.
        attempt: Attempt,
        /// The reduction.
        reduce: ReduceId,
        /// Which part.
        index: u32,
        /// Of how many.
        count: u32,
    },
    /// Asks a donor for a chunk; no payload.
    ChunkRequest {
        /// The transfer.
        transfer: TransferId,
        /// Which chunk.
        index: u32,
    },
    /// A chunk of a frozen state.
    Chunk {
        /// The transfer.
        transfer: TransferId,
        /// Which chunk.
        index: u32,
        /// Of how many.
        count: u32,
        /// Bytes of all of them together.
        bytes: u64,
    },
    /// Asks for a boundary tensor of an iteration that has committed; no payload.
    LessonRequest {
        /// The transfer that it is for.
        transfer: TransferId,
        /// The microbatch.
        lesson: Lesson,
        /// Which of those that the node had.
        which: KeptTensor,
    },
    /// What was asked for; without a payload: it is not kept.
    Lesson {
        /// The transfer.
        transfer: TransferId,
        /// The microbatch.
        lesson: Lesson,
        /// Which of them.
        which: KeptTensor,
    },
}

/// A boundary tensor of a microbatch that passed through a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeptTensor {
    /// The activation that the node was sent.
    Came,
    /// The activation that it made of it.
    Made,
    /// The gradient that it sent back.
    Returned,
}

/// Which way a boundary tensor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Direction {
    /// An activation.
    Forward,
    /// A gradient.
    Backward,
}
