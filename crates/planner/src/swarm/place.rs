//! Which node serves which stage when a swarm starts.

use skipstone_types::{EdgeSwaps, PathRules};

use super::description::SwarmDescription;
use super::error::PlacementError;
use super::view::set_times;
use crate::compiled::CompiledInstance;
use crate::instance::Way;
use crate::search::{Draft, Guide, SearchOptions, is_cut, lost_with_a_region, search_even};
use crate::simulate::Simulator;

/// Nodes that are tried in place of others, beside as many as have seats; of more, the slowest and most remote are not.
const SPARES_TRIED_MAX: usize = 64;

/// How many times as much it counts that nodes are remote from each other, in other sets of nodes that a search begins with.
const REMOTENESS: [f64; 3] = [0.0, 0.25, 4.0];

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

/// Places the nodes of a description on stages, so that an iteration and its all-reduce are short. Of nodes that are too many
/// the slowest and most remote are spares at first; the search gives them others' seats where that is better, unless the swarm is
/// so large that it is cut into groups. With a price in `options.domain_price_s` stages are kept apart from failures that come
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

impl Shape<'_> {
    /// Whether any node can serve any stage.
    fn is_for_all(&self) -> bool {
        self.roles.iter().all(|roles| *roles == NodeRoles::ALL)
    }

    /// What a node can serve.
    fn roles_of(&self, node: u32) -> NodeRoles {
        self.roles.get(node as usize).copied().unwrap_or(NodeRoles::ALL)
    }
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
    let mut order = first_way(description, shape, needed)?;
    let mut compiled = compile(description, shape, &order, &[])?;
    if shape.sizes.len() > 1 && found > needed && !is_cut(&compiled) {
        let ways = with_other_ways(description, shape, order);
        order = considered(description, shape, needed, &ways);
        let others = |way: &Vec<u32>| -> Vec<u32> {
            order.iter().copied().filter(|node| way.binary_search(node).is_err()).collect()
        };
        let spares: Vec<Vec<u32>> = ways.iter().map(others).collect();
        compiled = compile(description, shape, &order, &spares)?;
    }
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
    let stages: Vec<Vec<u32>> = stages.collect();
    let mut is_spare = vec![true; description.nodes.len()];
    stages.iter().flatten().for_each(|node| is_spare[*node as usize] = false);
    let spares = (0..).zip(&is_spare).filter(|(_, is_spare)| **is_spare).map(|(node, _)| node).collect();
    Ok(Placement { stages, spares, expected_us, lost_with_a_region })
}

/// Nodes that can fill all seats, ascending: those that a search begins with.
fn first_way(
    description: &SwarmDescription,
    shape: &Shape<'_>,
    needed: usize,
) -> Result<Vec<u32>, PlacementError> {
    if shape.is_for_all() {
        return Ok(fittest(description, shape, needed, 1.0));
    }
    let origins = shape.sizes.first().copied().unwrap_or(0);
    chosen(description, usize::from(origins), needed, &|node| shape.roles_of(node))
}

/// The first and other such sets, where any node can have any seat.
fn with_other_ways(description: &SwarmDescription, shape: &Shape<'_>, first: Vec<u32>) -> Vec<Vec<u32>> {
    let (needed, mut ways) = (first.len(), vec![first]);
    if shape.is_for_all() {
        for remoteness in REMOTENESS {
            let way = fittest(description, shape, needed, remoteness);
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
    }
    ways
}

/// The nodes among which a search chooses, ascending: those of all ways to begin, and the next best.
fn considered(
    description: &SwarmDescription,
    shape: &Shape<'_>,
    needed: usize,
    ways: &[Vec<u32>],
) -> Vec<u32> {
    let mut nodes = fittest(description, shape, needed + SPARES_TRIED_MAX, 1.0);
    nodes.retain(|node| {
        let NodeRoles { origin, relay } = shape.roles_of(*node);
        origin || relay
    });
    nodes.extend(ways.iter().flatten());
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// The instance of these nodes, ascending. `spares`: ways to begin, as those of them that have no seat then, as many in each.
fn compile(
    description: &SwarmDescription,
    shape: &Shape<'_>,
    order: &[u32],
    spares: &[Vec<u32>],
) -> Result<CompiledInstance, PlacementError> {
    let slowness = |node: u32| description.nodes[node as usize].slowness;
    let origins = u32::from(shape.sizes.first().copied().unwrap_or(0));
    let (each, more) = (shape.microbatches / origins.max(1), shape.microbatches % origins.max(1));
    let quotas = (0..origins).map(|place| each + u32::from(place < more)).collect();
    let nodes = order.iter().map(|node| {
        let cost_s = description.relay.forward_s.max(1.0e-9) * slowness(*node);
        (description.nodes[*node as usize].region.clone(), cost_s)
    });
    let sizes: Vec<u32> = shape.sizes.iter().copied().map(u32::from).collect();
    // An instance has a seat for every node: those that spares would have are taken away again.
    let mut seats = sizes.clone();
    if let Some(last) = seats.last_mut() {
        *last += spares.first().map_or(0, Vec::len) as u32;
    }
    let instance = description.instance(
        "swarm",
        &seats,
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
    let able = order.iter().map(|node| shape.roles_of(*node));
    compiled.able = able.map(|roles| [roles.origin, roles.relay]).collect();
    let regions = order.iter().map(|node| description.nodes[*node as usize].region.as_str());
    compiled.set_ways(description.ways(regions));
    compiled.set_closing(vec![description.closing_us(); order.len()]);
    compiled.set_origin_gradient(description.origin_gradient_bytes);
    compiled.set_trained_order(shape.edge_swaps, shape.rules);
    let place = |node: &u32| order.binary_search(node).ok().map(|place| place as u32);
    let places = |spares: &Vec<u32>| spares.iter().filter_map(place).collect();
    compiled.set_spares(spares.iter().map(places).collect(), sizes);
    Ok(compiled)
}

/// The fastest nodes that can fill all stages together, `replicas` of them the origin, ascending.
fn chosen(
    description: &SwarmDescription,
    replicas: usize,
    needed: usize,
    roles: &dyn Fn(u32) -> NodeRoles,
) -> Result<Vec<u32>, PlacementError> {
    let found = description.nodes.len();
    let slowness = |node: &u32| description.nodes[*node as usize].slowness;
    let mut order: Vec<u32> = (0..found as u32).collect();
    order.sort_by(|a, b| slowness(a).total_cmp(&slowness(b)).then(a.cmp(b)));
    let mut kept = Vec::with_capacity(needed);
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
        if seat && kept.len() < needed {
            kept.push(node);
        }
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
    Ok(kept)
}

/// The `count` nodes of a description that are fast and near to each other and to the coordinator, ascending: who adds most
/// to an iteration goes, one after the other. How far they are counts `remoteness` times.
fn fittest(description: &SwarmDescription, shape: &Shape<'_>, count: usize, remoteness: f64) -> Vec<u32> {
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
            visits * computes_s + remoteness * remote_s[region(node)]
        };
        // Of equal ones the last goes.
        let worst =
            (0..kept.len()).max_by(|a, b| adds_s(&kept[*a]).total_cmp(&adds_s(&kept[*b])).then(a.cmp(b)));
        let Some(worst) = worst else { break };
        kept.remove(worst);
    }
    kept
}
