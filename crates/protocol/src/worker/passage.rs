//! Microbatches passing through a node: forward, (loss,) backward, and what is kept so that it can be sent again.

use super::checking::Checking;
use super::compute::{Leg, Purpose};
use super::slots::FreeSlots;
use super::{Early, Worker};
use crate::message::{Direction, Duty, LossShare, ToCoordinator, ToPeer};
use crate::task::{Handle, Outcome, Task};
use skipstone_types::{Attempt, Digest, Iteration, Microbatch, NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet};

/// How far a leg is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Progress {
    #[default]
    Waiting,
    Running,
    Done,
}

/// One microbatch on this node.
#[derive(Debug, Clone)]
pub(super) struct Passage {
    pub(super) duty: Duty,
    pub(super) first: Progress,
    /// Relays have none: it counts as done from the start.
    pub(super) loss: Progress,
    pub(super) last: Progress,
    /// The activation that arrived (at the origin: from the last relay, for the loss).
    pub(super) forward_in: Option<Handle>,
    /// The activation made; kept until the attempt ends, to be sent again.
    forward_out: Option<Handle>,
    pub(super) saved: Option<Handle>,
    /// The gradient that arrived (at the origin: from the first relay).
    pub(super) backward_in: Option<Handle>,
    /// The gradient made; kept until the attempt ends, to be sent again.
    backward_out: Option<Handle>,
    /// When each leg's input arrived: legs of a kind run in this order.
    arrived: [u64; 2],
    loss_share: Option<LossShare>,
    /// In a run with spot checks: digests of the boundary tensors that came in and were made, by [`Direction`].
    pub(super) came: [Option<Digest>; 2],
    pub(super) made: [Option<Digest>; 2],
}

impl Passage {
    pub(super) fn new(duty: Duty, origin: bool) -> Self {
        Self {
            duty,
            first: Progress::Waiting,
            loss: if origin { Progress::Waiting } else { Progress::Done },
            last: Progress::Waiting,
            forward_in: None,
            forward_out: None,
            saved: None,
            backward_in: None,
            backward_out: None,
            arrived: [0; 2],
            loss_share: None,
            came: [None; 2],
            made: [None; 2],
        }
    }

    /// What came and what was made on the way forward, which it then no longer has.
    pub(super) fn take_activations(&mut self) -> (Option<Handle>, Option<Handle>) {
        (self.forward_in.take(), self.forward_out.take())
    }

    /// What was made on either way, which it then no longer has.
    pub(super) fn take_made(&mut self) -> (Option<Handle>, Option<Handle>) {
        (self.forward_out.take(), self.backward_out.take())
    }

    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> {
        [self.forward_in, self.forward_out, self.saved, self.backward_in, self.backward_out]
            .into_iter()
            .flatten()
    }

    /// Whether nothing of it is in the sum, nor about to be.
    pub(super) fn is_unadded(&self, origin: bool) -> bool {
        self.last == Progress::Waiting && (!origin || self.loss == Progress::Waiting)
    }

    /// Whether no task of it has begun.
    pub(super) fn is_untouched(&self) -> bool {
        self.first == Progress::Waiting && self.last == Progress::Waiting
    }

    /// Whether it waits for this node, and for nobody else.
    pub(super) fn waits_here(&self, stage: StageId) -> bool {
        self.first == Progress::Running || self.ready(stage, true).is_some()
    }

    /// When the input that it waits with arrived.
    pub(super) fn arrival(&self) -> u64 {
        self.arrived[0].max(self.arrived[1])
    }

    /// What was made to go this way.
    pub(super) fn made_for(&self, direction: Direction) -> Option<Handle> {
        match direction {
            Direction::Forward => self.forward_out,
            Direction::Backward => self.backward_out,
        }
    }

    pub(super) fn holds_slot(&self) -> bool {
        self.first != Progress::Waiting && self.last != Progress::Done
    }

    /// Whether the input that comes in this direction is here or already used.
    pub(super) fn has(&self, direction: Direction, origin: bool) -> bool {
        match direction {
            Direction::Forward if origin => self.forward_in.is_some() || self.loss != Progress::Waiting,
            Direction::Forward => self.forward_in.is_some() || self.first != Progress::Waiting,
            Direction::Backward => self.backward_in.is_some() || self.last != Progress::Waiting,
        }
    }
}

