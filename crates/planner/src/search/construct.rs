//! A first draft.

use skipstone_types::StageId;

use super::draft::Draft;
use super::objective::Guide;
use super::placement::placed_by_regions;
use crate::compiled::CompiledInstance;
use crate::random::Random;
use crate::simulate::Simulator;

/// A sensible placement, drawn at random, with balanced paths. None: no set of paths keeps the rules.
pub(crate) fn first_draft(compiled: &CompiledInstance, guide: &Guide, random: &mut Random) -> Option<Draft> {
    draft_without(compiled, guide, &[], random)
}

/// The same, where the nodes of `spares`, ascending, get no seat.
pub(crate) fn draft_without(
    compiled: &CompiledInstance,
    guide: &Guide,
    spares: &[u32],
    random: &mut Random,
) -> Option<Draft> {
    let stages = placed_by_regions(compiled, guide.objective(), spares, random);
    with_stages(compiled, guide, stages, random)
}

/// Sizes of stages: as the instance says, or as equal as can be.
pub(crate) fn stage_sizes(compiled: &CompiledInstance) -> Vec<usize> {
    let instance = compiled.instance();
    if let Some(sizes) = &instance.stage_sizes {
        return sizes.iter().map(|size| *size as usize).collect();
    }
    let origins = if compiled.stages() == 1 { compiled.nodes() } else { instance.origins() };
    let relays = compiled.stages() - 1;
    let left = compiled.nodes() - origins;
    std::iter::once(origins)
        .chain((0..relays).map(|relay| left / relays + usize::from(relay < left % relays)))
        .collect()
}

/// Whether there are paths that keep the rules, for any placement of the usual sizes.
pub(crate) fn has_paths(compiled: &CompiledInstance) -> bool {
    let mut nodes = 0..;
    let sizes = stage_sizes(compiled).into_iter();
    let stages: Vec<Vec<u32>> = sizes.map(|size| nodes.by_ref().take(size).collect()).collect();
    super::routes::balanced_routes(compiled, &stages, &mut Random::new(&[0x7061_7468])).is_some()
}

/// Balanced paths for a placement.
pub(crate) fn with_stages(
    compiled: &CompiledInstance,
    guide: &Guide,
    stages: Vec<Vec<u32>>,
    random: &mut Random,
) -> Option<Draft> {
    let routes = super::routes::balanced_routes(compiled, &stages, random)?;
    with_routes(compiled, guide, stages, &routes)
}

/// Paths along these sequences of stages, each over the nodes that have the least to do and are near.
pub(crate) fn with_routes(
    compiled: &CompiledInstance,
    guide: &Guide,
    stages: Vec<Vec<u32>>,
    routes: &[Vec<StageId>],
) -> Option<Draft> {
    let instance = compiled.instance();
    let mut busy_us = vec![0_u64; compiled.nodes()];
    let mut nodes = Vec::with_capacity(routes.len() * compiled.path_length());
    let mut routes = routes.iter();
    for (place, origin) in stages[0].iter().enumerate() {
        for route in routes.by_ref().take(instance.quota(place) as usize) {
            nodes.push(*origin);
            let mut from = *origin as usize;
            for stage in &route[1..] {
                // The node that would have answered first, with what it has been given already.
                let answer = |node: &&u32| {
                    let node = **node as usize;
                    let work = compiled.forward[node] + compiled.backward[node];
                    let ways =
                        compiled.transfer_us(from, node) + compiled.transfer_us(node, *origin as usize);
                    (busy_us[node] + work + ways, node)
                };
                let node = *stages[usize::from(stage.0)].iter().min_by_key(answer)?;
                from = node as usize;
                busy_us[from] += compiled.forward[from] + compiled.backward[from];
                nodes.push(node);
            }
        }
    }
    Some(without_deadlock(compiled, guide, Draft::new(compiled, stages, nodes)))
}

/// The draft as it is if it ends, else with one microbatch after the other, which always ends: a microbatch alone finds
/// every slot free. The search takes the waits away again where it can.
pub(crate) fn without_deadlock(compiled: &CompiledInstance, guide: &Guide, mut draft: Draft) -> Draft {
    if guide.score(compiled, &draft, &mut Simulator::default(), u64::MAX).is_none() {
        for (microbatch, after) in draft.schedule.after.iter_mut().enumerate().skip(1) {
            *after = microbatch as u32 - 1;
        }
    }
    draft
}
