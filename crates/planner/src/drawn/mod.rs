//! Paths drawn at random under rules that an experiment sets.

mod error;
mod sets;

pub use error::{DrawnError, Limits};

use crate::balanced::{Turns, check};
use crate::chooser::{PathChooser, PlanError};
use crate::random::Random;
use sets::Sets;
use skipstone_types::{Path, PathRules, Plan, PlanProblem, StageId};
use std::collections::BTreeMap;

/// Which paths a [`DrawnChooser`] draws.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawnPaths {
    /// Swaps of a path; fewer only where the stages that it visits leave no room for so many.
    pub swaps: u16,
    /// Largest distance behind the frontier that a swap goes back.
    pub swap_distance_max: u16,
    /// Largest |next − frontier|.
    pub jump_max: u16,
    /// Adjacent relay stages that every path leaves out at one place at least: at its start, on its way, or at its end.
    pub together: u16,
    /// How often each relay stage is visited in the long run, as a multiple of the same number; none: all equally often.
    pub visits: Option<Vec<f64>>,
}

impl Default for DrawnPaths {
    /// Ascending paths, all stages equally often, jumps as [`PathRules`] has them.
    fn default() -> Self {
        let (jump_max, swap_distance_max) = (PathRules::default().jump_max, 1);
        Self { swaps: 0, swap_distance_max, jump_max, together: 0, visits: None }
    }
}

impl DrawnPaths {
    /// The rules that every drawn path obeys.
    pub fn rules(&self) -> PathRules {
        PathRules {
            swap_distance_max: self.swap_distance_max,
            swap_count_max: self.swaps,
            swap_total_distance_max: self.swaps.saturating_mul(self.swap_distance_max),
            jump_max: self.jump_max,
        }
    }

    /// Whether such paths exist in a run with so many relay stages, of which a path visits `picks`.
    ///
    /// # Errors
    /// See [`DrawnError`].
    pub fn check(&self, relay_stages: u16, picks: u16) -> Result<(), DrawnError> {
        Fitted::new(self, usize::from(relay_stages), usize::from(picks.min(relay_stages))).map(|_| ())
    }

    /// The share of the paths that visit each relay stage, if each visits `picks` of them.
    fn shares(&self, relay_stages: usize, picks: usize) -> Result<Vec<f64>, DrawnError> {
        let weights = match &self.visits {
            None => vec![1.0; relay_stages],
            Some(weights) if weights.len() == relay_stages => weights.clone(),
            Some(weights) => return Err(DrawnError::Count { given: weights.len(), relay_stages }),
        };
        if let Some(wrong) = weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
            return Err(DrawnError::Weight { weight: wrong.to_string() });
        }
        let total: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| picks as f64 * weight / total).collect();
        // As exact as a sum of weights is.
        match (1..).zip(&shares).find(|(_, share)| **share > 1.0 + 1e-9) {
            Some((stage, share)) => {
                Err(DrawnError::TooOften { stage: StageId(stage), visits: format!("{share:.2}") })
            }
            None => Ok(shares.into_iter().map(|share| share.min(1.0)).collect()),
        }
    }
}

/// Draws for each microbatch, on its own, a set of relay stages and an order in which to visit them: by [`DrawnPaths`], in place
/// of a problem's rules and swaps.
///
/// The stages of a path are a function of (seed, iteration, microbatch), of which stages are served, and of the options that say
/// what sets there are; the order also of the swaps. So paths with other swaps visit the same stages. Unlike a
/// [`BalancedChooser`](crate::BalancedChooser)'s, visits are spread only in the long run: an iteration may visit a stage with all
/// of its microbatches, or with none.
///
/// Among all distributions over the sets that the rules allow, with these shares of visits, it is the one of most entropy that is
/// drawn from.
///
/// Around holes, a path is as long as the served stages allow, and a jump may exceed the limit straight to the next served stage. Where
/// no path leaves out as many stages together, or visits those that are on every path, that is let go. Full iterations visit all
/// served stages in ascending order.
///
/// **Paths with swaps can block each other** where a node has fewer slots than there are microbatches: each holds a slot at one
/// stage and waits for one at a stage where another holds it. With a slot for every microbatch nobody waits for one.
#[derive(Debug, Clone)]
pub struct DrawnChooser {
    paths: DrawnPaths,
    fitted: Option<Fitted>,
}

impl DrawnChooser {
    /// A chooser of such paths.
    pub fn new(paths: DrawnPaths) -> Self {
        Self { paths, fitted: None }
    }
}

