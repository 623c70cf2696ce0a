//! Saving `state/`: one replica of every served stage writes its state of the same iteration.

use super::{Coordinator, LAST_REBUILD_GRACE_US, Phase};
use crate::command::{CoordinatorCommand, End};
use crate::message::ToWorker;
use crate::record::SavedStage;
use skipstone_types::{Digest, Event, Iteration, NodeId, StageId};
use std::collections::BTreeMap;

/// The pause before the last save is tried again; it doubles with every failure.
const RETRY_PAUSE_US_MIN: u64 = 1_000_000;

/// The longest such pause.
const RETRY_PAUSE_US_MAX: u64 = 10_000_000;

/// The last save has failed, and is tried again: the nodes hold all that was trained, and the run must not end without it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) at_us: u64,
    pause_us: u64,
}

/// A save under way.
#[derive(Debug)]
pub(super) struct Saving {
    iteration: Iteration,
    /// Who writes which stage, and the stage's lineage.
    writers: BTreeMap<StageId, (NodeId, u32)>,
    done: BTreeMap<StageId, SavedStage>,
    /// Whether the run ends with it.
    pub(super) last: bool,
}

impl Saving {
    /// The iteration that is saved.
    pub(super) fn iteration(&self) -> Iteration {
        self.iteration
    }

    /// Who has not written yet.
    pub(super) fn owing(&self) -> Vec<NodeId> {
        let owing = self.writers.iter().filter(|(stage, _)| !self.done.contains_key(stage));
        owing.map(|(_, (writer, _))| *writer).collect()
    }

    /// Whether this node is still to write.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.writers.iter().any(|(stage, (writer, _))| *writer == node && !self.done.contains_key(stage))
    }
}

impl Coordinator {
    /// Between two attempts' starts: begins a save if one is due. A hole puts it off. One that is due while the one before is still
    /// being written is left out.
    pub(super) fn save_if_wanted(&mut self) {
        let every = self.settings.save_every_iterations;
        let due = (every > 0 && self.iteration.0 > 0 && self.iteration.0.is_multiple_of(every))
            || self.checkpoint_is_due();
        if !(self.save_wanted || due) || !self.holes().is_empty() {
            return;
        }
        let Some(writing) = self.saving.as_ref().map(Saving::iteration) else {
            self.save_wanted = false;
            self.start_save(false);
            return;
        };
        // What was asked for waits until the disk is free; what is due goes by the iteration, and is left out.
        let iteration = self.iteration;
        if due && writing != iteration && self.save_skipped != Some(iteration) {
            self.save_skipped = Some(iteration);
            self.log(Event::SaveSkipped { iteration, writing });
        }
    }

    fn start_save(&mut self, last: bool) {
        let iteration = self.iteration;
        let writers: BTreeMap<_, _> = self
            .stage_ids()
            .filter_map(|stage| {
                let lineage = self.stages[usize::from(stage.0)].lineage;
                self.serving(stage).first().map(|node| (stage, (*node, lineage)))
            })
            .collect();
        for (node, _) in writers.values() {
            self.send(*node, ToWorker::Save { iteration });
        }
        self.saving = Some(Saving { iteration, writers, done: BTreeMap::new(), last });
    }

    /// The last save: the run ends when it is complete. Waits for a stage that is being rebuilt.
    pub(super) fn save_last(&mut self) {
        let pauses = self.save_retry.is_some_and(|retry| self.now_us < retry.at_us);
        let under_way = self.saving.as_ref().is_some_and(|saving| saving.last);
        if pauses || under_way || matches!(self.phase, Phase::Ending) {
            return;
        }
        let ends_since_us = *self.ends_since_us.get_or_insert(self.now_us);
        let wait = self
            .holes()
            .iter()
            .any(|stage| self.may_be_rebuilt(*stage) && (self.is_coming(*stage) || self.settings.respawn));
        if wait && self.now_us < ends_since_us + LAST_REBUILD_GRACE_US {
            return;
        }
        self.saving = None;
        self.start_save(true);
        if self.saving.as_ref().is_some_and(|saving| saving.writers.is_empty()) {
            self.finish();
        }
    }

    pub(super) fn on_saved(&mut self, node: NodeId, stage: StageId, iteration: Iteration, digest: Digest) {
        let Some(saving) = self.saving.as_mut().filter(|saving| saving.iteration == iteration) else {
            return;
        };
        let Some((_, lineage)) = saving.writers.get(&stage).filter(|(writer, _)| *writer == node) else {
            return;
        };
        saving.done.insert(stage, SavedStage { stage, state: digest, lineage: *lineage });
        self.publish_if_written();
    }

    /// Publishes what is written once replicas have said that they hold it: a node whose state differs from theirs may
    /// have written before they could.
    pub(super) fn publish_if_written(&mut self) {
        let Some(saving) = self.saving.as_ref().filter(|saving| saving.done.len() == saving.writers.len())
        else {
            return;
        };
        let iteration = saving.iteration;
        // An iteration that is over was agreed on when its gradients were added up.
        let open = |stage: &StageId| {
            iteration == self.iteration && self.is_served(*stage) && !self.states_agree(*stage)
        };
        if saving.done.keys().any(open) {
            return;
        }
        let differs = |saved: &SavedStage| {
            let known = self.stages[usize::from(saved.stage.0)].digests.get(&iteration);
            known.is_some_and(|known| *known != saved.state)
        };
        if saving.done.values().any(differs) {
            self.save_wanted |= !saving.last;
            self.saving = None;
            return;
        }
        let stages: Vec<_> = saving.done.values().copied().collect();
        let (last, origin) = (saving.last, saving.done.contains_key(&StageId::ORIGIN));
        // A state without the origin would shadow an older one that is whole.
        if origin {
            self.note_checkpoint(iteration, &stages);
            self.out.push(CoordinatorCommand::Publish { iteration, generation: self.generation, stages });
            self.log(Event::StateSaved { iteration });
        }
        self.saving = None;
        self.save_retry = None;
        if last {
            self.finish();
        }
    }

    pub(super) fn on_save_failed(&mut self, stage: StageId, iteration: Iteration, why: &str) {
        let Some(saving) = self.saving.take_if(|saving| saving.iteration == iteration) else { return };
        self.log(Event::SaveFailed { why: format!("{stage}: {why}") });
        // What the others have written of it only takes up space.
        self.out.push(CoordinatorCommand::Discard { iteration });
        if saving.last {
            let pause_us = self.save_retry.map_or(RETRY_PAUSE_US_MIN, |retry| 2 * retry.pause_us);
            let pause_us = pause_us.min(RETRY_PAUSE_US_MAX);
            self.save_retry = Some(Retry { at_us: self.now_us + pause_us, pause_us });
        }
    }

    /// A node that was to write, and has not, is lost. At the end another replica writes; else the next save will do.
    pub(super) fn saver_lost(&mut self, node: NodeId) {
        let owes = |saving: &mut Saving| {
            saving
                .writers
                .iter()
                .any(|(stage, (writer, _))| *writer == node && !saving.done.contains_key(stage))
        };
        // The last one begins again by itself, once there is an origin to save.
        self.save_wanted |= self.saving.take_if(owes).is_some_and(|saving| !saving.last);
    }

    fn finish(&mut self) {
        let end = match &self.failure {
            Some(why) => End::Failed { why: why.clone() },
            None if self.iteration.0 >= self.settings.steps => End::Done,
            None => End::Stopped,
        };
        self.end(end);
    }
}
