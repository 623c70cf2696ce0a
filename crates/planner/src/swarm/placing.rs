//! Which node should serve which stage, while a swarm trains: answers to [`PlaceProblem`]s.

use skipstone_types::{Attempt, NodeId, PlaceAnswer, PlaceProblem, PlanEpoch, PlanProblem, StageId, Swap};

use super::chooser::{Bench, SwarmChooser};
use super::description::SwarmNode;
use super::place::{Shape, place_sizes};
use crate::compiled::MICROSECONDS;
use crate::search::SearchOptions;

/// Candidates × visits of the first search: 50 000 candidates at 30 microbatches of 4 visits, about two seconds.
const FIRST_WORK: u64 = 6_000_000;
/// Most candidates of it: small swarms need no more.
const FIRST_CANDIDATES_MAX: u64 = 50_000;
/// The share of it that tells how long an iteration takes, where the price of common failures follows from that.
const TRIAL_SHARE: f64 = 0.2;
/// What a stage that one region can take away counts, as a share of an iteration, where nobody says.
const DOMAIN_PRICE: f64 = 0.02;
/// Visits × pairs of a node and a stage, or of two nodes, that are looked at; of more, none.
const PAIRS_WORK_MAX: usize = 100_000;
/// Candidates × visits that each of the best few gets, to tell them apart.
const CLOSER_WORK: u64 = 40_000;
/// How many those are.
const CLOSER_COUNT: usize = 6;
/// A swap must shorten an iteration by more than this share: estimates are no better.
const SWAP_GAIN_MIN: f64 = 0.05;
/// Numbers of a weight's state: itself and two moments.
const STATE_NUMBERS: f64 = 3.0;

/// Stage, place among its nodes, and who it is but for the id.
type Seat<'a> = Option<(StageId, usize, &'a SwarmNode)>;

/// A swarm as it could be, and what an iteration would take it.
#[derive(Debug, Clone, Copy)]
struct Worth {
    /// Microseconds of an iteration.
    iteration_us: u64,
    /// Stages and pairs that one region can take away.
    lost: u32,
}

impl Worth {
    fn cost_us(self, price_us: u64) -> u64 {
        self.iteration_us.saturating_add(price_us.saturating_mul(u64::from(self.lost)))
    }
}

impl SwarmChooser {
    /// Places the nodes of `problem.free`: all at once where nobody serves yet, by a search like [`super::place`]'s; else one
    /// after the other where an iteration gets shortest, by a short search over the paths. Where none is free, proposes that
    /// two nodes change places, if what that saves within `swap_within` iterations is more than the time for which their
    /// weights are on their way, and more than 5 % of an iteration.
    ///
    /// `hurry` tells, from 0 to 1, how much of the time that there is has passed; always 0 makes the answer a function of
    /// the description, the problem, and the problems before.
    pub fn answer(&mut self, problem: &PlaceProblem, hurry: &mut dyn FnMut() -> f64) -> PlaceAnswer {
        let nobody = PlaceAnswer { epoch: problem.epoch, ..PlaceAnswer::default() };
        let answer = if problem.nodes.iter().all(Vec::is_empty) {
            self.place_first(problem, hurry)
        } else if problem.free.is_empty() {
            self.propose_swap(problem, hurry)
        } else {
            self.place_free(problem, hurry)
        };
        answer.unwrap_or(nobody)
    }

    fn place_first(&self, problem: &PlaceProblem, hurry: &mut dyn FnMut() -> f64) -> Option<PlaceAnswer> {
        let nodes = problem.free.iter().map(|id| self.description.node(*id).cloned());
        let description = super::SwarmDescription {
            nodes: nodes.collect::<Option<Vec<_>>>()?,
            moved: std::collections::BTreeMap::new(),
            ..self.description.clone()
        };
        // Stages that are not to be had yet are left out.
        let stages: Vec<StageId> = open_stages(problem).collect();
        let sizes: Vec<u16> = stages.iter().map(|stage| problem.open[usize::from(stage.0)]).collect();
        let shape = Shape {
            roles: &[],
            sizes: &sizes,
            microbatches: problem.microbatches,
            path_length: problem.path_length.min(sizes.len() as u16),
            rules: problem.rules,
            edge_swaps: problem.edge_swaps,
        };
        let visits = u64::from(problem.microbatches) * u64::from(shape.path_length.max(1));
        let budget = (FIRST_WORK / visits.max(1)).clamp(1, FIRST_CANDIDATES_MAX) as f64;
        let mut options = SearchOptions { seed: problem.seed, ..SearchOptions::default() };
        let mut search = |options: &SearchOptions, from: f64, to: f64| {
            let mut progress =
                |work: u64| (work as f64 / (budget * (to - from))).max((hurry() - from) / (to - from));
            place_sizes(&description, &shape, options, &mut progress).ok()
        };
        let placement = if let Some(price_s) = self.domain_price_s {
            options.domain_price_s = price_s;
            search(&options, 0.0, 1.0)?
        } else {
            let trial = search(&options, 0.0, TRIAL_SHARE)?;
            options.domain_price_s = DOMAIN_PRICE * trial.expected_us as f64 / MICROSECONDS;
            search(&options, TRIAL_SHARE, 1.0)?
        };
        let members = stages.iter().zip(&placement.stages);
        let places = members
            .flat_map(|(stage, nodes)| nodes.iter().map(|node| (problem.free[*node as usize], *stage)))
            .collect();
        Some(PlaceAnswer {
            epoch: problem.epoch,
            places,
            swap: None,
            expected_us: Some(placement.expected_us),
            lost_with_a_region: Some(placement.lost_with_a_region),
            domain_price_us: (options.domain_price_s * MICROSECONDS) as u64,
        })
    }

