//! Nodes find a stage, get its state, and enter at the start of an attempt.

use super::attempt::ReducePhase;
use super::retracing::MadeAgain;
use super::roster::{Join, JoinKind, Node, Role};
use super::{
    Base, Coordinator, FOLLOWER_WAIT_US_MAX, FOLLOWER_WAITS_MAX, HOLE_PATIENCE_PART, LEARNING_ITERATIONS_MAX,
    Phase,
};
use crate::journal::{Entry, Rebuild};
use crate::message::{Holding, Method, ToWorker, TransferId};
use skipstone_recovery::Decision;
use skipstone_types::{Digest, Event, Iteration, NodeId, StageId, WhileLost};
use std::collections::BTreeMap;

/// Transfers to one node that may fail before it is given up.
const TRANSFER_FAILURES_MAX: u32 = 5;

/// Of them, failures before a stage is made from others rather than from its copy.
const RESTORE_FAILURES_MAX: u32 = 3;

impl Coordinator {
    /// Gives every node without a stage one that needs it, if one does.
    pub(super) fn place_nodes(&mut self) {
        match self.phase {
            Phase::Gathering { base, until_us } => {
                if self.first_places_are_awaited(base, until_us) {
                    return;
                }
                self.place_first(base);
                if !self.settings.respawn || self.now_us >= until_us {
                    self.spread_first(base);
                }
            }
            Phase::Running => self.place_running(),
            Phase::Returning { .. } | Phase::Ending => {}
        }
    }

    pub(super) fn spare_nodes(&self) -> Vec<NodeId> {
        self.nodes.spares().iter().copied().collect()
    }

    /// Nodes that serve the stage and stay, or are about to.
    pub(super) fn population(&self, stage: StageId) -> usize {
        let leaving = self.nodes.leaving();
        let stay = self.nodes.serving(stage).iter().filter(|node| !leaving.contains(node));
        stay.count() + self.nodes.joining(stage)
    }

    pub(super) fn is_coming(&self, stage: StageId) -> bool {
        self.is_served(stage) || self.population(stage) > 0
    }

    fn place_first(&mut self, base: Base) {
        for node in self.spare_nodes() {
            let wanting = self
                .first_stages(base)
                .into_iter()
                .map(|stage| (self.population(stage), stage))
                .filter(|(population, stage)| *population < usize::from(self.settings.replicas_of(*stage)))
                .min();
            let Some((_, stage)) = wanting else { return };
            self.assign_first(node, stage, base);
        }
    }

    /// Stages whose first state is to be had; the others are rebuilt once the run goes on.
    pub(super) fn first_stages(&self, base: Base) -> Vec<StageId> {
        let has = |stage: &StageId| base == Base::Seed || self.saved.contains_key(stage);
        self.stage_ids().filter(has).collect()
    }

    pub(super) fn assign_first(&mut self, node: NodeId, stage: StageId, base: Base) {
        let (method, how) = match (base, self.saved.get(&stage).copied()) {
            (Base::Saved, Some(state)) => (Method::Load { state }, "load"),
            _ => (Method::Initialise, "initialise"),
        };
        self.assign(node, stage, JoinKind::First, method, Vec::new(), how);
    }

    /// Nodes were lost before the start, and no others come: a stage with several gives one to a stage without.
    fn spread_first(&mut self, base: Base) {
        let stages = self.first_stages(base);
        while let Some(empty) = stages.iter().copied().find(|stage| !self.is_coming(*stage)) {
            let richest = self.stage_ids().max_by_key(|stage| self.population(*stage));
            let Some(richest) = richest.filter(|stage| self.population(*stage) > 1) else { return };
            let node = self.nodes.joins().rev().find(|(_, join)| join.stage == richest);
            let Some((node, _)) = node else { return };
            self.assign_first(node, empty, base);
        }
    }

    fn place_running(&mut self) {
        if self.saving.as_ref().is_some_and(|saving| saving.last) || self.roll_back_if_due() {
            return;
        }
        let spares = self.spare_nodes();
        if !spares.is_empty() && self.places_are_awaited() {
            return;
        }
        for node in spares {
            if !self.place_one(node) {
                return;
            }
        }
        self.redirect_joiners();
        self.move_surplus_replicas();
    }

