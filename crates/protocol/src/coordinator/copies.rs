//! Copies of stages with nodes of other stages, where the strategy asks for them.
//!
//! At the start of an iteration in which a stage is due, one of its replicas freezes its state, and a node of another stage
//! ([`Coordinator::keeper_for`]) pulls it while training goes on. What arrived counts once it has the bits that the stage's replicas agreed on, or, of a
//! state in rounded numbers, those that its donor made of these; it is journalled, so that the next coordinator knows a copy when a node comes with it.
//!
//! Two nodes keep a stage in turn: a newer copy goes to the one whose copy is older, and takes its place. So a stage that is lost
//! together with one of them comes back from the other's.
//!
//! No node ever holds more than [`COPIES_HELD_MAX`] of other stages' states, those on their way included. Copies go to who holds
//! least: while every stage is served, with one node each, every node keeps those of two.

use super::Coordinator;
use super::known_copies::KnownCopies;
use super::roster::{Node, Role};
use crate::domain::FailureDomain;
use crate::journal::{Entry, StageCopy};
use crate::message::{COPIES_HELD_MAX, KeptCopy, ToWorker, TransferId};
use skipstone_types::{Digest, Event, Iteration, NodeId, StageId};
use std::collections::BTreeMap;

/// Iterations that a copy may be on its way, however often copies are taken.
const COPY_ITERATIONS_MIN: u64 = 8;

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
    known: KnownCopies,
    moving: BTreeMap<StageId, Moving>,
    /// Arrived before the stage's replicas, or the donor, had said what it must be.
    unsettled: BTreeMap<StageId, Arrived>,
    /// The last that was stopped on its way to who keeps an older one: it may have taken that one's place already.
    stopped: BTreeMap<StageId, Moving>,
}

impl Copies {
    /// What a journal tells of.
    pub(super) fn of_journal(known: KnownCopies) -> Self {
        Self { known, ..Self::default() }
    }

    /// Iterations of which a copy of the stage is on its way, or not settled.
    pub(super) fn awaited(&self, stage: StageId) -> impl Iterator<Item = Iteration> {
        let moving = [self.moving.get(&stage), self.stopped.get(&stage)].into_iter().flatten();
        let unsettled = self.unsettled.get(&stage).map(|arrived| arrived.copy.iteration);
        moving.map(|moving| moving.iteration).chain(unsettled)
    }