/// The attempt that a node works on.
#[derive(Debug, Clone)]
pub(super) struct AttemptWork {
    pub(super) iteration: Iteration,
    pub(super) attempt: Attempt,
    pub(super) passages: BTreeMap<Microbatch, Passage>,
    /// Duties that were given up: what still comes of them finds no use here.
    pub(super) given_up: BTreeSet<Microbatch>,
    pub(super) sum: Option<Handle>,
    /// Gradients added to `sum`, of losses and of backwards: tasks run one at a time, so they are added in the
    /// order in which they end.
    additions: u32,
    /// Whether each kind of leg goes through the microbatches in ascending order.
    pub(super) ordered: bool,
    arrivals: u64,
    /// Another node's share that is computed again.
    pub(super) checking: Option<Checking>,
    /// Who gets a boundary tensor beside the neighbour that it is for.
    pub(super) resends: BTreeMap<(Microbatch, Direction), BTreeSet<NodeId>>,
}

impl AttemptWork {
    /// Whether a microbatch may run this leg now, in the order that is kept.
    ///
    /// All nodes keep the same order, so the lowest microbatch that is not through can always go on. A loss, or a
    /// refused share, breaks that: it comes late, to nodes whose slots later microbatches hold. Then no order is kept
    /// for the rest of the attempt (see `fence` and `reroute`).
    fn is_turn(&self, microbatch: Microbatch, leg: Leg) -> bool {
        !self.ordered
            || self.passages.range(..microbatch).all(|(_, earlier)| {
                let progress = match leg {
                    Leg::First => earlier.first,
                    Leg::Loss => earlier.loss,
                    Leg::Last => earlier.last,
                };
                progress == Progress::Done
            })
    }
}

impl AttemptWork {
    /// Everything that may hold a slot.
    pub(super) fn holders(&self) -> impl Iterator<Item = &Passage> {
        self.passages.values().chain(self.checking.iter().flat_map(|checking| checking.passages.values()))
    }

    /// Whether nothing but a free slot is missing for the next leg.
    pub(super) fn lacks_slot(&self, stage: StageId) -> bool {
        self.passages.values().any(|passage| passage.ready(stage, true).is_some())
    }
}

type NextLeg = (Purpose, Task, Vec<Handle>, usize);

