//! Small instances: branch and bound over every placement and every set of paths.

use skipstone_types::StageId;

use super::draft::{Draft, is_legal};
use super::error::SearchError;
use super::objective::Guide;
use super::{Found, SearchOptions};
use crate::bounds::{PlacementBounds, path_bounds};
use crate::compiled::CompiledInstance;
use crate::plan::{DispatchPolicy, PipelinePlan};
use crate::simulate::Simulator;

/// Most nodes of an instance that is solved exactly.
pub const EXACT_NODES_MAX: usize = 8;
/// Most placements that are looked at.
const PLACEMENTS_MAX: usize = 300_000;

/// What an exact search proves.
#[derive(Debug, Clone)]
pub struct Exact {
    /// The best plan found.
    pub found: Found,
    /// Objective of that plan, microseconds (an all-reduce is rounded up).
    pub objective_us: u64,
    /// No plan at all, whatever its placement, paths, starts and orders, has a smaller objective.
    pub bound_us: u64,
    /// Whether every branch was looked at; else work ran out, and more would raise the bound.
    pub complete: bool,
}

/// Improves on `start` by branch and bound, and proves how far from the optimum its result is at most.
///
/// Branches: the stage of every node, then the path of every microbatch. A branch is cut where a bound that holds for any
/// policy, start and order reaches the best objective found. What stays open is the order of tasks
/// within one set of paths: it is tried under every policy, and the bound of its paths counts. So bound and objective meet
/// where dispatch is optimal, and otherwise enclose the optimum. `progress` is as for [`search`](super::search).
///
/// # Errors
/// [`SearchError::NotSmall`] beyond [`EXACT_NODES_MAX`] nodes; else as [`search`](super::search).
pub fn exact(
    compiled: &CompiledInstance,
    options: &SearchOptions,
    start: &PipelinePlan,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<Exact, SearchError> {
    if compiled.nodes() > EXACT_NODES_MAX {
        return Err(SearchError::NotSmall { nodes: compiled.nodes(), most: EXACT_NODES_MAX });
    }
    let guide = Guide::new(compiled, options.objective);
    let nodes = start.microbatches.iter().flat_map(|microbatch| microbatch.path.iter().copied()).collect();
    let mut best = Draft::new(compiled, start.stages.clone(), nodes);
    best.schedule.rank = start.microbatches.iter().map(|microbatch| microbatch.priority as u32).collect();
    best.schedule.policy = start.policy;
    let mut simulator = Simulator::default();
    let score = guide.score(compiled, &best, &mut simulator, u64::MAX);
    let mut branches = Branches {
        compiled,
        guide: &guide,
        simulator,
        objective_us: score.map_or(u64::MAX, |score| score.objective_us),
        best,
        open_us: u64::MAX,
        work: 0,
        stopped: false,
        progress,
    };
    let (placements, all) = placements(compiled);
    branches.stopped = !all;
    let mut bounded: Vec<(u64, Vec<Vec<u32>>)> = placements
        .into_iter()
        .filter_map(|stages| {
            let allreduce_us = guide.allreduce_us(compiled, &stages)?;
            let bound = PlacementBounds::new(compiled, &stages, false).best_us();
            Some((bound + allreduce_us, stages))
        })
        .collect();
    bounded.sort_unstable();
    for (bound_us, stages) in bounded {
        branches.placement(bound_us, stages);
    }
    if !all {
        branches.open_us = 0;
    }
    Ok(Exact {
        objective_us: branches.objective_us,
        bound_us: branches.open_us.min(branches.objective_us),
        complete: !branches.stopped,
        found: Found { plan: branches.best.to_plan(compiled, "exact"), work: branches.work },
    })
}

struct Branches<'a> {
    compiled: &'a CompiledInstance,
    guide: &'a Guide,
    simulator: Simulator,
    best: Draft,
    objective_us: u64,
    /// The least bound of a branch that was left open.
    open_us: u64,
    work: u64,
    stopped: bool,
    progress: &'a mut dyn FnMut(u64) -> f64,
}

