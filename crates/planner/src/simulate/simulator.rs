//! The event-driven simulation of one iteration (`docs/instances.md`, "Time").

use super::links::SerialLinks;
use super::schedule::{NONE, Schedule};
use super::tournament::Tournament;
use super::turns::Turns;
use crate::compiled::CompiledInstance;
use crate::plan::{DispatchPolicy, TaskKind};

/// Bits of a microbatch in keys.
const MICROBATCH_BITS: u32 = 18;
/// Bits of time in keys.
const TIME_BITS: u32 = 43;
/// In an event: the task is ready, not finished.
const READY: u64 = 1 << MICROBATCH_BITS;
const TIME_SHIFT: u32 = MICROBATCH_BITS + 1;

/// What a simulation reports while it runs.
pub(crate) trait Watch {
    /// `node` works on a task.
    fn task(&mut self, _start: u64, _end: u64, _node: u32, _microbatch: u32, _kind: TaskKind) {}
    /// A tensor travels; `start` is when the link takes it.
    fn transfer(&mut self, _start: u64, _end: u64, _from: u32, _to: u32, _microbatch: u32, _kind: TaskKind) {}
    /// A task could start as far as its input goes.
    fn ready(&mut self, _at: u64, _node: u32, _microbatch: u32, _kind: TaskKind) {}
}

impl Watch for () {}

/// How costs are counted: `makespan · makespan_us + finish · Σ finish_us`, in units of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CostWeights {
    /// Weight of the makespan.
    pub(crate) makespan: u64,
    /// Weight of the sum of all finishes.
    pub(crate) finish: u64,
}

impl CostWeights {
    /// Only the makespan counts.
    pub(crate) const MAKESPAN: Self = Self { makespan: 1, finish: 0 };

    /// The cost of a schedule.
    #[inline]
    pub(crate) fn cost(self, makespan_us: u64, finish_us: u64) -> u64 {
        makespan_us.saturating_mul(self.makespan).saturating_add(finish_us.saturating_mul(self.finish))
    }
}

/// How a simulation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every microbatch finished.
    Done {
        /// End of the last backward, microseconds; of the last tail where nodes have any.
        makespan_us: u64,
        /// Sum of all microbatches' ends.
        finish_us: u64,
    },
    /// Its cost is certainly above the limit.
    Over,
    /// So many microbatches never finish.
    Deadlock {
        /// How many.
        left: usize,
    },
}

/// One step of a microbatch's way: where it computes, for how long, and the transfer that follows.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    duration: u64,
    /// Until the next task is ready.
    transfer: u64,
    /// Unloaded time from this step's start to the microbatch's end.
    tail: u64,
    node: u32,
    /// Whether the microbatch's slot here is one that a node keeps its last from: the path goes back from here.
    goes_back: bool,
}

/// State of a node.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// First and last of the ready forwards, by key; the list goes on in `next`.
    forwards: (u32, u32),
    /// The same for backwards and losses.
    others: (u32, u32),
    /// Free slots.
    free: u32,
    /// Slots that paths hold which go back from here, and how many of them may.
    back: u32,
    back_max: u32,
    /// Whether it works.
    busy: bool,
    /// Whether it may take a task now.
    touched: bool,
    /// How much of its strict order is done.
    done: u32,
}

/// Simulates schedules. Keeps its memory between runs: a run allocates nothing once sizes have been seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Simulator {
    events: Tournament,
    steps: Vec<Step>,
    /// Where each microbatch's steps begin.
    first: Vec<u32>,
    /// The step that each microbatch is at.
    at: Vec<u32>,
    /// Key in the list of ready tasks, and the next one there.
    key: Vec<u64>,
    next: Vec<u32>,
    nodes: Vec<Node>,
    touched: Vec<u32>,
    /// Unloaded lower bound of each microbatch's end, as far as is known; its end once it has ended.
    finish: Vec<u64>,
    /// When each microbatch may start.
    release: Vec<u64>,
    /// Microbatches that wait for another: first of each, and the next one.
    follower: Vec<u32>,
    follows: Vec<u32>,
    links: SerialLinks,
    /// Who waits for a slot of its origin.
    turns: Turns,
    seen: Vec<bool>,
    /// What comes after the last backward of each node, microseconds; empty: nothing.
    tails: Vec<u64>,
    /// Whether a microbatch's current task is ready; used with strict orders only.
    is_ready: Vec<bool>,
}