    /// A node that is still copying what others serve fills a hole instead, if nobody else comes for it.
    fn redirect_joiners(&mut self) {
        for stage in self.lost_and_awaited_by_nobody() {
            let copies = |join: &Join| {
                join.kind == JoinKind::Copy && join.ready.is_none() && self.is_served(join.stage)
            };
            let Some((node, _)) = self.nodes.joins().find(|(_, join)| copies(join)) else { return };
            if matches!(self.decide(stage, Some(node)), Decision::Rebuild(_)) {
                self.cancel_transfer(node);
                self.rebuild(node, stage);
            }
        }
    }

    /// Stages without a replica that nobody is about to serve, and that can be made again.
    fn lost_and_awaited_by_nobody(&self) -> Vec<StageId> {
        let lost = |stage: &StageId| !self.is_coming(*stage) && self.may_be_rebuilt(*stage);
        self.holes().into_iter().filter(lost).collect()
    }

    /// Places a node without a stage; whether there was a place.
    fn place_one(&mut self, node: NodeId) -> bool {
        let Some(stage) = self.needy_stages().first().copied() else { return false };
        self.fill(node, stage);
        true
    }

    /// Stages that the next node may go to, ascending: those that are lost; if none is, of those with too few replicas the ones
    /// with the fewest.
    pub(super) fn needy_stages(&self) -> Vec<StageId> {
        let lost = self.lost_and_awaited_by_nobody();
        if !lost.is_empty() {
            return lost;
        }
        let population = |stage: &StageId| self.population(*stage);
        let mut needy: Vec<_> = self
            .stage_ids()
            .filter(|stage| population(stage) < usize::from(self.settings.replicas_of(*stage)))
            .filter(|stage| self.may_copy_now(*stage) && self.is_served(*stage))
            .collect();
        let fewest = needy.iter().map(population).min();
        needy.retain(|stage| Some(population(stage)) == fewest);
        needy
    }

    /// A node gets the stage's state: from its replicas, or if it has none, from other stages.
    pub(super) fn fill(&mut self, node: NodeId, stage: StageId) {
        if !self.is_served(stage) {
            self.rebuild(node, stage);
            return;
        }
        let donors = self.serving(stage);
        let method = Method::Copy { donors: donors.clone() };
        self.assign(node, stage, JoinKind::Copy, method, donors, "copy");
    }

    /// A follower needs the gradient of the iteration under way, so it must be named when its stage is sealed.
    fn may_copy_now(&self, stage: StageId) -> bool {
        self.attempt.as_ref().is_none_or(|attempt| {
            let part = &attempt.stages[usize::from(stage.0)];
            part.shares.is_empty() || part.phase == ReducePhase::Open
        })
    }

    /// A stage with more replicas than it should have gives one to a stage without; where nobody replaces lost nodes, one with
    /// several does. (A node that comes back late is one too many if its place was filled meanwhile, and nobody comes to fill
    /// another's.)
    fn move_surplus_replicas(&mut self) {
        if self.attempt.is_some() || self.planning.is_some() {
            return;
        }
        for stage in self.lost_and_awaited_by_nobody() {
            let richest =
                self.stage_ids().map(|other| self.beyond_need(other)).max_by_key(|(beyond, _)| *beyond);
            let Some(node) = richest.filter(|(beyond, _)| *beyond > 0).and_then(|(_, node)| node) else {
                return;
            };
            self.rebuild(node, stage);
        }
    }

    /// How many of a stage's replicas it can spare for a hole, and which would go first.
    fn beyond_need(&self, stage: StageId) -> (usize, Option<NodeId>) {
        let needs = if self.settings.respawn { usize::from(self.settings.replicas_of(stage)) } else { 1 };
        let nodes = self.serving(stage);
        // One that keeps a copy stays, if another can go.
        let goes = nodes.iter().rev().find(|node| !self.keeps_copies(**node)).or(nodes.last());
        (nodes.len().saturating_sub(needs), goes.copied())
    }

