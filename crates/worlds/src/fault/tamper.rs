//! Deliberately broken rules: each must be caught by an invariant, or the simulation proves nothing.
//!
//! The tampering happens between the cores and their driver; the cores stay as they are.

use super::compute::Effects;
use super::node::Pid;
use super::provenance as made;
use super::value::Value;
use super::world::World;
use skipstone_protocol::{
    CommitRecord, CoordinatorCommand, End, Entry, Method, Task, ToCoordinator, ToPeer, ToWorker,
};
use skipstone_types::{Event, Iteration, Microbatch, NodeId, Plan, Term};

/// A rule to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tamper {
    /// A backward adds its gradient twice.
    CountTwice,
    /// Nobody is fenced, and what lost nodes send is garbage.
    HearTheFenced,
    /// A record names another gradient than the one reduced.
    CommitOtherGradient,
    /// Before each boundary frame comes another one with other content.
    ForgeFirstCopy,
    /// Frames carry the tensor of an earlier iteration under a new header.
    ReplayOldFrames,
    /// Dropped tensors stay.
    LeakTensors,
    /// The disk forgets the last synced entry on a restart.
    ForgetSyncedEntry,
    /// Workers are told of one slot more than they have.
    GrantExtraSlot,
    /// A record leaves out a microbatch of a share.
    LoseMicrobatch,
    /// Nodes hear of a commit before it is on disk.
    CommitBeforeWrite,
    /// A stage is rebuilt with another recipe.
    RebuildOtherwise,
    /// A node's step yields other bits.
    StepOtherwise,
    /// A record is written in the name of an older term.
    WriteInOldTerm,
    /// A record counts a member that never reported.
    CountUnheardMember,
    /// The coordinator's orders to begin an attempt are lost now and then.
    LoseBegin,
    /// A record counts wrong losses.
    MiscountLoss,
    /// A record counts a share of a node that was lost before.
    CountLostOwner,
    /// Commits to nodes are lost now and then.
    LoseCommit,
    /// `state/` is published with other bits than were saved.
    PublishOtherBits,
    /// A record is written twice.
    CommitTwice,
    /// The run ends before all iterations are committed.
    EndEarly,
    /// A stage's file under `state/` is lost although it was synced.
    LoseSavedFile,
    /// The coordinator gets the planned paths in another order.
    SwapPaths,
    /// The coordinator never gets the paths that it asked for.
    LosePlan,
    /// A run goes on from another iteration than the one that was saved.
    ResumeElsewhere,
    /// The coordinator takes a node that has not stepped for one that has.
    VouchForUnstepped,
    /// The disk keeps an entry of the journal twice.
    AppendTwice,
    /// The journal says that fewer node ids are used up than are.
    ForgetNodeIds,
    /// Nodes are asked to write states that they will never have.
    AskForFutureSaves,
    /// The run is given up as soon as a stage is lost.
    GiveUpEarly,
    /// Nobody hears that a stage is to be rebuilt.
    KeepHole,
    /// A write to the journal never ends.
    LoseWrite,
    /// A node whose state is wrong says that it is right.
    LieAboutState,
    /// Nobody hears that the run is to stop.
    LoseStop,
    /// The coordinator hears of usual norms only.
    HideNorm,
    /// A node that is to be cut off, because its shares were refused too often, is not.
    KeepStruckNode,
    /// A node that comes back does not say under which id its work was recorded.
    ForgetNames,
    /// A node that comes back does not say which copies it keeps.
    ForgetCopies,
    /// Nodes don't hear that a copy is of no use any more.
    KeepDroppedCopies,
    /// The journal does not say that the run went back to a checkpoint.
    ForgetRollback,
    /// The run goes back to a checkpoint as if it had been another iteration's.
    RollBackElsewhere,
    /// A node says that it gave up all its microbatches, and goes on with them.
    CountGivenUp,
    /// Nodes don't hear that a path goes back, and give it their last slot.
    GiveLastSlot,
    /// Who computes a share again says what the checked node said, whatever comes of it.
    EchoShares,
    /// The coordinator hears of other sums than checkers got.
    DistortChecks,
    /// Who makes a stage again is sent other activations than were kept.
    TeachOtherwise,
    /// At the end `state/` is published without stages that no node serves, whoever has a copy of them.
    LeaveOutSavedCopies,
    /// Of a long journal only its end is read, whatever the run is to go back to.
    ReadJournalEndOnly,
}

