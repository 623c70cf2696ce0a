//! The published planners: valid plans on random instances, the same plan for the same seed, and errors that can be
//! switched back on.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use skipstone_planner::{
    AsPublished, CompiledInstance, EdgeSwaps, INSTANCE_SCHEMA, Instance, InstanceNode, Link, Method,
    MethodError, MethodOptions, MethodPlan, PlanViolation, Quota, RegionLink, Regions, SwapRules, evaluate,
    plan_with,
};

/// A stream of numbers for instances.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }

    fn among(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(u64::from(high - low + 1)) as u32
    }

    fn share(&mut self) -> f64 {
        self.below(1000) as f64 / 1000.0
    }

    fn link(&mut self) -> Link {
        Link::steady(self.share() / 5.0, 1e6 + 1e8 * self.share())
    }
}

/// An instance of a few stages and nodes; what its rules allow is left to chance.
fn random_instance(seed: u64) -> Instance {
    let mut draw = Numbers(seed ^ 0x9e37_79b9);
    let n_stages = draw.among(2, 7);
    let sizes: Vec<u32> = (0..n_stages).map(|_| draw.among(1, 4)).collect();
    let names: Vec<String> = (0..draw.among(1, 4)).map(|k| format!("r{k}")).collect();
    let each = draw.among(1, 6);
    let quotas: Vec<u32> = (0..sizes[0]).map(|_| draw.among(0, 4)).collect();
    let (quota, total) = if draw.below(3) == 0 && quotas.iter().sum::<u32>() > 0 {
        let total = quotas.iter().sum();
        (Quota::List(quotas), total)
    } else {
        (Quota::Each(each), each * sizes[0])
    };
    let path_len = draw.among(1, n_stages);
    let fair = (total * (path_len - 1)).div_ceil(n_stages - 1).max(1);
    let mut links = Vec::new();
    for a in 0..names.len() {
        for b in 0..a {
            links.push(RegionLink {
                a: names[a].clone(),
                b: names[b].clone(),
                link: draw.link(),
                back: None,
            });
        }
    }
    let nodes = (0..sizes.iter().sum())
        .map(|id| InstanceNode {
            id,
            region: names[draw.below(names.len() as u64) as usize].clone(),
            compute_s_per_layer_sample: 0.01 + draw.share() / 5.0,
            memory: draw.among(1, 4),
        })
        .collect();
    Instance {
        schema: INSTANCE_SCHEMA.to_owned(),
        name: format!("random {seed}"),
        note: None,
        n_stages,
        stage_sizes: (draw.below(4) > 0).then_some(sizes),
        layers_per_stage: draw.among(1, 4),
        origin_layers: (draw.below(4) == 0).then(|| draw.among(0, 4)),
        path_len,
        skip_ratio: None,
        samples_per_mb: draw.among(1, 8),
        activation_bytes_per_sample: 4e6 * draw.share(),
        param_bytes_per_stage: 1e8 * draw.share(),
        backward_ratio: 0.5 + 2.0 * draw.share(),
        loss_ratio: draw.share() / 2.0,
        link_overhead_s: draw.share() / 2.0,
        task_gap_s: 0.0,
        link_serial: draw.below(3) == 0,
        microbatches_per_origin: quota,
        total_microbatches: total,
        waves: None,
        edge_swaps: (n_stages > 2 && draw.below(4) == 0).then_some(EdgeSwaps::Odd),
        stage_visits_max: (draw.below(3) > 0).then(|| fair + draw.among(0, 3)),
        dp_allreduce_max_s: (draw.below(5) == 0).then(|| 60.0 * draw.share()),
        swap: SwapRules {
            max_distance: draw.among(0, 3),
            max_count: draw.among(0, 3),
            max_total_distance: draw.among(0, 4),
        },
        max_jump: draw.among(1, 7),
        regions: Regions { intra: draw.link(), links },
        nodes,
    }
}

