//! A start for a search: placement and paths annealed over an estimate that simulates nothing.

use rayon::prelude::*;

use super::anneal::Cooling;
use super::draft::Draft;
use super::estimate::Estimate;
use super::moves::Moves;
use super::objective::Guide;
use crate::compiled::CompiledInstance;
use crate::random::Random;
use crate::simulate::Simulator;

/// Estimates that are counted as one candidate, which they take about as long as.
pub(crate) const ESTIMATES: u64 = 16;
/// Candidates that each outline is counted as between marks.
const BLOCK: u64 = 256;

/// A draft that changes at random, judged by its estimate.
struct Outline {
    current: Draft,
    estimate: Estimate,
    best: Draft,
    best_cost: f64,
    candidate: Draft,
    followed: Estimate,
    random: Random,
}

impl Outline {
    fn new(compiled: &CompiledInstance, guide: &Guide, draft: Draft, random: Random) -> Self {
        let estimate = Estimate::new(compiled, guide, &draft);
        Self {
            best: draft.clone(),
            best_cost: estimate.cost,
            candidate: draft.clone(),
            current: draft,
            followed: estimate.clone(),
            estimate,
            random,
        }
    }

    fn run(
        &mut self,
        compiled: &CompiledInstance,
        guide: &Guide,
        moves: &Moves,
        temperature: f64,
        steps: u64,
    ) {
        for _ in 0..steps {
            self.candidate.step_back(&self.current);
            if !moves.step(compiled, &mut self.candidate, &mut self.random) {
                continue;
            }
            self.followed.follow(compiled, guide, (&self.estimate, &self.current), &self.candidate);
            if self.followed.cost > self.estimate.cost + temperature * self.random.exponential() {
                continue;
            }
            std::mem::swap(&mut self.current, &mut self.candidate);
            std::mem::swap(&mut self.estimate, &mut self.followed);
            if self.estimate.cost < self.best_cost {
                self.best.clone_from(&self.current);
                self.best_cost = self.estimate.cost;
            }
        }
    }
}

/// Anneals each of `drafts` over its estimate until `progress` says 1: the best draft that each comes to, that of the least
/// estimate first, and the candidates that all are counted as. A draft that would never end is left as it came.
pub(crate) fn outline(
    compiled: &CompiledInstance,
    guide: &Guide,
    moves: &Moves,
    drafts: Vec<Draft>,
    seed: u64,
    progress: &mut dyn FnMut(u64) -> f64,
) -> (Vec<Draft>, u64) {
    let start = |(index, draft): (usize, &Draft)| {
        let random = Random::new(&[seed, index as u64, 0x006f_7574_6c69_6e65]);
        Outline::new(compiled, guide, draft.clone(), random)
    };
    let mut outlines: Vec<Outline> = drafts.iter().enumerate().map(start).collect();
    let mut work = 0;
    loop {
        let done = progress(work);
        if done >= 1.0 {
            break;
        }
        outlines.par_iter_mut().for_each(|outline| {
            let temperature = Cooling::OUTLINE.temperature(done, outline.best_cost as u64);
            outline.run(compiled, guide, moves, temperature, BLOCK * ESTIMATES);
        });
        work += BLOCK * outlines.len() as u64;
    }
    let simulator = &mut Simulator::default();
    let mut found: Vec<(f64, Draft)> = outlines
        .into_iter()
        .zip(drafts)
        .map(|(outline, draft)| {
            let ends = guide.score(compiled, &outline.best, simulator, u64::MAX).is_some();
            if ends { (outline.best_cost, outline.best) } else { (f64::INFINITY, draft) }
        })
        .collect();
    found.sort_by(|one, other| one.0.total_cmp(&other.0));
    (found.into_iter().map(|(_, draft)| draft).collect(), work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{DrawnSize, draw_instance};
    use crate::search::construct::first_draft;
    use crate::search::{Objective, Score};

    #[test]
    fn what_an_estimate_finds_good_is_good() {
        for (seed, objective) in
            [(1, Objective::Iteration), (2, Objective::Makespan), (3, Objective::Iteration)]
        {
            let size = DrawnSize { nodes: 40, stages: 6, path_len: 4, regions: 10 };
            let compiled = CompiledInstance::new(&draw_instance(size, seed)).expect("an instance");
            let guide = Guide::new(&compiled, objective);
            let draft = |chain| first_draft(&compiled, &guide, &mut Random::new(&[seed, chain]));
            let drafts: Vec<Draft> = (0..2).filter_map(draft).collect();
            assert_eq!(drafts.len(), 2);
            let simulator = &mut Simulator::default();
            let mut best = |drafts: &[Draft]| {
                let mut score =
                    |draft| guide.score(&compiled, draft, simulator, u64::MAX).unwrap_or(Score::WORST);
                drafts.iter().map(|draft| score(draft).objective_us).min().unwrap_or(u64::MAX)
            };
            let before = best(&drafts);
            let mut progress = |work: u64| work as f64 / 20_000.0;
            let (drafts, _) = outline(&compiled, &guide, &Moves::new(&compiled), drafts, seed, &mut progress);
            let after = best(&drafts);
            assert!(after < before, "seed {seed}: {after} {before}");
            assert!(
                drafts.iter().all(|draft| (0..draft.len()).all(|place| draft.is_legal(&compiled, place)))
            );
        }
    }
}