    /// Of which stages nodes hold states, those on their way included; a stage is there twice while a newer copy of it is on its
    /// way to the keeper of the one before.
    fn held(&self) -> BTreeMap<NodeId, Vec<StageId>> {
        let moving = self.moving.iter().map(|(stage, moving)| (moving.keeper, *stage));
        let unsettled = self.unsettled.iter().map(|(stage, arrived)| (arrived.node, *stage));
        let mut held: BTreeMap<NodeId, Vec<StageId>> = BTreeMap::new();
        for (node, stage) in self.known.held().chain(moving).chain(unsettled) {
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
    /// links are not all loaded at once; but where they take steps again all have theirs together: then one that was restored has
    /// made again, from its copy on, all that a neighbour needs which is lost next, and begins with a copy of the same iteration.
    fn is_copy_due(&self, stage: StageId, every: u64) -> bool {
        let iteration = self.iteration.0;
        if let Some(moving) = self.copies.moving.get(&stage) {
            // It takes too long, or will never end.
            return moving.iteration.0 + every.max(COPY_ITERATIONS_MIN) < iteration;
        }
        if self.copies.unsettled.get(&stage).is_some_and(|arrived| arrived.copy.iteration == self.iteration) {
            return false;
        }
        let stays = |keeper: Option<NodeId>| keeper.is_some_and(|keeper| self.may_keep_copies(keeper, stage));
        let newest = self.copies.known.newest(stage).filter(|(_, keeper)| stays(*keeper));
        match newest.map(|(copy, _)| copy.iteration.0) {
            // The first state follows from the seed.
            None => iteration > 0,
            Some(newest) => {
                let apart = u64::from(stage.0) * every / self.stages.len() as u64;
                let turn = if self.strategy.retraces() { 0 } else { apart };
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

    /// Of the nodes that have room for one more those that share the least of what could fail with the stage's replicas; of those not
    /// the keeper of the newest copy, which this one would take the place of; of the others the one that holds least of other
    /// stages; of those the keeper of an older copy, else the next stage's above, after the last the origin's. None: the stage is
    /// copied once there is room.
    fn keeper_for(&self, stage: StageId) -> Option<NodeId> {
        let known = &self.copies.known;
        let newest = known.keepers(stage).next().map(|(keeper, _)| keeper);
        let held = self.copies.held();
        let room = |node: &NodeId| held.get(node).is_none_or(|held| held.len() < COPIES_HELD_MAX);
        let domains: Vec<FailureDomain> = self
            .serving(stage)
            .iter()
            .filter_map(|node| self.nodes.get(node))
            .map(|node| node.domain)
            .collect();
        let candidates = self.nodes.keys().copied().filter(|node| self.may_keep_copies(*node, stage));
        let stages = self.stages.len();
        candidates.filter(room).min_by_key(|node| {
            let above = match self.nodes[node].role {
                Role::Serving { stage: served } => {
                    (usize::from(served.0) + stages - usize::from(stage.0)) % stages
                }
                _ => stages,
            };
            // As long as one replica is elsewhere the stage and its copy are not lost together.
            let domain = self.nodes[node].domain;
            let shared = domains.iter().map(|other| domain.shared_with(*other)).min().unwrap_or(0);
            let others = held.get(node).map_or(0, |held| held.iter().filter(|of| **of != stage).count());
            (shared, newest == Some(*node), others, !known.is_kept_by(stage, *node), above, *node)
        })
    }

    /// A copy on its way is of no use any more.
    fn stop_copy(&mut self, stage: StageId) {
        let Some(moving) = self.copies.moving.remove(&stage) else { return };
        let Moving { transfer, donor, keeper, .. } = moving;
        let has_another = self.copies.known.is_kept_by(stage, keeper);
        if self.nodes.contains_key(&donor) {
            self.send(donor, ToWorker::Release { transfer });
        }
        if self.nodes.contains_key(&keeper) {
            // What it kept before is not what we mean.
            let stops =
                if has_another { ToWorker::Release { transfer } } else { ToWorker::DropCopy { stage } };
            self.send(keeper, stops);
        }
        if has_another {
            self.copies.stopped.insert(stage, moving);
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
        let mut frozen = if let Some(moving) =
            self.copies.moving.get(&stage).filter(|moving| moving.transfer == transfer)
        {
            let (donor, frozen) = (moving.donor, moving.frozen);
            self.copies.moving.remove(&stage);
            if self.nodes.contains_key(&donor) {
                self.send(donor, ToWorker::Release { transfer });
            }
            frozen
        } else if !self.copies.known.is_kept_by(stage, node) {
            // Unless another is on its way to it, which will take the place of this one.
            if self.copies.moving.get(&stage).is_none_or(|moving| moving.keeper != node) {
                self.send(node, ToWorker::DropCopy { stage });
            }
            return;
        } else {
            let stopped = self.copies.stopped.remove(&stage);
            stopped.filter(|moving| moving.transfer == transfer).and_then(|moving| moving.frozen)
        };
        // It has taken the place of what the node kept before.
        self.copies.known.replace(stage, node);
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
        let all = self.copies.moving.values_mut().chain(self.copies.stopped.values_mut());
        for moving in all.filter(|moving| moving.transfer == transfer) {
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
        for released in self.copies.known.adopt(keeper, copy) {
            self.send(released, ToWorker::DropCopy { stage });
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
        self.copies.known.lose(node);
    }

    /// A node comes back with copies: those that are among the last of their stage count again.
    pub(super) fn take_copies(&mut self, node: NodeId, kept: &[KeptCopy]) {
        for kept in kept.iter().take(self.stages.len()).copied() {
            let released = self.copies.known.recognise(node, kept).unwrap_or_else(|| vec![node]);
            for released in released {
                self.send(released, ToWorker::DropCopy { stage: kept.stage });
            }
        }
    }

    /// The newest copy of a lost stage with a living node other than `but`.
    pub(super) fn copy_of(&self, stage: StageId, but: Option<NodeId>) -> Option<(NodeId, StageCopy)> {
        let mut keepers = self.copies.known.keepers(stage);
        let (keeper, copy) =
            keepers.find(|(keeper, _)| Some(*keeper) != but && self.nodes.contains_key(keeper))?;
        Some((keeper, copy.clone()))
    }

    /// Whether the node keeps a copy of any stage.
    pub(super) fn keeps_copies(&self, node: NodeId) -> bool {
        self.copies.known.held().any(|(keeper, _)| keeper == node)
    }

    /// A copy is of no use: its keeper does not have it, or it has other bits than were copied.
    pub(super) fn forget_copy(&mut self, stage: StageId, iteration: Iteration, keeper: NodeId) {
        if self.copies.known.forget(stage, iteration, keeper) {
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
