//! Deliberately broken rules: each must be caught by an invariant, or the simulation proves nothing.
//!
//! The tampering happens between the cores and their driver; the cores stay as they are.

use super::compute::Effects;
use super::node::Pid;
use super::provenance as made;
use super::value::Value;
use super::world::World;
use skipstone_protocol::{CommitRecord, CoordinatorCommand, End, Entry, Method, Task, ToPeer, ToWorker};
use skipstone_types::{NodeId, Term};

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
}

impl Tamper {
    /// All of them.
    pub const ALL: [Self; 21] = [
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
                    let message = ToWorker::Commit { record: record.clone() };
                    self.hub.insert_command(CoordinatorCommand::Send { to, message }, command);
                    return self.hub.next_command();
                }
            }
            CoordinatorCommand::Send { message, .. } => match message {
                ToWorker::Fence { .. } if self.lets_fenced_through() => return None,
                ToWorker::Commit { .. } if self.tampers(Tamper::LoseCommit, 0.1) => return None,
                ToWorker::Begin { .. } if self.tampers(Tamper::LoseBegin, 0.02) => return None,
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
            CoordinatorCommand::Disconnect { .. } if self.lets_fenced_through() => return None,
            CoordinatorCommand::Disconnect { node } => self.hub.last_lost = Some(*node),
            CoordinatorCommand::Publish { stages, .. } if self.tamper == Some(Tamper::PublishOtherBits) => {
                stages[0].state.0[0] ^= 1;
            }
            _ => {}
        }
        Some(command)
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
