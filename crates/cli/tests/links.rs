//! `skipstone doctor --links`: what it measures against the links that there are.

#![cfg(all(target_os = "linux", feature = "iroh"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// What starts a process; a network namespace, or nothing.
type At<'a> = &'a [&'a str];

fn start(at: At<'_>, dir: &Path, arguments: &[&str]) -> Child {
    let words: Vec<&str> = at
        .iter()
        .copied()
        .chain([env!("CARGO_BIN_EXE_skipstone")])
        .chain(arguments.iter().copied())
        .collect();
    Command::new(words[0])
        .args(&words[1..])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Has a host and guests (where each is, and its region) measure their links; the table.
fn measure(dir: &Path, more: &[&str], host: (At<'_>, &str), guests: &[(At<'_>, &str)]) -> Value {
    let machines = (guests.len() + 1).to_string();
    let arguments =
        ["doctor", "--links", "links.json", "--machines", &machines, "--region", host.1, "--relay", "none"];
    let mut child = start(host.0, dir, &[&arguments[..], more].concat());
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("skipstonelinks1")).unwrap();
    let invitation = line.split_whitespace().find(|word| word.starts_with("skipstonelinks1")).unwrap();
    let mut children: Vec<Child> = guests
        .iter()
        .map(|(at, region)| start(at, dir, &[&["doctor", invitation, "--region", region], more].concat()))
        .collect();
    let said: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{said:#?}");
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    serde_json::from_str(&fs::read_to_string(dir.join("links.json")).unwrap()).unwrap()
}

/// Latency, bandwidth and jitter from `a` to `b`.
fn link(table: &Value, a: &str, b: &str) -> (f64, f64, f64) {
    let links = table["regions"]["links"].as_array().unwrap();
    let (link, back) = links
        .iter()
        .find_map(|link| match (link["a"].as_str()?, link["b"].as_str()?) {
            (from, to) if (from, to) == (a, b) => Some((link, false)),
            (from, to) if (from, to) == (b, a) => Some((link, true)),
            _ => None,
        })
        .unwrap();
    let figure = |name: &str| {
        let other = link["back"][name].as_f64().filter(|_| back);
        other.or(link[name].as_f64()).unwrap_or(0.0)
    };
    (figure("latency_s"), figure("bandwidth_Bps"), figure("jitter_s"))
}

fn near(measured: f64, truth: f64, tolerance: f64) -> bool {
    (measured / truth - 1.0).abs() < tolerance
}

#[test]
fn links_that_are_held_back_are_found_as_long_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let truth = r#"{"regions": {"intra": {"latency_s": 0.005, "bandwidth_Bps": 1e7}, "links": [
        {"a": "home", "b": "Berlin", "latency_s": 0.04, "bandwidth_Bps": 1e6, "back": {"bandwidth_Bps": 4e6}},
        {"a": "home", "b": "Tokyo", "latency_s": 0.13, "bandwidth_Bps": 5e5, "jitter_s": 0.1},
        {"a": "Berlin", "b": "Tokyo", "latency_s": 0.11, "bandwidth_Bps": 2e6}]}}"#;
    fs::write(dir.path().join("truth.json"), truth).unwrap();
    let table =
        measure(dir.path(), &["--wan", "truth.json"], (&[], "home"), &[(&[], "Berlin"), (&[], "Tokyo")]);
    // Busy machines answer late, so that latencies may be found longer.
    for (a, b, latency_s, bytes_per_s) in [
        ("home", "Berlin", 0.04, 1e6),
        ("Berlin", "home", 0.04, 4e6),
        ("Berlin", "Tokyo", 0.11, 2e6),
        ("Tokyo", "Berlin", 0.11, 2e6),
        ("home", "Tokyo", 0.13, 5e5),
    ] {
        let found = link(&table, a, b);
        let jitter_s = if (a, b) == ("home", "Tokyo") { 0.1 } else { 0.0 };
        assert!((latency_s..latency_s + 0.02 + jitter_s / 2.0).contains(&found.0), "{a} {b}: {found:?}");
        assert!(near(found.1, bytes_per_s, 0.15), "{a} {b}: {found:?}");
    }
    let (_, _, jitter_s) = link(&table, "home", "Tokyo");
    assert!((0.04..0.13).contains(&jitter_s), "{jitter_s}");
    assert!(near(table["regions"]["intra"]["bandwidth_Bps"].as_f64().unwrap(), 1e7, 0.2), "{table}");
    assert_eq!(table["coordinator_region"], "home");
    assert_eq!(table["node_regions"].as_array().unwrap().len(), 3);
    // It is a table for simulations and runs.
    fs::write(
        dir.path().join("run.toml"),
        "tokenizer = \"bytes\"\nlayers = 2\nwidth = 32\nheads = 2\nstages = 2\ncontext = 16\nbatch = 2\nsteps = 3\npace = 0.1\n",
    )
    .unwrap();
    let mut simulated = start(&[], dir.path(), &["simulate", "run.toml", "--wan", "links.json", "--json"]);
    assert!(simulated.wait().unwrap().success());
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.json"), r#"{"regions": {"intra": {"latency_s": 0, "bandwidth_Bps": 1e9}}}"#)
        .unwrap();
    for (arguments, code, says) in [
        (
            &["doctor", "--links", "l.json", "--machines", "1", "--relay", "none"][..],
            2,
            "--machines takes 2 to 32",
        ),
        (&["doctor", "--links", "l.json", "--region", "", "--relay", "none"], 2, "--region takes a name"),
        (
            &["doctor", "--links", "l.json", "--region", "x", "--wan", "t.json", "--relay", "none"],
            2,
            "has no region x",
        ),
        (
            &["doctor", "--links", "l.json", "--wait", "1s", "--relay", "none"],
            1,
            "1 of 2 machines came within 1 s",
        ),
        (&["doctor", "skipstonelinks1aaaa", "--region", "x"], 2, "not a whole invitation"),
        (&["doctor", "skipstonelinks1aaaa"], 2, "--region NAME"),
        (&["doctor", "--region", "x"], 2, "--links FILE"),
    ] {
        let output = start(&[], dir.path(), arguments).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(says), "{arguments:?}: {said}");
        assert!(!dir.path().join("l.json").exists());
    }
}

