//! Plans of a swarm in training: legal, the same again, quick and even.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use skipstone_planner::{
    BalancedChooser, CompiledInstance, DrawnSize, Instance, Link, NodeRoles, PathChooser, PipelinePlan,
    PlacementError, PlanMode, PlannedMicrobatch, RegionLink, Regions, SearchOptions, StageCost, SwarmChooser,
    SwarmDescription, SwarmError, SwarmNode, SwarmShape, draw_instance, evaluate, place, place_with_roles,
};
use skipstone_types::{
    Attempt, EdgeSwaps, Iteration, NodeId, Pace, Path, PathRules, PlaceProblem, Plan, PlanEpoch, PlanProblem,
    StageId,
};
use std::collections::BTreeMap;

/// An instance drawn with ascending paths and without a limit of visits.
fn instance(stages: usize, nodes: usize, path_len: usize, seed: u64) -> Instance {
    let mut instance = draw_instance(DrawnSize { nodes, stages, path_len, regions: 6 }, seed);
    instance.swap.max_distance = 0;
    instance.stage_visits_max = None;
    instance
}

/// `replicas[s]` nodes serve stage s.
fn problem(replicas: &[usize], microbatches: u32, path_length: u16, iteration: u64) -> PlanProblem {
    let mut next = 0;
    let nodes = replicas.iter().map(|count| {
        next += *count as u32;
        (next - *count as u32..next).map(|node| NodeId(node + 1)).collect()
    });
    PlanProblem {
        epoch: PlanEpoch(9),
        seed: 5,
        iteration: Iteration(iteration),
        attempt: Attempt(0),
        nodes: nodes.collect(),
        microbatches,
        path_length,
        full: false,
        rules: PathRules::default(),
        paces: vec![],
        edge_swaps: EdgeSwaps::Off,
    }
}

fn routes(plan: &Plan) -> Vec<Vec<StageId>> {
    plan.paths.iter().map(|path| path.0.iter().map(|visit| visit.stage).collect()).collect()
}

fn visits(plan: &Plan, stages: usize) -> Vec<u32> {
    let mut visits = vec![0; stages];
    plan.paths.iter().flat_map(|path| &path.0).for_each(|visit| visits[usize::from(visit.stage.0)] += 1);
    visits
}

/// Seconds of an iteration with these paths, by the exact evaluation.
fn iteration_s(instance: &Instance, plan: &Plan, nodes: &[Vec<NodeId>]) -> f64 {
    let mut instance = instance.clone();
    let of_origin = |id: &NodeId| plan.paths.iter().filter(|path| path.0[0].node == *id).count() as u32;
    instance.microbatches_per_origin =
        skipstone_planner::Quota::List(nodes[0].iter().map(of_origin).collect());
    instance.total_microbatches = plan.paths.len() as u32;
    instance.stage_sizes = Some(nodes.iter().map(|nodes| nodes.len() as u32).collect());
    let plan = PipelinePlan {
        instance: instance.name.clone(),
        method: String::new(),
        mode: PlanMode::Partial,
        policy: skipstone_planner::DispatchPolicy::default(),
        stages: nodes.iter().map(|nodes| nodes.iter().map(|id| id.0 - 1).collect()).collect(),
        microbatches: (0..)
            .zip(&plan.paths)
            .map(|(id, path)| PlannedMicrobatch {
                id,
                path: path.0.iter().map(|visit| visit.node.0 - 1).collect(),
                after: None,
                release: 0.0,
                priority: 0.0,
            })
            .collect(),
        node_order: BTreeMap::new(),
    };
    evaluate(&CompiledInstance::new(&instance).unwrap(), &plan).unwrap().iteration_s()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn rules_hold_while_nodes_come_and_go(
        swarms in proptest::collection::vec(
            (1_usize..4, proptest::collection::vec(0_usize..4, 6), any::<bool>()), 1..5),
        microbatches in 1_u32..14, length in 1_u16..8, seed in 0_u64..100,
    ) {
        let description = SwarmDescription::of_instance(&instance(7, 24, 3, seed));
        let mut chooser = SwarmChooser::new(description.clone()).unwrap();
        let mut again = SwarmChooser::new(description).unwrap();
        for (iteration, (origins, relays, full)) in (0..).zip(swarms) {
            let replicas: Vec<_> = std::iter::once(origins).chain(relays).collect();
            let mut problem = problem(&replicas, microbatches, length, iteration);
            problem.full = full;
            let plan = chooser.choose(&problem).unwrap();
            let served = problem.served_relays();
            let relays = if full { served.len() } else { served.len().min(usize::from(length) - 1) };
            prop_assert_eq!(plan.epoch, problem.epoch);
            prop_assert_eq!(plan.paths.len(), microbatches as usize);
            for path in &plan.paths {
                prop_assert_eq!(path.0.len(), 1 + relays);
                prop_assert_eq!(path.0[0].stage, StageId::ORIGIN);
                for visit in &path.0 {
                    prop_assert!(problem.nodes[usize::from(visit.stage.0)].contains(&visit.node));
                }
                for pair in path.0.windows(2) {
                    let (from, to) = (pair[0].stage.0, pair[1].stage.0);
                    let passed_over = served.iter().any(|stage| (from + 1..to).contains(&stage.0));
                    prop_assert!(from < to, "paths climb");
                    prop_assert!(to - from <= problem.rules.jump_max || !passed_over, "{from} → {to}");
                }
            }
            prop_assert_eq!(again.choose(&problem).unwrap(), plan);
        }
    }
}