impl Tamper {
    /// All of them.
    pub const ALL: [Self; 48] = [
        Self::CountTwice,
        Self::HearTheFenced,
        Self::CommitOtherGradient,
        Self::ForgeFirstCopy,
        Self::ReplayOldFrames,
        Self::LeakTensors,
        Self::ForgetSyncedEntry,
        Self::GrantExtraSlot,
        Self::LoseMicrobatch,
        Self::CommitBeforeWrite,
        Self::RebuildOtherwise,
        Self::StepOtherwise,
        Self::WriteInOldTerm,
        Self::CountUnheardMember,
        Self::LoseBegin,
        Self::MiscountLoss,
        Self::CountLostOwner,
        Self::LoseCommit,
        Self::PublishOtherBits,
        Self::CommitTwice,
        Self::EndEarly,
        Self::LoseSavedFile,
        Self::SwapPaths,
        Self::LosePlan,
        Self::ResumeElsewhere,
        Self::VouchForUnstepped,
        Self::AppendTwice,
        Self::ForgetNodeIds,
        Self::AskForFutureSaves,
        Self::GiveUpEarly,
        Self::KeepHole,
        Self::LoseWrite,
        Self::LieAboutState,
        Self::LoseStop,
        Self::HideNorm,
        Self::KeepStruckNode,
        Self::ForgetNames,
        Self::ForgetCopies,
        Self::KeepDroppedCopies,
        Self::ForgetRollback,
        Self::RollBackElsewhere,
        Self::CountGivenUp,
        Self::GiveLastSlot,
        Self::EchoShares,
        Self::DistortChecks,
        Self::TeachOtherwise,
        Self::LeaveOutSavedCopies,
        Self::ReadJournalEndOnly,
    ];
}

fn altered(value: Value) -> Value {
    match value {
        Value::Activation { iteration, microbatch, origin } => {
            Value::Activation { iteration, microbatch, origin: made::altered(origin) }
        }
        Value::Gradient { iteration, microbatch, origin } => {
            Value::Gradient { iteration, microbatch, origin: made::altered(origin) }
        }
        other => other,
    }
}

impl World {
    fn tampers(&mut self, with: Tamper, probability: f64) -> bool {
        self.tamper == Some(with) && self.random.chance(probability)
    }

    /// Whether fences are ignored.
    pub(super) fn lets_fenced_through(&self) -> bool {
        self.tamper == Some(Tamper::HearTheFenced)
    }

    /// Whether drops are ignored.
    pub(super) fn is_leaking(&self) -> bool {
        self.tamper == Some(Tamper::LeakTensors)
    }

    /// Whether the disk forgets.
    pub(super) fn forgets_synced(&self) -> bool {
        self.tamper == Some(Tamper::ForgetSyncedEntry)
    }

    /// Whether files of `state/` are lost although they were synced.
    pub(super) fn loses_files(&self) -> bool {
        self.tamper == Some(Tamper::LoseSavedFile)
    }

    /// The paths that the coordinator really gets.
    pub(super) fn tamper_with_plan(&mut self, mut plan: Plan) -> Option<Plan> {
        if self.tampers(Tamper::SwapPaths, 0.1) {
            plan.paths.reverse();
        }
        (!self.tampers(Tamper::LosePlan, 0.05)).then_some(plan)
    }

    /// Where the run really goes on from.
    pub(super) fn tamper_with_resume(&mut self, iteration: Iteration) -> Iteration {
        let off = u64::from(self.tamper == Some(Tamper::ResumeElsewhere));
        Iteration(iteration.0.saturating_sub(off))
    }

