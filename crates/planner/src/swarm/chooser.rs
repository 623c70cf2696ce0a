//! Paths by search, for a swarm whose links are known.

use skipstone_types::{NodeId, Path, Plan, PlanProblem};

use super::description::{SwarmDescription, SwarmNode};
use super::error::SwarmError;
use super::losses::Losses;
use super::refine::{Walk, refine};
use super::rotation::{Prices, Rotation};
use super::start::start;
use super::view::SwarmView;
use crate::balanced::{BalancedChooser, Drawn};
use crate::chooser::{PathChooser, PlanError};
use crate::random::Random;
use crate::search::{Draft, Guide, Moves, Objective, Score, lost_with_a_region};
use crate::simulate::Simulator;
use crate::subset::count_paths;

/// Candidates × visits of an iteration: 2500 candidates at 30 microbatches of 4 visits, less than a tenth of a second.
const WORK: u64 = 300_000;
/// The same right after a loss.
const LOSS_WORK: u64 = 3 * WORK;
/// The same for a plan that may never be needed.
const PREPARING_WORK: u64 = WORK / 2;
/// The part of a search that each way to share microbatches among origins gets, one of so many.
const TRIALS: u64 = 16;
/// Candidates that this must be.
const TRIAL_MIN: u64 = 50;
/// Visits of the largest iteration that is searched over; beyond, the start is the plan.
const VISITS_MAX: usize = 60_000;

/// Chooses paths that end early, by the exact simulation of an iteration over the swarm's links and measured paces, and
/// rotates among such plans.
///
/// - Paths ascend through the stages, so slots can't deadlock (see [`BalancedChooser`]), but for the swaps that the problem asks
///   for; they keep the jump limit.
/// - Each search begins at the last plan, mended for who is gone, came or was moved, so plans get better from iteration to
///   iteration while the swarm stands still.
/// - While nobody is lost, plans for the loss of each node are prepared in turn: when one is lost, the search begins at the plan
///   without it. That plan is to end early, whichever sets of stages had their turn lately: in that one iteration stages are
///   visited between half of their even share and 1.25 times that, more only where the loss leaves others short of speed. The
///   search after it begins at the plan before the loss.
/// - But for such a plan, while the same stages are served, none is short of speed and no jump limit forbids it, visits of any
///   two relay stages differ by at most one, in every iteration and in all of them together. A stage whose nodes would work for more than
///   1.5 times the mean gets less, but at least half of its even share.
/// - Sets of stages that were trained more often than others cost more, so that each gets its turn: over a hundred
///   iterations between 0.4 and 1.7 times its even share, on the instances measured. A node without a microbatch for four iterations gets one.
///
/// The plan is a function of the description, the problem and the problems before, whatever machine it runs on; the work is
/// bounded by a count, not by time.
#[derive(Debug, Clone)]
pub struct SwarmChooser {
    pub(super) description: SwarmDescription,
    /// Seconds that a stage counts which one region can take away; none: a share of an iteration.
    pub(super) domain_price_s: Option<f64>,
    rotation: Rotation,
    losses: Losses,
    last: Vec<Path>,
}

impl SwarmChooser {
    /// A chooser for the swarm described.
    ///
    /// # Errors
    /// See [`SwarmError`].
    pub fn new(description: SwarmDescription) -> Result<Self, SwarmError> {
        description.check()?;
        Ok(Self {
            description,
            domain_price_s: None,
            rotation: Rotation::default(),
            losses: Losses::default(),
            last: Vec::new(),
        })
    }

    /// The same, where [`SwarmChooser::answer`] gives so many seconds of an iteration for each stage that one region could take
    /// away, and again for each two adjacent ones; none: 2 % of an iteration.
    #[must_use]
    pub fn with_domain_price(self, price_s: Option<f64>) -> Self {
        Self { domain_price_s: price_s, ..self }
    }

    /// Says in which region a node is; how fast it is follows from the list: as its entry says if that is in the region, else
    /// as those of the region are in the mean.
    ///
    /// # Errors
    /// A region that no link leads to from those of the description.
    pub fn locate(&mut self, node: NodeId, region: String) -> Result<(), SwarmError> {
        let slowness = self.description.slowness_in(node, &region);
        self.place(node, SwarmNode { region, slowness })
    }

    /// Says where a node is and how fast, in place of what the description's list says of its id.
    ///
    /// # Errors
    /// A region that no link leads to from those of the description, or a slowness out of range.
    pub fn place(&mut self, node: NodeId, place: SwarmNode) -> Result<(), SwarmError> {
        self.description.place(node, place)
    }