    /// Starts a transfer of the state before the iteration under way.
    pub(super) fn assign(
        &mut self,
        node: NodeId,
        stage: StageId,
        kind: JoinKind,
        method: Method,
        donors: Vec<NodeId>,
        how: &str,
    ) {
        let transfer = self.new_transfer();
        let iteration = self.iteration;
        let addresses = self.addresses_for(node);
        if method != Method::Keep {
            // It starts empty, and gives nothing any more.
            self.forget_copies_with(node);
            self.cancel_transfers_from(node);
        }
        let donated = self.what_donors_give(stage, &kind, &donors);
        let join = Join {
            stage,
            transfer,
            kind,
            donors,
            since_us: self.now_us,
            ready: None,
            stepped: None,
            waits: (0, iteration),
            followed: iteration,
        };
        if self.nodes.set_role(node, Role::Joining(Box::new(join))).is_none() {
            return;
        }
        self.log(Event::NodeAssigned { node, stage, how: how.to_owned() });
        for (donor, stage, iteration, format) in donated {
            self.send(donor, ToWorker::Donate { transfer, stage, iteration, to: node, format });
        }
        self.send(node, ToWorker::Assign { transfer, stage, iteration, method, addresses });
    }

    /// A node came back with the state of a stage that nobody else has.
    pub(super) fn take_back(&mut self, node: NodeId, holding: &Holding) {
        let stage = holding.stage;
        self.begin_after(holding);
        let rivals: Vec<_> =
            self.nodes.joins().filter(|(_, join)| join.stage == stage).map(|(id, _)| id).collect();
        for rival in rivals {
            self.cancel_transfer(rival);
        }
        if self.stepped_since(stage, holding.iteration)
            && let Some(record) = self.records.get(&holding.iteration).cloned()
        {
            // It was away when its last step was decided.
            self.send(node, ToWorker::Commit { record });
        }
        self.assign(node, stage, JoinKind::Keep, Method::Keep, Vec::new(), "return");
        self.take_copies(node, &holding.copies);
    }

    /// Stops a transfer; the node is free for another.
    pub(super) fn cancel_transfer(&mut self, node: NodeId) {
        if let Some(Role::Joining(join)) = self.nodes.set_role(node, Role::Spare) {
            self.release_donors(&join);
        }
    }

    pub(super) fn release_donors(&mut self, join: &Join) {
        self.release(join.transfer, &join.donors);
    }

    /// A node that gets another stage gives no states any more: who waits for one of it starts anew.
    fn cancel_transfers_from(&mut self, donor: NodeId) {
        let waits = |join: &Join| join.ready.is_none() && join.depends_on(donor);
        let waiting: Vec<_> = self.nodes.joins().filter(|(_, join)| waits(join)).map(|(id, _)| id).collect();
        for node in waiting {
            self.cancel_transfer(node);
        }
    }

    /// A lost node may have been a donor, or the only one with a part of a gradient that a follower misses. A copy that has
    /// followed every step, and has another donor, goes on with the chunks that are missing.
    pub(super) fn restart_transfers_of(&mut self, lost: NodeId) {
        let iteration = self.iteration;
        let mut broken = Vec::new();
        for id in self.nodes.joiners() {
            let Some(join) = self.nodes.join_mut(id) else { continue };
            if !join.depends_on(lost) {
                continue;
            }
            let follows = join.kind == JoinKind::Copy && join.followed >= iteration;
            if join.ready.is_none() && follows && join.donors.len() > 1 {
                join.donors.retain(|donor| *donor != lost);
            } else if join.ready.is_none() || (join.kind == JoinKind::Copy && !follows) {
                broken.push(id);
            }
        }
        for node in broken {
            self.cancel_transfer(node);
        }
    }

    /// A joiner says how far its transfer is.
    pub(super) fn on_obtained(
        &mut self,
        node: NodeId,
        transfer: TransferId,
        (chunks, chunks_total): (u32, u32),
        bytes_total: u64,
        donors: u32,
    ) {
        let Some(join) = self.nodes.join(node) else { return };
        if join.transfer != transfer || chunks > chunks_total || chunks_total == 0 {
            return;
        }
        let (stage, total) = (join.stage, u128::from(bytes_total));
        let bytes = (total * u128::from(chunks) / u128::from(chunks_total)) as u64;
        self.log(Event::StateArriving { node, stage, chunks, chunks_total, bytes, bytes_total, donors });
    }

