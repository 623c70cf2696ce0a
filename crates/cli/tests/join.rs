//! Runs whose nodes are on several machines, as far as one machine can show: each `skipstone join` is a machine of its own,
//! which shares neither folder nor loopback with the run.

#![cfg(all(target_os = "linux", feature = "iroh"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

/// A run that listens, small enough to take seconds.
struct Host {
    dir: TempDir,
    train: Child,
    /// What it said up to its ticket, and since.
    said: Vec<String>,
    lines: Receiver<String>,
    ticket: String,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a child says on stderr, line by line.
fn listen(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let stderr = child.stderr.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// The first line that contains `what`; all up to it are shown if it does not come.
fn wait_for_line(lines: &Receiver<String>, what: &str) -> String {
    wait_for_lines(lines, what).pop().unwrap()
}

/// The lines up to the first that contains `what`.
fn wait_for_lines(lines: &Receiver<String>, what: &str) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    let mut seen: Vec<String> = Vec::new();
    while !seen.last().is_some_and(|line| line.contains(what)) {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(line) = lines.recv_timeout(left) else { panic!("no '{what}' in {seen:#?}") };
        seen.push(line);
    }
    seen
}

fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Host {
    fn start(steps: u64, workers: usize, more: &str) -> Self {
        Self::start_with(steps, workers, more, &[])
    }

    fn start_with(steps: u64, workers: usize, more: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "story_bytes = 200000\ntokenizer = \"bytes\"\nlayers = 2\nwidth = 32\nheads = 2\nstages = 2\n\
             context = 32\nbatch = 2\nmicrobatches = 4\nsteps = {steps}\nout = \"run\"\n{more}"
        );
        fs::write(dir.path().join("run.toml"), text).unwrap();
        let workers = workers.to_string();
        let (train, said, lines) = Self::train(&dir, &[&["run.toml", "--workers", &workers], flags].concat());
        let ticket = said.last().unwrap().trim().strip_prefix("skipstone join ").unwrap().to_owned();
        Self { dir, train, said, lines, ticket }
    }

    fn train(dir: &TempDir, flags: &[&str]) -> (Child, Vec<String>, Receiver<String>) {
        let mut train = command(&["train", "--json", "--listen", "--relay", "none"])
            .args(flags)
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = listen(&mut train);
        let said = wait_for_lines(&lines, "skipstone join ");
        (train, said, lines)
    }

