//! The conflict-based search.

use std::collections::{BTreeSet, BinaryHeap};
use std::rc::Rc;

use super::super::agents::Agents;
use super::super::pipelines::makespan_us;
use super::super::placement::Placement;
use super::super::{Budget, Found, MethodError, Tried};
use super::collisions::first_collision;
use super::node::SearchNode;
use super::time_space::{Bans, Route, TimeSpace};
use crate::compiled::{CompiledInstance, MICROSECONDS};
use crate::plan::PipelinePlan;

/// Sets of balanced paths that the search goes on from.
const BALANCED: usize = 32;
/// Ways to resolve one stage with too many visits, and one node with too many paths.
const WAYS_STAGE: usize = 3;
const WAYS_NODE: usize = 2;
/// Collision-free sets of paths after which the search ends.
const COLLISION_FREE: usize = 8;
/// The search ends when the makespan is below this share of the first one simulated.
const GOOD_ENOUGH: f64 = 0.88;
/// A branch ends whose makespan is so much above the best, microseconds.
const WORSE_MAX_US: u64 = 5_000_000;
/// With a plan at hand and so many nodes open, branches that break the memory constraint end.
const OPEN_MAX: usize = 500;
/// Most nodes open at a time; beyond, new ones are dropped.
const OPEN_LIMIT: usize = 50_000;

/// Which constraints the paths obey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::methods) enum Constraints {
    /// Visits and memory (TC1).
    NoCollisions,
    /// Collisions (TC2) too.
    All,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Enough sets of paths that obey all constraints.
    Enough,
    /// A makespan far enough below the first.
    GoodEnough,
    /// No branch is left.
    Exhausted,
    /// The budget is spent.
    Budget,
}

/// Plans the paths of a placement.
pub(in crate::methods) fn plan(
    believed: &CompiledInstance,
    compiled: &CompiledInstance,
    placement: &Placement,
    constraints: Constraints,
    budget: &mut Budget,
) -> Result<Found, MethodError> {
    let method = match constraints {
        Constraints::NoCollisions => "no-tc2",
        Constraints::All => "skippipe",
    };
    let agents = Agents::new(believed, placement);
    let mut search = Search {
        time_space: TimeSpace::new(believed, placement),
        believed,
        placement,
        agents: &agents,
        method,
        budget,
        tried: Tried::default(),
        open: BinaryHeap::new(),
        made: 0,
        seen: BTreeSet::new(),
        best: None,
        first_us: None,
    };
    let (finished, ending) = search.run(constraints);
    let (tried, best) = (search.tried, search.best.take());
    let plans = finished.iter().map(|node| search.plan_of(&node.routes)).chain(best.map(|(_, plan)| plan));
    // Where the method is told wrong link times, the plan is chosen by them too.
    let mut chosen: Option<(u64, PipelinePlan)> = None;
    for plan in plans {
        if let Some(us) = makespan_us(believed, &plan)
            && chosen.as_ref().is_none_or(|best| us < best.0)
            && makespan_us(compiled, &plan).is_some()
        {
            chosen = Some((us, plan));
        }
    }
    let Some((_, plan)) = chosen else {
        return Err(MethodError::NoPaths { method, tried, exhausted: ending != Ending::Budget });
    };
    let reason = match ending {
        Ending::Enough if constraints == Constraints::NoCollisions => {
            "ended with the first set of paths within memory".to_owned()
        }
        Ending::Enough => format!("ended with {COLLISION_FREE} collision-free sets of paths"),
        Ending::GoodEnough => format!("ended below {GOOD_ENOUGH} of the first makespan"),
        Ending::Exhausted => "ended with no branch left".to_owned(),
        Ending::Budget => "ended with its budget; what it has is the best it met on its way".to_owned(),
    };
    let mut notes = vec![format!("paths: {reason}; {tried}")];
    if let Some(first) = search.first_us {
        notes.push(format!("the first makespan on the way was {:.3} s", first as f64 / MICROSECONDS));
    }
    Ok(Found { plan, notes, published_makespan_us: None })
}

