//! Spot checks: another node's share is computed again, beside this node's own.
//!
//! Both add the same gradients in the same order, and all builds compute the same bits; so the digests of what came in, of what was
//! made, and of the sum are equal, or one of the two is wrong. Nothing of it is passed on, and its sum counts for nothing. It goes
//! microbatch by microbatch in the order of the other node's additions, each begun only when all that it needs is here: so it
//! holds one slot at most, and never one for which it waits.

use super::Worker;
use super::compute::{Leg, Purpose};
use super::passage::{AttemptWork, Passage, Progress};
use super::slots::FreeSlots;
use crate::message::{Direction, Duty, ShareDigests, ToCoordinator, ToPeer};
use crate::record::Addition;
use crate::task::{Handle, Outcome, Passed, Task};
use skipstone_types::{Attempt, Digest, Iteration, Microbatch, NodeId};
use std::collections::BTreeMap;

/// Nodes that get a boundary tensor beside the one that it is for, at most: two replicas check a share, and each is asked once.
const RESENDS_MAX: usize = 4;

/// Another node's share, on its way through this one.
#[derive(Debug, Clone)]
pub(super) struct Checking {
    pub(super) of: NodeId,
    pub(super) passages: BTreeMap<Microbatch, Passage>,
    additions: Vec<Addition>,
    /// Additions made.
    added: usize,
    sum: Option<Handle>,
    /// Whether nothing more is computed. What came for it stays: should this node be given one of the microbatches, the neighbours'
    /// tensors may be faster than the order, and be taken for second copies.
    over: bool,
}

impl Checking {
    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> {
        self.passages.values().flat_map(Passage::handles).chain(self.sum)
    }

    /// The leg that comes next, if all that it needs is here.
    fn next(&self, origin: bool, slot_free: bool) -> Option<(Microbatch, Leg)> {
        match *self.additions.get(self.added).filter(|_| !self.over)? {
            Addition::Loss(microbatch) => {
                let passage = self.passages.get(&microbatch)?;
                let ready = passage.loss == Progress::Waiting && passage.forward_in.is_some();
                ready.then_some((microbatch, Leg::Loss))
            }
            Addition::Backward(microbatch) => {
                let passage = self.passages.get(&microbatch)?;
                match (passage.first, passage.last, passage.backward_in) {
                    (Progress::Done, Progress::Waiting, Some(_)) => Some((microbatch, Leg::Last)),
                    (Progress::Waiting, _, Some(_)) if slot_free => {
                        (origin || passage.forward_in.is_some()).then_some((microbatch, Leg::First))
                    }
                    _ => None,
                }
            }
        }
    }
}

/// The digest of what passages got and made.
fn share_digests<'a>(
    passages: impl Iterator<Item = (&'a Microbatch, &'a Passage)>,
    sum: Digest,
) -> ShareDigests {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for (microbatch, passage) in passages {
        for (bytes, digests) in [(&mut inputs, passage.came), (&mut outputs, passage.made)] {
            bytes.extend(microbatch.0.to_le_bytes());
            digests.iter().for_each(|digest| bytes.extend(digest.unwrap_or_default().0));
        }
    }
    ShareDigests { inputs: Digest::of(&inputs), outputs: Digest::of(&outputs), sum }
}

impl AttemptWork {
    /// A duty that is given late, with what has come of it for a check.
    pub(super) fn taken_over(&mut self, mut passage: Passage) -> Passage {
        let checked = self.checking.as_mut().map(|checking| &mut checking.passages);
        if let Some(checked) = checked.and_then(|passages| passages.remove(&passage.duty.microbatch)) {
            (passage.forward_in, passage.backward_in) = (checked.forward_in, checked.backward_in);
        }
        passage
    }
}

impl Passage {
    /// Remembers what a leg read and made.
    pub(super) fn note_digests(&mut self, leg: Leg, outcome: &Outcome) {
        let (Outcome::Passed(Passed { read, made })
        | Outcome::Loss { passed: Some(Passed { read, made }), .. }) = outcome
        else {
            return;
        };
        let (came, went) = match leg {
            Leg::First => (Direction::Forward, Direction::Forward),
            Leg::Loss => (Direction::Forward, Direction::Backward),
            Leg::Last => (Direction::Backward, Direction::Backward),
        };
        self.came[came as usize] = read.or(self.came[came as usize]);
        self.made[went as usize] = made.or(self.made[went as usize]);
    }
}

