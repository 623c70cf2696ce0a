//! What every path chooser offers.

use crate::drawn::DrawnError;
use skipstone_types::{Plan, PlanProblem};
use thiserror::Error;

/// Finds a path for every microbatch of an attempt.
///
/// An implementation is a function of the problem, of what it was made with and of the problems before: the same problems
/// get the same plans, on every machine.
pub trait PathChooser: Send {
    /// The paths for `problem`, under its epoch.
    ///
    /// # Errors
    /// See [`PlanError`].
    fn choose(&mut self, problem: &PlanProblem) -> Result<Plan, PlanError>;
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No node serves the origin.
    #[error("no node serves the origin, where every path starts")]
    NoOrigin,
    /// There is nothing to plan.
    #[error("an iteration has at least one microbatch")]
    NoMicrobatches,
    /// A path without a visit.
    #[error("a path visits at least the origin: path_length is 0")]
    NoVisits,
    /// Paths that can't be drawn as asked.
    #[error("paths can't be drawn: {0}")]
    Drawn(#[from] DrawnError),
}
