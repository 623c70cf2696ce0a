//! Paths that load every stage and every node equally.

use crate::chooser::{PathChooser, PlanError};
use crate::random::Random;
use crate::subset::{DECISIVE, heaviest_path};
use skipstone_types::{Attempt, Iteration, NodeId, Pace, Path, Plan, PlanProblem, StageId, Visit};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// How often a plan is drawn anew when the jump limit has kept it from being balanced.
const DRAWS: u64 = 8;

/// Chooses at random among the plans in which
/// - microbatches are spread evenly over the origins,
/// - every served relay stage is visited equally often (±1) wherever the jump limit allows it,
/// - the visits of a stage are spread evenly over its nodes, and where one is known to be slow, in proportion to their
///   speeds: each visit goes to the node that would be through with it first,
/// - a path visits the origin, then relays in ascending order, but for the first two and the last two relay stages, which some
///   microbatches visit swapped where the problem says so (`edge_swaps`). As all paths climb in the same order and come back the
///   same way, a microbatch that waits for a slot waits only for stages above, and the last one never waits: slots can't
///   deadlock. With swaps a worker keeps its last slot from those that go back (`protocol`, `worker/slots.rs`).
///
/// A path is as long as asked, or as long as the served stages allow. Stages without nodes are passed over; a jump
/// may exceed the limit only straight to the next served stage, when holes leave no other way.
///
/// The plan is a function of (seed, iteration, attempt, problem). Which stages a path skips is drawn anew for every
/// iteration, so that in the long run every legal set of stages is trained.
#[derive(Debug, Clone, Copy, Default)]
pub struct BalancedChooser;

impl PathChooser for BalancedChooser {
    fn choose(&mut self, problem: &PlanProblem) -> Result<Plan, PlanError> {
        Ok(Drawn::new(problem)?.plan(problem))
    }
}

/// The stages that each microbatch of a balanced plan visits: what of it does not depend on who serves them.
#[derive(Debug, Clone)]
pub(crate) struct Drawn {
    asked: Asked,
    routes: Vec<Vec<StageId>>,
    /// Chance after that.
    random: Random,
}

impl Drawn {
    /// Draws for a problem.
    ///
    /// # Errors
    /// As [`PathChooser::choose`].
    pub(crate) fn new(problem: &PlanProblem) -> Result<Self, PlanError> {
        check(problem)?;
        let asked = Asked::of(problem);
        let mut random =
            Random::new(&[asked.seed, asked.iteration.0, u64::from(asked.attempt.0), 0x7061_7468]);
        let routes = routes(&asked, &mut random);
        Ok(Self { asked, routes, random })
    }

    /// The same for another problem, drawn again only where it must be: problems that differ only in who serves stages that
    /// are served in both have the same.
    ///
    /// # Errors
    /// As [`PathChooser::choose`].
    pub(crate) fn again(&mut self, problem: &PlanProblem) -> Result<(), PlanError> {
        check(problem)?;
        if self.asked != Asked::of(problem) {
            *self = Self::new(problem)?;
        }
        Ok(())
    }

    /// The plan, with the nodes of a problem that this was drawn for.
    pub(crate) fn plan(&self, problem: &PlanProblem) -> Plan {
        let mut random = self.random.clone();
        let paces = problem.paces.iter().map(|pace| (pace.node, *pace)).collect();
        let mut turns: Vec<Turns> =
            problem.nodes.iter().map(|nodes| Turns::new(nodes, &paces, &mut random)).collect();
        let paths = (0..)
            .zip(&self.routes)
            .map(|(microbatch, route)| {
                let mut route = route.clone();
                problem.order(microbatch, &mut route, |stage| *stage);
                let stages = std::iter::once(StageId::ORIGIN).chain(route);
                Path(stages.filter_map(|stage| turns[usize::from(stage.0)].next(stage)).collect())
            })
            .collect();
        Plan { epoch: problem.epoch, paths, expected_us: None }
    }
}

pub(crate) fn check(problem: &PlanProblem) -> Result<(), PlanError> {
    if problem.nodes.first().is_none_or(Vec::is_empty) {
        return Err(PlanError::NoOrigin);
    }
    if problem.microbatches == 0 {
        return Err(PlanError::NoMicrobatches);
    }
    if problem.path_length == 0 {
        return Err(PlanError::NoVisits);
    }
    Ok(())
}

/// What decides which stages are drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    seed: u64,
    iteration: Iteration,
    attempt: Attempt,
    microbatches: u32,
    path_length: u16,
    full: bool,
    jump_max: u16,
    relays: Vec<StageId>,
}