impl Simulator {
    /// In the next runs the makespan is the latest end of a backward plus its node's tail.
    pub(crate) fn set_tails(&mut self, tails: impl Iterator<Item = u64>) {
        self.tails.clear();
        self.tails.extend(tails);
    }

    /// Simulates `schedule` to its end, or until its cost is above `limit` for certain.
    pub(crate) fn run<W: Watch>(
        &mut self,
        compiled: &CompiledInstance,
        schedule: &Schedule,
        weights: CostWeights,
        limit: u64,
        watch: &mut W,
    ) -> Verdict {
        if compiled.has_serial_links() || compiled.has_trained_order() || !schedule.order.is_empty() {
            self.simulate::<W, true>(compiled, schedule, weights, limit, watch)
        } else {
            self.simulate::<W, false>(compiled, schedule, weights, limit, watch)
        }
    }

    /// `RARE`: links may be serial, nodes may have strict orders, paths may go back as those of a swarm that trains.
    fn simulate<W: Watch, const RARE: bool>(
        &mut self,
        compiled: &CompiledInstance,
        schedule: &Schedule,
        weights: CostWeights,
        limit: u64,
        watch: &mut W,
    ) -> Verdict {
        let count = schedule.len();
        self.reset(compiled, schedule);
        let (mut left, mut makespan) = (count, 0_u64);
        let mut finish_sum: u64 = self.finish.iter().sum();
        let mut latest = self.finish.iter().copied().max().unwrap_or(0);
        loop {
            if weights.cost(latest, finish_sum) > limit {
                return Verdict::Over;
            }
            let earliest = self.events.earliest();
            if earliest == Tournament::NEVER {
                break;
            }
            let now = earliest >> TIME_SHIFT;
            loop {
                let event = self.events.earliest();
                if event >> TIME_SHIFT != now {
                    break;
                }
                let microbatch = (event & (READY - 1)) as usize;
                let first = self.first[microbatch];
                let at = self.at[microbatch];
                let step = self.steps[(first + at) as usize];
                let length = self.first[microbatch + 1] - first;
                self.touch(step.node);
                let state = &mut self.nodes[step.node as usize];
                if event & READY == 0 {
                    state.busy = false;
                    state.free += u32::from(at > length / 2);
                    if RARE {
                        state.back -= u32::from(at > length / 2 && step.goes_back);
                    }
                    if at > length / 2
                        && let Some(tail) = self.tails.get(step.node as usize)
                    {
                        makespan = makespan.max(now + tail);
                    }
                    if at + 1 < length {
                        self.at[microbatch] = at + 1;
                        let following = self.steps[(first + at + 1) as usize];
                        let mut start = now;
                        if RARE && compiled.has_serial_links() && following.node != step.node {
                            let sending = compiled.sending_us(step.node as usize, following.node as usize);
                            start = self.links.send(step.node, following.node, now, sending);
                        }
                        let arrival = start + step.transfer;
                        let end = arrival + following.tail;
                        self.move_end(microbatch, end, &mut finish_sum, &mut latest);
                        let kind = kind_of(at + 1, length);
                        watch.transfer(start, arrival, step.node, following.node, microbatch as u32, kind);
                        self.events.set(microbatch, arrival << TIME_SHIFT | READY | microbatch as u64);
                    } else {
                        self.events.set(microbatch, Tournament::NEVER);
                        makespan = makespan.max(now);
                        left -= 1;
                        let mut other = self.follower[microbatch];
                        while other != NONE {
                            let start = now.max(self.release[other as usize]);
                            let end = start + self.steps[self.first[other as usize] as usize].tail;
                            finish_sum += end - self.finish[other as usize];
                            self.finish[other as usize] = end;
                            latest = latest.max(end);
                            self.events.set(other as usize, start << TIME_SHIFT | READY | u64::from(other));
                            other = self.follows[other as usize];
                        }
                    }
                } else {
                    self.events.set(microbatch, Tournament::NEVER);
                    watch.ready(now, step.node, microbatch as u32, kind_of(at, length));
                    if RARE && schedule.order.get(step.node as usize).is_some_and(Option::is_some) {
                        self.is_ready[microbatch] = true;
                    } else {
                        self.enqueue(schedule, microbatch, step.node, now, at, length);
                    }
                }
            }
            while let Some(node) = self.touched.pop() {
                self.nodes[node as usize].touched = false;
                if self.nodes[node as usize].busy {
                    continue;
                }
                let order =
                    if RARE { schedule.order.get(node as usize).and_then(Option::as_ref) } else { None };
                let chosen = match order {
                    Some(order) => self.take_in_order(order, node),
                    None => self.take::<RARE>(schedule, node),
                };
                let Some(microbatch) = chosen else { continue };
                let microbatch = microbatch as usize;
                let first = self.first[microbatch];
                let at = self.at[microbatch];
                let length = self.first[microbatch + 1] - first;
                let step = &self.steps[(first + at) as usize];
                let state = &mut self.nodes[node as usize];
                state.busy = true;
                state.free -= u32::from(at < length / 2);
                if RARE {
                    state.back += u32::from(at < length / 2 && step.goes_back);
                }
                let (end, done) = (now + step.tail, now + step.duration);
                if at == 0 {
                    self.turns.start(microbatch);
                }
                self.move_end(microbatch, end, &mut finish_sum, &mut latest);
                watch.task(now, done, node, microbatch as u32, kind_of(at, length));
                self.events.set(microbatch, done << TIME_SHIFT | microbatch as u64);
            }
        }
        if left > 0 {
            return Verdict::Deadlock { left };
        }
        Verdict::Done { makespan_us: makespan, finish_us: finish_sum }
    }

