//! What a configuration takes: memory of its nodes, and seconds of an iteration.

use super::node_list::{NodeList, NodeSpeed};
use crate::config::{ConfigError, NodeMemory, RunConfig, RunShape, bytes_in_units};
use crate::cost::StageBytes;
use skipstone_model::LlamaConfig;
use skipstone_planner::{
    NodeRoles, Placement, PlacementError, SearchOptions, StageCost, SwarmDescription, SwarmNode, SwarmShape,
    place_with_roles,
};
use skipstone_types::{EdgeSwaps, PathRules, StageId};
use std::collections::BTreeMap;

/// Bytes of a number on the wire.
const VALUE_BYTES: f64 = 4.0;
/// Shortest task: times are whole microseconds.
const TASK_S_MIN: f64 = 1e-6;

/// A configuration, and who could serve what in it.
#[derive(Debug)]
pub(super) struct Fitted {
    pub(super) config: RunConfig,
    /// Bytes of an origin and of a relay.
    pub(super) bytes: (u64, u64),
    /// Roles by place in the list.
    roles: Vec<NodeRoles>,
    /// Why too few nodes can serve; none: enough can.
    pub(super) lacks: Option<String>,
}

impl Fitted {
    /// The configuration with as many slots as enough nodes have memory for, at most those that it asks for.
    ///
    /// # Errors
    /// A model that can't be cut so.
    pub(super) fn new(config: RunConfig, list: &NodeList) -> Result<Self, ConfigError> {
        let one_slot = RunConfig { slots: Some(1), ..config.clone() }.memory_plan_expected()?;
        let share = config.microbatches.div_ceil(u32::from(config.replicas.max(1)));
        // Where paths go back, a node keeps its last slot from them.
        let least = if config.edge_swaps() != EdgeSwaps::Off && config.stages > 1 { 2 } else { 1 };
        let most = config.slot_count().min(share).max(least);
        let bytes = |slots: u32| {
            let total = |stage: usize| -> u64 {
                let each = |node: &NodeMemory| node.total() + u64::from(slots - 1) * node.slots;
                one_slot.nodes.get(stage).map_or(0, each)
            };
            (total(0), total(1))
        };
        let roles = |slots: u32| -> Vec<NodeRoles> {
            let (origin, relay) = bytes(slots);
            let able = |node: &super::ListedNode| {
                let holds = |bytes: u64| {
                    node.memory_bytes.is_none_or(|has| has >= bytes)
                        && node.slots.is_none_or(|has| has >= slots)
                };
                NodeRoles { origin: holds(origin), relay: holds(relay) }
            };
            list.nodes.iter().map(able).collect()
        };
        let found =
            (least..=most).rev().map(|slots| (slots, roles(slots))).find(|(_, roles)| seats(&config, roles));
        let (slots, roles, lacks) = if let Some((slots, roles)) = found {
            (slots, roles, None)
        } else {
            let roles = roles(least);
            let lacks = lacks(&config, &roles, bytes(least));
            (least, roles, Some(lacks))
        };
        Ok(Self { config: RunConfig { slots: Some(slots), ..config }, bytes: bytes(slots), roles, lacks })
    }

    /// Whether every node can serve any stage.
    pub(super) fn all_alike(&self) -> bool {
        self.roles.iter().all(|roles| *roles == NodeRoles::ALL)
    }

    /// The swarm, with times from operations and speeds.
    ///
    /// # Errors
    /// A model that can't be cut so.
    pub(super) fn describe(&self, list: &NodeList) -> Result<SwarmDescription, ConfigError> {
        Ok(describe(&self.config, &self.config.shape_expected()?, list))
    }

    /// Places the nodes and predicts an iteration.
    ///
    /// # Errors
    /// No placement, or numbers that no instance may have.
    pub(super) fn place(
        &self,
        list: &NodeList,
        options: &SearchOptions,
        progress: &mut dyn FnMut(u64) -> f64,
    ) -> Result<Placement, PredictError> {
        let settings = self.config.settings()?;
        let swarm = SwarmShape {
            relay_stages: settings.relay_stages,
            replicas: settings.replicas,
            microbatches: settings.microbatches,
            path_length: settings.path_length(),
            jump_max: PathRules::default().jump_max,
            edge_swaps: settings.edge_swaps,
        };
        Ok(place_with_roles(&self.describe(list)?, &swarm, &self.roles, options, progress)?)
    }
}

