//! Why there is no plan.

use thiserror::Error;

use super::draft::Draft;
use crate::compiled::{CompiledInstance, MICROSECONDS};

/// An instance for which no plan was found, and the constraint that fails.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SearchError {
    /// No set of paths keeps the rules.
    #[error(
        "no paths of `path_len` {path_len} over {n_stages} stages keep `max_jump` {max_jump}, `swap`, `edge_swaps` and `stage_visits_max` {stage_visits_max:?} together; raise one of them"
    )]
    NoPaths {
        /// Nodes on a path.
        path_len: u32,
        /// Stages.
        n_stages: u32,
        /// Largest jump.
        max_jump: u32,
        /// Most visits of a stage.
        stage_visits_max: Option<u32>,
    },
    /// No placement with a short enough all-reduce.
    #[error(
        "`dp_allreduce_max_s` is {most}, and the best placement found needs {least:.3} s for its slowest stage; raise it, or make `param_bytes_per_stage` or the stages smaller"
    )]
    AllReduce {
        /// In the instance.
        most: f64,
        /// The least found.
        least: f64,
    },
    /// An instance too large for the exact method.
    #[error(
        "the exact method takes instances of at most {most} nodes, and this one has {nodes}; use the method skipstone"
    )]
    NotSmall {
        /// In the instance.
        nodes: usize,
        /// The most.
        most: usize,
    },
    /// The old plan is not for this instance.
    #[error(
        "the old plan has {found} nodes, and the list of what became of them has {listed}; give one entry for each"
    )]
    Renumbering {
        /// In the plan.
        found: usize,
        /// In the list.
        listed: usize,
    },
}

impl SearchError {
    /// No paths keep the rules of `compiled`.
    pub(crate) fn no_paths(compiled: &CompiledInstance) -> Self {
        let instance = compiled.instance();
        Self::NoPaths {
            path_len: instance.path_len,
            n_stages: instance.n_stages,
            max_jump: instance.max_jump,
            stage_visits_max: instance.stage_visits_max,
        }
    }

    /// `draft` is the best placement that was found, and its all-reduce is too long.
    pub(crate) fn allreduce(compiled: &CompiledInstance, draft: &Draft) -> Self {
        Self::AllReduce {
            most: compiled.instance().dp_allreduce_max_s.unwrap_or(0.0),
            least: draft.slowest_allreduce_us() as f64 / MICROSECONDS,
        }
    }
}
