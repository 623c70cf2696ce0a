//! Resident memory of a swarm's processes over time.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(5);

/// Samples kept: more than a day.
const SAMPLES_MAX: usize = 20_000;

/// Resident memory at one time, in bytes; 0 for what is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemorySample {
    /// Milliseconds of the run.
    pub time_ms: u64,
    /// The parent.
    pub parent: u64,
    /// The coordinator.
    pub coordinator: u64,
    /// All nodes together.
    pub nodes: u64,
    /// How many nodes that were.
    pub node_count: u64,
    /// The largest node.
    pub node_max: u64,
}

/// Takes samples.
#[derive(Debug, Default)]
pub(super) struct MemoryWatch {
    next: Duration,
    pub(super) samples: Vec<MemorySample>,
}

impl MemoryWatch {
    /// Takes a sample when it is time.
    pub(super) fn look(&mut self, elapsed: Duration, coordinator: Option<u32>, nodes: &[u32]) {
        if elapsed < self.next || self.samples.len() >= SAMPLES_MAX {
            return;
        }
        self.next = elapsed + EVERY;
        let nodes: Vec<u64> = nodes.iter().filter_map(|process| resident_bytes(*process)).collect();
        self.samples.push(MemorySample {
            time_ms: elapsed.as_millis() as u64,
            parent: resident_bytes(std::process::id()).unwrap_or(0),
            coordinator: coordinator.and_then(resident_bytes).unwrap_or(0),
            nodes: nodes.iter().sum(),
            node_count: nodes.len() as u64,
            node_max: nodes.iter().copied().max().unwrap_or(0),
        });
    }
}

/// Resident memory of a process, where the system tells it (Linux).
fn resident_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
