//! A short walk from a draft to a better one.

use super::rotation::Prices;
use crate::compiled::CompiledInstance;
use crate::random::Random;
use crate::search::{Cooling, Draft, ESTIMATES, Estimate, FAR_OFF, Guide, Moves, Score};
use crate::simulate::Simulator;

/// How a walk goes.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Its steps.
    pub(crate) moves: Moves,
    /// Whether candidates whose estimate is far off are left out: they count less than those that are simulated.
    pub(crate) estimates: bool,
}

/// Anneals `draft`, of that score, over `work` candidates; the best seen, prices included.
pub(crate) fn refine(
    compiled: &CompiledInstance,
    guide: &Guide,
    walk: &Walk,
    prices: &mut Prices<'_>,
    (draft, score): (Draft, Score),
    work: u64,
    random: &mut Random,
    simulator: &mut Simulator,
) -> (Draft, Score) {
    let mut score = score;
    let mut price = prices.price(&draft);
    let (mut best, mut best_score, mut best_cost) = (draft.clone(), score, score.cost + price);
    let mut candidate = draft.clone();
    let mut current = draft;
    let mut estimates = walk.estimates.then(|| {
        let estimate = Estimate::new(compiled, guide, &current);
        (estimate.clone(), estimate)
    });
    let scale = score.cost;
    let simulated = if walk.estimates { ESTIMATES } else { 1 };
    let total = work * simulated;
    let mut left = total;
    while left > 0 {
        let done = (total - left) as f64 / total as f64;
        left -= 1;
        candidate.step_back(&current);
        if current.path(0).len() < 2 || !walk.moves.step(compiled, &mut candidate, random) {
            continue;
        }
        let temperature = Cooling::WARM.temperature(done, scale);
        if let Some((estimate, followed)) = &mut estimates {
            followed.follow(compiled, guide, (estimate, &current), &candidate);
            if followed.cost > estimate.cost + FAR_OFF * temperature * random.exponential() {
                continue;
            }
        }
        left = left.saturating_sub(simulated - 1);
        let worse = (temperature * random.exponential()) as u64;
        let asked = prices.price(&candidate);
        let Some(limit) = (score.cost + price).saturating_add(worse).checked_sub(asked) else { continue };
        let Some(found) = guide.score(compiled, &candidate, simulator, limit) else { continue };
        std::mem::swap(&mut current, &mut candidate);
        if let Some((estimate, followed)) = &mut estimates {
            std::mem::swap(estimate, followed);
        }
        (score, price) = (found, asked);
        if score.cost + price < best_cost {
            best.clone_from(&current);
            (best_score, best_cost) = (score, score.cost + price);
        }
    }
    (best, best_score)
}

#[cfg(test)]
mod tests {
    use super::super::description::SwarmDescription;
    use super::super::rotation::Rotation;
    use super::super::start::start;
    use super::super::view::SwarmView;
    use super::*;
    use crate::balanced::BalancedChooser;
    use crate::chooser::PathChooser;
    use crate::generate::{DrawnSize, draw_instance};
    use crate::search::Objective;
    use skipstone_types::{Attempt, EdgeSwaps, Iteration, NodeId, PathRules, PlanEpoch, PlanProblem};

    /// The same work, with a coordinator that orders the iteration and without.
    #[test]
    fn a_walk_that_leaves_out_what_is_far_off_comes_further() {
        for coordinator in [false, true] {
            let (mut with, mut without) = (0, 0);
            for seed in 0..6 {
                let mut instance =
                    draw_instance(DrawnSize { nodes: 20, stages: 6, path_len: 3, regions: 8 }, seed);
                instance.swap.max_distance = 0;
                let mut description = SwarmDescription::of_instance(&instance);
                description.coordinator = coordinator.then(|| instance.nodes[0].region.clone());
                let mut ids = (1..).map(NodeId);
                let problem = PlanProblem {
                    epoch: PlanEpoch(0),
                    seed,
                    iteration: Iteration(0),
                    attempt: Attempt(0),
                    nodes: [5, 3, 3, 3, 3, 3].map(|count| ids.by_ref().take(count).collect()).to_vec(),
                    microbatches: 30,
                    path_length: 3,
                    full: false,
                    rules: PathRules::default(),
                    paces: Vec::new(),
                    edge_swaps: EdgeSwaps::Off,
                };
                let balanced = BalancedChooser.choose(&problem).expect("feasible");
                let quotas = problem.nodes[0]
                    .iter()
                    .map(|id| balanced.paths.iter().filter(|path| path.0[0].node == *id).count() as u32);
                let view = SwarmView::new(&description, &problem, quotas.collect(), 2).expect("a view");
                let guide = Guide::new(&view.compiled, Objective::Iteration);
                let draft = start(&view, &problem, &balanced, &[], &[0, 12, 12, 12, 12, 12], &[]);
                let simulator = &mut Simulator::default();
                let score = guide.score(&view.compiled, &draft, simulator, u64::MAX).expect("it ends");
                let rotation = Rotation::hurried(&problem);
                for (estimates, sum) in [(true, &mut with), (false, &mut without)] {
                    let walk = Walk { moves: Moves::of_paths_within((6, 15)), estimates };
                    let mut prices = Prices::new(&rotation, &[], &view, 10.0, score.cost);
                    let random = &mut Random::new(&[seed]);
                    let from = (draft.clone(), score);
                    let compiled = &view.compiled;
                    let found = refine(compiled, &guide, &walk, &mut prices, from, 1500, random, simulator);
                    assert!(found.1.cost < score.cost);
                    *sum += found.1.objective_us;
                }
            }
            assert!(with < without, "coordinator {coordinator}: {with} {without}");
        }
    }
}
