//! Why a swarm can't be planned for.

use thiserror::Error;

use crate::instance::InstanceError;
use crate::search::SearchError;

/// What is wrong with the description of a swarm.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SwarmError {
    /// It names no node.
    #[error("`nodes` is empty: list at least one node with its region")]
    NoNodes,
    /// More nodes than can be planned for.
    #[error("`nodes` has {found} entries, at most {most} are taken: leave some out")]
    TooManyNodes {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// A number out of range.
    #[error("`{field}` is {found}; it must be {must}")]
    Number {
        /// The field.
        field: String,
        /// Its value.
        found: f64,
        /// What it may be.
        must: &'static str,
    },
    /// Links or times that no instance may have.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

/// Why a swarm's nodes can't be placed on stages.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// What is known of the swarm is wrong.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// Not enough nodes.
    #[error(
        "{stages} stages of {replicas} replicas need {needed} nodes, and `nodes` lists {found}; list more, or take fewer stages or replicas"
    )]
    TooFewNodes {
        /// Stages, the origin's included.
        stages: usize,
        /// Replicas of each.
        replicas: usize,
        /// Their product.
        needed: usize,
        /// Nodes that there are.
        found: usize,
    },
    /// Enough nodes, but not enough that can.
    #[error(
        "of {found} nodes {origins} can serve stage 0, which needs {replicas}, and {relays} a relay stage, which need {needed}; list nodes with more memory, or take fewer replicas, smaller microbatches or more stages"
    )]
    TooFewAble {
        /// Nodes that can serve stage 0.
        origins: usize,
        /// Nodes that stage 0 needs.
        replicas: usize,
        /// Nodes that can serve a relay stage.
        relays: usize,
        /// Nodes that all relay stages need.
        needed: usize,
        /// Nodes that there are.
        found: usize,
    },
    /// No paths.
    #[error(transparent)]
    Search(#[from] SearchError),
}
