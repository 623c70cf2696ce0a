//! Activations of committed iterations: those that are kept for whoever makes a lost stage again, and those that are fetched for it.
//!
//! A lost stage's neighbours on the paths have what it was sent and what came from it. Who makes it again asks them, tensor by
//! tensor; nobody has to be told before.

use super::Worker;
use super::passage::AttemptWork;
use crate::message::{Activation, ToPeer, TransferId};
use crate::task::Handle;
use skipstone_recovery::Lesson;
use skipstone_types::{Attempt, Iteration, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Activations asked for and not yet here.
const WINDOW: usize = 8;

/// What passed through a node in its last committed iterations.
#[derive(Debug, Clone, Default)]
pub(super) struct KeptActivations {
    iterations: BTreeMap<Iteration, BTreeMap<(Lesson, Activation), Handle>>,
}

impl KeptActivations {
    fn get(&self, lesson: Lesson, which: Activation) -> Option<Handle> {
        self.iterations.get(&lesson.iteration)?.get(&(lesson, which)).copied()
    }

    /// Of how many iterations.
    pub(super) fn iterations(&self) -> usize {
        self.iterations.len()
    }

    /// All that is kept, for whoever forgets it.
    pub(super) fn take(&mut self) -> Vec<Handle> {
        std::mem::take(&mut self.iterations).into_values().flat_map(BTreeMap::into_values).collect()
    }
}

/// Lessons on their way to who makes a stage again: of each what the stage was sent, and what it made of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lessons {
    /// What is wanted, and of whom, in the order in which it is learned from.
    wanted: Vec<(Lesson, Activation, NodeId)>,
    asked: BTreeSet<usize>,
    here: BTreeMap<usize, Handle>,
}

impl Lessons {
    /// These, each from the nodes before and after the stage on the microbatch's path.
    pub(super) fn new(lessons: &[Lesson], teachers: &[(NodeId, NodeId)]) -> Self {
        let both = |(lesson, (before, after)): (&Lesson, &(NodeId, NodeId))| {
            [(*lesson, Activation::Made, *before), (*lesson, Activation::Came, *after)]
        };
        Self { wanted: lessons.iter().zip(teachers).flat_map(both).collect(), ..Self::default() }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.here.len() == self.wanted.len()
    }

    /// What has arrived, in order: of each lesson what came to the stage, then what it made.
    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> {
        self.here.values().copied()
    }

    fn teaches(&self, node: NodeId) -> bool {
        self.wanted.iter().any(|(_, _, from)| *from == node)
    }

    /// What to ask for now, and of whom: as much as the window allows, and what is open with the node `again`.
    fn requests(&mut self, again: Option<NodeId>) -> Vec<(NodeId, Lesson, Activation)> {
        let is_open = |index: &usize| !self.here.contains_key(index);
        let open: Vec<_> = self.asked.iter().copied().filter(is_open).collect();
        let mut now: Vec<_> =
            open.iter().copied().filter(|index| again == Some(self.wanted[*index].2)).collect();
        let next = (0..self.wanted.len()).filter(|index| !self.asked.contains(index));
        let next: Vec<_> = next.take(WINDOW.saturating_sub(open.len())).collect();
        self.asked.extend(&next);
        now.extend(next);
        let request = |index: usize| {
            let (lesson, which, from) = self.wanted[index];
            (from, lesson, which)
        };
        now.into_iter().map(request).collect()
    }

    /// Takes an activation that is missing; false if it is not.
    fn arrived(&mut self, from: NodeId, lesson: Lesson, which: Activation, tensor: Handle) -> bool {
        let place = self.wanted.iter().position(|wanted| *wanted == (lesson, which, from));
        let Some(place) = place.filter(|place| !self.here.contains_key(place)) else { return false };
        self.asked.insert(place);
        self.here.insert(place, tensor);
        true
    }
}

impl Worker {
    /// Activations that are wanted for a stage which is made again.
    pub(super) fn lessons_awaited(&self) -> usize {
        self.obtaining.as_ref().map_or(0, |obtaining| obtaining.lessons.wanted.len())
    }

    /// Whether activations are kept beyond their attempt.
    pub(super) fn keeps_activations(&self) -> bool {
        self.iterations_kept > 0
    }

    /// An attempt has committed: keeps what passed, and forgets the oldest.
    pub(super) fn keep_activations(&mut self, of: (Iteration, Attempt)) {
        let limit = self.iterations_kept as usize;
        let Some(work) = self.work.as_mut().filter(|work| (work.iteration, work.attempt) == of) else {
            return;
        };
        if limit == 0 {
            return;
        }
        let kept = taken_from(work);
        let mut gone: Vec<Handle> = Vec::new();
        // A rollback may bring an iteration about again.
        let iterations = &mut self.kept.iterations;
        gone.extend(iterations.insert(of.0, kept).into_iter().flat_map(BTreeMap::into_values));
        while iterations.len() > limit {
            let oldest = iterations.pop_first();
            gone.extend(oldest.into_iter().flat_map(|(_, kept)| kept.into_values()));
        }
        self.drop_handles(gone);
    }

    /// Asks for as many lessons as the window allows; `again` names a node whose open requests are repeated.
    pub(super) fn request_lessons(&mut self, again: Option<NodeId>) {
        let Some(obtaining) = &mut self.obtaining else { return };
        let transfer = obtaining.transfer;
        for (to, lesson, which) in obtaining.lessons.requests(again) {
            self.send(to, ToPeer::LessonRequest { transfer, lesson, which }, None);
        }
    }

    /// Somebody makes a stage again, and asks for what we have kept.
    pub(super) fn on_lesson_request(
        &mut self,
        from: NodeId,
        transfer: TransferId,
        lesson: Lesson,
        which: Activation,
    ) {
        let kept = self.kept.get(lesson, which);
        self.send(from, ToPeer::Lesson { transfer, lesson, which }, kept);
    }

    /// An activation that was asked for, or word that it is not there.
    pub(super) fn on_lesson(
        &mut self,
        from: NodeId,
        transfer: TransferId,
        (lesson, which): (Lesson, Activation),
        payload: Option<Handle>,
    ) {
        let obtaining = self.obtaining.as_mut().filter(|obtaining| obtaining.transfer == transfer);
        match (obtaining, payload) {
            (Some(obtaining), Some(tensor)) => {
                if obtaining.lessons.arrived(from, lesson, which, tensor) {
                    self.request_lessons(None);
                    self.rebuild_if_complete();
                } else {
                    self.drop_handles([tensor]);
                }
            }
            (Some(obtaining), None) if obtaining.lessons.teaches(from) => {
                let Lesson { iteration, microbatch } = lesson;
                let why = format!("{from} has kept nothing of {microbatch} of {iteration}");
                self.fail_obtaining(transfer, why);
            }
            (_, payload) => self.drop_handles(payload),
        }
    }
}

/// The activations of an attempt, which no longer has them.
fn taken_from(work: &mut AttemptWork) -> BTreeMap<(Lesson, Activation), Handle> {
    let iteration = work.iteration;
    let mut kept = BTreeMap::new();
    for (microbatch, passage) in &mut work.passages {
        let lesson = Lesson { iteration, microbatch: *microbatch };
        let (came, made) = passage.take_activations();
        kept.extend(came.map(|tensor| ((lesson, Activation::Came), tensor)));
        kept.extend(made.map(|tensor| ((lesson, Activation::Made), tensor)));
    }
    kept
}
