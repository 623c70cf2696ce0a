//! Instances and plans: what is read, and what is refused with the field and the reason.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use skipstone_planner::{CompiledInstance, Instance, PipelinePlan, PlanViolation, check_plan, evaluate};

/// Two regions, four nodes, three stages.
fn instance() -> Value {
    json!({
        "schema": "skippipe-instance-1", "name": "small", "n_stages": 3, "stage_sizes": [2, 1, 1],
        "layers_per_stage": 1, "path_len": 2, "samples_per_mb": 1, "activation_bytes_per_sample": 1000,
        "param_bytes_per_stage": 2000, "backward_ratio": 2, "loss_ratio": 0.5, "microbatches_per_origin": 2,
        "total_microbatches": 4, "stage_visits_max": 2,
        "swap": {"max_distance": 1, "max_count": 2, "max_total_distance": 2}, "max_jump": 4,
        "regions": {"intra": {"latency_s": 0.001, "bandwidth_Bps": 1e6},
                    "links": [{"a": "x", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 1e4}]},
        "nodes": [
            {"id": 0, "region": "x", "compute_s_per_layer_sample": 1.0, "memory": 1},
            {"id": 1, "region": "y", "compute_s_per_layer_sample": 1.0, "memory": 1},
            {"id": 2, "region": "x", "compute_s_per_layer_sample": 1.0, "memory": 1},
            {"id": 3, "region": "y", "compute_s_per_layer_sample": 1.0, "memory": 1}
        ]
    })
}

fn plan() -> Value {
    json!({"instance": "small", "method": "by hand", "stages": [[0, 1], [2], [3]], "microbatches": [
        {"id": 0, "path": [0, 2]}, {"id": 1, "path": [0, 2]}, {"id": 2, "path": [1, 3]}, {"id": 3, "path": [1, 3]}
    ]})
}

/// Sets `path` (as a JSON pointer) to `value`; null removes it.
fn with(mut base: Value, path: &str, value: Value) -> String {
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = base.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        Value::Object(map) if value.is_null() => drop(map.remove(key)),
        Value::Object(map) => drop(map.insert(key.to_owned(), value)),
        _ => unreachable!(),
    }
    base.to_string()
}

#[test]
fn a_plan_evaluates_to_what_pen_and_paper_say() {
    let compiled = CompiledInstance::new(&Instance::from_json(&instance().to_string()).unwrap()).unwrap();
    let plan = PipelinePlan::from_json(&plan().to_string()).unwrap();
    let evaluation = evaluate(&compiled, &plan).unwrap();
    // One slot an origin: two round trips one after the other; f f l b b, and four ways inside a region at 2 ms.
    assert_eq!(evaluation.makespan_us, 2 * (6_500_000 + 4 * 2_000));
    assert_eq!(evaluation.finish_us, [6_508_000, 13_016_000, 6_508_000, 13_016_000]);
    // Ring of two over the slow link: 2 · ½ · 2000 B / 10⁴ B/s + 2 · 0.1 s.
    assert!((evaluation.allreduce_s - 0.4).abs() < 1e-12);
    assert_eq!(evaluation.in_flight_max, [1, 1, 1, 1]);
    // The second microbatch of each origin waits for the slot while the first is away.
    assert!(evaluation.trace.memory_waits.iter().any(|wait| wait.node == 0 && wait.start_us == 1_000_000));
}

