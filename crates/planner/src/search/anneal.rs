//! Several chains of simulated annealing that share what they find.

use rayon::prelude::*;

use super::chain::Chain;
use super::draft::Draft;
use super::moves::Moves;
use super::objective::{Guide, Score};
use crate::compiled::CompiledInstance;
use crate::random::Random;

/// Candidates × microbatches that a chain tries between marks.
const BLOCK: u64 = 30_000;
/// How often the worst of two chains goes on from the best one's draft.
const EXCHANGES: f64 = 24.0;
/// The same from outlines, which differ in their placement: it takes a while to see which one leads further.
const OUTLINED_EXCHANGES: f64 = 5.0;

/// How hot the chains are, as a share of the best cost, and how much they share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cooling {
    /// At the start.
    pub(crate) hot: f64,
    /// At the end.
    pub(crate) cold: f64,
    /// How often the worst chain goes on from the best one's draft.
    pub(crate) exchanges: f64,
}

impl Cooling {
    /// From a random draft.
    pub(crate) const ANEW: Self = Self { hot: 0.006, cold: 0.0003, exchanges: EXCHANGES };
    /// The same, where chains begin so differently that each is to go its own way.
    pub(crate) const APART: Self = Self { exchanges: 0.0, ..Self::ANEW };
    /// Of an outline, whose costs are estimates.
    pub(crate) const OUTLINE: Self = Self { hot: 0.006, cold: 0.0001, exchanges: EXCHANGES };
    /// From an outline.
    pub(crate) const OUTLINED: Self = Self { hot: 0.0006, cold: 0.0001, exchanges: OUTLINED_EXCHANGES };
    /// From a good draft of a slightly different problem.
    pub(crate) const WARM: Self = Self { hot: 0.003, cold: 0.0002, exchanges: EXCHANGES };

    /// The temperature when a part `done` of the search lies behind.
    pub(crate) fn temperature(self, done: f64, scale: u64) -> f64 {
        let left = (1.0 - done).max(0.0);
        scale as f64 * (self.cold + (self.hot - self.cold) * left * left * left)
    }
}

/// The chains' outcome.
#[derive(Debug)]
pub(crate) struct Annealed {
    pub(crate) draft: Draft,
    pub(crate) score: Score,
    pub(crate) work: u64,
}

/// Anneals one chain from each of `drafts`, at least one. The outcome depends on the drafts, the seed and what `progress`
/// answers, not on the number of threads.
pub(crate) fn anneal(
    compiled: &CompiledInstance,
    guide: &Guide,
    moves: &Moves,
    drafts: Vec<Draft>,
    cooling: Cooling,
    seed: u64,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Option<Annealed> {
    let start = |(index, draft): (usize, Draft)| {
        Chain::new(compiled, guide, draft, Random::new(&[seed, index as u64, 0x616e_6e65_616c]))
    };
    let mut chains: Vec<Chain> = drafts.into_iter().enumerate().map(start).collect();
    let block = (BLOCK / u64::from(compiled.instance().total_microbatches)).clamp(1, 1024);
    let (mut work, mut exchanged) = (0, 0);
    loop {
        let done = progress(work);
        if done >= 1.0 || chains.is_empty() {
            break;
        }
        let scale = chains.iter().map(|chain| chain.score.cost).min().unwrap_or(0);
        let temperature = cooling.temperature(done, scale);
        chains.par_iter_mut().for_each(|chain| chain.run(compiled, guide, moves, temperature, block));
        work += block * chains.len() as u64;
        let mark = (done * cooling.exchanges) as u64;
        if mark > exchanged {
            exchanged = mark;
            share_best(compiled, guide, &mut chains);
        }
    }
    let mut chains = chains.into_iter();
    let first = chains.next()?;
    let best = chains
        .fold(first, |best, chain| if chain.best_score.is_better(&best.best_score) { chain } else { best });
    Some(Annealed { draft: best.best, score: best.best_score, work })
}

/// The worst chain goes on from the draft of the best.
fn share_best(compiled: &CompiledInstance, guide: &Guide, chains: &mut [Chain]) {
    let best = (0..chains.len()).min_by_key(|index| (chains[*index].score.cost, *index));
    let worst = (0..chains.len()).max_by_key(|index| (chains[*index].score.cost, *index));
    if let (Some(best), Some(worst)) = (best, worst)
        && best != worst
    {
        let (draft, score) = (chains[best].current.clone(), chains[best].score);
        chains[worst].adopt(compiled, guide, &draft, score);
    }
}
