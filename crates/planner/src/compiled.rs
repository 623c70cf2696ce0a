//! An instance in integer microseconds, as evaluation and search read it.

use std::collections::BTreeMap;

use crate::instance::{EdgeSwaps, Instance, InstanceError, InstanceNode, Quota, Way};
use skipstone_types::{EdgeSwaps as TrainedSwaps, PathRules, StageId};

/// Microseconds of a second.
pub const MICROSECONDS: f64 = 1_000_000.0;

/// Up to so many regions a stage's nodes are counted without a map.
const REGIONS_FEW: usize = 64;

/// A rule that paths keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathRule {
    /// `max_jump`: how far ahead of the highest stage so far a path may go.
    MaxJump,
    /// `swap`: how far and how often a path may go back.
    Swap,
    /// `edge_swaps`: CheckFree+'s order of the first and last two relays.
    EdgeSwaps,
    /// `stage_visits_max`: most visits of a stage.
    StageVisitsMax,
}

impl PathRule {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::MaxJump, Self::Swap, Self::EdgeSwaps, Self::StageVisitsMax];

    /// The field of an instance that says it.
    pub fn field(self) -> &'static str {
        match self {
            Self::MaxJump => "max_jump",
            Self::Swap => "swap",
            Self::EdgeSwaps => "edge_swaps",
            Self::StageVisitsMax => "stage_visits_max",
        }
    }
}

/// An instance with every duration rounded once to microseconds (half to even), see `docs/instances.md`.
#[derive(Debug, Clone)]
pub struct CompiledInstance {
    instance: Instance,
    /// Slots of each node.
    pub(crate) memory: Vec<u32>,
    /// Forward of a relay, by node.
    pub(crate) forward: Vec<u64>,
    /// Backward of a relay, by node.
    pub(crate) backward: Vec<u64>,
    /// Loss, by node.
    pub(crate) loss: Vec<u64>,
    /// Forward of an origin, by node.
    pub(crate) origin_forward: Vec<u64>,
    /// Backward of an origin, by node.
    pub(crate) origin_backward: Vec<u64>,
    /// Region of each node.
    pub(crate) region: Vec<u32>,
    /// Number of regions.
    pub(crate) regions: usize,
    /// Transfer between two regions, row by row.
    transfer: Vec<u64>,
    /// How long a transfer keeps a serial link busy, row by row.
    sending: Vec<u64>,
    /// Links between regions, row by row.
    links: Vec<Way>,
    /// The path rules.
    pub(crate) rules: PathRules,
    /// Most visits, by stage.
    visits_max: Vec<u32>,
    /// Nodes of each stage and region beyond this part of an instance; empty: there are none.
    outside: Vec<Vec<u32>>,
    /// Whether each node can serve stage 0, and relay stages; empty: all can.
    pub(crate) able: Vec<[bool; 2]>,
    /// A message's way between each node and the coordinator that orders an iteration, microseconds; empty: nobody has to.
    ways: Vec<u64>,
    /// What each node computes once an iteration as an origin and as a relay, microseconds; empty: nothing.
    closing: Vec<[u64; 2]>,
    /// How a swarm that trains swaps stages; none: as the instance says.
    trained: Option<TrainedOrder>,
    /// Bytes of the origin's gradient; none: as many as of a relay's.
    origin_gradient_bytes: Option<f64>,
    /// Whether searches leave all microbatches equal in rank.
    pub(crate) equal_ranks: bool,
    /// Ways to begin: nodes that serve no stage at first, ascending; a search may give them another's seat.
    pub(crate) spares: Vec<Vec<u32>>,
}

/// The order of stages where a swarm trains with CheckFree+'s swaps. It is the only legal one of a set of stages.
#[derive(Debug, Clone)]
struct TrainedOrder {
    swaps: TrainedSwaps,
    rules: PathRules,
}

/// `round()` of Python: half to even.
fn microseconds(value: f64) -> u64 {
    value.round_ties_even() as u64
}

