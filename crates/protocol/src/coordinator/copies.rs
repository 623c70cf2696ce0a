//! Copies of stages with nodes of other stages, where the strategy asks for them.
//!
//! At the start of an iteration in which a stage is due, one of its replicas freezes its state, and a node of the nearest other
//! stage pulls it while training goes on. What arrived counts once it has the bits that the stage's replicas agreed on, or, of a
//! state in rounded numbers, those that its donor made of these; it is journalled, so that the next coordinator knows a copy when a node comes with it.
//!
//! No node ever holds more than [`COPIES_HELD_MAX`] of other stages' states, those on their way included. While every stage is
//! served there is a keeper for each stage that keeps nothing else: copies go to who holds least.

use super::Coordinator;
use super::roster::{Node, Role};
use crate::domain::FailureDomain;
use crate::journal::{Entry, StageCopy};
use crate::message::{COPIES_HELD_MAX, KeptCopy, ToWorker, TransferId};
use skipstone_types::{Digest, Event, Iteration, NodeId, StageId};
use std::collections::BTreeMap;

/// Iterations that a copy may be on its way, however often copies are taken.
const COPY_ITERATIONS_MIN: u64 = 8;

/// The newest copy of a stage that has the right bits.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    copy: StageCopy,
    /// Who has it; none: a node that is lost, and may come back.
    keeper: Option<NodeId>,
}

/// A copy on its way.
#[derive(Debug, Clone)]
struct Moving {
    transfer: TransferId,
    iteration: Iteration,
    donor: NodeId,
    keeper: NodeId,
    frozen: Option<Frozen>,
}

/// What a donor says of the copy that it gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frozen {
    /// Digest of its state: the one that its stage's replicas must agree on.
    pub(super) of: Digest,
    /// Digest of what comes of the copy; the same, unless its numbers are rounded.
    pub(super) rounded: Digest,
}

/// A copy that a node has, and that may not be what it should be.
#[derive(Debug, Clone)]
struct Arrived {
    node: NodeId,
    transfer: TransferId,
    copy: StageCopy,
    /// None: the donor has not said yet.
    frozen: Option<Frozen>,
}

/// All copies.
#[derive(Debug, Default)]
pub(super) struct Copies {
    known: BTreeMap<StageId, Known>,
    moving: BTreeMap<StageId, Moving>,
    /// Arrived before the stage's replicas, or the donor, had said what it must be.
    unsettled: BTreeMap<StageId, Arrived>,
}

impl Copies {
    /// What a journal tells of.
    pub(super) fn of_journal(copies: impl IntoIterator<Item = StageCopy>) -> Self {
        let known = copies.into_iter().map(|copy| (copy.stage, Known { copy, keeper: None })).collect();
        Self { known, ..Self::default() }
    }

    /// Of which stages nodes hold states, those on their way included; a stage is there twice while a newer copy of it is on its
    /// way to the keeper of the one before.
    fn held(&self) -> BTreeMap<NodeId, Vec<StageId>> {
        let known = self.known.iter().filter_map(|(stage, known)| Some((known.keeper?, *stage)));
        let moving = self.moving.iter().map(|(stage, moving)| (moving.keeper, *stage));
        let unsettled = self.unsettled.iter().map(|(stage, arrived)| (arrived.node, *stage));
        let mut held: BTreeMap<NodeId, Vec<StageId>> = BTreeMap::new();
        for (node, stage) in known.chain(moving).chain(unsettled) {
            held.entry(node).or_default().push(stage);
        }
        held
    }
}

impl Coordinator {
    /// At the start of an attempt: has the stages copied that are due.
    pub(super) fn copy_stages(&mut self) {
        for stage in self.stage_ids() {
            let Some(every) = self.strategy.copies_every(stage) else { continue };
            if self.is_served(stage) && self.is_copy_due(stage, every.get()) {
                self.start_copy(stage);
            }
        }
    }

