//! Two machines behind a NAT each, in network namespaces, and a relay: needs root, `ip` and `iptables`, and the feature
//! `relay`. Says so and does nothing where one of them is missing.

#![cfg(all(target_os = "linux", feature = "relay"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod namespaces;

use namespaces::{Namespaces, run};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);
const RELAY: &str = "203.0.113.1:3340";

/// Namespaces `net` (the internet), `nata`, `natb` (routers) and `a`, `b` (machines).
struct Internet(Namespaces);

impl Internet {
    /// None where the system doesn't let us.
    fn build() -> Option<Self> {
        let lines = |p: &str| {
            let mut lines = vec![
                format!("ip -n {p}net link add br0 type bridge"),
                format!("ip -n {p}net link set br0 up"),
                format!("ip -n {p}net addr add 203.0.113.1/24 dev br0"),
            ];
            for (side, number) in [("a", 1), ("b", 2)] {
                for (from, inside, to, outside) in [
                    (format!("{p}net"), format!("p{side}"), format!("{p}nat{side}"), "wan"),
                    (format!("{p}nat{side}"), "lan".to_owned(), format!("{p}{side}"), "eth0"),
                ] {
                    lines.push(format!(
                        "ip -n {from} link add {inside} type veth peer name {outside} netns {to}"
                    ));
                    lines.push(format!("ip -n {from} link set {inside} up"));
                    lines.push(format!("ip -n {to} link set {outside} up"));
                }
                lines.push(format!("ip -n {p}net link set p{side} master br0"));
                lines.push(format!("ip -n {p}nat{side} addr add 203.0.113.{number}0/24 dev wan"));
                lines.push(format!("ip -n {p}nat{side} addr add 10.{number}.0.1/24 dev lan"));
                lines.push(format!("ip -n {p}{side} addr add 10.{number}.0.2/24 dev eth0"));
                lines.push(format!("ip -n {p}{side} route add default via 10.{number}.0.1"));
                let inside = format!("ip netns exec {p}nat{side}");
                lines.push(format!("{inside} sysctl -qw net.ipv4.ip_forward=1"));
                lines.push(format!("{inside} iptables -t nat -A POSTROUTING -o wan -j MASQUERADE"));
            }
            lines
        };
        Namespaces::build(&["net", "nata", "natb", "a", "b"], lines).map(Self)
    }

    /// From now on there is no direct way between the machines.
    fn forbid_direct(&self) {
        for side in ["a", "b"] {
            assert!(run(&format!(
                "ip netns exec {}nat{side} iptables -A FORWARD -p udp -j DROP",
                self.0.prefix
            )));
        }
    }

    fn cut(&self, machine: &str, time: Duration) {
        let link = format!("ip -n {}{machine} link set eth0", self.0.prefix);
        assert!(run(&format!("{link} down")));
        std::thread::sleep(time);
        assert!(run(&format!("{link} up")));
        let number = if machine == "a" { 1 } else { 2 };
        assert!(run(&format!("ip -n {}{machine} route add default via 10.{number}.0.1", self.0.prefix)));
    }

    fn start(&self, at: &str, arguments: &[&str]) -> Child {
        self.0.start(at, arguments)
    }

    fn relay(&self) -> Child {
        self.start("net", &["relay", "--bind", RELAY])
    }
}

struct Swarm {
    dir: TempDir,
    children: Vec<Child>,
}

impl Swarm {
    /// Origin and a relay stage on machine a, the other relay stage on machine b.
    fn start(internet: &Internet) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (run, guest) = (dir.path().join("run"), dir.path().join("guest"));
        // Two more relays that the run names don't answer: nobody has one's address, and the other refuses.
        let url = format!("http://203.0.113.99:3340,http://{RELAY},http://203.0.113.1:3341");
        let options = "--story-bytes 200000 --tokenizer bytes --layers 2 --width 32 --heads 2 --stages 2 --context 32 \
                       --batch 2 --microbatches 4 --steps 1000000 --save-every 0 --plain --listen --workers 2";
        let mut arguments = vec!["train", "--relay", &url, "--out", run.to_str().unwrap()];
        arguments.extend(options.split_whitespace());
        let mut host = internet.start("a", &arguments);
        let mut lines = BufReader::new(host.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("skipstone join ")).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let ticket = line.trim().strip_prefix("skipstone join ").unwrap();
        let mut guest = internet.start("b", &["join", ticket, "--dir", guest.to_str().unwrap()]);
        let lines = BufReader::new(guest.stderr.take().unwrap()).lines().map_while(Result::ok);
        std::thread::spawn(move || lines.for_each(drop));
        Self { dir, children: vec![host, guest] }
    }

    fn count(&self, event: &str) -> usize {
        let log = self.dir.path().join("run").join("events.jsonl");
        let text = fs::read_to_string(log).unwrap_or_default();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|record| record["event"] == event).count()
    }

    /// Waits until so many more iterations are done; how long it took.
    fn trains(&self, more: usize) -> Duration {
        let (start, goal) = (Instant::now(), self.count("committed") + more);
        while self.count("committed") < goal {
            assert!(start.elapsed() < PATIENCE, "it does not train");
            std::thread::sleep(Duration::from_millis(50));
        }
        start.elapsed()
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn machines_behind_nats_train_through_a_relay_that_restarts_and_links_that_break() {
    let Some(internet) = Internet::build() else { return };
    internet.forbid_direct();
    let mut relay = internet.relay();
    let swarm = Swarm::start(&internet);
    swarm.trains(20);
    relay.kill().unwrap();
    relay.wait().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    relay = internet.relay();
    swarm.trains(20);
    assert_eq!(swarm.count("node_lost"), 0, "a relay's restart costs no node");
    internet.cut("b", Duration::from_secs(10));
    let took = swarm.trains(20);
    assert_eq!(swarm.count("node_lost"), 0, "nor does a link that is away for 10 s; back after {took:?}");
    relay.kill().unwrap();
    relay.wait().unwrap();
}