#[test]
fn swapped_edges_are_searched_over_and_kept_while_nodes_come_and_go() {
    for (stages, length, slots) in [(7, 7, 2), (7, 5, 3), (4, 4, 2), (3, 3, 2), (2, 2, 2)] {
        let mut description = SwarmDescription::of_instance(&instance(stages, 24, length, 7));
        description.slots = slots;
        let mut chooser = SwarmChooser::new(description).unwrap();
        let lost = [3, 3, 2, 3, 0, 3];
        for (iteration, replicas) in (0..).zip(lost) {
            let mut nodes = vec![3; stages];
            nodes[stages / 2] = replicas;
            let mut problem = problem(&nodes, 12, length as u16, iteration);
            problem.edge_swaps = EdgeSwaps::Odd;
            let plan = chooser.choose(&problem).unwrap();
            assert!(plan.expected_us.is_some(), "{stages} stages: nothing was searched");
            for (microbatch, path) in (0..).zip(&plan.paths) {
                let relays: Vec<StageId> = path.0[1..].iter().map(|visit| visit.stage).collect();
                let mut ordered = relays.clone();
                ordered.sort_unstable();
                problem.order(microbatch, &mut ordered, |stage| *stage);
                assert_eq!(relays, ordered, "microbatch {microbatch}");
            }
            let swapped = |path: &Path| {
                path.0.windows(2).any(|pair| pair[1].stage < pair[0].stage && pair[1].stage.0 > 0)
            };
            let most = plan.paths.iter().skip(1).step_by(2).filter(|path| swapped(path)).count();
            if stages > 2 && length == stages && replicas > 0 {
                assert_eq!(most, 6, "every odd microbatch of a whole path swaps");
            }
        }
    }
}

#[test]
fn stages_nodes_and_sets_of_stages_get_their_turns() {
    let replicas = [4, 3, 3, 3, 3, 3];
    let mut instance = instance(6, 19, 4, 3);
    for node in &mut instance.nodes {
        node.compute_s_per_layer_sample = 0.05 + 0.01 * f64::from(node.id % 4);
    }
    let mut chooser = SwarmChooser::new(SwarmDescription::of_instance(&instance)).unwrap();
    let (mut total, mut sets) = (vec![0; 6], BTreeMap::new());
    let mut owners: BTreeMap<NodeId, u32> = BTreeMap::new();
    let iterations = 150;
    for iteration in 0..iterations {
        let plan = chooser.choose(&problem(&replicas, 16, 4, iteration)).unwrap();
        let visits = visits(&plan, 6);
        assert!(visits[1..].iter().max().unwrap() - visits[1..].iter().min().unwrap() <= 1, "{visits:?}");
        total.iter_mut().zip(visits).for_each(|(total, visits)| *total += visits);
        routes(&plan).into_iter().for_each(|route| *sets.entry(route).or_insert(0.0) += 1.0);
        plan.paths
            .iter()
            .flat_map(|path| &path.0)
            .for_each(|visit| *owners.entry(visit.node).or_default() += 1);
    }
    assert!(total[1..].iter().max().unwrap() - total[1..].iter().min().unwrap() <= 1, "{total:?}");
    let even = 16.0 * iterations as f64 / 10.0;
    assert_eq!(sets.len(), 10, "there are 10 ways to visit 3 of 5 relays");
    assert!(sets.values().all(|taken| (0.5 * even..=2.0 * even).contains(taken)), "{even} {sets:?}");
    assert_eq!(owners.len(), 19);
    assert!(owners.values().all(|owned| u64::from(*owned) >= iterations / 5), "{owners:?}");
}

