//! What a draft will cost, told without simulating it.

use super::draft::Draft;
use super::objective::Guide;
use crate::compiled::CompiledInstance;

/// How much of the makespan is that of the origin with the longest trips; the rest is that of the mean origin.
const LONGEST: f64 = 0.5;
/// How much a relay's load counts, which makes microbatches wait: the square of its work, and of the time for which its
/// slots are held, in shares of the mean makespan.
const CROWDING: f64 = 0.5;

/// Nodes of paths that are compared at once.
const BLOCK: usize = 16;

/// An estimate of a draft's cost, and what it is made of.
///
/// Every microbatch takes its unloaded trip, an origin's slots take turns without waiting, and relays with more to do than
/// others cost more than in proportion. What is missing is who waits for whom: only a simulation tells.
#[derive(Debug, Clone)]
pub(crate) struct Estimate {
    /// In units of the guide's cost.
    pub(crate) cost: f64,
    /// Unloaded trips of each origin's microbatches, microseconds in all, by node.
    trips: Vec<u64>,
    /// Work of each relay, microseconds, by node.
    work: Vec<u64>,
    /// For how long slots of each relay are held, microseconds in all, by node.
    held: Vec<u64>,
}

impl Estimate {
    /// The estimate of `draft`.
    pub(crate) fn new(compiled: &CompiledInstance, guide: &Guide, draft: &Draft) -> Self {
        let none = vec![0; compiled.nodes()];
        let mut estimate = Self { cost: 0.0, trips: none.clone(), work: none.clone(), held: none };
        for microbatch in 0..draft.len() {
            estimate.count(compiled, draft.path(microbatch), u64::wrapping_add);
        }
        estimate.refresh(compiled, guide, draft);
        estimate
    }

    /// The estimate of `candidate`, from that of `current`, which has as many microbatches.
    pub(crate) fn follow(
        &mut self,
        compiled: &CompiledInstance,
        guide: &Guide,
        (known, current): (&Self, &Draft),
        candidate: &Draft,
    ) {
        self.trips.clone_from(&known.trips);
        self.work.clone_from(&known.work);
        self.held.clone_from(&known.held);
        // Almost all paths are the same: look at many nodes at once.
        let length = compiled.path_length();
        let (old, new) = (&current.schedule.nodes, &candidate.schedule.nodes);
        let mut counted = 0;
        for (block, (olds, news)) in old.chunks(BLOCK).zip(new.chunks(BLOCK)).enumerate() {
            if olds.iter().zip(news).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0 {
                continue;
            }
            let first = counted.max(block * BLOCK / length);
            counted = (block * BLOCK + olds.len()).div_ceil(length);
            for path in (first..counted).map(|microbatch| microbatch * length..(microbatch + 1) * length) {
                if old[path.clone()] != new[path.clone()] {
                    self.count(compiled, &old[path.clone()], u64::wrapping_sub);
                    self.count(compiled, &new[path], u64::wrapping_add);
                }
            }
        }
        self.refresh(compiled, guide, candidate);
    }

    /// Puts a path into the sums, or takes it out.
    #[inline]
    fn count(&mut self, compiled: &CompiledInstance, path: &[u32], put: impl Fn(u64, u64) -> u64) {
        let (origin, last) = (path[0] as usize, path[path.len() - 1] as usize);
        // From the inside out: the loss, then the relays, the last one first.
        let mut trip = compiled.loss[origin] + compiled.both_ways_us(last, origin);
        for place in (1..path.len()).rev() {
            let node = path[place] as usize;
            let own = compiled.forward[node] + compiled.backward[node];
            trip += own;
            self.work[node] = put(self.work[node], own);
            self.held[node] = put(self.held[node], trip);
            trip += compiled.both_ways_us(path[place - 1] as usize, node);
        }
        trip += compiled.origin_forward[origin] + compiled.origin_backward[origin];
        self.trips[origin] = put(self.trips[origin], trip);
    }

    /// The cost that follows from the sums.
    fn refresh(&mut self, compiled: &CompiledInstance, guide: &Guide, draft: &Draft) {
        let (mut longest, mut all, mut ends) = (0.0_f64, 0.0, 0.0);
        for (place, origin) in draft.stages[0].iter().enumerate() {
            let trips = self.trips[*origin as usize] as f64;
            let count = f64::from(compiled.instance().quota(place).max(1));
            let slots = f64::from(compiled.memory[*origin as usize]).clamp(1.0, count);
            longest = longest.max(trips / slots);
            all += trips / slots;
            // With r rounds of all slots the n-th ends after n trips.
            ends += trips * (count / slots + 1.0) / 2.0;
        }
        let mean = (all / draft.stages[0].len().max(1) as f64).max(1.0);
        let (mut crowding, mut relays) = (0.0, 0_usize);
        for node in draft.stages[1..].iter().flatten() {
            let node = *node as usize;
            let work = self.work[node] as f64;
            let held = self.held[node] as f64 / f64::from(compiled.memory[node].max(1));
            crowding += work * work + held * held;
            relays += 1;
        }
        let crowding = CROWDING * crowding / (mean * relays.max(1) as f64);
        let makespan = LONGEST * longest + (1.0 - LONGEST) * mean + crowding;
        self.cost = guide.cost(makespan, ends) + guide.fixed(compiled, draft).cost as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{DrawnSize, draw_instance};
    use crate::random::Random;
    use crate::search::construct::first_draft;
    use crate::search::{Moves, Objective};

    #[test]
    fn an_estimate_that_follows_steps_is_that_of_the_draft_anew() {
        for seed in 0..4 {
            let size = DrawnSize { nodes: 14, stages: 5, path_len: 4, regions: 5 };
            let compiled = CompiledInstance::new(&draw_instance(size, seed)).expect("an instance");
            let guide = Guide::new(&compiled, Objective::Iteration);
            let random = &mut Random::new(&[seed]);
            let mut current = first_draft(&compiled, &guide, random).expect("paths");
            let mut estimate = Estimate::new(&compiled, &guide, &current);
            let (mut followed, moves) = (estimate.clone(), Moves::new(&compiled));
            let mut changes = 0;
            for _ in 0..2000 {
                let mut candidate = current.clone();
                if !moves.step(&compiled, &mut candidate, random) {
                    continue;
                }
                followed.follow(&compiled, &guide, (&estimate, &current), &candidate);
                assert_eq!(followed.cost, Estimate::new(&compiled, &guide, &candidate).cost);
                changes += usize::from(followed.cost != estimate.cost);
                std::mem::swap(&mut estimate, &mut followed);
                current = candidate;
            }
            assert!(changes > 500, "{changes}");
        }
    }
}
