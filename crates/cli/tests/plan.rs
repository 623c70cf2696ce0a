//! `skipstone plan` and `bench plan` from the outside: methods, pictures, tables, exit codes.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn skipstone(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipstone")).args(arguments).output().unwrap()
}

/// Two origins and three relay stages of two nodes each, in two regions.
fn instance(memory: u32) -> Value {
    let node = |id: u32| {
        json!({"id": id, "region": if id.is_multiple_of(2) { "x" } else { "y" }, "compute_s_per_layer_sample": 0.1,
               "memory": memory})
    };
    json!({
        "schema": "skippipe-instance-1", "name": "small", "n_stages": 4, "stage_sizes": [2, 2, 2, 2],
        "layers_per_stage": 2, "path_len": 3, "samples_per_mb": 4, "activation_bytes_per_sample": 1e6,
        "param_bytes_per_stage": 1e7, "backward_ratio": 1.5, "loss_ratio": 0.25, "microbatches_per_origin": 4,
        "total_microbatches": 8, "stage_visits_max": 6,
        "swap": {"max_distance": 1, "max_count": 2, "max_total_distance": 2}, "max_jump": 4,
        "regions": {"intra": {"latency_s": 0.001, "bandwidth_Bps": 1e9},
                    "links": [{"a": "x", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 1e7}]},
        "nodes": (0..8).map(node).collect::<Vec<_>>()
    })
}

fn write(folder: &Path, name: &str, value: &Value) -> String {
    let path = folder.join(name);
    std::fs::write(&path, value.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_method_plans_and_draws() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "small.json", &instance(2));
    let (lanes, map) = (folder.path().join("lanes.svg"), folder.path().join("map.svg"));
    for method in ["skipstone", "skippipe", "no-tc2", "random", "full"] {
        let arguments = ["plan", &file, "--method", method, "--work", "3000", "--seed", "1", "--json"];
        let pictures = ["--gantt", lanes.to_str().unwrap(), "--map", map.to_str().unwrap()];
        let run = skipstone(&[arguments.as_slice(), &pictures].concat());
        assert!(run.status.success(), "{method}: {}", String::from_utf8_lossy(&run.stderr));
        let plan: Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(plan["method"], method);
        assert_eq!(plan["seed"], 1);
        assert!(plan["lower_bound_s"].as_f64() <= plan["makespan_s"].as_f64());
        for picture in [&lanes, &map] {
            let text = std::fs::read_to_string(picture).unwrap();
            assert!(text.starts_with("<svg xmlns=") && text.contains(&format!("small · {method}")));
        }
    }
}

#[test]
fn a_method_without_a_plan_ends_with_1_and_says_what_it_tried() {
    let folder = tempfile::tempdir().unwrap();
    // Two paths through every stage, and one slot a node of two; then a path too many for each stage's visits.
    let mut value = instance(1);
    value["stage_sizes"] = json!([5, 1, 1, 1]);
    value["total_microbatches"] = json!(20);
    value["path_len"] = json!(4);
    value["stage_visits_max"] = Value::Null;
    let file = write(folder.path(), "tight.json", &value);
    let run = skipstone(&["plan", &file, "--method", "skippipe", "--work", "2000"]);
    let text = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(1), "{text}");
    assert!(run.stdout.is_empty());
    assert!(text.contains("skippipe found no plan") && text.contains("paths searched"), "{text}");
}

#[test]
fn a_method_runs_on_the_placement_of_another_plan() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "small.json", &instance(2));
    let first = folder.path().join("first.json");
    let first = first.to_str().unwrap();
    let run = skipstone(&["plan", &file, "--method", "full", "--work", "500", "--seed", "3", "--out", first]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let placed: Value = serde_json::from_str(&std::fs::read_to_string(first).unwrap()).unwrap();
    for method in ["skipstone", "skippipe", "random"] {
        let arguments =
            ["plan", &file, "--method", method, "--stages-from", first, "--work", "2000", "--json"];
        let run = skipstone(&arguments);
        assert!(run.status.success(), "{method}: {}", String::from_utf8_lossy(&run.stderr));
        let plan: Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(plan["stages"], placed["stages"], "{method}");
    }
    // A placement of another instance is refused.
    let mut other = placed.clone();
    other["stages"][0] = json!([0, 1, 99]);
    let wrong = write(folder.path(), "wrong.json", &other);
    for method in ["skipstone", "random"] {
        let run = skipstone(&["plan", &file, "--method", method, "--stages-from", &wrong, "--work", "100"]);
        assert_eq!(run.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&run.stderr).contains("unknown node 99"));
    }
}

