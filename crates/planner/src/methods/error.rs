//! Why a method has no plan.

use thiserror::Error;

use crate::plan::PlanViolation;

/// Why a published method has no plan.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum MethodError {
    /// No placement found keeps to the limit of the all-reduce.
    #[error(
        "the genetic placement found none whose all-reduce keeps to dp_allreduce_max_s {most} (best: {found:.1} s, \
         {placements} placements scored); raise --work or --time-limit, try another --seed, or use --method skipstone"
    )]
    AllReduce {
        /// Seconds of the best placement found.
        found: f64,
        /// In the instance.
        most: f64,
        /// Placements scored.
        placements: u64,
    },
    /// A given placement does not fit the instance.
    #[error("the given placement can't be used: {0}; take the stages of a plan of this instance")]
    Placement(PlanViolation),
    /// A full pipeline needs every stage.
    #[error(
        "a full pipeline visits every stage, and stage {stage} has no node; give it one, or use another method"
    )]
    EmptyStage {
        /// The stage.
        stage: usize,
    },
    /// Random paths kept breaking a rule.
    #[error(
        "no random paths were found that keep {rule} ({draws} paths drawn); raise the limit in the instance, or use \
         --method skipstone"
    )]
    NoRandomPaths {
        /// The rule.
        rule: &'static str,
        /// Paths drawn.
        draws: u64,
    },
    /// The conflict-based search ended without a plan.
    #[error(
        "{method} found no plan: {tried}; {} Try another --seed, a larger --work or --time-limit, or --method skipstone",
        if *.exhausted {
            "its search space is exhausted: the branches that it keeps lead to no set of paths within the limits."
        } else {
            "its budget ended."
        }
    )]
    NoPaths {
        /// The method.
        method: &'static str,
        /// What was tried.
        tried: Tried,
        /// Whether the search ended by itself.
        exhausted: bool,
    },
    /// The plan breaks a rule of the instance that the method knows nothing of.
    #[error("{method} can't keep a rule of this instance: {violation}; use --method skipstone")]
    Invalid {
        /// The method.
        method: &'static str,
        /// The rule.
        violation: PlanViolation,
    },
}

/// What a conflict-based search has tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tried {
    /// Sets of paths looked at.
    pub nodes: u64,
    /// Paths searched in time and space.
    pub paths: u64,
    /// Sets of paths within every stage's visits.
    pub balanced: u64,
    /// Sets of paths within every node's memory too.
    pub within_memory: u64,
    /// Sets of paths without a collision too.
    pub collision_free: u64,
    /// Schedules simulated.
    pub simulated: u64,
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} sets of paths looked at, {} paths searched; {} sets kept every stage's visits, {} every node's memory \
             (TC1) too, {} were free of collisions (TC2); {} schedules simulated",
            self.nodes, self.paths, self.balanced, self.within_memory, self.collision_free, self.simulated
        )
    }
}
