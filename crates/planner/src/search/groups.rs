//! Large instances: groups of nodes that share no path, each annealed on its own.

use rayon::prelude::*;

use super::anneal::{Annealed, Cooling};
use super::chain::Chain;
use super::construct::{self, with_routes};
use super::draft::Draft;
use super::moves::Moves;
use super::objective::Guide;
use super::routes::balanced_routes;
use crate::compiled::CompiledInstance;
use crate::random::Random;
use crate::simulate::{NONE, Simulator};

/// Nodes of a group, about.
const GROUP_NODES: usize = 20;
/// Candidates × microbatches of a group that it tries between marks.
const BLOCK: u64 = 6_000;
/// How often groups hear of each other's placement, which the all-reduce couples.
const MEETINGS: f64 = 40.0;

/// A group: its part of the instance, and its chain.
struct Group {
    /// Node of the whole, by node of the part.
    nodes: Vec<u32>,
    part: CompiledInstance,
    guide: Guide,
    moves: Moves,
    chain: Chain,
}

/// How many groups an instance is cut into; 1: none.
pub(crate) fn group_count(compiled: &CompiledInstance) -> usize {
    let sizes = construct::stage_sizes(compiled);
    let fewest = sizes.iter().copied().filter(|size| *size > 0).min().unwrap_or(1);
    // Swapped edges go by parity of ids, which groups of even numbers of microbatches keep; of three relay stages a swarm
    // that trains swaps by ids modulo 4.
    let instance = compiled.instance();
    let period = if compiled.has_trained_order() { 4 } else { 2 };
    let keeps_parity = (instance.edge_swaps.is_none() && !compiled.has_trained_order())
        || (0..instance.origins()).all(|place| instance.quota(place).is_multiple_of(period));
    let seats: usize = sizes.iter().sum();
    if keeps_parity { (seats / GROUP_NODES).min(fewest).max(1) } else { 1 }
}

