//! What is known of a swarm before it is measured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skipstone_types::NodeId;

use super::error::SwarmError;
use crate::compiled::MICROSECONDS;
use crate::instance::{INSTANCE_SCHEMA, Instance, InstanceNode, Quota, Regions, SwapRules, Way};

/// Most nodes of a description.
const NODES_MAX: usize = 20_000;
/// Largest gradient, in bytes.
const BYTES_MAX: f64 = 1.0e18;
/// Longest task, in seconds.
const TASK_S_MAX: f64 = 1.0e5;

/// Regions, links, and what a microbatch costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwarmDescription {
    /// Latency and bandwidth between regions.
    pub regions: Regions,
    /// The nodes, the first one's id being 1. Ids beyond the end of the list count from its start again: a node
    /// that takes another's place is where the list says for its own id.
    pub nodes: Vec<SwarmNode>,
    /// A microbatch at a relay stage, on a node of slowness 1.
    pub relay: StageCost,
    /// A microbatch at the origin, on a node of slowness 1.
    pub origin: StageCost,
    /// Bytes of a microbatch's activation, or of its gradient, between stages.
    pub activation_bytes: f64,
    /// Bytes of a relay stage's gradient, as replicas exchange them.
    pub gradient_bytes: f64,
    /// The same of the origin's, which is of embedding and head, and of layers of its own if it has any; none: as many.
    #[serde(default)]
    pub origin_gradient_bytes: Option<f64>,
    /// Seconds that every transfer takes beyond latency and bytes.
    #[serde(default)]
    pub link_overhead_s: f64,
    /// Microbatches that a node holds between forward and backward.
    pub slots: u32,
    /// The region of the coordinator, which orders every iteration and hears of its end; none: that takes no time.
    #[serde(default)]
    pub coordinator: Option<String>,
    /// Nodes that are elsewhere than the list says, by id.
    #[serde(default)]
    pub moved: BTreeMap<NodeId, SwarmNode>,
}

/// Most nodes that are kept beside the list; of more, those with the lowest ids are forgotten: ids ascend, and those who
/// had them are long gone.
const MOVED_MAX: usize = 10_000;

/// A node of a description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwarmNode {
    /// Its region.
    pub region: String,
    /// How many times as long as the costs say it computes, as far as nothing is measured.
    #[serde(default = "usual")]
    pub slowness: f64,
}

fn usual() -> f64 {
    1.0
}

/// Computing times of a microbatch at a stage. Of a node whose pace is measured only the proportions count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageCost {
    /// Its forward, in seconds.
    pub forward_s: f64,
    /// Its loss, in seconds; 0 for a relay.
    #[serde(default)]
    pub loss_s: f64,
    /// Its backward, in seconds.
    pub backward_s: f64,
    /// What a node computes once an iteration whatever its slowness, in seconds, until it is measured: the sum of its gradients,
    /// its part of the all-reduce, the step.
    #[serde(default)]
    pub closing_s: f64,
}

impl StageCost {
    /// All of a microbatch, in seconds.
    pub fn total_s(&self) -> f64 {
        self.forward_s + self.loss_s + self.backward_s
    }
}

impl SwarmDescription {
    /// The nodes, links and costs of an instance; node `v` of it gets the id `v + 1`. All nodes get the least number of
    /// slots.
    pub fn of_instance(instance: &Instance) -> Self {
        let cost = |layers: u32| {
            let forward_s = f64::from(layers) * f64::from(instance.samples_per_mb);
            let loss_s = 0.0;
            let backward_s = forward_s * instance.backward_ratio;
            StageCost { forward_s, loss_s, backward_s, closing_s: 0.0 }
        };
        let mut origin = cost(instance.layers_of_origin());
        // A loss is a multiple of a relay's forward, whatever the origin's own.
        origin.loss_s = cost(instance.layers_per_stage).forward_s * instance.loss_ratio;
        Self {
            regions: instance.regions.clone(),
            nodes: instance
                .nodes
                .iter()
                .map(|node| SwarmNode {
                    region: node.region.clone(),
                    slowness: node.compute_s_per_layer_sample,
                })
                .collect(),
            relay: cost(instance.layers_per_stage),
            origin,
            activation_bytes: instance.activation_bytes_per_sample * f64::from(instance.samples_per_mb),
            gradient_bytes: instance.param_bytes_per_stage,
            origin_gradient_bytes: None,
            link_overhead_s: instance.link_overhead_s,
            slots: instance.nodes.iter().map(|node| node.memory).min().unwrap_or(1),
            coordinator: None,
            moved: BTreeMap::new(),
        }
    }