#[test]
fn expected_times_are_those_of_the_evaluation_and_well_below_balanced_ones() {
    let replicas = [4, 3, 3, 3, 3, 3];
    for seed in 0..4 {
        let instance = instance(6, 19, 4, seed);
        let mut chooser = SwarmChooser::new(SwarmDescription::of_instance(&instance)).unwrap();
        let (mut found, mut balanced) = (0.0, 0.0);
        for iteration in 0..8 {
            let problem = problem(&replicas, 16, 4, iteration);
            let plan = chooser.choose(&problem).unwrap();
            let (expected, exact) =
                (plan.expected_us.unwrap() as f64 / 1e6, iteration_s(&instance, &plan, &problem.nodes));
            assert!((expected / exact - 1.0).abs() < 1e-3, "{expected} {exact}");
            found += exact;
            balanced += iteration_s(&instance, &BalancedChooser.choose(&problem).unwrap(), &problem.nodes);
        }
        assert!(found < 0.85 * balanced, "seed {seed}: {found:.1} s against {balanced:.1} s");
    }
}

#[test]
fn a_stage_short_of_nodes_gets_less_but_half_of_its_share() {
    let mut instance = instance(6, 19, 4, 1);
    instance.nodes.iter_mut().for_each(|node| node.compute_s_per_layer_sample = 0.05);
    let mut chooser = SwarmChooser::new(SwarmDescription::of_instance(&instance)).unwrap();
    let whole = visits(&chooser.choose(&problem(&[4, 3, 3, 3, 3, 3], 30, 4, 0)).unwrap(), 6);
    assert_eq!(whole[1..], [18; 5]);
    let lost = visits(&chooser.choose(&problem(&[4, 3, 1, 3, 3, 3], 30, 4, 1)).unwrap(), 6);
    assert!((9..15).contains(&lost[2]), "{lost:?}");
    let hole = visits(&chooser.choose(&problem(&[4, 3, 0, 3, 3, 3], 30, 4, 2)).unwrap(), 6);
    assert_eq!(hole[2], 0);
    assert!(hole[3..].iter().all(|visits| (22..=23).contains(visits)), "{hole:?}");
}

#[test]
fn measured_paces_move_work_away_from_slow_nodes_and_probes_are_kept() {
    let instance = instance(3, 8, 3, 1);
    let mut chooser = SwarmChooser::new(SwarmDescription::of_instance(&instance)).unwrap();
    let mut problem = problem(&[2, 3, 3], 12, 3, 0);
    let pace = |node, microbatch_us, probe| Pace { node: NodeId(node), microbatch_us, fixed_us: 0, probe };
    problem.paces = (1..=8).map(|node| pace(node, 2_000_000, false)).collect();
    problem.paces[3] = pace(4, 60_000_000, false);
    let owned = |plan: &Plan, node| {
        plan.paths.iter().flat_map(|path| &path.0).filter(|visit| visit.node == NodeId(node)).count()
    };
    let plan = chooser.choose(&problem).unwrap();
    assert!(owned(&plan, 4) <= 1 && owned(&plan, 3) >= 3, "{plan:?}");
    problem.iteration = Iteration(1);
    problem.paces[3].probe = true;
    assert_eq!(owned(&chooser.choose(&problem).unwrap(), 4), 1);
}

#[test]
fn a_node_that_is_elsewhere_is_planned_for_there() {
    let instance = instance(3, 8, 3, 1);
    let description = SwarmDescription::of_instance(&instance);
    let problem = problem(&[2, 3, 3], 12, 3, 0);
    let mut chooser = SwarmChooser::new(description.clone()).unwrap();
    let mut moved = SwarmChooser::new(description.clone()).unwrap();
    let slow = SwarmNode { slowness: 100.0, ..description.nodes[2].clone() };
    moved.place(NodeId(3), slow).unwrap();
    let owned = |plan: &Plan| {
        plan.paths.iter().flat_map(|path| &path.0).filter(|visit| visit.node == NodeId(3)).count()
    };
    assert!(owned(&chooser.choose(&problem).unwrap()) > 1);
    assert_eq!(owned(&moved.choose(&problem).unwrap()), 0);
    let nowhere = SwarmNode { region: "Atlantis".to_owned(), slowness: 1.0 };
    assert!(moved.place(NodeId(4), nowhere).unwrap_err().to_string().contains("Atlantis"));
}

#[test]
fn bad_descriptions_are_refused_with_the_field() {
    let good = SwarmDescription::of_instance(&instance(3, 8, 3, 1));
    let refused = |change: fn(&mut SwarmDescription)| {
        let mut bad = good.clone();
        change(&mut bad);
        SwarmChooser::new(bad).unwrap_err().to_string()
    };
    assert_eq!(refused(|bad| bad.nodes.clear()), SwarmError::NoNodes.to_string());
    assert!(refused(|bad| bad.nodes[2].slowness = f64::NAN).contains("nodes[2].slowness"));
    assert!(refused(|bad| bad.relay.forward_s = -1.0).contains("relay.forward_s"));
    assert!(refused(|bad| bad.nodes[0].region = "Atlantis".to_owned()).contains("Atlantis"));
    assert!(refused(|bad| bad.activation_bytes = f64::INFINITY).contains("activation_bytes"));
    assert!(refused(|bad| bad.slots = 0).contains("memory"));
}