    /// Whether the newest copy is from before the stage's last turn, or nobody who stays has one. Stages take turns, so that
    /// links are not all loaded at once.
    fn is_copy_due(&self, stage: StageId, every: u64) -> bool {
        let iteration = self.iteration.0;
        if let Some(moving) = self.copies.moving.get(&stage) {
            // It takes too long, or will never end.
            return moving.iteration.0 + every.max(COPY_ITERATIONS_MIN) < iteration;
        }
        if self.copies.unsettled.get(&stage).is_some_and(|arrived| arrived.copy.iteration == self.iteration) {
            return false;
        }
        let known = self.copies.known.get(&stage);
        let newest =
            known.filter(|known| known.keeper.is_some_and(|keeper| self.may_keep_copies(keeper, stage)));
        match newest.map(|known| known.copy.iteration.0) {
            // The first state follows from the seed.
            None => iteration > 0,
            Some(newest) => {
                let turn = u64::from(stage.0) * every / self.stages.len() as u64;
                newest + (iteration + turn) % every < iteration
            }
        }
    }

    /// Whether the node serves another stage, and stays.
    fn may_keep_copies(&self, node: NodeId, of: StageId) -> bool {
        let serves_another = |known: &Node| matches!(known.role, Role::Serving { stage } if stage != of);
        !self.is_leaving(node) && self.nodes.get(&node).is_some_and(serves_another)
    }

    fn start_copy(&mut self, stage: StageId) {
        self.stop_copy(stage);
        self.drop_unsettled(stage);
        let replicas = self.serving(stage);
        let turn = self.iteration.0 as usize % replicas.len().max(1);
        let (Some(donor), Some(keeper)) = (replicas.get(turn).copied(), self.keeper_for(stage)) else {
            return;
        };
        let (transfer, iteration) = (self.new_transfer(), self.iteration);
        self.copies.moving.insert(stage, Moving { transfer, iteration, donor, keeper, frozen: None });
        let (addresses, format) = (self.addresses_for(keeper), self.strategy.copy_format());
        self.send(donor, ToWorker::Donate { transfer, stage, iteration, to: keeper, format });
        self.send(keeper, ToWorker::KeepCopy { transfer, stage, iteration, format, donor, addresses });
    }

    /// Of the nodes that have room for one more those that share the least of what could fail with the stage's replicas; of those the
    /// one that holds least of other stages; of those the keeper so far, else the nearest stage's. None: the stage is copied once there
    /// is room.
    fn keeper_for(&self, stage: StageId) -> Option<NodeId> {
        let so_far = self.copies.known.get(&stage).and_then(|known| known.keeper);
        let held = self.copies.held();
        let room = |node: &NodeId| held.get(node).is_none_or(|held| held.len() < COPIES_HELD_MAX);
        let domains: Vec<FailureDomain> = self
            .serving(stage)
            .iter()
            .filter_map(|node| self.nodes.get(node))
            .map(|node| node.domain)
            .collect();
        let candidates = self.nodes.keys().copied().filter(|node| self.may_keep_copies(*node, stage));
        candidates.filter(room).min_by_key(|node| {
            let served = match self.nodes[node].role {
                Role::Serving { stage } => stage.0,
                _ => u16::MAX,
            };
            // As long as one replica is elsewhere the stage and its copy are not lost together.
            let domain = self.nodes[node].domain;
            let shared = domains.iter().map(|other| domain.shared_with(*other)).min().unwrap_or(0);
            let others = held.get(node).map_or(0, |held| held.iter().filter(|of| **of != stage).count());
            // Of two that are as near the one above, as the last stage has none.
            (shared, others, so_far != Some(*node), served.abs_diff(stage.0), served < stage.0, *node)
        })
    }

