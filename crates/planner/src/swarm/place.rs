//! Which node serves which stage when a swarm starts.

use skipstone_types::{EdgeSwaps, PathRules};

use super::description::SwarmDescription;
use super::error::PlacementError;
use super::view::set_times;
use crate::compiled::CompiledInstance;
use crate::instance::Way;
use crate::search::{Draft, Guide, SearchOptions, lost_with_a_region, search_even};
use crate::simulate::Simulator;

/// The run that nodes are placed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwarmShape {
    /// Relay stages.
    pub relay_stages: u16,
    /// Replicas of every stage.
    pub replicas: u16,
    /// Microbatches of an iteration.
    pub microbatches: u32,
    /// Visits of a path, the origin's included.
    pub path_length: u16,
    /// Longest jump of a path.
    pub jump_max: u16,
    /// Which microbatches visit the first and the last two relay stages in swapped order.
    pub edge_swaps: EdgeSwaps,
}

/// What a node has the means for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRoles {
    /// Whether it can serve stage 0.
    pub origin: bool,
    /// Whether it can serve a relay stage.
    pub relay: bool,
}

impl NodeRoles {
    /// Either.
    pub const ALL: Self = Self { origin: true, relay: true };
}

/// Who serves what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Nodes of each stage, as places in the description, ascending.
    pub stages: Vec<Vec<u32>>,
    /// Nodes that are left over, ascending.
    pub spares: Vec<u32>,
    /// What an iteration is expected to take under the best plan found, in microseconds.
    pub expected_us: u64,
    /// Stages, and pairs of adjacent ones, that one region can take away ([`lost_with_a_region`]).
    pub lost_with_a_region: u32,
}