impl CompiledInstance {
    /// Checks and compiles an instance.
    ///
    /// # Errors
    /// What [`Instance::check`] finds.
    pub fn new(instance: &Instance) -> Result<Self, InstanceError> {
        instance.check()?;
        let gap = instance.task_gap_s;
        let samples = f64::from(instance.samples_per_mb);
        let per_task = f64::from(instance.layers_per_stage) * samples;
        let scaled = instance.layers_of_origin() != instance.layers_per_stage;
        let per_origin = samples * f64::from(instance.layers_of_origin());
        let times = |per: f64, ratio: Option<f64>| -> Vec<u64> {
            let time = |speed: f64| ratio.map_or(speed * per, |ratio| speed * per * ratio);
            let nodes = instance.nodes.iter();
            nodes
                .map(|node| microseconds(MICROSECONDS * (time(node.compute_s_per_layer_sample) + gap)))
                .collect()
        };
        let forward = times(per_task, None);
        let backward = times(per_task, Some(instance.backward_ratio));
        let loss = times(per_task, Some(instance.loss_ratio));
        let (origin_forward, origin_backward) = if scaled {
            (times(per_origin, None), times(per_origin, Some(instance.backward_ratio)))
        } else {
            (forward.clone(), backward.clone())
        };
        let mut region_names: Vec<String> = instance.nodes.iter().map(|node| node.region.clone()).collect();
        region_names.sort_unstable();
        region_names.dedup();
        let regions = region_names.len();
        let place = |name: &String| region_names.binary_search(name);
        let region =
            instance.nodes.iter().filter_map(|node| place(&node.region).ok()).map(|r| r as u32).collect();
        let intra = instance.regions.intra;
        let mut links = vec![intra.way(&intra); regions * regions];
        for entry in &instance.regions.links {
            if let (Ok(a), Ok(b)) = (place(&entry.a), place(&entry.b))
                && a != b
            {
                let (there, back) = (entry.link, entry.back());
                links[a * regions + b] = there.way(&back);
                links[b * regions + a] = back.way(&there);
            }
        }
        let bytes = instance.activation_bytes_per_sample * samples;
        let overhead = instance.link_overhead_s;
        let transfer =
            links.iter().map(|way| microseconds(MICROSECONDS * (way.tensor_s(bytes) + overhead))).collect();
        let sending = links
            .iter()
            .map(|link| microseconds(MICROSECONDS * bytes / link.bandwidth_bytes_per_s))
            .collect();
        let small = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        Ok(Self {
            memory: instance.nodes.iter().map(|node| node.memory).collect(),
            forward,
            backward,
            loss,
            origin_forward,
            origin_backward,
            region,
            regions,
            transfer,
            sending,
            links,
            rules: PathRules {
                swap_distance_max: small(instance.swap.max_distance),
                swap_count_max: small(instance.swap.max_count),
                swap_total_distance_max: small(instance.swap.max_total_distance),
                jump_max: small(instance.max_jump),
            },
            visits_max: std::iter::once(u32::MAX)
                .chain((1..instance.n_stages).map(|_| instance.stage_visits_max.unwrap_or(u32::MAX)))
                .collect(),
            outside: Vec::new(),
            able: Vec::new(),
            ways: Vec::new(),
            closing: Vec::new(),
            trained: None,
            origin_gradient_bytes: None,
            equal_ranks: false,
            spares: Vec::new(),
            instance: instance.clone(),
        })
    }