    fn place_free(&self, problem: &PlaceProblem, hurry: &mut dyn FnMut() -> f64) -> Option<PlaceAnswer> {
        let mut swarm = problem.clone();
        let visits = problem.microbatches as usize * usize::from(problem.path_length);
        let pairs = problem.free.len() * open_stages(problem).count();
        if pairs * visits > PAIRS_WORK_MAX {
            return None;
        }
        let bench = &mut Bench::default();
        let price_us = self.price_us(self.worth(&swarm, 0, bench).map_or(0, |worth| worth.iteration_us));
        let (mut places, mut last) = (Vec::new(), None);
        while !swarm.free.is_empty() && hurry() < 1.0 {
            let tried = open_stages(&swarm).flat_map(|stage| swarm.free.iter().map(move |id| (*id, stage)));
            let mut known: Vec<(Seat<'_>, Option<Worth>)> = Vec::new();
            let best = tried
                .filter_map(|(id, stage)| {
                    let seat = self.seat(&swarm, id, stage);
                    let alike = known.iter().find(|(other, _)| seat.is_some() && seat == *other);
                    let worth = if let Some((_, worth)) = alike {
                        *worth
                    } else {
                        let mut with = swarm.clone();
                        let nodes = &mut with.nodes[usize::from(stage.0)];
                        nodes.insert(nodes.partition_point(|other| *other < id), id);
                        let worth = self.worth(&with, CLOSER_WORK, bench);
                        known.push((seat, worth));
                        worth
                    };
                    Some((worth?, stage, id))
                })
                .min_by_key(|(worth, stage, id)| (worth.cost_us(price_us), *stage, *id));
            let Some((worth, stage, id)) = best else { break };
            let nodes = &mut swarm.nodes[usize::from(stage.0)];
            nodes.insert(nodes.partition_point(|other| *other < id), id);
            swarm.free.retain(|other| *other != id);
            swarm.open[usize::from(stage.0)] -= 1;
            places.push((id, stage));
            last = Some(worth);
        }
        Some(PlaceAnswer {
            epoch: problem.epoch,
            places,
            swap: None,
            expected_us: last.map(|worth| worth.iteration_us),
            lost_with_a_region: last.map(|worth| worth.lost),
            domain_price_us: price_us,
        })
    }

    /// Where a node without a stage would sit. Two with the same seat make no difference: an estimate knows nodes by
    /// region, slowness and measured pace, and by their order among the others of their stage. None where its pace is known.
    fn seat<'a>(&'a self, swarm: &PlaceProblem, id: NodeId, stage: StageId) -> Seat<'a> {
        let node = self.description.node(id)?;
        let is_measured = swarm.paces.iter().any(|pace| pace.node == id);
        let place = swarm.nodes[usize::from(stage.0)].partition_point(|other| *other < id);
        (!is_measured).then_some((stage, place, node))
    }

    fn propose_swap(&self, problem: &PlaceProblem, hurry: &mut dyn FnMut() -> f64) -> Option<PlaceAnswer> {
        let placed = || {
            let stages = problem.nodes.iter().enumerate().filter(|(_, nodes)| nodes.len() > 1);
            stages.flat_map(|(stage, nodes)| nodes.iter().map(move |id| (stage, *id)))
        };
        let count = placed().count();
        let visits = problem.microbatches as usize * usize::from(problem.path_length);
        if count * count / 2 * visits > PAIRS_WORK_MAX || problem.swap_within == 0 {
            return None;
        }
        let bench = &mut Bench::default();
        let now = self.worth(problem, CLOSER_WORK, bench)?;
        let price_us = self.price_us(now.iteration_us);
        let before_us = now.cost_us(price_us);
        let mut tried = Vec::new();
        for a in placed() {
            for b in placed().filter(|b| a.0 < b.0) {
                if hurry() >= 1.0 {
                    return None;
                }
                if self.is_like(problem, a, b) {
                    continue;
                }
                let swapped = self.swapped(problem, a, b);
                if let Some(worth) = self.worth(&swapped, 0, bench) {
                    tried.push((worth.cost_us(price_us), a, b));
                }
            }
        }
        tried.sort_unstable();
        let mut best: Option<(u64, Swap, Worth)> = None;
        for (_, a, b) in tried.into_iter().take(CLOSER_COUNT) {
            let Some(worth) = self.worth(&self.swapped(problem, a, b), CLOSER_WORK, bench) else { continue };
            let after_us = worth.cost_us(price_us);
            let copies_us = self.copy_us(problem, a.1, b).max(self.copy_us(problem, b.1, a));
            let saved_us = before_us.saturating_sub(after_us);
            let pays = saved_us.saturating_mul(problem.swap_within) > copies_us
                && saved_us as f64 > SWAP_GAIN_MIN * before_us as f64;
            let swap = Swap { a: a.1, b: b.1, before_us, after_us, copies_us };
            if pays && best.as_ref().is_none_or(|(least_us, ..)| after_us < *least_us) {
                best = Some((after_us, swap, worth));
            }
        }
        let (_, swap, worth) = best?;
        Some(PlaceAnswer {
            epoch: problem.epoch,
            places: Vec::new(),
            swap: Some(swap),
            expected_us: Some(worth.iteration_us),
            lost_with_a_region: Some(worth.lost),
            domain_price_us: price_us,
        })
    }

    fn price_us(&self, iteration_us: u64) -> u64 {
        let share = DOMAIN_PRICE * iteration_us as f64;
        self.domain_price_s.map_or(share, |price_s| price_s * MICROSECONDS) as u64
    }

    /// Whether it makes no difference which of the two is where: they are in one region, and neither is known to be slower
    /// than the other by a tenth.
    fn is_like(&self, problem: &PlaceProblem, a: (usize, NodeId), b: (usize, NodeId)) -> bool {
        let region = |id| self.description.node(id).map(|node| &node.region);
        let pace = |(stage, id): (usize, NodeId)| {
            let pace = problem.paces.iter().find(|pace| pace.node == id)?;
            Some(pace.microbatch_us as f64 / self.microbatch_s(stage))
        };
        let alike =
            pace(a).zip(pace(b)).is_none_or(|(a, b)| (a / b.max(1.0e-9)).ln().abs() < 0.1_f64.ln_1p());
        region(a.1) == region(b.1) && alike
    }

    /// Seconds of a microbatch at a stage, on a node of slowness 1.
    fn microbatch_s(&self, stage: usize) -> f64 {
        if stage == 0 { self.description.origin.total_s() } else { self.description.relay.total_s() }
    }

    /// The problem where two nodes have changed places, with the paces that they would have there.
    fn swapped(&self, problem: &PlaceProblem, a: (usize, NodeId), b: (usize, NodeId)) -> PlaceProblem {
        let mut with = problem.clone();
        for ((from, id), (to, _)) in [(a, b), (b, a)] {
            with.nodes[from].retain(|other| *other != id);
            let nodes = &mut with.nodes[to];
            nodes.insert(nodes.partition_point(|other| *other < id), id);
            let times = |value: &mut u64, ratio: f64| *value = (*value as f64 * ratio) as u64;
            let bytes = |stage| self.description.gradient_bytes_of(stage).max(1.0);
            for pace in with.paces.iter_mut().filter(|pace| pace.node == id) {
                times(&mut pace.microbatch_us, self.microbatch_s(to) / self.microbatch_s(from));
                // Sums and steps go over the stage's weights.
                times(&mut pace.fixed_us, bytes(to) / bytes(from));
            }
        }
        with
    }

    /// Microseconds until a node has the state of another's stage, from the nearest of those who keep it.
    fn copy_us(&self, problem: &PlaceProblem, to: NodeId, (stage, leaves): (usize, NodeId)) -> u64 {
        let region = |id| self.description.node(id).map(|node| node.region.as_str());
        let bytes = STATE_NUMBERS * self.description.gradient_bytes_of(stage);
        let donors = problem.nodes[stage].iter().filter(|donor| **donor != leaves);
        let seconds = donors
            .filter_map(|donor| Some(self.description.way(region(*donor)?, region(to)?)?.tensor_s(bytes)));
        seconds.min_by(f64::total_cmp).map_or(u64::MAX, |seconds| (seconds * MICROSECONDS) as u64)
    }

    /// What an iteration would take, after a search of so many candidates × visits.
    fn worth(&self, problem: &PlaceProblem, work: u64, bench: &mut Bench) -> Option<Worth> {
        let planned = PlanProblem {
            epoch: PlanEpoch(problem.epoch),
            seed: problem.seed,
            iteration: problem.iteration,
            attempt: Attempt(0),
            nodes: problem.nodes.clone(),
            microbatches: problem.microbatches,
            path_length: problem.path_length,
            full: false,
            rules: problem.rules,
            paces: problem.paces.clone(),
            edge_swaps: problem.edge_swaps,
        };
        let (iteration_us, lost) = self.estimate(&planned, work, bench)?;
        Some(Worth { iteration_us, lost })
    }
}

/// Stages that want nodes.
fn open_stages(problem: &PlaceProblem) -> impl Iterator<Item = StageId> + '_ {
    let open = problem.open.iter().enumerate().filter(|(_, open)| **open > 0);
    open.map(|(stage, _)| StageId(stage as u16))
}
