//! Searches: every plan is valid, no makespan is below a bound, and the result depends on seed and work alone.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use skipstone_planner::{
    BackLink, CompiledInstance, DrawnSize, EdgeSwaps, Instance, LowerBounds, Objective, PathRule,
    PipelinePlan, Quota, SearchError, SearchOptions, SwapRules, draw_instance, evaluate, exact, replan,
    search,
};

fn options(objective: Objective, seed: u64) -> SearchOptions {
    SearchOptions { objective, seed, ..SearchOptions::default() }
}

fn plan(compiled: &CompiledInstance, work: u64, seed: u64) -> PipelinePlan {
    let found = search(compiled, &options(Objective::Iteration, seed), &mut |done| done as f64 / work as f64);
    found.unwrap().plan
}

/// Each way of a link of its own length, some of them lossy.
fn make_uneven(instance: &mut Instance, seed: u64) {
    instance.regions.intra.jitter_s = 0.01;
    for (place, entry) in instance.regions.links.iter_mut().enumerate() {
        let share = 1.0 + (seed >> (place % 50) & 7) as f64;
        entry.link.loss = if place % 3 == 0 { 0.01 } else { 0.0 };
        entry.back = Some(BackLink {
            latency_s: Some(entry.link.latency_s * share),
            bandwidth_bytes_per_s: Some(entry.link.bandwidth_bytes_per_s / share),
            ..BackLink::default()
        });
    }
}

/// Instances of all kinds that have a plan.
fn instances() -> impl Strategy<Value = Instance> {
    let sizes = (1_usize..7, 1_usize..7, 1_usize..5, 0_usize..12);
    let kinds = (any::<u64>(), any::<bool>(), 0_u8..3, any::<bool>(), any::<bool>(), any::<bool>());
    (sizes, kinds).prop_map(|((stages, length, regions, more), (seed, null, swaps, serial, origin, list))| {
        let path_len = length.min(stages);
        let nodes = stages + more;
        let mut instance = draw_instance(DrawnSize { nodes, stages, path_len, regions }, seed);
        instance.link_serial = serial;
        if seed % 2 == 1 {
            make_uneven(&mut instance, seed);
        }
        instance.origin_layers = origin.then_some(0);
        if list {
            let origins = instance.origins();
            let quotas: Vec<u32> =
                (0..origins as u32).map(|place| 1 + (place + seed as u32 % 5) % 5).collect();
            instance.total_microbatches = quotas.iter().sum();
            instance.microbatches_per_origin = Quota::List(quotas);
            instance.stage_visits_max = None;
        }
        if null {
            instance.stage_sizes = None;
        }
        match swaps {
            0 => instance.swap = SwapRules { max_distance: 0, max_count: 0, max_total_distance: 0 },
            // With four stages both swaps together would go back by two.
            1 if stages > 4 => instance.edge_swaps = Some(EdgeSwaps::Odd),
            _ => {}
        }
        instance
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn every_plan_is_valid_and_no_makespan_is_below_a_bound(instance in instances(), seed in 0_u64..4) {
        let compiled = CompiledInstance::new(&instance).unwrap();
        let plan = plan(&compiled, 1500, seed);
        let evaluation = evaluate(&compiled, &plan);
        prop_assert!(evaluation.is_ok(), "{:?} {}", evaluation, serde_json::to_string(&instance).unwrap());
        let bounds = LowerBounds::of_plan(&compiled, &plan);
        prop_assert!(evaluation.unwrap().makespan_us >= bounds.best_us(), "{bounds:?}");
        // What is written is read back the same.
        let text = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(PipelinePlan::from_json(&text).unwrap(), plan);
    }

    #[test]
    fn relabelling_nodes_changes_nothing(instance in instances(), shift in 1_usize..50) {
        let compiled = CompiledInstance::new(&instance).unwrap();
        let plan = plan(&compiled, 300, 1);
        let nodes = instance.nodes.len();
        let new_id = |id: u32| ((id as usize + shift) % nodes) as u32;
        let mut relabelled = instance.clone();
        for node in &instance.nodes {
            relabelled.nodes[new_id(node.id) as usize] = node.clone();
            relabelled.nodes[new_id(node.id) as usize].id = new_id(node.id);
        }
        let mut moved = plan.clone();
        moved.stages.iter_mut().flatten().for_each(|node| *node = new_id(*node));
        moved.microbatches.iter_mut().flat_map(|m| &mut m.path).for_each(|node| *node = new_id(*node));
        let other = CompiledInstance::new(&relabelled).unwrap();
        let (one, two) = (evaluate(&compiled, &plan).unwrap(), evaluate(&other, &moved).unwrap());
        prop_assert_eq!(one.makespan_us, two.makespan_us);
        prop_assert_eq!(one.allreduce_s, two.allreduce_s);
        prop_assert_eq!(one.finish_us, two.finish_us);
        let (one, mut two) = (LowerBounds::of_plan(&compiled, &plan), LowerBounds::of_plan(&other, &moved));
        // This dual is climbed in floating point, whose sums have another order there. Each is a bound.
        if one.placement.shared_us.abs_diff(two.placement.shared_us) <= 2 {
            two.placement.shared_us = one.placement.shared_us;
        }
        prop_assert_eq!(one, two);
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let instance = draw_instance(DrawnSize { nodes: 12, stages: 4, path_len: 3, regions: 4 }, 5);
    let compiled = CompiledInstance::new(&instance).unwrap();
    let plans: Vec<PipelinePlan> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| plan(&compiled, 20_000, 3))
        })
        .collect();
    assert_eq!(plans[0], plans[1]);
    assert_eq!(plans[0], plans[2]);
}

