//! Copies of other stages' states, kept in case those are lost.
//!
//! The coordinator names stage, iteration and donor; the copy is pulled like any state, beside whatever else the node does, and
//! takes the place of the one before. A node that gets another stage, or starts empty, keeps none.

use super::Worker;
use super::pull::Pull;
use crate::message::{KeptCopy, ToCoordinator, TransferId};
use crate::task::Handle;
use skipstone_recovery::StateFormat;
use skipstone_types::{Digest, Iteration, NodeId, StageId};
use std::collections::BTreeMap;

/// A copy that is kept.
#[derive(Debug, Clone)]
struct Kept {
    iteration: Iteration,
    digest: Digest,
    state: Handle,
}

/// One on its way.
#[derive(Debug, Clone)]
struct Arriving {
    transfer: TransferId,
    iteration: Iteration,
    pull: Pull,
}

/// All of a node's copies, at most one of each stage, and one on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct Copies {
    kept: BTreeMap<StageId, Kept>,
    arriving: BTreeMap<StageId, Arriving>,
}

impl Copies {
    /// States on their way.
    pub(super) fn pulls(&mut self) -> impl Iterator<Item = (TransferId, &mut Pull)> {
        self.arriving.values_mut().map(|arriving| (arriving.transfer, &mut arriving.pull))
    }

    /// The copy of a stage before this iteration.
    pub(super) fn state(&self, stage: StageId, iteration: Iteration) -> Option<Handle> {
        self.kept.get(&stage).filter(|kept| kept.iteration == iteration).map(|kept| kept.state)
    }

    /// What is kept, for whoever asks after a return.
    pub(super) fn list(&self) -> Vec<KeptCopy> {
        let copy = |(stage, kept): (&StageId, &Kept)| {
            let (stage, iteration, digest) = (*stage, kept.iteration, kept.digest);
            KeptCopy { stage, iteration, digest }
        };
        self.kept.iter().map(copy).collect()
    }

    /// The stage of which this transfer brings a copy.
    fn arriving_by(&self, transfer: TransferId) -> Option<StageId> {
        let mut arriving = self.arriving.iter();
        arriving.find(|(_, arriving)| arriving.transfer == transfer).map(|(stage, _)| *stage)
    }

    /// How many there are, those on their way included.
    pub(super) fn len(&self) -> usize {
        self.kept.len() + self.arriving.len()
    }
}

impl Worker {
    /// Gets a copy of a stage's state before this iteration from `donor`.
    pub(super) fn keep_copy(
        &mut self,
        transfer: TransferId,
        stage: StageId,
        iteration: Iteration,
        (donor, format): (NodeId, StateFormat),
    ) {
        self.stop_copy(stage);
        let pull = Pull::new(stage, format, vec![donor]);
        self.copies.arriving.insert(stage, Arriving { transfer, iteration, pull });
        self.request_chunks(None);
    }

    /// The chunks of a copy were put together.
    pub(super) fn copy_joined(&mut self, transfer: TransferId, outputs: Vec<Handle>, digest: Digest) {
        let stage = self.copies.arriving_by(transfer);
        let arrived = stage.and_then(|stage| Some((stage, self.copies.arriving.remove(&stage)?)));
        let Some(((stage, Arriving { iteration, pull, .. }), state)) = arrived.zip(outputs.first().copied())
        else {
            self.drop_handles(outputs);
            return;
        };
        self.drop_handles(pull.handles());
        self.give_up_saving_copy(stage, "a newer one has come".to_owned());
        let before = self.copies.kept.insert(stage, Kept { iteration, digest, state });
        self.drop_handles(before.map(|kept| kept.state));
        self.report(ToCoordinator::CopyKept { transfer, stage, iteration, digest });
    }

    /// The copy that this transfer brings is of no use; whether it was one.
    pub(super) fn stop_copy_by(&mut self, transfer: TransferId) -> bool {
        let Some(stage) = self.copies.arriving_by(transfer) else { return false };
        self.stop_copy(stage);
        true
    }

    fn stop_copy(&mut self, stage: StageId) {
        if let Some(arriving) = self.copies.arriving.remove(&stage) {
            self.compute.cancel(|purpose| purpose.is_of_transfer(arriving.transfer));
            self.drop_handles(arriving.pull.handles());
        }
    }

    /// Copies that came from these nodes alone come no more.
    pub(super) fn drop_copies_from(&mut self, lost: &[NodeId]) {
        let from_lost = |arriving: &Arriving| arriving.pull.donors.iter().all(|donor| lost.contains(donor));
        let stages: Vec<_> =
            self.copies.arriving.iter().filter(|(_, of)| from_lost(of)).map(|(stage, _)| *stage).collect();
        for stage in stages {
            self.stop_copy(stage);
        }
    }

    /// Copies on their way were promised under names that are no more.
    pub(super) fn stop_copies(&mut self) {
        let stages: Vec<_> = self.copies.arriving.keys().copied().collect();
        for stage in stages {
            self.stop_copy(stage);
        }
    }

    /// Keeps no copy of this stage any longer.
    pub(super) fn drop_copy(&mut self, stage: StageId) {
        self.stop_copy(stage);
        self.give_up_saving_copy(stage, "the copy is kept no longer".to_owned());
        let kept = self.copies.kept.remove(&stage);
        self.drop_handles(kept.map(|kept| kept.state));
    }

    pub(super) fn drop_all_copies(&mut self) {
        let stages: Vec<_> = self.copies.kept.keys().chain(self.copies.arriving.keys()).copied().collect();
        for stage in stages {
            self.drop_copy(stage);
        }
    }
}
