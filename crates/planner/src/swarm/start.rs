//! The draft that a plan is looked for from.

use skipstone_types::{Path, Plan, PlanProblem, StageId};

use super::view::SwarmView;
use crate::search::Draft;

/// A microbatch's relays, ascending: stage, and its node where one is known.
type Relays = Vec<(usize, Option<u32>)>;

/// The paths of a draft in the making, origin by origin.
struct Start<'a> {
    view: &'a SwarmView,
    problem: &'a PlanProblem,
    served: Vec<StageId>,
    routes: Vec<Relays>,
    /// Visits of each stage so far, and as they should be.
    visits: Vec<u64>,
    targets: &'a [u64],
}

/// The last paths, mended for the swarm as it is; where there are none, or they can't be mended, paths as the balanced plan
/// has them. Every stage has its target of visits where the rules allow it. Nodes in `idle` get a visit.
pub(crate) fn start(
    view: &SwarmView,
    problem: &PlanProblem,
    balanced: &Plan,
    last: &[Path],
    targets: &[u64],
    idle: &[u32],
) -> Draft {
    let mended = (last.len() == balanced.paths.len()).then(|| mend(view, problem, last, targets)).flatten();
    let routes = mended
        .or_else(|| mend(view, problem, &without_nodes(balanced), targets))
        .unwrap_or_else(|| Start::new(view, problem, &balanced.paths, targets).routes);
    let mut draft = with_nodes(view, &routes);
    for node in idle {
        give_visit(view, &mut draft, *node);
    }
    draft
}

/// Origins as they are, relays without a node.
fn without_nodes(plan: &Plan) -> Vec<Path> {
    let unknown = skipstone_types::NodeId(0);
    let mut paths = plan.paths.clone();
    for path in &mut paths {
        path.0.iter_mut().skip(1).for_each(|visit| visit.node = unknown);
    }
    paths
}

fn mend(view: &SwarmView, problem: &PlanProblem, paths: &[Path], targets: &[u64]) -> Option<Vec<Relays>> {
    let mut start = Start::new(view, problem, paths, targets);
    start.mend_lengths();
    start.mend_visits();
    (start.visits[1..] == targets[1..] && start.routes.iter().all(|route| start.is_legal(route)))
        .then_some(start.routes)
}

impl<'a> Start<'a> {
    /// Every origin's own paths first, then those of origins that are gone or have too many.
    fn new(view: &'a SwarmView, problem: &'a PlanProblem, paths: &[Path], targets: &'a [u64]) -> Self {
        let origins = &problem.nodes[0];
        let mut queues: Vec<Vec<Relays>> = vec![Vec::new(); origins.len()];
        let mut others = Vec::new();
        for path in paths {
            let relays = path.0.iter().skip(1).filter_map(|visit| {
                let stage = usize::from(visit.stage.0);
                let nodes = problem.nodes.get(stage).filter(|nodes| !nodes.is_empty())?;
                let place = nodes.iter().position(|node| *node == visit.node);
                Some((stage, place.map(|place| view.stages[stage][place])))
            });
            let mut relays: Relays = relays.collect();
            // The last paths may have swapped stages.
            relays.sort_unstable();
            let origin = path.0.first().and_then(|visit| origins.iter().position(|id| *id == visit.node));
            match origin {
                Some(place) if queues[place].len() < view.quotas[place] as usize => {
                    queues[place].push(relays);
                }
                _ => others.push(relays),
            }
        }
        let mut routes = Vec::with_capacity(paths.len());
        for (queue, quota) in queues.into_iter().zip(&view.quotas) {
            let missing = *quota as usize - queue.len();
            routes.extend(queue);
            routes.extend((0..missing).map(|_| others.pop().unwrap_or_default()));
        }
        let mut visits = vec![0; view.stages.len()];
        routes.iter().flatten().for_each(|(stage, _)| visits[*stage] += 1);
        Self { view, problem, served: problem.served_relays(), routes, visits, targets }
    }

    fn is_legal(&self, route: &Relays) -> bool {
        let mut from = 0;
        route.len() == self.view.picks
            && route.iter().all(|(stage, _)| {
                let jump = stage - from;
                from = *stage;
                jump <= usize::from(self.problem.rules.jump_max)
            })
    }

    /// How many visits a stage lacks; below 0: has too many.
    fn lacks(&self, stage: usize) -> i64 {
        self.targets[stage] as i64 - self.visits[stage] as i64
    }