#[test]
fn more_work_is_better_than_the_first_draft() {
    let instance = draw_instance(DrawnSize { nodes: 16, stages: 5, path_len: 4, regions: 6 }, 2);
    let compiled = CompiledInstance::new(&instance).unwrap();
    let draft = search(&compiled, &options(Objective::Iteration, 0), &mut |_| 1.0).unwrap().plan;
    let iteration_s = |plan| evaluate(&compiled, &plan).unwrap().iteration_s();
    assert!(iteration_s(plan(&compiled, 30_000, 0)) < 0.9 * iteration_s(draft));
}

#[test]
fn the_exact_method_encloses_the_optimum() {
    for seed in 0..4 {
        let mut instance = draw_instance(DrawnSize { nodes: 5, stages: 3, path_len: 2, regions: 3 }, seed);
        if seed > 1 {
            make_uneven(&mut instance, 4 * seed + 1);
        }
        instance.microbatches_per_origin = Quota::Each(2);
        instance.total_microbatches = 2 * instance.origins() as u32;
        let compiled = CompiledInstance::new(&instance).unwrap();
        let start = plan(&compiled, 2000, seed);
        let options = options(Objective::Iteration, seed);
        let exact = exact(&compiled, &options, &start, &mut |_| 0.0).unwrap();
        let optimum = evaluate(&compiled, &exact.found.plan).unwrap().iteration_s();
        let heuristic = evaluate(&compiled, &start).unwrap().iteration_s();
        assert!(exact.complete && exact.bound_us <= exact.objective_us);
        assert!((optimum * 1e6 - exact.objective_us as f64).abs() <= 2.0);
        assert!(optimum <= heuristic + 1e-6);
        // Every plan there is keeps to the bound, random ones included.
        for other in 0..5 {
            let iteration_s = evaluate(&compiled, &plan(&compiled, 20, other)).unwrap().iteration_s();
            assert!(iteration_s * 1e6 + 2.0 >= exact.bound_us as f64);
        }
    }
    let large = draw_instance(DrawnSize { nodes: 9, stages: 3, path_len: 2, regions: 3 }, 0);
    let compiled = CompiledInstance::new(&large).unwrap();
    let start = plan(&compiled, 20, 0);
    let refused = exact(&compiled, &options(Objective::Makespan, 0), &start, &mut |_| 0.0).unwrap_err();
    assert_eq!(refused, SearchError::NotSmall { nodes: 9, most: 8 });
}

#[test]
fn what_has_no_plan_is_refused_with_the_constraint() {
    let mut instance = draw_instance(DrawnSize { nodes: 12, stages: 5, path_len: 3, regions: 3 }, 5);
    instance.max_jump = 1;
    let compiled = CompiledInstance::new(&instance).unwrap();
    let refused = search(&compiled, &options(Objective::Makespan, 0), &mut |_| 1.0).unwrap_err();
    let SearchError::NoPaths { failing, .. } = &refused else { panic!("{refused}") };
    assert_eq!(failing, &[PathRule::MaxJump, PathRule::StageVisitsMax]);
    assert!(refused.to_string().contains("raise `max_jump` or `stage_visits_max`"), "{refused}");
    instance.max_jump = 4;
    instance.dp_allreduce_max_s = Some(0.001);
    let compiled = CompiledInstance::new(&instance).unwrap();
    let mut progress = |work: u64| work as f64 / 3000.0;
    let refused = search(&compiled, &options(Objective::Makespan, 0), &mut progress).unwrap_err();
    assert!(refused.to_string().contains("dp_allreduce_max_s"), "{refused}");
}

