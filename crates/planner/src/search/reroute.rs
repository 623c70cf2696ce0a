//! The way of a microbatch that ends first, through what all others leave free.

use super::draft::Draft;
use crate::compiled::CompiledInstance;
use crate::plan::TaskKind;
use crate::random::Random;
use crate::simulate::{CostWeights, Simulator, Verdict, Watch};

/// Nodes of a stage that are tried on from one place of a way.
const BREADTH: usize = 8;
/// Nodes that are stepped on in the search for one way.
const LOOKS_MAX: usize = 400;

/// A time in which a microbatch takes a node, or a slot of it, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    start: u64,
    end: u64,
    microbatch: u32,
}

/// When the nodes of a draft work, and for how long they hold slots.
#[derive(Debug, Clone, Default)]
struct Timetable {
    /// Tasks of each node, by time.
    busy: Vec<Vec<Taken>>,
    /// Slots of each node: from the start of a forward to the end of its backward.
    held: Vec<Vec<Taken>>,
    /// When each microbatch starts at its origin.
    start: Vec<u64>,
}

impl Watch for Timetable {
    fn task(&mut self, start: u64, end: u64, node: u32, microbatch: u32, kind: TaskKind) {
        self.busy[node as usize].push(Taken { start, end, microbatch });
        let held = &mut self.held[node as usize];
        match kind {
            TaskKind::Forward => held.push(Taken { start, end: u64::MAX, microbatch }),
            TaskKind::Loss => {}
            TaskKind::Backward => {
                let own = held.iter_mut().filter(|slot| slot.microbatch == microbatch);
                own.for_each(|slot| slot.end = end);
            }
        }
        let first = &mut self.start[microbatch as usize];
        *first = start.min(*first);
    }
}

impl Timetable {
    fn clear(&mut self, nodes: usize, microbatches: usize) {
        for lists in [&mut self.busy, &mut self.held] {
            lists.resize(nodes, Vec::new());
            lists.iter_mut().for_each(Vec::clear);
        }
        self.start.clear();
        self.start.resize(microbatches, u64::MAX);
    }

    /// The first time from `at` on at which a node has `duration` to spare between its tasks.
    fn gap(&self, node: usize, mut at: u64, duration: u64) -> u64 {
        for task in &self.busy[node] {
            if task.start >= at + duration {
                break;
            }
            at = at.max(task.end);
        }
        at
    }

    /// The first time from `at` on at which a relay has the time for a forward, and a slot.
    fn forward(&self, compiled: &CompiledInstance, node: usize, mut at: u64) -> u64 {
        loop {
            at = self.gap(node, at, compiled.forward[node]);
            let holds = |slot: &&Taken| slot.start <= at && at < slot.end;
            let (mut count, mut freed) = (0, u64::MAX);
            for slot in self.held[node].iter().filter(holds) {
                count += 1;
                freed = freed.min(slot.end);
            }
            if count < compiled.memory[node] || freed == u64::MAX {
                return at;
            }
            at = freed;
        }
    }

    fn take(&mut self, node: u32, taken: Taken) {
        let tasks = &mut self.busy[node as usize];
        let place = tasks.partition_point(|task| task.start < taken.start);
        tasks.insert(place, taken);
    }

    fn leave(&mut self, node: u32, microbatch: u32) {
        self.busy[node as usize].retain(|task| task.microbatch != microbatch);
        self.held[node as usize].retain(|slot| slot.microbatch != microbatch);
    }
}

/// What a way is looked for in.
#[derive(Debug, Clone, Copy)]
struct Question<'a> {
    compiled: &'a CompiledInstance,
    draft: &'a Draft,
    /// The path whose stages are visited.
    path: &'a [u32],
    /// Mean of what is added to each end, microseconds, so that it is not always the same one.
    noise_us: f64,
}

/// Finds ways. Keeps its memory between questions, and the timetable of a draft until told to forget it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rerouter {
    known: Timetable,
    is_known: bool,
    /// The timetable without the microbatches that are on their way.
    left: Timetable,
    /// Nodes where it differs from the known one.
    touched: Vec<u32>,
    way: Vec<u32>,
    best: Vec<u32>,
    best_end: u64,
    looks: usize,
}

