//! The quickest path of one slot, in time and space.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::agents::{Agent, Footing, keeps_swaps};
use super::super::placement::Placement;
use crate::compiled::CompiledInstance;

/// States looked at in one search.
const LOOKS_MAX: usize = 200_000;

/// A time in which a node is not to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delay {
    pub(super) node: u32,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
}

/// What one slot must not do.
#[derive(Debug, Clone, Default)]
pub(super) struct Bans {
    nodes: Vec<u64>,
    stages: Vec<u64>,
    pub(super) delays: Vec<Delay>,
}

impl Bans {
    /// Nothing forbidden.
    pub(super) fn none(nodes: usize, stages: usize) -> Self {
        Self { nodes: vec![0; nodes.div_ceil(64)], stages: vec![0; stages.div_ceil(64)], delays: Vec::new() }
    }

    pub(super) fn has_node(&self, node: u32) -> bool {
        self.nodes[node as usize / 64] >> (node % 64) & 1 == 1
    }

    pub(super) fn has_stage(&self, stage: u16) -> bool {
        self.stages[usize::from(stage) / 64] >> (stage % 64) & 1 == 1
    }

    pub(super) fn add_node(&mut self, node: u32) {
        self.nodes[node as usize / 64] |= 1 << (node % 64);
    }

    pub(super) fn add_stage(&mut self, stage: u16) {
        self.stages[usize::from(stage) / 64] |= 1 << (stage % 64);
    }

    /// A start of a task of this length, not before `ready` and clear of the delays of its node.
    fn start(&self, node: u32, ready: u64, duration: u64) -> u64 {
        let mut start = ready;
        loop {
            let blocking = self.delays.iter().filter(|delay| {
                delay.node == node && start < delay.end_us && start + duration > delay.start_us
            });
            match blocking.map(|delay| delay.end_us).max() {
                Some(end_us) => start = end_us,
                None => return start,
            }
        }
    }
}

/// A task of a planned path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) node: u32,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    /// A forward, not a loss or backward.
    pub(super) is_forward: bool,
}

/// A path with its planned times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// The nodes, origin first.
    pub(super) path: Vec<u32>,
    /// Forwards, loss, backwards.
    pub(super) visits: Vec<Visit>,
    /// End of the last backward.
    pub(super) end_us: u64,
}

/// Finds quickest paths.
#[derive(Debug)]
pub(super) struct TimeSpace<'a> {
    compiled: &'a CompiledInstance,
    placement: &'a Placement,
    /// Stage of each node.
    stage: Vec<u16>,
    /// Place of a node in stage 0.
    place: Vec<usize>,
    /// By origin and relays still to visit: least time that remains after a node, by node.
    remaining: Vec<Vec<Vec<u64>>>,
}

/// A partial path.
#[derive(Debug, Clone, Copy)]
struct State {
    node: u32,
    parent: u32,
    relays: u32,
    /// When its forward here starts.
    start_us: u64,
    /// Time of the way back so far: transfers, and backwards of the relays before.
    back_us: u64,
    footing: Footing,
}

const NO_PARENT: u32 = u32::MAX;

impl<'a> TimeSpace<'a> {
    pub(super) fn new(compiled: &'a CompiledInstance, placement: &'a Placement) -> Self {
        let mut place = vec![0; compiled.nodes()];
        for (index, origin) in placement.stages[0].iter().enumerate() {
            place[*origin as usize] = index;
        }
        let distances = Distances::new(compiled);
        let relays: Vec<u32> = placement.stages[1..].iter().flatten().copied().collect();
        let remaining = placement.stages[0]
            .iter()
            .map(|origin| distances.remaining(compiled, *origin, &relays))
            .collect();
        Self { compiled, placement, stage: placement.stage_of(compiled.nodes()), place, remaining }
    }

