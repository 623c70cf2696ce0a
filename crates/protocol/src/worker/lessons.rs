//! Boundary tensors of committed iterations: those that are kept for whoever makes a lost stage again, and those that are fetched for
//! it.
//!
//! A lost stage's neighbours on the paths have what it was sent, what came from it, and the gradients that came back to it. Who makes
//! it again asks them, tensor by tensor; nobody has to be told before. A stage that learns to answer as it did wants the first two, one
//! that is retraced from a copy the first and the last.

use super::Worker;
use super::passage::AttemptWork;
use crate::message::{KeptTensor, ToPeer, TransferId};
use crate::task::Handle;
use skipstone_recovery::{Lesson, Recipe, Strategy};
use skipstone_types::{Attempt, Iteration, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Tensors asked for and not yet here.
const WINDOW: usize = 8;

/// What passed through a node in its last committed iterations.
#[derive(Debug, Clone, Default)]
pub(super) struct KeptTensors {
    /// Of so many iterations.
    limit: u64,
    /// Whether what was made is kept, either way, in place of activations alone.
    retraces: bool,
    iterations: BTreeMap<Iteration, BTreeMap<(Lesson, KeptTensor), Handle>>,
}

impl KeptTensors {
    /// Keeps what this strategy needs.
    pub(super) fn keep_for(&mut self, strategy: &dyn Strategy) {
        (self.limit, self.retraces) = (strategy.iterations_kept(), strategy.retraces());
    }

    /// Whether the activations that came are kept beyond their forward.
    pub(super) fn takes_what_came(&self) -> bool {
        self.limit > 0 && !self.retraces
    }

    /// Of how many iterations, at most.
    pub(super) fn iterations_max(&self) -> usize {
        self.limit as usize
    }

    fn get(&self, lesson: Lesson, which: KeptTensor) -> Option<Handle> {
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

/// Tensors on their way to who makes a stage again: of each microbatch what the stage was sent, and what it made of it or what
/// gradient came back to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lessons {
    /// What is wanted, and of whom, in the order in which it is learned from.
    wanted: Vec<(Lesson, KeptTensor, NodeId)>,
    asked: BTreeSet<usize>,
    here: BTreeMap<usize, Handle>,
}

impl Lessons {
    /// Those of this recipe, each from the nodes before and after the stage on the microbatch's path.
    pub(super) fn of(recipe: &Recipe, teachers: &[(NodeId, NodeId)]) -> Self {
        let second = if recipe.retracing.is_some() { KeptTensor::Returned } else { KeptTensor::Came };
        let both = |(lesson, (before, after)): (Lesson, &(NodeId, NodeId))| {
            [(lesson, KeptTensor::Made, *before), (lesson, second, *after)]
        };
        Self {
            wanted: recipe.lessons().into_iter().zip(teachers).flat_map(both).collect(),
            ..Self::default()
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.here.len() == self.wanted.len()
    }

    /// What has arrived, in order: of each microbatch what came to the stage, then the other.
    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> {
        self.here.values().copied()
    }

    fn teaches(&self, node: NodeId) -> bool {
        self.wanted.iter().any(|(_, _, from)| *from == node)
    }

    /// What to ask for now, and of whom: as much as the window allows, and what is open with the node `again`.
    fn requests(&mut self, again: Option<NodeId>) -> Vec<(NodeId, Lesson, KeptTensor)> {
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

    /// Takes a tensor that is missing; false if it is not.
    fn arrived(&mut self, from: NodeId, lesson: Lesson, which: KeptTensor, tensor: Handle) -> bool {
        let place = self.wanted.iter().position(|wanted| *wanted == (lesson, which, from));
        let Some(place) = place.filter(|place| !self.here.contains_key(place)) else { return false };
        self.asked.insert(place);
        self.here.insert(place, tensor);
        true
    }
}

impl Worker {
    /// Tensors that are wanted for a stage which is made again.
    pub(super) fn lessons_awaited(&self) -> usize {
        self.obtaining.as_ref().map_or(0, |obtaining| obtaining.lessons.wanted.len())
    }

    /// An attempt has committed: keeps what passed.
    pub(super) fn keep_tensors(&mut self, of: (Iteration, Attempt)) {
        let (limit, retraces) = (self.kept.iterations_max(), self.kept.retraces);
        let Some(work) = self.work.as_mut().filter(|work| (work.iteration, work.attempt) == of) else {
            return;
        };
        if limit == 0 {
            return;
        }
        let kept = taken_from(work, retraces);
        self.keep(of.0, kept);
    }

    /// The stage that came with these tensors made them when others served it, and now this node has them as those had.
    pub(super) fn keep_made_again(&mut self, recipe: &Recipe, mut tensors: impl Iterator<Item = Handle>) {
        let mut again: BTreeMap<Iteration, BTreeMap<_, _>> = BTreeMap::new();
        for lesson in recipe.made_again() {
            let of = again.entry(lesson.iteration).or_default();
            let both = [KeptTensor::Made, KeptTensor::Returned].map(|which| (lesson, which));
            of.extend(both.into_iter().zip(tensors.by_ref()));
        }
        for (iteration, kept) in again {
            self.keep(iteration, kept);
        }
    }

    /// Keeps what passed in an iteration, in the place of what is kept of it, and forgets the oldest.
    fn keep(&mut self, iteration: Iteration, kept: BTreeMap<(Lesson, KeptTensor), Handle>) {
        let limit = self.kept.iterations_max();
        let iterations = &mut self.kept.iterations;
        let mut gone: Vec<Handle> = Vec::new();
        // A rollback may bring an iteration about again.
        gone.extend(iterations.insert(iteration, kept).into_iter().flat_map(BTreeMap::into_values));
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
        which: KeptTensor,
    ) {
        let kept = self.kept.get(lesson, which);
        self.send(from, ToPeer::Lesson { transfer, lesson, which }, kept);
    }

    /// A tensor that was asked for, or word that it is not there.
    pub(super) fn on_lesson(
        &mut self,
        from: NodeId,
        transfer: TransferId,
        (lesson, which): (Lesson, KeptTensor),
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

/// The boundary tensors of an attempt, which no longer has them.
fn taken_from(work: &mut AttemptWork, retraces: bool) -> BTreeMap<(Lesson, KeptTensor), Handle> {
    let iteration = work.iteration;
    let mut kept = BTreeMap::new();
    for (microbatch, passage) in &mut work.passages {
        let lesson = Lesson { iteration, microbatch: *microbatch };
        let (came, made, returned) = if retraces {
            let (made, returned) = passage.take_made();
            (None, made, returned)
        } else {
            let (came, made) = passage.take_activations();
            (came, made, None)
        };
        kept.extend(came.map(|tensor| ((lesson, KeptTensor::Came), tensor)));
        kept.extend(made.map(|tensor| ((lesson, KeptTensor::Made), tensor)));
        kept.extend(returned.map(|tensor| ((lesson, KeptTensor::Returned), tensor)));
    }
    kept
}