    /// Paths get as long as they should be: the stages that lack the most come in, those that have the most go.
    fn mend_lengths(&mut self) {
        for index in 0..self.routes.len() {
            let mut route = std::mem::take(&mut self.routes[index]);
            while route.len() > self.view.picks {
                let most = (0..route.len()).min_by_key(|place| (self.lacks(route[*place].0), *place));
                let Some(place) = most else { break };
                self.visits[route.remove(place).0] -= 1;
            }
            while route.len() < self.view.picks {
                let out = |stage: &&StageId| !route.iter().any(|(on, _)| *on == usize::from(stage.0));
                let candidates = self.served.iter().filter(out).map(|stage| usize::from(stage.0));
                // Illegal jumps come last.
                let best = candidates.min_by_key(|stage| {
                    let mut with = route.clone();
                    with.insert(with.partition_point(|(on, _)| on < stage), (*stage, None));
                    let full = with.len() == self.view.picks;
                    (full && !self.is_legal(&with), -self.lacks(*stage), *stage)
                });
                let Some(stage) = best else { break };
                route.insert(route.partition_point(|(on, _)| *on < stage), (stage, None));
                self.visits[stage] += 1;
            }
            self.routes[index] = route;
        }
    }

    /// Visits move from stages that have too many to those that lack some, as long as any can.
    fn mend_visits(&mut self) {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for index in 0..self.routes.len() {
                // Who was first asked last time is asked last: the iteration turns the order.
                let index = (index + self.problem.iteration.0 as usize) % self.routes.len();
                moved |= self.move_visit(index);
            }
        }
    }

    fn move_visit(&mut self, index: usize) -> bool {
        let mut to: Vec<usize> = self.served.iter().map(|stage| usize::from(stage.0)).collect();
        to.retain(|stage| self.lacks(*stage) > 0);
        for place in 0..self.routes[index].len() {
            let from = self.routes[index][place].0;
            if self.lacks(from) >= 0 {
                continue;
            }
            for stage in &to {
                let mut route = self.routes[index].clone();
                if route.iter().any(|(on, _)| on == stage) {
                    continue;
                }
                route.remove(place);
                route.insert(route.partition_point(|(on, _)| on < stage), (*stage, None));
                if self.is_legal(&route) {
                    self.visits[from] -= 1;
                    self.visits[*stage] += 1;
                    self.routes[index] = route;
                    return true;
                }
            }
        }
        false
    }
}

/// Chooses nodes where none is known: always the one that would answer first, with what it has been given already.
fn with_nodes(view: &SwarmView, routes: &[Relays]) -> Draft {
    let compiled = &view.compiled;
    let work = |node: usize| compiled.forward[node] + compiled.backward[node];
    // When each would be through with one visit more than it has been given.
    let mut through_us: Vec<u64> = (0..view.ids.len()).map(work).collect();
    for (_, node) in routes.iter().flatten() {
        if let Some(node) = node {
            through_us[*node as usize] += work(*node as usize);
        }
    }
    let mut ways_us = vec![0_u64; compiled.regions];
    let mut nodes = Vec::with_capacity(routes.len() * (view.picks + 1));
    let mut routes = routes.iter().enumerate();
    for (origin, quota) in view.stages[0].iter().zip(&view.quotas) {
        for (microbatch, route) in routes.by_ref().take(*quota as usize) {
            nodes.push(*origin);
            let mut from = *origin as usize;
            let mut route = route.clone();
            compiled.order_as_trained(microbatch, &mut route, |(stage, _)| StageId(*stage as u16));
            for (stage, known) in &route {
                let node = known.unwrap_or_else(|| {
                    // The way there, and back to the origin: by region, as thousands of nodes are asked.
                    for (region, way_us) in ways_us.iter_mut().enumerate() {
                        *way_us = compiled.region_transfer_us(compiled.region[from] as usize, region)
                            + compiled.region_transfer_us(region, compiled.region[*origin as usize] as usize);
                    }
                    let answers_us = |node: usize| through_us[node] + ways_us[compiled.region[node] as usize];
                    let answer = |node: &&u32| (answers_us(**node as usize), **node);
                    // A served stage has a node.
                    let first = view.stages[*stage].iter().min_by_key(answer).copied().unwrap_or_default();
                    through_us[first as usize] += work(first as usize);
                    first
                });
                from = node as usize;
                nodes.push(node);
            }
        }
    }
    Draft::new(compiled, view.stages.clone(), nodes)
}

/// A relay without a visit gets one of its stage's, of the node that has the most.
fn give_visit(view: &SwarmView, draft: &mut Draft, node: u32) {
    let stage = draft.stage_of(node);
    if stage == 0 || draft.schedule.nodes.contains(&node) {
        return;
    }
    let count =
        |draft: &Draft, node: u32| draft.schedule.nodes.iter().filter(|other| **other == node).count();
    let most = view.stages[stage].iter().copied().max_by_key(|other| count(draft, *other));
    let place = most.and_then(|most| draft.schedule.nodes.iter().position(|other| *other == most));
    if let Some(place) = place {
        draft.schedule.nodes[place] = node;
    }
}
