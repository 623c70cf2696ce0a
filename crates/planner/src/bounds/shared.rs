//! Origins' slots, relays' time and stages' visits together.

use skipstone_types::StageId;

use crate::compiled::CompiledInstance;

/// Steps of the ascent.
const STEPS: u32 = 400;
/// Most (prefix of a stage sequence) × (pair of nodes) that a step looks at for one origin; beyond, there is no bound.
const LOOKS_MAX: usize = 100_000;
/// Most of them in all.
const LOOKS_ALL_MAX: usize = 20_000_000;

/// A lower bound on the makespan of every partial pipeline with this placement, microseconds; 0 where it would take too
/// long to find.
///
/// Let T be the makespan. Whatever the policy, the starts and the orders:
/// - **Slots.** Origin i holds a slot for each of its nᵢ microbatches from the start of its first forward to the end of
///   its last backward, at least the unloaded round trip of its path. At no time more than mᵢ are held. As the origin does
///   one task at a time, at most k are held before k·f, and at most k after T − k·b; where nᵢ ≥ mᵢ, T ≥ mᵢ·(f + b), and the
///   two do not overlap for k < mᵢ. So Σ round trips ≤ mᵢ·T − sᵢ with sᵢ = (f + b)·mᵢ(mᵢ − 1)/2, or 0 where nᵢ < mᵢ.
/// - **Relays.** A relay v works w_v for each visit, not before any origin's forward and a transfer to v, and not
///   after T less a transfer from v and any origin's backward: w_v · visits(v) ≤ T − h_v. (Without a visit that says
///   h_v ≤ T, so h_v is at most what T is known to be, `known_us`.)
/// - **Stages.** visits(s) ≤ c_s.
///
/// Multiply these with weights μᵢ, λ_v, ν_s ≥ 0 and add them. On the left each microbatch of origin i counts
/// μᵢ · (round trip of its path) + Σ over its relays (λ_v·w_v + ν_s), which is at least the minimum ρᵢ over all legal paths.
/// So Σ nᵢ·ρᵢ ≤ T·(Σ μᵢ·mᵢ + Σ λ_v) − Σ μᵢ·sᵢ − Σ λ_v·h_v + Σ ν_s·c_s, for *any* weights: every step of an ascent over them
/// (the Lagrangian dual of a multicommodity flow over time, Ford and Fulkerson 1958, with time aggregated) gives a bound,
/// and the best counts.
pub(crate) fn shared_bound(compiled: &CompiledInstance, stages: &[Vec<u32>], known_us: u64) -> u64 {
    let Some(mut dual) = Dual::new(compiled, stages, known_us as f64) else { return 0 };
    let mut best = 0.0_f64;
    let mut looks = 0;
    for step in 0..STEPS {
        let Some(value) = dual.step(f64::from(step)) else { return 0 };
        best = best.max(value);
        looks += dual.looks;
        if looks > LOOKS_ALL_MAX {
            break;
        }
    }
    // Sums of a few thousand floats: far less than a thousand-millionth is lost to rounding.
    (best * (1.0 - 1.0e-9)).floor().max(0.0) as u64
}

struct Dual<'a> {
    compiled: &'a CompiledInstance,
    stages: &'a [Vec<u32>],
    origins: Vec<Origin>,
    /// h_v and λ_v, by node.
    relays: Vec<(f64, f64)>,
    /// c_s and ν_s, by stage.
    caps: Vec<(f64, f64)>,
    looks: usize,
}

struct Origin {
    node: usize,
    count: f64,
    slots: f64,
    stagger: f64,
    /// Its own work on a microbatch.
    own: f64,
    weight: f64,
}

/// The cheapest path of an origin.
#[derive(Clone, Default)]
struct Cheapest {
    cost: f64,
    path: Vec<u32>,
}

