//! Real processes under faults, and their runs computed again.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use skipstone_protocol::{Entry, JOURNAL_HEADER, decode_journal, encode_entry};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn skipstone(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

fn json(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}\n{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_swarm_under_every_fault_keeps_its_promises() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["chaos", "--for", "10s", "--mtbf", "0.5s", "--stages", "2", "--seed", "3", "--json"];
    let report = json(&skipstone(dir.path(), &arguments));
    assert_eq!(report["pass"], true, "{report}");
    assert!(report["kills"].as_u64().unwrap() >= 3, "{report}");
    assert!(report["iterations"].as_u64().unwrap() >= 10, "{report}");
    assert_eq!(report["checks"].as_array().unwrap().len(), 7);
    let why = skipstone(dir.path(), &["show", "skipstone-chaos", "--why", "5"]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("Who did it"), "{why:?}");
}

#[test]
fn faults_that_do_not_exist_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [["chaos", "--faults", "hope"], ["chaos", "--mtbf", "0"], ["chaos", "--for", "-1s"]] {
        assert_eq!(skipstone(dir.path(), &arguments).status.code(), Some(2), "{arguments:?}");
    }
}

/// A run in which relay stages are killed, and rebuilt from their neighbours.
struct Trained {
    dir: TempDir,
}

impl Trained {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = "story_bytes = 200000\ntokenizer = \"bytes\"\nlayers = 2\nwidth = 32\nheads = 2\nstages = 2\n\
                    context = 32\nbatch = 2\nmicrobatches = 4\nsteps = 250\nchurn = \"every 0.4s\"\nout = \"run\"\n";
        fs::write(dir.path().join("run.toml"), text).unwrap();
        let summary = json(&skipstone(dir.path(), &["train", "run.toml", "--json"]));
        assert!(summary["kills"].as_u64().unwrap() > 0, "{summary}");
        Self { dir }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("run/journal/journal.bin")
    }

    /// Changes the journal as someone would who knows its format.
    fn tamper(&self, change: impl FnOnce(&mut Vec<Entry>)) {
        let (mut entries, _) = decode_journal(&fs::read(self.journal()).unwrap()).unwrap();
        change(&mut entries);
        let mut bytes = JOURNAL_HEADER.to_vec();
        entries.iter().for_each(|entry| bytes.extend(encode_entry(entry)));
        fs::write(self.journal(), bytes).unwrap();
    }

    fn replay(&self) -> Output {
        skipstone(self.dir.path(), &["replay", "run", "--json"])
    }
}

#[test]
fn a_run_with_rebuilds_and_a_resumption_comes_out_again_and_a_changed_journal_does_not() {
    let run = Trained::new();
    let report = json(&run.replay());
    assert_eq!((&report["agrees"], &report["saved_state_checked"]), (&true.into(), &true.into()));
    assert_eq!(report["records"], 250);
    let decisions = &report["decisions"];
    assert_eq!(
        (&decisions["terms"], &decisions["entries_without_inputs"]),
        (&1.into(), &0.into()),
        "{report}"
    );
    assert!(report["rebuilds"].as_u64().unwrap() > 0, "{report}");

    let resumed = ["train", "--resume", "--out", "run", "--steps", "280", "--json"];
    assert_eq!(json(&skipstone(run.dir.path(), &resumed))["steps"], 280);
    let again = json(&run.replay());
    assert_eq!((&again["records"], &again["rollbacks"]), (&280.into(), &1.into()));
    let audited = json(&skipstone(run.dir.path(), &["audit", "run", "--json"]));
    assert_eq!(audited["sound"], true, "{audited}");
    let generations: Vec<_> =
        audited["ledger"].as_array().unwrap().iter().map(|line| &line["generation"]).collect();
    assert!(generations.contains(&&Value::from(0)) && generations.contains(&&Value::from(1)), "{audited}");
    let state: Value =
        serde_json::from_slice(&fs::read(run.dir.path().join("run/state/state.json")).unwrap()).unwrap();
    assert_eq!((&state["generation"], &state["iteration"]), (&1.into(), &280.into()));

    run.tamper(|entries| {
        let record = entries.iter_mut().find_map(|entry| match entry {
            Entry::Committed(record) if record.iteration.0 == 7 => Some(record),
            _ => None,
        });
        record.unwrap().stages[1].shares[0].microbatches.swap(0, 1);
    });
    let refused = run.replay();
    assert_eq!(refused.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(report["agrees"], false);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("iteration 7") && !error.contains("panicked"), "{error}");
}

#[test]
fn a_damaged_journal_is_told_from_a_torn_one() {
    let run = Trained::new();
    // A copy may have been kept after the last record.
    run.tamper(|entries| {
        let last = entries.iter().rposition(|entry| matches!(entry, Entry::Committed(_))).unwrap();
        entries.truncate(last + 1);
    });
    let bytes = fs::read(run.journal()).unwrap();
    fs::write(run.journal(), &bytes[..bytes.len() - 7]).unwrap();
    assert_eq!(json(&run.replay())["records"], 249, "the last entry was torn");
    let mut damaged = bytes;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(run.journal(), damaged).unwrap();
    let refused = run.replay();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is damaged"), "{refused:?}");
    let elsewhere = skipstone(run.dir.path(), &["replay", "nowhere"]);
    assert_eq!(elsewhere.status.code(), Some(2));
}

/// What a run tells until a second node begins to lie: two of one stage would say the same.
fn with_one_liar(seed: &str) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let arguments =
        ["chaos", "--for", "6s", "--mtbf", "4s", "--faults", "lie", "--stages", "2", "--replicas", "3"];
    let arguments = arguments.into_iter().chain(["--seed", seed, "--json"]).collect::<Vec<_>>();
    let output = skipstone(dir.path(), &arguments);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Weights that differ where a liar was counted break no promise.
    assert_eq!((output.status.code(), &report["pass"]), (Some(0), &true.into()), "{report}");
    assert!(report["iterations"].as_u64().unwrap() > 5, "{report}");
    let log = fs::read_to_string(dir.path().join("skipstone-chaos/events.jsonl")).unwrap();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let second = events.iter().enumerate().filter(|(_, event)| event["event"] == "injected").nth(1);
    events[..second.map_or(events.len(), |(at, _)| at)].to_vec()
}

#[test]
fn a_node_that_lies_is_found_by_the_replicas_that_check_it() {
    let mut found_any = false;
    for seed in ["3", "1", "2"] {
        let events = with_one_liar(seed);
        let of_kind = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
        // A process that is set aside comes again, under another number.
        let process = |node: &Value| {
            let joined = of_kind("node_joined");
            joined.iter().find(|event| event["node"] == *node).unwrap()["process"].clone()
        };
        let liar = of_kind("injected").first().map(|event| process(&event["node"]));
        let disputed = of_kind("disputed");
        let found: Vec<_> = disputed.into_iter().filter(|event| !event["wrong"].is_null()).collect();
        for event in &found {
            assert_eq!(Some(process(&event["wrong"])), liar, "{event}");
        }
        let lost = of_kind("node_lost").into_iter().filter(|event| event["why"] == "check");
        let lost: Vec<_> = lost.map(|event| event["node"].clone()).collect();
        assert!(lost.iter().all(|node| found.iter().any(|event| event["wrong"] == *node)), "{lost:?}");
        assert!(of_kind("spot_checked").len() > 5);
        found_any |= !lost.is_empty();
        // A second may have begun to lie before the first was found.
        if found_any {
            break;
        }
    }
    assert!(found_any, "nobody was found");
}
