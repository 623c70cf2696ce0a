//! The least unloaded round trip of an origin.

use skipstone_types::StageId;

use crate::compiled::CompiledInstance;

/// How many (prefix of a stage sequence) × (pair of nodes) the exact search may look at before it settles for less.
const LOOKS_MAX: usize = 4_000_000;

/// The least unloaded round trip from each origin of a placement over all legal paths, microseconds, in the order
/// of stage 0.
///
/// Exact, by dynamic programming over nodes along every legal sequence of stages; where there are too many
/// sequences, the rules of swaps and jumps are left out, which can only lower the result.
pub(crate) fn least_round_trips(compiled: &CompiledInstance, stages: &[Vec<u32>], full: bool) -> Vec<u64> {
    let length = compiled.instance().path_length(full);
    let origins = stages.first().map_or(&[][..], Vec::as_slice);
    origins
        .iter()
        .map(|origin| {
            let origin = *origin as usize;
            let own =
                compiled.origin_forward[origin] + compiled.loss[origin] + compiled.origin_backward[origin];
            let mut search = Search {
                compiled,
                stages,
                origin,
                length,
                full,
                looks: 0,
                best: None,
                sequence: vec![StageId::ORIGIN],
            };
            search.extend(&[(origin, 0)]);
            let relays = match search.best {
                Some(best) if search.looks <= LOOKS_MAX => best,
                _ => relaxed(compiled, stages, origin, length),
            };
            own + relays
        })
        .collect()
}

/// How many triples of nodes are looked at for one origin.
const TRIPLES_MAX: usize = 200_000;

/// The least cost over three different relays. Three nodes of each region are enough here too.
fn three_relays(compiled: &CompiledInstance, origin: usize, nodes: &[usize]) -> u64 {
    let work = |node: usize| compiled.forward[node] + compiled.backward[node];
    let mut best = u64::MAX;
    for a in nodes {
        let first = compiled.both_ways_us(origin, *a) + work(*a);
        for b in nodes.iter().filter(|b| *b != a) {
            let second = first + compiled.both_ways_us(*a, *b) + work(*b);
            if second >= best {
                continue;
            }
            for c in nodes.iter().filter(|c| *c != a && *c != b) {
                let ways = compiled.both_ways_us(*b, *c) + compiled.both_ways_us(*c, origin);
                best = best.min(second + ways + work(*c));
            }
        }
    }
    if best == u64::MAX { 0 } else { best }
}

struct Search<'a> {
    compiled: &'a CompiledInstance,
    stages: &'a [Vec<u32>],
    origin: usize,
    length: usize,
    full: bool,
    looks: usize,
    best: Option<u64>,
    sequence: Vec<StageId>,
}

impl Search<'_> {
    /// `costs`: the least cost of reaching each node of the sequence's last stage.
    fn extend(&mut self, costs: &[(usize, u64)]) {
        if self.looks > LOOKS_MAX {
            return;
        }
        if self.sequence.len() == self.length {
            let back = costs.iter().map(|(node, cost)| cost + self.compiled.both_ways_us(*node, self.origin));
            self.best = back.chain(self.best).min();
            return;
        }
        if self.best.is_some_and(|best| costs.iter().all(|(_, cost)| *cost >= best)) {
            return;
        }
        let only = self.sequence.len();
        let candidates = if self.full { only..only + 1 } else { 1..self.stages.len() };
        for stage in candidates {
            self.sequence.push(StageId(stage as u16));
            if !self.stages[stage].is_empty()
                && (self.full || self.compiled.rules.check(&self.sequence).is_ok())
            {
                self.looks += costs.len() * self.stages[stage].len();
                let next: Vec<(usize, u64)> = self.stages[stage]
                    .iter()
                    .map(|node| {
                        let node = *node as usize;
                        let way =
                            costs.iter().map(|(from, cost)| cost + self.compiled.both_ways_us(*from, node));
                        (
                            node,
                            way.min().unwrap_or(0)
                                + self.compiled.forward[node]
                                + self.compiled.backward[node],
                        )
                    })
                    .collect();
                self.extend(&next);
            }
            self.sequence.pop();
        }
    }
}

/// The same over walks through relays of any stages, which is cheap and never more.
fn relaxed(compiled: &CompiledInstance, stages: &[Vec<u32>], origin: usize, length: usize) -> u64 {
    let relays: Vec<usize> = stages.iter().skip(1).flatten().map(|node| *node as usize).collect();
    walk(compiled, origin, &relays, length - 1)
}

/// The least cost of a closed walk from `origin` over `steps` of `relays`, none twice in a row. Nodes of a region
/// are alike but for their speed, and a visit has two neighbours: the three fastest of each region are enough.
pub(crate) fn walk(compiled: &CompiledInstance, origin: usize, relays: &[usize], steps: usize) -> u64 {
    let mut fastest: Vec<Vec<usize>> = vec![Vec::new(); compiled.regions];
    for relay in relays.iter().copied().filter(|relay| *relay != origin) {
        fastest[compiled.region[relay] as usize].push(relay);
    }
    let work = |node: usize| compiled.forward[node] + compiled.backward[node];
    let nodes: Vec<usize> = fastest
        .into_iter()
        .flat_map(|mut region| {
            region.sort_by_key(|node| (work(*node), *node));
            region.truncate(3);
            region
        })
        .collect();
    if steps == 0 {
        return 0;
    }
    if steps == 3 && nodes.len().pow(3) <= TRIPLES_MAX {
        return three_relays(compiled, origin, &nodes);
    }
    let mut costs: Vec<u64> =
        nodes.iter().map(|node| compiled.both_ways_us(origin, *node) + work(*node)).collect();
    for _ in 1..steps {
        costs = nodes
            .iter()
            .map(|to| {
                let from = nodes.iter().zip(&costs).filter(|(from, _)| *from != to);
                let way = from.map(|(from, cost)| cost + compiled.both_ways_us(*from, *to)).min();
                // A single relay can't be visited twice in a row; no bound beyond what is known then.
                way.map_or(0, |way| way + work(*to))
            })
            .collect();
    }
    let back = nodes.iter().zip(&costs).map(|(node, cost)| cost + compiled.both_ways_us(*node, origin));
    back.min().unwrap_or(0)
}
