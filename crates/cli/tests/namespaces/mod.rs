//! Network namespaces for tests of several machines: needs root and `ip`.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether a command succeeds; its words are between spaces.
pub(crate) fn run(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Namespaces, each with its loopback up, that are gone at the end.
pub(crate) struct Namespaces {
    /// In front of each name.
    pub(crate) prefix: String,
    names: &'static [&'static str],
}

impl Namespaces {
    /// Makes them, and carries out the lines that follow from their prefix. None, and says so, where the system doesn't let us.
    pub(crate) fn build(names: &'static [&'static str], lines: impl Fn(&str) -> Vec<String>) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let made = Self { prefix: format!("sk{}x{count}", std::process::id()), names };
        let p = &made.prefix;
        let first = names
            .iter()
            .flat_map(|name| [format!("ip netns add {p}{name}"), format!("ip -n {p}{name} link set lo up")]);
        if let Some(line) = first.chain(lines(p)).find(|line| !run(line)) {
            eprintln!("skipped: network namespaces can't be made here ('{line}' fails)");
            return None;
        }
        Some(made)
    }

    /// Starts the program in one of them; what it says on stderr can be read.
    pub(crate) fn start(&self, at: &str, arguments: &[&str]) -> Child {
        Command::new("ip")
            .args(["netns", "exec", &format!("{}{at}", self.prefix), env!("CARGO_BIN_EXE_skipstone")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in self.names {
            run(&format!("ip netns del {}{name}", self.prefix));
        }
    }
}