    /// The quickest path of `agent`, in the order of (time, first found). None: the bans leave no path, or it takes too
    /// long to find.
    pub(super) fn search(&self, agent: &Agent, bans: &Bans) -> Option<Route> {
        let compiled = self.compiled;
        let (origin, relays) = (agent.origin as usize, compiled.path_length() - 1);
        let remaining = &self.remaining[self.place[origin]];
        let start_us = bans.start(agent.origin, agent.start_us, compiled.origin_forward[origin]);
        let mut states = vec![State {
            node: agent.origin,
            parent: NO_PARENT,
            relays: 0,
            start_us,
            back_us: 0,
            footing: Footing::START,
        }];
        let mut routes: Vec<Route> = Vec::new();
        // (least end, state) or, with the high bit, (end, route).
        let mut open = BinaryHeap::from([Reverse((start_us, 0_usize))]);
        const IS_ROUTE: usize = 1 << (usize::BITS - 1);
        let mut looks = 0;
        let mut visited: Vec<u16> = Vec::with_capacity(relays);
        while let Some(Reverse((_, index))) = open.pop() {
            if index & IS_ROUTE != 0 {
                return Some(routes.swap_remove(index & !IS_ROUTE));
            }
            looks += 1;
            if looks > LOOKS_MAX {
                return None;
            }
            let state = states[index];
            if state.relays as usize == relays {
                let route = self.walk(&states, index, agent, bans);
                open.push(Reverse((route.end_us, routes.len() | IS_ROUTE)));
                routes.push(route);
                continue;
            }
            let node = state.node as usize;
            let (forward, backward) = if state.relays == 0 {
                (compiled.origin_forward[node], 0)
            } else {
                (compiled.forward[node], compiled.backward[node])
            };
            visited.clear();
            let mut at = index;
            while states[at].parent != NO_PARENT {
                visited.push(self.stage_of(states[at].node));
                at = states[at].parent as usize;
            }
            for stage in 1..compiled.stages() as u16 {
                if bans.has_stage(stage) || visited.contains(&stage) {
                    continue;
                }
                if agent.swaps && !keeps_swaps(compiled, |other| visited.contains(&other), stage) {
                    continue;
                }
                let Some(footing) = state.footing.step(compiled, stage) else { continue };
                for next in &self.placement.stages[usize::from(stage)] {
                    if bans.has_node(*next) {
                        continue;
                    }
                    let to = *next as usize;
                    let way = compiled.transfer_us(node, to);
                    let ready = state.start_us + forward + way;
                    let start_us = bans.start(*next, ready, compiled.forward[to]);
                    let back_us = state.back_us + backward + compiled.transfer_us(to, node);
                    let left = relays - state.relays as usize - 1;
                    let end = start_us
                        + compiled.forward[to]
                        + back_us
                        + compiled.backward[to]
                        + remaining[left][to];
                    open.push(Reverse((end, states.len())));
                    states.push(State {
                        node: *next,
                        parent: index as u32,
                        relays: state.relays + 1,
                        start_us,
                        back_us,
                        footing,
                    });
                }
            }
        }
        None
    }

    /// The whole route of a path whose relays are chosen, every task as early as the delays let it.
    fn walk(&self, states: &[State], last: usize, agent: &Agent, bans: &Bans) -> Route {
        let compiled = self.compiled;
        let mut path = Vec::new();
        let mut at = last as u32;
        while at != NO_PARENT {
            path.push(states[at as usize].node);
            at = states[at as usize].parent;
        }
        path.reverse();
        let length = path.len();
        let mut visits = Vec::with_capacity(2 * length + 1);
        let mut time = agent.start_us;
        for (task, (node, duration, way)) in compiled.chain(&path).into_iter().enumerate() {
            let start_us = bans.start(node as u32, time, duration);
            let end_us = start_us + duration;
            visits.push(Visit { node: node as u32, start_us, end_us, is_forward: task < length });
            time = end_us + way;
        }
        Route { path, visits, end_us: time }
    }

    pub(super) fn stage_of(&self, node: u32) -> u16 {
        self.stage[node as usize]
    }
}

/// Transfers between regions.
struct Distances {
    /// Microseconds, row by row.
    between: Vec<u64>,
    regions: usize,
}

impl Distances {
    fn new(compiled: &CompiledInstance) -> Self {
        let regions = compiled.regions;
        // Two nodes of each region, if it has two.
        let mut some: Vec<Vec<usize>> = vec![Vec::new(); regions];
        for node in 0..compiled.nodes() {
            let known = &mut some[compiled.region[node] as usize];
            if known.len() < 2 {
                known.push(node);
            }
        }
        let mut between = vec![0; regions * regions];
        for a in 0..regions {
            for b in 0..regions {
                if let (Some(from), Some(to)) = (some[a].first(), some[b].last()) {
                    between[a * regions + b] = compiled.transfer_us(*from, *to);
                }
            }
        }
        Self { between, regions }
    }

