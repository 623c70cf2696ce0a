//! Jackson's preemptive schedule of one machine.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A job: it arrives after `head`, works for `duration`, and is through `tail` later. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Job {
    pub(crate) head: u64,
    pub(crate) duration: u64,
    pub(crate) tail: u64,
}

/// The least possible max(completion + tail) of jobs that one machine does with preemption (Jackson 1955; Carlier
/// 1982): at every time the arrived job of largest tail runs. Sorts `jobs`.
pub(crate) fn preemptive_bound(jobs: &mut [Job]) -> u64 {
    jobs.sort_unstable();
    let mut waiting: BinaryHeap<(u64, Reverse<usize>)> = BinaryHeap::new();
    let mut rest: Vec<u64> = jobs.iter().map(|job| job.duration).collect();
    let (mut now, mut best, mut next) = (0_u64, 0_u64, 0_usize);
    while next < jobs.len() || !waiting.is_empty() {
        if waiting.is_empty() {
            now = now.max(jobs[next].head);
        }
        while next < jobs.len() && jobs[next].head <= now {
            waiting.push((jobs[next].tail, Reverse(next)));
            next += 1;
        }
        let Some((tail, Reverse(job))) = waiting.peek().copied() else { break };
        let step = jobs.get(next).map_or(rest[job], |arrival| rest[job].min(arrival.head - now));
        now += step;
        rest[job] -= step;
        if rest[job] == 0 {
            waiting.pop();
            best = best.max(now + tail);
        }
    }
    best
}
