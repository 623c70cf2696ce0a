use super::*;
use proptest::prelude::*;
use skipstone_types::{Attempt, EdgeSwaps, Iteration, NodeId, PlanEpoch};

/// A node for each stage that is not a hole.
fn problem(relay_stages: u16, picks: u16, iteration: u64, holes: &[u16]) -> PlanProblem {
    let nodes = (0..=relay_stages)
        .map(|stage| if holes.contains(&stage) { Vec::new() } else { vec![NodeId(u32::from(stage) + 1)] });
    PlanProblem {
        epoch: PlanEpoch(1),
        seed: 7,
        iteration: Iteration(iteration),
        attempt: Attempt(0),
        nodes: nodes.collect(),
        microbatches: 4,
        path_length: picks + 1,
        full: false,
        rules: PathRules::default(),
        paces: Vec::new(),
        edge_swaps: EdgeSwaps::Off,
    }
}

fn routes(chooser: &mut DrawnChooser, problem: &PlanProblem) -> Vec<Vec<StageId>> {
    let plan = chooser.choose(problem).unwrap();
    plan.paths.iter().map(|path| path.0.iter().map(|visit| visit.stage).collect()).collect()
}

/// Visits of each relay stage per path, over so many iterations of four microbatches.
fn visits(paths: &DrawnPaths, relay_stages: u16, picks: u16, iterations: u64) -> Vec<f64> {
    let mut chooser = DrawnChooser::new(paths.clone());
    let mut counts = vec![0_u32; usize::from(relay_stages)];
    for iteration in 0..iterations {
        for route in routes(&mut chooser, &problem(relay_stages, picks, iteration, &[])) {
            route[1..].iter().for_each(|stage| counts[usize::from(stage.0) - 1] += 1);
        }
    }
    counts.into_iter().map(|count| f64::from(count) / (4 * iterations) as f64).collect()
}

fn sorted(mut route: Vec<StageId>) -> Vec<StageId> {
    route.sort_unstable();
    route
}

/// Relay stages left out at one place, at most.
fn together(route: &[StageId], relay_stages: u16) -> u16 {
    let ascending = sorted(route.to_vec());
    let ends = ascending.iter().copied().skip(1).chain([StageId(relay_stages + 1)]);
    ascending.iter().zip(ends).map(|(from, to)| to.0 - from.0 - 1).max().unwrap()
}

fn any_paths() -> impl Strategy<Value = (DrawnPaths, u16, u16)> {
    (1_u16..11, 0_u16..11, 0_u16..5, 1_u16..5, 1_u16..12, 0_u16..4, any::<u64>()).prop_map(
        |(relay_stages, picks, swaps, swap_distance_max, jump_max, together, seed)| {
            let random = &mut Random::new(&[seed]);
            let weights = (0..relay_stages).map(|_| 1.0 + random.below(100) as f64 / 50.0);
            let visits = (seed % 2 == 0).then(|| weights.collect());
            (
                DrawnPaths { swaps, swap_distance_max, jump_max, together, visits },
                relay_stages,
                picks.min(relay_stages),
            )
        },
    )
}

proptest! {
    #[test]
    fn what_is_checked_can_be_drawn_and_obeys_its_rules(
        (paths, relay_stages, picks) in any_paths(), iteration in 0_u64..1000,
    ) {
        prop_assume!(paths.check(relay_stages, picks).is_ok());
        let problem = problem(relay_stages, picks, iteration, &[]);
        let mut chooser = DrawnChooser::new(paths.clone());
        let drawn = routes(&mut chooser, &problem);
        prop_assert_eq!(drawn.len(), 4);
        for route in &drawn {
            prop_assert_eq!(paths.rules().check(route), Ok(()), "{:?}", route);
            prop_assert_eq!(route.len(), usize::from(picks) + 1);
            prop_assert!(together(route, relay_stages) >= paths.together);
        }
        // Other problems before, or another attempt, change nothing.
        prop_assert_eq!(&routes(&mut DrawnChooser::new(paths.clone()), &problem), &drawn);
        let again = PlanProblem { attempt: Attempt(3), ..problem.clone() };
        prop_assert_eq!(&routes(&mut chooser, &again), &drawn);
        // Swaps change the order alone.
        let ascending = DrawnPaths { swaps: 0, ..paths };
        let ascending = routes(&mut DrawnChooser::new(ascending), &problem);
        prop_assert_eq!(drawn.into_iter().map(sorted).collect::<Vec<_>>(), ascending);
    }

    #[test]
    fn paths_go_around_any_holes(
        (paths, relay_stages, picks) in any_paths(), iteration in 0_u64..1000,
        holes in proptest::collection::btree_set(1_u16..11, 0..10), full in any::<bool>(),
    ) {
        prop_assume!(paths.check(relay_stages, picks).is_ok());
        let holes: Vec<u16> = holes.into_iter().collect();
        let mut problem = problem(relay_stages, picks, iteration, &holes);
        problem.full = full;
        let served = problem.served_relays();
        let length = 1 + if full { served.len() } else { served.len().min(usize::from(picks)) };
        for route in routes(&mut DrawnChooser::new(paths.clone()), &problem) {
            prop_assert_eq!(route.len(), length);
            prop_assert!(route[1..].iter().all(|stage| served.contains(stage)));
            let passed_over = |from: StageId, to: StageId| served.iter().any(|stage| (from.0 + 1..to.0).contains(&stage.0));
            let mut frontier = StageId::ORIGIN;
            for stage in &route[1..] {
                let jump = stage.0.saturating_sub(frontier.0);
                prop_assert!(full || jump <= paths.jump_max || !passed_over(frontier, *stage), "{:?}", route);
                frontier = frontier.max(*stage);
            }
            if full {
                prop_assert_eq!(count_swaps(&route), 0);
            }
        }
    }
}

