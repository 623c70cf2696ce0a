//! One chain of simulated annealing.

use super::draft::Draft;
use super::estimate::Estimate;
use super::moves::Moves;
use super::objective::{Guide, Score};
use super::outline::ESTIMATES;
use super::reroute::Rerouter;
use crate::compiled::CompiledInstance;
use crate::random::Random;
use crate::simulate::Simulator;

/// How many times the temperature an estimate may rise for a candidate to be simulated, in the mean of what is drawn. An
/// estimate does not know who waits for whom, so it only keeps out what is far off.
pub(crate) const FAR_OFF: f64 = 16.0;

/// A draft that changes at random, less and less often for the worse.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) current: Draft,
    pub(crate) score: Score,
    pub(crate) best: Draft,
    pub(crate) best_score: Score,
    estimate: Estimate,
    candidate: Draft,
    followed: Estimate,
    simulator: Simulator,
    rerouter: Rerouter,
    /// Microbatches that get another way.
    rerouted: Vec<usize>,
    random: Random,
}

impl Chain {
    /// A chain that starts at `draft`.
    pub(crate) fn new(compiled: &CompiledInstance, guide: &Guide, draft: Draft, random: Random) -> Self {
        let mut simulator = Simulator::default();
        let score = guide.score(compiled, &draft, &mut simulator, u64::MAX).unwrap_or(Score::WORST);
        let estimate = Estimate::new(compiled, guide, &draft);
        Self {
            followed: estimate.clone(),
            estimate,
            candidate: draft.clone(),
            best: draft.clone(),
            current: draft,
            score,
            best_score: score,
            simulator,
            rerouter: Rerouter::default(),
            rerouted: Vec::new(),
            random,
        }
    }

    /// Goes on from another draft.
    pub(crate) fn adopt(&mut self, compiled: &CompiledInstance, guide: &Guide, draft: &Draft, score: Score) {
        self.current.clone_from(draft);
        self.rerouter.forget();
        self.estimate = Estimate::new(compiled, guide, draft);
        self.score = score;
        if score.is_better(&self.best_score) {
            self.best.clone_from(draft);
            self.best_score = score;
        }
    }

    /// Counts again after the all-reduce of nodes beyond has changed.
    pub(crate) fn refresh(&mut self, compiled: &CompiledInstance, guide: &Guide) {
        self.rerouter.forget();
        for (draft, score) in [(&mut self.current, &mut self.score), (&mut self.best, &mut self.best_score)] {
            draft.refresh(compiled);
            *score = guide.score(compiled, draft, &mut self.simulator, u64::MAX).unwrap_or(Score::WORST);
        }
        self.estimate = Estimate::new(compiled, guide, &self.current);
    }

    /// Tries `work` candidates at a temperature in units of cost. Those whose estimate is far off are not simulated, and count
    /// less.
    pub(crate) fn run(
        &mut self,
        compiled: &CompiledInstance,
        guide: &Guide,
        moves: &Moves,
        temperature: f64,
        work: u64,
    ) {
        let mut left = work * ESTIMATES;
        while left > 0 {
            left -= 1;
            self.candidate.step_back(&self.current);
            let is_step = if moves.reroutes(&mut self.random) {
                // Looking for the ways takes about as long as a simulation.
                left = left.saturating_sub(ESTIMATES);
                self.reroute(compiled, moves, temperature)
            } else {
                moves.step(compiled, &mut self.candidate, &mut self.random)
            };
            if is_step && !compiled.has_coordinator() {
                self.followed.follow(compiled, guide, (&self.estimate, &self.current), &self.candidate);
                let far_off = FAR_OFF * temperature * self.random.exponential();
                if self.followed.cost > self.estimate.cost + far_off {
                    continue;
                }
            }
            left = left.saturating_sub(ESTIMATES - 1);
            if !is_step {
                continue;
            }
            let worse = (temperature * self.random.exponential()) as u64;
            let limit = self.score.cost.saturating_add(worse);
            let Some(score) = guide.score(compiled, &self.candidate, &mut self.simulator, limit) else {
                continue;
            };
            std::mem::swap(&mut self.current, &mut self.candidate);
            self.rerouter.forget();
            std::mem::swap(&mut self.estimate, &mut self.followed);
            self.score = score;
            if score.is_better(&self.best_score) {
                self.best.clone_from(&self.current);
                self.best_score = score;
            }
        }
    }

    /// Makes the candidate one in which a microbatch, or those that a step has changed the stages of, take the ways that end
    /// first.
    fn reroute(&mut self, compiled: &CompiledInstance, moves: &Moves, temperature: f64) -> bool {
        let Self { current, candidate, rerouted, random, .. } = self;
        rerouted.clear();
        if random.below(2) == 0 {
            rerouted.push(random.below(current.len()));
        } else if moves.step_of_stages(compiled, candidate, random) {
            let changed = |microbatch: &usize| current.path(*microbatch) != candidate.path(*microbatch);
            rerouted.extend((0..current.len()).filter(changed));
        } else {
            return false;
        }
        // In the mean an end may be as much later as one makespan among all ends may.
        let noise_us = temperature / f64::from(compiled.instance().total_microbatches.max(1));
        let drafts = (&*current, candidate);
        self.rerouter.reroute(compiled, &mut self.simulator, drafts, rerouted, noise_us, random)
    }
}