    /// What the journal is really read for.
    pub(super) fn tamper_with_reading(&self, resume: Option<Iteration>) -> Option<Iteration> {
        resume.filter(|_| self.tamper != Some(Tamper::ReadJournalEndOnly))
    }

    /// What a task really does.
    pub(super) fn tamper_with_task(&mut self, _pid: Pid, task: &Task, mut effects: Effects) -> Effects {
        match task {
            Task::Backward { .. } if self.tampers(Tamper::CountTwice, 0.01) => {
                if let Some((_, Value::Sum { terms, count, .. })) = &mut effects.replaced {
                    *terms = terms.wrapping_add(made::altered(*terms));
                    *count += 1;
                }
            }
            Task::Step { .. } if self.tampers(Tamper::StepOtherwise, 0.01) => {
                if let Some(Value::State { stage, origin }) = effects.outputs.first().copied() {
                    let origin = made::altered(origin);
                    effects.outputs[0] = Value::State { stage, origin };
                    effects.outcome = skipstone_protocol::Outcome::State { digest: made::digest(origin) };
                }
            }
            _ => {}
        }
        effects
    }

    /// What really goes over a link.
    pub(super) fn tamper_with_frame(
        &mut self,
        from: NodeId,
        message: ToPeer,
        payload: Option<Value>,
    ) -> Vec<(ToPeer, Option<Value>)> {
        if matches!(message, ToPeer::Lesson { .. }) && self.tamper == Some(Tamper::TeachOtherwise) {
            return vec![(message, payload.map(altered))];
        }
        if !matches!(message, ToPeer::Boundary { .. }) {
            return vec![(message, payload)];
        }
        if self.tampers(Tamper::ForgeFirstCopy, 0.01) {
            return vec![(message.clone(), payload.map(altered)), (message, payload)];
        }
        if self.tampers(Tamper::ReplayOldFrames, 0.01) {
            let old = payload.map(|value| match value {
                Value::Activation { iteration, microbatch, origin } if iteration.0 > 0 => {
                    let iteration = skipstone_types::Iteration(iteration.0 - 1);
                    Value::Activation { iteration, microbatch, origin: made::altered(origin) }
                }
                other => other,
            });
            return vec![(message, old)];
        }
        let is_bound = self.wiring.bound().any(|(node, _)| node == from);
        if self.lets_fenced_through() && !is_bound && self.hub.is_up() {
            return vec![(message, payload.map(altered))];
        }
        vec![(message, payload)]
    }