    /// Microseconds of a message's way between the coordinator and nodes in these regions, in the mean of both directions; none
    /// where it takes none.
    pub(crate) fn ways<'a>(&self, regions: impl Iterator<Item = &'a str>) -> Vec<u64> {
        let Some(coordinator) = &self.coordinator else { return Vec::new() };
        let way = |region| {
            let (there, back) = (self.way(region, coordinator)?, self.way(coordinator, region)?);
            Some(us(f64::midpoint(there.message_s(), back.message_s())))
        };
        regions.map(|region| way(region).unwrap_or(0)).collect()
    }

    /// The node's entry.
    pub fn node(&self, id: NodeId) -> Option<&SwarmNode> {
        if let Some(moved) = self.moved.get(&id) {
            return Some(moved);
        }
        let place = (u64::from(id.0).max(1) - 1) % (self.nodes.len() as u64).max(1);
        self.nodes.get(place as usize)
    }

    /// What each node computes once an iteration as an origin and as a relay, microseconds.
    pub(crate) fn closing_us(&self) -> [u64; 2] {
        [us(self.origin.closing_s), us(self.relay.closing_s)]
    }

    /// Bytes of a stage's gradient.
    pub(crate) fn gradient_bytes_of(&self, stage: usize) -> f64 {
        self.origin_gradient_bytes.filter(|_| stage == 0).unwrap_or(self.gradient_bytes)
    }

    /// How slow a node is that is in this region, as far as the list tells.
    pub(crate) fn slowness_in(&self, id: NodeId, region: &str) -> f64 {
        if let Some(entry) = self.node(id).filter(|entry| entry.region == region) {
            return entry.slowness;
        }
        let there = || self.nodes.iter().filter(|entry| entry.region == region).map(|entry| entry.slowness);
        let count = there().count();
        if count == 0 { usual() } else { there().sum::<f64>() / count as f64 }
    }

    /// What the link from one region to another comes to.
    pub(crate) fn way(&self, from: &str, to: &str) -> Option<Way> {
        self.regions.way(from, to)
    }

    pub(crate) fn place(&mut self, id: NodeId, place: SwarmNode) -> Result<(), SwarmError> {
        let mut nodes = vec![place.clone()];
        nodes.extend(self.nodes.iter().cloned());
        Self { nodes, moved: BTreeMap::new(), ..self.clone() }.check()?;
        self.moved.insert(id, place);
        while self.moved.len() > MOVED_MAX {
            self.moved.pop_first();
        }
        Ok(())
    }

    /// Checks every number and link.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn check(&self) -> Result<(), SwarmError> {
        if self.nodes.is_empty() {
            return Err(SwarmError::NoNodes);
        }
        if self.nodes.len() > NODES_MAX {
            return Err(SwarmError::TooManyNodes { found: self.nodes.len(), most: NODES_MAX });
        }
        for (name, cost) in [("relay", self.relay), ("origin", self.origin)] {
            for (part, value) in [
                ("forward_s", cost.forward_s),
                ("loss_s", cost.loss_s),
                ("backward_s", cost.backward_s),
                ("closing_s", cost.closing_s),
            ] {
                in_range(format!("{name}.{part}"), value, 0.0)?;
            }
            in_range(format!("{name} (forward_s + loss_s + backward_s)"), cost.total_s(), 1.0e-9)?;
        }
        for (place, node) in self.nodes.iter().chain(self.moved.values()).enumerate() {
            in_range(format!("nodes[{place}].slowness"), node.slowness, 1.0e-6)?;
        }
        if let Some(bytes) = self.origin_gradient_bytes {
            let fits = bytes.is_finite() && (0.0..=BYTES_MAX).contains(&bytes);
            let must = "0 or more, and at most 1e18";
            let field = "origin_gradient_bytes".to_owned();
            fits.then_some(()).ok_or(SwarmError::Number { field, found: bytes, must })?;
        }
        if let Some(region) = &self.coordinator {
            let region = region.clone();
            let nodes = vec![SwarmNode { region, slowness: 1.0 }, self.nodes[0].clone()];
            Self { nodes, coordinator: None, moved: BTreeMap::new(), ..self.clone() }.check()?;
        }
        // A single path through the nodes of all regions: links and sizes are checked as those of an instance.
        let all = self.nodes.iter().chain(self.moved.values());
        let places: Vec<_> = all.map(|node| (node.region.clone(), 1.0e-3)).collect();
        let count = places.len();
        self.instance("swarm", &[count as u32], places.into_iter(), 1, vec![1; count], 1)
            .check()
            .map_err(SwarmError::from)
    }

    /// The instance of nodes in order of stages: (region, forward time in seconds).
    pub(crate) fn instance(
        &self,
        name: &str,
        sizes: &[u32],
        nodes: impl Iterator<Item = (String, f64)>,
        path_length: usize,
        quotas: Vec<u32>,
        jump_max: u32,
    ) -> Instance {
        Instance {
            schema: INSTANCE_SCHEMA.to_owned(),
            name: name.to_owned(),
            note: None,
            n_stages: sizes.len() as u32,
            stage_sizes: Some(sizes.to_vec()),
            layers_per_stage: 1,
            origin_layers: None,
            path_len: path_length as u32,
            skip_ratio: None,
            samples_per_mb: 1,
            activation_bytes_per_sample: self.activation_bytes,
            param_bytes_per_stage: self.gradient_bytes,
            backward_ratio: self.relay.backward_s / self.relay.forward_s.max(1.0e-9),
            loss_ratio: 0.0,
            link_overhead_s: self.link_overhead_s,
            task_gap_s: 0.0,
            link_serial: false,
            total_microbatches: quotas.iter().sum(),
            microbatches_per_origin: Quota::List(quotas),
            waves: None,
            edge_swaps: None,
            stage_visits_max: None,
            dp_allreduce_max_s: None,
            swap: SwapRules { max_distance: 0, max_count: 0, max_total_distance: 0 },
            max_jump: jump_max,
            regions: self.regions.clone(),
            nodes: (0..)
                .zip(nodes)
                .map(|(id, (region, forward_s))| InstanceNode {
                    id,
                    region,
                    compute_s_per_layer_sample: forward_s,
                    memory: self.slots,
                })
                .collect(),
        }
    }
}

fn us(seconds: f64) -> u64 {
    (seconds * MICROSECONDS).round_ties_even() as u64
}

fn in_range(field: String, found: f64, least: f64) -> Result<(), SwarmError> {
    if found.is_finite() && (least..=TASK_S_MAX).contains(&found) {
        return Ok(());
    }
    let must = if least > 0.0 { "above 0, and at most 100000" } else { "0 or more, and at most 100000" };
    Err(SwarmError::Number { field, found, must })
}