/// Anneals groups side by side. None: no paths keep the rules.
///
/// A group's own makespan is a makespan of the whole's nodes, as no path leaves its group, so the whole's makespan is
/// the largest of the groups'; all-reduces are computed over the whole.
pub(crate) fn anneal_groups(
    compiled: &CompiledInstance,
    guide: &Guide,
    groups: usize,
    seed: u64,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Option<Annealed> {
    let random = &mut Random::new(&[seed, 0x6772_6f75_7073]);
    let mut groups = cut(compiled, guide, groups, random)?;
    let (mut work, mut met) = (0, 0);
    loop {
        let done = progress(work);
        if done >= 1.0 {
            break;
        }
        let mark = (done * MEETINGS) as u64;
        if mark > met {
            met = mark;
            meet(compiled, &mut groups);
        }
        work += groups
            .par_iter_mut()
            .map(|group| {
                let count = group.chain.current.len().max(1) as u64;
                let block = (BLOCK / count).clamp(1, 1024);
                let temperature = Cooling::ANEW.temperature(done, group.chain.score.cost);
                group.chain.run(&group.part, &group.guide, &group.moves, temperature, block);
                block
            })
            .sum::<u64>();
    }
    // Each group's best was found beside others' drafts of that time: take them together only where that is better.
    let mut simulator = Simulator::default();
    let candidates =
        [join(compiled, &groups, |chain| &chain.best), join(compiled, &groups, |chain| &chain.current)];
    let scored = candidates.into_iter().filter_map(|draft| {
        let score = guide.score(compiled, &draft, &mut simulator, u64::MAX)?;
        Some(Annealed { draft, score, work })
    });
    scored.reduce(|best, other| if other.score.is_better(&best.score) { other } else { best })
}

/// Cuts an instance: every group has its share of each stage, near to its origins.
fn cut(compiled: &CompiledInstance, guide: &Guide, groups: usize, random: &mut Random) -> Option<Vec<Group>> {
    let instance = compiled.instance();
    let mut stages = super::placement::placed_by_regions(compiled, guide.objective(), &[], random);
    chain_by_distance(compiled, &mut stages[0]);
    let routes = balanced_routes(compiled, &stages, random)?;
    let share = |total: usize, group: usize| total * (group + 1) / groups - total * group / groups;
    let mut places = 0..0;
    let mut taken = 0;
    let mut members: Vec<Vec<Vec<u32>>> = Vec::with_capacity(groups);
    let mut own_routes = Vec::with_capacity(groups);
    let mut quotas = Vec::with_capacity(groups);
    for group in 0..groups {
        places = places.end..places.end + share(stages[0].len(), group);
        let own: Vec<u32> = places.clone().map(|place| instance.quota(place)).collect();
        let count = own.iter().sum::<u32>() as usize;
        own_routes.push(routes[taken..taken + count].to_vec());
        taken += count;
        quotas.push(own);
        members.push(vec![stages[0][places.clone()].to_vec()]);
    }
    for relays in &stages[1..] {
        let mut room: Vec<usize> = (0..groups).map(|group| share(relays.len(), group)).collect();
        let mut pairs: Vec<(u64, usize, u32)> = Vec::with_capacity(relays.len() * groups);
        for relay in relays {
            for (group, own) in members.iter().enumerate() {
                let ways =
                    own[0].iter().map(|origin| compiled.transfer_us(*origin as usize, *relay as usize));
                pairs.push((ways.sum::<u64>() / own[0].len().max(1) as u64, group, *relay));
            }
        }
        pairs.sort_unstable();
        members.iter_mut().for_each(|own| own.push(Vec::new()));
        let mut placed = vec![false; compiled.nodes()];
        for (_, group, relay) in pairs {
            if room[group] > 0 && !placed[relay as usize] {
                room[group] -= 1;
                placed[relay as usize] = true;
                if let Some(last) = members[group].last_mut() {
                    last.push(relay);
                }
            }
        }
    }
    // Visits: what each group's routes need, and an equal share of what is left.
    let visits = |routes: &[Vec<skipstone_types::StageId>]| {
        let mut visits = vec![0_u32; compiled.stages()];
        routes.iter().flatten().for_each(|stage| visits[usize::from(stage.0)] += 1);
        visits
    };
    let whole = visits(&routes);
    (0..groups)
        .map(|group| {
            let own = visits(&own_routes[group]);
            let visits_max = (0..compiled.stages())
                .map(|stage| {
                    let spare = compiled.visits_max(stage).saturating_sub(whole[stage]) / groups as u32;
                    own[stage].saturating_add(spare)
                })
                .collect();
            let nodes: Vec<u32> = members[group].iter().flatten().copied().collect();
            let mut first = 0;
            let local: Vec<Vec<u32>> = members[group]
                .iter()
                .map(|stage| {
                    first += stage.len() as u32;
                    (first - stage.len() as u32..first).collect()
                })
                .collect();
            let outside = outside(compiled, &members, group);
            let part = compiled.part(&nodes, &local, &quotas[group], visits_max, outside);
            let guide = Guide::new(&part, guide.objective());
            let draft = with_routes(&part, &guide, local, &own_routes[group])?;
            let chain = Chain::new(&part, &guide, draft, Random::new(&[random.next(), group as u64]));
            Some(Group { nodes, moves: Moves::new(&part), part, guide, chain })
        })
        .collect()
}

/// Orders origins so that neighbours in the list are near each other: always the nearest one next.
fn chain_by_distance(compiled: &CompiledInstance, origins: &mut [u32]) {
    for at in 1..origins.len() {
        let from = origins[at - 1] as usize;
        let nearest = (at..origins.len()).min_by_key(|index| {
            let node = origins[*index] as usize;
            (
                u64::from(compiled.region[node] != compiled.region[from]) * compiled.transfer_us(from, node),
                *index,
            )
        });
        if let Some(nearest) = nearest {
            origins.swap(at, nearest);
        }
    }
}

/// Nodes by stage and region of all groups but one.
fn outside(compiled: &CompiledInstance, members: &[Vec<Vec<u32>>], but: usize) -> Vec<Vec<u32>> {
    let mut counts = vec![vec![0; compiled.regions]; compiled.stages()];
    for (_, stages) in members.iter().enumerate().filter(|(group, _)| *group != but) {
        for (stage, nodes) in stages.iter().enumerate() {
            nodes.iter().for_each(|node| counts[stage][compiled.region[*node as usize] as usize] += 1);
        }
    }
    counts
}

/// Tells every group where the others' nodes serve now.
fn meet(compiled: &CompiledInstance, groups: &mut [Group]) {
    let members: Vec<Vec<Vec<u32>>> = groups
        .iter()
        .map(|group| {
            let stages = group.chain.current.stages.iter();
            stages.map(|stage| stage.iter().map(|node| group.nodes[*node as usize]).collect()).collect()
        })
        .collect();
    groups.par_iter_mut().enumerate().for_each(|(index, group)| {
        group.part.set_outside(outside(compiled, &members, index));
        group.chain.refresh(&group.part, &group.guide);
    });
}

/// The draft of the whole.
fn join<'a>(
    compiled: &CompiledInstance,
    groups: &'a [Group],
    pick: impl Fn(&'a Chain) -> &'a Draft,
) -> Draft {
    let mut stages = vec![Vec::new(); compiled.stages()];
    let (mut nodes, mut ranks, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for group in groups {
        let draft = pick(&group.chain);
        let whole = |node: &u32| group.nodes[*node as usize];
        for (stage, members) in stages.iter_mut().zip(&draft.stages) {
            stage.extend(members.iter().map(whole));
        }
        let first = ranks.len() as u32;
        nodes.extend(draft.schedule.nodes.iter().map(whole));
        ranks.extend_from_slice(&draft.schedule.rank);
        after.extend(
            draft.schedule.after.iter().map(|after| if *after == NONE { NONE } else { first + after }),
        );
    }
    let mut draft = Draft::new(compiled, stages, nodes);
    draft.schedule.rank = ranks;
    draft.schedule.after = after;
    draft
}