    /// Where a node is, as far as it is known.
    pub fn region(&self, node: NodeId) -> Option<&str> {
        self.description.node(node).map(|node| node.region.as_str())
    }

    fn search(&self, problem: &PlanProblem, balanced: &Plan) -> Option<Plan> {
        let simulator = &mut Simulator::default();
        let found = match self.losses.prepared(problem) {
            Some(prepared) => {
                let last = if prepared.is_empty() { &self.last } else { prepared };
                self.search_from(problem, balanced, &Rotation::hurried(problem), last, LOSS_WORK, simulator)?
            }
            None => self.search_from(problem, balanced, &self.rotation, &self.last, WORK, simulator)?,
        };
        let Found { view, draft, score } = found;
        Some(Plan { epoch: problem.epoch, paths: view.paths(&draft), expected_us: Some(score.objective_us) })
    }

    /// Goes on with the plan for the loss whose turn it is.
    fn prepare(&mut self, problem: &PlanProblem) {
        let Some((lost, without)) = self.losses.next(problem) else { return };
        let Ok(balanced) = BalancedChooser.choose(&without) else { return };
        let last = self.losses.plan(lost).unwrap_or(&self.last);
        let rotation = Rotation::hurried(&without);
        let simulator = &mut Simulator::default();
        let found = self.search_from(&without, &balanced, &rotation, last, PREPARING_WORK, simulator);
        if let Some(Found { view, draft, .. }) = found {
            self.losses.keep(lost, view.paths(&draft));
        }
    }

    /// Microseconds of an iteration after a search of `work` candidates × visits that begins anew, and how many stages and
    /// pairs of adjacent ones one region could take away. `bench` is kept between estimates of problems that are alike.
    pub(super) fn estimate(&self, problem: &PlanProblem, work: u64, bench: &mut Bench) -> Option<(u64, u32)> {
        let balanced = bench.balanced(problem)?;
        let mut rotation = Rotation::default();
        rotation.meet(problem);
        let Found { view, score, .. } =
            self.search_from(problem, &balanced, &rotation, &[], work, &mut bench.simulator)?;
        Some((score.objective_us, lost_with_a_region(&view.compiled, &view.stages)))
    }

    fn search_from(
        &self,
        problem: &PlanProblem,
        balanced: &Plan,
        rotation: &Rotation,
        last: &[Path],
        work: u64,
        simulator: &mut Simulator,
    ) -> Option<Found> {
        let served = problem.served_relays();
        let picks = balanced.paths.first()?.0.len() - 1;
        let visits = balanced.paths.len() * (picks + 1);
        if visits > VISITS_MAX {
            return None;
        }
        let sets = count_paths(&served, picks, problem.rules.jump_max);
        let within = rotation.visits_within(served.len(), picks, balanced.paths.len());
        let how = Walk {
            moves: within.map_or_else(Moves::of_even_paths, Moves::of_paths_within),
            // Sets of stages have prices in calm times, which an estimate does not know.
            estimates: rotation.is_hurried(),
        };
        let begin = |quotas: Vec<u32>, simulator: &mut Simulator| {
            let view = SwarmView::new(&self.description, problem, quotas, picks)?;
            let kept = within.and_then(|_| kept_visits(problem, last, picks * balanced.paths.len()));
            let even = || rotation.targets(&served, picks, balanced.paths.len(), &view.speeds());
            let targets = kept.unwrap_or_else(even);
            let draft = start(&view, problem, balanced, last, &targets, &rotation.idle(problem, &view));
            let guide = Guide::new(&view.compiled, Objective::Iteration);
            let score = guide.score(&view.compiled, &draft, simulator, u64::MAX)?;
            Some(Found { view, draft, score })
        };
        let walk = |found: Found, work: u64, random: &mut Random, simulator: &mut Simulator| {
            let Found { view, draft, score } = found;
            let guide = Guide::new(&view.compiled, Objective::Iteration);
            let idle = rotation.idle(problem, &view);
            let mut prices = Prices::new(rotation, &idle, &view, sets, score.cost);
            let start = (draft, score);
            let (draft, score) =
                refine(&view.compiled, &guide, &how, &mut prices, start, work, random, simulator);
            drop(prices);
            Found { view, draft, score }
        };
        let random =
            &mut Random::new(&[problem.seed, problem.iteration.0, u64::from(problem.attempt.0), 0x7377_6172]);
        let mut work = work / visits as u64;
        let quotas = Quotas::new(problem, balanced, last);
        let trial = work / TRIALS;
        let mut tried = match () {
            () if trial < TRIAL_MIN => vec![quotas.by_pace],
            // Other shares than before are for later: right after a loss all work goes to the paths.
            () if rotation.is_hurried() => vec![quotas.kept.unwrap_or(quotas.by_pace)],
            () => quotas.tried(random),
        };
        if tried.len() == 1 {
            let found = begin(tried.remove(0), simulator)?;
            return Some(walk(found, work, random, simulator));
        }
        let mut best: Option<Found> = None;
        for quotas in tried {
            let Some(found) = begin(quotas, simulator) else { continue };
            let found = walk(found, trial, random, simulator);
            work -= trial;
            if best.as_ref().is_none_or(|best| found.score.cost < best.score.cost) {
                best = Some(found);
            }
        }
        Some(walk(best?, work, random, simulator))
    }
}

