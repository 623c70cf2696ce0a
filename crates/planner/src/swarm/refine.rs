//! A short walk from a draft to a better one.

use super::rotation::Prices;
use crate::compiled::CompiledInstance;
use crate::random::Random;
use crate::search::{Cooling, Draft, Guide, Moves, Score};
use crate::simulate::Simulator;

/// Anneals `draft`, of that score, over `work` candidates that leave every stage its visits; the best seen, prices included.
pub(crate) fn refine(
    compiled: &CompiledInstance,
    guide: &Guide,
    prices: &mut Prices<'_>,
    (draft, score): (Draft, Score),
    work: u64,
    random: &mut Random,
    simulator: &mut Simulator,
) -> (Draft, Score) {
    let moves = Moves::of_even_paths();
    let mut score = score;
    let mut price = prices.price(&draft);
    let (mut best, mut best_score, mut best_cost) = (draft.clone(), score, score.cost + price);
    let mut candidate = draft.clone();
    let mut current = draft;
    let scale = score.cost;
    for step in 0..work {
        candidate.clone_from(&current);
        if current.path(0).len() < 2 || !moves.step(compiled, &mut candidate, random) {
            continue;
        }
        let temperature = Cooling::WARM.temperature(step as f64 / work as f64, scale);
        let worse = (temperature * random.exponential()) as u64;
        let asked = prices.price(&candidate);
        let Some(limit) = (score.cost + price).saturating_add(worse).checked_sub(asked) else { continue };
        let Some(found) = guide.score(compiled, &candidate, simulator, limit) else { continue };
        std::mem::swap(&mut current, &mut candidate);
        (score, price) = (found, asked);
        if score.cost + price < best_cost {
            best.clone_from(&current);
            (best_score, best_cost) = (score, score.cost + price);
        }
    }
    (best, best_score)
}