/// Two network namespaces with a link between them whose ends are shaped; none where the system doesn't let us.
struct Namespaces {
    prefix: String,
}

impl Namespaces {
    fn build(shapes: [&str; 2]) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let made = Self { prefix: format!("sl{}x{count}", std::process::id()) };
        let p = &made.prefix;
        let mut lines = vec![
            format!("ip netns add {p}a"),
            format!("ip netns add {p}b"),
            format!("ip -n {p}a link add eth0 type veth peer name eth0 netns {p}b"),
        ];
        for (side, number, shape) in [("a", 1, shapes[0]), ("b", 2, shapes[1])] {
            lines.push(format!("ip -n {p}{side} link set lo up"));
            lines.push(format!("ip -n {p}{side} addr add 10.77.0.{number}/24 dev eth0"));
            lines.push(format!("ip -n {p}{side} link set eth0 up"));
            lines.push(format!("ip netns exec {p}{side} tc qdisc add dev eth0 root {shape}"));
        }
        let failed = lines.iter().find(|line| {
            let mut words = line.split_whitespace();
            let mut command = Command::new(words.next().unwrap());
            command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            !command.status().is_ok_and(|status| status.success())
        });
        if let Some(line) = failed {
            eprintln!("skipped: network namespaces with shaped links can't be made here ('{line}' fails)");
            return None;
        }
        Some(made)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for side in ["a", "b"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}{side}", self.prefix)]).status();
        }
    }
}

/// What two machines in namespaces with these shapes measure from `here` to `there`, and back.
fn measured(shapes: [&str; 2]) -> Option<[(f64, f64, f64); 2]> {
    let namespaces = Namespaces::build(shapes)?;
    let dir: TempDir = tempfile::tempdir().unwrap();
    let inside = ["a", "b"].map(|side| format!("{}{side}", namespaces.prefix));
    let at = |side: usize| ["ip", "netns", "exec", inside[side].as_str()];
    let table = measure(dir.path(), &[], (&at(0), "here"), &[(&at(1), "there")]);
    Some([link(&table, "here", "there"), link(&table, "there", "here")])
}

#[test]
fn rates_that_the_system_holds_links_to_are_found() {
    let shapes = ["tbf rate 20mbit burst 32kb latency 200ms", "tbf rate 80mbit burst 32kb latency 100ms"];
    let Some([there, back]) = measured(shapes) else { return };
    // Headers take some of the rate, and a busy machine may not reach it.
    assert!((0.7 * 2.5e6..2.5e6).contains(&there.1), "{there:?}");
    assert!((0.6 * 1e7..1e7).contains(&back.1), "{back:?}");
    assert!(there.0 < 0.01, "{there:?}");
}

#[test]
fn delays_that_the_system_makes_are_found() {
    let shapes = ["netem delay 30ms rate 20mbit limit 1000", "netem delay 20ms rate 80mbit limit 1000"];
    let Some([there, back]) = measured(shapes) else { return };
    // 50 ms there and back, of which each way is said to take half.
    assert!((0.025..0.035).contains(&there.0) && there.0 == back.0, "{there:?}");
    assert!(
        (0.5 * 2.5e6..2.5e6).contains(&there.1) && (0.5 * 1e7..1e7).contains(&back.1),
        "{there:?} {back:?}"
    );
}