impl PathChooser for DrawnChooser {
    fn choose(&mut self, problem: &PlanProblem) -> Result<Plan, PlanError> {
        check(problem)?;
        let relay_stages = problem.nodes.len() - 1;
        let asked = (usize::from(problem.path_length) - 1).min(relay_stages);
        let fitted = match self.fitted.take().filter(|fitted| fitted.is_for(relay_stages, asked)) {
            Some(fitted) => fitted,
            None => Fitted::new(&self.paths, relay_stages, asked)?,
        };
        let fitted = self.fitted.insert(fitted);
        let served = problem.served_relays();
        let picks = if problem.full { served.len() } else { asked.min(served.len()) };
        let sets = fitted.among(&self.paths, served, picks);
        let rules = self.paths.rules();
        let random = |what: u64| Random::new(&[problem.seed, problem.iteration.0, what, 0x6472_6e70]);
        let paces = problem.paces.iter().map(|pace| (pace.node, *pace)).collect::<BTreeMap<_, _>>();
        let mut random_nodes = random(u64::MAX);
        let mut turns: Vec<Turns> =
            problem.nodes.iter().map(|nodes| Turns::new(nodes, &paces, &mut random_nodes)).collect();
        let paths = (0..problem.microbatches)
            .map(|microbatch| {
                let mut random = random(microbatch.into());
                let mut route = vec![StageId::ORIGIN];
                route.extend(sets.draw(&mut random));
                if !problem.full {
                    swap(&mut route, rules, &mut random);
                }
                let visits = route.into_iter().filter_map(|stage| turns[usize::from(stage.0)].next(stage));
                Path(visits.collect())
            })
            .collect();
        Ok(Plan { epoch: problem.epoch, paths, expected_us: None })
    }
}

/// Puts an ascending route, origin first, into an order with as many swaps as the rules allow and the route has room for. Each
/// swap is drawn among those that are possible after the ones before.
fn swap(route: &mut Vec<StageId>, rules: PathRules, random: &mut Random) {
    for swaps in 0..rules.swap_count_max {
        let mut possible = Vec::new();
        for from in 1..route.len() {
            for to in from + 1..route.len() {
                if route[to].0.saturating_sub(route[from].0) > rules.swap_distance_max {
                    break;
                }
                let mut swapped = route.clone();
                swapped[from..=to].rotate_left(1);
                if count_swaps(&swapped) == usize::from(swaps) + 1 && rules.check(&swapped).is_ok() {
                    possible.push(swapped);
                }
            }
        }
        if possible.is_empty() {
            return;
        }
        *route = possible.swap_remove(random.below(possible.len()));
    }
}

/// Stages visited behind the frontier.
fn count_swaps(route: &[StageId]) -> usize {
    let mut frontier = StageId::ORIGIN;
    let behind = |stage: &&StageId| {
        let is_behind = **stage < frontier;
        frontier = frontier.max(**stage);
        is_behind
    };
    route.iter().filter(behind).count()
}

/// Weights of relay stages with which sets are drawn so that stages are visited as often as they should be.
#[derive(Debug, Clone)]
struct Fitted {
    picks: usize,
    weights: Vec<f64>,
    /// Stages that are on every path.
    always: Vec<bool>,
}

impl Fitted {
    fn new(paths: &DrawnPaths, relay_stages: usize, picks: usize) -> Result<Self, DrawnError> {
        let shares = paths.shares(relay_stages, picks)?;
        let always: Vec<bool> = shares.iter().map(|share| *share > 1.0 - 1e-9).collect();
        let mut fitted = Self { picks, weights: vec![1.0; relay_stages], always };
        let stages = (1..=relay_stages as u16).map(StageId).collect();
        let mut sets = fitted.sets(paths, stages, picks);
        let limits = Limits { jump_max: paths.jump_max, together: paths.together };
        // A jump of 0 leads nowhere; around holes one to the next stage is always allowed, here there are none.
        if !sets.is_possible() || (picks > 0 && paths.jump_max == 0) {
            return Err(DrawnError::NoPath { picks, relay_stages, limits });
        }
        if let Some(miss) = sets.fit(&shares) {
            return Err(DrawnError::Unreachable {
                stage: miss.stage,
                picks,
                limits,
                asked: format!("{:.3}", miss.asked),
                reached: format!("{:.3}", miss.reached),
            });
        }
        fitted.weights = sets.into_weights();
        Ok(fitted)
    }

    fn is_for(&self, relay_stages: usize, picks: usize) -> bool {
        (self.weights.len(), self.picks) == (relay_stages, picks)
    }

    fn sets(&self, paths: &DrawnPaths, stages: Vec<StageId>, picks: usize) -> Sets {
        let place = |stage: &StageId| usize::from(stage.0) - 1;
        let weights = stages.iter().map(|stage| self.weights[place(stage)]).collect();
        let always = stages.iter().map(|stage| self.always[place(stage)]).collect();
        let last = self.weights.len() as u16;
        Sets::new(stages, weights, always, (picks, last), (paths.jump_max, paths.together))
    }

    /// The sets of `picks` of the stages that are served.
    fn among(&self, paths: &DrawnPaths, served: Vec<StageId>, picks: usize) -> Sets {
        let sets = self.sets(paths, served.clone(), picks);
        if sets.is_possible() {
            return sets;
        }
        // Around holes, or in full iterations, where nothing is left out.
        let always = vec![false; self.always.len()];
        let free = Self { always, ..self.clone() };
        free.sets(&DrawnPaths { together: 0, ..paths.clone() }, served, picks)
    }
}

#[cfg(test)]
mod tests;
