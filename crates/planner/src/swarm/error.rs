//! Why a swarm can't be planned for.

use crate::instance::InstanceError;
use thiserror::Error;

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