/// Places the nodes of a description on stages, so that an iteration and its all-reduce are short; of nodes that are too many
/// the slowest and most remote become spares. With a price in `options.domain_price_s` stages are kept apart from failures that come
/// together: that many seconds of an iteration are given for each that one region could take away.
///
/// `progress` is as for [`search`](fn@crate::search).
///
/// # Errors
/// See [`PlacementError`].
pub fn place(
    description: &SwarmDescription,
    shape: &SwarmShape,
    options: &SearchOptions,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<Placement, PlacementError> {
    place_with_roles(description, shape, &[], options, progress)
}

/// The same where not every node can serve every stage: `roles` in the order of the description's nodes; those beyond its
/// end can serve any.
///
/// # Errors
/// See [`PlacementError`].
pub fn place_with_roles(
    description: &SwarmDescription,
    shape: &SwarmShape,
    roles: &[NodeRoles],
    options: &SearchOptions,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<Placement, PlacementError> {
    let (stages, replicas) = (usize::from(shape.relay_stages) + 1, usize::from(shape.replicas));
    let (needed, found) = (stages * replicas, description.nodes.len());
    if found < needed || needed == 0 {
        description.check()?;
        return Err(PlacementError::TooFewNodes { stages, replicas, needed, found });
    }
    let sizes = vec![shape.replicas; stages];
    let SwarmShape { microbatches, path_length, jump_max, edge_swaps, .. } = *shape;
    let rules = PathRules { jump_max, ..PathRules::default() };
    let shape = Shape { sizes: &sizes, roles, microbatches, path_length, rules, edge_swaps };
    place_sizes(description, &shape, options, progress)
}

/// A run whose stages may differ in size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a> {
    /// Nodes of each stage, origin first.
    pub(crate) sizes: &'a [u16],
    /// What each node can serve, in the order of the description; those beyond its end can serve any stage.
    pub(crate) roles: &'a [NodeRoles],
    /// Microbatches of an iteration.
    pub(crate) microbatches: u32,
    /// Visits of a path, the origin's included.
    pub(crate) path_length: u16,
    /// The orders of stages that are allowed.
    pub(crate) rules: PathRules,
    /// Which microbatches visit the first and the last two relay stages in swapped order.
    pub(crate) edge_swaps: EdgeSwaps,
}

/// Places as many nodes of the description as the stages together want, which must not be more than there are.
pub(crate) fn place_sizes(
    description: &SwarmDescription,
    shape: &Shape<'_>,
    options: &SearchOptions,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<Placement, PlacementError> {
    description.check()?;
    let (origins, found) = (u32::from(shape.sizes.first().copied().unwrap_or(0)), description.nodes.len());
    let needed: usize = shape.sizes.iter().copied().map(usize::from).sum();
    if origins == 0 || found < needed {
        let stages = shape.sizes.len();
        return Err(PlacementError::TooFewNodes { stages, replicas: needed / stages.max(1), needed, found });
    }
    let slowness = |node: u32| description.nodes[node as usize].slowness;
    let roles = |node: u32| shape.roles.get(node as usize).copied().unwrap_or(NodeRoles::ALL);
    let (order, spares) = if shape.roles.is_empty() {
        fittest(description, shape, needed)
    } else {
        chosen(description, origins as usize, needed, &roles)?
    };
    let (each, more) = (shape.microbatches / origins, shape.microbatches % origins);
    let quotas = (0..origins).map(|place| each + u32::from(place < more)).collect();
    let nodes = order.iter().map(|node| {
        let cost_s = description.relay.forward_s.max(1.0e-9) * slowness(*node);
        (description.nodes[*node as usize].region.clone(), cost_s)
    });
    let instance = description.instance(
        "swarm",
        &shape.sizes.iter().copied().map(u32::from).collect::<Vec<_>>(),
        nodes,
        usize::from(shape.path_length),
        quotas,
        u32::from(shape.rules.jump_max.max(1)),
    );
    let mut compiled = CompiledInstance::new(&instance).map_err(super::error::SwarmError::from)?;
    set_times(&mut compiled, description, |place| {
        let slowness = slowness(order[place]);
        (description.relay.total_s() * slowness, description.origin.total_s() * slowness)
    });
    compiled.able = order.iter().map(|node| [roles(*node).origin, roles(*node).relay]).collect();
    let regions = order.iter().map(|node| description.nodes[*node as usize].region.as_str());
    compiled.set_ways(description.ways(regions));
    compiled.set_origin_gradient(description.origin_gradient_bytes);
    compiled.set_trained_order(shape.edge_swaps, shape.rules);
    let found = search_even(&compiled, options, progress)?;
    // Nobody tells microbatches to wait for others.
    let nodes = found.plan.microbatches.iter().flat_map(|microbatch| microbatch.path.iter().copied());
    let draft = Draft::new(&compiled, found.plan.stages.clone(), nodes.collect());
    let guide = Guide::new(&compiled, options.objective);
    let score = guide.score(&compiled, &draft, &mut Simulator::default(), u64::MAX);
    let expected_us = score.map_or(u64::MAX, |score| score.objective_us);
    let lost_with_a_region = lost_with_a_region(&compiled, &found.plan.stages);
    let stages = found.plan.stages.into_iter().map(|members| {
        let mut members: Vec<u32> = members.into_iter().map(|node| order[node as usize]).collect();
        members.sort_unstable();
        members
    });
    Ok(Placement { stages: stages.collect(), spares, expected_us, lost_with_a_region })
}

/// The fastest nodes that can fill all stages together, `replicas` of them the origin, and the rest, both ascending.
fn chosen(
    description: &SwarmDescription,
    replicas: usize,
    needed: usize,
    roles: &dyn Fn(u32) -> NodeRoles,
) -> Result<(Vec<u32>, Vec<u32>), PlacementError> {
    let found = description.nodes.len();
    let slowness = |node: &u32| description.nodes[*node as usize].slowness;
    let mut order: Vec<u32> = (0..found as u32).collect();
    order.sort_by(|a, b| slowness(a).total_cmp(&slowness(b)).then(a.cmp(b)));
    let (mut kept, mut spares) = (Vec::with_capacity(needed), Vec::new());
    // Nodes that can do one thing only are taken as long as there is a seat for it: the others fit everywhere.
    let (mut only_origin, mut only_relay) = (replicas, needed - replicas);
    for node in order {
        let seat = match roles(node) {
            NodeRoles { origin: true, relay: true } => true,
            NodeRoles { origin: true, relay: false } if only_origin > 0 => {
                only_origin -= 1;
                true
            }
            NodeRoles { origin: false, relay: true } if only_relay > 0 => {
                only_relay -= 1;
                true
            }
            _ => false,
        };
        if seat && kept.len() < needed { kept.push(node) } else { spares.push(node) }
    }
    if kept.len() < needed {
        let able = |origin: bool| {
            let able = |node: &u32| if origin { roles(*node).origin } else { roles(*node).relay };
            (0..found as u32).filter(able).count()
        };
        return Err(PlacementError::TooFewAble {
            origins: able(true),
            replicas,
            relays: able(false),
            needed: needed - replicas,
            found,
        });
    }
    kept.sort_unstable();
    spares.sort_unstable();
    Ok((kept, spares))
}

/// The `count` nodes of a description that are fast and near to each other and to the coordinator, and the others: who adds most
/// to an iteration goes, one after the other.
fn fittest(description: &SwarmDescription, shape: &Shape<'_>, count: usize) -> (Vec<u32>, Vec<u32>) {
    let mut regions: Vec<&str> = description.nodes.iter().map(|node| node.region.as_str()).collect();
    regions.sort_unstable();
    regions.dedup();
    let region =
        |node: &u32| regions.partition_point(|name| **name < *description.nodes[*node as usize].region);
    let way_s = |a: &str, b: &str| {
        let (there, back) = (description.way(a, b), description.way(b, a));
        let way_s = |way: Option<Way>| way.map_or(0.0, |way| way.tensor_s(description.activation_bytes));
        f64::midpoint(way_s(there), way_s(back))
    };
    let told_us = description.ways(regions.iter().copied());
    let told_s = |region: usize| told_us.get(region).map_or(0.0, |us| 2.0e-6 * *us as f64);
    let mut kept: Vec<u32> = (0..description.nodes.len() as u32).collect();
    let mut spares = Vec::new();
    // Visits that a node gets, of all.
    let visits = f64::from(shape.microbatches) * f64::from(shape.path_length) / count.max(1) as f64;
    while kept.len() > count {
        let mut present = vec![0.0; regions.len()];
        kept.iter().for_each(|node| present[region(node)] += 1.0 / kept.len() as f64);
        let remote_s: Vec<f64> = (0..regions.len())
            .map(|at| {
                let ways = present.iter().zip(&regions).map(|(share, to)| share * way_s(regions[at], to));
                2.0 * ways.sum::<f64>() + told_s(at)
            })
            .collect();
        let adds_s = |node: &u32| {
            let computes_s = description.relay.total_s() * description.nodes[*node as usize].slowness;
            visits * computes_s + remote_s[region(node)]
        };
        // Of equal ones the last goes.
        let worst =
            (0..kept.len()).max_by(|a, b| adds_s(&kept[*a]).total_cmp(&adds_s(&kept[*b])).then(a.cmp(b)));
        let Some(worst) = worst else { break };
        spares.push(kept.remove(worst));
    }
    spares.sort_unstable();
    (kept, spares)
}
