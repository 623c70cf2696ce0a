//! A swarm at an attempt, as the search reads it.

use std::collections::BTreeMap;

use skipstone_types::{NodeId, Path, PlanProblem, StageId, Visit};

use super::description::SwarmDescription;
use crate::compiled::{CompiledInstance, MICROSECONDS};
use crate::search::Draft;

/// The living nodes with their times and links.
#[derive(Debug)]
pub(crate) struct SwarmView {
    pub(crate) compiled: CompiledInstance,
    /// Nodes of each stage, as places in `ids`.
    pub(crate) stages: Vec<Vec<u32>>,
    /// The nodes' ids, in the order of stages.
    pub(crate) ids: Vec<NodeId>,
    /// Microbatches of each origin.
    pub(crate) quotas: Vec<u32>,
    /// Relays on a path.
    pub(crate) picks: usize,
}

impl SwarmView {
    /// The view of a problem; none where it is not the search's business: a gap between served stages that only an
    /// exception from the rules leaps, or numbers that no instance may have.
    pub(crate) fn new(
        description: &SwarmDescription,
        problem: &PlanProblem,
        quotas: Vec<u32>,
        picks: usize,
    ) -> Option<Self> {
        let served = problem.served_relays();
        let mut reached = 0;
        for stage in &served {
            if stage.0 - reached > problem.rules.jump_max {
                return None;
            }
            reached = stage.0;
        }
        let ids: Vec<NodeId> = problem.nodes.iter().flatten().copied().collect();
        let mut next = 0;
        let stages: Vec<Vec<u32>> = problem
            .nodes
            .iter()
            .map(|nodes| {
                next += nodes.len() as u32;
                (next - nodes.len() as u32..next).collect()
            })
            .collect();
        let microbatch_s = microbatch_seconds(description, problem);
        let sizes: Vec<u32> = stages.iter().map(|nodes| nodes.len() as u32).collect();
        let places = ids.iter().zip(&microbatch_s).map(|(id, seconds)| {
            let region = description.node(*id).map(|node| node.region.clone()).unwrap_or_default();
            (region, seconds.max(1.0e-6))
        });
        let jump_max = u32::from(problem.rules.jump_max);
        let instance =
            description.instance("swarm", &sizes, places, picks + 1, quotas.clone(), jump_max.max(1));
        let mut compiled = CompiledInstance::new(&instance).ok()?;
        let regions = ids.iter().map(|id| description.node(*id).map_or("", |node| node.region.as_str()));
        compiled.set_ways(description.ways(regions));
        compiled.set_closing(closings(description, problem, &ids));
        compiled.set_trained_order(problem.edge_swaps, problem.rules);
        compiled.set_origin_gradient(description.origin_gradient_bytes);
        // A node serves one stage: what it would take at another is of no account.
        set_times(&mut compiled, description, |place| (microbatch_s[place], microbatch_s[place]));
        Some(Self { compiled, stages, ids, quotas, picks })
    }

    /// Microbatches a second of all nodes of a stage together, by stage.
    pub(crate) fn speeds(&self) -> Vec<f64> {
        let work_us = |node: &u32| {
            let node = *node as usize;
            (self.compiled.forward[node] + self.compiled.backward[node]).max(1)
        };
        self.stages
            .iter()
            .map(|nodes| nodes.iter().map(|node| MICROSECONDS / work_us(node) as f64).sum())
            .collect()
    }

    /// The stage and id of a place.
    fn visit(&self, draft: &Draft, place: u32) -> Visit {
        Visit { stage: StageId(draft.stage_of(place) as u16), node: self.ids[place as usize] }
    }

    /// The paths of a draft.
    pub(crate) fn paths(&self, draft: &Draft) -> Vec<Path> {
        let path = |index| Path(draft.path(index).iter().map(|place| self.visit(draft, *place)).collect());
        (0..draft.len()).map(path).collect()
    }
}

/// Puts task times in place of those of the instance: seconds of a microbatch on each node as a relay and as an origin, cut
/// in the proportions of the description.
pub(crate) fn set_times(
    compiled: &mut CompiledInstance,
    description: &SwarmDescription,
    microbatch_s: impl Fn(usize) -> (f64, f64),
) {
    let us = |seconds: f64, share: f64| (seconds * MICROSECONDS * share).round_ties_even() as u64;
    let (relay, origin) = (description.relay, description.origin);
    for place in 0..compiled.nodes() {
        let (as_relay, as_origin) = microbatch_s(place);
        compiled.forward[place] = us(as_relay, relay.forward_s / relay.total_s());
        compiled.backward[place] = us(as_relay, (relay.backward_s + relay.loss_s) / relay.total_s());
        compiled.origin_forward[place] = us(as_origin, origin.forward_s / origin.total_s());
        compiled.loss[place] = us(as_origin, origin.loss_s / origin.total_s());
        compiled.origin_backward[place] = us(as_origin, origin.backward_s / origin.total_s());
    }
}

/// What each node computes once an iteration, as measured, else as described: it serves one stage, and what it would take at
/// another is of no account.
fn closings(description: &SwarmDescription, problem: &PlanProblem, ids: &[NodeId]) -> Vec<[u64; 2]> {
    let measured: BTreeMap<NodeId, u64> =
        problem.paces.iter().map(|pace| (pace.node, pace.fixed_us)).collect();
    let described = description.closing_us();
    ids.iter().map(|id| measured.get(id).map_or(described, |fixed_us| [*fixed_us; 2])).collect()
}

/// Seconds that a microbatch takes on each node, in the order of stages: as measured; else as described, in proportion
/// to those that are measured.
fn microbatch_seconds(description: &SwarmDescription, problem: &PlanProblem) -> Vec<f64> {
    let described = |stage: usize, id: NodeId| {
        let cost = if stage == 0 { description.origin } else { description.relay };
        cost.total_s() * description.node(id).map_or(1.0, |node| node.slowness)
    };
    let paces: BTreeMap<NodeId, u64> =
        problem.paces.iter().map(|pace| (pace.node, pace.microbatch_us)).collect();
    let measured = |id: NodeId| Some((*paces.get(&id)?).max(1) as f64 / MICROSECONDS);
    let nodes: Vec<(usize, NodeId)> = problem
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(stage, nodes)| nodes.iter().map(move |id| (stage, *id)))
        .collect();
    let mut ratios: Vec<f64> =
        nodes.iter().filter_map(|(stage, id)| Some(measured(*id)? / described(*stage, *id))).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let usual = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
    nodes
        .into_iter()
        .map(|(stage, id)| measured(id).unwrap_or_else(|| described(stage, id) * usual))
        .collect()
}