    /// The earliest end of a microbatch is later than was known, perhaps, and so are those that wait for its slot.
    #[inline]
    fn move_end(&mut self, microbatch: usize, end: u64, finish_sum: &mut u64, latest: &mut u64) {
        let known = self.finish[microbatch];
        if end == known {
            return;
        }
        *finish_sum += end - known;
        self.finish[microbatch] = end;
        *latest = end.max(*latest);
        let Self { turns, finish, steps, first, .. } = self;
        let tail = |microbatch: u32| steps[first[microbatch as usize] as usize].tail;
        turns.moved(microbatch, finish, tail, &mut |by, to| {
            *finish_sum += by;
            *latest = to.max(*latest);
        });
    }

    /// Empty nodes, every microbatch before its first task.
    fn reset(&mut self, compiled: &CompiledInstance, schedule: &Schedule) {
        let count = schedule.len();
        self.nodes.clear();
        self.nodes.extend(compiled.memory.iter().map(|free| Node {
            forwards: (NONE, NONE),
            others: (NONE, NONE),
            free: *free,
            back: 0,
            back_max: free.saturating_sub(1).max(1),
            busy: false,
            touched: false,
            done: 0,
        }));
        self.touched.clear();
        self.steps.clear();
        self.first.clear();
        self.first.push(0);
        for microbatch in 0..count {
            self.add_steps(compiled, schedule, microbatch);
            self.first.push(self.steps.len() as u32);
        }
        self.at.clear();
        self.at.resize(count, 0);
        self.key.resize(count, 0);
        self.next.resize(count, NONE);
        self.is_ready.clear();
        self.is_ready.resize(count, false);
        self.follower.clear();
        self.follower.resize(count, NONE);
        self.follows.clear();
        self.follows.resize(count, NONE);
        // In reverse, so that those who wait for the same one are told in the order of the list.
        for (microbatch, after) in schedule.after.iter().enumerate().rev() {
            if *after != NONE {
                self.follows[microbatch] = self.follower[*after as usize];
                self.follower[*after as usize] = microbatch as u32;
            }
        }
        if compiled.has_serial_links() {
            self.links.reset(compiled.nodes());
        }
        self.finish.clear();
        let steps = &self.steps;
        let first = &self.first;
        // An origin has to be told to begin.
        self.release.clear();
        let told = |microbatch: usize| compiled.way_us(steps[first[microbatch] as usize].node as usize);
        self.release
            .extend(schedule.release.iter().enumerate().map(|(index, release)| release + told(index)));
        self.finish.extend(
            self.release
                .iter()
                .enumerate()
                .map(|(index, release)| release + steps[first[index] as usize].tail),
        );
        self.turns.reset(schedule, &compiled.memory, &mut self.seen);
        self.turns.bound_all(&mut self.finish, |microbatch| steps[first[microbatch as usize] as usize].tail);
        self.events.reset(self.release.iter().zip(&schedule.after).enumerate().map(
            |(microbatch, (release, after))| {
                if *after == NONE {
                    release << TIME_SHIFT | READY | microbatch as u64
                } else {
                    Tournament::NEVER
                }
            },
        ));
    }

