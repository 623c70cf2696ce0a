//! A placement for a start, by what regions alone tell.

use super::construct::stage_sizes;
use super::objective::Objective;
use crate::compiled::{CompiledInstance, MICROSECONDS};
use crate::random::Random;

/// Above so many regions the estimate costs more than it brings, and the placement stays random.
const REGIONS_MAX: usize = 64;
/// Steps for each node.
const STEPS: usize = 200;
/// Most steps.
const STEPS_MAX: usize = 60_000;

/// Stages whose nodes are near to the origins that use them, and whose replicas are near to each other where the
/// all-reduce counts: annealed over an estimate that sees only how many nodes of each region a stage has.
///
/// The estimate of a round trip: relays of a stage are matched with origins at least cost (greedily), each stage
/// counts for the share of paths that visit it, each visit for two ways there and back. `spares`, ascending, get no seat.
pub(crate) fn placed_by_regions(
    compiled: &CompiledInstance,
    objective: Objective,
    spares: &[u32],
    random: &mut Random,
) -> Vec<Vec<u32>> {
    let has_seat = |node: &u32| spares.binary_search(node).is_err();
    let mut order: Vec<u32> = (0..compiled.nodes() as u32).filter(has_seat).collect();
    random.shuffle(&mut order);
    // Who can only be an origin comes first, who can only be a relay last.
    order.sort_by_key(|node| {
        let may = |stage| u8::from(compiled.may_serve(*node as usize, stage));
        1 + may(1) - may(0)
    });
    let sizes = stage_sizes(compiled);
    let mut stage_of: Vec<usize> =
        sizes.iter().enumerate().flat_map(|(stage, size)| vec![stage; *size]).collect();
    let stages = sizes.len();
    if stages > 1 && compiled.regions > 1 && compiled.regions <= REGIONS_MAX {
        let mut estimate = Estimate::new(compiled, objective, &order, &stage_of, stages);
        let steps = (compiled.nodes() * STEPS).min(STEPS_MAX);
        let mut cost = estimate.cost();
        let hot = cost * 0.02;
        for step in 0..steps {
            let (a, b) = (random.below(order.len()), random.below(order.len()));
            let (stage_a, stage_b) = (stage_of[a], stage_of[b]);
            let region = |place: usize| compiled.region[order[place] as usize] as usize;
            let may = |place: usize, stage| compiled.may_serve(order[place] as usize, stage);
            if stage_a == stage_b || region(a) == region(b) || !may(a, stage_b) || !may(b, stage_a) {
                continue;
            }
            estimate.trade(compiled, (stage_a, region(a)), (stage_b, region(b)));
            let after = estimate.cost();
            let left = 1.0 - step as f64 / steps as f64;
            if after <= cost + hot * left * left * random.exponential() {
                cost = after;
                stage_of.swap(a, b);
            } else {
                estimate.trade(compiled, (stage_a, region(b)), (stage_b, region(a)));
            }
        }
    }
    let mut placed = vec![Vec::new(); stages];
    for (place, stage) in stage_of.iter().enumerate() {
        placed[*stage].push(order[place]);
    }
    placed
}

struct Estimate {
    /// Nodes by stage and region.
    counts: Vec<Vec<u32>>,
    /// Pairs of regions, nearest first, with their transfer time in seconds.
    pairs: Vec<(f64, usize, usize)>,
    /// Seconds of all-reduce, by stage; zero where it does not count.
    allreduce: Vec<f64>,
    /// Mean seconds from an origin to its relay, by stage.
    reach: Vec<f64>,
    /// How often a mean way counts in the makespan.
    ways: f64,
    /// Whether the all-reduce counts.
    counts_allreduce: bool,
}

impl Estimate {
    fn new(
        compiled: &CompiledInstance,
        objective: Objective,
        order: &[u32],
        stage_of: &[usize],
        stages: usize,
    ) -> Self {
        let regions = compiled.regions;
        let mut counts = vec![vec![0; regions]; stages];
        for (node, stage) in order.iter().zip(stage_of) {
            counts[*stage][compiled.region[*node as usize] as usize] += 1;
        }
        let mut pairs = Vec::with_capacity(regions * regions);
        for a in 0..regions {
            for b in 0..regions {
                pairs.push((compiled.region_transfer_us(a, b) as f64 / MICROSECONDS, a, b));
            }
        }
        pairs.sort_unstable_by(|x, y| x.0.total_cmp(&y.0).then((x.1, x.2).cmp(&(y.1, y.2))));
        let instance = compiled.instance();
        let slots: u32 = compiled.memory.iter().copied().min().unwrap_or(1);
        let turns =
            f64::from(instance.total_microbatches) / instance.origins().max(1) as f64 / f64::from(slots);
        let length = f64::from(instance.path_len);
        let mut estimate = Self {
            counts,
            pairs,
            allreduce: vec![0.0; stages],
            reach: vec![0.0; stages],
            ways: turns.max(1.0) * 2.0 * length / (stages as f64 - 1.0),
            counts_allreduce: objective == Objective::Iteration || instance.dp_allreduce_max_s.is_some(),
        };
        (0..stages).for_each(|stage| estimate.refresh(compiled, stage));
        estimate
    }

    fn cost(&self) -> f64 {
        let slowest = self.allreduce.iter().copied().fold(0.0, f64::max);
        let mean = self.allreduce.iter().sum::<f64>() / self.allreduce.len() as f64;
        slowest + mean + self.ways * self.reach.iter().sum::<f64>()
    }

    /// A node of region `a.1` leaves stage `a.0` for `b.0`, and one of region `b.1` takes its place.
    fn trade(&mut self, compiled: &CompiledInstance, a: (usize, usize), b: (usize, usize)) {
        self.counts[a.0][a.1] -= 1;
        self.counts[a.0][b.1] += 1;
        self.counts[b.0][b.1] -= 1;
        self.counts[b.0][a.1] += 1;
        if a.0 == 0 || b.0 == 0 {
            (0..self.counts.len()).for_each(|stage| self.refresh_reach(stage));
        } else {
            self.refresh_reach(a.0);
            self.refresh_reach(b.0);
        }
        self.refresh_allreduce(compiled, a.0);
        self.refresh_allreduce(compiled, b.0);
    }

    fn refresh(&mut self, compiled: &CompiledInstance, stage: usize) {
        self.refresh_reach(stage);
        self.refresh_allreduce(compiled, stage);
    }

    fn refresh_allreduce(&mut self, compiled: &CompiledInstance, stage: usize) {
        if self.counts_allreduce {
            self.allreduce[stage] = compiled.allreduce_of_regions_s(stage, &self.counts[stage]);
        }
    }

    /// Greedy transport from origins to the stage's nodes, both scaled to one.
    fn refresh_reach(&mut self, stage: usize) {
        if stage == 0 {
            return;
        }
        let share = |counts: &[u32]| -> Vec<f64> {
            let total: u32 = counts.iter().sum();
            counts.iter().map(|count| f64::from(*count) / f64::from(total.max(1))).collect()
        };
        let (mut want, mut have) = (share(&self.counts[0]), share(&self.counts[stage]));
        let mut reach = 0.0;
        for (seconds, origin, relay) in &self.pairs {
            let moved = want[*origin].min(have[*relay]);
            if moved > 0.0 {
                reach += seconds * moved;
                want[*origin] -= moved;
                have[*relay] -= moved;
            }
        }
        self.reach[stage] = reach;
    }
}