/// What a node of the search breaks first.
enum Conflict {
    /// Ways to resolve it: slots that have to leave out a stage.
    Stage(u16, Vec<Vec<usize>>),
    /// Ways to resolve it: slots that have to leave out a node.
    Node(u32, Vec<Vec<usize>>),
}

struct Search<'a, 'b, 'c> {
    time_space: TimeSpace<'a>,
    believed: &'a CompiledInstance,
    placement: &'a Placement,
    agents: &'a Agents,
    method: &'static str,
    budget: &'b mut Budget<'c>,
    tried: Tried,
    open: BinaryHeap<SearchNode>,
    made: u64,
    seen: BTreeSet<u128>,
    best: Option<(u64, PipelinePlan)>,
    first_us: Option<u64>,
}

impl Search<'_, '_, '_> {
    /// The sets of paths that obey all constraints, and how the search ended.
    fn run(&mut self, constraints: Constraints) -> (Vec<SearchNode>, Ending) {
        let Some(root) = self.root() else { return (Vec::new(), Ending::Exhausted) };
        self.open.push(root);
        let (balanced, ending) = self.balance();
        if balanced.is_empty() {
            return (Vec::new(), ending);
        }
        self.tried.balanced = balanced.len() as u64;
        self.open = balanced.into();
        self.seen.clear();
        let mut finished = Vec::new();
        while let Some(node) = self.open.pop() {
            if self.count(0) {
                return (finished, Ending::Budget);
            }
            self.tried.nodes += 1;
            if !node.after_collision && !self.seen.insert(node.fingerprint) {
                continue;
            }
            let (conflict, excess) = self.overfull_node(&node);
            match conflict {
                Some(_) if self.best.is_some() && self.open.len() > OPEN_MAX => {}
                Some(conflict) => self.branch(&node, &conflict, excess),
                None if constraints == Constraints::NoCollisions => {
                    self.tried.within_memory += 1;
                    return (vec![node], Ending::Enough);
                }
                None => {
                    self.tried.within_memory += 1;
                    let ways = first_collision(&node.routes, &node.slowest_first(), self.believed.nodes());
                    if ways.is_empty() {
                        self.tried.collision_free += 1;
                        finished.push(node);
                        if finished.len() >= COLLISION_FREE {
                            return (finished, Ending::Enough);
                        }
                        continue;
                    }
                    for way in ways {
                        let mut bans = (*node.bans[way.agent]).clone();
                        bans.delays.push(way.delay);
                        if self.delay(&node, way.agent, bans) {
                            return (finished, Ending::GoodEnough);
                        }
                    }
                }
            }
        }
        (finished, Ending::Exhausted)
    }

    /// Counts work; whether the budget is spent.
    fn count(&mut self, work: u64) -> bool {
        self.budget.count(work) >= 1.0
    }

    /// Every slot on its quickest path.
    fn root(&mut self) -> Option<SearchNode> {
        let bans = Rc::new(Bans::none(self.believed.nodes(), self.believed.stages()));
        let mut routes = Vec::with_capacity(self.agents.agents.len());
        for agent in &self.agents.agents {
            routes.push(Rc::new(self.time_space.search(agent, &bans)?));
        }
        self.tried.paths += routes.len() as u64;
        self.count(routes.len() as u64);
        Some(SearchNode {
            end_us: end_of(&routes),
            bans: vec![bans; routes.len()],
            routes,
            excess: 0,
            number: 0,
            after_collision: false,
            fingerprint: 0,
        })
    }

    /// First phase: sets of paths that keep every stage's visits, each slot bound to the stages that it visits then.
    fn balance(&mut self) -> (Vec<SearchNode>, Ending) {
        let share = self.budget.spent + (1.0 - self.budget.spent) / 2.0;
        let mut balanced: Vec<SearchNode> = Vec::new();
        let mut kept = BTreeSet::new();
        while let Some(node) = self.open.pop() {
            let spent = self.budget.count(0);
            if spent >= 1.0 || (spent >= share && !balanced.is_empty()) {
                return (balanced, Ending::Budget);
            }
            self.tried.nodes += 1;
            if !self.seen.insert(node.fingerprint) {
                continue;
            }
            if let Some(conflict) = self.overfull_stage(&node) {
                self.branch(&node, &conflict, 0);
                continue;
            }
            let node = self.bind(node);
            if kept.insert(node.fingerprint) {
                balanced.push(node);
                if balanced.len() >= BALANCED {
                    break;
                }
            }
        }
        (balanced, Ending::Exhausted)
    }

    /// Forbids every slot the stages that it does not visit.
    fn bind(&self, mut node: SearchNode) -> SearchNode {
        node.fingerprint = 0;
        for (agent, (bans, route)) in node.bans.iter_mut().zip(&node.routes).enumerate() {
            let mut bound = (**bans).clone();
            for stage in 1..self.believed.stages() as u16 {
                if !route.path[1..].iter().any(|node| self.time_space.stage_of(*node) == stage) {
                    bound.add_stage(stage);
                    node.fingerprint ^= SearchNode::mark(agent, true, usize::from(stage));
                }
            }
            *bans = Rc::new(bound);
        }
        node
    }

    /// The first stage with too many visits.
    fn overfull_stage(&self, node: &SearchNode) -> Option<Conflict> {
        let most = self.believed.instance().stage_visits_max?;
        let mut visitors: Vec<Vec<usize>> = vec![Vec::new(); self.believed.stages()];
        for agent in node.slowest_first().into_iter().rev() {
            for relay in &node.routes[agent].path[1..] {
                visitors[usize::from(self.time_space.stage_of(*relay))].push(agent);
            }
        }
        let visits =
            |agents: &[usize]| agents.iter().map(|agent| self.agents.agents[*agent].repeats()).sum::<u32>();
        let stage = (1..visitors.len()).find(|stage| visits(&visitors[*stage]) > most)?;
        // Those who have no other stage left stay.
        let relays = self.believed.path_length() - 1;
        let free: Vec<usize> = visitors[stage]
            .iter()
            .copied()
            .filter(|agent| {
                let left = (1..self.believed.stages() as u16).filter(|s| !node.bans[*agent].has_stage(*s));
                left.count() > relays
            })
            .collect();
        let excess = visits(&visitors[stage]) - most;
        let enough = (1..=free.len()).find(|count| visits(&free[..*count]) >= excess);
        Some(Conflict::Stage(stage as u16, first_choices(&free, enough, WAYS_STAGE)))
    }

    /// The first node with more paths than memory, and how many paths other nodes have too many.
    fn overfull_node(&self, node: &SearchNode) -> (Option<Conflict>, u64) {
        let mut visitors: Vec<Vec<usize>> = vec![Vec::new(); self.believed.nodes()];
        for agent in node.slowest_first().into_iter().rev() {
            for relay in &node.routes[agent].path[1..] {
                visitors[*relay as usize].push(agent);
            }
        }
        let over = |relay: usize| visitors[relay].len().saturating_sub(self.believed.memory[relay] as usize);
        let Some(first) = (0..visitors.len()).find(|relay| over(*relay) > 0) else { return (None, 0) };
        let members = &self.placement.stages[usize::from(self.time_space.stage_of(first as u32))];
        let free: Vec<usize> = visitors[first]
            .iter()
            .copied()
            .filter(|agent| {
                members.iter().any(|other| *other as usize != first && !node.bans[*agent].has_node(*other))
            })
            .collect();
        let others = (first + 1..visitors.len()).map(|relay| over(relay) as u64).sum();
        let enough = (over(first) <= free.len()).then(|| over(first));
        (Some(Conflict::Node(first as u32, first_choices(&free, enough, WAYS_NODE))), others)
    }

    /// A child for every way to resolve a conflict.
    fn branch(&mut self, node: &SearchNode, conflict: &Conflict, excess: u64) {
        let (stage, place, ways) = match conflict {
            Conflict::Stage(stage, ways) => (true, usize::from(*stage), ways),
            Conflict::Node(place, ways) => (false, *place as usize, ways),
        };
        for way in ways {
            let mut child = node.clone();
            child.excess = excess;
            child.after_collision = false;
            let mut possible = true;
            for agent in way {
                let mut bans = (*child.bans[*agent]).clone();
                if stage {
                    bans.add_stage(place as u16);
                } else {
                    bans.add_node(place as u32);
                }
                child.fingerprint ^= SearchNode::mark(*agent, stage, place);
                possible &= self.replace(&mut child, *agent, bans);
                if !possible {
                    break;
                }
            }
            if possible {
                self.push(child);
            }
        }
    }

    /// A child in which a slot waits; whether its makespan is good enough to end the search.
    fn delay(&mut self, node: &SearchNode, agent: usize, bans: Bans) -> bool {
        let mut child = node.clone();
        child.excess = 0;
        child.after_collision = true;
        if !self.replace(&mut child, agent, bans) {
            return false;
        }
        let plan = self.plan_of(&child.routes);
        self.tried.simulated += 1;
        self.count(1);
        let Some(us) = makespan_us(self.believed, &plan) else { return false };
        let first = *self.first_us.get_or_insert(us);
        if self.best.as_ref().is_none_or(|best| us < best.0) {
            self.best = Some((us, plan));
        }
        let best = self.best.as_ref().map_or(us, |best| best.0);
        if (best as f64) < GOOD_ENOUGH * first as f64 {
            return true;
        }
        if us <= best + WORSE_MAX_US {
            self.push(child);
        }
        false
    }

    /// Searches a slot's path anew under other bans; whether there is one.
    fn replace(&mut self, child: &mut SearchNode, agent: usize, bans: Bans) -> bool {
        self.tried.paths += 1;
        self.count(1);
        let Some(route) = self.time_space.search(&self.agents.agents[agent], &bans) else { return false };
        child.routes[agent] = Rc::new(route);
        child.bans[agent] = Rc::new(bans);
        child.end_us = end_of(&child.routes);
        true
    }

    fn push(&mut self, mut child: SearchNode) {
        if self.open.len() < OPEN_LIMIT {
            self.made += 1;
            child.number = self.made;
            self.open.push(child);
        }
    }

    fn plan_of(&self, routes: &[Rc<Route>]) -> PipelinePlan {
        let paths = routes.iter().map(|route| route.path.as_slice());
        self.agents.plan(self.believed, self.placement, self.method, paths)
    }
}