#[test]
fn stages_are_visited_as_often_as_asked() {
    let near = |paths: &DrawnPaths, picks: u16, expected: &[f64]| {
        let seen = visits(paths, 8, picks, 5000);
        for (seen, expected) in seen.iter().zip(expected) {
            // Five standard deviations of 20 000 draws, and what a fit may be off.
            assert!((seen - expected).abs() < 0.018 + 0.01, "{paths:?}: {seen} for {expected}");
        }
        seen
    };
    let even = DrawnPaths::default();
    near(&even, 4, &[0.5; 8]);
    // Jumps of at most 2 leave 1, 3, 5, 7 and 2, 4, 6, 8.
    near(&DrawnPaths { jump_max: 2, ..even.clone() }, 4, &[0.5; 8]);
    near(&DrawnPaths { jump_max: 2, swaps: 2, ..even.clone() }, 5, &[0.625; 8]);
    near(&DrawnPaths { together: 2, ..even.clone() }, 5, &[0.625; 8]);
    let uneven = DrawnPaths { visits: Some(vec![3.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0]), ..even.clone() };
    near(&uneven, 4, &[0.75, 0.75, 0.75, 0.75, 0.25, 0.25, 0.25, 0.25]);
    // One on every path.
    let first = DrawnPaths { visits: Some(vec![7.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]), ..even };
    let seen = near(&first, 4, &[1.0, 3.0 / 7.0, 3.0 / 7.0, 3.0 / 7.0, 3.0 / 7.0]);
    assert_eq!(seen[0], 1.0);
}

#[test]
fn sets_are_as_random_as_their_shares_allow() {
    let mut chooser = DrawnChooser::new(DrawnPaths { jump_max: 8, ..DrawnPaths::default() });
    let mut counts: BTreeMap<Vec<StageId>, u32> = BTreeMap::new();
    for iteration in 0..5000 {
        for route in routes(&mut chooser, &problem(6, 3, iteration, &[])) {
            *counts.entry(route).or_default() += 1;
        }
    }
    // 20 sets, each 1000 times.
    assert_eq!(counts.len(), 20);
    assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
}

#[test]
fn paths_have_as_many_swaps_as_they_have_room_for() {
    let swaps = |swaps: u16, swap_distance_max: u16, picks: u16| -> Vec<usize> {
        let paths = DrawnPaths { swaps, swap_distance_max, ..DrawnPaths::default() };
        let mut chooser = DrawnChooser::new(paths);
        (0..50)
            .flat_map(|iteration| routes(&mut chooser, &problem(8, picks, iteration, &[])))
            .map(|route| count_swaps(&route))
            .collect()
    };
    assert!(swaps(0, 1, 8).iter().all(|swaps| *swaps == 0));
    // All eight stages: any swap of neighbours has room for another.
    assert!(swaps(2, 1, 8).iter().all(|swaps| *swaps == 2));
    assert!(swaps(3, 3, 8).iter().all(|swaps| *swaps == 3));
    let few = swaps(2, 1, 4);
    assert!([0, 1, 2].iter().all(|count| few.contains(count)), "{few:?}");
}

#[test]
fn what_can_not_be_is_refused() {
    let even = DrawnPaths::default();
    let check = |paths: DrawnPaths, picks: u16| paths.check(8, picks).unwrap_err().to_string();
    for (paths, picks, says) in [
        (DrawnPaths { visits: Some(vec![1.0; 7]), ..even.clone() }, 4, "7 numbers for 8 relay stages"),
        (DrawnPaths { visits: Some(vec![0.0; 8]), ..even.clone() }, 4, "0 is not a number above 0"),
        (
            DrawnPaths { visits: Some(vec![1.0, 1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.0]), ..even.clone() },
            4,
            "stage 4 2.25 times",
        ),
        (DrawnPaths { jump_max: 0, ..even.clone() }, 4, "no path visits 4 of 8"),
        (
            DrawnPaths { together: 5, ..even.clone() },
            4,
            "at most 4 and 5 adjacent ones left out together; raise",
        ),
        (
            DrawnPaths { jump_max: 1, ..even.clone() },
            4,
            "with jumps of at most 1: stage 8 would be on 0.000 of them, not on 0.500",
        ),
        (DrawnPaths { together: 3, ..even.clone() }, 5, "would be on"),
    ] {
        let why = check(paths, picks);
        assert!(why.contains(says), "{why} does not say {says}");
    }
    assert!(even.check(8, 8).is_ok() && even.check(0, 0).is_ok());
    let problem = problem(8, 4, 0, &[]);
    let refused = DrawnChooser::new(DrawnPaths { jump_max: 1, ..even }).choose(&problem);
    assert!(matches!(refused, Err(PlanError::Drawn(_))), "{refused:?}");
}
