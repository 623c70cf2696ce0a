//! What `simulate` tells of a run, against the run itself: real processes on shaped links at a modelled pace.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Seconds of a relay's forward; small, and still longer than what the machine adds.
const FORWARD_S: f64 = 0.08;

/// One way between two neighbours on a path: latency, and 4 kB over the bandwidth.
const WAY_S: f64 = 0.05 + 0.02;

const STEPS: u64 = 6;

fn json(dir: &Path, arguments: &[&str]) -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_skipstone")).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `more` is said of each link.
fn prepare(dir: &Path, more: &str) {
    // Every node in a region of its own: activations of 2 × 16 × 32 floats take 20 ms, gradients of parameters 10 times that.
    let pairs = [("x", "y"), ("x", "z"), ("y", "z")].map(|(a, b)| {
        format!(r#"{{"a": "{a}", "b": "{b}", "latency_s": 0.05, "bandwidth_Bps": 204800{more}}}"#)
    });
    let intra = r#"{"latency_s": 0.001, "bandwidth_Bps": 1e8}"#;
    let table = format!(
        r#"{{"regions": {{"intra": {intra}, "links": [{}]}}, "node_regions": ["x", "y", "z"]}}"#,
        pairs.join(", ")
    );
    fs::write(dir.join("wan.json"), table).unwrap();
    let text = format!(
        "story_bytes = 200000\ntokenizer = \"bytes\"\nlayers = 2\nwidth = 32\nheads = 2\nstages = 2\ncontext = 16\n\
         batch = 2\nmicrobatches = 1\nsteps = {STEPS}\nthreads = 1\nout = \"run\"\npace = {FORWARD_S}\n\
         wan = \"wan.json\"\n"
    );
    fs::write(dir.join("run.toml"), text).unwrap();
}

/// Seconds from commit to commit, in order.
fn iterations(dir: &Path) -> Vec<f64> {
    let text = fs::read_to_string(dir.join("run/events.jsonl")).unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let commits: Vec<f64> = events
        .filter(|record| record["event"] == "committed")
        .map(|record| record["time_ms"].as_f64().unwrap() / 1000.0)
        .collect();
    commits.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn a_live_run_takes_what_was_told_and_never_less_than_its_tasks_and_links() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), "");
    let told = json(dir.path(), &["simulate", "run.toml", "--json"]);
    let live = json(dir.path(), &["train", "run.toml", "--json"]);
    assert_eq!((told["steps"].as_u64(), live["steps"].as_u64()), (Some(STEPS), Some(STEPS)));
    // The only microbatch: two forwards, head and loss (a quarter), two backwards (twice a forward), on a circle of
    // three links there and three back.
    let bound_s = FORWARD_S * (2.0 + 0.25 + 4.0) + 6.0 * WAY_S;
    let measured = iterations(dir.path());
    assert_eq!(measured.len() as u64, STEPS - 1);
    // The log's times are whole milliseconds, and two iterations' ends may be written down late or early.
    let shortest_s = measured.iter().copied().fold(f64::INFINITY, f64::min);
    let mean_s = measured.iter().sum::<f64>() / measured.len() as f64;
    assert!(mean_s > bound_s - 0.01, "{mean_s} s is less than the tasks and links take: {bound_s} s");
    assert!(shortest_s > 0.9 * bound_s, "{measured:?}");
    let told_s = told["iteration"]["mean_s"].as_f64().unwrap();
    assert!((bound_s..1.5 * bound_s).contains(&told_s), "{told_s} s told, at least {bound_s} s");
    // Generous: the machine may be busy with other tests.
    assert!(told_s > mean_s / 4.0 && told_s < 1.1 * mean_s, "{told_s} s told, {mean_s} s live");
    let pace = &live["pace"];
    // A node tells about once a second how it kept its pace.
    assert!(pace["tasks"].as_u64().is_some_and(|tasks| tasks > 0), "{pace}");
    let by_cause = |run: &Value, cause: &str| run["badput"][cause].as_f64().unwrap();
    assert!(by_cause(&live, "link") > 0.0 && by_cause(&told, "link") > 0.0);
    // Told twice, the same.
    assert_eq!(told, json(dir.path(), &["simulate", "run.toml", "--json"]));
}

#[test]
fn a_live_run_waits_for_each_way_of_a_link_and_for_what_is_late() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), r#", "jitter_s": 0.05, "back": {"latency_s": 0.2, "loss": 0.02}"#);
    let told = json(dir.path(), &["simulate", "run.toml", "--json"]);
    json(dir.path(), &["train", "run.toml", "--json"]);
    // Three links there and three back, whichever direction of the ring is there.
    let bound_s = FORWARD_S * (2.0 + 0.25 + 4.0) + 6.0 * WAY_S + 3.0 * 0.15;
    let measured = iterations(dir.path());
    assert!(measured.iter().all(|seconds| *seconds > 0.95 * bound_s), "{measured:?}, at least {bound_s} s");
    let mean_s = measured.iter().sum::<f64>() / measured.len() as f64;
    let told_s = told["iteration"]["mean_s"].as_f64().unwrap();
    // Each draws its own lateness; the machine may be busy with other tests.
    assert!(
        told_s > bound_s && told_s > mean_s / 4.0 && told_s < 1.25 * mean_s,
        "{told_s} s told, {mean_s} s live"
    );
}
