//! Whether the machine can hold the model at all: one that can't would end the run, or the whole machine, in mid-training.

use super::RunError;
use crate::config::RunConfig;
use std::fs;

/// Checks that the machine has the memory that `here` nodes of a run take at the least, on an average. Where the system does not tell (it is not
/// Linux) nothing is checked.
pub(super) fn check(config: &RunConfig, here: usize) -> Result<(), RunError> {
    config.settings()?;
    let needed = config.memory_plan_expected()?.least() / config.nodes().max(1) as u64 * here as u64;
    match present_bytes() {
        Some(present) if needed > present => Err(RunError::Memory { needed, present }),
        _ => Ok(()),
    }
}

/// Bytes of memory and swap that this process may use: the machine's, or its container's.
pub(in crate::live) fn present_bytes() -> Option<u64> {
    let machine = meminfo_bytes(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container = container.and_then(|text| text.trim().parse::<u64>().ok());
    Some(container.map_or(machine, |limit| limit.min(machine)))
}

/// `MemTotal` and `SwapTotal` of `/proc/meminfo`, in bytes.
fn meminfo_bytes(text: &str) -> Option<u64> {
    let kib = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    };
    Some((kib("MemTotal:")? + kib("SwapTotal:").unwrap_or(0)) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_system_writes() {
        let text = "MemTotal:       24556932 kB\nMemFree:          1 kB\nSwapTotal:           68 kB\n";
        assert_eq!(meminfo_bytes(text), Some(24_557_000 * 1024));
        assert_eq!(meminfo_bytes("MemFree: 1 kB"), None);
    }
}