impl<'a> Dual<'a> {
    /// Even weights; none where an origin or all relays are missing.
    fn new(compiled: &'a CompiledInstance, stages: &'a [Vec<u32>], known_us: f64) -> Option<Self> {
        let us = |time: u64| time as f64;
        let least = |times: &[u64]| stages[0].iter().map(|node| us(times[*node as usize])).reduce(f64::min);
        let own = least(&compiled.origin_forward)? + least(&compiled.origin_backward)?;
        let relays: Vec<usize> = stages.iter().skip(1).flatten().map(|node| *node as usize).collect();
        let nearest = |node: usize| {
            // The first to arrive may come from another node than the last goes to.
            let others = || (0..compiled.nodes()).filter(|other| *other != node);
            let to = others().map(|other| us(compiled.transfer_us(other, node))).reduce(f64::min)?;
            let from = others().map(|other| us(compiled.transfer_us(node, other))).reduce(f64::min)?;
            Some(to + from)
        };
        let mut heads = vec![(0.0, 0.0); compiled.nodes()];
        for node in &relays {
            heads[*node] = ((own + nearest(*node)?).min(known_us), 0.0);
        }
        let origins: Vec<Origin> = (0..)
            .zip(&stages[0])
            .map(|(place, node)| {
                let node = *node as usize;
                let (count, slots) = (compiled.instance().quota(place), compiled.memory[node]);
                let (forward, backward) =
                    (us(compiled.origin_forward[node]), us(compiled.origin_backward[node]));
                let pairs = f64::from(slots) * f64::from(slots.saturating_sub(1)) / 2.0;
                Origin {
                    node,
                    count: f64::from(count),
                    slots: f64::from(slots),
                    stagger: if count >= slots { (forward + backward) * pairs } else { 0.0 },
                    own: forward + us(compiled.loss[node]) + backward,
                    weight: 1.0,
                }
            })
            .collect();
        let caps = (0..stages.len()).map(|stage| (f64::from(compiled.visits_max(stage)), 0.0)).collect();
        let mut dual = Self { compiled, stages, origins, relays: heads, caps, looks: 0 };
        // An unvisited relay starts with a small weight: products of 0 stay 0.
        for node in relays {
            dual.relays[node].1 = 0.1;
        }
        dual.normalise();
        Some(dual)
    }

    /// Scales all weights so that Σ μᵢ·mᵢ + Σ λ_v = 1.
    fn normalise(&mut self) {
        let slots: f64 = self.origins.iter().map(|origin| origin.weight * origin.slots).sum();
        let sum = slots + self.relays.iter().map(|relay| relay.1).sum::<f64>();
        self.origins.iter_mut().for_each(|origin| origin.weight /= sum);
        self.relays.iter_mut().for_each(|relay| relay.1 /= sum);
        self.caps.iter_mut().for_each(|cap| cap.1 /= sum);
    }

    /// The bound at the weights as they are, which then move along its slope; none where there are too many paths.
    fn step(&mut self, step: f64) -> Option<f64> {
        self.looks = 0;
        let mut value = 0.0;
        let mut cheapest = Vec::with_capacity(self.origins.len());
        for index in 0..self.origins.len() {
            let found = self.cheapest(index)?;
            value += self.origins[index].count * found.cost;
            cheapest.push(found);
        }
        value += self.origins.iter().map(|origin| origin.weight * origin.stagger).sum::<f64>();
        value += self.relays.iter().map(|(head, weight)| head * weight).sum::<f64>();
        value -=
            self.caps.iter().map(|(cap, price)| if *price > 0.0 { cap * price } else { 0.0 }).sum::<f64>();
        self.climb(&cheapest, value.max(1.0), 0.5 / (1.0 + step / 8.0));
        Some(value)
    }

