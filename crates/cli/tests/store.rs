//! Checkpoints in a store: real processes, SIGKILL, and the run's folder lost.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "object-store")]
#[path = "../../store/tests/stores/s3_server.rs"]
mod s3_server;

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const OPTIONS: &str = "story_bytes = 200000\ntokenizer = \"bytes\"\nlayers = 2\nwidth = 32\nheads = 2\nstages = 2\n\
                       context = 32\nbatch = 2\nmicrobatches = 4\nsteps = 60\ndeterministic = true\n\
                       recovery = \"checkpoint:every=5\"\n";

fn skipstone(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    command
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = skipstone(dir, &["train", "--json"]);
    command.args(arguments);
    command
}

fn trained(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn refused(mut command: Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    told
}

fn events(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("events.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn wait_for(out: &Path, event: &str, count: usize) {
    let start = Instant::now();
    while events(out).iter().filter(|record| record["event"] == event).count() < count {
        assert!(start.elapsed() < Duration::from_secs(120), "no {event} came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill(process: u64) {
    assert!(Command::new("kill").args(["-9", &process.to_string()]).status().unwrap().success());
}

/// The states at the end: every bit of the model and its moments.
fn states(out: &Path) -> Value {
    let text = fs::read_to_string(out.join("state").join("state.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let stages = manifest["stages"].as_array().unwrap().iter();
    Value::from(stages.map(|stage| stage["state"].clone()).collect::<Vec<_>>())
}

#[test]
fn a_run_goes_on_from_a_folder_elsewhere_when_its_own_is_lost() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    fs::write(dir.join("run.toml"), OPTIONS).unwrap();
    trained(command(dir, &["run.toml", "--out", "calm"]));
    let url = format!("file://{}", dir.join("elsewhere").display());
    let mut parent = command(dir, &["run.toml", "--out", "run", "--checkpoint-to", &url])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let run = dir.join("run");
    wait_for(&run, "state_stored", 2);
    // A node dies, and the run goes back to its checkpoint.
    let node = events(&run).into_iter().find(|record| record["event"] == "node_joined").unwrap();
    kill(node["process"].as_u64().unwrap());
    wait_for(&run, "rolled_back", 1);
    let stored = events(&run).iter().filter(|record| record["event"] == "state_stored").count();
    wait_for(&run, "state_stored", stored + 1);
    // The machine dies, and its disk.
    kill(parent.id().into());
    parent.wait().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    fs::remove_dir_all(&run).unwrap();

    let other = refused(command(dir, &["run.toml", "--out", "third", "--checkpoint-to", &url]));
    assert!(other.contains("another one") && other.contains("--resume"), "{other}");
    assert!(!dir.join("third").exists(), "nothing is left of a run that never was");

    trained(command(dir, &["--resume", "--out", "second", "--checkpoint-to", &url]));
    assert_eq!(states(&dir.join("second")), states(&dir.join("calm")), "the same bits as without all that");
    // The ledger counts from there on; what was before can't be computed again.
    let audit = String::from_utf8(trained(skipstone(dir, &["audit", "second"])).stdout).unwrap();
    assert!(audit.starts_with("sound") && audit.contains("the journal begins there"), "{audit}");
    assert!(refused(skipstone(dir, &["replay", "second"])).contains("nothing to replay"));
    let manifest: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("elsewhere").join("checkpoint.json")).unwrap())
            .unwrap();
    assert_eq!(manifest["iteration"], 60, "the last state is there when the run is over");
    let parts = fs::read_dir(dir.join("elsewhere").join("parts")).unwrap().count();
    assert_eq!(parts, manifest["files"].as_array().unwrap().len(), "what no checkpoint names is deleted");

    // The state alone is lost: the options in the folder know where it is.
    fs::remove_dir_all(dir.join("second").join("state")).unwrap();
    trained(command(dir, &["--resume", "--out", "second", "--steps", "62"]));
    let mut foreign = command(dir, &["--resume", "--out", "calm", "--checkpoint-to", &url]);
    foreign.stderr(Stdio::piped());
    assert!(refused(foreign).contains("another one"));
}

#[test]
fn a_folder_that_is_behind_the_store_does_not_replace_what_is_newer_there() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    fs::write(dir.join("run.toml"), OPTIONS).unwrap();
    let stored = || {
        let text = fs::read_to_string(dir.join("elsewhere").join("checkpoint.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let with_store = |arguments: &[&str]| {
        let mut command = command(dir, arguments);
        command.args(["--checkpoint-to", "elsewhere"]);
        command
    };
    trained(with_store(&["run.toml", "--out", "old", "--steps", "20"]));
    // Another machine goes on.
    trained(with_store(&["--resume", "--out", "other", "--steps", "40"]));
    let newer = stored();
    assert_eq!(newer["iteration"], 40);

    let told = refused(with_store(&["--resume", "--out", "old", "--steps", "60"]));
    for word in
        ["after 40 iterations", "old that after 20", "empty --out", "old/state", "another --checkpoint-to"]
    {
        assert!(told.contains(word), "{word}: {told}");
    }
    // The store that its own options name is the same one.
    assert!(refused(command(dir, &["--resume", "--out", "old"])).contains("after 40 iterations"));
    assert_eq!(stored(), newer);

    // What the message says helps.
    trained({
        let mut command = command(dir, &["--resume", "--out", "old", "--steps", "25"]);
        command.args(["--checkpoint-to", "second"]);
        command
    });
    assert_eq!(stored(), newer);
    fs::remove_dir_all(dir.join("old").join("state")).unwrap();
    trained(with_store(&["--resume", "--out", "old", "--steps", "45"]));
    assert_eq!(stored()["iteration"], 45);
    // The ledger here begins with what the other machine has made; what was before is there.
    let audit = String::from_utf8(trained(skipstone(dir, &["audit", "old"])).stdout).unwrap();
    assert!(audit.starts_with("sound: 5 iterations") && audit.contains("begins there"), "{audit}");
    assert!(refused(skipstone(dir, &["replay", "old"])).contains("nothing to replay"));
    trained(with_store(&["--resume", "--out", "empty", "--steps", "50"]));
    assert_eq!(stored()["iteration"], 50);
}

#[test]
fn what_cannot_be_a_store_is_refused_at_the_start() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    fs::write(dir.join("run.toml"), OPTIONS).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    for (url, why) in [
        ("ftp://host/x", "ftp:// is no store"),
        ("s3://", "bucket is missing"),
        ("s3://key:secret@bucket/x", "environment"),
        ("file", "check the path"),
        ("run/backup", "run's own folder"),
    ] {
        let told = refused(command(dir, &["run.toml", "--out", "run", "--checkpoint-to", url]));
        assert!(told.contains(why) && told.contains("--checkpoint-to"), "{url}: {told}");
        assert!(!dir.join("run").join("run.toml").exists(), "{url}");
    }
    let told = refused(command(dir, &["--resume", "--out", "run", "--checkpoint-to", "empty"]));
    assert!(told.contains("holds no checkpoint"), "{told}");
    if cfg!(not(feature = "object-store")) {
        let told = refused(command(dir, &["run.toml", "--out", "run", "--checkpoint-to", "s3://bucket/x"]));
        assert!(told.contains("--features object-store"), "{told}");
    }
}

#[cfg(feature = "object-store")]
#[test]
fn a_run_goes_on_from_an_object_store_and_damage_there_is_told() {
    let server = s3_server::S3Server::start();
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    fs::write(dir.join("run.toml"), OPTIONS).unwrap();
    let with_store = |arguments: &[&str]| {
        let mut command = command(dir, arguments);
        command.args(["--checkpoint-to", "s3://bucket/runs/1"]).envs(server.environment());
        command
    };
    let told = refused({
        let mut command = with_store(&["run.toml", "--out", "run"]);
        command.env("AWS_ACCESS_KEY_ID", "somebody");
        command
    });
    assert!(told.contains("s3://bucket/runs/1") && told.contains("AWS_ACCESS_KEY_ID"), "{told}");
    let mut parent = with_store(&["run.toml", "--out", "run", "--steps", "40"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&dir.join("run"), "state_stored", 1);
    // The store is busy now and then.
    server.refuse(2);
    wait_for(&dir.join("run"), "state_stored", 2);
    kill(parent.id().into());
    parent.wait().unwrap();

    let manifest: Value =
        serde_json::from_slice(&server.object("bucket/runs/1/checkpoint.json").unwrap()).unwrap();
    let files = manifest["files"].as_array().unwrap();
    let state = files.iter().find(|file| file["name"].as_str().unwrap().contains("stage-1")).unwrap();
    let object = format!("bucket/runs/1/parts/{}", state["hash"].as_str().unwrap());
    server.damage(&object);
    let told = refused(with_store(&["--resume", "--out", "second"]));
    assert!(told.contains("other bytes") && told.contains("s3://bucket/runs/1"), "{told}");
    assert!(!dir.join("second").join("run.toml").exists(), "a run that lacks a state is no run");
    server.damage(&object);
    trained(with_store(&["--resume", "--out", "second"]));
    let stored = server.object("bucket/runs/1/checkpoint.json").unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&stored).unwrap()["iteration"], 40);
}