/// Why nothing is predicted.
#[derive(Debug, thiserror::Error)]
pub(super) enum PredictError {
    /// The configuration can't be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The nodes can't be placed.
    #[error(transparent)]
    Place(#[from] PlacementError),
}

/// Whether all stages can be filled.
fn seats(config: &RunConfig, roles: &[NodeRoles]) -> bool {
    let replicas = usize::from(config.replicas);
    let relays = replicas * usize::from(config.stages);
    let count = |wanted: NodeRoles| roles.iter().filter(|roles| **roles == wanted).count();
    let both = count(NodeRoles::ALL);
    let only_origin = count(NodeRoles { origin: true, relay: false }).min(replicas);
    let only_relay = count(NodeRoles { origin: false, relay: true }).min(relays);
    both + only_origin + only_relay >= replicas + relays
}

fn lacks(config: &RunConfig, roles: &[NodeRoles], bytes: (u64, u64)) -> String {
    let replicas = usize::from(config.replicas);
    let needed = replicas * usize::from(config.stages);
    let able = |able: fn(&NodeRoles) -> bool| roles.iter().filter(|roles| able(roles)).count();
    let (origins, relays) = (able(|roles| roles.origin), able(|roles| roles.relay));
    format!(
        "{origins} of {} nodes hold an origin ({}), {replicas} needed; {relays} a relay ({}), {needed} needed",
        roles.len(),
        bytes_in_units(bytes.0),
        bytes_in_units(bytes.1)
    )
}

/// Floating-point operations of a forward of one layer over one sequence: two for each weight and token, and the products
/// of attention, half of which the causal mask leaves out.
fn layer_flop(model: &LlamaConfig, context: usize) -> f64 {
    let tokens = context as f64;
    tokens * (2.0 * model.layer_parameters() as f64 + 2.0 * tokens * model.query_width() as f64)
}

/// The same of the head.
fn head_flop(model: &LlamaConfig, context: usize) -> f64 {
    2.0 * context as f64 * model.vocab_size as f64 * model.hidden_size as f64
}

/// The swarm of a configuration, with times from operations and speeds.
fn describe(config: &RunConfig, shape: &RunShape, list: &NodeList) -> SwarmDescription {
    let (model, context) = (&shape.model, shape.batches.context);
    let layer = layer_flop(model, context);
    let layer_s = |speed: NodeSpeed| match speed {
        NodeSpeed::FlopPerS(flop_per_s) => layer / flop_per_s,
        NodeSpeed::LayerSampleS(seconds) => seconds,
    };
    let fastest_s = list.nodes.iter().map(|node| layer_s(node.speed)).fold(f64::INFINITY, f64::min);
    let batch = config.batch as f64;
    let forward = |layers: usize| (fastest_s * layers as f64 * batch).max(TASK_S_MIN);
    let parameters = |stage| shape.parameters(StageId(stage)) as f64;
    let cost = |stage: u16, layers: usize, loss_s: f64| StageCost {
        forward_s: forward(layers),
        loss_s,
        backward_s: forward(layers) * list.backward_ratio,
        closing_s: StageBytes::of(parameters(stage)).closing_s(),
    };
    // Head and loss are one task, with their backward.
    let loss_s = fastest_s * batch * head_flop(model, context) / layer * (1.0 + list.backward_ratio);
    SwarmDescription {
        regions: list.regions.clone(),
        nodes: list
            .nodes
            .iter()
            .map(|node| SwarmNode { region: node.region.clone(), slowness: layer_s(node.speed) / fastest_s })
            .collect(),
        relay: cost(1, shape.relay_layers, 0.0),
        origin: cost(0, shape.origin_layers, loss_s),
        activation_bytes: VALUE_BYTES * shape.tokens() as f64 * model.hidden_size as f64,
        gradient_bytes: VALUE_BYTES * parameters(1),
        origin_gradient_bytes: Some(VALUE_BYTES * parameters(0)),
        link_overhead_s: list.link_overhead_s,
        slots: config.slot_count(),
        // Where the coordinator will be is not in the list: with its first node, who lists the others. Then a stage's sum is
        // what nodes exchange, not a ring, and waits for that stage alone, as in training.
        coordinator: list.nodes.first().map(|node| node.region.clone()),
        moved: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(memory: &[f64]) -> NodeList {
        let nodes: Vec<String> = memory
            .iter()
            .map(|bytes| format!(r#"{{"region": "x", "flop_per_s": 1e12, "memory_bytes": {bytes}}}"#))
            .collect();
        let text = format!(
            r#"{{"nodes": [{}], "regions": {{"intra": {{"latency_s": 0, "bandwidth_Bps": 1e9}}}}}}"#,
            nodes.join(",")
        );
        NodeList::from_json(&text, None).unwrap()
    }

    fn config() -> RunConfig {
        RunConfig { stages: 2, replicas: 2, ..RunConfig::default() }
    }

    #[test]
    fn slots_are_as_many_as_memory_allows() {
        let plan = |slots| RunConfig { slots: Some(slots), ..config() }.memory_plan_expected().unwrap();
        let need = |slots| plan(slots).nodes.iter().map(NodeMemory::total).max().unwrap();
        assert!(need(1) < need(3), "slots take memory");
        let fitted = Fitted::new(config(), &list(&[1e15; 6])).unwrap();
        assert_eq!(fitted.config.slots, Some(4), "as many as a replica has microbatches");
        let fitted = Fitted::new(config(), &list(&[need(3) as f64; 6])).unwrap();
        assert_eq!((fitted.config.slots, fitted.lacks), (Some(3), None));
        assert_eq!(
            fitted.bytes.0.max(fitted.bytes.1),
            need(3),
            "what is said of memory is what `config` says"
        );
        let fitted = Fitted::new(config(), &list(&[need(1) as f64 - 1.0; 6])).unwrap();
        assert!(fitted.lacks.unwrap().contains("of 6 nodes hold"));
        let swapped = RunConfig { recovery: "checkfree+".to_owned(), ..config() };
        // A relay's node keeps a copy of the origin too.
        let need = |slots| {
            let plan = RunConfig { slots: Some(slots), ..swapped.clone() }.memory_plan_expected().unwrap();
            plan.nodes.iter().map(NodeMemory::total).max().unwrap()
        };
        let fitted = Fitted::new(swapped.clone(), &list(&[need(2) as f64; 6])).unwrap();
        assert_eq!((fitted.config.slots, fitted.lacks), (Some(2), None));
        let fitted = Fitted::new(swapped.clone(), &list(&[need(1) as f64; 6])).unwrap();
        assert!(fitted.config.slots == Some(2) && fitted.lacks.is_some(), "swapped paths need two slots");
    }

    #[test]
    fn times_follow_operations() {
        let config = RunConfig { tokenizer: "bytes".to_owned(), layers: Some(4), ..config() };
        let shape = config.shape_expected().unwrap();
        let swarm = describe(&config, &shape, &list(&[1e12; 2]));
        // Width 128: 4 · 128² + 3 · 384 · 128 weights and 2 · 128 of norms a layer; context 64; two layers, 4 sequences.
        let weights = f64::from(4 * 128 * 128 + 3 * 384 * 128 + 2 * 128);
        let want_s = 2.0 * 4.0 * 64.0 * (2.0 * weights + 2.0 * 64.0 * 128.0) / 1e12;
        assert!((swarm.relay.forward_s / want_s - 1.0).abs() < 1e-9, "{} {want_s}", swarm.relay.forward_s);
        assert!((swarm.relay.backward_s / want_s - 2.0).abs() < 1e-9);
        let head_s = 3.0 * 4.0 * 64.0 * 2.0 * 257.0 * 128.0 / 1e12;
        assert!((swarm.origin.loss_s / head_s - 1.0).abs() < 1e-9);
    }
}