/// How often each stage is visited by paths over nodes that all serve still, if relays have `total` visits.
fn kept_visits(problem: &PlanProblem, paths: &[Path], total: usize) -> Option<Vec<u64>> {
    let mut visits = vec![0; problem.nodes.len()];
    for visit in paths.iter().flat_map(|path| &path.0) {
        let stage = usize::from(visit.stage.0);
        problem.nodes.get(stage)?.contains(&visit.node).then(|| visits[stage] += 1)?;
    }
    (visits.iter().skip(1).sum::<u64>() == total as u64).then_some(visits)
}

/// How many microbatches each origin could have. Origins have slots, and wait for links and relays more than they compute: what
/// is best only shows when paths are searched for.
struct Quotas {
    /// In proportion to their pace, as the balanced plan has it.
    by_pace: Vec<u32>,
    /// As in the last plan, if it was for these origins.
    kept: Option<Vec<u32>>,
}

impl Quotas {
    fn new(problem: &PlanProblem, balanced: &Plan, last: &[Path]) -> Self {
        let count = |paths: &[Path]| -> Vec<u32> {
            let of = |id: &NodeId| paths.iter().filter(|path| path.0[0].node == *id).count() as u32;
            problem.nodes[0].iter().map(of).collect()
        };
        let (by_pace, kept) = (count(&balanced.paths), count(last));
        let is_whole = kept.iter().sum::<u32>() == by_pace.iter().sum::<u32>();
        Self { by_pace, kept: is_whole.then_some(kept) }
    }

    /// These, and the kept ones with one microbatch at another origin; as equal ones as can be where none are kept. Nobody is left
    /// without a microbatch who has one by pace.
    fn tried(self, random: &mut Random) -> Vec<Vec<u32>> {
        let Self { by_pace, kept } = self;
        let (count, total) = (by_pace.len() as u32, by_pace.iter().sum::<u32>());
        let even = || (0..count).map(|place| total / count + u32::from(place < total % count)).collect();
        let kept: Vec<u32> = kept.unwrap_or_else(even);
        let mut near = kept.clone();
        let (from, to) = (random.below(near.len()), random.below(near.len()));
        if near[from] > 0 {
            near[from] -= 1;
            near[to] += 1;
        }
        let mut tried = vec![by_pace];
        for quotas in [kept, near] {
            let serves = |(has, should): (&u32, &u32)| *has > 0 || *should == 0;
            if quotas.iter().zip(&tried[0]).all(serves) && !tried.contains(&quotas) {
                tried.push(quotas);
            }
        }
        tried
    }
}

/// What estimates of one question share to save time. Nothing of it changes a result.
#[derive(Debug, Default)]
pub(super) struct Bench {
    drawn: Option<Drawn>,
    simulator: Simulator,
}

impl Bench {
    /// The balanced plan of a problem.
    fn balanced(&mut self, problem: &PlanProblem) -> Option<Plan> {
        let drawn = match self.drawn.take() {
            Some(mut drawn) => {
                drawn.again(problem).ok()?;
                drawn
            }
            None => Drawn::new(problem).ok()?,
        };
        Some(self.drawn.insert(drawn).plan(problem))
    }
}

/// What a search found.
struct Found {
    view: SwarmView,
    draft: Draft,
    score: Score,
}

impl PathChooser for SwarmChooser {
    fn choose(&mut self, problem: &PlanProblem) -> Result<Plan, PlanError> {
        let balanced = BalancedChooser.choose(problem)?;
        self.rotation.meet(problem);
        // A plan that is made in a hurry visits stages unevenly: what comes after it goes on from the one before.
        let is_hurried = self.losses.prepared(problem).is_some();
        let plan = self.search(problem, &balanced).unwrap_or(balanced);
        self.rotation.count(problem, &plan);
        if !is_hurried {
            self.last.clone_from(&plan.paths);
        }
        // Right after a change the plan is wanted at once.
        if !self.losses.meet(problem) {
            self.prepare(problem);
        }
        Ok(plan)
    }
}