impl Worker {
    fn is_origin(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.stage.is_origin())
    }

    pub(super) fn begin(&mut self, iteration: Iteration, attempt: Attempt, duties: Vec<Duty>) {
        if (iteration, attempt) < self.newest {
            return;
        }
        let Some(held) = &mut self.held else {
            self.broken(format!("{iteration} began, but this node holds no stage"));
            return;
        };
        let (at, origin) = (held.iteration, held.stage.is_origin());
        held.entered = true;
        if at > iteration {
            self.broken(format!("{iteration} began, but this node is at {at}"));
            return;
        }
        self.end_attempt();
        self.drop_iteration_if_undecided(iteration);
        self.newest = (iteration, attempt);
        self.work = Some(AttemptWork {
            iteration,
            attempt,
            passages: duties.into_iter().map(|duty| (duty.microbatch, Passage::new(duty, origin))).collect(),
            given_up: BTreeSet::new(),
            sum: None,
            additions: 0,
            ordered: self.settings.as_ref().is_some_and(|settings| settings.deterministic),
            arrivals: 0,
            checking: None,
            resends: BTreeMap::new(),
        });
        self.take_early_frames();
    }

    /// New duties begin; known ones get new neighbours, who are sent what the old ones had.
    pub(super) fn reroute(&mut self, iteration: Iteration, attempt: Attempt, duties: Vec<Duty>) {
        let origin = self.is_origin();
        let Some(work) =
            self.work.as_mut().filter(|work| (work.iteration, work.attempt) == (iteration, attempt))
        else {
            return;
        };
        let checked = work.checking.as_ref().map(|checking| &checking.passages);
        if checked.is_some_and(|checked| duties.iter().any(|duty| checked.contains_key(&duty.microbatch))) {
            self.end_check();
        }
        let Some(work) = self.work.as_mut() else { return };
        let mut again = Vec::new();
        for duty in duties {
            match work.passages.get_mut(&duty.microbatch) {
                // It was sent before the coordinator heard that the duty was given up. What is given anew is a replay.
                None if !duty.replay && work.given_up.contains(&duty.microbatch) => {}
                None => {
                    work.given_up.remove(&duty.microbatch);
                    // It comes late, to a node whose slots later microbatches hold: see `is_turn`.
                    work.ordered = false;
                    let passage = work.taken_over(Passage::new(duty, origin));
                    work.passages.insert(duty.microbatch, passage);
                }
                Some(passage) => {
                    if passage.duty.next != duty.next {
                        again.push((duty.microbatch, Direction::Forward));
                    }
                    if passage.duty.previous != duty.previous {
                        again.push((duty.microbatch, Direction::Backward));
                    }
                    passage.duty.next = duty.next;
                    passage.duty.previous = duty.previous;
                }
            }
        }
        for (microbatch, direction) in again {
            self.pass_on(microbatch, direction);
        }
        self.take_early_frames();
    }

    pub(super) fn abort(&mut self, iteration: Iteration, attempt: Attempt) {
        if (iteration, attempt) < self.newest {
            return;
        }
        self.newest = (iteration, attempt.next());
        if self.work.as_ref().is_some_and(|work| work.iteration == iteration && work.attempt <= attempt) {
            self.end_attempt();
        }
        self.drop_iteration_if_undecided(iteration);
        self.forget_early_frames();
    }

    fn drop_iteration_if_undecided(&mut self, iteration: Iteration) {
        if !self.commits.contains_key(&iteration) {
            self.drop_iteration(iteration);
        }
    }

    /// Drops sums, slots and boundary tensors of the attempt. Its reduction stays until it is decided.
    pub(super) fn end_attempt(&mut self) {
        let Some(work) = self.work.take() else { return };
        self.spending.begin_anew();
        let of = (work.iteration, work.attempt);
        self.compute.cancel(|purpose| purpose.is_of_attempt(of));
        let handles: Vec<_> = work.passages.values().flat_map(Passage::handles).chain(work.sum).collect();
        self.drop_handles(handles);
        self.drop_handles(work.checking.iter().flat_map(Checking::handles));
    }

    /// Whether the tensor was needed.
    pub(super) fn on_boundary(&mut self, from: NodeId, message: ToPeer, payload: Handle) -> bool {
        let ToPeer::Boundary { iteration, attempt, microbatch, direction, .. } = message else {
            self.drop_handles([payload]);
            return false;
        };
        if (iteration, attempt) < self.newest {
            self.drop_handles([payload]);
            return false;
        }
        let origin = self.is_origin();
        // Of a microbatch that was given up nothing is known; but it may come back, when its heir is lost, and what its
        // neighbours send then may be faster than the order.
        let known = self
            .work
            .as_mut()
            .filter(|work| (work.iteration, work.attempt) == (iteration, attempt))
            .and_then(|work| {
                work.arrivals += 1;
                let arrival = work.arrivals;
                let own = work.passages.get_mut(&microbatch);
                let checked = work.checking.as_mut().map(|checking| &mut checking.passages);
                let passage = own.or_else(|| checked.and_then(|passages| passages.get_mut(&microbatch)));
                passage.map(|passage| (passage, arrival))
            });
        match known {
            // The first copy counts.
            Some((passage, _)) if passage.has(direction, origin) => self.drop_handles([payload]),
            Some((passage, arrival)) => {
                let (slot, index) = match direction {
                    Direction::Forward => (&mut passage.forward_in, 0),
                    Direction::Backward => (&mut passage.backward_in, 1),
                };
                *slot = Some(payload);
                passage.arrived[index] = arrival;
                return true;
            }
            None => self.keep_for_later(from, message, payload),
        }
        false
    }

    /// Keeps a frame that came before the message that explains it, within a bound.
    pub(super) fn keep_for_later(&mut self, from: NodeId, message: ToPeer, payload: Handle) {
        let known = self.early.iter().any(|early| early.message == message && early.from == from);
        if known || self.early.len() >= self.early_frames_max() {
            self.drop_handles([payload]);
        } else {
            self.early.push(Early { from, message, payload });
        }
    }

    /// How many frames are kept that came before the message that explains them.
    pub(super) fn early_frames_max(&self) -> usize {
        8 * self.settings.as_ref().map_or(0, |settings| settings.microbatches as usize) + 64
    }

    /// Microbatches of the attempt under way.
    pub(super) fn microbatches_passing(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.passages.len())
    }

    /// Looks again at the frames kept for later.
    pub(super) fn take_early_frames(&mut self) {
        for early in std::mem::take(&mut self.early) {
            self.on_peer(early.from, early.message, Some(early.payload));
        }
    }

    /// Drops frames kept for later that have become too old.
    pub(super) fn forget_early_frames(&mut self) {
        let newest = self.newest;
        let old = |early: &Early| match &early.message {
            ToPeer::Boundary { iteration, attempt, .. }
            | ToPeer::Part { iteration, attempt, .. }
            | ToPeer::Reduced { iteration, attempt, .. } => (*iteration, *attempt) < newest,
            _ => false,
        };
        let (gone, kept) = std::mem::take(&mut self.early).into_iter().partition::<Vec<_>, _>(old);
        self.early = kept;
        self.drop_handles(gone.into_iter().map(|early| early.payload));
    }

    /// The most urgent leg that can run: backward before loss before forward, each by arrival; a forward needs a
    /// free slot (see [`FreeSlots`]).
    pub(super) fn next_leg(&mut self) -> Option<NextLeg> {
        let settings = self.settings.as_ref()?;
        let held = self.held.as_ref()?;
        let (stage, state) = (held.stage, held.state?);
        let work = self.work.as_mut().filter(|work| work.iteration == held.iteration)?;
        let (iteration, attempt) = (work.iteration, work.attempt);
        let free = FreeSlots::of(settings, work.holders());
        let (_, _, microbatch, leg) = work
            .passages
            .iter()
            .filter_map(|(microbatch, passage)| {
                let (class, arrival, leg) = passage.ready(stage, free.has_one_for(&passage.duty))?;
                work.is_turn(*microbatch, leg).then_some((class, arrival, *microbatch, leg))
            })
            .min_by_key(|(class, arrival, microbatch, _)| (*class, *arrival, *microbatch))?;
        let passage = work.passages.get_mut(&microbatch)?;
        let counted = passage.duty.counted;
        if counted && leg != Leg::First && work.sum.is_none() {
            return Some((Purpose::NewSum { iteration, attempt }, Task::NewSum, vec![state], 1));
        }
        let sum = work.sum.filter(|_| counted);
        let purpose = Purpose::Leg { iteration, attempt, microbatch, leg, replay: passage.duty.replay };
        let (task, inputs, outputs) = passage.begin(leg, iteration, stage.is_origin(), (state, sum));
        Some((purpose, task, inputs, outputs))
    }

    pub(super) fn sum_made(&mut self, of: (Iteration, Attempt), outputs: Vec<Handle>) {
        match self.work.as_mut().filter(|work| (work.iteration, work.attempt) == of) {
            Some(work) => work.sum = outputs.first().copied(),
            None => self.drop_handles(outputs),
        }
    }

    pub(super) fn leg_done(
        &mut self,
        of: (Iteration, Attempt),
        microbatch: Microbatch,
        leg: Leg,
        outputs: Vec<Handle>,
        outcome: &Outcome,
    ) {
        let (origin, keeps) = (self.is_origin(), self.kept.takes_what_came());
        let Some((passage, additions)) = self
            .work
            .as_mut()
            .filter(|work| (work.iteration, work.attempt) == of)
            .and_then(|work| Some((work.passages.get_mut(&microbatch)?, &mut work.additions)))
        else {
            self.drop_handles(outputs);
            return;
        };
        let place = *additions;
        if passage.duty.counted && leg != Leg::First {
            *additions += 1;
        }
        passage.note_digests(leg, outcome);
        match leg {
            Leg::First => {
                passage.first = Progress::Done;
                passage.forward_out = outputs.first().copied();
                passage.saved = outputs.get(1).copied();
                // The origin's forward input is the loss's, and may be here already.
                let used = if origin || keeps { None } else { passage.forward_in.take() };
                self.drop_handles(used);
                self.pass_on(microbatch, Direction::Forward);
            }
            Leg::Loss => {
                passage.loss = Progress::Done;
                passage.backward_out = outputs.first().copied();
                if let Outcome::Loss { loss_sum, tokens, .. } = outcome {
                    passage.loss_share = Some(LossShare { loss_sum: *loss_sum, tokens: *tokens, place });
                }
                let used = if keeps { None } else { passage.forward_in.take() };
                self.drop_handles(used);
                self.pass_on(microbatch, Direction::Backward);
            }
            Leg::Last => {
                passage.last = Progress::Done;
                if !origin {
                    passage.backward_out = outputs.first().copied();
                }
                let used = passage.backward_in.take();
                let (counted, loss) = (passage.duty.counted, passage.loss_share);
                self.drop_handles(used);
                if !origin {
                    self.pass_on(microbatch, Direction::Backward);
                }
                if counted {
                    let (iteration, attempt) = of;
                    self.report(ToCoordinator::ShareDone { iteration, attempt, microbatch, loss });
                    self.measure_if_complete(iteration, attempt);
                }
            }
        }
    }

    /// Has the sum measured once all that is to count is in it. Duties that come later make another one of it.
    pub(super) fn measure_if_complete(&mut self, iteration: Iteration, attempt: Attempt) {
        let Some(work) = &self.work else { return };
        let mut counted = work.passages.values().filter(|passage| passage.duty.counted);
        let Some(sum) = work.sum.filter(|_| counted.all(|passage| passage.last == Progress::Done)) else {
            return;
        };
        let microbatches = work.passages.values().filter(|passage| passage.duty.counted).count() as u32;
        let purpose = Purpose::Measure { iteration, attempt, microbatches };
        self.compute.enqueue(purpose, Task::Measure, vec![sum], 0);
    }

    /// Sends a boundary tensor to the neighbour that it is for, if it is made.
    fn pass_on(&mut self, microbatch: Microbatch, direction: Direction) {
        let (Some(work), Some(held)) = (&self.work, &self.held) else { return };
        let Some(passage) = work.passages.get(&microbatch) else { return };
        let (to, tensor) = match direction {
            Direction::Forward => (passage.duty.next, passage.forward_out),
            Direction::Backward => (passage.duty.previous, passage.backward_out),
        };
        let Some(tensor) = tensor else { return };
        let more = work.resends.get(&(microbatch, direction)).into_iter().flatten();
        let more: Vec<_> = more.copied().filter(|other| *other != to).collect();
        if to == self.me {
            self.pass_to_myself(microbatch, direction);
            return;
        }
        let message = ToPeer::Boundary {
            iteration: work.iteration,
            attempt: work.attempt,
            microbatch,
            stage: held.stage,
            direction,
        };
        for other in more {
            self.send(other, message.clone(), Some(tensor));
        }
        self.send(to, message, Some(tensor));
    }

    /// A path of the origin alone: what it makes is its own input.
    fn pass_to_myself(&mut self, microbatch: Microbatch, direction: Direction) {
        let Some(passage) = self.work.as_mut().and_then(|work| work.passages.get_mut(&microbatch)) else {
            return;
        };
        match direction {
            Direction::Forward => passage.forward_in = passage.forward_out.take(),
            Direction::Backward => passage.backward_in = passage.backward_out.take(),
        }
    }

    pub(super) fn resend_boundaries(&mut self, peer: NodeId) {
        let Some(work) = &self.work else { return };
        let again: Vec<_> = work
            .passages
            .iter()
            .flat_map(|(microbatch, passage)| {
                let forward = (passage.duty.next == peer).then_some((*microbatch, Direction::Forward));
                let backward = (passage.duty.previous == peer).then_some((*microbatch, Direction::Backward));
                forward.into_iter().chain(backward)
            })
            .collect();
        for (microbatch, direction) in again {
            self.pass_on(microbatch, direction);
        }
        self.resend_for_check(peer);
    }
}

