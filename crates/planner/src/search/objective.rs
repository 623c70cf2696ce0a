//! What a search makes small.

use super::domains::lost_with_a_region;
use super::draft::Draft;
use crate::compiled::{CompiledInstance, MICROSECONDS};
use crate::simulate::{CostWeights, Simulator, Verdict};

/// What a plan is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Objective {
    /// Makespan and all-reduce.
    #[default]
    Iteration,
    /// The makespan alone, as the papers do.
    Makespan,
}

/// The cost that guides the search: the objective in microseconds times a weight, plus the sum of all microbatches'
/// ends, which tells drafts of equal makespan apart; and a penalty for an all-reduce above the limit.
#[derive(Debug, Clone)]
pub(crate) struct Guide {
    weights: CostWeights,
    counts_allreduce: bool,
    allreduce_us_max: u64,
    /// Microseconds that each stage lost with a region counts.
    domain_price_us: u64,
}

/// A draft's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Score {
    /// What the search compares.
    pub(crate) cost: u64,
    /// The objective, microseconds.
    pub(crate) objective_us: u64,
    /// Whether the all-reduce keeps to the limit.
    pub(crate) allowed: bool,
}

/// What all drafts of one placement have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed {
    /// What the search compares.
    pub(crate) cost: u64,
    /// The objective but for the makespan, microseconds.
    objective_us: u64,
    /// Whether the all-reduce keeps to the limit.
    allowed: bool,
}

impl Score {
    /// Worse than any.
    pub(crate) const WORST: Self = Self { cost: u64::MAX, objective_us: u64::MAX, allowed: false };

    /// Whether this is the better plan to hand out.
    pub(crate) fn is_better(&self, other: &Self) -> bool {
        (!self.allowed, self.objective_us, self.cost) < (!other.allowed, other.objective_us, other.cost)
    }
}

/// How many times the excess of an all-reduce above the limit counts, in objectives.
const PENALTY: u64 = 8;

impl Guide {
    /// The guide for an objective.
    pub(crate) fn new(compiled: &CompiledInstance, objective: Objective) -> Self {
        let instance = compiled.instance();
        let most = instance.dp_allreduce_max_s.filter(|most| *most > 0.0);
        Self {
            weights: CostWeights { makespan: u64::from(instance.total_microbatches) * SHARPNESS, finish: 1 },
            counts_allreduce: objective == Objective::Iteration,
            allreduce_us_max: most.map_or(u64::MAX, |most| (most * MICROSECONDS).floor() as u64),
            domain_price_us: 0,
        }
    }

    /// The same where stages lost with a region count.
    pub(crate) fn with_domains(self, price_s: f64) -> Self {
        Self { domain_price_us: (price_s * MICROSECONDS) as u64, ..self }
    }

    /// What a placement's all-reduce adds to the objective, microseconds; none where it is above the limit.
    pub(crate) fn allreduce_us(&self, compiled: &CompiledInstance, stages: &[Vec<u32>]) -> Option<u64> {
        let allreduce_us = (compiled.allreduce_s(stages) * MICROSECONDS).ceil() as u64;
        let counted = if self.counts_allreduce { allreduce_us } else { 0 };
        (allreduce_us <= self.allreduce_us_max).then_some(counted)
    }

    /// What is made small.
    pub(crate) fn objective(&self) -> Objective {
        if self.counts_allreduce { Objective::Iteration } else { Objective::Makespan }
    }

    /// What a draft's placement alone adds to its figures.
    pub(crate) fn fixed(&self, compiled: &CompiledInstance, draft: &Draft) -> Fixed {
        let allreduce_us = draft.slowest_allreduce_us();
        let counted = if self.counts_allreduce && !compiled.has_coordinator() { allreduce_us } else { 0 };
        // The mean over stages shows the way where another stage than the one changed is the slowest.
        let mean = draft.allreduce_us.iter().sum::<u64>() / draft.allreduce_us.len().max(1) as u64;
        let smooth = if self.counts_allreduce { mean } else { 0 };
        let excess = allreduce_us.saturating_sub(self.allreduce_us_max);
        let lost = if self.domain_price_us == 0 { 0 } else { lost_with_a_region(compiled, &draft.stages) };
        let apart = self.domain_price_us.saturating_mul(u64::from(lost));
        let cost = counted
            .saturating_add(smooth)
            .saturating_add(apart)
            .saturating_add(excess.saturating_mul(PENALTY))
            .saturating_mul(self.weights.makespan);
        Fixed { cost, objective_us: counted.saturating_add(apart), allowed: excess == 0 }
    }

    /// The cost of a makespan and of the sum of all ends, both in microseconds.
    pub(crate) fn cost(&self, makespan_us: f64, finish_us: f64) -> f64 {
        makespan_us * self.weights.makespan as f64 + finish_us * self.weights.finish as f64
    }

    /// The score of a draft; none where its cost is above `limit`, or where it never ends.
    pub(crate) fn score(
        &self,
        compiled: &CompiledInstance,
        draft: &Draft,
        simulator: &mut Simulator,
        limit: u64,
    ) -> Option<Score> {
        if compiled.has_coordinator() {
            // A stage's sum waits for its own nodes only.
            let tail = |node: u32| compiled.way_us(node as usize) + draft.allreduce_us[draft.stage_of(node)];
            simulator.set_tails((0..compiled.nodes() as u32).map(tail));
        }
        let Fixed { cost: fixed, objective_us: known_us, allowed } = self.fixed(compiled, draft);
        let limit = limit.checked_sub(fixed)?;
        match simulator.run(compiled, &draft.schedule, self.weights, limit, &mut ()) {
            Verdict::Done { makespan_us, finish_us } => {
                let cost = self.weights.cost(makespan_us, finish_us);
                (cost <= limit).then_some(Score {
                    cost: cost.saturating_add(fixed),
                    objective_us: makespan_us.saturating_add(known_us),
                    allowed,
                })
            }
            Verdict::Over | Verdict::Deadlock { .. } => None,
        }
    }
}

/// Weight of the makespan against the mean of all ends.
const SHARPNESS: u64 = 1;