#[test]
fn nodes_are_placed_for_speed_and_for_a_price_apart_from_common_failures() {
    let mut instance = instance(4, 14, 3, 2);
    for node in &mut instance.nodes {
        node.region = format!("region-{}", node.id % 3);
        node.compute_s_per_layer_sample = if node.id == 5 { 0.5 } else { 0.05 };
    }
    let description = SwarmDescription::of_instance(&instance);
    let shape = SwarmShape {
        relay_stages: 3,
        replicas: 3,
        microbatches: 9,
        path_length: 3,
        jump_max: 4,
        edge_swaps: EdgeSwaps::Off,
    };
    let placed = |domain_price_s| {
        let options = SearchOptions { seed: 1, domain_price_s, ..SearchOptions::default() };
        place(&description, &shape, &options, &mut |work| work as f64 / 20_000.0).unwrap()
    };
    let (near, apart) = (placed(0.0), placed(1000.0));
    for placement in [&near, &apart] {
        assert!(placement.stages.iter().all(|nodes| nodes.len() == 3));
        assert_eq!(placement.spares.len(), 2);
        assert!(placement.spares.contains(&5), "the slowest is left over");
        let mut all: Vec<u32> = placement.stages.iter().flatten().chain(&placement.spares).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..14).collect::<Vec<u32>>());
    }
    assert_eq!(apart.lost_with_a_region, 0, "{apart:?}");
    // Both are found by chance.
    assert!(near.expected_us < apart.expected_us + apart.expected_us / 50, "{near:?} {apart:?}");
    let few = SwarmShape { replicas: 4, ..shape };
    let why = place(&description, &few, &SearchOptions::default(), &mut |_| 1.0).unwrap_err();
    assert!(why.to_string().contains("need 16 nodes, and `nodes` lists 14"), "{why}");
}

#[test]
fn more_nodes_to_choose_from_make_no_placement_worse() {
    let shape = SwarmShape {
        relay_stages: 3,
        replicas: 3,
        microbatches: 9,
        path_length: 3,
        jump_max: 4,
        edge_swaps: EdgeSwaps::Off,
    };
    let (mut of_all_us, mut of_fastest_us) = (0, 0);
    for seed in 0..8 {
        let mut instance = instance(4, 24, 3, seed);
        for node in &mut instance.nodes {
            node.compute_s_per_layer_sample *= 1.0 + f64::from(node.id * 7 % 12) / 4.0;
        }
        let all = SwarmDescription::of_instance(&instance);
        let mut fastest = all.clone();
        fastest.nodes.sort_by(|a, b| a.slowness.total_cmp(&b.slowness));
        fastest.nodes.truncate(12);
        let placed = |description: &SwarmDescription| {
            let options = SearchOptions { seed, ..SearchOptions::default() };
            place(description, &shape, &options, &mut |work| work as f64 / 20_000.0).unwrap()
        };
        let (of_all, of_fastest) = (placed(&all), placed(&fastest));
        assert_eq!((of_all.spares.len(), of_fastest.spares.len()), (12, 0));
        let mut seen: Vec<u32> = of_all.stages.iter().flatten().chain(&of_all.spares).copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..24).collect::<Vec<u32>>());
        // Both are found by chance.
        assert!(of_all.expected_us <= of_fastest.expected_us + of_fastest.expected_us / 10, "{seed}");
        of_all_us += of_all.expected_us;
        of_fastest_us += of_fastest.expected_us;
    }
    assert!(of_all_us < of_fastest_us - of_fastest_us / 20, "{of_all_us} {of_fastest_us}");
}

/// Two origins that compute almost nothing, and relays that compute for seconds, in one region.
fn light_origins() -> SwarmDescription {
    let mut description = two_regions(8, 0);
    let cost = StageCost { forward_s: 1.0, loss_s: 0.0, backward_s: 2.0, closing_s: 0.0 };
    description.relay = cost;
    description.origin = StageCost { forward_s: 0.01, loss_s: 0.01, backward_s: 0.02, closing_s: 0.0 };
    description.slots = 2;
    description
}

#[test]
fn an_origin_that_waits_more_than_it_computes_gets_no_fewer_microbatches_for_being_slow() {
    let mut chooser = SwarmChooser::new(light_origins()).unwrap();
    let mut problem = problem(&[2, 3, 3], 4, 3, 0);
    let pace = |node, microbatch_us| Pace { node: NodeId(node), microbatch_us, fixed_us: 0, probe: false };
    problem.paces = vec![pace(1, 10_000), pace(2, 40_000)];
    problem.paces.extend((3..=8).map(|node| pace(node, 3_000_000)));
    let of_slow = |paths: &[Path]| paths.iter().filter(|path| path.0[0].node == NodeId(2)).count();
    let balanced = BalancedChooser.choose(&problem).unwrap();
    assert_eq!(
        of_slow(&balanced.paths),
        1,
        "its share by speed alone: the other's slots would do twice the work"
    );
    assert_eq!(of_slow(&chooser.choose(&problem).unwrap().paths), 2);
}

