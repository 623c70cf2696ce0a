//! Who serves what in a live run over a table of regions, and what a planner's instance takes the nodes that train.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

fn json(dir: &Path, arguments: &[&str]) -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_skipstone")).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Six nodes in three regions. Given stages as they come, each stage would be in a region of its own.
const REGIONS: [&str; 3] = ["x", "y", "z"];

fn prepare(dir: &Path) {
    let pairs = [("x", "y"), ("x", "z"), ("y", "z")]
        .map(|(a, b)| format!(r#"{{"a": "{a}", "b": "{b}", "latency_s": 0.01, "bandwidth_Bps": 1e7}}"#));
    let table = format!(
        r#"{{"regions": {{"intra": {{"latency_s": 0.001, "bandwidth_Bps": 1e8}}, "links": [{}]}}}}"#,
        pairs.join(", ")
    );
    fs::write(dir.join("wan.json"), table).unwrap();
    let text = "story_bytes = 200000\ntokenizer = \"bytes\"\nlayers = 2\nwidth = 32\nheads = 2\nstages = 2\nreplicas = 2\n\
         context = 16\nbatch = 2\nmicrobatches = 4\nsteps = 3\nthreads = 1\nout = \"run\"\nwan = \"wan.json\"\n\
         domain_price = 100\npace = 0.01\n";
    fs::write(dir.join("run.toml"), text).unwrap();
}

#[test]
fn nodes_are_placed_by_links_and_failures_and_the_folder_tells_where_and_why() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let told = json(dir.path(), &["train", "run.toml", "--json"]);
    assert_eq!(told["steps"], 3);
    let log = fs::read_to_string(dir.path().join("run/events.jsonl")).unwrap();
    let events: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).cloned().collect::<Vec<_>>();
    let placed = of("placed");
    let [placed] = placed.as_slice() else { panic!("{placed:?}") };
    assert_eq!((&placed["by"], &placed["lost_with_a_region"]), (&"search".into(), &0.into()));
    assert!(placed["expected_ms"].as_u64().is_some_and(|ms| ms > 60), "{placed}");
    assert_eq!(placed["domain_price_ms"], 100_000);
    // Nodes take the regions in turn, in the order of their ids.
    let region = |node: u64| REGIONS[(node as usize - 1) % 3];
    let mut stages: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for place in placed["places"].as_array().unwrap() {
        let (node, stage) = (place[0].as_u64().unwrap(), place[1].as_u64().unwrap());
        stages.entry(stage).or_default().insert(region(node));
        assert!(of("node_assigned").iter().any(|event| event["node"] == node && event["stage"] == stage));
    }
    assert!(stages.len() == 3 && stages.values().all(|regions| regions.len() == 2), "{stages:?}");
    let plan: Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join("run/plan.json")).unwrap()).unwrap();
    assert_eq!(
        (&plan["placement"]["lost_with_a_region"], &plan["placement"]["domain_price_s"]),
        (&0.into(), &100.0.into())
    );
    let ids = plan["node_ids"].as_array().unwrap();
    for (id, told) in ids.iter().zip(plan["node_regions"].as_array().unwrap()) {
        assert_eq!(told, region(id.as_u64().unwrap()));
    }
    // The folder has all that a simulation needs, whatever becomes of the table.
    fs::remove_file(dir.path().join("wan.json")).unwrap();
    let simulated = json(dir.path(), &["simulate", "run/run.toml", "--json"]);
    assert!(
        simulated["iteration"]["expected_s"].as_f64().is_some_and(|seconds| seconds > 0.06),
        "{simulated}"
    );
    // The coordinator's decisions follow again from what it was told.
    let replayed = Command::new(env!("CARGO_BIN_EXE_skipstone"))
        .args(["replay", "run"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
}

#[test]
fn a_plan_that_is_given_is_carried_out() {
    let dir = tempfile::tempdir().unwrap();
    let nodes: Vec<String> = (0..7)
        .map(|id| {
            let region = ["x", "y"][id % 2];
            format!(
                r#"{{"id": {id}, "region": "{region}", "compute_s_per_layer_sample": 0.002, "memory": 3}}"#
            )
        })
        .collect();
    fs::write(dir.path().join("small.json"), INSTANCE.replace("NODES", &nodes.join(", "))).unwrap();
    json(
        dir.path(),
        &["plan", "small.json", "--as-trained", "--work", "500", "--out", "plan.json", "--json"],
    );
    let flags = [
        "train",
        "--wan",
        "small.json",
        "--plan",
        "plan.json",
        "--pace=0",
        "--tokenizer",
        "bytes",
        "--story-bytes",
        "200000",
        "--layers",
        "8",
        "--origin-layers",
        "2",
        "--stages",
        "3",
        "--skip",
        "0.25",
        "--width",
        "32",
        "--heads",
        "2",
        "--context",
        "16",
        "--batch",
        "4",
        "--threads",
        "1",
        "--slots",
        "3",
        "--steps",
        "3",
        "--out",
        "run",
        "--json",
    ];
    // As it stands it is not the run's plan.
    for (more, why) in [
        (["--replicas", "2"], "pass --stages 3 --stage-sizes 2,1,2,2"),
        (["--stage-sizes", "2,1,2,2"], "pass --microbatches"),
    ] {
        let microbatches = if why.contains("microbatches") { "7" } else { "8" };
        let refused = Command::new(env!("CARGO_BIN_EXE_skipstone"))
            .args(flags)
            .args(more)
            .args(["--microbatches", microbatches])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && told.contains(why), "{told}");
    }
    let fits = ["--stage-sizes", "2,1,2,2", "--microbatches", "8"];
    let told = json(dir.path(), &[flags.as_slice(), &fits].concat());
    assert_eq!((&told["steps"], &told["nodes"]), (&3.into(), &7.into()));
    let read = |name: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(dir.path().join(name)).unwrap()).unwrap()
    };
    let (given, done) = (read("plan.json"), read("run/plan.json"));
    // Node n of the plan has the n-th id of the run.
    let ids: Vec<u64> = done["node_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let paths = |plan: &Value, id: &dyn Fn(u64) -> u64| -> Vec<Vec<u64>> {
        let microbatches = plan["microbatches"].as_array().unwrap().iter();
        let nodes = microbatches.map(|microbatch| microbatch["path"].as_array().unwrap().clone());
        nodes.map(|path| path.iter().map(|node| id(node.as_u64().unwrap())).collect()).collect()
    };
    assert_eq!(paths(&done, &|place| ids[place as usize]), paths(&given, &|node| node + 1));
    let log = fs::read_to_string(dir.path().join("run/events.jsonl")).unwrap();
    let placed = log.lines().find(|line| line.contains(r#""event":"placed""#)).unwrap();
    assert!(placed.contains(r#""by":"plan""#), "{placed}");
    // The folder has all that a simulation needs; in virtual time the same plan is carried out.
    fs::remove_file(dir.path().join("plan.json")).unwrap();
    fs::remove_file(dir.path().join("small.json")).unwrap();
    let simulated = json(dir.path(), &["simulate", "run/run.toml", "--json"]);
    assert_eq!(simulated["steps"], 3, "{simulated}");
}

/// Four stages of unlike sizes in two regions, nodes of unlike speeds.
const INSTANCE: &str = r#"{"schema": "skippipe-instance-1", "name": "small", "n_stages": 4, "stage_sizes": [2, 1, 2, 2],
    "layers_per_stage": 2, "path_len": 3, "skip_ratio": 0.25, "samples_per_mb": 4, "activation_bytes_per_sample": 250000,
    "param_bytes_per_stage": 1000000, "backward_ratio": 2.0, "loss_ratio": 0.25, "link_overhead_s": 0.0, "task_gap_s": 0.0,
    "link_serial": false, "microbatches_per_origin": 4, "total_microbatches": 8, "stage_visits_max": 8,
    "swap": {"max_distance": 0, "max_count": 0, "max_total_distance": 0}, "max_jump": 4,
    "regions": {"intra": {"latency_s": 0.001, "bandwidth_Bps": 1e8},
        "links": [{"a": "x", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 1e7}]},
    "nodes": [NODES]}"#;

#[test]
fn an_instances_plan_takes_the_state_machines_what_the_planner_says() {
    let dir = tempfile::tempdir().unwrap();
    let nodes: Vec<String> = (0..7)
        .map(|id| {
            let (region, speed) = (["x", "y"][id % 2], 0.05 + 0.01 * id as f64);
            format!(
                r#"{{"id": {id}, "region": "{region}", "compute_s_per_layer_sample": {speed}, "memory": 3}}"#
            )
        })
        .collect();
    fs::write(dir.path().join("small.json"), INSTANCE.replace("NODES", &nodes.join(", "))).unwrap();
    for seed in ["1", "2"] {
        let arguments =
            ["plan", "small.json", "--work", "3000", "--seed", seed, "--out", "plan.json", "--json"];
        json(dir.path(), &arguments);
        let told = json(dir.path(), &["simulate", "small.json", "--plan", "plan.json", "--json"]);
        let seconds = |key: &str| told[key].as_f64().unwrap();
        let ratio = seconds("makespan_s") / seconds("planned_makespan_s");
        assert!((0.9..1.1).contains(&ratio), "{told}");
        assert!(seconds("written_makespan_s") > 0.0 && told["steps"] == 3);
        assert_eq!(told["nodes"], 7);
    }
    // A plan of another instance is refused with what does not fit.
    let plan = fs::read_to_string(dir.path().join("plan.json")).unwrap();
    fs::write(dir.path().join("bad.json"), plan.replace("\"stages\":[[", "\"stages\":[[99,")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_skipstone"))
        .args(["simulate", "small.json", "--plan", "bad.json"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("bad.json"));
}