impl Passage {
    /// A leg begins: its task, what it reads, and how much it makes. `sum`: none if its gradient does not count.
    pub(super) fn begin(
        &mut self,
        leg: Leg,
        iteration: Iteration,
        origin: bool,
        (state, sum): (Handle, Option<Handle>),
    ) -> (Task, Vec<Handle>, usize) {
        let microbatch = self.duty.microbatch;
        match leg {
            Leg::First => {
                self.first = Progress::Running;
                match self.forward_in {
                    Some(input) if !origin => (Task::Forward { microbatch }, vec![state, input], 2),
                    _ => (Task::Embed { iteration, microbatch }, vec![state], 2),
                }
            }
            Leg::Loss => {
                self.loss = Progress::Running;
                let inputs = [Some(state), self.forward_in, sum].into_iter().flatten().collect();
                (Task::Loss { iteration, microbatch }, inputs, 1)
            }
            Leg::Last => {
                self.last = Progress::Running;
                let saved = self.saved.take();
                let inputs = [Some(state), saved, self.backward_in, sum].into_iter().flatten().collect();
                if origin {
                    (Task::EmbedBackward { iteration, microbatch }, inputs, 0)
                } else {
                    (Task::Backward { microbatch }, inputs, 1)
                }
            }
        }
    }

    /// The leg that can run now, with its class (lower is more urgent) and arrival.
    fn ready(&self, stage: StageId, slot_free: bool) -> Option<(u8, u64, Leg)> {
        let origin = stage.is_origin();
        if self.last == Progress::Waiting
            && self.first == Progress::Done
            && self.loss == Progress::Done
            && self.backward_in.is_some()
        {
            return Some((0, self.arrived[1], Leg::Last));
        }
        // The loss takes no slot and does not wait for the embedding: an origin that replays another's share may get
        // its activations before it has a free slot, and the relays that hold slots wait for its gradients.
        if self.loss == Progress::Waiting && self.forward_in.is_some() {
            return Some((1, self.arrived[0], Leg::Loss));
        }
        if slot_free && self.first == Progress::Waiting && (origin || self.forward_in.is_some()) {
            return Some((2, self.arrived[0], Leg::First));
        }
        None
    }
}
