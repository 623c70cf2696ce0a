//! Whole runs with the real binary: processes, sockets, SIGKILL.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A run small enough to take a second on an idle machine.
struct Run {
    dir: TempDir,
}

impl Run {
    fn new(options: &str) -> Self {
        Self::with(&format!("layers = 2\nstages = 2\nsteps = 60\n{options}"))
    }

    /// Layers, stages and steps are among the options.
    fn with(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = "story_bytes = 200000\ntokenizer = \"bytes\"\nwidth = 32\nheads = 2\n\
                    context = 32\nbatch = 2\nmicrobatches = 4\nout = \"run\"\n";
        fs::write(dir.path().join("run.toml"), format!("{text}{options}")).unwrap();
        Self { dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn train(&self, arguments: &[&str]) -> Output {
        self.command(&["train", "run.toml", "--json"]).args(arguments).output().unwrap()
    }

    fn start(&self, steps: u64) -> Child {
        self.start_with(&["--steps", &steps.to_string()])
    }

    fn start_with(&self, arguments: &[&str]) -> Child {
        self.command(&["train", "run.toml", "--json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.out().join("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn count(&self, event: &str) -> usize {
        self.events().iter().filter(|record| record["event"] == event).count()
    }

    /// Waits until so many events of a kind are in the log.
    fn wait_for(&self, event: &str, count: usize) {
        let start = Instant::now();
        while self.count(event) < count {
            assert!(start.elapsed() < Duration::from_secs(120), "no {event} came");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Process of the first node that entered the stage.
    fn process_of_stage(&self, stage: u64) -> u32 {
        let events = self.events();
        let entered = |record: &&Value| record["event"] == "node_entered" && record["stage"] == stage;
        let node = &events.iter().find(entered).unwrap()["node"];
        let joined = |record: &&Value| record["event"] == "node_joined" && record["node"] == *node;
        events.iter().find(joined).unwrap()["process"].as_u64().unwrap() as u32
    }

    /// What `replay` says of the run, which it must agree with.
    fn replayed(&self) -> Value {
        let replay = self.command(&["replay", "run", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&replay.stdout).unwrap();
        assert_eq!((replay.status.code(), &report["agrees"]), (Some(0), &true.into()), "{report}");
        report
    }

    /// The ledger is whole.
    fn assert_sound(&self) {
        let audit = self.command(&["audit", "run", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&audit.stdout).unwrap();
        assert_eq!((audit.status.code(), &report["sound"]), (Some(0), &Value::Bool(true)), "{report}");
    }
}

/// The summary of a run that ended well.
fn summary(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Process ids of a process's children whose command line holds `word`.
fn children(parent: u32, word: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if fields.first() != Some(&"Z")
            && fields.get(1) == Some(&parent.to_string().as_str())
            && line.contains(word)
        {
            found.push(process);
        }
    }
    found
}

fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap();
    assert!(sent.success());
}

fn state_files(out: &Path, iteration: u64) -> usize {
    fs::read_dir(out.join("state").join(iteration.to_string())).unwrap().count()
}

#[test]
fn a_run_ends_with_a_model_a_state_and_a_whole_ledger() {
    let run = Run::new("");
    let summary = summary(&run.train(&[]));
    assert_eq!(summary["steps"], 60);
    assert_eq!(summary["tokens"], 60 * 4 * 2 * 32);
    assert_eq!(summary["kills"], 0);
    assert!(summary["val_loss"].as_f64().unwrap() < 5.0, "{summary}");
    assert!(run.out().join("model/model.safetensors").is_file());
    assert_eq!(state_files(&run.out(), 60), 3);
    run.assert_sound();
    let again = run.train(&[]);
    assert_eq!(again.status.code(), Some(2), "a folder that holds a run is refused");
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
}

#[test]
fn killed_relays_are_rebuilt_and_the_run_goes_on() {
    let run = Run::new("churn = \"every 0.7s\"\n");
    let summary = summary(&run.train(&["--steps", "400"]));
    assert_eq!(summary["steps"], 400);
    assert!(summary["kills"].as_u64().unwrap() > 0, "{summary}");
    assert!(run.count("stage_rebuilt") > 0);
    run.assert_sound();
}

#[test]
fn a_place_stays_empty_until_the_spot_market_has_a_machine_for_it() {
    let run = Run::new("");
    let trace = run.out().with_extension("csv");
    let nodes = "0,add,m1\n0,add,m2\n0,add,m3\n".to_owned();
    fs::write(&trace, nodes + "60000,remove,m2\n300000,add,m4\n").unwrap();
    let trace = trace.display().to_string();
    let churn = ["--churn", &trace, "--churn-speed", "60", "--steps", "100000"];
    let child = run.start_with(&churn);
    run.wait_for("respawned", 1);
    signal(child.id(), "INT");
    let summary = summary(&child.wait_with_output().unwrap());
    assert_eq!(summary["kills"], 1);
    let at_ms = |event: &str| {
        run.events().iter().find(|record| record["event"] == event).unwrap()["time_ms"].as_u64().unwrap()
    };
    let away_ms = at_ms("respawned") - at_ms("killed");
    assert!((3500..).contains(&away_ms), "four minutes are four seconds: {away_ms} ms");
    run.assert_sound();
}

#[test]
fn checkfree_plus_makes_a_killed_first_stage_from_its_swap_partner_and_replays() {
    let run = Run::new("recovery = \"checkfree+\"\n");
    let child = run.start_with(&["--steps", "200", "--stages", "4", "--layers", "4"]);
    run.wait_for("committed", 5);
    signal(run.process_of_stage(1), "KILL");
    run.wait_for("stage_rebuilt", 1);
    let rebuilt = run.events().into_iter().find(|record| record["event"] == "stage_rebuilt").unwrap();
    let what = (&rebuilt["stage"], &rebuilt["kind"], &rebuilt["sources"]);
    assert_eq!(what, (&1.into(), &"checkfree+".into(), &serde_json::json!([2])));
    let summary = summary(&child.wait_with_output().unwrap());
    assert_eq!(summary["steps"], 200);
    run.assert_sound();
    let plan: Value = serde_json::from_slice(&fs::read(run.out().join("plan.json")).unwrap()).unwrap();
    let stage_of = |node: &Value| {
        let stages = plan["stages"].as_array().unwrap();
        stages.iter().position(|nodes| nodes.as_array().unwrap().contains(node)).unwrap()
    };
    let paths: Vec<Vec<usize>> = plan["microbatches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|microbatch| microbatch["path"].as_array().unwrap().iter().map(stage_of).collect())
        .collect();
    let (up, swapped) = (vec![0, 1, 2, 3, 4], vec![0, 2, 1, 4, 3]);
    assert_eq!(paths, [up.clone(), swapped.clone(), up, swapped]);
    let report = run.replayed();
    assert!(report["rebuilds"].as_u64().unwrap() >= 1 && report["saved_state_checked"] == true, "{report}");
    what_is_damaged_afterwards_is_told(&run);
}

/// Files of `state/`, and the journal's end, are compared with what the journal says.
fn what_is_damaged_afterwards_is_told(run: &Run) {
    let says = |arguments: &[&str]| {
        let output = run.command(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code(), text)
    };
    let saved: Value =
        serde_json::from_slice(&fs::read(run.out().join("state/state.json")).unwrap()).unwrap();
    let folder = run.out().join("state").join(saved["iteration"].to_string());
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&file).unwrap();
    let mut spoiled = whole.clone();
    *spoiled.last_mut().unwrap() ^= 1;
    for spoiled in [&spoiled[..], &whole[..100]] {
        fs::write(&file, spoiled).unwrap();
        let (code, text) = says(&["replay", "run"]);
        assert!(code == Some(1) && text.contains("replayed to the same bits, but"), "{text}");
        assert!(text.contains(file.file_name().unwrap().to_str().unwrap()), "{text}");
        let json = run.command(&["replay", "run", "--json"]).output().unwrap().stdout;
        let report: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (&report["agrees"], &report["iteration"]),
            (&false.into(), &saved["iteration"]),
            "{report}"
        );
    }
    fs::write(&file, whole).unwrap();
    let journal = run.out().join("journal/journal.bin");
    let whole = fs::read(&journal).unwrap();
    fs::write(&journal, &whole[..whole.len() / 2]).unwrap();
    let (code, text) = says(&["audit", "run"]);
    assert!(code == Some(1) && text.contains("its end is cut off"), "{text}");
    fs::write(&journal, whole).unwrap();
    assert_eq!(says(&["audit", "run"]).0, Some(0));
}

#[test]
fn rounded_tensors_repair_and_replay_to_the_same_bits() {
    for wire in ["bf16", "int8"] {
        let run = Run::new(&format!("wire = \"{wire}\"\nreduce = \"{wire}\"\nreplicas = 2\n"));
        let child = run.start(150);
        run.wait_for("committed", 5);
        signal(run.process_of_stage(1), "KILL");
        run.wait_for("node_lost", 1);
        assert_eq!(summary(&child.wait_with_output().unwrap())["steps"], 150, "{wire}");
        run.assert_sound();
        run.replayed();
        let resumed = run.train(&["--resume", "--out", "run", "--wire", "f32"]);
        assert_eq!(resumed.status.code(), Some(2), "{wire}");
        assert!(String::from_utf8_lossy(&resumed.stderr).contains("--wire"), "{wire}");
        // A replay takes all steps alike.
        for (flag, value, told) in [
            ("--weight-decay", "0.1", "--weight-decay"),
            ("--recovery", "checkfree:rate_decay=20", "rate_decay of --recovery"),
        ] {
            let resumed = run.train(&["--resume", "--out", "run", "--steps", "160", flag, value]);
            assert_eq!(resumed.status.code(), Some(2), "{flag}");
            assert!(String::from_utf8_lossy(&resumed.stderr).contains(told), "{flag}");
        }
    }
}

#[test]
fn a_stage_that_was_not_saved_is_made_again_by_whoever_resumes() {
    let run = Run::new("recovery = \"checkfree\"\nrespawn = false\n");
    let child = run.start(60);
    run.wait_for("committed", 5);
    signal(run.process_of_stage(1), "KILL");
    assert_eq!(summary(&child.wait_with_output().unwrap())["steps"], 60);
    let saved: Value =
        serde_json::from_slice(&fs::read(run.out().join("state/state.json")).unwrap()).unwrap();
    assert_eq!(saved["stages"].as_array().unwrap().len(), 2, "stage 1 had no node");
    let mut child = run.start_with(&["--resume", "--steps", "100000"]);
    run.wait_for("stage_rebuilt", 1);
    run.wait_for("committed", run.count("committed") + 10);
    signal(child.id(), "KILL");
    child.wait().unwrap();
    // Stage 1 is again what it was when the state was saved: of its first lineage, and lost.
    summary(&run.train(&["--resume", "--steps", "80"]));
    assert_eq!(run.count("stage_rebuilt"), 2);
    run.assert_sound();
    run.replayed();
}

#[test]
fn the_only_origin_comes_back_from_its_copy_without_any_option() {
    // So many are 4 % of the bytes of a run of this shape.
    origin_comes_back("", "neighbour-snapshot:every=21,dtype=int8");
}

#[test]
fn the_only_origin_comes_back_from_copies_in_other_numbers() {
    for recovery in ["neighbour-snapshot:every=5,dtype=bf16", "neighbour-snapshot:every=5,dtype=f32"] {
        origin_comes_back(&format!("recovery = \"{recovery}\"\n"), recovery);
    }
}

/// The only origin is killed once a copy of it is kept; the run goes on with it, and comes out again bit for bit.
fn origin_comes_back(options: &str, recovery: &str) {
    let run = Run::new(options);
    let child = run.start(400);
    let is_copied = |record: &Value| record["event"] == "copy_kept" && record["stage"] == 0;
    let start = Instant::now();
    while !run.events().iter().any(is_copied) {
        assert!(start.elapsed() < Duration::from_secs(120), "nobody keeps a copy of the origin");
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(run.process_of_stage(0), "KILL");
    run.wait_for("stage_rebuilt", 1);
    let summary = summary(&child.wait_with_output().unwrap());
    assert_eq!(summary["steps"], 400);
    assert_eq!(summary["recovery"], recovery);
    let rebuilt = run.events().into_iter().find(|record| record["event"] == "stage_rebuilt").unwrap();
    let what = (&rebuilt["stage"], &rebuilt["kind"], &rebuilt["sources"]);
    assert_eq!(what, (&0.into(), &"neighbour-snapshot".into(), &serde_json::json!([0])));
    run.assert_sound();
    let report = run.replayed();
    assert!(report["rebuilds"].as_u64().unwrap() >= 1, "{report}");
}

#[test]
fn killed_replicas_cost_nothing_but_time() {
    let run = Run::new("replicas = 2\n");
    let child = run.start(400);
    run.wait_for("committed", 5);
    for stage in 0..3 {
        let entered = run.count("node_entered");
        signal(run.process_of_stage(stage), "KILL");
        run.wait_for("node_entered", entered + 1);
    }
    let summary = summary(&child.wait_with_output().unwrap());
    assert_eq!(summary["steps"], 400);
    assert_eq!(run.count("attempt_aborted") + run.count("stage_lost"), 0);
    assert_eq!(run.count("node_lost"), 3);
    run.assert_sound();
}

#[test]
fn a_deterministic_run_gives_the_same_bits_again() {
    let options = "deterministic = true\nreplicas = 2\nskip = 0.5\n";
    let records = || {
        let run = Run::new(options);
        summary(&run.train(&[]));
        let committed = |record: &&Value| record["event"] == "committed";
        let losses: Vec<Value> =
            run.events().iter().filter(committed).map(|record| record["loss"].clone()).collect();
        (losses, fs::read(run.out().join("model/model.safetensors")).unwrap())
    };
    let (losses, model) = records();
    assert_eq!(losses.len(), 60);
    assert!((losses, model) == records(), "the bits differ");
}

#[test]
fn a_run_whose_stages_are_killed_is_the_run_without_kills_bit_for_bit() {
    let options = "recovery = \"neighbour-snapshot:every=4,retrace=8\"\nwhile_lost = \"wait\"\ndeterministic = true\n\
                   stages = 3\nlayers = 3\nsteps = 40\n";
    let (calm, killed) = (Run::with(options), Run::with(options));
    summary(&calm.train(&[]));
    // Long enough apart for each stage to be back, and one before there is any copy of its new node's.
    let kills: String = [(9, 2), (15, 1), (17, 1), (24, 3), (33, 2)]
        .map(|(iteration, stage)| {
            format!("{{\"iteration\": {iteration}, \"stage\": {stage}, \"event\": \"kill\"}}\n")
        })
        .concat();
    let trace = killed.out().with_extension("jsonl");
    fs::write(&trace, kills).unwrap();
    let summary = summary(&killed.train(&["--churn", &trace.display().to_string()]));
    assert_eq!(summary["kills"], 5);
    assert!(killed.count("stage_rebuilt") >= 5);
    let losses = |run: &Run| -> Vec<(u64, u64)> {
        let committed = run.events().into_iter().filter(|record| record["event"] == "committed");
        committed
            .map(|record| (record["iteration"].as_u64().unwrap(), record["loss"].as_f64().unwrap().to_bits()))
            .collect()
    };
    assert_eq!(losses(&killed).len(), 40);
    assert_eq!(losses(&killed), losses(&calm));
    killed.assert_sound();
}

#[test]
fn a_killed_coordinator_comes_back_on_its_journal() {
    let run = Run::new("");
    let child = run.start(400);
    for kills in 1..=2 {
        run.wait_for("committed", 20 * kills);
        let coordinators = children(child.id(), "internal-coordinator");
        assert_eq!(coordinators.len(), 1);
        signal(coordinators[0], "KILL");
        run.wait_for("coordinator_started", kills + 1);
    }
    let summary = summary(&child.wait_with_output().unwrap());
    assert_eq!(summary["steps"], 400);
    assert_eq!(run.count("stage_lost"), 0, "nodes keep what they hold");
    run.assert_sound();
}

#[test]
fn a_node_that_stands_still_is_lost_and_comes_back_with_what_it_has() {
    let run = Run::new("respawn = false\n");
    let child = run.start(400);
    run.wait_for("committed", 10);
    let process = run.process_of_stage(0);
    signal(process, "STOP");
    run.wait_for("node_lost", 1);
    signal(process, "CONT");
    let output = child.wait_with_output().unwrap();
    let summary = summary(&output);
    assert_eq!(summary["steps"], 400);
    let kinds: Vec<_> = run
        .events()
        .iter()
        .filter(|record| record["event"] == "stage_rebuilt")
        .map(|record| record["kind"].clone())
        .collect();
    assert_eq!(kinds, ["return"]);
    run.assert_sound();
}

#[test]
fn a_node_with_notice_from_the_cloud_leaves_in_order() {
    // The first to see the mark takes it away: the successor in the same slot has no notice.
    let command = "[ $SKIPSTONE_SLOT = 1 ] || exec sleep 600; until rm mark; do sleep 0.05; done";
    let run = Run::new(&format!("replicas = 2\nnotice_command = \"{command}\"\n"));
    let child = run.start(100_000);
    run.wait_for("committed", 5);
    fs::write(run.dir.path().join("mark"), "").unwrap();
    run.wait_for("node_lost", 1);
    let committed = run.count("committed");
    run.wait_for("committed", committed + 5);
    signal(child.id(), "INT");
    summary(&child.wait_with_output().unwrap());
    let events = run.events();
    let of =
        |event: &str| -> Vec<&Value> { events.iter().filter(|record| record["event"] == event).collect() };
    let (leaving, lost) = (of("leaving"), of("node_lost"));
    assert_eq!((leaving.len(), lost.len()), (1, 1), "{leaving:?} {lost:?}");
    assert_eq!(lost[0]["node"], leaving[0]["node"]);
    assert_eq!(lost[0]["why"], "left");
    for event in ["stage_lost", "repaired", "attempt_aborted"] {
        assert_eq!(of(event).len(), 0, "{event}");
    }
    run.assert_sound();
}

#[test]
fn when_every_node_has_notice_the_run_is_saved_and_ends() {
    let run = Run::new("notice_command = \"until [ -e mark ]; do sleep 0.05; done\"\n");
    let child = run.start(100_000);
    run.wait_for("committed", 5);
    fs::write(run.dir.path().join("mark"), "").unwrap();
    let steps = summary(&child.wait_with_output().unwrap())["steps"].as_u64().unwrap();
    assert!((5..100_000).contains(&steps), "{steps}");
    assert_eq!(state_files(&run.out(), steps), 3);
    run.assert_sound();
}

#[test]
fn interrupted_runs_are_saved_and_resumed() {
    let run = Run::new("");
    let child = run.start(100_000);
    run.wait_for("committed", 20);
    signal(child.id(), "INT");
    let steps = summary(&child.wait_with_output().unwrap())["steps"].as_u64().unwrap();
    assert!(steps >= 20);
    assert_eq!(state_files(&run.out(), steps), 3);
    let resumed = summary(&run.train(&["--resume", "--steps", &(steps + 30).to_string()]));
    assert_eq!(resumed["steps"], steps + 30);
    // Who stops a run and goes on with it has lost nothing.
    let lost = ["kills", "losses"].map(|count| resumed[count].as_u64());
    assert_eq!(lost, [Some(0), Some(0)], "{resumed}");
    assert_eq!(resumed["coordinator_restarts"], serde_json::json!([]));
    run.assert_sound();
    let done = run.train(&["--resume", "--steps", "10"]);
    assert!(done.status.success());
    let said = String::from_utf8_lossy(&done.stderr);
    let iterations = format!("the run is done already: it has {} iterations", steps + 30);
    assert!(said.contains(&iterations) && said.contains("--resume --out run --steps"), "{said}");
    let other = run.train(&["--resume", "--seed", "77"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("--seed"));
}

#[test]
fn what_a_neighbour_keeps_of_a_stage_without_a_node_is_saved_when_the_run_stops() {
    // The default rounds its copies; the origin has embedding and head.
    for (lost, recovery) in [(2_u64, ""), (1, "recovery = \"neighbour-snapshot:every=9\"\n"), (0, "")] {
        let run = Run::new(&format!("respawn = false\nwhile_lost = \"wait\"\n{recovery}"));
        let child = run.start(100_000);
        // Two of each stage: the copy is of a model that has learned something.
        let copies = |record: &&Value| record["event"] == "copy_kept" && record["stage"] == lost;
        let start = Instant::now();
        while run.events().iter().filter(copies).count() < 2 {
            assert!(start.elapsed() < Duration::from_secs(120), "nobody keeps a copy of stage {lost}");
            std::thread::sleep(Duration::from_millis(20));
        }
        signal(run.process_of_stage(lost), "KILL");
        run.wait_for("stage_lost", 1);
        signal(child.id(), "INT");
        let steps = summary(&child.wait_with_output().unwrap())["steps"].as_u64().unwrap();
        assert_eq!(state_files(&run.out(), steps), 3, "nothing is missing");
        summary(&run.train(&["--resume", "--steps", &(steps + 10).to_string()]));
        let rebuilt: Vec<Value> =
            run.events().into_iter().filter(|record| record["event"] == "stage_rebuilt").collect();
        let [saved] = &rebuilt[..] else { panic!("stage {lost}: {rebuilt:?}") };
        assert_eq!((&saved["stage"], &saved["kind"]), (&lost.into(), &"saved".into()));
        run.assert_sound();
        run.replayed();
    }
}

#[test]
fn what_was_made_again_before_anything_was_trained_is_void_for_the_next_coordinator() {
    let run = Run::new("recovery = \"copy\"\nwhile_lost = \"wait\"\npace = 0.2\n");
    let child = run.start(2);
    run.wait_for("node_entered", 3);
    signal(run.process_of_stage(1), "KILL");
    run.wait_for("stage_rebuilt", 1);
    signal(children(child.id(), "internal-coordinator")[0], "KILL");
    assert_eq!(summary(&child.wait_with_output().unwrap())["steps"], 2);
    let events = run.events();
    let place = |event: &str| events.iter().rposition(|record| record["event"] == event);
    let first_commit = events.iter().position(|record| record["event"] == "committed");
    assert!(place("coordinator_started") < first_commit, "the first iteration was over too soon");
    run.assert_sound();
    run.replayed();
}

#[test]
fn children_end_with_their_parent_and_the_folder_is_free_again() {
    let run = Run::new("save_every_s = 1.0\n");
    let mut child = run.start(100_000);
    run.wait_for("state_saved", 1);
    // What is saved is then mostly older than the records that a coordinator keeps in memory.
    run.wait_for("committed", run.count("committed") + 20);
    let busy = run.train(&["--resume"]);
    assert_eq!(busy.status.code(), Some(2), "the folder is in use");
    let ours = children(child.id(), "internal-");
    assert_eq!(ours.len(), 4);
    signal(child.id(), "KILL");
    child.wait().unwrap();
    let start = Instant::now();
    let lives = |process: &u32| {
        fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    while ours.iter().any(lives) {
        assert!(start.elapsed() < Duration::from_secs(10), "children outlive their parent");
        std::thread::sleep(Duration::from_millis(20));
    }
    let state: Value =
        serde_json::from_slice(&fs::read(run.out().join("state/state.json")).unwrap()).unwrap();
    let steps = state["iteration"].as_u64().unwrap() + 20;
    let resumed = summary(&run.train(&["--resume", "--steps", &steps.to_string()]));
    assert_eq!(resumed["steps"], steps);
    assert_eq!(resumed["coordinator_restarts"], serde_json::json!([]));
    run.assert_sound();
    run.replayed();
}

#[test]
fn an_audit_of_a_run_that_saves_meanwhile_is_sound() {
    let run = Run::new("deterministic = true\n");
    assert!(run.train(&["--steps", "3"]).status.success());
    let (journal, state) = (run.out().join("journal/journal.bin"), run.out().join("state/state.json"));
    let (entries, saved) = (fs::read(&journal).unwrap(), fs::read_to_string(&state).unwrap());
    let newer = saved.replace("\"iteration\": 3", "\"iteration\": 9");
    assert_ne!(saved, newer);
    fs::remove_file(&journal).unwrap();
    assert!(Command::new("mkfifo").arg(&journal).status().unwrap().success());
    let (pipe, published) = (journal.clone(), newer.clone());
    std::thread::spawn(move || {
        // It opens when the audit reads the journal. That it has read no more than these entries is as if the rest were appended
        // right after.
        let mut file = fs::OpenOptions::new().write(true).open(pipe).unwrap();
        fs::write(state, published).unwrap();
        std::io::Write::write_all(&mut file, &entries).unwrap();
    });
    let audit = run.command(&["audit", "run"]).output().unwrap();
    let text = String::from_utf8(audit.stdout).unwrap();
    assert!(audit.status.success() && text.starts_with("sound: 3 iterations"), "{text}");
    assert_eq!(fs::read_to_string(run.out().join("state/state.json")).unwrap(), newer);
}

#[test]
fn a_run_with_a_table_of_its_own_is_shown_and_gone_on_with_from_anywhere_and_after_a_move() {
    let run = Run::new("wan = \"links.json\"\n");
    let dir = run.dir.path();
    let table = r#"{"regions": {"intra": {"latency_s": 0.001, "bandwidth_Bps": 1e9},
        "links": [{"a": "x", "b": "y", "latency_s": 0.002, "bandwidth_Bps": 1e9}]}}"#;
    fs::write(dir.join("links.json"), table).unwrap();
    let output = run.train(&["--steps", "3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(dir.join("links.json")).unwrap();
    let from_elsewhere = |arguments: &[&str]| {
        let mut command = run.command(arguments);
        let output = command.current_dir("/").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let tried = |folder: PathBuf, steps: &str| {
        let options = folder.join("run.toml");
        let [folder, options] = [&folder, &options].map(|path| path.to_str().unwrap());
        from_elsewhere(&["show", folder]);
        from_elsewhere(&["audit", folder]);
        from_elsewhere(&["simulate", options, "--pace", "0.01", "--iterations", "3", "--json"]);
        from_elsewhere(&["config", options]);
        from_elsewhere(&["train", "--json", "--resume", "--out", folder, "--steps", steps]);
        from_elsewhere(&["replay", folder]);
    };
    tried(run.out(), "4");
    fs::rename(run.out(), dir.join("moved")).unwrap();
    // Another run is where it was.
    fs::create_dir(run.out()).unwrap();
    fs::write(run.out().join("wan.json"), "{").unwrap();
    tried(dir.join("moved"), "5");
    // Options of a run are options like others.
    let moved = dir.join("moved").join("run.toml");
    let third = dir.join("third");
    from_elsewhere(&[
        "train",
        moved.to_str().unwrap(),
        "--json",
        "--out",
        third.to_str().unwrap(),
        "--steps",
        "3",
    ]);
}
