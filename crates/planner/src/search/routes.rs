//! Legal sequences of stages that keep the limit of visits.

use skipstone_types::StageId;

use super::draft::is_legal;
use crate::compiled::CompiledInstance;
use crate::random::Random;
use crate::subset::{DECISIVE, heaviest_path};

/// Stages looked at in the search for one sequence.
const LOOKS_MAX: usize = 20_000;
/// Rounds of mending.
const MENDS_MAX: usize = 200;

/// One legal sequence of stages, the origin first, for each microbatch, visits spread as evenly as the rules allow and
/// never above the limit. None: none was found.
pub(crate) fn balanced_routes(
    compiled: &CompiledInstance,
    stages: &[Vec<u32>],
    random: &mut Random,
) -> Option<Vec<Vec<StageId>>> {
    let instance = compiled.instance();
    let count = instance.total_microbatches as usize;
    let picks = compiled.path_length() - 1;
    let served: Vec<StageId> = (1..stages.len())
        .filter(|stage| !stages[*stage].is_empty())
        .map(|stage| StageId(stage as u16))
        .collect();
    let visits_max = i64::from(instance.stage_visits_max.unwrap_or(u32::MAX));
    let mut left = even_shares(stages, &served, picks * count, visits_max.min(count as i64), random);
    let mut visits = vec![0_i64; stages.len()];
    let mut routes = Vec::with_capacity(count);
    for microbatch in 0..count {
        let others = (count - microbatch) as i64;
        let weight = |left: i64, random: &mut Random| {
            let urgency = if left >= others { 1 + left - others } else { (left - 1).min(0) };
            random.below(1 << 20) as i64 + (left * 1024 / others.max(1)) * (1 << 8) + urgency * DECISIVE
        };
        let weights: Vec<i64> =
            served.iter().map(|stage| weight(left[usize::from(stage.0)], random)).collect();
        let route = route(compiled, microbatch, &served, &weights, picks)?;
        for stage in &route[1..] {
            left[usize::from(stage.0)] -= 1;
            visits[usize::from(stage.0)] += 1;
        }
        routes.push(route);
    }
    // Where jumps or swaps are scarce, some stage may have too many visits: draw those microbatches again.
    for _ in 0..MENDS_MAX {
        if visits.iter().skip(1).all(|visits| *visits <= visits_max) {
            return Some(routes);
        }
        for (microbatch, current) in routes.iter_mut().enumerate() {
            let over = |stage: &StageId| visits[usize::from(stage.0)] > visits_max;
            if !current[1..].iter().any(over) {
                continue;
            }
            for stage in &current[1..] {
                visits[usize::from(stage.0)] -= 1;
            }
            let weights: Vec<i64> = served
                .iter()
                .map(|stage| {
                    let room = visits_max - visits[usize::from(stage.0)];
                    random.below(1 << 20) as i64 + room.clamp(-4096, 4096) * (1 << 17)
                        - i64::from(room <= 0) * DECISIVE
                })
                .collect();
            if let Some(other) = route(compiled, microbatch, &served, &weights, picks) {
                *current = other;
            }
            for stage in &current[1..] {
                visits[usize::from(stage.0)] += 1;
            }
        }
    }
    None
}

/// How often each stage is to be visited: in proportion to its nodes, at most `visits_max` times, at most once by each
/// microbatch.
fn even_shares(
    stages: &[Vec<u32>],
    served: &[StageId],
    total: usize,
    visits_max: i64,
    random: &mut Random,
) -> Vec<i64> {
    let mut left = vec![0_i64; stages.len()];
    let mut order: Vec<usize> = served.iter().map(|stage| usize::from(stage.0)).collect();
    random.shuffle(&mut order);
    for _ in 0..total {
        let open = order.iter().copied().filter(|stage| left[*stage] < visits_max);
        // The stage whose nodes are the least visited so far.
        let next = open.min_by(|a, b| {
            let load = |stage: usize| (left[stage] + 1) as u64 * 1_000_000 / stages[stage].len() as u64;
            load(*a).cmp(&load(*b))
        });
        if let Some(stage) = next {
            left[stage] += 1;
        }
    }
    left
}

/// A legal sequence of large weight.
fn route(
    compiled: &CompiledInstance,
    microbatch: usize,
    served: &[StageId],
    weights: &[i64],
    picks: usize,
) -> Option<Vec<StageId>> {
    if served.len() < picks {
        return None;
    }
    let chosen = heaviest_path(served, weights, picks, compiled.rules.jump_max);
    let mut sequence: Vec<StageId> =
        std::iter::once(StageId::ORIGIN).chain(chosen.into_iter().map(|index| served[index])).collect();
    if compiled.swaps_edges(microbatch as u32) {
        for (first, second) in compiled.edge_pairs() {
            let place = |wanted: usize| sequence.iter().position(|stage| usize::from(stage.0) == wanted);
            if let (Some(one), Some(other)) = (place(first), place(second))
                && one > other
            {
                sequence[other..=one].rotate_right(1);
            }
        }
    }
    compiled.order_as_trained(microbatch, &mut sequence[1..], |stage| *stage);
    if is_legal(compiled, microbatch, &sequence) {
        return Some(sequence);
    }
    let mut order: Vec<usize> = (0..served.len()).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(weights[*index]), *index));
    let order: Vec<StageId> = order.into_iter().map(|index| served[index]).collect();
    let mut looks = 0;
    let mut sequence = vec![StageId::ORIGIN];
    extend(compiled, microbatch, &order, picks + 1, &mut sequence, &mut looks).then_some(sequence)
}

/// Depth-first search for a legal sequence, heavier stages first.
fn extend(
    compiled: &CompiledInstance,
    microbatch: usize,
    order: &[StageId],
    length: usize,
    sequence: &mut Vec<StageId>,
    looks: &mut usize,
) -> bool {
    if sequence.len() == length {
        return is_legal(compiled, microbatch, sequence);
    }
    for stage in order {
        *looks += 1;
        if *looks > LOOKS_MAX {
            return false;
        }
        sequence.push(*stage);
        if compiled.rules.check(sequence).is_ok()
            && extend(compiled, microbatch, order, length, sequence, looks)
        {
            return true;
        }
        sequence.pop();
    }
    false
}
