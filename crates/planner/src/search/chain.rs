//! One chain of simulated annealing.

use super::draft::Draft;
use super::moves::Moves;
use super::objective::{Guide, Score};
use crate::compiled::CompiledInstance;
use crate::random::Random;
use crate::simulate::Simulator;

/// A draft that changes at random, less and less often for the worse.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) current: Draft,
    pub(crate) score: Score,
    pub(crate) best: Draft,
    pub(crate) best_score: Score,
    candidate: Draft,
    simulator: Simulator,
    random: Random,
}

impl Chain {
    /// A chain that starts at `draft`.
    pub(crate) fn new(compiled: &CompiledInstance, guide: &Guide, draft: Draft, random: Random) -> Self {
        let mut simulator = Simulator::default();
        let score = guide.score(compiled, &draft, &mut simulator, u64::MAX).unwrap_or(Score::WORST);
        Self {
            candidate: draft.clone(),
            best: draft.clone(),
            current: draft,
            score,
            best_score: score,
            simulator,
            random,
        }
    }

    /// Goes on from another draft.
    pub(crate) fn adopt(&mut self, draft: &Draft, score: Score) {
        self.current.clone_from(draft);
        self.score = score;
        if score.is_better(&self.best_score) {
            self.best.clone_from(draft);
            self.best_score = score;
        }
    }

    /// Counts again after the all-reduce of nodes beyond has changed.
    pub(crate) fn refresh(&mut self, compiled: &CompiledInstance, guide: &Guide) {
        for (draft, score) in [(&mut self.current, &mut self.score), (&mut self.best, &mut self.best_score)] {
            draft.refresh(compiled);
            *score = guide.score(compiled, draft, &mut self.simulator, u64::MAX).unwrap_or(Score::WORST);
        }
    }

    /// Tries `work` candidates at a temperature in units of cost.
    pub(crate) fn run(
        &mut self,
        compiled: &CompiledInstance,
        guide: &Guide,
        moves: &Moves,
        temperature: f64,
        work: u64,
    ) {
        for _ in 0..work {
            self.candidate.clone_from(&self.current);
            if !moves.step(compiled, &mut self.candidate, &mut self.random) {
                continue;
            }
            let worse = (temperature * self.random.exponential()) as u64;
            let limit = self.score.cost.saturating_add(worse);
            let Some(score) = guide.score(compiled, &self.candidate, &mut self.simulator, limit) else {
                continue;
            };
            std::mem::swap(&mut self.current, &mut self.candidate);
            self.score = score;
            if score.is_better(&self.best_score) {
                self.best.clone_from(&self.current);
                self.best_score = score;
            }
        }
    }
}
