//! Why a run can't be simulated.

use crate::config::ConfigError;
use thiserror::Error;

/// Why a run can't be simulated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimulateError {
    /// The options.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing says how long tasks take.
    #[error(
        "simulate needs to know how long tasks take: pass the seconds of a relay stage's forward, as --pace 0.5"
    )]
    NoPace,
    /// The path chooser refuses.
    #[error("no paths can be found: {0}")]
    Plan(String),
    /// Nothing happens any more.
    #[error(
        "the simulated run came to a standstill after {iterations} iterations, at {at_s:.0} virtual seconds; give it replicas or spares"
    )]
    Standstill {
        /// Iterations committed.
        iterations: u64,
        /// Virtual seconds.
        at_s: f64,
    },
    /// Whoever looks on has seen enough.
    #[error("{0}")]
    Watcher(String),
    /// The protocol and its driver disagree.
    #[error("{0}; this is a bug, please report it with the command")]
    Bug(String),
}