impl Worker {
    /// The digests of our own share, whose sum has this one. None in a run without spot checks.
    pub(super) fn share_digests(
        &self,
        of: (Iteration, Attempt),
        sum: Option<Digest>,
    ) -> Option<ShareDigests> {
        let work = self.work.as_ref().filter(|work| (work.iteration, work.attempt) == of)?;
        let checks = self.settings.as_ref().is_some_and(|settings| settings.spot_checks.are_on());
        let counted = work.passages.iter().filter(|(_, passage)| passage.duty.counted);
        sum.filter(|_| checks).map(|sum| share_digests(counted, sum))
    }

    /// How many microbatches of another node are computed again.
    pub(super) fn microbatches_checked(&self) -> usize {
        let checking = self.work.as_ref().and_then(|work| work.checking.as_ref());
        checking.map_or(0, |checking| checking.passages.len())
    }

    /// How many boundary tensors go to nodes that check.
    pub(super) fn boundaries_sent_again(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.resends.len())
    }

    /// Computes a node's share again. One in each attempt: what else is asked for is out of order.
    pub(super) fn check(&mut self, attempt: (Iteration, Attempt), of: NodeId, additions: Vec<Addition>) {
        let origin = self.held.as_ref().is_some_and(|held| held.stage.is_origin());
        let me = self.me;
        let Some(work) = self.work.as_mut().filter(|work| (work.iteration, work.attempt) == attempt) else {
            return;
        };
        let microbatch = |addition: &Addition| match addition {
            Addition::Loss(microbatch) | Addition::Backward(microbatch) => *microbatch,
        };
        let overlaps = additions.iter().any(|addition| work.passages.contains_key(&microbatch(addition)));
        if work.checking.is_some() || overlaps {
            return;
        }
        let passage = |microbatch| {
            let (counted, replay, goes_back) = (true, true, false);
            Passage::new(Duty { microbatch, counted, replay, goes_back, previous: me, next: me }, origin)
        };
        let passages = additions.iter().map(|addition| (microbatch(addition), passage(microbatch(addition))));
        let passages = passages.collect();
        work.checking = Some(Checking { of, passages, additions, added: 0, sum: None, over: false });
        self.take_early_frames();
    }

    /// Sends boundary tensors to a node that checks, and again whenever a connection to it stands anew.
    pub(super) fn resend_to(
        &mut self,
        of: (Iteration, Attempt),
        to: NodeId,
        boundaries: Vec<(Microbatch, Direction)>,
    ) {
        let most = self.settings.as_ref().map_or(0, |settings| 2 * settings.microbatches as usize);
        let Some(work) = self.work.as_mut().filter(|work| (work.iteration, work.attempt) == of) else {
            return;
        };
        for boundary in boundaries {
            let known = work.resends.contains_key(&boundary) || work.resends.len() < most;
            if known && work.resends.entry(boundary).or_default().len() < RESENDS_MAX {
                work.resends.entry(boundary).or_default().insert(to);
            }
        }
        self.resend_for_check(to);
    }

    /// Sends a node what it checks with, as far as it is made.
    pub(super) fn resend_for_check(&mut self, to: NodeId) {
        let (Some(work), Some(held)) = (&self.work, &self.held) else { return };
        let wanted = work.resends.iter().filter(|(_, nodes)| nodes.contains(&to));
        let frames: Vec<_> = wanted
            .filter_map(|((microbatch, direction), _)| {
                let tensor = work.passages.get(microbatch)?.made_for(*direction)?;
                let (iteration, attempt, stage) = (work.iteration, work.attempt, held.stage);
                let (microbatch, direction) = (*microbatch, *direction);
                Some((ToPeer::Boundary { iteration, attempt, microbatch, stage, direction }, tensor))
            })
            .collect();
        for (message, tensor) in frames {
            self.send(to, message, Some(tensor));
        }
    }

    /// The next leg of a check, when none of this node's own can run.
    pub(super) fn next_check_leg(&mut self) -> Option<(Purpose, Task, Vec<Handle>, usize)> {
        let settings = self.settings.as_ref()?;
        let held = self.held.as_ref()?;
        let (origin, state) = (held.stage.is_origin(), held.state?);
        let work = self.work.as_mut().filter(|work| work.iteration == held.iteration)?;
        let (iteration, attempt) = (work.iteration, work.attempt);
        let duty = work.checking.as_ref()?.passages.values().next()?.duty;
        let slot_free = FreeSlots::of(settings, work.holders()).has_one_for(&duty);
        let checking = work.checking.as_mut()?;
        let (microbatch, leg) = checking.next(origin, slot_free)?;
        if leg != Leg::First && checking.sum.is_none() {
            return Some((Purpose::CheckSum { iteration, attempt }, Task::NewSum, vec![state], 1));
        }
        let sum = checking.sum;
        let passage = checking.passages.get_mut(&microbatch)?;
        let (task, inputs, outputs) = passage.begin(leg, iteration, origin, (state, sum));
        Some((Purpose::CheckLeg { iteration, attempt, microbatch, leg }, task, inputs, outputs))
    }

    /// Computes nothing more of a check.
    pub(super) fn end_check(&mut self) {
        let Some(checking) = self.work.as_mut().and_then(|work| work.checking.as_mut()) else { return };
        checking.over = true;
        let saved = checking.passages.values_mut().filter_map(|passage| passage.saved.take());
        let handles: Vec<_> = saved.chain(checking.sum.take()).collect();
        self.compute.cancel(|purpose| matches!(purpose, Purpose::CheckMeasure { .. }));
        self.drop_handles(handles);
    }

    fn checking(&mut self, of: (Iteration, Attempt)) -> Option<&mut Checking> {
        let work = self.work.as_mut().filter(|work| (work.iteration, work.attempt) == of)?;
        work.checking.as_mut().filter(|checking| !checking.over)
    }

    pub(super) fn check_sum_made(&mut self, of: (Iteration, Attempt), outputs: Vec<Handle>) {
        match self.checking(of) {
            Some(checking) => checking.sum = outputs.first().copied(),
            None => self.drop_handles(outputs),
        }
    }

    pub(super) fn check_leg_done(
        &mut self,
        of: (Iteration, Attempt),
        microbatch: Microbatch,
        leg: Leg,
        outputs: Vec<Handle>,
        outcome: &Outcome,
    ) {
        let Some(checking) = self.checking(of) else {
            self.drop_handles(outputs);
            return;
        };
        let Some(passage) = checking.passages.get_mut(&microbatch) else { return };
        passage.note_digests(leg, outcome);
        // What would be passed on is of no use here; what was read stays.
        let mut gone = outputs;
        match leg {
            Leg::First => {
                passage.first = Progress::Done;
                passage.saved = gone.pop();
            }
            Leg::Loss => {
                passage.loss = Progress::Done;
                checking.added += 1;
            }
            Leg::Last => {
                passage.last = Progress::Done;
                checking.added += 1;
            }
        }
        let complete = checking.added == checking.additions.len();
        let sum = checking.sum.filter(|_| complete);
        self.drop_handles(gone);
        if let Some(sum) = sum {
            let (iteration, attempt) = of;
            let purpose = Purpose::CheckMeasure { iteration, attempt };
            self.compute.enqueue(purpose, Task::Measure, vec![sum], 0);
        }
    }

    /// The check is through: it says what came of it.
    pub(super) fn check_measured(&mut self, of: (Iteration, Attempt), sum: Option<Digest>) {
        let Some(checking) = self.checking(of) else { return };
        let digests = share_digests(checking.passages.iter(), sum.unwrap_or_default());
        let ((iteration, attempt), node) = (of, checking.of);
        self.end_check();
        self.report(ToCoordinator::Checked { iteration, attempt, of: node, digests });
    }
}