impl Rerouter {
    /// The draft has changed.
    pub(crate) fn forget(&mut self) {
        self.is_known = false;
    }

    /// Gives each of `microbatches` the nodes of the stages that it visits in `candidate` on which it ends first, if it starts
    /// when it does in `current` and all others do what they do there. False where every path is that of `current`.
    ///
    /// A way fits into the time that others leave, so who comes later may find a node taken: only a simulation tells what
    /// the candidate is worth.
    pub(crate) fn reroute(
        &mut self,
        compiled: &CompiledInstance,
        simulator: &mut Simulator,
        (current, candidate): (&Draft, &mut Draft),
        microbatches: &[usize],
        noise_us: f64,
        random: &mut Random,
    ) -> bool {
        if !self.learn(compiled, simulator, current) {
            return false;
        }
        for microbatch in microbatches {
            for node in current.path(*microbatch) {
                self.left.leave(*node, *microbatch as u32);
                self.touched.push(*node);
            }
        }
        let mut differs = false;
        for microbatch in microbatches {
            let path = candidate.path(*microbatch);
            let question = Question { compiled, draft: candidate, path, noise_us };
            self.find(question, self.known.start[*microbatch], random);
            differs |= self.best != current.path(*microbatch);
            candidate.path_mut(*microbatch).copy_from_slice(&self.best);
            self.settle(compiled, *microbatch as u32);
        }
        for node in self.touched.drain(..) {
            let node = node as usize;
            self.left.busy[node].clone_from(&self.known.busy[node]);
            self.left.held[node].clone_from(&self.known.held[node]);
        }
        differs
    }

    /// The timetable of `draft`; false where it never ends.
    fn learn(&mut self, compiled: &CompiledInstance, simulator: &mut Simulator, draft: &Draft) -> bool {
        if !self.is_known {
            self.known.clear(compiled.nodes(), draft.len());
            let weights = CostWeights::MAKESPAN;
            let verdict = simulator.run(compiled, &draft.schedule, weights, u64::MAX, &mut self.known);
            self.is_known = matches!(verdict, Verdict::Done { .. });
            self.left.clone_from(&self.known);
        }
        self.is_known
    }

    /// Makes `best` the best way; the path itself where none is found.
    fn find(&mut self, question: Question, start: u64, random: &mut Random) {
        let Question { compiled, path, .. } = question;
        let origin = path[0] as usize;
        self.best.clear();
        self.best.extend_from_slice(path);
        self.best_end = u64::MAX;
        self.looks = 0;
        self.way.clear();
        self.way.push(path[0]);
        let tail = compiled.loss[origin] + compiled.origin_backward[origin];
        self.extend(question, start + compiled.origin_forward[origin], tail, random);
    }

    /// Tries all ways on from the one so far, whose last forward ends at `at`; what comes after its last relay's gradient takes
    /// `back` at least.
    fn extend(&mut self, question: Question, at: u64, back: u64, random: &mut Random) {
        let Question { compiled, draft, path, noise_us } = question;
        let place = self.way.len();
        let (from, origin) = (self.way[place - 1] as usize, path[0] as usize);
        if place == path.len() {
            let end = self.end(compiled, at) + (noise_us * random.exponential()) as u64;
            if end < self.best_end {
                self.best_end = end;
                self.best.clone_from(&self.way);
            }
            return;
        }
        // The nodes from which it could end first, in order.
        let mut nearest = [(u64::MAX, 0, 0); BREADTH];
        let mut count = 0;
        for node in &draft.stages[draft.stage_of(path[place])] {
            let own = *node as usize;
            let start = self.left.forward(compiled, own, at + compiled.transfer_us(from, own));
            let done = start + compiled.forward[own];
            let after = back + compiled.backward[own] + compiled.transfer_us(own, from);
            let least = done + compiled.both_ways_us(own, origin) + after;
            if least >= self.best_end || (count == BREADTH && least >= nearest[BREADTH - 1].0) {
                continue;
            }
            count = (count + 1).min(BREADTH);
            let rank = nearest[..count - 1].partition_point(|other| other.0 <= least);
            nearest[rank..count].rotate_right(1);
            nearest[rank] = (least, done, *node);
        }
        for (least, done, node) in nearest.into_iter().take(count) {
            if least >= self.best_end || self.looks >= LOOKS_MAX {
                break;
            }
            self.looks += 1;
            let own = node as usize;
            let after = back + compiled.backward[own] + compiled.transfer_us(own, from);
            self.way.push(node);
            self.extend(question, done, after, random);
            self.way.pop();
        }
    }

