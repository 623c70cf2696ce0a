//! What the trainer asks a path chooser, and what it answers.

use crate::{Attempt, EdgeSwaps, Iteration, NodeId, Path, PathRules, PlanEpoch, StageId};
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
    /// Which microbatches visit the first two and the last two relay stages in swapped order.
    #[serde(default)]
    pub edge_swaps: EdgeSwaps,
}

/// How fast a node is, as its last iterations show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// The node.
    pub node: NodeId,
    /// Computing time of a microbatch, forward and backward, in microseconds.
    pub microbatch_us: u64,
    /// Computing time of an iteration that does not depend on its microbatches, in microseconds: of the sum of gradients and
    /// of the step.
    pub fixed_us: u64,
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

    /// Brings the relays of a path, which ascend, into the order in which the microbatch visits them.
    pub fn order<T>(&self, microbatch: u32, relays: &mut [T], stage: impl Fn(&T) -> StageId) {
        let relay_stages = self.nodes.len().saturating_sub(1) as u16;
        self.edge_swaps.order(microbatch, relay_stages, &self.rules, relays, stage);
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

/// A question where nodes without a stage should go, and whether two that serve should change places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceProblem {
    /// Counts questions; the answer carries it back.
    pub epoch: u64,
    /// The run's seed.
    pub seed: u64,
    /// The iteration that comes next.
    pub iteration: Iteration,
    /// Who serves each stage or is about to, origin first, ascending; all empty at the start.
    pub nodes: Vec<Vec<NodeId>>,
    /// Nodes without a stage, ascending.
    pub free: Vec<NodeId>,
    /// How many of them each stage should get.
    pub open: Vec<u16>,
    /// Iterations that a swap has to pay for itself in; 0: nobody is to be moved.
    pub swap_within: u64,
    /// Microbatches of an iteration.
    pub microbatches: u32,
    /// Visits per path, the origin's included, when every stage is served.
    pub path_length: u16,
    /// The orders of stages that are allowed.
    pub rules: PathRules,
    /// What is known of how fast nodes are.
    pub paces: Vec<Pace>,
    /// Which microbatches visit the first two and the last two relay stages in swapped order.
    pub edge_swaps: EdgeSwaps,
}

/// The answer to a [`PlaceProblem`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlaceAnswer {
    /// The question's epoch.
    pub epoch: u64,
    /// Nodes of `free` with the stage that each should get; none: nobody has looked for better places than those that come first.
    pub places: Vec<(NodeId, StageId)>,
    /// Two nodes that serve, and should each get the other's stage.
    pub swap: Option<Swap>,
    /// What an iteration is expected to take with them placed so, in microseconds.
    pub expected_us: Option<u64>,
    /// Stages, and pairs of adjacent ones, that one region can take away.
    pub lost_with_a_region: Option<u32>,
    /// What each of those counts in the choice, in microseconds of an iteration.
    pub domain_price_us: u64,
}

/// Two nodes that should change places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// One node.
    pub a: NodeId,
    /// The other.
    pub b: NodeId,
    /// What an iteration is expected to take before, in microseconds, price of failures included.
    pub before_us: u64,
    /// And after.
    pub after_us: u64,
    /// How long the weights are on their way, in microseconds.
    pub copies_us: u64,
}
