//! The balanced chooser keeps the rules of paths and its own promises.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use skipstone_planner::{BalancedChooser, PathChooser, PlanError};
use skipstone_types::{
    Attempt, EdgeSwaps, Iteration, NodeId, Pace, PathRules, Plan, PlanEpoch, PlanProblem, StageId,
};
use std::collections::{BTreeMap, BTreeSet};

/// `replicas[s]` nodes serve stage s.
fn problem(replicas: &[usize], microbatches: u32, path_length: u16, iteration: u64) -> PlanProblem {
    let mut next = 0;
    let nodes = replicas
        .iter()
        .map(|count| {
            (0..*count)
                .map(|_| {
                    next += 1;
                    NodeId(next)
                })
                .collect()
        })
        .collect();
    PlanProblem {
        epoch: PlanEpoch(9),
        seed: 5,
        iteration: Iteration(iteration),
        attempt: Attempt(0),
        nodes,
        microbatches,
        path_length,
        full: false,
        rules: PathRules::default(),
        paces: vec![],
        edge_swaps: EdgeSwaps::Off,
    }
}

fn choose(problem: &PlanProblem) -> Plan {
    BalancedChooser.choose(problem).unwrap()
}

fn routes(plan: &Plan) -> Vec<Vec<StageId>> {
    plan.paths.iter().map(|path| path.0.iter().map(|visit| visit.stage).collect()).collect()
}

/// Difference between the most and the least frequent of `all` in `seen`.
fn spread<T: Ord + Copy>(all: impl IntoIterator<Item = T>, seen: impl IntoIterator<Item = T>) -> usize {
    let mut counts: BTreeMap<T, usize> = all.into_iter().map(|item| (item, 0)).collect();
    seen.into_iter().for_each(|item| *counts.get_mut(&item).unwrap() += 1);
    counts.values().max().unwrap() - counts.values().min().unwrap()
}

fn problems() -> impl Strategy<Value = PlanProblem> {
    (
        1_usize..4,
        proptest::collection::vec(0_usize..4, 1..13),
        1_u32..24,
        1_u16..14,
        0_u64..1000,
        any::<bool>(),
    )
        .prop_map(|(origins, relays, microbatches, length, iteration, full)| {
            let replicas: Vec<_> = std::iter::once(origins).chain(relays).collect();
            let mut problem = problem(&replicas, microbatches, length, iteration);
            problem.full = full;
            problem
        })
}

proptest! {
    #[test]
    fn rules_hold_around_any_holes(problem in problems()) {
        let plan = choose(&problem);
        let served = problem.served_relays();
        let length = if problem.full { served.len() } else { served.len().min(usize::from(problem.path_length) - 1) };
        prop_assert_eq!(plan.epoch, problem.epoch);
        prop_assert_eq!(plan.paths.len(), problem.microbatches as usize);
        for path in &plan.paths {
            prop_assert_eq!(path.0.len(), 1 + length);
            prop_assert_eq!(path.0[0].stage, StageId::ORIGIN);
            for visit in &path.0 {
                prop_assert!(problem.nodes[usize::from(visit.stage.0)].contains(&visit.node));
            }
            for pair in path.0.windows(2) {
                let (from, to) = (pair[0].stage.0, pair[1].stage.0);
                prop_assert!(from < to, "paths climb");
                let passed_over = served.iter().any(|stage| (from + 1..to).contains(&stage.0));
                prop_assert!(to - from <= problem.rules.jump_max || !passed_over, "{from} → {to}");
            }
        }
        prop_assert_eq!(choose(&problem), plan);
    }

    #[test]
    fn odd_microbatches_swap_the_edges_and_nothing_else_changes(problem in problems()) {
        let swapped = PlanProblem { edge_swaps: EdgeSwaps::Odd, ..problem.clone() };
        let last = (problem.nodes.len() - 1) as u16;
        for (microbatch, (path, with)) in choose(&problem).paths.iter().zip(choose(&swapped).paths).enumerate() {
            let mut ascending = with.clone();
            ascending.0.sort_unstable_by_key(|visit| visit.stage);
            prop_assert_eq!(&ascending, path);
            if microbatch % 2 == 0 {
                prop_assert_eq!(&with, path, "even ones ascend");
                continue;
            }
            let place = |stage: u16| with.0.iter().position(|visit| visit.stage == StageId(stage));
            let swaps = |lower: u16, higher: u16| Some(place(higher)? < place(lower)?);
            let both = (place(1).is_some() && place(2).is_some(), last > 1 && place(last - 1).is_some() && place(last).is_some());
            if last == 3 && both == (true, true) {
                prop_assert_eq!(swaps(1, 2), Some(microbatch % 4 == 1));
                prop_assert_eq!(swaps(2, 3), Some(microbatch % 4 == 3));
                continue;
            }
            if both.0 {
                prop_assert_eq!(swaps(1, 2), Some(true));
            }
            if both.1 {
                let below = with.0.iter().map(|visit| visit.stage.0).filter(|stage| *stage < last - 1).max().unwrap();
                prop_assert_eq!(swaps(last - 1, last), Some(last - below <= problem.rules.jump_max || last == 2));
            }
        }
    }

    #[test]
    fn the_rules_of_the_document_hold_without_holes(
        relays in 1_usize..12, microbatches in 1_u32..24, length in 1_u16..13, iteration in 0_u64..1000,
    ) {
        let replicas = vec![1; relays + 1];
        let problem = problem(&replicas, microbatches, length, iteration);
        let swapped = PlanProblem { edge_swaps: EdgeSwaps::Odd, ..problem.clone() };
        for route in routes(&choose(&problem)).into_iter().chain(routes(&choose(&swapped))) {
            prop_assert_eq!(PathRules::default().check(&route), Ok(()));
        }
    }

    #[test]
    fn stages_and_nodes_are_loaded_equally(
        origins in 1_usize..4, relays in proptest::collection::vec(0_usize..4, 1..9),
        skipped in 0_u16..4, microbatches in 1_u32..24, iteration in 0_u64..1000,
    ) {
        // With long jumps every set of stages is legal.
        let served = relays.iter().filter(|count| **count > 0).count() as u16;
        prop_assume!(served > skipped);
        let replicas: Vec<_> = std::iter::once(origins).chain(relays).collect();
        let mut problem = problem(&replicas, microbatches, served - skipped + 1, iteration);
        problem.rules.jump_max = 20;
        let plan = choose(&problem);
        let visits: Vec<_> = plan.paths.iter().flat_map(|path| path.0.clone()).collect();
        let relay_visits = visits.iter().map(|visit| visit.stage).filter(|stage| !stage.is_origin());
        prop_assert!(spread(problem.served_relays(), relay_visits) <= 1);
        for (stage, nodes) in problem.nodes.iter().enumerate().filter(|(_, nodes)| !nodes.is_empty()) {
            let owners = visits.iter().filter(|visit| usize::from(visit.stage.0) == stage).map(|visit| visit.node);
            prop_assert!(spread(nodes.iter().copied(), owners) <= 1, "stage {stage}");
        }
    }

    #[test]
    fn every_stage_keeps_its_turn_under_the_jump_limit(
        relays in 5_usize..13, microbatches in 8_u32..25, iteration in 0_u64..200, skip in 25_usize..51,
    ) {
        let length = (relays * (100 - skip) / 100) as u16 + 1;
        let problem = problem(&vec![1; relays + 1], microbatches, length, iteration);
        let visits = choose(&problem).paths.into_iter().flat_map(|path| path.0.into_iter().skip(1));
        let spread = spread(problem.served_relays(), visits.map(|visit| visit.stage));
        prop_assert!(spread <= 2, "{spread}");
    }
}