impl Asked {
    fn of(problem: &PlanProblem) -> Self {
        Self {
            seed: problem.seed,
            iteration: problem.iteration,
            attempt: problem.attempt,
            microbatches: problem.microbatches,
            path_length: problem.path_length,
            full: problem.full,
            jump_max: problem.rules.jump_max,
            relays: problem.served_relays(),
        }
    }
}

/// The nodes of a stage, taking turns in a random order: the next is the least.
pub(crate) struct Turns(BinaryHeap<Reverse<Turn>>);

/// A node, and what its next visit would be: in the order in which they are preferred.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// Whether it can wait for its next visit: all can but those whose pace is to be probed.
    can_wait: bool,
    /// When it would be through with it.
    through: u64,
    taken: u64,
    place: usize,
    node: NodeId,
    /// Time of a visit: that of the stage's fastest node is [`FAST`].
    visit: u64,
}

/// The time of a visit at a stage's fastest node.
const FAST: u64 = 1000;

/// Below this, differences are taken for chance.
const SLOW: u64 = 1500;

impl Turns {
    pub(crate) fn new(nodes: &[NodeId], paces: &BTreeMap<NodeId, Pace>, random: &mut Random) -> Self {
        let mut nodes = nodes.to_vec();
        random.shuffle(&mut nodes);
        let pace = |node: NodeId| paces.get(&node);
        let fastest = nodes
            .iter()
            .filter_map(|node| pace(*node))
            .map(|pace| pace.microbatch_us.max(1))
            .min()
            .unwrap_or(1);
        let turn = |(place, node): (usize, NodeId)| {
            let visit = pace(node).map_or(FAST, |pace| pace.microbatch_us.saturating_mul(FAST) / fastest);
            let visit = if visit < SLOW { FAST } else { visit };
            let can_wait = !pace(node).is_some_and(|pace| pace.probe);
            Reverse(Turn { can_wait, through: visit, taken: 0, place, node, visit })
        };
        Self(nodes.into_iter().enumerate().map(turn).collect())
    }

    pub(crate) fn next(&mut self, stage: StageId) -> Option<Visit> {
        let Reverse(turn) = &mut *self.0.peek_mut()?;
        turn.taken += 1;
        turn.can_wait = true;
        turn.through = (turn.taken + 1).saturating_mul(turn.visit);
        Some(Visit { stage, node: turn.node })
    }
}

/// The relays of every microbatch.
fn routes(asked: &Asked, random: &mut Random) -> Vec<Vec<StageId>> {
    let relays = &asked.relays;
    let wanted = usize::from(asked.path_length) - 1;
    let picks = if asked.full { relays.len() } else { wanted.min(relays.len()) };
    let count = asked.microbatches as usize;
    let mut best: Option<(usize, Vec<Vec<usize>>)> = None;
    for _ in 0..DRAWS {
        let (spread, drawn) = draw(relays, picks, count, asked.jump_max, random);
        if best.as_ref().is_none_or(|(least, _)| spread < *least) {
            best = Some((spread, drawn));
        }
        if spread <= 1 {
            break;
        }
    }
    let drawn = best.map(|(_, drawn)| drawn).unwrap_or_default();
    drawn.into_iter().map(|route| route.into_iter().map(|index| relays[index]).collect()).collect()
}

/// One draw, and the difference between its most and its least visited stage.
fn draw(
    relays: &[StageId],
    picks: usize,
    count: usize,
    jump_max: u16,
    random: &mut Random,
) -> (usize, Vec<Vec<usize>>) {
    let stages = relays.len();
    if stages == 0 {
        return (0, vec![Vec::new(); count]);
    }
    // Visits that each stage still has to get; who gets one more than the others is drawn.
    let mut left = vec![(picks * count / stages) as i64; stages];
    let mut luck: Vec<usize> = (0..stages).collect();
    random.shuffle(&mut luck);
    luck[..picks * count % stages].iter().for_each(|index| left[*index] += 1);
    let mut visits = vec![0_usize; stages];
    let mut drawn = Vec::with_capacity(count);
    for done in 0..count {
        let paths_left = (count - done) as i64;
        // A stage that needs every path left must be on this one, and one that needs none must not: any choice
        // that keeps to this can be completed. Without a jump limit the weights enforce it.
        let weights: Vec<i64> = left
            .iter()
            .map(|left| {
                let drawn = random.below(1 << 20) as i64;
                let urgency = if *left >= paths_left { 1 + left - paths_left } else { (*left - 1).min(0) };
                drawn + urgency * DECISIVE
            })
            .collect();
        let route = heaviest_path(relays, &weights, picks, jump_max);
        for index in &route {
            left[*index] -= 1;
            visits[*index] += 1;
        }
        drawn.push(route);
    }
    let spread = visits.iter().max().unwrap_or(&0) - visits.iter().min().unwrap_or(&0);
    (spread, drawn)
}