#[test]
fn published_errors_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "small.json", &instance(3));
    let run = skipstone(&["plan", &file, "--method", "full", "--work", "500", "--as-published", "--json"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let plan: Value = serde_json::from_slice(&run.stdout).unwrap();
    // Four microbatches for each of two pipelines, three of them a whole wave.
    assert!(plan["as_published_makespan_s"].as_f64() < plan["makespan_s"].as_f64());
    let run = skipstone(&["plan", &file, "--as-published=everything"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("nl-london"));
}

#[test]
fn the_table_has_a_row_for_every_method_and_instance() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.json", &instance(2));
    write(folder.path(), "b.json", &instance(3));
    let directory = folder.path().to_str().unwrap();
    let run = skipstone(&["bench", "plan", "--instances", directory, "--work", "1000", "--json"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let table: Value = serde_json::from_slice(&run.stdout).unwrap();
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 10);
    assert!(rows.iter().all(|row| row["iteration_s"].as_f64() >= row["makespan_s"].as_f64()));
    let run =
        skipstone(&["bench", "plan", "--instances", directory, "--work", "500", "--methods", "full,random"]);
    let text = String::from_utf8(run.stdout).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("| small |")).count(), 4, "{text}");
    // On one placement; the table says whose.
    let run = skipstone(&[
        "bench",
        "plan",
        "--instances",
        directory,
        "--work",
        "500",
        "--placement-of",
        "full",
        "--json",
    ]);
    let table: Value = serde_json::from_slice(&run.stdout).unwrap();
    let rows = table["rows"].as_array().unwrap();
    assert!(rows.len() == 10 && rows.iter().all(|row| row["placement"] == "full"));
    let allreduces = |name: &str| {
        rows.iter()
            .filter(|row| row["method"] == name)
            .map(|row| row["allreduce_s"].as_f64())
            .collect::<Vec<_>>()
    };
    assert_eq!(allreduces("skipstone"), allreduces("random"));
    let empty = tempfile::tempdir().unwrap();
    let run = skipstone(&["bench", "plan", "--instances", empty.path().to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(2));
}

/// Six nodes in two regions, with their memory.
fn node_list(memory_bytes: f64) -> Value {
    let node = |id: u32| {
        json!({"id": id, "region": if id.is_multiple_of(2) { "x" } else { "y" }, "flop_per_s": 1e11,
               "memory_bytes": memory_bytes})
    };
    json!({
        "nodes": (0..6).map(node).collect::<Vec<_>>(),
        "regions": {"intra": {"latency_s": 0.001, "bandwidth_Bps": 1e9},
                    "links": [{"a": "x", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 1e7}]}
    })
}

#[test]
fn the_best_configuration_is_one_that_train_takes_and_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "nodes.json", &node_list(1e10));
    let arguments = [
        "plan",
        "--auto",
        "--model",
        "tiny",
        "--node-list",
        &file,
        "--work",
        "50000",
        "--seed",
        "3",
        "--json",
    ];
    let document = |threads: &str| {
        let run = skipstone(&[arguments.as_slice(), &["--threads", threads]].concat());
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let mut value: Value = serde_json::from_slice(&run.stdout).unwrap();
        value["search_s"] = Value::Null;
        value
    };
    let found = document("2");
    assert_eq!(found, document("1"), "threads decide nothing");
    let best = &found["best"];
    assert_eq!(best["fits"], true);
    assert!(best["tokens_per_s"].as_f64().unwrap() > 0.0);
    let flags: Vec<&str> = best["train_flags"].as_str().unwrap().split(' ').collect();
    let run = skipstone(&[["config", "--json"].as_slice(), &flags].concat());
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let config: Value = serde_json::from_slice(&run.stdout).unwrap();
    for key in ["stages", "origin_layers", "replicas", "spares", "skip", "batch", "microbatches", "slots"] {
        assert_eq!(config[key], best[key], "{key}");
    }
    let run = skipstone(&arguments[..arguments.len() - 1]);
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(text.contains(&format!("skipstone train {}", best["train_flags"].as_str().unwrap())), "{text}");
}

#[test]
fn a_list_of_nodes_that_can_not_be_is_refused_and_one_that_is_too_small_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |code: i32, list: &Value, more: &[&str], says: &str| {
        let file = write(folder.path(), "nodes.json", list);
        let arguments = ["plan", "--auto", "--node-list", &file, "--work", "1000"];
        let run = skipstone(&[arguments.as_slice(), more].concat());
        let text = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(code), "{text}");
        assert!(text.contains(says), "`{says}` is not in: {text}");
    };
    fails(1, &node_list(1000.0), &[], "0 of 6 nodes hold an origin");
    let mut list = node_list(1e10);
    list["nodes"][4]["memory_bytes"] = json!(0);
    fails(2, &list, &[], "nodes.json: `nodes[4].memory_bytes` is 0");
    list = node_list(1e10);
    list["nodes"][2]["id"] = json!(1);
    fails(2, &list, &[], "`nodes[2].id` is 1, as that of nodes[1]");
    list = node_list(1e10);
    list["regions"]["links"] = json!([]);
    fails(2, &list, &[], "no link between x and y");
    list = node_list(1e10);
    fails(2, &list, &["--skips", "1.5"], "--skips has 1.5");
    fails(2, &list, &["--replicas-min", "9"], "lower --replicas-min");
    fails(2, &list, &["--model", "9t"], "9t");
    fails(2, &list, &["--wan", "mars"], "--wan mars");
    fails(2, &list, &["--evaluate", "x"], "--evaluate");
    list["regions"] = Value::Null;
    fails(2, &list, &[], "--wan TABLE");
}

#[test]
fn the_instance_in_the_docs_can_be_planned_for() {
    let text = include_str!("../../../docs/instances.md");
    let written = text.split_once("```json\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "small.json", &serde_json::from_str(written).unwrap());
    let output = skipstone(&["plan", &file, "--work", "2000", "--seed", "1", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["microbatches"].as_array().unwrap().len(), 6);
}
