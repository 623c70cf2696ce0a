//! What was trained lately, and what it costs to train it again.

use std::collections::{BTreeMap, BTreeSet};

use skipstone_types::{NodeId, Plan, PlanProblem, StageId};

use super::view::SwarmView;
use crate::random::Random;
use crate::search::Draft;

/// What is left of a count after an iteration: the last 64 or so matter.
const MEMORY: f64 = 1.0 - 1.0 / 64.0;
/// Price of a microbatch on a set of stages that has had exactly its even share, as a share of a plan's cost: a whole plan of
/// such microbatches costs so many times as much.
const PRICE: f64 = 0.03;
/// Most sets that are remembered; more than a swarm visits in the iterations that matter.
const SETS_MAX: usize = 1 << 16;
/// A node without a microbatch for so many iterations gets one.
const IDLE_ITERATIONS_MAX: u64 = 4;
/// Where a stage's nodes would work for so many times the mean, other stages get some of its visits.
const LOAD_MAX: f64 = 1.5;
/// The same in a hurry.
const LOAD_MAX_HURRIED: f64 = 1.2;
/// What is left to it at least, of its even share.
const SHARE_MIN: f64 = 0.5;
/// What a stage gets at most in a hurry, in even shares, if it is not others' lack of speed that gives it more.
const SHARE_MAX_HURRIED: f64 = 1.25;
/// What a plan costs that still leaves such a node out, as a share: more than any slowness.
const IDLE_PRICE: f64 = 1.0e4;

/// Counts of visits, from one plan to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rotation {
    /// Microbatches of each set of stages, by key, faded.
    sets: BTreeMap<u64, f64>,
    /// All of them.
    total: f64,
    /// Visits of each stage since the swarm last changed.
    visits: Vec<u64>,
    /// Who served when they were counted.
    nodes: Vec<Vec<NodeId>>,
    /// The iteration in which each node last had a microbatch, or was first seen.
    worked: BTreeMap<NodeId, u64>,
    /// Whether nobody's turn counts: the plan is to end early.
    hurried: bool,
}

/// The key of a set of stages: the sum of its members' numbers, drawn at random.
pub(crate) fn key_of(stages: impl Iterator<Item = usize>) -> u64 {
    stages.fold(0, |key, stage| key.wrapping_add(Random::new(&[stage as u64, 0x7365_7473]).next()))
}

impl Rotation {
    /// For a plan that is to end early, whoever had their turn.
    pub(crate) fn hurried(problem: &PlanProblem) -> Self {
        let mut rotation = Self { hurried: true, ..Self::default() };
        rotation.meet(problem);
        rotation
    }