#[test]
fn what_nodes_compute_once_an_iteration_is_expected_at_its_end() {
    let description = light_origins();
    let expected_us = |fixed_us: u64, closing_s: f64, measured: bool| {
        let mut description = description.clone();
        description.relay.closing_s = closing_s;
        let mut chooser = SwarmChooser::new(description).unwrap();
        let mut problem = problem(&[2, 3, 3], 4, 3, 0);
        let pace = |node| {
            let microbatch_us = if node < 3 { 40_000 } else { 3_000_000 };
            let fixed_us = if node < 3 { 0 } else { fixed_us };
            Pace { node: NodeId(node), microbatch_us, fixed_us, probe: false }
        };
        problem.paces = (1..=8).filter(|_| measured).map(pace).collect();
        chooser.choose(&problem).unwrap().expected_us.unwrap()
    };
    // Which plan is found may differ a little.
    let adds_5_s = |with: u64, without: u64| with.abs_diff(without + 5_000_000) < 100_000;
    assert!(adds_5_s(expected_us(5_000_000, 0.0, true), expected_us(0, 0.0, true)));
    assert!(adds_5_s(expected_us(0, 5.0, false), expected_us(0, 0.0, false)));
    assert_eq!(expected_us(0, 5.0, true), expected_us(0, 0.0, true), "what is measured counts");
}

/// Two regions far from each other and a coordinator in one of them; `near` nodes beside it, the others far away.
fn two_regions(near: usize, far: usize) -> SwarmDescription {
    let mut description = SwarmDescription::of_instance(&instance(3, near + far, 3, 1));
    let link = Link::steady;
    let between =
        RegionLink { a: "near".to_owned(), b: "far".to_owned(), link: link(0.5, 1.0e6), back: None };
    description.regions = Regions { intra: link(0.001, 1.0e9), links: vec![between] };
    let node = |region: &str| SwarmNode { region: region.to_owned(), slowness: 1.0 };
    description.nodes = vec![node("far"); far];
    description.nodes.extend(vec![node("near"); near]);
    let cost = StageCost { forward_s: 0.01, loss_s: 0.0, backward_s: 0.02, closing_s: 0.0 };
    (description.relay, description.origin) = (cost, StageCost { loss_s: 0.01, ..cost });
    (description.activation_bytes, description.gradient_bytes) = (1000.0, 1.0e6);
    (description.link_overhead_s, description.slots) = (0.0, 6);
    description.coordinator = Some("near".to_owned());
    description
}

fn question(nodes: &[&[u32]], free: &[u32], open: &[u16]) -> PlaceProblem {
    let ids = |nodes: &[u32]| nodes.iter().copied().map(NodeId).collect::<Vec<_>>();
    PlaceProblem {
        epoch: 7,
        seed: 1,
        iteration: Iteration(3),
        nodes: nodes.iter().map(|nodes| ids(nodes)).collect(),
        free: ids(free),
        open: open.to_vec(),
        swap_within: 0,
        microbatches: 6,
        path_length: 3,
        rules: PathRules::default(),
        paces: Vec::new(),
        edge_swaps: EdgeSwaps::Off,
    }
}

#[test]
fn the_first_nodes_go_where_links_and_the_coordinator_are_near() {
    // Three far nodes have the lowest ids; of three stages two nodes each six are needed.
    let description = two_regions(4, 3);
    let mut chooser = SwarmChooser::new(description).unwrap().with_domain_price(Some(0.0));
    let question = question(&[&[], &[], &[]], &[1, 2, 3, 4, 5, 6, 7], &[1, 1, 2]);
    let answer = chooser.answer(&question, &mut || 0.0);
    assert_eq!((answer.epoch, answer.domain_price_us, answer.swap), (7, 0, None));
    let mut placed: Vec<_> = answer.places.clone();
    placed.sort_unstable_by_key(|(node, stage)| (*stage, *node));
    let sizes: Vec<u16> = placed.iter().map(|(_, stage)| stage.0).collect();
    assert_eq!(sizes, [0, 1, 2, 2]);
    // Two tasks of 10 ms and 20 ms each way at three stages, five times one after the other, at least; the far link would add
    // a second to every way.
    assert!(answer.expected_us.is_some_and(|us| us < 900_000), "{answer:?}");
    assert_eq!(answer, chooser.answer(&question, &mut || 0.0), "the same again");
}

