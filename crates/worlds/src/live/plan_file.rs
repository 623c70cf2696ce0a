//! `plan.json`: the plan of the iteration in which the swarm's nodes last changed.

use serde::Serialize;
use skipstone_planner::{DispatchPolicy, PipelinePlan, PlanMode, PlannedMicrobatch};
use skipstone_types::{NodeId, PlaceAnswer, Plan, PlanProblem};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// A plan in the format of `skipstone plan`, nodes by their place in `node_ids`, and when it was made.
#[derive(Debug, Serialize)]
struct PlanFile {
    #[serde(flatten)]
    plan: PipelinePlan,
    /// The iteration that it was made for.
    iteration: u64,
    /// The run's ids of the nodes.
    node_ids: Vec<NodeId>,
    /// The regions of the nodes, if they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    node_regions: Option<Vec<String>>,
    /// Why nodes serve the stages that they serve; none: they were given stages as they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<PlacementNote>,
    /// Seconds that the iteration was expected to take, all-reduce included.
    #[serde(skip_serializing_if = "Option::is_none")]
    iteration_s: Option<f64>,
}

/// What nodes were last placed by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct PlacementNote {
    /// Seconds that an iteration was expected to take with the nodes placed so.
    expected_iteration_s: f64,
    /// Stages that one region can take away, and pairs of adjacent ones that it takes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_with_a_region: Option<u32>,
    /// Seconds of an iteration that were to be given for each of those.
    domain_price_s: f64,
}

impl PlacementNote {
    /// What an answer says, if nodes are placed by it.
    pub(super) fn of(answer: &PlaceAnswer) -> Option<Self> {
        let names = !answer.places.is_empty() || answer.swap.is_some();
        Some(Self {
            expected_iteration_s: answer.expected_us.filter(|_| names)? as f64 / 1e6,
            lost_with_a_region: answer.lost_with_a_region,
            domain_price_s: answer.domain_price_us as f64 / 1e6,
        })
    }
}

/// Writes the file, whole or not at all.
///
/// # Errors
/// A disk that refuses.
pub(super) fn write_plan(
    dir: &Path,
    problem: &PlanProblem,
    plan: &Plan,
    region: impl Fn(NodeId) -> Option<String>,
    placement: Option<PlacementNote>,
) -> io::Result<()> {
    let node_ids: Vec<NodeId> = problem.nodes.iter().flatten().copied().collect();
    let places: BTreeMap<NodeId, u32> = node_ids.iter().copied().zip(0..).collect();
    let place = |node: &NodeId| places.get(node).copied();
    let stages = problem.nodes.iter().map(|nodes| nodes.iter().filter_map(place).collect()).collect();
    let microbatches = (0..).zip(&plan.paths).map(|(id, path)| PlannedMicrobatch {
        id,
        path: path.0.iter().filter_map(|visit| place(&visit.node)).collect(),
        after: None,
        release: 0.0,
        priority: 0.0,
    });
    // The paths of a full pipeline's plan ascend.
    let ascending = plan.paths.iter().all(|path| path.0.is_sorted_by_key(|visit| visit.stage));
    let whole = problem.full && ascending && problem.nodes.iter().all(|nodes| !nodes.is_empty());
    let file = PlanFile {
        plan: PipelinePlan {
            instance: "swarm".to_owned(),
            method: if plan.expected_us.is_some() { "skipstone" } else { "balanced" }.to_owned(),
            mode: if whole { PlanMode::Full } else { PlanMode::Partial },
            policy: DispatchPolicy::default(),
            stages,
            microbatches: microbatches.collect(),
            node_order: BTreeMap::new(),
        },
        iteration: problem.iteration.0,
        node_regions: node_ids.iter().copied().map(region).collect(),
        placement,
        node_ids,
        iteration_s: plan.expected_us.map(|us| us as f64 / 1e6),
    };
    let text = serde_json::to_vec_pretty(&file).map_err(io::Error::other)?;
    skipstone_files::write(&dir.join("plan.json"), &[&text, b"\n"])
}
