//! Bounds of a placement over all its paths, and of an instance over all placements.

use super::round_trip::{least_round_trips, walk};
use super::shared::shared_bound;
use super::turns::turns_bound;
use crate::compiled::{CompiledInstance, MICROSECONDS};
use crate::instance::Quota;

/// Bounds that hold for every plan with a given placement, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacementBounds {
    /// The origins' slots and machines: their microbatches take turns in both, each round trip at least the least one long.
    pub slots_us: u64,
    /// The origins' slots, the relays' time and the stages' visits together; 0 for full pipelines, and where it would take
    /// too long.
    pub shared_us: u64,
}

impl PlacementBounds {
    /// The bounds of `stages`, for full or partial pipelines.
    pub(crate) fn new(compiled: &CompiledInstance, stages: &[Vec<u32>], full: bool) -> Self {
        let trips = least_round_trips(compiled, stages, full);
        let origins: Vec<usize> = stages.first().into_iter().flatten().map(|node| *node as usize).collect();
        let slots_us = if full {
            any_split_bound(compiled, &origins, &trips)
        } else {
            let turns = origins.iter().zip(&trips).enumerate();
            turns
                .map(|(place, (origin, trip))| {
                    turns_bound(compiled, *origin, *trip, compiled.instance().quota(place))
                })
                .max()
                .unwrap_or(0)
        };
        Self { slots_us, shared_us: 0 }
    }

    /// The same with [`shared_us`](Self::shared_us), which takes some milliseconds.
    pub(crate) fn with_shared(self, compiled: &CompiledInstance, stages: &[Vec<u32>], full: bool) -> Self {
        let shared_us = if full { 0 } else { shared_bound(compiled, stages, self.slots_us) };
        Self { shared_us, ..self }
    }

    /// The largest of them.
    pub fn best_us(&self) -> u64 {
        self.slots_us.max(self.shared_us)
    }
}

/// Least T in which all origins together can send all microbatches, with any split of them.
fn any_split_bound(compiled: &CompiledInstance, origins: &[usize], trips: &[u64]) -> u64 {
    let total = u64::from(compiled.instance().total_microbatches);
    let sent = |end: u64| -> u64 {
        let each = origins.iter().zip(trips);
        each.map(|(origin, trip)| u64::from(compiled.memory[*origin]) * (end / (*trip).max(1))).sum()
    };
    let (mut low, mut high) = (0, total * trips.iter().copied().min().unwrap_or(0).max(1));
    while low < high {
        let middle = low + (high - low) / 2;
        if sent(middle) >= total {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// Bounds that hold for every placement, microseconds. Both assume that all stages have as many layers; where the
/// origin's differ they are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceBounds {
    /// As for a placement, with relays anywhere: of the origins, some node is no better than the P₀-th best.
    pub latency_us: u64,
    /// All work over all speed.
    pub work_us: u64,
}

impl InstanceBounds {
    /// The bounds of a partial pipeline.
    pub(crate) fn new(compiled: &CompiledInstance) -> Self {
        let instance = compiled.instance();
        if compiled.has_scaled_origin() {
            return Self { latency_us: 0, work_us: 0 };
        }
        let count = match &instance.microbatches_per_origin {
            Quota::Each(each) => *each,
            Quota::List(list) => list.iter().copied().min().unwrap_or(0),
        };
        let relays: Vec<usize> = (0..compiled.nodes()).collect();
        let steps = compiled.path_length() - 1;
        let mut turns: Vec<u64> = (0..compiled.nodes())
            .map(|origin| {
                let own = compiled.origin_forward[origin]
                    + compiled.loss[origin]
                    + compiled.origin_backward[origin];
                turns_bound(compiled, origin, own + walk(compiled, origin, &relays, steps), count)
            })
            .collect();
        turns.sort_unstable();
        let latency_us = turns.get(instance.origins().saturating_sub(1)).copied().unwrap_or(0);
        let length = f64::from(instance.path_len);
        let units = f64::from(instance.total_microbatches)
            * (length * (1.0 + instance.backward_ratio) + instance.loss_ratio)
            * f64::from(instance.layers_per_stage)
            * f64::from(instance.samples_per_mb);
        let speed: f64 = instance.nodes.iter().map(|node| 1.0 / node.compute_s_per_layer_sample).sum();
        // Tasks are rounded to microseconds each: half of one may be missing from every task.
        let tasks = f64::from(instance.total_microbatches) * (2.0 * length + 1.0);
        let work_us = (units / speed * MICROSECONDS - tasks).max(0.0) as u64;
        Self { latency_us, work_us }
    }

    /// The larger of the two.
    pub fn best_us(&self) -> u64 {
        self.latency_us.max(self.work_us)
    }
}
