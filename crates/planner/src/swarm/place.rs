//! Which node serves which stage when a swarm starts.

use super::description::SwarmDescription;
use super::error::PlacementError;
use super::view::set_times;
use crate::compiled::CompiledInstance;
use crate::search::{SearchOptions, lost_with_a_region, search};
use crate::simulate::evaluate;

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

/// Places the nodes of a description on stages, so that an iteration and its all-reduce are short; the slowest nodes that
/// are too many become spares. With a price in `options.domain_price_s` stages are kept apart from failures that come
/// together: that many seconds of an iteration are given for each that one region could take away.
///
/// `progress` is as for [`search`].
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
    description.check()?;
    let (stages, replicas) = (usize::from(shape.relay_stages) + 1, usize::from(shape.replicas));
    let roles = |node: u32| roles.get(node as usize).copied().unwrap_or(NodeRoles::ALL);
    let (order, spares) = chosen(description, stages, replicas, &roles)?;
    let slowness = |node: u32| description.nodes[node as usize].slowness;
    let (each, more) = (shape.microbatches / replicas as u32, shape.microbatches % replicas as u32);
    let quotas = (0..replicas as u32).map(|place| each + u32::from(place < more)).collect();
    let nodes = order.iter().map(|node| {
        let cost_s = description.relay.forward_s.max(1.0e-9) * slowness(*node);
        (description.nodes[*node as usize].region.clone(), cost_s)
    });
    let instance = description.instance(
        "swarm",
        &vec![u32::from(shape.replicas); stages],
        nodes,
        usize::from(shape.path_length),
        quotas,
        u32::from(shape.jump_max.max(1)),
    );
    let mut compiled = CompiledInstance::new(&instance).map_err(super::error::SwarmError::from)?;
    set_times(&mut compiled, description, |place| {
        let slowness = slowness(order[place]);
        (description.relay.total_s() * slowness, description.origin.total_s() * slowness)
    });
    compiled.able = order.iter().map(|node| [roles(*node).origin, roles(*node).relay]).collect();
    let found = search(&compiled, options, progress)?;
    let expected_us = evaluate(&compiled, &found.plan)
        .map_or(u64::MAX, |figures| figures.makespan_us + (figures.allreduce_s * 1.0e6).ceil() as u64);
    let lost_with_a_region = lost_with_a_region(&compiled, &found.plan.stages);
    let stages = found.plan.stages.into_iter().map(|members| {
        let mut members: Vec<u32> = members.into_iter().map(|node| order[node as usize]).collect();
        members.sort_unstable();
        members
    });
    Ok(Placement { stages: stages.collect(), spares, expected_us, lost_with_a_region })
}

/// The fastest nodes that can fill all stages together, and the rest, both ascending.
fn chosen(
    description: &SwarmDescription,
    stages: usize,
    replicas: usize,
    roles: &dyn Fn(u32) -> NodeRoles,
) -> Result<(Vec<u32>, Vec<u32>), PlacementError> {
    let (needed, found) = (stages * replicas, description.nodes.len());
    if found < needed || needed == 0 {
        return Err(PlacementError::TooFewNodes { stages, replicas, needed, found });
    }
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
