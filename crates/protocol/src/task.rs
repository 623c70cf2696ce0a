//! Work that a worker's core asks of its driver. The core sees tensors as handles only.

use serde::{Deserialize, Serialize};
use skipstone_recovery::{Recipe, StateFormat};
use skipstone_types::{Digest, Iteration, Microbatch, StageId};

/// Names a tensor, or a group of them, in a worker's handle store.
///
/// The core numbers what it makes from 0 up; the driver numbers received payloads from [`Handle::RECEIVED`] up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Handle(pub u64);

impl Handle {
    /// The first number for payloads received from peers.
    pub const RECEIVED: u64 = 1 << 63;
}

/// Counts a worker's tasks, and its writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// A unit of compute. Inputs and outputs are handles given beside it, in the order stated here.
///
/// A task never changes an input unless this says that it *consumes* it (the handle is then gone) or *adds to* it.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// The stage's state from the run's seed. `[] → [state]`, [`Outcome::State`].
    Initialise {
        /// The stage.
        stage: StageId,
    },
    /// The stage's state from `state/`. `[] → [state]`, [`Outcome::State`].
    Load {
        /// The stage.
        stage: StageId,
        /// The iteration that the saved state belongs to.
        iteration: Iteration,
        /// Its digest: states of the same stage and iteration may differ, if the stage was rebuilt in between.
        state: Digest,
    },
    /// Embedding and the origin's layers. `[state] → [activation, saved]`, [`Outcome::Done`].
    Embed {
        /// Its data are a function of (seed, iteration, microbatch).
        iteration: Iteration,
        /// The microbatch.
        microbatch: Microbatch,
    },
    /// A relay stage's forward. `[state, activation] → [activation, saved]`, [`Outcome::Done`].
    Forward {
        /// The microbatch.
        microbatch: Microbatch,
    },
    /// Head and loss, with their backward. `[state, activation, sum] → [gradient]`, adds to `sum` if it is
    /// counted (else there is no `sum`), [`Outcome::Loss`].
    Loss {
        /// Its targets are a function of (seed, iteration, microbatch).
        iteration: Iteration,
        /// The microbatch.
        microbatch: Microbatch,
    },
    /// A relay stage's backward. `[state, saved, gradient, sum] → [gradient]`, consumes `saved`, adds to `sum` if
    /// it is counted (else there is no `sum`), [`Outcome::Done`].
    Backward {
        /// The microbatch.
        microbatch: Microbatch,
    },
    /// The backward of [`Task::Embed`]. `[state, saved, gradient, sum] → []`, consumes `saved`, adds to `sum` if it
    /// is counted, [`Outcome::Done`].
    EmbedBackward {
        /// Its tokens are a function of (seed, iteration, microbatch).
        iteration: Iteration,
        /// The microbatch.
        microbatch: Microbatch,
    },
    /// A zero gradient sum for the stage. `[state] → [sum]`, [`Outcome::Done`].
    NewSum,
    /// The norm of a gradient sum. `[sum] → []`, [`Outcome::Measured`].
    Measure,
    /// Part `index` of `count` of a gradient sum. `[sum] → [part]`, [`Outcome::Done`].
    Part {
        /// Which part.
        index: u32,
        /// Of how many.
        count: u32,
    },
    /// The inputs added up in their order and divided. `[part, …] → [reduced part]`, [`Outcome::Done`].
    Sum {
        /// Microbatches that reached the stage: the sum is divided by their tokens.
        microbatches: u32,
    },
    /// The reduced gradient from its parts, in order. `[reduced part, …] → [gradient]`, [`Outcome::Gradient`].
    Assemble,
    /// The optimiser's step. `[state, gradient] → [state]`, consumes the old state, [`Outcome::State`].
    Step {
        /// The iteration whose gradient it is.
        iteration: Iteration,
        /// The learning rate, the stage's own factor not yet applied.
        learning_rate: f64,
        /// Multiplies the gradient.
        clip_factor: f64,
    },
    /// A state that stays as it is while the first goes on: a second name for it, or, in a format that rounds, a copy in fewer
    /// bytes. One that is such a copy already stays what it is. `[state] → [state]`, [`Outcome::Frozen`].
    Freeze {
        /// In what numbers.
        format: StateFormat,
    },
    /// Chunk `index` of a frozen state. `[state] → [chunk]`, [`Outcome::Done`].
    Chunk {
        /// Which chunk.
        index: u32,
    },
    /// A state from its chunks, in order. `[chunk, …] → [state]`, [`Outcome::State`]. Nobody reads the chunks again, whatever comes
    /// of it: who carries it out may let go of each as soon as it is in the state.
    Join {
        /// The stage that the state is of.
        stage: StageId,
        /// In what numbers it travels, and stays: a copy in fewer bytes is good for nothing but a [`Task::Rebuild`] of its stage,
        /// and its digest is that of the state which comes of it then.
        format: StateFormat,
    },
    /// A lost stage from other stages' states, in the order of the recipe's sources, and two activations for each of its lessons:
    /// what the stage was sent, and what it made of it. `[state, …, activation, activation, …] → [state]`, [`Outcome::State`].
    /// Of what it makes again ([`Recipe::made_again`]) the tensors, too: `[state, activation, gradient, …] → [state, activation,
    /// gradient, …]`, of what came what it made of it.
    /// A recipe that restores the stage, without an input: what the stage was, which only a simulation remembers.
    Rebuild {
        /// The stage to make.
        stage: StageId,
        /// How.
        recipe: Recipe,
    },
}

/// The boundary tensors of a task, in a run with spot checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Digest of the one that it read; none if it reads none.
    pub read: Option<Digest>,
    /// Digest of the one that it made; none if it makes none.
    pub made: Option<Digest>,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The outputs are there.
    Done,
    /// As [`Outcome::Done`], of a forward or backward in a run with spot checks.
    Passed(Passed),
    /// [`Task::Loss`].
    Loss {
        /// Sum over tokens, in nats.
        loss_sum: f64,
        /// Tokens.
        tokens: u64,
        /// In a run with spot checks.
        passed: Option<Passed>,
    },
    /// A state and its digest (weights, moments, counters).
    State {
        /// The digest.
        digest: Digest,
    },
    /// [`Task::Measure`].
    Measured {
        /// The sum's L2 norm; not finite if any of its numbers isn't.
        norm: f64,
        /// The sum's digest, in a run with spot checks.
        digest: Option<Digest>,
    },
    /// A reduced gradient.
    Gradient {
        /// Its digest.
        digest: Digest,
        /// Its L2 norm.
        norm: f64,
    },
    /// [`Task::Freeze`].
    Frozen {
        /// Chunks that the state is sent in; at least 1.
        chunks: u32,
        /// Bytes of all chunks together.
        bytes: u64,
        /// Of a state that was rounded just now: the digest of what will come of it.
        rounded: Option<Digest>,
    },
    /// The task failed, because of this; there are no outputs.
    Failed {
        /// Why.
        why: String,
    },
}