    /// Whether it is for such a plan.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried
    }

    /// Tells of the swarm that the next plan is for. Where it has changed, stages are counted from 0 again: a stage that
    /// was away does not make up for it.
    pub(crate) fn meet(&mut self, problem: &PlanProblem) {
        let served = |nodes: &[Vec<NodeId>]| nodes.iter().map(|nodes| !nodes.is_empty()).collect::<Vec<_>>();
        if served(&self.nodes) != served(&problem.nodes) {
            self.visits = vec![0; problem.nodes.len()];
        }
        if self.nodes != problem.nodes {
            self.nodes.clone_from(&problem.nodes);
            let living: BTreeSet<NodeId> = problem.nodes.iter().flatten().copied().collect();
            self.worked.retain(|node, _| living.contains(node));
            for node in living {
                self.worked.entry(node).or_insert(problem.iteration.0);
            }
        }
    }

    /// How often each stage is to be visited by `count` microbatches of `picks` relays each: as equally as can be, and of
    /// those that could get one more, the ones that have had the least so far. A stage that is short of speed, as one
    /// that has lost most of its nodes, gets less, but at least half of its even share. `speeds`: microbatches a second
    /// of all nodes of a stage.
    pub(crate) fn targets(&self, served: &[StageId], picks: usize, count: usize, speeds: &[f64]) -> Vec<u64> {
        let mut targets = vec![0; self.visits.len()];
        let mut order: Vec<usize> = served.iter().map(|stage| usize::from(stage.0)).collect();
        order.sort_by_key(|stage| (self.visits[*stage], *stage));
        let (visits, stages) = (picks * count, order.len().max(1));
        for (place, stage) in order.iter().enumerate() {
            targets[*stage] = (visits / stages) as u64 + u64::from(place < visits % stages);
        }
        let mean = visits as f64 / order.iter().map(|stage| speeds[*stage]).sum::<f64>();
        let least = (SHARE_MIN * visits as f64 / stages as f64).ceil() as u64;
        let load_max = if self.hurried { LOAD_MAX_HURRIED } else { LOAD_MAX };
        let load = |targets: &[u64], stage: usize| targets[stage] as f64 / speeds[stage];
        for _ in 0..visits {
            let heavy = order
                .iter()
                .filter(|stage| targets[**stage] > least && load(&targets, **stage) > load_max * mean)
                .max_by(|a, b| load(&targets, **a).total_cmp(&load(&targets, **b)));
            let light = order
                .iter()
                .filter(|stage| targets[**stage] < count as u64 && load(&targets, **stage) < mean)
                .min_by(|a, b| load(&targets, **a).total_cmp(&load(&targets, **b)));
            let (Some(heavy), Some(light)) = (heavy, light) else { break };
            targets[*heavy] -= 1;
            targets[*light] += 1;
        }
        targets
    }

    /// How often a search may have each stage visited, at least and at most; none where that is not free: unless the plan is
    /// to end early, and paths leave stages out.
    pub(crate) fn visits_within(&self, served: usize, picks: usize, count: usize) -> Option<(u32, u32)> {
        let even = (picks * count) as f64 / served.max(1) as f64;
        let within = ((SHARE_MIN * even).ceil() as u32, (SHARE_MAX_HURRIED * even).floor() as u32);
        (self.hurried && picks < served).then_some(within)
    }

    /// Counts a plan that is carried out.
    pub(crate) fn count(&mut self, problem: &PlanProblem, plan: &Plan) {
        self.total = self.total * MEMORY + plan.paths.len() as f64;
        self.sets.values_mut().for_each(|taken| *taken *= MEMORY);
        self.sets.retain(|_, taken| *taken > 1.0e-3);
        if self.sets.len() > SETS_MAX {
            self.sets.clear();
        }
        for path in &plan.paths {
            let key = key_of(path.0.iter().skip(1).map(|visit| usize::from(visit.stage.0)));
            *self.sets.entry(key).or_default() += 1.0;
            for visit in &path.0 {
                self.visits[usize::from(visit.stage.0)] += 1;
                self.worked.insert(visit.node, problem.iteration.0);
            }
        }
    }

    /// Nodes, as places of the view, that must get a microbatch.
    pub(crate) fn idle(&self, problem: &PlanProblem, view: &SwarmView) -> Vec<u32> {
        let probed: BTreeSet<NodeId> =
            problem.paces.iter().filter(|pace| pace.probe).map(|pace| pace.node).collect();
        let waits = |id: &NodeId| {
            self.worked.get(id).is_some_and(|at| at + IDLE_ITERATIONS_MAX <= problem.iteration.0)
        };
        let idle = |(_, id): &(usize, &NodeId)| probed.contains(id) || waits(id);
        view.ids.iter().enumerate().filter(idle).map(|(place, _)| place as u32).collect()
    }
}

/// What rotation adds to the cost of drafts for one problem.
#[derive(Debug)]
pub(crate) struct Prices<'a> {
    rotation: &'a Rotation,
    idle: &'a [u32],
    /// The number that stands for each stage.
    numbers: Vec<u64>,
    /// Cost of a microbatch on a set of stages that was used once.
    each: f64,
    /// Cost of each idle node left out.
    left_out: f64,
    keys: Vec<u64>,
}

impl<'a> Prices<'a> {
    /// The prices beside drafts that cost about `cost`, where there are `sets` legal sets of stages.
    pub(crate) fn new(
        rotation: &'a Rotation,
        idle: &'a [u32],
        view: &SwarmView,
        sets: f64,
        cost: u64,
    ) -> Self {
        let count = view.quotas.iter().sum::<u32>();
        let even = ((rotation.total + f64::from(count)) / sets.max(1.0)).max(1.0);
        let whole = cost as f64;
        Self {
            rotation,
            idle,
            numbers: (0..view.stages.len()).map(|stage| key_of(std::iter::once(stage))).collect(),
            each: if rotation.hurried { 0.0 } else { whole * PRICE / f64::from(count.max(1)) / cube(even) },
            left_out: whole * IDLE_PRICE,
            keys: Vec::new(),
        }
    }

    /// The price of a draft.
    pub(crate) fn price(&mut self, draft: &Draft) -> u64 {
        let mut price = 0.0;
        let length = draft.path(0).len();
        if length > 1 && self.each > 0.0 {
            self.keys.clear();
            for path in draft.schedule.nodes.chunks_exact(length) {
                let number = |node: &u32| self.numbers[draft.stage_of(*node)];
                self.keys.push(path[1..].iter().map(number).fold(0, u64::wrapping_add));
            }
            self.keys.sort_unstable();
            for same in self.keys.chunk_by(|a, b| a == b) {
                let taken = self.rotation.sets.get(&same[0]).copied().unwrap_or(0.0);
                // The k-th of them costs as much as sets that were taken `taken + k` times.
                price += (1..=same.len()).map(|k| self.each * cube(taken + k as f64)).sum::<f64>();
            }
        }
        let out = self.idle.iter().filter(|node| !draft.schedule.nodes.contains(node)).count();
        (price + self.left_out * out as f64) as u64
    }
}

/// Steep: what is a little over its share costs little, twice the share is out of reach.
fn cube(times: f64) -> f64 {
    times * times * times
}