    /// The instance compiled.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.memory.len()
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.instance.n_stages as usize
    }

    /// Nodes on a path of a partial pipeline, the origin included.
    pub fn path_length(&self) -> usize {
        self.instance.path_len as usize
    }

    /// Microseconds of an activation's or gradient's way from node `from` to node `to`.
    #[inline]
    pub fn transfer_us(&self, from: usize, to: usize) -> u64 {
        if from == to { 0 } else { self.transfer[self.between(from, to)] }
    }

    /// Microseconds of both ways between two nodes: an activation's there, its gradient's back.
    #[inline]
    pub(crate) fn both_ways_us(&self, from: usize, to: usize) -> u64 {
        self.transfer_us(from, to) + self.transfer_us(to, from)
    }

    /// Microseconds for which that transfer keeps the directed pair busy where links are serial.
    #[inline]
    pub fn sending_us(&self, from: usize, to: usize) -> u64 {
        if from == to { 0 } else { self.sending[self.between(from, to)] }
    }

    /// Microseconds of a transfer between nodes of two regions.
    pub(crate) fn region_transfer_us(&self, from: usize, to: usize) -> u64 {
        self.transfer[from * self.regions + to]
    }

    #[inline]
    fn between(&self, from: usize, to: usize) -> usize {
        self.region[from] as usize * self.regions + self.region[to] as usize
    }

    /// Whether two nodes are the same but for their ids.
    pub(crate) fn is_alike(&self, a: usize, b: usize) -> bool {
        self.region[a] == self.region[b]
            && self.instance.nodes[a].compute_s_per_layer_sample
                == self.instance.nodes[b].compute_s_per_layer_sample
            && self.memory[a] == self.memory[b]
    }

    /// Most visits of a stage in an iteration.
    pub(crate) fn visits_max(&self, stage: usize) -> u32 {
        self.visits_max[stage]
    }

    /// Whether forward and backward of origins take another time than those of relays.
    pub fn has_scaled_origin(&self) -> bool {
        self.instance.layers_of_origin() != self.instance.layers_per_stage
    }

    /// Whether a directed pair of nodes sends one message at a time.
    pub fn has_serial_links(&self) -> bool {
        self.instance.link_serial
    }

    /// Whether microbatch `id` must take CheckFree+'s swaps.
    pub fn swaps_edges(&self, id: u32) -> bool {
        self.instance.edge_swaps == Some(EdgeSwaps::Odd) && id % 2 == 1
    }

    /// The pairs (first, second) of stages whose order CheckFree+'s swap fixes where a path visits both.
    pub fn edge_pairs(&self) -> [(usize, usize); 2] {
        let stages = self.stages();
        [(2, 1), (stages - 1, stages.wrapping_sub(2))]
    }

    /// Seconds of one ring all-reduce of a stage's gradient among `members`.
    pub fn allreduce_of_stage_s(&self, stage: usize, members: &[u32]) -> f64 {
        let mut counts = [0_u32; REGIONS_FEW];
        if self.regions <= counts.len() {
            members.iter().for_each(|member| counts[self.region[*member as usize] as usize] += 1);
            return self.allreduce_of_regions_s(stage, &counts[..self.regions]);
        }
        let mut present: BTreeMap<u32, u32> = BTreeMap::new();
        for member in members {
            *present.entry(self.region[*member as usize]).or_default() += 1;
        }
        self.ring_s(stage, &present.iter().map(|(region, count)| (*region, *count)))
    }

    /// The same, with the nodes of the stage beyond this part of an instance.
    pub(crate) fn allreduce_with_outside_s(&self, stage: usize, members: &[u32]) -> f64 {
        let Some(outside) = self.outside.get(stage) else { return self.allreduce_of_stage_s(stage, members) };
        let mut counts = outside.clone();
        members.iter().for_each(|member| counts[self.region[*member as usize] as usize] += 1);
        self.allreduce_of_regions_s(stage, &counts)
    }

    /// The same for a stage with so many nodes in each region.
    pub(crate) fn allreduce_of_regions_s(&self, stage: usize, counts: &[u32]) -> f64 {
        let present = (0..).zip(counts.iter().copied()).filter(|(_, count)| *count > 0);
        self.ring_s(stage, &present)
    }

    /// Seconds of a ring all-reduce among the nodes of these regions: (region, its nodes). A link inside a region
    /// counts where two of its nodes take part.
    fn ring_s(&self, stage: usize, present: &(impl Iterator<Item = (u32, u32)> + Clone)) -> f64 {
        let (mut slowest, mut longest, mut replicas) = (f64::INFINITY, 0.0_f64, 0);
        for (a, count) in present.clone() {
            replicas += count;
            for (b, _) in present.clone() {
                if a != b || count > 1 {
                    let link = &self.links[a as usize * self.regions + b as usize];
                    slowest = slowest.min(link.bandwidth_bytes_per_s);
                    longest = longest.max(link.message_s());
                }
            }
        }
        if replicas < 2 {
            return 0.0;
        }
        let rounds = 2.0 * (f64::from(replicas) - 1.0);
        rounds / f64::from(replicas) * self.gradient_bytes(stage) / slowest + rounds * longest
    }

    /// Seconds of the slowest stage's all-reduce.
    pub fn allreduce_s(&self, stages: &[Vec<u32>]) -> f64 {
        let each = stages.iter().enumerate();
        each.map(|(stage, members)| self.allreduce_of_stage_s(stage, members)).fold(0.0, f64::max)
    }
}

impl CompiledInstance {
    /// Whether a node can serve a stage.
    pub(crate) fn may_serve(&self, node: usize, stage: usize) -> bool {
        self.able.get(node).is_none_or(|able| able[usize::from(stage > 0)])
    }

