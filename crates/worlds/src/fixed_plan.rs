//! Stages and paths that are given, and not searched for: `--plan`.

use serde::{Deserialize, Serialize};
use skipstone_planner::PipelinePlan;
use skipstone_types::{NodeId, Path, PlaceAnswer, PlaceProblem, Plan, PlanProblem, StageId, Visit};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// What is wrong with a plan that is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FixedPlanError {
    /// A node that is not there, or serves two stages.
    #[error("`stages` names node {node} {what}; nodes are numbered from 0, each once")]
    Node {
        /// The node.
        node: u32,
        /// Where.
        what: &'static str,
    },
    /// A path that no microbatch can take.
    #[error("microbatch {microbatch}: {why}")]
    Path {
        /// The microbatch.
        microbatch: u32,
        /// What it does.
        why: &'static str,
    },
}

/// The same stages and paths in every iteration, as long as the nodes that started live. The n-th node to join is the plan's
/// n-th.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedPlan {
    places: Vec<(NodeId, StageId)>,
    paths: Vec<Path>,
}

/// Ids count from 1, in the order in which nodes are let in.
fn id(place: u32) -> NodeId {
    NodeId(place + 1)
}

impl FixedPlan {
    /// A plan of nodes that `place_of` numbers from 0 on; starts, priorities and orders are left out, as nodes know nothing of
    /// them.
    ///
    /// # Errors
    /// Nodes that there are not, and paths that don't start at an origin, or visit a stage twice.
    pub fn new(plan: &PipelinePlan, place_of: impl Fn(u32) -> Option<u32>) -> Result<Self, FixedPlanError> {
        let mut stage_of: BTreeMap<u32, (NodeId, StageId)> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut places = Vec::new();
        for (stage, nodes) in (0..).map(StageId).zip(&plan.stages) {
            for node in nodes {
                let wrong = |what| FixedPlanError::Node { node: *node, what };
                let place = place_of(*node).ok_or_else(|| wrong("which is not there"))?;
                if !seen.insert(place) {
                    return Err(wrong("twice"));
                }
                places.push((id(place), stage));
                stage_of.insert(*node, (id(place), stage));
            }
        }
        let mut paths = Vec::with_capacity(plan.microbatches.len());
        for microbatch in &plan.microbatches {
            let wrong = |why| FixedPlanError::Path { microbatch: microbatch.id, why };
            let visits = microbatch.path.iter().map(|node| {
                let (node, stage) = stage_of.get(node).copied()?;
                Some(Visit { stage, node })
            });
            let visits = visits.collect::<Option<Vec<_>>>();
            let visits = visits.ok_or_else(|| wrong("its path leads through a node that serves no stage"))?;
            if visits.first().is_none_or(|visit| !visit.stage.is_origin()) {
                return Err(wrong("its path does not start at stage 0"));
            }
            let stages: BTreeSet<StageId> = visits.iter().map(|visit| visit.stage).collect();
            if stages.len() < visits.len() {
                return Err(wrong("its path visits a stage twice"));
            }
            paths.push(Path(visits));
        }
        Ok(Self { places, paths })
    }

    /// Microbatches that it has paths for.
    pub fn microbatches(&self) -> usize {
        self.paths.len()
    }

    /// Whether all paths ascend through the stages, so that nodes can't wait for each other's slots in a circle.
    pub fn ascends(&self) -> bool {
        self.paths.iter().all(|path| path.0.is_sorted_by_key(|visit| visit.stage))
    }

    /// Whether the question is the plan's to answer: where the first nodes go, and whether two of them should change places.
    pub(crate) fn answers(problem: &PlaceProblem) -> bool {
        problem.nodes.iter().all(Vec::is_empty) || problem.free.is_empty()
    }

    /// Where the first nodes go; to any other question: nowhere.
    pub(crate) fn places(&self, problem: &PlaceProblem) -> PlaceAnswer {
        let first = problem.nodes.iter().all(Vec::is_empty);
        let places = if first { self.places.clone() } else { Vec::new() };
        PlaceAnswer { epoch: problem.epoch, places, ..PlaceAnswer::default() }
    }

