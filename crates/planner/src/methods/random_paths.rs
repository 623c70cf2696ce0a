//! Stages skipped at random: paths of the right length, drawn until the limits hold.

use super::agents::{Agent, Agents, Footing, keeps_swaps};
use super::as_published::mistyped_regions;
use super::placement::Placement;
use super::{AsPublished, Found, MethodError};
use crate::compiled::CompiledInstance;
use crate::random::Random;

/// Paths drawn for each slot before the search gives up.
const DRAWS_PER_SLOT: u64 = 4_000;
/// Draws of a path that leaves the mistyped link out, before one over it will do.
const REDRAWS_MAX: u32 = 64;
/// Stages looked at in one draw.
const LOOKS_MAX: u32 = 20_000;

/// A plan of random paths: first drawn freely, then one at a time anew while a stage has too many visits or a node
/// more paths than memory, keeping what is no worse.
pub(super) fn random(
    compiled: &CompiledInstance,
    placement: &Placement,
    as_published: AsPublished,
    mut random: Random,
) -> Result<Found, MethodError> {
    let agents = Agents::new(compiled, placement);
    let stage_of = placement.stage_of(compiled.nodes());
    let mut draws = 0;
    let avoided = if as_published.nl_london { None } else { mistyped_regions(compiled) };
    let mut draw = |agent: &Agent, random: &mut Random| {
        let mut path = None;
        for _ in 0..REDRAWS_MAX {
            draws += 1;
            path = Draw { compiled, placement, swaps: agent.swaps, random, looks: 0 }.path(agent.origin);
            if !path.as_ref().is_some_and(|path| crosses(compiled, path, avoided.as_ref())) {
                break;
            }
        }
        path
    };
    let mut load = Load::new(compiled, &stage_of);
    let mut paths = Vec::with_capacity(agents.agents.len());
    for agent in &agents.agents {
        let path = draw(agent, &mut random)
            .ok_or(MethodError::NoRandomPaths { rule: "`max_jump`, `swap` and `edge_swaps`", draws: 1 })?;
        load.add(&path, agent.repeats(), true);
        paths.push(path);
    }
    let most = DRAWS_PER_SLOT * agents.agents.len() as u64;
    let mut tries = 0;
    while load.excess() > (0, 0) && tries < most {
        tries += 1;
        let index = random.below(paths.len());
        let agent = &agents.agents[index];
        if !load.is_over(&paths[index]) {
            continue;
        }
        let Some(path) = draw(agent, &mut random) else { continue };
        let before = load.excess();
        load.add(&paths[index], agent.repeats(), false);
        load.add(&path, agent.repeats(), true);
        if load.excess() <= before {
            paths[index] = path;
        } else {
            load.add(&path, agent.repeats(), false);
            load.add(&paths[index], agent.repeats(), true);
        }
    }
    if load.excess().0 > 0 {
        return Err(MethodError::NoRandomPaths { rule: "`stage_visits_max`", draws });
    }
    let mut notes = vec![format!("{} paths, {draws} drawn", paths.len())];
    if load.excess().1 > 0 {
        notes.push("some node has more paths than memory: its microbatches wait for each other".to_owned());
    }
    let plan = agents.plan(compiled, placement, "random", paths.iter().map(Vec::as_slice));
    if super::pipelines::makespan_us(compiled, &plan).is_none() {
        return Err(MethodError::NoRandomPaths { rule: "`memory` without a deadlock", draws });
    }
    Ok(Found { plan, notes, published_makespan_us: None })
}

/// Whether a round trip goes from one of two regions to the other.
fn crosses(compiled: &CompiledInstance, path: &[u32], regions: Option<&(String, String)>) -> bool {
    let Some((a, b)) = regions else { return false };
    let region = |node: u32| &compiled.instance().nodes[node as usize].region;
    (0..path.len()).any(|place| {
        let (from, to) = (region(path[place]), region(path[(place + 1) % path.len()]));
        (from == a && to == b) || (from == b && to == a)
    })
}

/// Visits of stages and paths through nodes.
struct Load<'a> {
    compiled: &'a CompiledInstance,
    stage_of: &'a [u16],
    visits: Vec<u32>,
    paths: Vec<u32>,
    visits_max: u32,
    visits_excess: u32,
    paths_excess: u32,
}