#[test]
fn a_price_for_common_failures_is_followed_and_told() {
    let chooser = || SwarmChooser::new(two_regions(4, 4)).unwrap();
    let question = question(&[&[], &[], &[], &[]], &[1, 2, 3, 4, 5, 6, 7, 8], &[2, 2, 2, 2]);
    let near = chooser().with_domain_price(Some(0.0)).answer(&question, &mut || 0.0);
    let apart = chooser().with_domain_price(Some(100.0)).answer(&question, &mut || 0.0);
    let usual = chooser().answer(&question, &mut || 0.0);
    assert!(near.lost_with_a_region > Some(0), "{near:?}");
    assert_eq!((apart.lost_with_a_region, apart.domain_price_us), (Some(0), 100_000_000));
    assert!(apart.expected_us > near.expected_us);
    let share = usual.domain_price_us as f64 / usual.expected_us.unwrap() as f64;
    assert!((0.01..0.03).contains(&share), "2 % of an iteration: {usual:?}");
}

#[test]
fn a_free_node_goes_to_the_stage_where_it_shortens_an_iteration_most() {
    // Node 4 is near; stage 1 is served far away, stage 2 nearby.
    let mut description = two_regions(4, 3);
    description.gradient_bytes = 1.0e4;
    let mut chooser = SwarmChooser::new(description.clone()).unwrap().with_domain_price(Some(0.0));
    let one = question(&[&[5], &[1], &[6]], &[4], &[0, 1, 1]);
    assert_eq!(chooser.answer(&one, &mut || 0.0).places, [(NodeId(4), StageId(1))]);
    // Of a far and a near node the near one fills the stage that has none.
    let two = question(&[&[5], &[], &[6]], &[2, 4], &[0, 1, 0]);
    assert_eq!(chooser.answer(&two, &mut || 0.0).places, [(NodeId(4), StageId(1))]);
    assert_eq!(chooser.answer(&two, &mut || 1.0).places, [], "no time is left");
    // Where a region's failure counts, a stage is not left to one region.
    let mut careful = SwarmChooser::new(description).unwrap().with_domain_price(Some(100.0));
    let answer = careful.answer(&question(&[&[5, 1], &[2, 6], &[4]], &[7, 3], &[0, 0, 1]), &mut || 0.0);
    assert_eq!((answer.places, answer.lost_with_a_region), (vec![(NodeId(3), StageId(2))], Some(0)));
}

#[test]
fn two_nodes_change_places_only_if_it_pays_for_the_weights_within_the_iterations_left() {
    let mut description = two_regions(3, 3);
    // Stage 0 is far from the coordinator, and from half of stage 2; node 1 to 3 are far, 4 to 6 near.
    let mut mixed = question(&[&[4, 1], &[5, 2], &[6, 3]], &[], &[0, 0, 0]);
    let slow = |node, us| Pace { node: NodeId(node), microbatch_us: us, fixed_us: 0, probe: false };
    let answer = |description: &SwarmDescription, problem: &PlaceProblem| {
        let mut chooser = SwarmChooser::new(description.clone()).unwrap().with_domain_price(Some(0.0));
        chooser.answer(problem, &mut || 0.0)
    };
    // Each stage has one near and one far node: nothing gets better by a swap of like for like.
    mixed.swap_within = 100;
    let none = answer(&description, &mixed);
    assert!(none.swap.is_none_or(|swap| swap.after_us < swap.before_us), "{none:?}");
    // Both origins far, both nodes of stage 2 near.
    let mut wrong = question(&[&[1, 2], &[5, 3], &[4, 6]], &[], &[0, 0, 0]);
    wrong.swap_within = 100;
    let swap = answer(&description, &wrong).swap.expect("a swap that pays");
    assert!(swap.after_us < swap.before_us - swap.before_us / 20, "{swap:?}");
    assert!((swap.before_us - swap.after_us) * 100 > swap.copies_us);
    let placed = |id: NodeId| wrong.nodes.iter().position(|nodes| nodes.contains(&id)).unwrap();
    assert_ne!(placed(swap.a), placed(swap.b));
    // Weights that take longer than all that is saved stay where they are.
    description.gradient_bytes = 1.0e11;
    wrong.swap_within = 2;
    let heavy = answer(&description, &wrong).swap;
    assert!(heavy.is_none_or(|swap| (swap.before_us - swap.after_us) * 2 > swap.copies_us), "{heavy:?}");
    wrong.swap_within = 0;
    assert_eq!(answer(&description, &wrong).swap, None);
    // The last replica of a stage never moves.
    let mut alone = question(&[&[1], &[5], &[4, 6]], &[], &[0, 0, 0]);
    alone.swap_within = 100;
    alone.paces = vec![slow(1, 900_000)];
    assert_eq!(answer(&two_regions(3, 3), &alone).swap, None);
}