    /// The steps of one path: forwards, loss, backwards in reverse.
    fn add_steps(&mut self, compiled: &CompiledInstance, schedule: &Schedule, microbatch: usize) {
        let path = schedule.path(microbatch);
        let base = self.steps.len();
        for (place, node) in path.iter().enumerate() {
            let onward = path.get(place + 1).unwrap_or(&path[0]);
            let forward = if place == 0 { &compiled.origin_forward } else { &compiled.forward };
            let transfer = compiled.transfer_us(*node as usize, *onward as usize);
            let goes_back = schedule.goes_back(*node, *onward);
            let duration = forward[*node as usize];
            self.steps.push(Step { duration, transfer, tail: 0, node: *node, goes_back });
        }
        let last = path[path.len() - 1];
        let back = compiled.transfer_us(path[0] as usize, last as usize);
        self.steps.push(Step {
            duration: compiled.loss[path[0] as usize],
            transfer: back,
            tail: 0,
            node: path[0],
            goes_back: false,
        });
        for (place, node) in path.iter().enumerate().rev() {
            let backward = if place == 0 { &compiled.origin_backward } else { &compiled.backward };
            let before = if place == 0 { *node } else { path[place - 1] };
            let transfer = compiled.transfer_us(*node as usize, before as usize);
            let goes_back = self.steps[base + place].goes_back;
            let duration = backward[*node as usize];
            self.steps.push(Step { duration, transfer, tail: 0, node: *node, goes_back });
        }
        let mut tail = 0;
        for step in self.steps[base..].iter_mut().rev() {
            tail += step.duration + step.transfer;
            step.tail = tail;
        }
    }

    #[inline]
    fn touch(&mut self, node: u32) {
        let state = &mut self.nodes[node as usize];
        if !state.touched {
            state.touched = true;
            self.touched.push(node);
        }
    }