    /// A copy on its way is of no use any more.
    fn stop_copy(&mut self, stage: StageId) {
        let Some(Moving { transfer, donor, keeper, .. }) = self.copies.moving.remove(&stage) else { return };
        let has_another = self.copies.known.get(&stage).is_some_and(|known| known.keeper == Some(keeper));
        if self.nodes.contains_key(&donor) {
            self.send(donor, ToWorker::Release { transfer });
        }
        if self.nodes.contains_key(&keeper) {
            // What it kept before is not what we mean.
            let stops =
                if has_another { ToWorker::Release { transfer } } else { ToWorker::DropCopy { stage } };
            self.send(keeper, stops);
        }
    }

    /// What arrived, and was never told apart from what it should be, is of no use any more.
    fn drop_unsettled(&mut self, stage: StageId) {
        if let Some(Arrived { node, .. }) = self.copies.unsettled.remove(&stage)
            && self.nodes.contains_key(&node)
        {
            self.send(node, ToWorker::DropCopy { stage });
        }
    }

    /// A node keeps a copy. If it was told to stop meanwhile, it has either dropped this too, or this has taken the place of the
    /// one that it was to keep.
    pub(super) fn on_copy_kept(&mut self, node: NodeId, transfer: TransferId, kept: KeptCopy) {
        let KeptCopy { stage, iteration, digest } = kept;
        let Some(lineage) = self.stages.get(usize::from(stage.0)).map(|known| known.lineage) else { return };
        let mut frozen = None;
        if let Some(moving) = self.copies.moving.get(&stage).filter(|moving| moving.transfer == transfer) {
            let donor = moving.donor;
            frozen = moving.frozen;
            self.copies.moving.remove(&stage);
            if self.nodes.contains_key(&donor) {
                self.send(donor, ToWorker::Release { transfer });
            }
        } else if self.copies.known.get(&stage).is_none_or(|known| known.keeper != Some(node)) {
            // Unless another is on its way to it, which will take the place of this one.
            if self.copies.moving.get(&stage).is_none_or(|moving| moving.keeper != node) {
                self.send(node, ToWorker::DropCopy { stage });
            }
            return;
        }
        // It has taken the place of what the node kept before.
        if let Some(known) = self.copies.known.get_mut(&stage).filter(|known| known.keeper == Some(node)) {
            known.keeper = None;
        }
        self.drop_unsettled_elsewhere(stage, node);
        let copy = StageCopy { stage, iteration, lineage, state: digest };
        if !self.strategy.copy_format().rounds() {
            frozen = Some(Frozen { of: digest, rounded: digest });
        }
        self.copies.unsettled.insert(stage, Arrived { node, transfer, copy, frozen });
        self.settle_copies();
    }

    /// A donor has rounded its state: what comes of the copy is known.
    pub(super) fn on_copy_frozen(&mut self, transfer: TransferId, frozen: Frozen) {
        let moving = self.copies.moving.values_mut().find(|moving| moving.transfer == transfer);
        if let Some(moving) = moving {
            moving.frozen = Some(frozen);
        }
        let arrived = self.copies.unsettled.values_mut().find(|arrived| arrived.transfer == transfer);
        if let Some(arrived) = arrived {
            arrived.frozen = Some(frozen);
            self.settle_copies();
        }
    }

    fn drop_unsettled_elsewhere(&mut self, stage: StageId, node: NodeId) {
        if self.copies.unsettled.get(&stage).is_some_and(|other| other.node != node) {
            self.drop_unsettled(stage);
        }
    }

    /// Copies that have arrived count once their stage's replicas have said what they are copies of, and, where numbers are
    /// rounded, the donor what comes of them.
    pub(super) fn settle_copies(&mut self) {
        let settled: Vec<_> = self
            .copies
            .unsettled
            .iter()
            .filter_map(|(stage, arrived)| {
                let agreed = self.stages[usize::from(stage.0)].digests.get(&arrived.copy.iteration)?;
                Some((arrived.node, arrived.copy.clone(), *agreed, arrived.frozen?))
            })
            .collect();
        for (node, copy, agreed, frozen) in settled {
            let stage = copy.stage;
            self.copies.unsettled.remove(&stage);
            let is_right = frozen.of == agreed && copy.state == frozen.rounded;
            if is_right && copy.lineage == self.stages[usize::from(stage.0)].lineage {
                self.adopt_copy(node, copy);
            } else if self.nodes.contains_key(&node) {
                self.send(node, ToWorker::DropCopy { stage });
            }
        }
    }