    /// What the coordinator's driver really does.
    pub(super) fn tamper_with_command(
        &mut self,
        mut command: CoordinatorCommand,
    ) -> Option<CoordinatorCommand> {
        match &mut command {
            CoordinatorCommand::Journal { entry: Entry::Committed(record) } => {
                self.tamper_with_record(record);
                if self.tampers(Tamper::EndEarly, 0.1) {
                    return Some(CoordinatorCommand::End { end: End::Done });
                }
                if self.tampers(Tamper::CommitTwice, 0.1) {
                    self.hub.insert_command(command.clone(), command);
                    return self.hub.next_command();
                }
                if self.tampers(Tamper::CommitBeforeWrite, 0.1)
                    && let Some((to, _)) = self.wiring.bound().next()
                {
                    let message = ToWorker::Commit { record: record.clone().into() };
                    self.hub.insert_command(CoordinatorCommand::Send { to, message }, command);
                    return self.hub.next_command();
                }
            }
            CoordinatorCommand::Send { to, message } => match message {
                ToWorker::Fence { .. } if self.lets_fenced_through() => return None,
                ToWorker::Commit { .. } if self.tampers(Tamper::LoseCommit, 0.1) => return None,
                ToWorker::Commit { record } if self.tampers(Tamper::VouchForUnstepped, 0.1) => {
                    self.vouch_for(*to, record);
                    return None;
                }
                ToWorker::Begin { .. } if self.tampers(Tamper::LoseBegin, 0.02) => return None,
                ToWorker::DropCopy { .. } if self.tamper == Some(Tamper::KeepDroppedCopies) => return None,
                ToWorker::Assign { method: Method::Rebuild { .. }, .. }
                    if self.tamper == Some(Tamper::KeepHole) =>
                {
                    return None;
                }
                ToWorker::Begin { duties, .. } | ToWorker::Reroute { duties, .. }
                    if self.tamper == Some(Tamper::GiveLastSlot) =>
                {
                    duties.iter_mut().for_each(|duty| duty.goes_back = false);
                }
                ToWorker::Welcome { settings, .. } if self.tamper == Some(Tamper::GrantExtraSlot) => {
                    settings.slots += 1;
                }
                ToWorker::Assign { method: Method::Rebuild { recipe, .. }, .. }
                    if self.tamper == Some(Tamper::RebuildOtherwise) =>
                {
                    recipe.learning_rate_factor *= 2.0;
                }
                _ => {}
            },
            CoordinatorCommand::Journal { entry: Entry::RolledBack { .. } }
                if self.tamper == Some(Tamper::ForgetRollback) =>
            {
                return None;
            }
            CoordinatorCommand::Journal { entry: Entry::RolledBack { iteration, .. } }
                if self.tamper == Some(Tamper::RollBackElsewhere) =>
            {
                *iteration = Iteration(iteration.0.saturating_sub(1));
            }
            CoordinatorCommand::Log { event: Event::Struck { node, strikes, strikes_max, .. } }
                if *strikes >= *strikes_max && self.tamper == Some(Tamper::KeepStruckNode) =>
            {
                self.hub.kept = Some(*node);
            }
            CoordinatorCommand::Disconnect { node } if self.hub.kept == Some(*node) => return None,
            CoordinatorCommand::Disconnect { node } => self.hub.last_lost = Some(*node),
            CoordinatorCommand::Publish { stages, .. } if self.tamper == Some(Tamper::PublishOtherBits) => {
                stages[0].state.0[0] ^= 1;
            }
            CoordinatorCommand::Publish { stages, .. }
                if self.tamper == Some(Tamper::LeaveOutSavedCopies) =>
            {
                let nodes: Vec<_> = self.wiring.bound().map(|(node, _)| node).collect();
                stages.retain(|saved| self.truth.is_with_one_of(&nodes, saved.stage));
            }
            CoordinatorCommand::Journal { entry: Entry::NodesBelow { node } }
                if self.tamper == Some(Tamper::ForgetNodeIds) =>
            {
                *node = NodeId(1);
            }
            CoordinatorCommand::Log { event: Event::StageLost { .. } }
                if self.tamper == Some(Tamper::GiveUpEarly) =>
            {
                let why = "stage 0 has lost its last origin".to_owned();
                return Some(CoordinatorCommand::End { end: End::Failed { why } });
            }
            _ => {}
        }
        self.tamper_with_order(&command);
        Some(command)
    }

    /// What else nodes hear, or say.
    fn tamper_with_order(&mut self, command: &CoordinatorCommand) {
        let CoordinatorCommand::Send { to, message: ToWorker::Begin { iteration, .. } } = command else {
            return;
        };
        if self.tamper == Some(Tamper::AskForFutureSaves) {
            for ahead in 1..=10 {
                let message = ToWorker::Save { iteration: Iteration(iteration.0 + 1000 * ahead) };
                self.hub.append_command(CoordinatorCommand::Send { to: *to, message });
            }
        }
    }

    /// Whether a write is never seen to end.
    pub(super) fn loses_write(&mut self) -> bool {
        self.tampers(Tamper::LoseWrite, 0.02)
    }

    /// Whether the disk keeps an entry twice.
    pub(super) fn appends_twice(&mut self) -> bool {
        self.tampers(Tamper::AppendTwice, 0.1)
    }

    /// Whether a wish to stop is not heard.
    pub(super) fn loses_stop(&self) -> bool {
        self.tamper == Some(Tamper::LoseStop)
    }