/// The setting of the paper's code: 20 nodes, 12 regions, 6 stages, 4 of them visited.
fn published_setting(mistyped: bool) -> Instance {
    const NAMES: [&str; 12] = [
        "Australia",
        "Belgium",
        "Canada",
        "Germany",
        "Iowa",
        "Japan",
        "LA",
        "NL",
        "Oregon",
        "Singapore",
        "Taiwan",
        "London",
    ];
    let mut instance = random_instance(0);
    let mut draw = Numbers(20);
    let mut links = Vec::new();
    for (a, name) in NAMES.iter().enumerate() {
        for other in &NAMES[..a] {
            let mut link = Link::steady(0.1 * draw.share(), 1e7 + 2e8 * draw.share());
            if (*name, *other) == ("London", "NL") {
                link = Link::steady(0.0048, if mistyped { 254_279.68 } else { 3e8 });
            }
            links.push(RegionLink { a: (*name).to_owned(), b: (*other).to_owned(), link, back: None });
        }
    }
    instance.n_stages = 6;
    instance.stage_sizes = Some(vec![5, 3, 3, 3, 3, 3]);
    instance.layers_per_stage = 4;
    instance.origin_layers = None;
    instance.path_len = 4;
    instance.samples_per_mb = 8;
    instance.activation_bytes_per_sample = 4_194_304.0;
    instance.param_bytes_per_stage = 268_468_224.0;
    instance.backward_ratio = 1.5;
    instance.loss_ratio = 0.25;
    instance.link_overhead_s = 0.35;
    instance.link_serial = false;
    instance.microbatches_per_origin = Quota::Each(6);
    instance.total_microbatches = 30;
    instance.edge_swaps = None;
    instance.stage_visits_max = Some(18);
    instance.dp_allreduce_max_s = None;
    instance.swap = SwapRules { max_distance: 1, max_count: 2, max_total_distance: 2 };
    instance.max_jump = 4;
    instance.regions = Regions { intra: Link::steady(0.001, 2e9), links };
    instance.nodes = (0..20)
        .map(|id| InstanceNode {
            id,
            region: NAMES[id as usize % 12].to_owned(),
            compute_s_per_layer_sample: 0.055,
            memory: 3,
        })
        .collect();
    instance
}

fn run(instance: &Instance, options: &MethodOptions, work: u64) -> Result<MethodPlan, MethodError> {
    let compiled = CompiledInstance::new(instance).unwrap();
    let found = plan_with(&compiled, options, &mut |done| done as f64 / work as f64)?;
    let evaluation = evaluate(&compiled, &found.plan).unwrap();
    assert!(evaluation.makespan_us > 0);
    Ok(found)
}

