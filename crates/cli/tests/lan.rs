//! Two machines on one network, in network namespaces, without a relay: needs root and `ip`. Says so and does nothing
//! where one of them is missing.

#![cfg(all(target_os = "linux", feature = "iroh"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod namespaces;

use namespaces::{Namespaces, run};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

/// What takes longer has waited for something: a relay was waited for for 10 s once.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Namespaces `net` (a switch), `a` and `b` (machines).
struct Network(Namespaces);

impl Network {
    /// None where the system doesn't let us.
    fn build() -> Option<Self> {
        let lines = |p: &str| {
            let mut lines = vec![
                format!("ip -n {p}net link add br0 type bridge mcast_snooping 0"),
                format!("ip -n {p}net link set br0 up"),
            ];
            for (side, number) in [("a", 1), ("b", 2)] {
                lines.push(format!("ip -n {p}net link add p{side} type veth peer name eth0 netns {p}{side}"));
                lines.push(format!("ip -n {p}net link set p{side} master br0 up"));
                lines.push(format!("ip -n {p}{side} link set eth0 up"));
                lines.push(format!("ip -n {p}{side} addr add 10.77.0.{number}/24 dev eth0"));
                lines.push(format!("ip -n {p}{side} route add default dev eth0"));
            }
            lines
        };
        Namespaces::build(&["net", "a", "b"], lines).map(Self)
    }

    /// Machine a gets another address.
    fn renumber(&self, from: u8, to: u8) {
        let p = &self.0.prefix;
        assert!(run(&format!("ip -n {p}a addr del 10.77.0.{from}/24 dev eth0")));
        assert!(run(&format!("ip -n {p}a addr add 10.77.0.{to}/24 dev eth0")));
        assert!(run(&format!("ip -n {p}a route replace default dev eth0")));
    }

    fn set_default_route(&self, at: &str, way: &str) -> bool {
        let machine = format!("{}{at}", self.0.prefix);
        run(&format!("ip -n {machine} route del default"))
            && run(&match way {
                "unreachable" => format!("ip -n {machine} route add unreachable default"),
                way => format!("ip -n {machine} route add default {way}"),
            })
    }

    fn start(&self, at: &str, arguments: &[&str]) -> Process {
        let mut child = self.0.start(at, arguments);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (speaker, said) = mpsc::channel();
        std::thread::spawn(move || lines.for_each(|line| drop(speaker.send(line))));
        Process { child, said }
    }
}

struct Process {
    child: Child,
    said: Receiver<String>,
}

impl Process {
    /// Waits until it says something like this, and returns the line; or all that it has said before.
    fn hear(&self, word: &str, patience: Duration) -> Result<String, String> {
        let (start, mut heard) = (Instant::now(), String::new());
        while let Some(left) = patience.checked_sub(start.elapsed()) {
            match self.said.recv_timeout(left) {
                Ok(line) if line.contains(word) => return Ok(line),
                Ok(line) => heard += &format!("{line}\n"),
                Err(_) => break,
            }
        }
        Err(heard)
    }

    /// The processes of its nodes die.
    fn kill_nodes(&self) {
        let parent = self.child.id();
        let nodes = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        assert!(!nodes.is_empty() && run(&format!("kill -KILL {nodes}")));
    }

    /// As Ctrl-C does.
    fn stop(mut self) {
        assert!(run(&format!("kill -INT {}", self.child.id())));
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A run of three nodes on machine a.
fn train(network: &Network, dir: &TempDir, more: &[&str]) -> Process {
    let run = dir.path().join("run");
    let options = "--story-bytes 200000 --tokenizer bytes --layers 2 --width 32 --heads 2 --stages 2 --context 32 \
                   --batch 2 --microbatches 4 --steps 1000000 --plain --listen";
    let mut arguments = vec!["train", "--out", run.to_str().unwrap()];
    arguments.extend(options.split_whitespace());
    arguments.extend(more);
    network.start("a", &arguments)
}

/// The ticket of a run.
fn ticket(host: &Process) -> String {
    let line = host.hear("skipstone join ", PATIENCE).unwrap();
    line.trim().strip_prefix("skipstone join ").unwrap().to_owned()
}

/// A run without relays; its ticket.
fn host(network: &Network, dir: &TempDir, more: &[&str]) -> (Process, String) {
    let host = train(network, dir, &[&["--relay", "none"], more].concat());
    let ticket = ticket(&host);
    (host, ticket)
}

#[test]
fn machines_that_reach_each_other_wait_for_no_relay() {
    let Some(network) = Network::build() else { return };
    // The public relays are out of reach: nothing comes back from them, or the system says at once that there is no way.
    for way in ["dev eth0", "unreachable"] {
        for machine in ["a", "b"] {
            assert!(network.set_default_route(machine, way));
        }
        let dir = tempfile::tempdir().unwrap();
        let host = train(&network, &dir, &["--workers", "3"]);
        // Only the ticket waits for a relay.
        host.hear("training starts", PATIENCE).unwrap();
        let ticket = ticket(&host);
        let guest = dir.path().join("guest");
        let guest = network.start("b", &["join", &ticket, "--dir", guest.to_str().unwrap()]);
        guest.hear("is node", AT_ONCE).unwrap();
        guest.kill_nodes();
        guest.hear("is node", AT_ONCE).unwrap();
    }
}

#[test]
fn a_coordinator_that_came_back_with_another_address_is_found_on_its_own_network() {
    let Some(network) = Network::build() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (first, ticket) = host(&network, &dir, &["--workers", "3"]);
    first.hear("iteration 1", PATIENCE).unwrap();
    first.stop();
    network.renumber(1, 7);
    let guest = dir.path().join("guest");
    let join = ["join", &ticket, "--dir", guest.to_str().unwrap()];

    let (silent, _) = host(&network, &dir, &["--resume", "--workers", "2", "--no-lan"]);
    let lost = network.start("b", &join);
    let said = lost.hear("let in", Duration::from_secs(10));
    assert!(said.is_err(), "the ticket's address is dead, and nobody answers: {said:?}");
    drop(lost);
    silent.stop();

    let (_host, _) = host(&network, &dir, &["--resume", "--workers", "2"]);
    let guest = network.start("b", &join);
    guest.hear("let in", PATIENCE).unwrap();

    // And again in mid-run: the guest's node looks for the coordinator by itself.
    guest.hear("works on stage", PATIENCE).unwrap();
    network.renumber(7, 9);
    guest.hear("has lost the coordinator", PATIENCE).unwrap();
    guest.hear("works on stage", PATIENCE).unwrap();
}