    /// Moves weights: those of slots and relays by factors, prices of stages by sums.
    fn climb(&mut self, cheapest: &[Cheapest], scale: f64, rate: f64) {
        let mut loads: Vec<f64> = self.relays.iter().map(|relay| relay.0).collect();
        let mut visits = vec![0.0; self.caps.len()];
        let factor = |slope: f64| (1.0 + rate * (slope / scale - 1.0).clamp(-1.0, 1.0)).max(0.1);
        for (origin, found) in self.origins.iter_mut().zip(cheapest) {
            let mut trip = origin.own;
            let mut from = origin.node;
            for node in &found.path {
                let node = *node as usize;
                let work = (self.compiled.forward[node] + self.compiled.backward[node]) as f64;
                trip += work + self.compiled.both_ways_us(from, node) as f64;
                loads[node] += origin.count * work;
                from = node;
            }
            trip += self.compiled.both_ways_us(from, origin.node) as f64;
            origin.weight *= factor((origin.count * trip + origin.stagger) / origin.slots);
        }
        for (stage, nodes) in self.stages.iter().enumerate().skip(1) {
            for node in nodes {
                let on_path = |(origin, found): (&Origin, &Cheapest)| {
                    if found.path.contains(node) { origin.count } else { 0.0 }
                };
                visits[stage] += self.origins.iter().zip(cheapest).map(on_path).sum::<f64>();
                let relay = &mut self.relays[*node as usize];
                relay.1 *= factor(loads[*node as usize]);
            }
        }
        let total: f64 = visits.iter().sum::<f64>().max(1.0);
        for ((cap, price), visited) in self.caps.iter_mut().zip(&visits).skip(1) {
            if *cap < f64::from(u32::MAX) {
                let slope = (visited - *cap) / cap.max(1.0);
                *price = (*price + rate * slope * scale / total).max(0.0);
            }
        }
        self.normalise();
    }

    /// ρᵢ and a path that has it.
    fn cheapest(&mut self, index: usize) -> Option<Cheapest> {
        let origin = &self.origins[index];
        let start = Cheapest { cost: origin.weight * origin.own, path: Vec::new() };
        let mut search =
            Paths { dual: self, origin: index, looks: 0, best: None, sequence: vec![StageId::ORIGIN] };
        search.extend(&[(origin.node, start)]);
        let (looks, best) = (search.looks, search.best);
        self.looks += looks;
        best.filter(|_| looks <= LOOKS_MAX)
    }
}

/// Dynamic programming over nodes along every legal sequence of stages.
struct Paths<'a, 'b> {
    dual: &'a Dual<'b>,
    origin: usize,
    looks: usize,
    best: Option<Cheapest>,
    sequence: Vec<StageId>,
}

impl Paths<'_, '_> {
    fn extend(&mut self, reached: &[(usize, Cheapest)]) {
        let compiled = self.dual.compiled;
        let origin = &self.dual.origins[self.origin];
        let way = |from: usize, to: usize| origin.weight * compiled.both_ways_us(from, to) as f64;
        if self.looks > LOOKS_MAX {
            return;
        }
        if self.sequence.len() == compiled.path_length() {
            for (node, found) in reached {
                let cost = found.cost + way(*node, origin.node);
                if self.best.as_ref().is_none_or(|best| cost < best.cost) {
                    self.best = Some(Cheapest { cost, path: found.path.clone() });
                }
            }
            return;
        }
        for (stage, nodes) in self.dual.stages.iter().enumerate().skip(1) {
            self.sequence.push(StageId(stage as u16));
            if !nodes.is_empty() && compiled.rules.check(&self.sequence).is_ok() {
                self.looks += reached.len() * nodes.len();
                let next: Vec<(usize, Cheapest)> = nodes
                    .iter()
                    .filter_map(|node| {
                        let to = *node as usize;
                        let cost = |(from, found): &(usize, Cheapest)| found.cost + way(*from, to);
                        let before = reached.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)))?;
                        let work = (compiled.forward[to] + compiled.backward[to]) as f64;
                        let more = work * (origin.weight + self.dual.relays[to].1) + self.dual.caps[stage].1;
                        let mut path = before.1.path.clone();
                        path.push(*node);
                        Some((to, Cheapest { cost: cost(before) + more, path }))
                    })
                    .collect();
                self.extend(&next);
            }
            self.sequence.pop();
        }
    }
}