#[test]
fn nodes_serve_only_the_stages_that_they_can() {
    let description = SwarmDescription::of_instance(&instance(4, 15, 3, 2));
    let shape = SwarmShape {
        relay_stages: 3,
        replicas: 3,
        microbatches: 9,
        path_length: 3,
        jump_max: 4,
        edge_swaps: EdgeSwaps::Off,
    };
    let only = |origin| NodeRoles { origin, relay: !origin };
    for seed in 0..8 {
        // Two nodes for origins only, eight for relays only, four for either, one for nothing.
        let mut roles = vec![only(true); 2];
        roles.extend([only(false); 8]);
        roles.extend([NodeRoles::ALL; 4]);
        roles.push(NodeRoles { origin: false, relay: false });
        let options = SearchOptions { seed, ..SearchOptions::default() };
        let work = &mut |work| work as f64 / 20_000.0;
        let placed = place_with_roles(&description, &shape, &roles, &options, work).unwrap();
        for (stage, nodes) in placed.stages.iter().enumerate() {
            assert_eq!(nodes.len(), 3);
            let able = |node: &u32| {
                let roles = roles[*node as usize];
                if stage == 0 { roles.origin } else { roles.relay }
            };
            assert!(nodes.iter().all(able), "{placed:?}");
        }
        assert!(placed.spares.contains(&14));
        // Four that can be relays are too few for nine seats.
        let few = [[only(true); 11].as_slice(), &[NodeRoles::ALL; 4]].concat();
        let error = place_with_roles(&description, &shape, &few, &options, work).unwrap_err();
        assert!(matches!(error, PlacementError::TooFewAble { relays: 4, needed: 9, .. }), "{error}");
    }
}

#[test]
fn losses_are_prepared_for() {
    let instance = instance(6, 20, 4, 4);
    let nodes = [5, 3, 3, 3, 3, 3];
    let mut prepared = SwarmChooser::new(SwarmDescription::of_instance(&instance)).unwrap();
    let whole = |iteration| problem(&nodes, 30, 4, iteration);
    let without = |lost: u32, iteration| {
        let mut left = whole(iteration);
        left.nodes.iter_mut().for_each(|nodes| nodes.retain(|node| *node != NodeId(lost)));
        left
    };
    for iteration in 0..60 {
        prepared.choose(&whole(iteration)).unwrap();
    }
    // A node that goes and comes back: what was prepared is thrown away, the last plan is as good as before.
    let mut unprepared = prepared.clone();
    unprepared.choose(&without(7, 60)).unwrap();
    unprepared.choose(&whole(61)).unwrap();
    // Every third relay is lost in a world of its own.
    let (mut unprepared_s, mut prepared_s) = (0.0, 0.0);
    for lost in (6..21).step_by(3) {
        let left = without(lost, 62);
        for (chooser, sum_s) in [(&unprepared, &mut unprepared_s), (&prepared, &mut prepared_s)] {
            let mut chooser = chooser.clone();
            let plan = chooser.choose(&left).unwrap();
            assert!(plan.paths.iter().flat_map(|path| &path.0).all(|visit| visit.node != NodeId(lost)));
            *sum_s += plan.expected_us.unwrap() as f64 / 1e6;
        }
    }
    assert!(prepared_s < unprepared_s, "{prepared_s} {unprepared_s}");
}

#[test]
fn right_after_a_loss_visits_may_be_uneven_and_are_even_again_after_it() {
    for (seed, coordinator) in [(4, false), (5, true)] {
        let mut instance = instance(6, 20, 3, seed);
        instance.nodes.iter_mut().for_each(|node| node.compute_s_per_layer_sample = 0.05);
        let mut description = SwarmDescription::of_instance(&instance);
        description.coordinator = coordinator.then(|| instance.nodes[0].region.clone());
        let mut calm = SwarmChooser::new(description).unwrap();
        let whole = |iteration| problem(&[5, 3, 3, 3, 3, 3], 30, 3, iteration);
        for iteration in 0..20 {
            assert_eq!(visits(&calm.choose(&whole(iteration)).unwrap(), 6)[1..], [12; 5]);
        }
        let mut uneven = 0;
        for lost in [6, 12, 18] {
            let without = |iteration| {
                let mut left = whole(iteration);
                left.nodes.iter_mut().for_each(|nodes| nodes.retain(|node| *node != NodeId(lost)));
                left
            };
            let mut chooser = calm.clone();
            let first = visits(&chooser.choose(&without(20)).unwrap(), 6);
            assert!(first[1..].iter().all(|visits| (6..=15).contains(visits)), "{first:?}");
            uneven += u32::from(first[1..] != [12; 5]);
            assert_eq!(visits(&chooser.choose(&without(21)).unwrap(), 6)[1..], [12; 5]);
        }
        assert!(uneven > 0);
    }
}