    pub(super) fn on_transfer_failed(&mut self, from: NodeId, transfer: TransferId, why: &str) {
        let joiner = self.nodes.joins().find(|(_, join)| join.transfer == transfer).map(|(id, _)| id);
        let Some(joiner) = joiner else {
            if self.copy_failed(transfer) {
                self.log(Event::Refused { node: Some(from), why: format!("copy failed: {why}") });
            }
            return;
        };
        self.log(Event::Refused { node: Some(from), why: format!("transfer failed: {why}") });
        if let Some(Node { role: Role::Joining(join), failures, .. }) = self.nodes.get(&joiner)
            && let JoinKind::Rebuild(making) = &join.kind
            && making.recipe.restores(join.stage)
            && (from != joiner || *failures >= RESTORE_FAILURES_MAX)
        {
            let (stage, from, keeper) = (join.stage, making.from, join.donors.first().copied());
            if let Some(keeper) = keeper {
                self.forget_copy(stage, from, keeper);
            }
        }
        if let Some(join) = self.nodes.join(joiner).filter(|join| join.teachers().next().is_some()) {
            let stage = join.stage;
            self.stages[usize::from(stage.0)].lessons_failed = true;
        }
        self.cancel_transfer(joiner);
        if let Some(node) = self.nodes.get_mut(joiner) {
            node.failures += 1;
            let gives_up = node.failures > TRANSFER_FAILURES_MAX;
            if gives_up && matches!(self.phase, Phase::Gathering { .. }) {
                self.fail(format!("the first weights can't be had: {why}"));
            } else if gives_up {
                self.lose(joiner, "its transfers fail");
            }
        }
    }

    /// The first state of a stage is not the one that was saved.
    fn is_other_than_saved(&self, transfer: Option<TransferId>, stage: StageId, digest: Digest) -> bool {
        let saved = self.saved.get(&stage).is_some_and(|saved| *saved != digest);
        saved && transfer.is_some() && matches!(self.phase, Phase::Gathering { .. })
    }

    /// A node holds a state: after a transfer, or after a step.
    pub(super) fn on_holds(
        &mut self,
        node: NodeId,
        transfer: Option<TransferId>,
        stage: StageId,
        iteration: Iteration,
        digest: Digest,
    ) {
        if let Some(transfer) = transfer.filter(|_| self.is_other_than_saved(transfer, stage, digest)) {
            self.on_transfer_failed(node, transfer, "the saved state has other bits than were saved");
            return;
        }
        if let Some(join) = self.nodes.join(node)
            && let JoinKind::Rebuild(making) = &join.kind
            && let Some(named) = transfer.filter(|named| *named == join.transfer)
            && making.gives.is_some_and(|copied| copied != digest)
        {
            // The bits of a copy that steps are taken from were right: then others kept something else than they had sent, and the
            // next try does without.
            let is_copy = making.recipe.retracing.is_none();
            let (from, keeper) = (making.from, join.donors.first().copied().filter(|_| is_copy));
            if let Some(keeper) = keeper {
                self.forget_copy(stage, from, keeper);
            }
            self.on_transfer_failed(node, named, "the copy of the stage has other bits than were copied");
            return;
        }
        let is_spare = self.nodes.get(&node).is_some_and(|node| matches!(node.role, Role::Spare));
        if is_spare && !self.is_coming(stage) && self.is_current(stage, iteration, digest) {
            // Its donors were lost just as it had all of their state, or before it had stepped with them; nobody else has it now.
            self.assign(node, stage, JoinKind::Keep, Method::Keep, Vec::new(), "return");
            return;
        }
        if let Some(join) = self.nodes.join_mut(node) {
            if transfer == Some(join.transfer) {
                join.ready = Some((iteration, digest));
                // Donors of a copy stay named: the follower depends on its stage's replicas until it enters.
                let (transfer, donors) = (join.transfer, join.donors.clone());
                self.release(transfer, &donors);
            } else if transfer.is_none() && join.stage == stage && join.ready.is_some() {
                join.stepped = Some((iteration, digest));
            }
        } else if transfer.is_none() && self.nodes.serving(stage).binary_search(&node).is_ok() {
            self.vote(node, stage, iteration, digest);
        }
    }

    fn release(&mut self, transfer: TransferId, donors: &[NodeId]) {
        for donor in donors {
            if self.nodes.contains_key(donor) {
                self.send(*donor, ToWorker::Release { transfer });
            }
        }
    }

