//! `skipstone lab`, with the real binary.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Three relay stages of a tiny model; every number of it matters to the bits that come out.
const RUN: &str = "\
tokenizer = 'bytes'
story_bytes = 20000
layers = 3
width = 16
heads = 2
context = 16
batch = 2
microbatches = 3
stages = 3
skip = 0.33
steps = 30
lr = 0.005
seed = 7
";

fn skipstone(dir: &Path, arguments: &[&str]) -> Output {
    let output =
        Command::new(env!("CARGO_BIN_EXE_skipstone")).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// An experiment over that run.
fn experiment(dir: &Path, head: &str) {
    let text = format!("name = 'test'\nseeds = [7]\neval_tokens = 512\n{head}\n[run]\npace = 0.5\n{RUN}");
    fs::write(dir.join("experiment.toml"), text).unwrap();
}

fn lab(dir: &Path, more: &[&str]) -> Value {
    let arguments = [&["lab", "experiment.toml", "--out", "lab", "--json"], more].concat();
    serde_json::from_slice(&skipstone(dir, &arguments).stdout).unwrap()
}

/// Losses of a run in the lab and live, with `more` in place of its share of stages skipped.
fn in_lab_and_live(more: &str) -> (Vec<f64>, Vec<f64>) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let run = RUN.replace("skip = 0.33", more);
    let text = format!(
        "name = 'test'\nseeds = [7]\neval_tokens = 512\nstrategies = ['copy']\nloss_rates = [0.0]\neval_every = 1\n[run]\npace = 0.5\n{run}"
    );
    fs::write(dir.join("experiment.toml"), text).unwrap();
    let document = lab(dir, &[]);
    let points = document["results"][0]["points"].as_array().unwrap();
    let in_lab: Vec<f64> = points.iter().filter_map(|point| point["training_loss"].as_f64()).collect();
    let run: Vec<String> = run
        .lines()
        .map(|line| line.replace([' ', '\''], ""))
        .map(|line| format!("--{}", line.replace('_', "-")))
        .collect();
    let run: Vec<&str> = run.iter().map(String::as_str).collect();
    skipstone(dir, &[&["train", "--plain", "--deterministic", "--out", "live"], run.as_slice()].concat());
    let log = fs::read_to_string(dir.join("live/events.jsonl")).unwrap();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let live: Vec<f64> = events
        .filter(|event| event["event"] == "committed")
        .map(|event| event["loss"].as_f64().unwrap())
        .collect();
    (in_lab, live)
}

#[test]
fn the_lab_trains_to_the_same_bits_as_a_live_swarm() {
    let (in_lab, live) = in_lab_and_live("skip = 0.33");
    assert_eq!((in_lab.len(), &in_lab), (30, &live));
    let swapped = in_lab_and_live("edge_swaps = 'odd'");
    assert_eq!((swapped.0.len(), &swapped.0), (30, &swapped.1));
    assert!(swapped.0 != in_lab_and_live("skip = 0").0, "swaps change what is learned");
}

#[test]
fn a_lab_writes_a_table_a_page_and_pictures_and_does_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    experiment(dir, "strategies = ['copy:moments=mix', 'checkfree']\nloss_rates = [0.05]\neval_every = 10");
    let first = lab(dir, &["--threads", "2"]);
    assert_eq!(
        (first["groups"].as_array().unwrap().len(), first["results"].as_array().unwrap().len()),
        (3, 3)
    );
    let table = fs::read_to_string(dir.join("lab/table.md")).unwrap();
    assert!(table.contains("copy:moments=mix") && table.contains("no failures"), "{table}");
    let page = fs::read_to_string(dir.join("lab/report.html")).unwrap();
    assert!(page.matches("<svg").count() == 2 && !page.contains("<script"), "{page}");
    for file in first["files"].as_array().unwrap() {
        assert!(dir.join(file.as_str().unwrap()).exists(), "{file}");
    }
    let results = fs::read(dir.join("lab/results.jsonl")).unwrap();
    assert_eq!(lab(dir, &["--threads", "1"])["results"], first["results"]);
    assert_eq!(fs::read(dir.join("lab/results.jsonl")).unwrap(), results);
}
