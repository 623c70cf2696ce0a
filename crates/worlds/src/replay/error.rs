//! Where a replay parts from what the journal says.

use skipstone_types::{Iteration, StageId};
use thiserror::Error;

/// Why a replay ends before the journal does.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Something recomputed differs from what was recorded: the first such place.
    #[error(
        "{iteration}, {stage}: the {what} differs: the journal says {expected}, the replay gives {got}; either the \
         journal, run.toml or data/ was changed after the run, or the run used another kind of processor or another \
         build"
    )]
    Differs {
        /// The iteration.
        iteration: Iteration,
        /// The stage.
        stage: StageId,
        /// What: `gradient`, `gradient norm`, `state`, `loss`, `rebuilt state`, `saved state`, …
        what: &'static str,
        /// As recorded.
        expected: String,
        /// As recomputed.
        got: String,
    },
    /// A record can't have come about as it says.
    #[error("{iteration}, {stage}: the journal can't be right: {why}")]
    Impossible {
        /// The iteration.
        iteration: Iteration,
        /// The stage.
        stage: StageId,
        /// Why.
        why: String,
    },
    /// A record does not go on from the one before it.
    #[error(
        "the journal holds the record of {found} where that of {expected} belongs; records are missing or out of order"
    )]
    Gap {
        /// The iteration that comes next.
        expected: Iteration,
        /// The one that is there.
        found: Iteration,
    },
    /// A record does not name the one before it.
    #[error(
        "the record of {iteration} does not continue the one before it: the journal was put together from several"
    )]
    Chain {
        /// The iteration.
        iteration: Iteration,
    },
    /// A computation failed.
    #[error("{iteration}, {stage}: the computation failed: {why}")]
    Computation {
        /// The iteration.
        iteration: Iteration,
        /// The stage.
        stage: StageId,
        /// Why.
        why: String,
    },
    /// The journal is replayed to the same bits, but a file of `state/` holds others.
    #[error("the journal is replayed to the same bits, but {why}")]
    SavedFile {
        /// The iteration that was saved.
        iteration: Iteration,
        /// The stage.
        stage: StageId,
        /// Which file, and why.
        why: String,
    },
    /// The compute threads can't be started.
    #[error("the computation can't be started: {0}")]
    Start(String),
}

impl ReplayError {
    /// The iteration and the stage where it went wrong, where there is one.
    pub fn place(&self) -> Option<(Iteration, StageId)> {
        match self {
            Self::Differs { iteration, stage, .. }
            | Self::Impossible { iteration, stage, .. }
            | Self::Computation { iteration, stage, .. }
            | Self::SavedFile { iteration, stage, .. } => Some((*iteration, *stage)),
            Self::Gap { .. } | Self::Chain { .. } | Self::Start(_) => None,
        }
    }
}