#[test]
fn bad_instances_are_refused_with_field_and_reason() {
    for (path, value, says) in [
        ("/schema", json!("other-9"), "`schema`"),
        ("/n_stages", Value::Null, "n_stages"),
        ("/n_stages", json!(-3), "n_stages"),
        ("/path_len", json!(4), "`path_len`"),
        ("/path_len", json!(0), "`path_len`"),
        ("/max_jump", json!(0), "`max_jump`"),
        ("/stage_sizes", json!([2, 1]), "`stage_sizes`"),
        ("/stage_sizes", json!([2, 1, 7]), "`stage_sizes`"),
        ("/stage_sizes", json!([0, 3, 1]), "`stage_sizes`"),
        ("/total_microbatches", json!(5), "`microbatches_per_origin`"),
        ("/total_microbatches", json!(4_000_000), "`total_microbatches`"),
        ("/microbatches_per_origin", json!([1, 1, 2]), "`microbatches_per_origin`"),
        ("/microbatches_per_origin", json!("many"), "microbatches_per_origin"),
        ("/stage_visits_max", json!(1), "`stage_visits_max`"),
        ("/backward_ratio", json!(-1.5), "`backward_ratio`"),
        ("/edge_swaps", json!("even"), "edge_swaps"),
        ("/nodes", json!([]), "`nodes"),
        ("/nodes/1/id", json!(0), "a duplicate"),
        ("/nodes/1/id", json!(9), "`nodes[1].id`"),
        ("/nodes/1/memory", json!(0), "`nodes[1].memory`"),
        ("/nodes/2/compute_s_per_layer_sample", json!(-0.1), "`nodes[2].compute_s_per_layer_sample`"),
        ("/nodes/2/region", json!("z"), "no link between"),
        ("/regions/links/0/bandwidth_Bps", json!(0), "`regions.links[0].bandwidth_Bps`"),
        ("/regions/links/0/latency_s", json!(-1), "`regions.links[0].latency_s`"),
        ("/regions/intra/latency_s", json!(1e12), "one after the other"),
    ] {
        let error = Instance::from_json(&with(instance(), path, value.clone())).unwrap_err().to_string();
        assert!(error.contains(says), "{path} = {value}: {error}");
    }
    for (text, says) in
        [("", "can't be read"), ("{\"name\": NaN}", "`name`"), ("{\"max_jump\": 1e999}", "`max_jump`")]
    {
        let error = Instance::from_json(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn bad_plans_are_refused_with_the_rule() {
    let compiled = CompiledInstance::new(&Instance::from_json(&instance().to_string()).unwrap()).unwrap();
    let broken = |path: &str, value: Value| {
        let plan = PipelinePlan::from_json(&with(plan(), path, value)).unwrap();
        check_plan(&compiled, &plan)
    };
    assert_eq!(broken("/stages/1", json!([3])).first(), Some(&PlanViolation::NodeTwice(3)));
    assert!(broken("/stages/1", json!([])).contains(&PlanViolation::NodeIdle(2)));
    assert!(matches!(broken("/stages", json!([[0, 1], [2, 3]]))[0], PlanViolation::StageCount { .. }));
    assert!(matches!(broken("/microbatches/0/path", json!([0, 2, 3]))[0], PlanViolation::PathLength { .. }));
    assert!(matches!(broken("/microbatches/0/path", json!([]))[0], PlanViolation::EmptyPath(0)));
    assert!(matches!(broken("/microbatches/0/path", json!([2, 3]))[0], PlanViolation::PathRule { .. }));
    assert!(matches!(broken("/microbatches/0/path", json!([0, 77]))[0], PlanViolation::UnknownNode { .. }));
    assert!(matches!(broken("/microbatches/0/path", json!([1, 2]))[0], PlanViolation::OriginQuota { .. }));
    assert!(matches!(broken("/microbatches/0/path", json!([0, 3]))[0], PlanViolation::StageVisits { .. }));
    assert!(matches!(broken("/microbatches/0/id", json!(1))[0], PlanViolation::DuplicateMicrobatch(1)));
    assert!(matches!(broken("/microbatches/0/after", json!(9))[0], PlanViolation::UnknownAfter { .. }));
    assert!(matches!(broken("/microbatches/0/release", json!(-1))[0], PlanViolation::BadNumber { .. }));
    assert!(matches!(broken("/microbatches/3", json!({"id": 3, "path": [1, 3], "after": 3}))[..], []));
    assert!(matches!(broken("/node_order", json!({"2": [[0, "f"]]}))[0], PlanViolation::NodeOrder { .. }));
    assert!(matches!(broken("/mode", json!("full"))[0], PlanViolation::NotFull { .. }));
    let itself = with(plan(), "/microbatches/3", json!({"id": 3, "path": [1, 3], "after": 3}));
    let deadlock = evaluate(&compiled, &PipelinePlan::from_json(&itself).unwrap()).unwrap_err();
    assert_eq!(deadlock, [PlanViolation::Deadlock { left: 1 }]);
}
