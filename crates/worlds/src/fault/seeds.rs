//! Many seeds on several threads.

use super::{Options, SeedsReport, simulate, simulate_traced};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Violations that are run again for a trace; the others only tell their seed.
const TRACED_MAX: usize = 8;

/// Simulates every seed of the range. `progress` is told how many are done and how many broke a promise.
pub fn run_seeds(
    seeds: RangeInclusive<u64>,
    options: &Options,
    threads: usize,
    progress: &(dyn Fn(u64, usize) + Sync),
) -> SeedsReport {
    let started = Instant::now();
    let next = AtomicU64::new(*seeds.start());
    let report = Mutex::new(SeedsReport::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        break;
                    }
                    let outcome = simulate(seed, options);
                    // A thread that panicked has already ended the run: the numbers are as good as before.
                    let mut report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    report.add(outcome);
                    progress(report.seeds, report.violations.len());
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report.violations.sort_by_key(|violation| violation.seed);
    for violation in report.violations.iter_mut().take(TRACED_MAX) {
        if let Err(traced) = simulate_traced(violation.seed, options) {
            *violation = *traced;
        }
    }
    report.wall_s = started.elapsed().as_secs_f64();
    report
}
