//! The symbolic tensors of a worker's store.

use super::provenance::Origin;
use skipstone_recovery::StateFormat;
use skipstone_types::{Iteration, Microbatch, StageId};

/// How a sum is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poison {
    /// Some of its numbers are not finite.
    NotFinite,
    /// It is ten thousand times too large.
    Scaled,
    /// It is the sum of an earlier iteration, of this norm.
    Stale { norm_bits: u64 },
}

/// A tensor, or a group of them, by how it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    /// Weights, moments and counters of a stage.
    State { stage: StageId, origin: Origin },
    /// A state under a second name, or a copy of it in numbers that are rounded.
    Frozen { stage: StageId, origin: Origin, chunks: u32, format: StateFormat },
    /// A piece of a frozen state.
    Chunk { stage: StageId, origin: Origin, index: u32, count: u32, format: StateFormat },
    /// A boundary tensor going forward.
    Activation { iteration: Iteration, microbatch: Microbatch, origin: Origin },
    /// What a forward keeps for its backward.
    Saved { iteration: Iteration, microbatch: Microbatch, origin: Origin },
    /// A boundary tensor coming back.
    Gradient { iteration: Iteration, microbatch: Microbatch, origin: Origin },
    /// A sum of `count` gradient terms of the stage with this state.
    Sum { state: Origin, terms: u64, count: u32, poison: Option<Poison> },
    /// Part `index` of `parts` of a sum.
    Part { state: Origin, terms: u64, count: u32, index: u32, parts: u32 },
    /// The same part summed over contributors and divided.
    ReducedPart { state: Origin, terms: u64, count: u32, index: u32, parts: u32, microbatches: u32 },
    /// A reduced gradient.
    Reduced { origin: Origin },
}

/// What is counted of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    State,
    Frozen,
    Chunk,
    Boundary,
    Saved,
    Sum,
    Reduction,
}

/// How many [`Kind`]s there are.
pub(crate) const KINDS: usize = 7;

impl Value {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::State { .. } => Kind::State,
            Self::Frozen { .. } => Kind::Frozen,
            Self::Chunk { .. } => Kind::Chunk,
            Self::Activation { .. } | Self::Gradient { .. } => Kind::Boundary,
            Self::Saved { .. } => Kind::Saved,
            Self::Sum { .. } => Kind::Sum,
            Self::Part { .. } | Self::ReducedPart { .. } | Self::Reduced { .. } => Kind::Reduction,
        }
    }
}