fn makespan_us(instance: &Instance, found: &MethodPlan) -> u64 {
    evaluate(&CompiledInstance::new(instance).unwrap(), &found.plan).unwrap().makespan_us
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn plans_are_valid_and_the_same_for_the_same_seed(seed in any::<u64>(), method in 0_usize..4) {
        let instance = random_instance(seed);
        prop_assume!(instance.check().is_ok());
        let options = MethodOptions::new(Method::ALL[method], seed % 7);
        // `run` evaluates the plan.
        let found = run(&instance, &options, 600);
        prop_assert_eq!(&found, &run(&instance, &options, 600));
        match found {
            Ok(found) => prop_assert_eq!(found.plan.is_full(), options.method == Method::Full),
            // A full pipeline can only fail for its all-reduce; partial ones for paths, and for what the rules of
            // all-reduce and memory forbid; never for a rule that the method should have kept.
            Err(MethodError::AllReduce { .. } | MethodError::EmptyStage { .. }) => {}
            Err(MethodError::NoRandomPaths { .. }) => prop_assert_eq!(options.method, Method::Random),
            Err(MethodError::NoPaths { .. }) => {
                prop_assert!(matches!(options.method, Method::NoCollisions | Method::SkipPipe));
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
fn every_method_plans_the_published_setting() {
    let instance = published_setting(false);
    let mut makespans = Vec::new();
    for method in Method::ALL {
        let found = run(&instance, &MethodOptions::new(method, 5), 12_000).unwrap();
        makespans.push(makespan_us(&instance, &found));
        // Pipelines and waves: every origin with a path sends from all of its slots.
        assert_eq!(found.plan.microbatches.len(), 30);
        assert!(found.notes.iter().any(|note| note.starts_with("placement: ")));
    }
    // Skipping pays, and paths that know of times pay more.
    assert!(makespans[0] > makespans[1] && makespans[1] > makespans[2], "{makespans:?}");
}

#[test]
fn a_given_placement_is_kept() {
    let instance = published_setting(false);
    let first = run(&instance, &MethodOptions::new(Method::Random, 1), 2_000).unwrap();
    for method in Method::ALL {
        let options =
            MethodOptions { stages: Some(first.plan.stages.clone()), ..MethodOptions::new(method, 2) };
        assert_eq!(run(&instance, &options, 12_000).unwrap().plan.stages, first.plan.stages);
    }
    let mut stages = first.plan.stages;
    stages[1].pop();
    let options = MethodOptions { stages: Some(stages), ..MethodOptions::new(Method::Full, 2) };
    let refused = run(&instance, &options, 12_000);
    assert!(matches!(refused, Err(MethodError::Placement(PlanViolation::NodeIdle(_)))), "{refused:?}");
}

#[test]
fn the_published_matching_is_a_handicap() {
    let instance = published_setting(false);
    let mended = run(&instance, &MethodOptions::new(Method::Full, 5), 10_000).unwrap();
    let as_published = AsPublished { matching: true, ..AsPublished::NONE };
    let stages = Some(mended.plan.stages.clone());
    let options = MethodOptions { as_published, stages, ..MethodOptions::new(Method::Full, 5) };
    let published = run(&instance, &options, 10_000).unwrap();
    assert!(makespan_us(&instance, &mended) < makespan_us(&instance, &published));
    assert_eq!(published.published_makespan_us, None);
}

#[test]
fn the_published_time_of_the_full_pipeline_counts_27_microbatches() {
    let instance = published_setting(false);
    let as_published = AsPublished { microbatches: true, ..AsPublished::NONE };
    let options = MethodOptions { as_published, ..MethodOptions::new(Method::Full, 5) };
    let found = run(&instance, &options, 10_000).unwrap();
    assert_eq!(found.plan, run(&instance, &MethodOptions::new(Method::Full, 5), 10_000).unwrap().plan);
    let mut shorter = instance.clone();
    shorter.total_microbatches = 27;
    shorter.microbatches_per_origin = Quota::List(vec![27, 0, 0, 0, 0]);
    let mut plan = found.plan.clone();
    plan.microbatches.truncate(27);
    let compiled = CompiledInstance::new(&shorter).unwrap();
    assert_eq!(found.published_makespan_us, Some(evaluate(&compiled, &plan).unwrap().makespan_us));
    assert!(found.published_makespan_us < Some(makespan_us(&instance, &found)));
}

#[test]
fn the_published_link_table_is_believed_only_when_asked() {
    let as_published = AsPublished { nl_london: true, ..AsPublished::NONE };
    let crosses = |instance: &Instance, found: &MethodPlan| {
        let region = |node: &u32| instance.nodes[*node as usize].region.as_str();
        found.plan.microbatches.iter().any(|microbatch| {
            let path = &microbatch.path;
            (0..path.len()).any(|place| {
                let pair = (region(&path[place]), region(&path[(place + 1) % path.len()]));
                matches!(pair, ("NL", "London") | ("London", "NL"))
            })
        })
    };
    // In a sound instance the switch makes planners see the mistyped one.
    let (sound, mistyped) = (published_setting(false), published_setting(true));
    for method in [Method::Full, Method::NoCollisions, Method::SkipPipe] {
        let repaired = MethodOptions::new(method, 3);
        let published = MethodOptions { as_published, ..repaired.clone() };
        let told_wrong = run(&sound, &published, 9_000).unwrap();
        assert_eq!(told_wrong.plan, run(&mistyped, &repaired, 9_000).unwrap().plan);
        assert_ne!(told_wrong.plan, run(&sound, &repaired, 9_000).unwrap().plan);
    }
    // Random paths know no times: they leave the mistyped link out, unless they are to be as published.
    let mut taken = 0;
    for seed in 0..8 {
        let repaired = MethodOptions::new(Method::Random, seed);
        let found = run(&mistyped, &repaired, 2_000).unwrap();
        assert!(!crosses(&mistyped, &found), "seed {seed}");
        let published = MethodOptions { as_published, ..repaired };
        taken += usize::from(crosses(&mistyped, &run(&mistyped, &published, 2_000).unwrap()));
    }
    assert!(taken > 0);
}

#[test]
fn a_search_without_a_plan_says_what_it_tried() {
    // Five paths go through all stages, and three nodes of one path each serve a stage.
    let mut instance = published_setting(false);
    instance.nodes.iter_mut().for_each(|node| node.memory = 1);
    instance.path_len = 6;
    instance.stage_visits_max = None;
    for method in [Method::NoCollisions, Method::SkipPipe] {
        match run(&instance, &MethodOptions::new(method, 5), 4_000) {
            Err(error @ MethodError::NoPaths { tried, .. }) => {
                assert!(tried.nodes > 0 && tried.paths > 0 && tried.balanced > 0 && tried.within_memory == 0);
                let text = error.to_string();
                assert!(
                    text.starts_with(method.name()) && text.contains("every node's memory (TC1)"),
                    "{text}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    // However small the budget, there is a full pipeline.
    assert!(run(&instance, &MethodOptions::new(Method::Full, 5), 1).is_ok());
}