    /// By relays still to visit: least unloaded time that remains after the forward and backward on a node.
    fn remaining(&self, compiled: &CompiledInstance, origin: u32, relays: &[u32]) -> Vec<Vec<u64>> {
        let home = origin as usize;
        let own = compiled.loss[home] + compiled.origin_backward[home];
        let way = |from: usize, to: usize| self.between[from * self.regions + to];
        let both = |from, to| way(from, to) + way(to, from);
        let region = |node: usize| compiled.region[node] as usize;
        let mut levels: Vec<Vec<u64>> = Vec::with_capacity(compiled.path_length());
        levels.push((0..compiled.nodes()).map(|node| both(region(node), region(home)) + own).collect());
        for level in 1..compiled.path_length() {
            let mut best = vec![u64::MAX / 4; self.regions];
            for relay in relays {
                let relay = *relay as usize;
                let cost = compiled.forward[relay] + compiled.backward[relay] + levels[level - 1][relay];
                best[region(relay)] = best[region(relay)].min(cost);
            }
            let onward: Vec<u64> = (0..self.regions)
                .map(|from| (0..self.regions).map(|to| both(from, to) + best[to]).min().unwrap_or(0))
                .collect();
            levels.push((0..compiled.nodes()).map(|node| onward[region(node)]).collect());
        }
        levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{DrawnSize, draw_instance};
    use crate::random::Random;

    /// The least end over every legal path of `agent`, its tasks one after the other.
    fn least_end(
        compiled: &CompiledInstance,
        placement: &Placement,
        agent: &Agent,
        bans: &Bans,
    ) -> Option<u64> {
        let stage_of = placement.stage_of(compiled.nodes());
        let mut paths = vec![(vec![agent.origin], Footing::START)];
        for _ in 1..compiled.path_length() {
            let mut longer = Vec::new();
            for (path, footing) in paths {
                for next in placement.stages[1..].iter().flatten() {
                    let stage = stage_of[*next as usize];
                    let new = path.iter().all(|node| stage_of[*node as usize] != stage);
                    if let Some(footing) = footing.step(compiled, stage)
                        && new
                        && !bans.has_node(*next)
                        && !bans.has_stage(stage)
                    {
                        longer.push(([path.as_slice(), &[*next]].concat(), footing));
                    }
                }
            }
            paths = longer;
        }
        let end = |path: &[u32]| {
            compiled.chain(path).into_iter().fold(agent.start_us, |time, (node, duration, way)| {
                let mut start = time;
                while let Some(delay) = bans.delays.iter().find(|delay| {
                    delay.node as usize == node && start < delay.end_us && start + duration > delay.start_us
                }) {
                    start = delay.end_us;
                }
                start + duration + way
            })
        };
        paths.iter().map(|(path, _)| end(path)).min()
    }

    #[test]
    fn no_legal_path_is_quicker() {
        let mut random = Random::new(&[17]);
        let (mut found, mut delayed) = (0, 0);
        for seed in 0..120 {
            let size = DrawnSize { nodes: 9, stages: 5, path_len: 2 + random.below(4), regions: 3 };
            let instance = draw_instance(size, seed);
            let compiled = CompiledInstance::new(&instance).unwrap();
            let mut rest: Vec<u32> = (0..9).collect();
            random.shuffle(&mut rest);
            let sizes = instance.stage_sizes.clone().unwrap();
            let stages = sizes.iter().map(|size| rest.drain(..*size as usize).collect()).collect();
            let placement = Placement::given(stages);
            let mut bans = Bans::none(9, 5);
            for _ in 0..random.below(25) {
                let start_us = random.below(20_000_000) as u64;
                let end_us = start_us + 1 + random.below(9_000_000) as u64;
                bans.delays.push(Delay { node: random.below(9) as u32, start_us, end_us });
            }
            if random.below(3) == 0 {
                bans.add_node(placement.stages[1][0]);
                bans.add_stage(1 + random.below(4) as u16);
            }
            let origin = placement.stages[0][0];
            let agent = Agent { origin, start_us: 500_000, swaps: false, ids: vec![0] };
            let time_space = TimeSpace::new(&compiled, &placement);
            let end_us = time_space.search(&agent, &bans).map(|route| route.end_us);
            assert_eq!(end_us, least_end(&compiled, &placement, &agent, &bans));
            if let Some(end_us) = end_us {
                found += 1;
                let free = Bans { delays: Vec::new(), ..bans };
                let unhindered = time_space.search(&agent, &free);
                delayed += usize::from(unhindered.is_some_and(|other| other.end_us < end_us));
            }
        }
        assert!(found > 60 && delayed > 30, "{found} found, {delayed} of them delayed");
    }
}