/// Five regions, a node in each, and a coordinator in the first: drawn by `seed`.
fn five_places(seed: u64) -> SwarmDescription {
    let mut description = SwarmDescription::of_instance(&instance(5, 5, 5, seed));
    let mut drawn = seed;
    let mut draw = || {
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (drawn >> 33) as f64 / (1_u64 << 31) as f64
    };
    let name = |place: usize| format!("place-{place}");
    let mut links = Vec::new();
    for a in 0..5 {
        for b in 0..a {
            let link = Link::steady(0.05 + draw(), 1.0e9);
            links.push(RegionLink { a: name(a), b: name(b), link, back: None });
        }
    }
    description.regions = Regions { intra: Link::steady(0.001, 1.0e9), links };
    description.nodes =
        (0..5).map(|place| SwarmNode { region: name(place), slowness: 0.5 + draw() }).collect();
    let cost = StageCost { forward_s: 0.1, loss_s: 0.0, backward_s: 0.2, closing_s: 0.0 };
    (description.relay, description.origin) = (cost, StageCost { loss_s: 0.1, ..cost });
    (description.link_overhead_s, description.slots) = (0.0, 3);
    description.coordinator = Some(name(0));
    description
}

#[test]
fn the_first_nodes_are_placed_for_the_swaps_that_the_run_asks_for() {
    let mut places_differ = 0;
    for seed in 0..4 {
        let description = five_places(seed);
        let placed = |edge_swaps| {
            let shape = SwarmShape {
                relay_stages: 4,
                replicas: 1,
                microbatches: 6,
                path_length: 5,
                jump_max: 4,
                edge_swaps,
            };
            place(&description, &shape, &SearchOptions::default(), &mut |work| work as f64 / 30_000.0)
                .unwrap()
        };
        // With one node a stage and whole paths a placement leaves no choice.
        let takes_us = |order: &[u32]| {
            let asked = PlanProblem {
                nodes: order.iter().map(|node| vec![NodeId(node + 1)]).collect(),
                edge_swaps: EdgeSwaps::Odd,
                ..problem(&[1; 5], 6, 5, 0)
            };
            SwarmChooser::new(description.clone()).unwrap().choose(&asked).unwrap().expected_us.unwrap()
        };
        let mut orders = vec![Vec::new()];
        for _ in 0..5 {
            let longer = |order: &Vec<u32>| -> Vec<Vec<u32>> {
                let others = (0..5).filter(|node| !order.contains(node));
                others.map(|node| [order.as_slice(), &[node]].concat()).collect()
            };
            orders = orders.iter().flat_map(longer).collect();
        }
        assert_eq!(orders.len(), 120);
        let least_us = orders.iter().map(|order| takes_us(order)).min().unwrap();
        let order = |placement: &skipstone_planner::Placement| -> Vec<u32> {
            placement.stages.iter().map(|nodes| nodes[0]).collect()
        };
        let (odd, off) = (placed(EdgeSwaps::Odd), placed(EdgeSwaps::Off));
        assert_eq!(
            takes_us(&order(&odd)),
            odd.expected_us,
            "seed {seed}: what is expected is what paths then take"
        );
        assert!(odd.expected_us as f64 <= 1.02 * least_us as f64, "seed {seed}: {odd:?} {least_us}");
        assert!(odd.expected_us <= takes_us(&order(&off)), "seed {seed}");
        places_differ += u32::from(takes_us(&order(&off)) > odd.expected_us);
    }
    assert!(places_differ > 0, "a placement for ascending paths would do as well in all of them");
}

#[test]
fn the_origin_exchanges_a_gradient_of_its_own_size() {
    let mut description = two_regions(2, 2);
    description.activation_bytes = 1.0;
    let expected_us = |description: &SwarmDescription| {
        // Each stage has a node in either region: ids 1 and 2 are far, 3 and 4 near.
        let nodes = vec![vec![NodeId(1), NodeId(3)], vec![NodeId(2), NodeId(4)]];
        let asked = PlanProblem { nodes, ..problem(&[2, 2], 4, 2, 0) };
        SwarmChooser::new(description.clone()).unwrap().choose(&asked).unwrap().expected_us.unwrap()
    };
    let as_relay_us = expected_us(&description);
    description.origin_gradient_bytes = Some(description.gradient_bytes);
    assert_eq!(expected_us(&description), as_relay_us);
    // Half of it each way between two regions at a megabyte a second.
    description.origin_gradient_bytes = Some(description.gradient_bytes + 20.0e6);
    let larger_us = expected_us(&description);
    assert!((19_000_000..21_000_000).contains(&(larger_us - as_relay_us)), "{larger_us} {as_relay_us}");
    // The relays' counts as before.
    description.origin_gradient_bytes = Some(0.0);
    assert!(expected_us(&description) <= as_relay_us);
    description.origin_gradient_bytes = Some(f64::NAN);
    assert!(SwarmChooser::new(description).unwrap_err().to_string().contains("origin_gradient_bytes"));
}