#[test]
fn a_lost_node_is_planned_around() {
    let size = DrawnSize { nodes: 20, stages: 6, path_len: 4, regions: 8 };
    let whole = CompiledInstance::new(&draw_instance(size, 9)).unwrap();
    let old = plan(&whole, 60_000, 0);
    for lost in [old.stages[0][1], old.stages[3][0]] {
        let mut instance = whole.instance().clone();
        instance.nodes.remove(lost as usize);
        instance.nodes.iter_mut().zip(0..).for_each(|(node, id)| node.id = id);
        let stage = old.stages.iter().position(|members| members.contains(&lost)).unwrap();
        instance.stage_sizes.as_mut().unwrap()[stage] -= 1;
        if stage == 0 {
            instance.total_microbatches -= 6;
        }
        let compiled = CompiledInstance::new(&instance).unwrap();
        let became: Vec<Option<u32>> =
            (0..20).map(|node: u32| (node != lost).then(|| node - u32::from(node > lost))).collect();
        let mut progress = |work: u64| work as f64 / 6000.0;
        let again =
            replan(&compiled, &old, &became, &options(Objective::Iteration, 0), &mut progress).unwrap();
        let (warm, anew) = (evaluate(&compiled, &again.plan).unwrap(), plan(&compiled, 6000, 0));
        let anew = evaluate(&compiled, &anew).unwrap();
        assert!(
            warm.iteration_s() <= 1.05 * anew.iteration_s(),
            "{} {}",
            warm.iteration_s(),
            anew.iteration_s()
        );
    }
}

/// Whether legal sequences of stages for `left` more microbatches keep the limits, by trying all of them.
fn has_routes(instance: &Instance, sets: &[Vec<BTreeSet<u32>>; 2], visits: &mut [u32], at: u32) -> bool {
    if at == instance.total_microbatches {
        return true;
    }
    let most = instance.stage_visits_max.unwrap_or(u32::MAX);
    let odd = usize::from(instance.edge_swaps.is_some() && at % 2 == 1);
    sets[odd].iter().any(|set| {
        if set.iter().any(|stage| visits[*stage as usize] >= most) {
            return false;
        }
        set.iter().for_each(|stage| visits[*stage as usize] += 1);
        let found = has_routes(instance, sets, visits, at + 1);
        set.iter().for_each(|stage| visits[*stage as usize] -= 1);
        found
    })
}

/// The sets of relay stages that a microbatch can visit, by trying all sequences.
fn legal_sets(instance: &Instance, odd: bool) -> Vec<BTreeSet<u32>> {
    let (mut found, mut open) = (BTreeSet::new(), vec![vec![0_u32]]);
    while let Some(sequence) = open.pop() {
        let (mut count, mut total, mut frontier, mut legal) = (0, 0, 0_u32, true);
        for stage in &sequence[1..] {
            legal &= stage.abs_diff(frontier) <= instance.max_jump;
            if *stage < frontier {
                count += 1;
                total += frontier - stage;
                legal &= frontier - stage <= instance.swap.max_distance;
            }
            frontier = frontier.max(*stage);
        }
        legal &= count <= instance.swap.max_count && total <= instance.swap.max_total_distance;
        let place = |stage: u32| sequence.iter().position(|visited| *visited == stage);
        let in_order = |first: u32, second: u32| match (place(first), place(second)) {
            (Some(one), Some(other)) => one < other,
            _ => true,
        };
        let last = instance.n_stages - 1;
        if sequence.len() as u32 == instance.path_len {
            if legal && (!odd || (in_order(2, 1) && in_order(last, last - 1))) {
                found.insert(sequence[1..].iter().copied().collect());
            }
        } else if legal {
            let next = (1..instance.n_stages).filter(|stage| !sequence.contains(stage));
            open.extend(next.map(|stage| [sequence.as_slice(), &[stage]].concat()));
        }
    }
    found.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_plan_is_found_wherever_there_is_one(
        (stages, length, jump, swaps, odd) in (2_u32..7, 1_u32..7, 1_u32..5, 0_u32..3, any::<bool>()),
        (total, more) in (1_u32..7, 0_u32..3),
    ) {
        let path_len = length.min(stages) as usize;
        let size = DrawnSize { nodes: stages as usize, stages: stages as usize, path_len, regions: 2 };
        let mut instance = draw_instance(size, 0);
        instance.max_jump = jump;
        instance.swap = SwapRules { max_distance: swaps, max_count: swaps, max_total_distance: swaps + 1 };
        instance.edge_swaps = (odd && stages > 2).then_some(EdgeSwaps::Odd);
        instance.microbatches_per_origin = Quota::Each(total);
        instance.total_microbatches = total;
        instance.stage_visits_max = Some((total * (path_len as u32 - 1)).div_ceil(stages - 1).max(1) + more);
        let compiled = CompiledInstance::new(&instance).unwrap();
        let sets = [legal_sets(&instance, false), legal_sets(&instance, true)];
        let found = search(&compiled, &options(Objective::Iteration, 0), &mut |work| work as f64);
        let there_is = has_routes(&instance, &sets, &mut vec![0; stages as usize], 0);
        prop_assert_eq!(found.is_ok(), there_is, "{:?} {}", found.err(), serde_json::to_string(&instance).unwrap());
    }
}
