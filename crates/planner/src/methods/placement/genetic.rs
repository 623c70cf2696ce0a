//! The genetic search itself.

use super::Placement;
use super::cycles::Cycles;
use super::score::{Score, score};
use crate::compiled::{CompiledInstance, MICROSECONDS};
use crate::methods::{Budget, MethodError};
use crate::random::Random;
use crate::search::stage_sizes;

/// Placements alive at a time.
const POPULATION: usize = 200;
/// Children born.
const TRIALS: usize = 8000;
/// Nodes whose group a child takes from the first parent.
const CROSSOVER: usize = 5;
/// Most other placements kept.
const OTHERS_MAX: usize = 64;
/// Share of the budget that it takes at most.
const SHARE_MAX: f64 = 0.5;

/// A placement with its score.
#[derive(Debug, Clone)]
struct Member {
    /// Group of each node.
    group: Vec<usize>,
    score: Score,
}

/// The best placement of a genetic search: random placements; children take the second parent's groups but for five
/// nodes, are improved by cycles of moves, and take the worse parent's place unless they are worse than both.
pub(in crate::methods) fn genetic(
    compiled: &CompiledInstance,
    mut random: Random,
    budget: &mut Budget,
) -> Result<Placement, MethodError> {
    let sizes = stage_sizes(compiled);
    let delay = |a: usize, b: usize| compiled.transfer_us(a, b) as i64;
    let cycles = Cycles::new(delay, sizes.len(), weight_of_allreduce(compiled));
    let seats: Vec<usize> =
        sizes.iter().enumerate().flat_map(|(group, size)| std::iter::repeat_n(group, *size)).collect();
    let rate = |group: &[usize]| score(compiled, &members(group, sizes.len()), &sizes).0;
    let mut member = |budget: &mut Budget| {
        let mut group = seats.clone();
        random.shuffle(&mut group);
        budget.count(1);
        Member { score: rate(&group), group }
    };
    let mut best = member(budget);
    let mut population = vec![best.clone()];
    while population.len() < POPULATION && budget.spent < SHARE_MAX {
        population.push(member(budget));
    }
    for member in &population {
        if member.score < best.score {
            best = member.clone();
        }
    }
    let mut scored = population.len() as u64;
    for _ in 0..TRIALS {
        if budget.spent >= SHARE_MAX {
            break;
        }
        let (first, second) = (random.below(population.len()), random.below(population.len()));
        let child = cross(&population[first].group, &population[second].group, &sizes, &mut random);
        let group = cycles.improve(child);
        let child = Member { score: rate(&group), group };
        scored += 1;
        budget.count(1);
        if child.score < best.score {
            best = child.clone();
        }
        if child.score <= population[first].score.max(population[second].score) {
            let worse = if population[first].score > population[second].score { first } else { second };
            population[worse] = child;
        }
    }
    if best.score.excess_us > 0 {
        let most = compiled.instance().dp_allreduce_max_s.unwrap_or(0.0);
        let found = most + best.score.excess_us as f64 / MICROSECONDS;
        return Err(MethodError::AllReduce { found, most, placements: scored });
    }
    let stages = |member: &Member| -> Vec<Vec<u32>> {
        let groups = members(&member.group, sizes.len());
        let (_, order) = score(compiled, &groups, &sizes);
        order.into_iter().map(|group| groups[group].clone()).collect()
    };
    population.retain(|member| member.score.excess_us == 0);
    population.sort_by(|a, b| (a.score, &a.group).cmp(&(b.score, &b.group)));
    population.dedup_by(|a, b| a.group == b.group);
    let stages_of_best = stages(&best);
    let mut others: Vec<Vec<Vec<u32>>> = population.iter().take(OTHERS_MAX).map(stages).collect();
    others.dedup();
    Ok(Placement {
        stages: stages_of_best,
        others,
        notes: vec![format!(
            "placement: {scored} scored by the genetic search, best score {:.1} s",
            best.score.cost_us as f64 / MICROSECONDS
        )],
    })
}

/// Bytes of an all-reduce over bytes of an origin's activations.
fn weight_of_allreduce(compiled: &CompiledInstance) -> f64 {
    let instance = compiled.instance();
    let microbatches = f64::from(instance.total_microbatches) / instance.origins().max(1) as f64;
    let bytes =
        instance.activation_bytes_per_sample * f64::from(instance.samples_per_mb) * microbatches.max(1.0);
    instance.param_bytes_per_stage / bytes.max(1.0)
}

/// The second parent's groups, five nodes as in the first, and nodes too many moved to groups with room.
fn cross(first: &[usize], second: &[usize], sizes: &[usize], random: &mut Random) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..first.len()).collect();
    random.shuffle(&mut nodes);
    let mut child = second.to_vec();
    for node in nodes.into_iter().take(CROSSOVER) {
        child[node] = first[node];
    }
    let mut count = vec![0; sizes.len()];
    child.iter().for_each(|group| count[*group] += 1);
    for group in &mut child {
        if count[*group] > sizes[*group]
            && let Some(room) = (0..sizes.len()).find(|other| count[*other] < sizes[*other])
        {
            count[*group] -= 1;
            count[room] += 1;
            *group = room;
        }
    }
    child
}

/// The nodes of each group.
fn members(group: &[usize], groups: usize) -> Vec<Vec<u32>> {
    let mut members = vec![Vec::new(); groups];
    for (node, of) in group.iter().enumerate() {
        members[*of].push(node as u32);
    }
    members
}