impl<'a> Load<'a> {
    fn new(compiled: &'a CompiledInstance, stage_of: &'a [u16]) -> Self {
        Self {
            compiled,
            stage_of,
            visits: vec![0; compiled.stages()],
            paths: vec![0; compiled.nodes()],
            visits_max: compiled.instance().stage_visits_max.unwrap_or(u32::MAX),
            visits_excess: 0,
            paths_excess: 0,
        }
    }

    /// Visits too many, and paths above memory.
    fn excess(&self) -> (u32, u32) {
        (self.visits_excess, self.paths_excess)
    }

    fn add(&mut self, path: &[u32], repeats: u32, adds: bool) {
        for node in &path[1..] {
            let node = *node as usize;
            let stage = self.stage_of[node] as usize;
            let over = |visits: u32| visits.saturating_sub(self.visits_max);
            self.visits_excess -= over(self.visits[stage]);
            self.visits[stage] =
                if adds { self.visits[stage] + repeats } else { self.visits[stage] - repeats };
            self.visits_excess += over(self.visits[stage]);
            let over = |paths: u32| paths.saturating_sub(self.compiled.memory[node]);
            self.paths_excess -= over(self.paths[node]);
            self.paths[node] = if adds { self.paths[node] + 1 } else { self.paths[node] - 1 };
            self.paths_excess += over(self.paths[node]);
        }
    }

    /// Whether a path goes where too many do.
    fn is_over(&self, path: &[u32]) -> bool {
        path[1..].iter().any(|node| {
            let node = *node as usize;
            self.visits[self.stage_of[node] as usize] > self.visits_max
                || self.paths[node] > self.compiled.memory[node]
        })
    }
}

/// One random path.
struct Draw<'a> {
    compiled: &'a CompiledInstance,
    placement: &'a Placement,
    swaps: bool,
    random: &'a mut Random,
    looks: u32,
}

impl Draw<'_> {
    fn path(&mut self, origin: u32) -> Option<Vec<u32>> {
        let mut stages = Vec::with_capacity(self.compiled.path_length());
        if !self.extend(&mut stages, Footing::START) {
            return None;
        }
        let relays = stages.iter().map(|stage| {
            let members = &self.placement.stages[usize::from(*stage)];
            members[self.random.below(members.len())]
        });
        Some(std::iter::once(origin).chain(relays).collect())
    }

    /// Adds random stages to a path until it is long enough, going back where the rules leave no way on.
    fn extend(&mut self, stages: &mut Vec<u16>, footing: Footing) -> bool {
        let left = self.compiled.path_length() - 1 - stages.len();
        if left == 0 {
            return true;
        }
        let mut open: Vec<(u16, Footing)> = (1..self.compiled.stages() as u16)
            .filter(|stage| !self.placement.stages[usize::from(*stage)].is_empty() && !stages.contains(stage))
            .filter(|stage| !self.swaps || keeps_swaps(self.compiled, |s| stages.contains(&s), *stage))
            .filter_map(|stage| footing.step(self.compiled, stage).map(|footing| (stage, footing)))
            .collect();
        self.random.shuffle(&mut open);
        for (stage, footing) in open {
            self.looks += 1;
            if self.looks > LOOKS_MAX {
                return false;
            }
            if self.room(stages, stage, footing) < left - 1 {
                continue;
            }
            stages.push(stage);
            if self.extend(stages, footing) {
                return true;
            }
            stages.pop();
        }
        false
    }

    /// Stages that a path can still visit after `stage`, at most: those ahead, and those close enough behind.
    fn room(&self, stages: &[u16], stage: u16, footing: Footing) -> usize {
        let lowest = footing.frontier.saturating_sub(self.compiled.rules.swap_distance_max);
        let last = self.compiled.stages() as u16;
        let open = |s: &u16| {
            *s != stage && !stages.contains(s) && !self.placement.stages[usize::from(*s)].is_empty()
        };
        let behind = (lowest.max(1)..footing.frontier).filter(open).count();
        (footing.frontier + 1..last).filter(open).count() + behind
    }
}