#[test]
fn every_set_of_stages_is_trained_in_the_long_run() {
    let replicas = [1, 1, 1, 1, 1, 1, 1];
    let seen: BTreeSet<_> = (0..200).flat_map(|t| routes(&choose(&problem(&replicas, 6, 5, t)))).collect();
    assert_eq!(seen.len(), 15, "there are 15 ways to skip 2 of 6 relays");
}

#[test]
fn attempts_and_iterations_differ() {
    let first = problem(&[2, 2, 2, 2, 2, 2], 8, 4, 3);
    let mut again = first.clone();
    again.attempt = Attempt(1);
    assert_ne!(choose(&first), choose(&again));
    assert_ne!(choose(&first), choose(&problem(&[2, 2, 2, 2, 2, 2], 8, 4, 4)));
}

#[test]
fn the_far_stages_are_reached_when_only_long_jumps_reach_them() {
    // Two relays of eight a path: relay 8 can only be reached over relay 4.
    let replicas = [1; 9];
    let seen: BTreeSet<_> = (0..50).flat_map(|t| routes(&choose(&problem(&replicas, 8, 3, t)))).collect();
    assert!(seen.iter().any(|route| route.contains(&StageId(8))), "{seen:?}");
}

#[test]
fn impossible_problems_are_refused() {
    assert_eq!(BalancedChooser.choose(&problem(&[0, 1], 4, 2, 0)), Err(PlanError::NoOrigin));
    assert_eq!(BalancedChooser.choose(&problem(&[], 4, 2, 0)), Err(PlanError::NoOrigin));
    assert_eq!(BalancedChooser.choose(&problem(&[1, 1], 0, 2, 0)), Err(PlanError::NoMicrobatches));
    assert_eq!(BalancedChooser.choose(&problem(&[1, 1], 4, 0, 0)), Err(PlanError::NoVisits));
}

/// Microbatches of each node of stage 1, which has nodes 2, 3, 4, when they take so long for one.
fn shares(microbatch_us: [u64; 3], probe: bool, microbatches: u32) -> [usize; 3] {
    let mut problem = problem(&[1, 3], microbatches, 2, 3);
    problem.paces = [2, 3, 4]
        .into_iter()
        .zip(microbatch_us)
        .map(|(node, microbatch_us)| Pace {
            node: NodeId(node),
            microbatch_us,
            fixed_us: 0,
            probe: probe && node == 4,
        })
        .collect();
    let plan = choose(&problem);
    [2, 3, 4].map(|node| plan.paths.iter().filter(|path| path.0[1].node == NodeId(node)).count())
}

#[test]
fn a_slow_node_gets_its_share_of_the_work() {
    assert_eq!(shares([1000, 1000, 2000], false, 10), [4, 4, 2]);
    assert_eq!(shares([500, 1000, 2000], false, 14), [8, 4, 2]);
    assert_eq!(shares([1000, 1000, 1400], false, 9), [3, 3, 3], "a small difference is chance");
    assert_eq!(shares([1000, 1000, 50_000], false, 12), [6, 6, 0]);
    assert_eq!(shares([1000, 1000, 50_000], true, 12).iter().sum::<usize>(), 12);
    assert_eq!(shares([1000, 1000, 50_000], true, 12)[2], 1, "a probe");
    // Numbers that make no sense do no harm.
    assert_eq!(shares([0, 0, u64::MAX], false, 8), [4, 4, 0]);
}

#[test]
fn equal_speeds_give_the_plan_that_unknown_ones_give() {
    let unknown = problem(&[2, 3, 2], 9, 3, 4);
    let mut known = unknown.clone();
    known.paces = (1..=7)
        .map(|node| Pace { node: NodeId(node), microbatch_us: 700, fixed_us: 0, probe: false })
        .collect();
    assert_eq!(choose(&unknown), choose(&known));
}