    fn adopt_copy(&mut self, keeper: NodeId, copy: StageCopy) {
        let (stage, iteration) = (copy.stage, copy.iteration);
        self.journal(Entry::CopyKept(copy.clone()));
        self.log(Event::CopyKept { stage, iteration, node: keeper });
        let before = self.copies.known.insert(stage, Known { copy, keeper: Some(keeper) });
        if let Some(other) = before.and_then(|known| known.keeper).filter(|other| *other != keeper) {
            self.send(other, ToWorker::DropCopy { stage });
        }
    }

    /// A node is gone, or gets another stage: what it kept, or was on its way to it or from it, is no more.
    pub(super) fn forget_copies_with(&mut self, node: NodeId) {
        let moving = self.copies.moving.iter().filter(|(_, of)| of.donor == node || of.keeper == node);
        let moving: Vec<_> = moving.map(|(stage, _)| *stage).collect();
        for stage in moving {
            self.stop_copy(stage);
        }
        self.copies.unsettled.retain(|_, arrived| arrived.node != node);
        for known in self.copies.known.values_mut().filter(|known| known.keeper == Some(node)) {
            known.keeper = None;
        }
    }

    /// A node comes back with copies: those that are the newest of their stage count again.
    pub(super) fn take_copies(&mut self, node: NodeId, kept: &[KeptCopy]) {
        for KeptCopy { stage, iteration, digest } in kept.iter().take(self.stages.len()).copied() {
            let known = self.copies.known.get_mut(&stage).filter(|known| {
                known.keeper.is_none() && (known.copy.iteration, known.copy.state) == (iteration, digest)
            });
            match known {
                Some(known) => known.keeper = Some(node),
                None => self.send(node, ToWorker::DropCopy { stage }),
            }
        }
    }

    /// The newest copy of a lost stage with a living node other than `but`.
    pub(super) fn copy_of(&self, stage: StageId, but: Option<NodeId>) -> Option<(NodeId, StageCopy)> {
        let known = self.copies.known.get(&stage)?;
        let keeper = known.keeper.filter(|keeper| Some(*keeper) != but && self.nodes.contains_key(keeper))?;
        Some((keeper, known.copy.clone()))
    }

    /// Whether the node keeps a copy of any stage.
    pub(super) fn keeps_copies(&self, node: NodeId) -> bool {
        self.copies.known.values().any(|known| known.keeper == Some(node))
    }

    /// A copy is of no use: its keeper does not have it, or it has other bits than were copied.
    pub(super) fn forget_copy(&mut self, stage: StageId, iteration: Iteration) {
        let Some(known) = self.copies.known.remove(&stage) else { return };
        if known.copy.iteration != iteration {
            self.copies.known.insert(stage, known);
        } else if let Some(keeper) = known.keeper {
            self.send(keeper, ToWorker::DropCopy { stage });
        }
    }

    /// A copy on its way came to nothing; whether the transfer was one.
    pub(super) fn copy_failed(&mut self, transfer: TransferId) -> bool {
        let stage = self.copies.moving.iter().find(|(_, moving)| moving.transfer == transfer);
        let Some(stage) = stage.map(|(stage, _)| *stage) else { return false };
        self.stop_copy(stage);
        true
    }

    /// Whether a stage that is lost can be made again: the origin only from a copy, or by an oracle.
    pub(super) fn may_be_rebuilt(&self, stage: StageId) -> bool {
        let refused = self.stages[usize::from(stage.0)].refused;
        let is_at_hand = || self.strategy.is_oracle() || self.copy_of(stage, None).is_some();
        !refused && (!stage.is_origin() || is_at_hand())
    }
}
