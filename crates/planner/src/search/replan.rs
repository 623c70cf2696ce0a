//! A plan for what has become of a swarm, from the plan that it had.

use super::anneal::{Cooling, anneal};
use super::draft::Draft;
use super::error::SearchError;
use super::moves::Moves;
use super::objective::Guide;
use super::{Found, SearchOptions, construct};
use crate::compiled::CompiledInstance;
use crate::plan::PipelinePlan;
use crate::random::Random;

/// Plans anew for an instance that differs a little from the one that `old` was for: nodes lost, joined, slower or
/// faster, links changed. The search starts from the old placement and paths, mended where they do not fit any more.
///
/// `became[v]` is the id that the old plan's node v has in the new instance, or none if it is gone. Ids of the new
/// instance that none became are nodes that joined. `progress` is as for [`search`](super::search).
///
/// # Errors
/// See [`SearchError`].
pub fn replan(
    compiled: &CompiledInstance,
    old: &PipelinePlan,
    became: &[Option<u32>],
    options: &SearchOptions,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<Found, SearchError> {
    let found: usize = old.stages.iter().map(Vec::len).sum();
    if found != became.len() {
        return Err(SearchError::Renumbering { found, listed: became.len() });
    }
    let guide = Guide::new(compiled, options.objective).with_domains(options.domain_price_s);
    let moves = Moves::new(compiled);
    let stages = mended_stages(compiled, old, became);
    // Chains: the old paths mended, where they can be, and balanced paths for the old placement.
    let mut drafts: Vec<Draft> = mended_paths(compiled, &guide, old, became, &stages).into_iter().collect();
    for chain in drafts.len() as u64..2 {
        let random = &mut Random::new(&[options.seed, chain, 0x7265_706c_616e]);
        drafts.extend(construct::with_stages(compiled, &guide, stages.clone(), random));
    }
    if drafts.is_empty() {
        return Err(SearchError::no_paths(compiled));
    }
    let annealed = anneal(compiled, &guide, &moves, drafts, Cooling::WARM, options.seed, progress);
    super::finish(compiled, annealed)
}

/// The old stages under new ids, with the sizes that the new instance asks for, few nodes moved.
fn mended_stages(compiled: &CompiledInstance, old: &PipelinePlan, became: &[Option<u32>]) -> Vec<Vec<u32>> {
    let new_id = |node: &u32| became.get(*node as usize).copied().flatten();
    let in_range = |node: &u32| (*node as usize) < compiled.nodes();
    let mut stages: Vec<Vec<u32>> = old
        .stages
        .iter()
        .map(|members| members.iter().filter_map(new_id).filter(in_range).collect())
        .collect();
    let placed: std::collections::BTreeSet<u32> = stages.iter().flatten().copied().collect();
    let mut spare: Vec<u32> = (0..compiled.nodes() as u32).filter(|node| !placed.contains(node)).collect();
    stages.resize(compiled.stages(), Vec::new());
    let gone: Vec<u32> = old.stages.iter().skip(compiled.stages()).flatten().filter_map(new_id).collect();
    spare.extend(gone.into_iter().filter(in_range));
    spare.sort_unstable();
    spare.dedup();
    let sizes = wanted_sizes(compiled, &stages);
    for (members, size) in stages.iter_mut().zip(&sizes) {
        while members.len() > *size {
            spare.extend(members.pop());
        }
    }
    for (members, size) in stages.iter_mut().zip(&sizes) {
        while members.len() < *size {
            // The spare node nearest to the stage's own, to keep the all-reduce short; else the fastest.
            let nearest = (0..spare.len()).min_by_key(|index| {
                let node = spare[*index] as usize;
                let way: u64 =
                    members.iter().map(|member| compiled.transfer_us(*member as usize, node)).sum();
                (way, compiled.forward[node], node)
            });
            let Some(nearest) = nearest else { break };
            members.push(spare.remove(nearest));
        }
    }
    stages
}

/// The sizes that the instance asks for; where it leaves them open, the old ones as far as they can be.
fn wanted_sizes(compiled: &CompiledInstance, stages: &[Vec<u32>]) -> Vec<usize> {
    let instance = compiled.instance();
    if instance.stage_sizes.is_some() || stages.len() == 1 {
        return construct::stage_sizes(compiled);
    }
    let mut sizes: Vec<usize> = stages.iter().map(|members| members.len().max(1)).collect();
    sizes[0] = instance.origins();
    // The sizes of relay stages take what is left: the largest give, the smallest get.
    loop {
        let total: usize = sizes.iter().sum();
        let relays = 1..sizes.len();
        let stage = match total.cmp(&compiled.nodes()) {
            std::cmp::Ordering::Equal => return sizes,
            std::cmp::Ordering::Greater => relays.max_by_key(|stage| sizes[*stage]),
            std::cmp::Ordering::Less => relays.min_by_key(|stage| sizes[*stage]),
        };
        let Some(stage) = stage else { return sizes };
        if total < compiled.nodes() {
            sizes[stage] += 1;
        } else {
            sizes[stage] -= 1;
        }
    }
}

/// The old paths over the new stages, if they keep every rule of the new instance.
fn mended_paths(
    compiled: &CompiledInstance,
    guide: &Guide,
    old: &PipelinePlan,
    became: &[Option<u32>],
    stages: &[Vec<u32>],
) -> Option<Draft> {
    let instance = compiled.instance();
    let length = compiled.path_length();
    if old.is_full() || old.stages.len() != stages.len() {
        return None;
    }
    let mut stage_of = vec![usize::MAX; compiled.nodes()];
    for (stage, members) in stages.iter().enumerate() {
        members.iter().for_each(|node| stage_of[*node as usize] = stage);
    }
    let mut old_stage = vec![usize::MAX; became.len()];
    for (stage, members) in old.stages.iter().enumerate() {
        members.iter().for_each(|node| old_stage[*node as usize] = stage);
    }
    let mut visits = vec![0_usize; compiled.nodes()];
    let mut queues: Vec<Vec<&crate::plan::PlannedMicrobatch>> = vec![Vec::new(); stages[0].len()];
    let mut orphans = Vec::new();
    for microbatch in &old.microbatches {
        let origin = became.get(*microbatch.path.first()? as usize).copied().flatten();
        match origin.and_then(|origin| stages[0].iter().position(|node| *node == origin)) {
            Some(place) => queues[place].push(microbatch),
            None => orphans.push(microbatch),
        }
    }
    let mut nodes = Vec::with_capacity(instance.total_microbatches as usize * length);
    let mut ranks = Vec::new();
    for (place, origin) in stages[0].iter().enumerate() {
        for index in 0..instance.quota(place) as usize {
            let microbatch = queues[place].get(index).copied().or_else(|| orphans.pop())?;
            if microbatch.path.len() != length {
                return None;
            }
            nodes.push(*origin);
            ranks.push(microbatch.priority.clamp(0.0, 1.0e6) as u32);
            for node in &microbatch.path[1..] {
                let stage = *old_stage.get(*node as usize)?;
                let kept = became[*node as usize].filter(|node| stage_of.get(*node as usize) == Some(&stage));
                let node = match kept {
                    Some(node) => node,
                    None => *stages[stage].iter().min_by_key(|node| (visits[**node as usize], **node))?,
                };
                visits[node as usize] += 1;
                nodes.push(node);
            }
        }
    }
    let mut draft = Draft::new(compiled, stages.to_vec(), nodes);
    draft.schedule.rank = ranks;
    draft.schedule.policy = old.policy;
    let visits_max = instance.stage_visits_max.unwrap_or(u32::MAX);
    let keeps_visits = draft.visits.iter().skip(1).all(|visits| *visits <= visits_max);
    let legal = keeps_visits && (0..draft.len()).all(|microbatch| draft.is_legal(compiled, microbatch));
    legal.then(|| construct::without_deadlock(compiled, guide, draft))
}