    /// A coordinator tells nodes to begin, hears of their shares, has each stage sum them, and hears of the sums: a message
    /// between it and each node takes so many microseconds.
    pub(crate) fn set_ways(&mut self, ways: Vec<u64>) {
        self.ways = ways;
    }

    /// Checks and compiles an instance for plans that a swarm in training carries out to the letter: paths ascend, and searches
    /// let no microbatch go before others, as nodes know of no priorities.
    ///
    /// # Errors
    /// What [`Instance::check`] finds.
    pub fn as_trained(instance: &Instance) -> Result<Self, InstanceError> {
        let mut instance = instance.clone();
        instance.swap.max_distance = 0;
        Ok(Self { equal_ranks: true, ..Self::new(&instance)? })
    }

    /// Microbatches visit stages in the one order that a swarm takes which trains with these swaps; nodes keep their last
    /// slot from those that go back, as its workers do.
    pub(crate) fn set_trained_order(&mut self, swaps: TrainedSwaps, rules: PathRules) {
        self.trained = (swaps != TrainedSwaps::Off).then_some(TrainedOrder { swaps, rules });
    }

    /// The origin's gradient has another size than a relay's. No field of an instance says so.
    pub(crate) fn set_origin_gradient(&mut self, bytes: Option<f64>) {
        self.origin_gradient_bytes = bytes;
    }

    /// Some nodes have no seat at first: stages are to be of these sizes, which the others fill. `spares` are ways to begin, each
    /// ascending and of as many nodes. No field of an instance says so.
    pub(crate) fn set_spares(&mut self, spares: Vec<Vec<u32>>, sizes: Vec<u32>) {
        self.spares = spares;
        self.instance.stage_sizes = Some(sizes);
    }

    /// Bytes of a stage's gradient.
    fn gradient_bytes(&self, stage: usize) -> f64 {
        let origin = self.origin_gradient_bytes.filter(|_| stage == 0);
        origin.unwrap_or(self.instance.param_bytes_per_stage)
    }

    /// Whether stages are visited in the order of a swarm that trains with swaps.
    #[inline]
    pub(crate) fn has_trained_order(&self) -> bool {
        self.trained.is_some()
    }

    /// Brings the relays of a path, which ascend, into that order.
    pub(crate) fn order_as_trained<T>(
        &self,
        microbatch: usize,
        relays: &mut [T],
        stage: impl Fn(&T) -> StageId,
    ) {
        if let Some(trained) = &self.trained {
            let relay_stages = self.stages().saturating_sub(1) as u16;
            trained.swaps.order(microbatch as u32, relay_stages, &trained.rules, relays, stage);
        }
    }

    /// Whether a path of these stages, the origin first, is in that order and keeps the rules.
    pub(crate) fn is_ordered_as_trained(&self, microbatch: usize, stages: &[StageId]) -> bool {
        let Some(trained) = &self.trained else { return true };
        let Some((_, relays)) = stages.split_first() else { return false };
        let mut ordered = relays.to_vec();
        ordered.sort_unstable();
        self.order_as_trained(microbatch, &mut ordered, |stage| *stage);
        ordered == relays && trained.rules.check(stages).is_ok()
    }

    /// Nodes compute for so many microseconds once an iteration, as an origin and as a relay: sums and steps. Counted as the
    /// end of the all-reduce. No field of an instance says so.
    pub(crate) fn set_closing(&mut self, closing: Vec<[u64; 2]>) {
        self.closing = closing;
    }

    /// What a node that serves a stage computes once an iteration, microseconds.
    #[inline]
    pub(crate) fn own_closing_us(&self, stage: usize, node: u32) -> u64 {
        self.closing.get(node as usize).map_or(0, |closing| closing[usize::from(stage > 0)])
    }

    /// Whether a coordinator orders the iteration.
    pub(crate) fn has_coordinator(&self) -> bool {
        !self.ways.is_empty()
    }

    /// A message's way between a node and the coordinator, microseconds; 0 without one.
    #[inline]
    pub(crate) fn way_us(&self, node: usize) -> u64 {
        self.ways.get(node).copied().unwrap_or(0)
    }

