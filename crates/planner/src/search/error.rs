//! Why there is no plan.

use thiserror::Error;

use super::construct;
use super::draft::Draft;
use crate::compiled::{CompiledInstance, MICROSECONDS, PathRule};
use crate::plan::PlanViolation;

/// An instance for which no plan was found, and the constraint that fails.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SearchError {
    /// No set of paths keeps the rules.
    #[error("no paths of `path_len` {path_len} over {n_stages} stages keep the rules; {}", lift(failing))]
    NoPaths {
        /// Nodes on a path.
        path_len: u32,
        /// Stages.
        n_stages: u32,
        /// The rules of which lifting one alone would do; none: they fail only together.
        failing: Vec<PathRule>,
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
    /// A given placement does not fit the instance.
    #[error("the given placement can't be used: {0}; take the stages of a plan of this instance")]
    Placement(PlanViolation),
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

/// The remedy where paths fail at these rules.
fn lift(failing: &[PathRule]) -> String {
    let names = |rules: &[PathRule]| {
        rules.iter().map(|rule| format!("`{}`", rule.field())).collect::<Vec<_>>().join(" or ")
    };
    match failing {
        [] => format!("raise more than one of {}, or shorten `path_len`", names(&PathRule::ALL)),
        [one] => format!("`{}` is what fails: raise it, or shorten `path_len`", one.field()),
        several => format!("raise {}, any one of which would do", names(several)),
    }
}

impl SearchError {
    /// No paths keep the rules of `compiled`.
    pub(crate) fn no_paths(compiled: &CompiledInstance) -> Self {
        let instance = compiled.instance();
        Self::NoPaths {
            path_len: instance.path_len,
            n_stages: instance.n_stages,
            failing: PathRule::ALL
                .into_iter()
                .filter(|rule| construct::has_paths(&compiled.without(*rule)))
                .collect(),
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