fn end_of(routes: &[Rc<Route>]) -> u64 {
    routes.iter().map(|route| route.end_us).max().unwrap_or(0)
}

/// The first `most` choices of `count` items, in the order of their places; none where there are too few.
fn first_choices(items: &[usize], count: Option<usize>, most: usize) -> Vec<Vec<usize>> {
    let Some(count) = count else { return Vec::new() };
    let mut places: Vec<usize> = (0..count).collect();
    let mut choices = Vec::new();
    while choices.len() < most {
        choices.push(places.iter().map(|place| items[*place]).collect());
        // The last place that can go up goes up; those behind it follow closely.
        let Some(up) = (0..count).rev().find(|place| places[*place] + count - place < items.len()) else {
            break;
        };
        let start = places[up] + 1;
        (up..count).for_each(|place| places[place] = start + place - up);
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::first_choices;

    #[test]
    fn choices_come_in_order() {
        assert_eq!(first_choices(&[5, 6, 7], Some(2), 9), [vec![5, 6], vec![5, 7], vec![6, 7]]);
        assert_eq!(first_choices(&[5, 6, 7, 8], Some(2), 3), [vec![5, 6], vec![5, 7], vec![5, 8]]);
        assert_eq!(first_choices(&[5], Some(1), 3), [vec![5]]);
        assert!(first_choices(&[5], None, 3).is_empty());
    }
}