impl Branches<'_> {
    /// All sets of paths of one placement.
    fn placement(&mut self, bound_us: u64, stages: Vec<Vec<u32>>) {
        if bound_us >= self.objective_us {
            return;
        }
        if self.stopped {
            self.open_us = self.open_us.min(bound_us);
            return;
        }
        let Some(allreduce_us) = self.guide.allreduce_us(self.compiled, &stages) else { return };
        let instance = self.compiled.instance();
        let mut owner = Vec::new();
        for (place, origin) in stages[0].iter().enumerate() {
            owner.extend(vec![*origin; instance.quota(place) as usize]);
        }
        let draft = Draft::new(self.compiled, stages, Vec::new());
        let routes: Vec<Vec<Vec<u32>>> = (0..owner.len())
            .map(|microbatch| {
                // Microbatches of one origin are alike but for the parity of swapped edges.
                let mut found = Vec::new();
                ways(
                    self.compiled,
                    &draft,
                    microbatch,
                    &mut vec![StageId::ORIGIN],
                    &mut vec![owner[microbatch]],
                    &mut found,
                );
                found
            })
            .collect();
        let mut chosen = Vec::with_capacity(owner.len());
        self.paths(&draft, &owner, &routes, bound_us, allreduce_us, &mut chosen);
    }

    /// The paths of the microbatches from `chosen.len()` on.
    fn paths(
        &mut self,
        draft: &Draft,
        owner: &[u32],
        routes: &[Vec<Vec<u32>>],
        bound_us: u64,
        allreduce_us: u64,
        chosen: &mut Vec<usize>,
    ) {
        let next = chosen.len();
        let last_like = |draft: &[usize]| -> usize {
            let like = (0..next).rev().find(|other| {
                owner[*other] == owner[next]
                    && self.compiled.swaps_edges(*other as u32) == self.compiled.swaps_edges(next as u32)
            });
            like.map_or(0, |other| draft[other])
        };
        let first = last_like(chosen);
        for way in first..routes[next].len() {
            if bound_us >= self.objective_us {
                return;
            }
            self.work += 1;
            if self.work.is_multiple_of(256) && !self.stopped {
                self.stopped = (self.progress)(self.work) >= 1.0;
            }
            if self.stopped {
                self.open_us = self.open_us.min(bound_us);
                return;
            }
            chosen.push(way);
            let nodes: Vec<u32> =
                chosen.iter().zip(routes).flat_map(|(way, routes)| routes[*way].clone()).collect();
            let partial = Draft::new(self.compiled, draft.stages.clone(), nodes);
            let within = (1..partial.visits.len())
                .all(|stage| partial.visits[stage] <= self.compiled.visits_max(stage));
            if within {
                let bound_us =
                    bound_us.max(path_bounds(self.compiled, &partial.schedule).best_us() + allreduce_us);
                if bound_us < self.objective_us {
                    if next + 1 == owner.len() {
                        self.leaf(partial, bound_us);
                    } else {
                        self.paths(draft, owner, routes, bound_us, allreduce_us, chosen);
                    }
                }
            }
            chosen.pop();
        }
    }

    /// A whole set of paths, under every policy.
    fn leaf(&mut self, mut draft: Draft, bound_us: u64) {
        for policy in
            [DispatchPolicy::BackwardFirst, DispatchPolicy::FirstInFirstOut, DispatchPolicy::ForwardFirst]
        {
            draft.schedule.policy = policy;
            if let Some(score) = self.guide.score(self.compiled, &draft, &mut self.simulator, u64::MAX)
                && score.allowed
                && score.objective_us < self.objective_us
            {
                self.objective_us = score.objective_us;
                self.best.clone_from(&draft);
            }
        }
        if bound_us < self.objective_us {
            self.open_us = self.open_us.min(bound_us);
        }
    }
}

/// Every legal path of a microbatch.
fn ways(
    compiled: &CompiledInstance,
    draft: &Draft,
    microbatch: usize,
    sequence: &mut Vec<StageId>,
    path: &mut Vec<u32>,
    found: &mut Vec<Vec<u32>>,
) {
    if sequence.len() == compiled.path_length() {
        if is_legal(compiled, microbatch, sequence) {
            found.push(path.clone());
        }
        return;
    }
    for (stage, members) in draft.stages.iter().enumerate().skip(1) {
        sequence.push(StageId(stage as u16));
        if compiled.rules.check(sequence).is_ok() {
            for node in members {
                path.push(*node);
                ways(compiled, draft, microbatch, sequence, path, found);
                path.pop();
            }
        }
        sequence.pop();
    }
}

/// Every placement, but for trades of nodes that are alike; and whether these are all.
fn placements(compiled: &CompiledInstance) -> (Vec<Vec<Vec<u32>>>, bool) {
    let mut all = Vec::new();
    let mut stages = vec![Vec::new(); compiled.stages()];
    place(compiled, 0, &mut stages, &mut all);
    let complete = all.len() < PLACEMENTS_MAX;
    (all, complete)
}

fn place(compiled: &CompiledInstance, node: usize, stages: &mut Vec<Vec<u32>>, all: &mut Vec<Vec<Vec<u32>>>) {
    let instance = compiled.instance();
    if all.len() >= PLACEMENTS_MAX {
        return;
    }
    if node == compiled.nodes() {
        let sized = match &instance.stage_sizes {
            Some(sizes) => stages.iter().zip(sizes).all(|(members, size)| members.len() == *size as usize),
            None => stages.iter().all(|members| !members.is_empty()),
        };
        if !sized {
            return;
        }
        // With a list of quotas the order of origins matters.
        let alike = (1..stages[0].len()).all(|place| instance.quota(place) == instance.quota(0));
        if alike {
            all.push(stages.clone());
        } else {
            orders(&mut stages[0].clone(), 0, &mut |origins| {
                let mut placed = stages.clone();
                placed[0] = origins.to_vec();
                all.push(placed);
            });
        }
        return;
    }
    // A node like an earlier one goes to the same stage or a later one.
    let like = (0..node).rev().find(|other| compiled.is_alike(*other, node));
    let least = like.and_then(|other| stages.iter().position(|members| members.contains(&(other as u32))));
    for stage in least.unwrap_or(0)..stages.len() {
        let size = match &instance.stage_sizes {
            Some(sizes) => sizes[stage] as usize,
            None if stage == 0 && stages.len() > 1 => instance.origins(),
            None => compiled.nodes(),
        };
        if stages[stage].len() < size {
            stages[stage].push(node as u32);
            place(compiled, node + 1, stages, all);
            stages[stage].pop();
        }
    }
}

/// Every order of `items[from..]`.
fn orders(items: &mut Vec<u32>, from: usize, each: &mut dyn FnMut(&[u32])) {
    if from == items.len() {
        each(items);
        return;
    }
    for other in from..items.len() {
        items.swap(from, other);
        orders(items, from + 1, each);
        items.swap(from, other);
    }
}
