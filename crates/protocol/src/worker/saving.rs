//! Writing a state to `state/`, beside the work: training goes on with the state while its bytes go to the disk. One write is under
//! way at a time. What is asked for meanwhile waits as long as the state stays what it is; when it moves on, that save has failed.
//!
//! At the end of a run a keeper also writes what its copies of lost stages give.

use super::Worker;
use super::compute::Purpose;
use crate::command::WorkerCommand;
use crate::message::ToCoordinator;
use crate::task::{Handle, Task, TaskId};
use skipstone_recovery::Recipe;
use skipstone_types::{Digest, Iteration, StageId};
use std::collections::{BTreeMap, BTreeSet};

/// A write under way.
#[derive(Debug, Clone, Copy)]
struct Writing {
    id: TaskId,
    stage: StageId,
    iteration: Iteration,
    digest: Digest,
    /// Whether anybody wants to hear of its end: not after everything was forgotten.
    wanted: bool,
}

/// A lost stage that is to be written as its copy gives it.
#[derive(Debug, Clone, Copy)]
struct CopyToSave {
    /// The iteration that is saved.
    iteration: Iteration,
    /// The iteration before which the copy was taken.
    copied: Iteration,
    /// What came of the copy.
    made: Option<(Handle, Digest)>,
}

/// What is to be saved, and what is being written.
#[derive(Debug, Clone, Default)]
pub(super) struct Saving {
    /// Saves asked for, by the iteration whose state is meant.
    asked: BTreeSet<Iteration>,
    copies: BTreeMap<StageId, CopyToSave>,
    writing: Option<Writing>,
}

impl Saving {
    /// The coordinator asks for a save.
    pub(super) fn want(&mut self, iteration: Iteration) {
        self.asked.insert(iteration);
    }

    /// How many wait.
    pub(super) fn wanted(&self) -> usize {
        self.asked.len()
    }

    /// How many lost stages are to be written.
    pub(super) fn copies_to_save(&self) -> usize {
        self.copies.len()
    }

    /// A write under way goes on, and nobody hears of its end. Copies are given up one by one ([`Worker::drop_copy`]).
    pub(super) fn forget(&mut self) {
        self.asked.clear();
        if let Some(writing) = &mut self.writing {
            writing.wanted = false;
        }
    }
}

impl Worker {
    /// Begins what was asked for, if the held state is of that iteration.
    pub(super) fn save(&mut self, stage: StageId, iteration: Iteration) {
        let due: Vec<_> = self.saving.asked.range(..=iteration).copied().collect();
        for asked in due {
            if asked < iteration {
                self.saving.asked.remove(&asked);
                let why = match &self.saving.writing {
                    Some(writing) => {
                        format!("the state before {} was still being written", writing.iteration)
                    }
                    None => "the state has moved on".to_owned(),
                };
                self.report(ToCoordinator::SaveFailed { stage, iteration: asked, why });
                continue;
            }
            let Some((digest, state)) = self.held.and_then(|held| Some((held.digest, held.state?))) else {
                return;
            };
            match &self.saving.writing {
                // Every attempt asks again: the write under way is the answer.
                Some(writing)
                    if writing.wanted
                        && (writing.stage, writing.iteration, writing.digest)
                            == (stage, iteration, digest) => {}
                // It waits for the disk, but training does not wait for it.
                Some(_) => return,
                None => {
                    let id = self.compute.new_id();
                    self.saving.writing = Some(Writing { id, stage, iteration, digest, wanted: true });
                    self.out.push(WorkerCommand::Write { id, stage, iteration, digest, state });
                }
            }
            self.saving.asked.remove(&asked);
        }
    }

    pub(super) fn on_written(&mut self, id: TaskId, written: Result<(), String>) {
        let Some(writing) = self.saving.writing.take_if(|writing| writing.id == id) else { return };
        let Writing { stage, iteration, digest, .. } = writing;
        match written {
            _ if !writing.wanted => {}
            Ok(()) => self.report(ToCoordinator::Saved { stage, iteration, digest }),
            Err(why) => self.report(ToCoordinator::SaveFailed { stage, iteration, why }),
        }
    }

    /// Makes a lost stage of the copy that is kept of it, and writes that as the stage before `iteration`.
    pub(super) fn save_copy(
        &mut self,
        stage: StageId,
        iteration: Iteration,
        copied: Iteration,
        recipe: Recipe,
    ) {
        let Some(copy) = self.copies.state(stage, copied) else {
            let why = format!("no copy of {stage} before {copied} is kept");
            self.report(ToCoordinator::CopyUnusable { stage, iteration: copied, why });
            return;
        };
        // Asked again, as another node's write has failed: what is under way is the answer.
        let asked = self.saving.copies.get(&stage).map(|asked| (asked.iteration, asked.copied));
        if asked == Some((iteration, copied)) {
            return;
        }
        self.forget_copy_to_save(stage);
        self.saving.copies.insert(stage, CopyToSave { iteration, copied, made: None });
        let (purpose, task) = (Purpose::SaveCopy { stage, copied }, Task::Rebuild { stage, recipe });
        self.compute.enqueue(purpose, task, vec![copy], 1);
    }

    /// A lost stage is there again, to be written.
    pub(super) fn copy_made(
        &mut self,
        (stage, copied): (StageId, Iteration),
        outputs: Vec<Handle>,
        digest: Digest,
    ) {
        let copy = self.saving.copies.get_mut(&stage);
        let waits = copy.filter(|copy| copy.copied == copied && copy.made.is_none());
        match waits.zip(outputs.first()) {
            Some((copy, state)) => copy.made = Some((*state, digest)),
            None => self.drop_handles(outputs),
        }
    }

    /// Begins to write a lost stage that is there again, if the disk is free.
    pub(super) fn write_copies(&mut self) {
        if self.saving.writing.is_some() {
            return;
        }
        let made = |(stage, copy): (&StageId, &CopyToSave)| Some((*stage, copy.iteration, copy.made?));
        let Some((stage, iteration, (state, digest))) = self.saving.copies.iter().find_map(made) else {
            return;
        };
        self.saving.copies.remove(&stage);
        let id = self.compute.new_id();
        self.saving.writing = Some(Writing { id, stage, iteration, digest, wanted: true });
        self.out.push(WorkerCommand::Write { id, stage, iteration, digest, state });
        // Who writes it holds it by now.
        self.drop_handles([state]);
    }

    /// A copy that was to be written is of no use.
    pub(super) fn give_up_saving_copy(&mut self, stage: StageId, why: String) {
        if let Some(CopyToSave { copied, .. }) = self.forget_copy_to_save(stage) {
            self.report(ToCoordinator::CopyUnusable { stage, iteration: copied, why });
        }
    }

    fn forget_copy_to_save(&mut self, stage: StageId) -> Option<CopyToSave> {
        let copy = self.saving.copies.remove(&stage)?;
        self.compute.cancel(|purpose| matches!(purpose, Purpose::SaveCopy { stage: of, .. } if *of == stage));
        self.drop_handles(copy.made.map(|(state, _)| state));
        Some(copy)
    }
}
