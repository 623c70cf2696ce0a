//! Bounds for a given set of paths, whatever the policy, starts and orders.

use super::one_machine::{Job, preemptive_bound};
use crate::compiled::CompiledInstance;
use crate::simulate::Schedule;

/// Bounds of a set of paths, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathBounds {
    /// The longest unloaded chain.
    pub critical_path_us: u64,
    /// The preemptive one-machine bound of the worst node: each task with its unloaded head and tail.
    pub node_us: u64,
    /// The occupancy of the worst node's memory slots.
    pub memory_us: u64,
}

impl PathBounds {
    /// The largest of them.
    pub fn best_us(&self) -> u64 {
        self.critical_path_us.max(self.node_us).max(self.memory_us)
    }
}

/// A slot's stay: taken at `head`, kept for `length`, and `tail` to go after it.
struct Stay {
    head: u64,
    length: u64,
    tail: u64,
}

/// The bounds of a schedule's paths.
pub(crate) fn path_bounds(compiled: &CompiledInstance, schedule: &Schedule) -> PathBounds {
    let mut jobs: Vec<Vec<Job>> = vec![Vec::new(); compiled.nodes()];
    let mut stays: Vec<Vec<Stay>> = (0..compiled.nodes()).map(|_| Vec::new()).collect();
    let mut critical_path_us = 0;
    for microbatch in 0..schedule.len() {
        let path = schedule.path(microbatch);
        let chain = compiled.chain(path);
        let total: u64 = chain.iter().map(|task| task.1 + task.2).sum();
        critical_path_us = critical_path_us.max(total);
        let mut head = 0;
        let mut heads = Vec::with_capacity(chain.len());
        for (node, duration, transfer) in &chain {
            jobs[*node].push(Job { head, duration: *duration, tail: total - head - duration });
            heads.push(head);
            head += duration + transfer;
        }
        for (place, node) in path.iter().enumerate() {
            let back = chain.len() - 1 - place;
            let end = heads[back] + chain[back].1;
            stays[*node as usize].push(Stay {
                head: heads[place],
                length: end - heads[place],
                tail: total - end,
            });
        }
    }
    let node_us = jobs.iter_mut().map(|jobs| preemptive_bound(jobs)).max().unwrap_or(0);
    let memory_us = stays.iter().zip(&compiled.memory).map(|(stays, slots)| slot_bound(stays, *slots)).max();
    PathBounds { critical_path_us, node_us, memory_us: memory_us.unwrap_or(0) }
}

/// Some slot serves at least ⌈stays / slots⌉ of them, and some slot is taken for at least its share of the whole.
fn slot_bound(stays: &[Stay], slots: u32) -> u64 {
    if stays.is_empty() {
        return 0;
    }
    let mut lengths: Vec<u64> = stays.iter().map(|stay| stay.length).collect();
    lengths.sort_unstable();
    let turns = lengths.len().div_ceil(slots as usize);
    let share = lengths.iter().sum::<u64>().div_ceil(u64::from(slots));
    let busiest: u64 = lengths[..turns].iter().sum();
    let head = stays.iter().map(|stay| stay.head).min().unwrap_or(0);
    let tail = stays.iter().map(|stay| stay.tail).min().unwrap_or(0);
    head + share.max(busiest) + tail
}
