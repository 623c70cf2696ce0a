//! A first draft.

use super::draft::Draft;
use super::objective::Guide;
use crate::compiled::CompiledInstance;
use crate::random::Random;
use crate::simulate::Simulator;

/// A random placement with balanced paths. None: no set of paths keeps the rules.
pub(crate) fn random_draft(compiled: &CompiledInstance, guide: &Guide, random: &mut Random) -> Option<Draft> {
    let mut order: Vec<u32> = (0..compiled.nodes() as u32).collect();
    random.shuffle(&mut order);
    let mut rest = order.as_slice();
    let stages: Vec<Vec<u32>> = stage_sizes(compiled)
        .into_iter()
        .map(|size| {
            let (members, others) = rest.split_at(size);
            rest = others;
            members.to_vec()
        })
        .collect();
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

/// Balanced paths for a placement.
pub(crate) fn with_stages(
    compiled: &CompiledInstance,
    guide: &Guide,
    stages: Vec<Vec<u32>>,
    random: &mut Random,
) -> Option<Draft> {
    let routes = super::routes::balanced_routes(compiled, &stages, random)?;
    let instance = compiled.instance();
    let mut turns: Vec<usize> = stages.iter().map(|members| random.below(members.len().max(1))).collect();
    let mut nodes = Vec::with_capacity(routes.len() * compiled.path_length());
    let mut routes = routes.into_iter();
    for (place, origin) in stages[0].iter().enumerate() {
        for route in routes.by_ref().take(instance.quota(place) as usize) {
            nodes.push(*origin);
            for stage in &route[1..] {
                let stage = usize::from(stage.0);
                nodes.push(stages[stage][turns[stage] % stages[stage].len()]);
                turns[stage] += 1;
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