    /// Microseconds from when the coordinator knows that all shares of a stage are there until it knows that all members hold
    /// their sum: it tells each, the n-th gets the n-th part from all, sums it and sends that to all, and each
    /// reports; what each computes once an iteration is added at its end.
    pub(crate) fn closing_us(&self, stage: usize, members: &[u32]) -> u64 {
        let bytes = self.gradient_bytes(stage) / members.len().max(1) as f64;
        let part_us = |from: u32, to: u32| {
            if from == to {
                return 0;
            }
            let link = self.links[self.between(from as usize, to as usize)];
            let seconds = link.tensor_s(bytes) + self.instance.link_overhead_s;
            microseconds(MICROSECONDS * seconds)
        };
        let told = |member: &u32| self.way_us(*member as usize);
        let summed: Vec<(u32, u64)> = members
            .iter()
            .map(|to| (*to, members.iter().map(|from| told(from) + part_us(*from, *to)).max().unwrap_or(0)))
            .collect();
        let whole = |to: &u32| summed.iter().map(|(from, at)| at + part_us(*from, *to)).max().unwrap_or(0);
        let ends = members.iter().map(|to| whole(to) + told(to) + self.own_closing_us(stage, *to));
        ends.max().unwrap_or(0)
    }

    /// The unloaded tasks of a path: (node, microseconds of work, microseconds of the transfer that follows).
    pub(crate) fn chain(&self, path: &[u32]) -> Vec<(usize, u64, u64)> {
        let nodes: Vec<usize> =
            path.iter().chain(path.first()).chain(path.iter().rev()).map(|n| *n as usize).collect();
        let length = path.len();
        (0..nodes.len())
            .map(|task| {
                let node = nodes[task];
                let duration = match task {
                    0 => self.origin_forward[node],
                    _ if task < length => self.forward[node],
                    _ if task == length => self.loss[node],
                    _ if task == 2 * length => self.origin_backward[node],
                    _ => self.backward[node],
                };
                (node, duration, nodes.get(task + 1).map_or(0, |next| self.transfer_us(node, *next)))
            })
            .collect()
    }
}

impl CompiledInstance {
    /// The part of an instance that has these nodes, which serve these stages (as places in `nodes`), with quotas for its
    /// own origins, limits of visits, and the nodes of each stage and region beyond it.
    pub(crate) fn part(
        &self,
        nodes: &[u32],
        stages: &[Vec<u32>],
        quotas: &[u32],
        visits_max: Vec<u32>,
        outside: Vec<Vec<u32>>,
    ) -> Self {
        let pick = |times: &[u64]| -> Vec<u64> { nodes.iter().map(|node| times[*node as usize]).collect() };
        let mut instance = self.instance.clone();
        instance.nodes = (0..)
            .zip(nodes)
            .map(|(id, node)| InstanceNode { id, ..self.instance.nodes[*node as usize].clone() })
            .collect();
        if instance.stage_sizes.is_some() {
            instance.stage_sizes = Some(stages.iter().map(|stage| stage.len() as u32).collect());
        }
        instance.total_microbatches = quotas.iter().sum();
        instance.microbatches_per_origin = Quota::List(quotas.to_vec());
        Self {
            memory: nodes.iter().map(|node| self.memory[*node as usize]).collect(),
            forward: pick(&self.forward),
            backward: pick(&self.backward),
            loss: pick(&self.loss),
            origin_forward: pick(&self.origin_forward),
            origin_backward: pick(&self.origin_backward),
            region: nodes.iter().map(|node| self.region[*node as usize]).collect(),
            visits_max,
            outside,
            able: nodes.iter().filter_map(|node| self.able.get(*node as usize).copied()).collect(),
            ways: if self.ways.is_empty() { Vec::new() } else { pick(&self.ways) },
            closing: nodes.iter().filter_map(|node| self.closing.get(*node as usize).copied()).collect(),
            instance,
            ..self.clone()
        }
    }

    /// The same instance with one rule of paths lifted.
    pub(crate) fn without(&self, rule: PathRule) -> Self {
        let mut free = self.clone();
        match rule {
            PathRule::MaxJump => free.rules.jump_max = u16::MAX,
            PathRule::Swap => {
                free.rules.swap_distance_max = u16::MAX;
                free.rules.swap_count_max = u16::MAX;
                free.rules.swap_total_distance_max = u16::MAX;
            }
            PathRule::EdgeSwaps => free.instance.edge_swaps = None,
            PathRule::StageVisitsMax => {
                free.instance.stage_visits_max = None;
                free.visits_max = vec![u32::MAX; self.stages()];
            }
        }
        free
    }

    /// Other nodes serve beyond this part now.
    pub(crate) fn set_outside(&mut self, outside: Vec<Vec<u32>>) {
        self.outside = outside;
    }
}