    /// What the coordinator really hears.
    pub(super) fn tamper_with_report(&mut self, node: NodeId, mut message: ToCoordinator) -> ToCoordinator {
        if let ToCoordinator::Holds { transfer: None, stage, iteration, digest } = &mut message
            && self.tamper == Some(Tamper::LieAboutState)
            && self.nodes.iter().any(|known| known.alive && known.tainted && known.id == node)
        {
            *digest = self.truth.state(*stage, *iteration).unwrap_or(*digest);
        }
        if let ToCoordinator::Measured { microbatches, norm, .. } = &mut message
            && self.tamper == Some(Tamper::HideNorm)
            && (!norm.is_finite() || *norm >= 1e3)
        {
            *norm = f64::from(*microbatches) + self.random.fraction();
        }
        if let ToCoordinator::Measured { digests: Some(digests), .. } = &message {
            self.said.insert(node, *digests);
        }
        if let ToCoordinator::Checked { of, digests, .. } = &mut message {
            let said = self.said.get(of).copied();
            match self.tamper {
                Some(Tamper::EchoShares) => *digests = said.unwrap_or(*digests),
                // One of three, so that the other two agree.
                Some(Tamper::DistortChecks) if node.0.is_multiple_of(3) => digests.sum.0[0] ^= 1,
                _ => {}
            }
        }
        if let ToCoordinator::GaveUp { microbatches, .. } = &mut message
            && self.tamper == Some(Tamper::CountGivenUp)
        {
            *microbatches = (0..self.plan.settings.microbatches).map(Microbatch).collect();
        }
        message
    }

    /// What a node that comes back really says.
    pub(super) fn tamper_with_hello(&mut self, mut hello: ToCoordinator) -> ToCoordinator {
        if let ToCoordinator::Hello { holding: Some(holding), .. } = &mut hello
            && self.tamper == Some(Tamper::ForgetNames)
        {
            holding.names.clear();
        }
        if let ToCoordinator::Hello { holding: Some(holding), .. } = &mut hello
            && self.tamper == Some(Tamper::ForgetCopies)
        {
            holding.copies.clear();
        }
        hello
    }

    /// Says for a node that it has stepped.
    fn vouch_for(&mut self, node: NodeId, record: &CommitRecord) {
        let (next, stage) = (record.iteration.next(), self.truth.serves(node));
        if let Some((stage, digest)) = stage.and_then(|stage| Some((stage, self.truth.state(stage, next)?))) {
            let message = ToCoordinator::Holds { transfer: None, stage, iteration: next, digest };
            self.hub.hear_for(node, message, self.now);
        }
    }

    fn tamper_with_record(&mut self, record: &mut CommitRecord) {
        if self.tampers(Tamper::CommitOtherGradient, 0.1)
            && let Some(part) = record.stages.last_mut()
        {
            part.gradient.0[0] ^= 1;
        }
        if self.tampers(Tamper::LoseMicrobatch, 0.1)
            && let Some(share) = record.stages.iter_mut().flat_map(|part| part.shares.iter_mut()).last()
        {
            share.microbatches.pop();
        }
        if self.tampers(Tamper::WriteInOldTerm, 0.1) {
            record.term = Term(record.term.0 - 1);
        }
        if self.tampers(Tamper::CountUnheardMember, 0.1)
            && let Some(part) = record.stages.first_mut()
        {
            part.members.push(NodeId(u32::MAX));
        }
        if self.tampers(Tamper::MiscountLoss, 0.1) {
            record.loss_sum += 1.0;
        }
        if let Some(lost) = self.hub.last_lost
            && self.tampers(Tamper::CountLostOwner, 0.1)
            && let Some(owner) = record.stages[0].shares.first_mut().map(|share| &mut share.node)
        {
            let heir = std::mem::replace(owner, lost);
            let visits = record.paths.iter_mut().filter_map(|path| path.0.first_mut());
            visits.filter(|visit| visit.node == heir).for_each(|visit| visit.node = lost);
        }
    }
}
