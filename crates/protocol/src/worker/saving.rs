//! Writing a state to `state/`, beside the work: training goes on with the state while its bytes go to the disk. One write is under
//! way at a time. What is asked for meanwhile waits as long as the state stays what it is; when it moves on, that save has failed.

use super::Worker;
use crate::command::WorkerCommand;
use crate::message::ToCoordinator;
use crate::task::TaskId;
use skipstone_types::{Digest, Iteration, StageId};
use std::collections::BTreeSet;

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

/// What is to be saved, and what is being written.
#[derive(Debug, Clone, Default)]
pub(super) struct Saving {
    /// Saves asked for, by the iteration whose state is meant.
    asked: BTreeSet<Iteration>,
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

    /// A write under way goes on, and nobody hears of its end.
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
}