    /// The end of a way whose last forward ends at `at`.
    fn end(&self, compiled: &CompiledInstance, mut at: u64) -> u64 {
        let origin = self.way[0] as usize;
        let mut from = self.way[self.way.len() - 1] as usize;
        at = self.left.gap(origin, at + compiled.transfer_us(from, origin), compiled.loss[origin]);
        at += compiled.loss[origin];
        from = origin;
        for node in self.way[1..].iter().rev() {
            let (own, duration) = (*node as usize, compiled.backward[*node as usize]);
            at = self.left.gap(own, at + compiled.transfer_us(from, own), duration) + duration;
            from = own;
        }
        let duration = compiled.origin_backward[origin];
        self.left.gap(origin, at + compiled.transfer_us(from, origin), duration) + duration
    }

    /// Enters the tasks and slots of the best way, but for the origin's slot, which start times stand for.
    fn settle(&mut self, compiled: &CompiledInstance, microbatch: u32) {
        let Self { left, known, touched, best, .. } = self;
        let origin = best[0] as usize;
        touched.extend_from_slice(best);
        let (mut at, mut from) = (known.start[microbatch as usize], origin);
        for (place, node) in best.iter().enumerate() {
            let own = *node as usize;
            let duration = if place == 0 { compiled.origin_forward[own] } else { compiled.forward[own] };
            if place > 0 {
                at = left.forward(compiled, own, at + compiled.transfer_us(from, own));
                left.held[own].push(Taken { start: at, end: u64::MAX, microbatch });
            }
            left.take(*node, Taken { start: at, end: at + duration, microbatch });
            at += duration;
            from = own;
        }
        let back = best[1..].iter().rev().map(|node| (*node, compiled.backward[*node as usize], true));
        let last = [(best[0], compiled.origin_backward[origin], false)];
        let loss = [(best[0], compiled.loss[origin], false)];
        for (node, duration, is_relay) in loss.into_iter().chain(back).chain(last) {
            let own = node as usize;
            at = left.gap(own, at + compiled.transfer_us(from, own), duration);
            left.take(node, Taken { start: at, end: at + duration, microbatch });
            at += duration;
            from = own;
            if is_relay {
                let slots = left.held[own].iter_mut();
                slots.filter(|slot| slot.microbatch == microbatch).for_each(|slot| slot.end = at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{DrawnSize, draw_instance};
    use crate::search::construct::first_draft;
    use crate::search::{Guide, Objective};

    fn drawn(seed: u64) -> (CompiledInstance, Draft) {
        let size = DrawnSize { nodes: 24, stages: 5, path_len: 4, regions: 6 };
        let compiled = CompiledInstance::new(&draw_instance(size, seed)).expect("an instance");
        let guide = Guide::new(&compiled, Objective::Makespan);
        let draft = first_draft(&compiled, &guide, &mut Random::new(&[seed])).expect("paths");
        (compiled, draft)
    }

    /// End of the only microbatch of a schedule, microseconds.
    fn end_alone(compiled: &CompiledInstance, draft: &Draft, path: &[u32]) -> u64 {
        let alone = Draft::new(compiled, draft.stages.clone(), path.to_vec());
        let simulator = &mut Simulator::default();
        match simulator.run(compiled, &alone.schedule, CostWeights::MAKESPAN, u64::MAX, &mut ()) {
            Verdict::Done { makespan_us, .. } => makespan_us,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn alone_a_microbatch_gets_the_way_that_ends_first_of_all() {
        for seed in 0..12 {
            let (compiled, draft) = drawn(seed);
            let path = draft.path(0).to_vec();
            let alone = Draft::new(&compiled, draft.stages.clone(), path.clone());
            let members = |place: usize| &draft.stages[draft.stage_of(path[place])];
            let mut least = u64::MAX;
            for second in members(1) {
                for third in members(2) {
                    for fourth in members(3) {
                        let way = [path[0], *second, *third, *fourth];
                        least = least.min(end_alone(&compiled, &draft, &way));
                    }
                }
            }
            let (mut candidate, mut rerouter) = (alone.clone(), Rerouter::default());
            let (simulator, random) = (&mut Simulator::default(), &mut Random::new(&[seed]));
            let drafts = (&alone, &mut candidate);
            let differs = rerouter.reroute(&compiled, simulator, drafts, &[0], 0.0, random);
            let found = end_alone(&compiled, &draft, candidate.path(0));
            // It prunes by the direct way home, which a detour can beat.
            assert!(found <= least + least / 50, "seed {seed}: {found} {least}");
            assert_eq!(differs, candidate.path(0) != path);
        }
    }

    #[test]
    fn only_the_paths_asked_for_change_and_they_keep_their_stages() {
        let (mut changes, mut better) = (0, 0);
        for seed in 0..8 {
            let (compiled, current) = drawn(seed);
            let (simulator, random) = (&mut Simulator::default(), &mut Random::new(&[seed]));
            let mut rerouter = Rerouter::default();
            let guide = Guide::new(&compiled, Objective::Makespan);
            let before = guide.score(&compiled, &current, simulator, u64::MAX).expect("it ends").cost;
            for first in 0..current.len() {
                let asked = [first, (first + 1) % current.len()];
                let (mut candidate, mut again) = (current.clone(), current.clone());
                let drafts = (&current, &mut candidate);
                let differs = rerouter.reroute(&compiled, simulator, drafts, &asked, 0.0, random);
                for microbatch in 0..current.len() {
                    let (old, new) = (current.path(microbatch), candidate.path(microbatch));
                    assert!(old == new || asked.contains(&microbatch), "seed {seed}: {old:?} {new:?}");
                    assert!(old.iter().zip(new).all(|(a, b)| current.stage_of(*a) == current.stage_of(*b)));
                }
                // The timetable is as it was.
                assert_eq!(rerouter.left.busy, rerouter.known.busy);
                assert_eq!(rerouter.left.held, rerouter.known.held);
                rerouter.reroute(&compiled, simulator, (&current, &mut again), &asked, 0.0, random);
                assert_eq!(candidate.schedule.nodes, again.schedule.nodes);
                changes += usize::from(differs);
                let after = guide.score(&compiled, &candidate, simulator, u64::MAX);
                better += usize::from(after.is_some_and(|after| after.cost < before));
            }
        }
        // Random changes of two paths are better one time in ten.
        assert!(changes > 100 && better * 3 > changes, "{better} of {changes}");
    }

    #[test]
    fn a_forward_waits_for_time_and_for_a_slot() {
        let (compiled, _) = drawn(0);
        let duration = compiled.forward[0];
        assert_eq!(compiled.memory[0], 3);
        let mut timetable = Timetable::default();
        timetable.clear(compiled.nodes(), 4);
        let taken = |start, end, microbatch| Taken { start, end, microbatch };
        timetable.take(0, taken(10 + duration, 20 + duration, 0));
        timetable.take(0, taken(0, 10, 1));
        // Just enough between the tasks; a microsecond later no more.
        assert_eq!(timetable.forward(&compiled, 0, 0), 10);
        assert_eq!(timetable.forward(&compiled, 0, 11), 20 + duration);
        for (microbatch, end) in [(1, 70), (2, 60), (3, 50)] {
            timetable.held[0].push(taken(5, end * duration, microbatch));
        }
        assert_eq!(timetable.forward(&compiled, 0, 0), 50 * duration);
        timetable.leave(0, 2);
        assert_eq!(timetable.forward(&compiled, 0, 0), 10);
    }
}
