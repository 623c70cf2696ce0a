//! What is wrong with a plan.

use skipstone_types::PathViolation;
use thiserror::Error;

use super::TaskKind;

/// A rule that a plan breaks.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PlanViolation {
    /// A node id that the instance lacks.
    #[error("{place}: unknown node {node}")]
    UnknownNode {
        /// Where in the plan.
        place: String,
        /// The id.
        node: u32,
    },
    /// A node in two stages.
    #[error("`stages`: node {0} is in two stages, or twice in one")]
    NodeTwice(u32),
    /// A node in no stage.
    #[error("`stages`: node {0} is in no stage")]
    NodeIdle(u32),
    /// Another number of stages.
    #[error("`stages`: {found} stages, and the instance has {wanted}")]
    StageCount {
        /// In the plan.
        found: usize,
        /// In the instance.
        wanted: usize,
    },
    /// Other sizes of stages.
    #[error("`stages`: sizes {found:?}, and the instance has {wanted:?}")]
    StageSizes {
        /// In the plan.
        found: Vec<usize>,
        /// In the instance.
        wanted: Vec<u32>,
    },
    /// Another number of microbatches.
    #[error("`microbatches`: {found}, and the instance has {wanted}")]
    MicrobatchCount {
        /// In the plan.
        found: usize,
        /// In the instance.
        wanted: u32,
    },
    /// Two microbatches of one id.
    #[error("microbatch {0}: duplicate id")]
    DuplicateMicrobatch(u32),
    /// An empty path.
    #[error("microbatch {0}: its path is empty")]
    EmptyPath(u32),
    /// A path that visits a node twice.
    #[error("microbatch {0}: a node is visited twice")]
    VisitedTwice(u32),
    /// A path of another length.
    #[error("microbatch {microbatch}: path length {found}, and path_len is {wanted}")]
    PathLength {
        /// The microbatch.
        microbatch: u32,
        /// In the plan.
        found: usize,
        /// In the instance.
        wanted: usize,
    },
    /// A full pipeline's path that leaves the order of stages.
    #[error("microbatch {microbatch}: a full pipeline visits all stages in order, not {stages:?}")]
    NotFull {
        /// The microbatch.
        microbatch: u32,
        /// The stages visited.
        stages: Vec<usize>,
    },
    /// A path against the swap or jump rules.
    #[error("microbatch {microbatch}: {rule} (stages {stages:?})")]
    PathRule {
        /// The microbatch.
        microbatch: u32,
        /// The rule.
        rule: PathViolation,
        /// The stages visited.
        stages: Vec<usize>,
    },
    /// A path without CheckFree+'s swap.
    #[error("microbatch {microbatch}: stage {first} comes before stage {second} (edge_swaps)")]
    EdgeSwap {
        /// The microbatch.
        microbatch: u32,
        /// The stage that goes first.
        first: usize,
        /// The stage that goes second.
        second: usize,
    },
    /// An origin that sends too many or too few.
    #[error("origin {node}: sends {found} microbatches, and microbatches_per_origin is {wanted}")]
    OriginQuota {
        /// The origin.
        node: u32,
        /// In the plan.
        found: u32,
        /// In the instance.
        wanted: u32,
    },
    /// A list of quotas that does not fit stage 0.
    #[error("`stages`: stage 0 has {found} nodes, and microbatches_per_origin is for {wanted}")]
    OriginCount {
        /// In the plan.
        found: usize,
        /// In the instance.
        wanted: usize,
    },
    /// A stage visited too often.
    #[error("stage {stage}: {found} visits, and stage_visits_max is {most}")]
    StageVisits {
        /// The stage.
        stage: usize,
        /// In the plan.
        found: u32,
        /// In the instance.
        most: u32,
    },
    /// A microbatch that waits for one that does not exist.
    #[error("microbatch {microbatch}: `after` names {after}, which does not exist")]
    UnknownAfter {
        /// The microbatch.
        microbatch: u32,
        /// The id named.
        after: u32,
    },
    /// A start or priority that is no number, or a start before 0 or beyond what times can hold.
    #[error("microbatch {microbatch}: `{field}` is {found}, which is no time or rank that can be used")]
    BadNumber {
        /// The microbatch.
        microbatch: u32,
        /// The field.
        field: &'static str,
        /// What it is.
        found: f64,
    },
    /// An all-reduce above the instance's limit.
    #[error("`stages`: the all-reduce takes {found:.1} s, and dp_allreduce_max_s is {most}")]
    AllReduce {
        /// Seconds of the slowest stage.
        found: f64,
        /// In the instance.
        most: f64,
    },
    /// A task order that is not the node's tasks.
    #[error("`node_order` of node {node} does not list exactly its tasks{}", task.map_or(String::new(),
        |(microbatch, kind)| format!(": microbatch {microbatch}, {kind:?}")))]
    NodeOrder {
        /// The node.
        node: u32,
        /// A task too many or missing.
        task: Option<(u32, TaskKind)>,
    },
    /// Microbatches that never finish.
    #[error("deadlock: {left} microbatches never finish (memory, `after` or `node_order`)")]
    Deadlock {
        /// How many.
        left: usize,
    },
}