    /// Its paths, if every node that they lead through serves the stage that it should.
    pub(crate) fn plan(&self, problem: &PlanProblem) -> Option<Plan> {
        let serves = |visit: &Visit| {
            problem.nodes.get(usize::from(visit.stage.0)).is_some_and(|nodes| nodes.contains(&visit.node))
        };
        let fits = self.paths.len() == problem.microbatches as usize
            && self.paths.iter().flat_map(|path| &path.0).all(serves);
        fits.then(|| Plan { epoch: problem.epoch, paths: self.paths.clone(), expected_us: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_types::{Attempt, EdgeSwaps, Iteration, PathRules, PlanEpoch};

    fn plan(stages: &[&[u32]], paths: &[&[u32]]) -> PipelinePlan {
        let microbatches: Vec<_> = (0..)
            .zip(paths)
            .map(|(id, path): (u32, _)| serde_json::json!({"id": id, "path": path}))
            .collect();
        let text = serde_json::json!({
            "instance": "i", "method": "m", "mode": "partial", "stages": stages, "microbatches": microbatches,
        });
        PipelinePlan::from_json(&text.to_string()).expect("a plan")
    }

    fn problem(nodes: &[&[u32]], microbatches: u32) -> PlanProblem {
        PlanProblem {
            epoch: PlanEpoch(7),
            seed: 0,
            iteration: Iteration(0),
            attempt: Attempt(0),
            nodes: nodes.iter().map(|stage| stage.iter().copied().map(NodeId).collect()).collect(),
            microbatches,
            path_length: 2,
            full: false,
            rules: PathRules::default(),
            paces: Vec::new(),
            edge_swaps: EdgeSwaps::Off,
        }
    }

    fn fixed(stages: &[&[u32]], paths: &[&[u32]]) -> Result<FixedPlan, FixedPlanError> {
        FixedPlan::new(&plan(stages, paths), |node| (node < 4).then_some(node))
    }

    #[test]
    fn it_is_carried_out_as_long_as_its_nodes_serve() {
        let fixed = fixed(&[&[3], &[0, 1], &[2]], &[&[3, 1], &[3, 0, 2]]).expect("a plan");
        assert!(fixed.ascends());
        let nodes: [&[u32]; 3] = [&[4], &[1, 2], &[3]];
        let found = fixed.plan(&problem(&nodes, 2)).expect("it fits");
        assert_eq!(found.epoch, PlanEpoch(7));
        assert_eq!(found.paths[1].0.iter().map(|visit| visit.node.0).collect::<Vec<_>>(), [4, 1, 3]);
        assert_eq!(fixed.plan(&problem(&nodes, 3)), None);
        // The second node of stage 1 was replaced, or serves another stage.
        assert_eq!(fixed.plan(&problem(&[&[4], &[1, 5], &[3]], 2)), None);
        assert_eq!(fixed.plan(&problem(&[&[4], &[1], &[2, 3]], 2)), None);
    }

    #[test]
    fn what_can_not_be_carried_out_is_refused() {
        let why = |stages: &[&[u32]], paths: &[&[u32]]| fixed(stages, paths).unwrap_err().to_string();
        assert!(why(&[&[0], &[4]], &[]).contains("node 4 which is not there"));
        assert!(why(&[&[0], &[0]], &[]).contains("node 0 twice"));
        assert!(why(&[&[0], &[1]], &[&[0, 2]]).contains("serves no stage"));
        assert!(why(&[&[0], &[1]], &[&[1]]).contains("does not start at stage 0"));
        assert!(why(&[&[0], &[1, 2]], &[&[0, 1, 2]]).contains("twice"));
        assert!(!fixed(&[&[0], &[1], &[2]], &[&[0, 2, 1]]).expect("a plan").ascends());
    }
}