    /// Puts a ready task into its node's list: ordered by class, rank, time and id.
    #[inline]
    fn enqueue(&mut self, schedule: &Schedule, microbatch: usize, node: u32, now: u64, at: u32, length: u32) {
        let forward = at < length / 2;
        let late = at == length / 2 && schedule.policy != DispatchPolicy::FirstInFirstOut;
        let class = u64::from(!forward && late);
        let key =
            class << (TIME_BITS + MICROBATCH_BITS) | u64::from(schedule.rank[microbatch]) << TIME_BITS | now;
        self.key[microbatch] = key;
        let state = &self.nodes[node as usize];
        let (head, tail) = if forward { state.forwards } else { state.others };
        let mine = microbatch as u32;
        let ids = &schedule.id_rank;
        let goes_before =
            |keys: &[u64], other: u32| (key, ids[microbatch]) < (keys[other as usize], ids[other as usize]);
        let list = if tail == NONE {
            self.next[microbatch] = NONE;
            (mine, mine)
        } else if !goes_before(&self.key, tail) {
            self.next[tail as usize] = mine;
            self.next[microbatch] = NONE;
            (head, mine)
        } else if goes_before(&self.key, head) {
            self.next[microbatch] = head;
            (mine, tail)
        } else {
            let mut before = head;
            while !goes_before(&self.key, self.next[before as usize]) {
                before = self.next[before as usize];
            }
            self.next[microbatch] = self.next[before as usize];
            self.next[before as usize] = mine;
            (head, tail)
        };
        let state = &mut self.nodes[node as usize];
        if forward {
            state.forwards = list;
        } else {
            state.others = list;
        }
    }

    /// The task that an idle node takes.
    #[inline]
    fn take<const RARE: bool>(&mut self, schedule: &Schedule, node: u32) -> Option<u32> {
        let (before, forward) = if RARE { self.next_forward(node) } else { (NONE, NONE) };
        let state = &mut self.nodes[node as usize];
        let (forward, other) = (if RARE { forward } else { state.forwards.0 }, state.others.0);
        let mut takes_forward = forward != NONE && state.free > 0;
        if other != NONE && takes_forward {
            takes_forward = match schedule.policy {
                DispatchPolicy::BackwardFirst => false,
                DispatchPolicy::ForwardFirst => true,
                DispatchPolicy::FirstInFirstOut => {
                    let place = |m: u32| (self.key[m as usize], schedule.id_rank[m as usize]);
                    place(forward) < place(other)
                }
            };
        }
        let list = if takes_forward {
            if RARE && before != NONE {
                let after = self.next[forward as usize];
                self.next[before as usize] = after;
                if after == NONE {
                    state.forwards.1 = before;
                }
                return Some(forward);
            }
            &mut state.forwards
        } else if other != NONE {
            &mut state.others
        } else {
            return None;
        };
        let chosen = list.0;
        let next = self.next[chosen as usize];
        *list = if next == NONE { (NONE, NONE) } else { (next, list.1) };
        Some(chosen)
    }

    /// The first ready forward that a slot may go to, and the one before it in the list.
    fn next_forward(&self, node: u32) -> (u32, u32) {
        let state = &self.nodes[node as usize];
        let (mut before, mut forward) = (NONE, state.forwards.0);
        while forward != NONE && state.back >= state.back_max {
            let place = forward as usize;
            if !self.steps[(self.first[place] + self.at[place]) as usize].goes_back {
                break;
            }
            (before, forward) = (forward, self.next[place]);
        }
        (before, forward)
    }

    /// The next task of a strict order, if it can start.
    fn take_in_order(&mut self, order: &[(u32, TaskKind)], node: u32) -> Option<u32> {
        let state = &mut self.nodes[node as usize];
        let (microbatch, kind) = *order.get(state.done as usize)?;
        let place = microbatch as usize;
        let first = self.first[place];
        let at = self.at[place];
        let here = self.steps[(first + at) as usize].node == node
            && kind_of(at, self.first[place + 1] - first) == kind;
        if !here || !self.is_ready[place] || (kind == TaskKind::Forward && state.free == 0) {
            return None;
        }
        self.is_ready[place] = false;
        state.done += 1;
        Some(microbatch)
    }
}

/// What a microbatch does at step `at` of `length`.
fn kind_of(at: u32, length: u32) -> TaskKind {
    match at.cmp(&(length / 2)) {
        std::cmp::Ordering::Less => TaskKind::Forward,
        std::cmp::Ordering::Equal => TaskKind::Loss,
        std::cmp::Ordering::Greater => TaskKind::Backward,
    }
}