    /// The machine of the run is switched off, and on again.
    fn die_and_resume(&mut self, flags: &[&str]) {
        self.train.kill().unwrap();
        self.train.wait().unwrap();
        (self.train, self.said, self.lines) =
            Self::train(&self.dir, &[&["--resume", "--out", "run"], flags].concat());
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn join(&self, name: &str, workers: usize) -> (Child, Receiver<String>) {
        self.join_with(name, &["--workers", &workers.to_string()])
    }

    fn join_with(&self, name: &str, flags: &[&str]) -> (Child, Receiver<String>) {
        self.join_at(&self.dir.path().join(name), flags)
    }

    fn join_at(&self, dir: &Path, flags: &[&str]) -> (Child, Receiver<String>) {
        let mut child = command(&["join", &self.ticket, "--dir", dir.to_str().unwrap()])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = listen(&mut child);
        (child, lines)
    }

    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.out().join("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn count(&self, event: &str) -> usize {
        self.events().iter().filter(|record| record["event"] == event).count()
    }

    fn wait_for(&self, event: &str, count: usize) {
        let start = Instant::now();
        while self.count(event) < count {
            assert!(start.elapsed() < PATIENCE, "no {event} came");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end; the summary.
    fn end(&mut self) -> Value {
        let status = wait(&mut self.train);
        let mut text = String::new();
        self.train.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let said: Vec<String> = self.lines.try_iter().collect();
        assert!(status.success(), "{said:#?}");
        serde_json::from_str(&text).unwrap()
    }

    /// Whether each microbatch was counted exactly once.
    fn audit(&self) -> bool {
        let audit = command(&["audit", self.out().to_str().unwrap(), "--json"]).output().unwrap();
        audit.status.success()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.train.kill();
    }
}

/// The processes that this one has started: a machine's nodes.
fn nodes_of(parent: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().map(|process| process.parse().unwrap()).collect()
}

/// The coordinator's process of a run.
fn coordinator_of(train: u32) -> u32 {
    let is_it = |process: &u32| {
        fs::read_to_string(format!("/proc/{process}/cmdline"))
            .is_ok_and(|line| line.contains("internal-coordinator"))
    };
    nodes_of(train).into_iter().find(is_it).unwrap()
}

fn kill(process: u32) {
    assert!(Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap().success());
}

#[test]
fn machines_with_a_ticket_serve_stages_until_the_run_is_over() {
    // Nothing runs at home but the coordinator: origin and relays are all on other machines, data included.
    let mut host = Host::start(40, 0, "");
    let (mut first, first_lines) = host.join("first", 2);
    let (mut second, second_lines) = host.join("second", 1);
    wait_for_line(&first_lines, "works on");
    wait_for_line(&second_lines, "works on");
    let summary = host.end();
    assert_eq!(summary["steps"], 40);
    assert!(wait(&mut first).success() && wait(&mut second).success());
    assert!(host.audit());
    // Their states came home: the model is there, and the run can go on.
    assert!(host.out().join("model").join("model.safetensors").is_file());
    let state = fs::read_dir(host.out().join("state").join("40")).unwrap();
    assert_eq!(state.count(), 3, "a file a stage, and nothing else");
}

#[test]
fn a_machine_has_each_runs_own_data_however_many_of_its_nodes_need_it() {
    let there = tempfile::tempdir().unwrap();
    let dir = there.path().join("guest");
    for seed in [0, 1] {
        // Two origins on one machine, which fetch the data at the same time.
        let more = format!("seed = {seed}\nstage_sizes = [2, 1, 1]\n");
        let mut host = Host::start(20, 0, &more);
        let (mut guest, _lines) = host.join_at(&dir, &["--workers", "4"]);
        let summary = host.end();
        assert_eq!((&summary["steps"], &summary["kills"]), (&20.into(), &0.into()), "{summary}");
        assert!(host.events().iter().all(|record| record["event"] != "node_lost" || record["why"] == "left"));
        assert!(wait(&mut guest).success() && host.audit());
        let tokens = |dir: &Path| fs::read(dir.join("data").join("tokens.bin")).unwrap();
        assert!(tokens(&dir) == tokens(&host.out()), "seed {seed}");
    }
}

#[test]
fn a_dead_node_of_a_machine_is_replaced_and_a_dead_machine_too() {
    let mut host = Host::start(100_000, 3, "replicas = 2\nsave_every_s = 0.0\n");
    let (mut guest, lines) = host.join("guest", 3);
    wait_for_line(&lines, "works on");
    host.wait_for("committed", 5);
    let victim = nodes_of(guest.id())[0];
    let (before, killed) = (host.count("node_lost"), Instant::now());
    kill(victim);
    wait_for_line(&lines, "died");
    host.wait_for("node_lost", before + 1);
    let noticed = killed.elapsed();
    assert!(noticed < Duration::from_secs(8), "its parent says so, long before silence does: {noticed:?}");
    wait_for_line(&lines, "works on");
    // The whole machine: nobody says anything.
    let nodes = nodes_of(guest.id());
    guest.kill().unwrap();
    nodes.iter().for_each(|node| drop(Command::new("kill").args(["-KILL", &node.to_string()]).status()));
    host.wait_for("node_lost", before + 1 + nodes.len());
    let committed = host.count("committed");
    host.wait_for("committed", committed + 5);
    let _ = guest.wait();
    assert!(Command::new("kill").args(["-INT", &host.train.id().to_string()]).status().unwrap().success());
    host.end();
    assert!(host.audit());
}

#[test]
fn machines_come_back_by_themselves_to_a_run_that_was_killed_and_goes_on() {
    let flags = ["--no-lan"];
    let mut host = Host::start_with(1_000_000, 2, "save_every_s = 0.5\n", &flags);
    let (mut guest, lines) = host.join("guest", 1);
    wait_for_line(&lines, "works on");
    host.wait_for("state_saved", 1);
    // No system tells another machine that a process has died; its successor has the same port and key.
    let killed = Instant::now();
    kill(coordinator_of(host.train.id()));
    wait_for_line(&lines, "has lost the coordinator");
    wait_for_line(&lines, "works on");
    assert!(killed.elapsed() < Duration::from_secs(30), "long before the connection is given up");
    // The same ticket, at the same port, but the run has another secret now.
    host.die_and_resume(&["--no-lan", "--workers", "2"]);
    wait_for_line(&lines, "the run has started again");
    wait_for_line(&lines, "works on");
    assert!(Command::new("kill").args(["-INT", &host.train.id().to_string()]).status().unwrap().success());
    host.end();
    assert!(wait(&mut guest).success());
    assert!(host.audit());
}

#[test]
fn machines_say_where_they_are_and_paths_are_planned_by_it() {
    let mut host = Host::start(60, 2, "links = \"gcp12\"\n");
    let (mut lost, lines) = host.join_with("lost", &["--region", "Atlantis"]);
    wait_for_line(&lines, "no region Atlantis; it has Australia, ");
    assert_eq!(wait(&mut lost).code(), Some(2));
    let (mut guest, lines) = host.join_with("guest", &["--region", "Japan"]);
    wait_for_line(&lines, "works on");
    host.end();
    assert!(wait(&mut guest).success() && host.audit());
    let plan: Value =
        serde_json::from_str(&fs::read_to_string(host.out().join("plan.json")).unwrap()).unwrap();
    let mut regions: Vec<&str> =
        plan["node_regions"].as_array().unwrap().iter().map(|region| region.as_str().unwrap()).collect();
    regions.sort_unstable();
    assert_eq!(regions, ["Australia", "Australia", "Japan"], "this machine is where the coordinator is");
    let placed = host.events().into_iter().find(|event| event["event"] == "placed").unwrap();
    assert_eq!(placed["by"], "search");
}

/// What a process that says where it listens answers to `GET /health`: the status, and the object.
fn health(line: &str) -> impl Fn() -> (u16, Value) + use<> {
    let address = line.split("http://").nth(1).unwrap().strip_suffix("/health").unwrap().to_owned();
    move || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: skipstone\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }
}

#[test]
fn run_and_machine_say_how_they_are_and_what_was_sent() {
    let more = "price_per_gb = 0.1\nprice_per_hour = 0.0\nsave_every_s = 0.0\n";
    let mut host = Host::start_with(100_000, 2, more, &["--health", "0", "--ticket-file", "ticket"]);
    let ticket = fs::read_to_string(host.dir.path().join("ticket")).unwrap();
    assert_eq!(ticket.trim(), host.ticket);
    let run = health(host.said.iter().find(|line| line.contains("how it is: http://")).unwrap());
    // At first it only says that it starts.
    let until = Instant::now() + PATIENCE;
    let (status, facts) = loop {
        let (status, facts) = run();
        if !facts["iteration"].is_null() || Instant::now() >= until {
            break (status, facts);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((status, facts["iteration"].as_u64()), (503, Some(0)), "{facts}");
    let (mut guest, lines) = host.join_with("guest", &["--health", "127.0.0.1:0"]);
    let machine = health(&wait_for_line(&lines, "how it is: http://"));
    wait_for_line(&lines, "works on");
    host.wait_for("committed", 5);
    let (status, facts) = machine();
    assert_eq!((status, &facts["workers"][0]), (200, &Value::from("working")), "{facts}");
    let (status, facts) = run();
    assert_eq!((status, facts["nodes"].as_u64()), (200, Some(3)), "{facts}");
    assert!(facts["iteration"].as_u64().unwrap() >= 5 && facts["last_commit_age_s"].is_f64(), "{facts}");
    // A stage whose only node is gone is told, until another one serves it.
    let nodes = nodes_of(guest.id());
    guest.kill().unwrap();
    nodes.iter().for_each(|node| drop(Command::new("kill").args(["-KILL", &node.to_string()]).status()));
    let _ = guest.wait();
    let until = Instant::now() + PATIENCE;
    let facts = loop {
        let (status, facts) = run();
        if status == 503 {
            break facts;
        }
        assert!(Instant::now() < until, "{facts}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(facts["stages_without_a_node"].as_array().unwrap().len(), 1, "{facts}");
    let (mut guest, lines) = host.join("another", 1);
    wait_for_line(&lines, "works on");
    let committed = host.count("committed");
    host.wait_for("committed", committed + 5);
    assert!(Command::new("kill").args(["-INT", &host.train.id().to_string()]).status().unwrap().success());
    let summary = host.end();
    assert!(wait(&mut guest).success());
    let said = wait_for_line(&lines, "bytes of tensors to others");
    let sent = said.split_whitespace().rev().nth(5).unwrap();
    assert!(sent.parse::<u64>().is_ok_and(|sent| sent > 1000), "{said}");
    let traffic = &summary["cost"]["traffic"];
    assert!(traffic["sent_bytes"].as_u64().unwrap() > 100_000, "{summary}");
    let price = traffic["sent_bytes"].as_f64().unwrap() / 1e9 * 0.1;
    assert!((summary["cost"]["total"].as_f64().unwrap() - price).abs() < 1e-12, "{summary}");
}

#[test]
fn a_viewers_ticket_shows_the_run_and_lets_nobody_in() {
    let mut host = Host::start(100_000, 3, "save_every_s = 0.0\n");
    host.wait_for("committed", 3);
    let output =
        command(&["tickets", host.out().to_str().unwrap(), "--new", "--for", "viewer"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let ticket = text.trim().strip_prefix("skipstone watch ").unwrap().to_owned();
    let dir = host.dir.path().join("viewer");
    let refused = command(&["join", &ticket, "--dir", dir.to_str().unwrap()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("skipstone watch"));
    let mut viewer =
        command(&["watch", &ticket]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = listen(&mut viewer);
    wait_for_line(&lines, "iteration ");
    assert!(Command::new("kill").args(["-INT", &host.train.id().to_string()]).status().unwrap().success());
    host.end();
    // It saw the end, or the run was gone before it asked again.
    assert!(wait(&mut viewer).success());
    let mut summary = String::new();
    viewer.stdout.take().unwrap().read_to_string(&mut summary).unwrap();
    assert!(summary.contains("tokens/s over"), "{summary}");
}

#[test]
fn an_admins_ticket_invites_turns_out_saves_and_stops_from_elsewhere() {
    let mut host = Host::start(100_000, 3, "save_every_s = 0.0\n");
    host.wait_for("committed", 3);
    let run = host.out();
    let ticket = |purpose: &str| {
        let output =
            command(&["tickets", run.to_str().unwrap(), "--new", "--for", purpose]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().split(' ').next_back().unwrap().to_owned()
    };
    let (admin, viewer) = (ticket("admin"), ticket("viewer"));
    let manage = |ticket: &str, arguments: &[&str]| {
        let output = command(&["manage", ticket]).args(arguments).output().unwrap();
        let said =
            String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).unwrap();
        (output.status.code(), said)
    };
    for other in [&viewer, &host.ticket] {
        let (code, said) = manage(other, &["--stop"]);
        assert!(code == Some(2) && said.contains("--for admin"), "{said}");
    }
    let (_, invitation) = manage(&admin, &["--new", "--life", "1h"]);
    host.ticket = invitation.trim().strip_prefix("skipstone join ").unwrap().to_owned();
    let (mut guest, lines) = host.join("guest", 1);
    wait_for_line(&lines, "is node");
    let lost = host.count("node_lost");
    assert_eq!(manage(&admin, &["--revoke", "4"]).0, Some(0));
    host.wait_for("node_lost", lost + 1);
    let (_, listed) = manage(&admin, &[]);
    assert!(listed.lines().any(|line| line.contains('4') && line.contains("revoked")), "{listed}");
    guest.kill().unwrap();
    let _ = guest.wait();
    // Another machine's only node is told to leave, and does not come again.
    let (_, invitation) = manage(&admin, &["--new"]);
    host.ticket = invitation.trim().strip_prefix("skipstone join ").unwrap().to_owned();
    let (mut guest, lines) = host.join("drained", 1);
    let welcome = wait_for_line(&lines, "is node");
    let node = welcome.split("is node ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let (code, said) = manage(&admin, &["--drain", "999"]);
    assert!(code == Some(2) && said.contains("there is no node 999"), "{said}");
    assert_eq!(manage(&admin, &["--drain", &node]).0, Some(0));
    wait_for_line(&lines, "has left the run");
    assert!(wait(&mut guest).success());
    let saved = host.count("state_saved");
    assert_eq!(manage(&admin, &["--save"]).0, Some(0));
    host.wait_for("state_saved", saved + 1);
    assert_eq!(manage(&admin, &["--stop"]).0, Some(0));
    host.end();
    assert_eq!(host.count("managed"), 6, "two invitations, a revocation, a node's leave, a save and a stop");
}

#[test]
fn ctrl_c_ends_the_search_for_a_run_that_is_gone() {
    let key = skipstone_net::EndpointKey::generate();
    // Nobody answers at an address that is for documents alone.
    let host = skipstone_net::InternetReach { key: key.public(), ways: vec!["ip:192.0.2.1:7000".to_owned()] };
    let (run, relays) = (skipstone_types::RunId(1), skipstone_net::Relays::None);
    let ticket = skipstone_worlds::live::remote::Ticket::issue(
        &key,
        run,
        skipstone_worlds::live::remote::Capability::Worker,
        5,
        u64::MAX,
        host,
        relays,
    );
    let dir = tempfile::tempdir().unwrap();
    for signal in ["-INT", "-TERM"] {
        let mut join = command(&["join", &ticket.to_string(), "--dir", dir.path().to_str().unwrap()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = listen(&mut join);
        wait_for_line(&lines, "looking for the run");
        let told = Instant::now();
        assert!(Command::new("kill").args([signal, &join.id().to_string()]).status().unwrap().success());
        assert_eq!(wait(&mut join).code(), Some(1));
        assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
        wait_for_line(&lines, "error: told to end before the run had answered");
    }
}

#[test]
fn who_has_no_valid_ticket_is_told_why() {
    let mut host = Host::start(100_000, 3, "");
    let run = host.out();
    let run = run.to_str().unwrap();
    let refused = |ticket: &str| {
        let dir = tempfile::tempdir().unwrap();
        let output = command(&["join", ticket, "--dir", dir.path().to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused("127.0.0.1:7000").contains("not a whole ticket"));
    assert!(refused(&host.ticket[..host.ticket.len() - 3]).contains("not a whole ticket"));
    let issue = |arguments: &[&str]| {
        let output = command(&["tickets", run, "--json"]).args(arguments).output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let short = issue(&["--new", "--life", "1"])["ticket"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(2100));
    assert!(refused(&short).contains("expired"));
    // A machine that is in is cut off when its ticket is revoked, and does not come again.
    let (mut guest, lines) = host.join("guest", 1);
    let welcome = wait_for_lines(&lines, "is node");
    let lost = host.count("node_lost");
    let listed = issue(&["--revoke", "1"]);
    assert_eq!(listed["tickets"][0]["revoked"], true);
    host.wait_for("node_lost", lost + 1);
    assert!(refused(&host.ticket).contains("revoked"));
    let (told, revoked) = (wait_for_lines(&lines, "error: "), Instant::now());
    assert!(told.last().unwrap().contains("this ticket was revoked"), "{told:#?}");
    assert_eq!(wait(&mut guest).code(), Some(2));
    assert!(revoked.elapsed() < Duration::from_secs(20), "a no that can't change is believed at once");
    // It knocked several times a second; that is told once.
    assert_eq!(host.count("refused"), 1);
    let machine = welcome[0].split("is called ").nth(1).unwrap();
    let joined = host.lines.try_iter().find(|line| line.contains("joins from machine")).unwrap();
    assert!(joined.contains(machine) && joined.ends_with("with ticket 1"), "{joined}");
    assert!(Command::new("kill").args(["-INT", &host.train.id().to_string()]).status().unwrap().success());
    host.end();
}