    /// Whether a joiner may serve from the next attempt on.
    pub(super) fn may_enter(&self, join: &Join) -> bool {
        let Some((held, digest)) = join.ready else { return false };
        match join.kind {
            JoinKind::Copy => {
                let known = self.stages[usize::from(join.stage.0)].digests.get(&held);
                // Its replicas may all have died before they could tell what they held.
                let same = known.map_or(!self.is_served(join.stage), |known| *known == digest);
                same && join.followed == self.iteration
            }
            JoinKind::Keep => !self.stepped_since(join.stage, held),
            // Nobody stepped the stage meanwhile, so what was made for an earlier iteration is as good for this one.
            JoinKind::First | JoinKind::Rebuild(_) => true,
        }
    }

    /// Lets in who is ready. Called between attempts only.
    pub(super) fn admit_joiners(&mut self) {
        self.refuse_unequal_copies();
        let ready: Vec<_> =
            self.nodes.joins().filter(|(_, join)| self.may_enter(join)).map(|(id, _)| id).collect();
        for node in ready {
            self.admit(node);
        }
    }

    /// Until when the next attempt is held up for stages that may be back soon, where the run waits for them briefly: for a quarter
    /// of what the last iteration took, and not long; longer for one that learns from its neighbours, as those would learn to do
    /// without it meanwhile. An attempt that begins without a stage costs it a whole iteration.
    pub(super) fn hole_patience_until_us(&self) -> Option<u64> {
        if self.settings.while_lost != WhileLost::Briefly {
            return None;
        }
        let patience_us = (self.last_commit_us.1 / HOLE_PATIENCE_PART).min(FOLLOWER_WAIT_US_MAX);
        let lost_since_us = |stage: &StageId| {
            let may_come = self.settings.respawn || self.is_coming(*stage);
            let known = &self.stages[usize::from(stage.0)];
            known.lost_since_us.filter(|_| may_come && !known.refused)
        };
        let learning_us = self.last_commit_us.1.saturating_mul(LEARNING_ITERATIONS_MAX);
        let until = |stage: &StageId| {
            let learns =
                |(_, join): (NodeId, &Join)| join.stage == *stage && join.teachers().next().is_some();
            let patience_us = if self.nodes.joins().any(learns) { learning_us } else { patience_us };
            Some(lost_since_us(stage)? + patience_us)
        };
        let until_us = self.holes().iter().filter_map(until).max()?;
        (self.now_us < until_us).then_some(until_us)
    }

    /// Whether the next attempt is held up for a follower that lacks nothing but the last reduced gradient, for as long
    /// as the last iteration took, and not much longer than such a report takes. Its report is often just behind the
    /// commit: without this it would be just too late for every attempt.
    pub(super) fn waits_for_followers(&mut self) -> bool {
        let (iteration, now_us) = (self.iteration, self.now_us);
        let (since_us, took_us) = self.last_commit_us;
        let mut waits = false;
        for node in self.nodes.joiners() {
            let Some(join) = self.nodes.join_mut(node) else { continue };
            let close =
                join.kind == JoinKind::Copy && join.ready.is_some() && join.followed.next() == iteration;
            if close && join.waits.1 < iteration && join.waits.0 < FOLLOWER_WAITS_MAX {
                join.waits = (join.waits.0 + 1, iteration);
            }
            waits |=
                close && join.waits.1 == iteration && now_us < since_us + took_us.min(FOLLOWER_WAIT_US_MAX);
        }
        waits
    }

    /// A copy that is not what its stage's replicas hold starts anew.
    fn refuse_unequal_copies(&mut self) {
        let unequal: Vec<_> = self
            .nodes
            .joins()
            .filter_map(|(id, join)| {
                let (held, digest) = join.ready.filter(|_| join.kind == JoinKind::Copy)?;
                let known = self.stages[usize::from(join.stage.0)].digests.get(&held)?;
                (*known != digest).then_some((id, join.transfer))
            })
            .collect();
        for (node, transfer) in unequal {
            self.on_transfer_failed(node, transfer, "the copy has other bits");
        }
    }

