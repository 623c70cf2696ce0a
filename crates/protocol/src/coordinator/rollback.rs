//! Going back to a checkpoint, where the strategy does: the whole model becomes again what was saved, and what was trained since
//! is trained once more.
//!
//! Every node is let go and comes back under another id with nothing, as at a start with `--resume`. So nothing of what was under
//! way can be taken for what is to come: their old ids are fenced.

use super::copies::Copies;
use super::guard::Doubts;
use super::placing::Placing;
use super::retracing::{MadeAgain, RestoredLineages};
use super::{Base, Coordinator, GATHER_GRACE_US, Phase};
use crate::command::CoordinatorCommand;
use crate::journal::Entry;
use crate::message::ToWorker;
use crate::record::{CommitRecord, SavedStage, SavedState};
use skipstone_recovery::Decision;
use skipstone_types::{Attempt, Digest, Event, Iteration, NodeId, StageId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the run can go back to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) saved: SavedState,
    /// Digest of the record before it; zero if there is none.
    pub(super) previous: Digest,
}

/// Checkpoints, and who was let go at the last rollback.
#[derive(Debug, Default)]
pub(super) struct Rollbacks {
    pub(super) newest: Option<Checkpoint>,
    /// Records that the last rollback undid: the guard goes on from what norms were.
    pub(super) undone: BTreeMap<Iteration, Arc<CommitRecord>>,
    let_go: Vec<NodeId>,
}

impl Coordinator {
    /// Whether the iteration that comes next is one to be saved, and is not saved already.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        let Some(every) = self.strategy.saves_every() else { return false };
        let newest = self.rollbacks.newest.as_ref().map(|checkpoint| checkpoint.saved.iteration);
        self.iteration.0.is_multiple_of(every.get()) && newest != Some(self.iteration)
    }

    /// All stages are written. Journalled before they are published: what is deleted then is older. `previous` is the digest of the
    /// record before the iteration.
    pub(super) fn note_checkpoint(&mut self, iteration: Iteration, previous: Digest, stages: &[SavedStage]) {
        if self.strategy.saves_every().is_none() || stages.len() < self.stages.len() {
            return;
        }
        let saved = SavedState { iteration, stages: stages.to_vec() };
        self.journal(Entry::Saved { state: saved.clone(), previous });
        self.rollbacks.newest = Some(Checkpoint { saved, previous });
    }

    /// Goes back if a stage is lost, nobody is about to serve it, and the strategy says so; whether it did.
    pub(super) fn roll_back_if_due(&mut self) -> bool {
        if self.strategy.saves_every().is_none() || self.failure.is_some() {
            return false;
        }
        let lost = |stage: &StageId| !self.is_coming(*stage) && !self.stages[usize::from(stage.0)].refused;
        let Some(stage) = self.holes().into_iter().find(lost) else { return false };
        if self.decide(stage, None) != Decision::Rollback {
            return false;
        }
        let Some(checkpoint) = self.rollbacks.newest.clone() else { return false };
        self.roll_back(stage, checkpoint);
        true
    }

    fn roll_back(&mut self, lost: StageId, checkpoint: Checkpoint) {
        let Checkpoint { saved: SavedState { iteration, stages }, previous } = checkpoint;
        self.abort_attempt();
        self.planning = None;
        if let Some(saving) = self.saving.take() {
            self.out.push(CoordinatorCommand::Discard { iteration: saving.iteration() });
        }
        self.generation += 1;
        let generation = self.generation;
        self.journal(Entry::RolledBack { iteration, generation, stages: stages.clone() });
        self.log(Event::RolledBack { stage: lost, from: self.iteration, iteration, generation });
        self.let_everyone_go();
        self.rollbacks.undone = self.records.split_off(&iteration);
        self.iteration = iteration;
        self.next_attempt = Attempt(0);
        self.last_digest = previous;
        self.doubts = Doubts::default();
        self.placing = Placing::default();
        self.copies = Copies::default();
        (self.save_retry, self.ends_since_us, self.origin_away_since_us) = (None, None, None);
        self.saved.clear();
        for known in &mut self.stages {
            known.votes.clear();
            known.digests.clear();
            // Lineages are counted anew.
            known.restored = RestoredLineages::default();
            known.made_again = MadeAgain::default();
            known.last_step = None;
            known.last_step_members = (Vec::new(), 0);
        }
        for SavedStage { stage, state, lineage } in stages {
            let known = &mut self.stages[usize::from(stage.0)];
            known.lineage = lineage;
            known.digests.insert(iteration, state);
            self.saved.insert(stage, state);
        }
        self.phase = Phase::Gathering { until_us: self.now_us + GATHER_GRACE_US, base: Base::Saved };
    }

    fn let_everyone_go(&mut self) {
        let nodes = std::mem::take(&mut self.nodes);
        for (node, known) in nodes.iter() {
            self.out.push(CoordinatorCommand::Disconnect { node: *node });
            let stage = known.role.stage();
            self.log(Event::NodeLost { node: *node, stage, why: "rollback".to_owned(), wasted_us: 0 });
        }
        self.rollbacks.let_go = nodes.keys().copied().collect();
    }

    /// A node comes after a rollback: it hears nothing more from those who were let go.
    pub(super) fn fence_let_go(&mut self, node: NodeId) {
        if !self.rollbacks.let_go.is_empty() {
            let nodes = self.rollbacks.let_go.clone();
            self.send(node, ToWorker::Fence { nodes });
        }
    }
}
