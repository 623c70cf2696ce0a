//! Saving `state/`: one replica of every served stage writes its state of the same iteration.
//!
//! A stage that nobody serves when the run ends is written by the keeper of its copy, where the strategy would make it again from
//! that: journalled like any rebuild, as the stage is from then on what its copy was.

use super::{Coordinator, LAST_REBUILD_GRACE_US, Phase};
use crate::command::{CoordinatorCommand, End};
use crate::journal::{Entry, Rebuild, StageCopy};
use crate::message::ToWorker;
use crate::record::SavedStage;
use skipstone_recovery::{Decision, Recipe};
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

/// Who writes a stage.
#[derive(Debug)]
struct Writer {
    node: NodeId,
    lineage: u32,
    /// Nobody serves the stage: the node keeps a copy of it, and writes what the recipe makes of that.
    copy: Option<(StageCopy, Recipe)>,
}

/// A save under way.
#[derive(Debug)]
pub(super) struct Saving {
    iteration: Iteration,
    /// Digest of the record before it: writing may take longer than records are kept.
    previous: Digest,
    writers: BTreeMap<StageId, Writer>,
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
        owing.map(|(_, writer)| writer.node).collect()
    }

    /// Whether this node is still to write.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.writers.iter().any(|(stage, writer)| writer.node == node && !self.done.contains_key(stage))
    }

    /// The copy that this node is to write the stage from.
    fn copy_by(&self, node: NodeId, stage: StageId) -> Option<&StageCopy> {
        let writer = self.writers.get(&stage).filter(|writer| writer.node == node)?;
        writer.copy.as_ref().map(|(copy, _)| copy)
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
        let mut writers = BTreeMap::new();
        for stage in self.stage_ids() {
            let lineage = self.stages[usize::from(stage.0)].lineage;
            let serving = self.serving(stage).first().copied();
            if let Some(node) = serving {
                self.send(node, ToWorker::Save { iteration });
                writers.insert(stage, Writer { node, lineage, copy: None });
            } else if let Some((node, copy, recipe)) = self.copy_to_save(stage).filter(|_| last) {
                let (copied, made_by) = (copy.iteration, recipe.clone());
                self.send(node, ToWorker::SaveCopy { stage, iteration, copied, recipe: made_by });
                writers.insert(stage, Writer { node, lineage: lineage + 1, copy: Some((copy, recipe)) });
            }
        }
        let previous = self.last_digest;
        self.saving = Some(Saving { iteration, previous, writers, done: BTreeMap::new(), last });
    }

    /// Of a stage that nobody serves: who keeps a copy that the strategy would make it from, and how.
    pub(super) fn copy_to_save(&mut self, stage: StageId) -> Option<(NodeId, StageCopy, Recipe)> {
        let Decision::Rebuild(recipe) = self.decide(stage, None) else { return None };
        let (keeper, copy) = self.copy_of(stage, None).filter(|_| recipe.restores(stage))?;
        Some((keeper, copy, recipe))
    }

    /// The last save: the run ends when it is complete. A lost stage is saved as its copy is, unless a node is about to serve
    /// it; one without a copy is waited for if a node may come.
    pub(super) fn save_last(&mut self) {
        let pauses = self.save_retry.is_some_and(|retry| self.now_us < retry.at_us);
        let under_way = self.saving.as_ref().is_some_and(|saving| saving.last);
        if pauses || under_way || matches!(self.phase, Phase::Ending) {
            return;
        }
        let ends_since_us = *self.ends_since_us.get_or_insert(self.now_us);
        let mut wait = false;
        for stage in self.holes() {
            let may_come = self.settings.respawn && self.copy_to_save(stage).is_none();
            wait |= self.may_be_rebuilt(stage) && (self.is_coming(stage) || may_come);
        }
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
        let Some(writer) = saving.writers.get(&stage).filter(|writer| writer.node == node) else {
            return;
        };
        if let Some((copy, _)) = writer.copy.as_ref().filter(|(copy, _)| copy.state != digest) {
            let copied = copy.iteration;
            self.on_copy_unusable(node, (stage, copied), "it gives other bits than its stage had");
            return;
        }
        saving.done.insert(stage, SavedStage { stage, state: digest, lineage: writer.lineage });
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
        if self.leaves_out_what_can_be_had() {
            // It begins again by itself.
            self.saving = None;
            return;
        }
        let Some(saving) = &self.saving else { return };
        // An iteration that is over was agreed on when its gradients were added up.
        let open = |stage: &StageId| {
            iteration == self.iteration && self.is_served(*stage) && !self.states_agree(*stage)
        };
        if saving.done.keys().any(open) {
            return;
        }
        let differs = |saved: &SavedStage| {
            let known = self.stages[usize::from(saved.stage.0)].digests.get(&iteration);
            // What a copy gives is older than what was lost.
            let is_copy = saving.writers.get(&saved.stage).is_some_and(|writer| writer.copy.is_some());
            !is_copy && known.is_some_and(|known| *known != saved.state)
        };
        if saving.done.values().any(differs) {
            self.save_wanted |= !saving.last;
            self.saving = None;
            return;
        }
        let stages: Vec<_> = saving.done.values().copied().collect();
        let (last, previous) = (saving.last, saving.previous);
        let origin = saving.done.contains_key(&StageId::ORIGIN);
        let copies: Vec<_> = saving.writers.values().filter_map(|writer| writer.copy.clone()).collect();
        // A state without the origin would shadow an older one that is whole.
        if origin {
            for (copy, recipe) in copies {
                self.note_saved_copy(&copy, recipe);
            }
            self.note_checkpoint(iteration, previous, &stages);
            self.out.push(CoordinatorCommand::Publish { iteration, generation: self.generation, stages });
            self.log(Event::StateSaved { iteration });
        }
        self.saving = None;
        self.save_retry = None;
        if last {
            self.finish();
        }
    }

    /// Whether the last save is without a stage that somebody has, who came back while it was written.
    fn leaves_out_what_can_be_had(&mut self) -> bool {
        let Some(saving) = self.saving.as_ref().filter(|saving| saving.last) else { return false };
        let left_out = |stage: &StageId| !saving.writers.contains_key(stage);
        let left_out: Vec<_> = self.stage_ids().filter(left_out).collect();
        left_out.into_iter().any(|stage| self.is_served(stage) || self.copy_to_save(stage).is_some())
    }

    /// A stage is made again by being saved: what goes on from here goes on from its copy.
    fn note_saved_copy(&mut self, copy: &StageCopy, recipe: Recipe) {
        let StageCopy { stage, iteration: from, lineage: copied, state } = *copy;
        let (iteration, now_us) = (self.iteration, self.now_us);
        let known = &mut self.stages[usize::from(stage.0)];
        known.lineage += 1;
        known.votes.clear();
        known.digests.clear();
        known.digests.insert(iteration, state);
        let (lineage, since_us) = (known.lineage, known.lost_since_us.take().unwrap_or(now_us));
        let rebuild = Rebuild { stage, lineage, from, recipe, source_lineages: vec![copied], state };
        known.restored.note(&rebuild);
        self.journal(Entry::Rebuilt(Box::new(rebuild)));
        let (kind, took_ms) = ("saved".to_owned(), now_us.saturating_sub(since_us) / 1000);
        self.log(Event::StageRebuilt { stage, kind, sources: vec![stage], took_ms, iteration });
    }

    /// A copy that was to be saved can't be had: the last save begins again, with what else there is.
    pub(super) fn on_copy_unusable(
        &mut self,
        node: NodeId,
        (stage, iteration): (StageId, Iteration),
        why: &str,
    ) {
        let saving = self.saving.as_ref();
        let is_awaited = saving
            .and_then(|saving| saving.copy_by(node, stage))
            .is_some_and(|copy| copy.iteration == iteration);
        if is_awaited {
            self.log(Event::Refused { node: Some(node), why: format!("copy of {stage}: {why}") });
            self.forget_copy(stage, iteration, node);
            self.saving = None;
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
                .any(|(stage, writer)| writer.node == node && !saving.done.contains_key(stage))
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