    fn admit(&mut self, node: NodeId) {
        let Some(stage) = self.nodes.join(node).map(|join| join.stage) else { return };
        let before = self.nodes.set_role(node, Role::Serving { stage });
        let Some(Role::Joining(join)) = before else { return };
        let took_ms = self.now_us.saturating_sub(join.since_us) / 1000;
        let iteration = self.iteration;
        self.log(Event::NodeEntered { node, stage, iteration, took_ms });
        let known = &mut self.stages[usize::from(stage.0)];
        known.stuck_joiners = 0;
        if let (JoinKind::First | JoinKind::Rebuild(_) | JoinKind::Keep, Some((_, digest))) =
            (&join.kind, join.ready)
        {
            if join.kind != JoinKind::First {
                // What the stage was before its loss, and who said so, counts no more.
                known.votes.clear();
                known.digests.clear();
            }
            known.votes.entry(iteration).or_default().insert(node, digest);
            known.digests.insert(iteration, digest);
        }
        let copied = join.stepped.or(join.ready).filter(|_| join.kind == JoinKind::Copy);
        let lost_since_us = known.lost_since_us.take();
        if let (JoinKind::Rebuild(making), Some((_, state))) = (&join.kind, join.ready) {
            known.lineage += 1;
            let mixes = !making.recipe.restores(stage);
            known.made_from = mixes.then(|| (iteration, join.donors.clone()));
            let rebuild = Rebuild {
                stage,
                lineage: known.lineage,
                from: making.from,
                recipe: making.recipe.clone(),
                source_lineages: making.source_lineages.clone(),
                state,
            };
            known.restored.note(&rebuild);
            known.made_again = MadeAgain::of(node, &making.recipe);
            known.lessons_failed = false;
            self.journal(Entry::Rebuilt(Box::new(rebuild)));
        }
        if let Some(since_us) = lost_since_us {
            let (kind, sources) = match join.kind {
                JoinKind::Rebuild(making) => {
                    let sources = making.recipe.sources.iter().map(|source| source.stage).collect();
                    (self.strategy.made_by(stage, &making.recipe), sources)
                }
                JoinKind::Keep => ("return", Vec::new()),
                JoinKind::Copy => ("copy", Vec::new()),
                JoinKind::First => ("checkpoint", Vec::new()),
            };
            let took_ms = self.now_us.saturating_sub(since_us) / 1000;
            let kind = kind.to_owned();
            self.log(Event::StageRebuilt { stage, kind, sources, took_ms, iteration });
        }
        if let Some((held, digest)) = copied {
            self.vote(node, stage, held, digest);
        }
    }

    /// Leaves the gathering once everyone is there, or once every stage is served and time is up.
    pub(super) fn end_gathering_if_due(&mut self) {
        let Phase::Gathering { until_us, base } = self.phase else { return };
        let mut ready: BTreeMap<StageId, usize> = BTreeMap::new();
        for (_, join) in self.nodes.joins().filter(|(_, join)| join.ready.is_some()) {
            *ready.entry(join.stage).or_default() += 1;
        }
        let stages = self.first_stages(base);
        let ready = |stage: &StageId| ready.get(stage).copied().unwrap_or(0);
        let least = stages.iter().map(ready).min().unwrap_or(0);
        let complete =
            stages.iter().all(|stage| ready(stage) >= usize::from(self.settings.replicas_of(*stage)));
        let all = complete && self.nodes.len() >= self.settings.nodes();
        let enough = least >= 1 && self.now_us >= until_us;
        let stopped = self.stop_since_us.is_some() || self.failure.is_some();
        if stopped && !all {
            // Nothing has been trained: there is nothing to save that is not there already.
            let end = self
                .failure
                .clone()
                .map_or(crate::command::End::Stopped, |why| crate::command::End::Failed { why });
            self.end(end);
            return;
        }
        if !(all || enough) {
            return;
        }
        self.phase = Phase::Running;
        let late: Vec<_> =
            self.nodes.joins().filter(|(_, join)| join.ready.is_none()).map(|(id, _)| id).collect();
        self.admit_joiners();
        for node in late {
            self.cancel_transfer(node);
        }
        for stage in self.stage_ids() {
            self.settle_first_votes(stage);
        }
        for stage in self.stage_ids().filter(|stage| !stages.contains(stage)) {
            self.stages[usize::from(stage.0)].lost_since_us = Some(self.now_us);
            self.log(Event::StageLost { stage, iteration: self.iteration });
        }
        self.saved.clear();
    }
}
