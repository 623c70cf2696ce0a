//! What the trainer asks a path chooser, and what it answers.

use crate::{Attempt, Iteration, NodeId, Path, PathRules, PlanEpoch, StageId};
use serde::{Deserialize, Serialize};

/// A request for the paths of one attempt. Stages without nodes are holes to route around.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanProblem {
    /// Counts requests; the answer carries it back.
    pub epoch: PlanEpoch,
    /// The run's seed: choosers draw from (seed, iteration) alone, so that a plan can be made again.
    pub seed: u64,
    /// The iteration planned.
    pub iteration: Iteration,
    /// The attempt planned.
    pub attempt: Attempt,
    /// Living nodes by stage, origin first, in ascending order; `nodes[s]` may be empty except for the origin.
    pub nodes: Vec<Vec<NodeId>>,
    /// Microbatches of the whole iteration.
    pub microbatches: u32,
    /// Visits per path, the origin's included, when every stage is served.
    pub path_length: u16,
    /// Whether this iteration runs every served stage (`--full-every`).
    pub full: bool,
    /// The orders of stages that are allowed.
    pub rules: PathRules,
    /// What is known of how fast nodes are; one that is not named counts as as fast as any.
    #[serde(default)]
    pub paces: Vec<Pace>,
}

/// How fast a node is, as its last iterations show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// The node.
    pub node: NodeId,
    /// Computing time of a microbatch, forward and backward, in microseconds.
    pub microbatch_us: u64,
    /// Whether it must get a microbatch, however slow it is: else nobody would notice that it has recovered.
    pub probe: bool,
}

impl PlanProblem {
    /// Relay stages that have a living node, in order.
    pub fn served_relays(&self) -> Vec<StageId> {
        (1..self.nodes.len())
            .filter(|stage| !self.nodes[*stage].is_empty())
            .map(|stage| StageId(stage as u16))
            .collect()
    }
}

/// The answer: a path for every microbatch, in the order of microbatches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The request's epoch.
    pub epoch: PlanEpoch,
    /// One path a microbatch.
    pub paths: Vec<Path>,
    /// What the iteration is expected to take, from its start until all replicas agree, in microseconds; none: it was not
    /// estimated.
    pub expected_us: Option<u64>,
}
