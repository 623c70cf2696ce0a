//! Nodes that leave with notice: their work moves first, then they go, and nobody has to repair anything.
//!
//! A node that has said that it leaves gets no new microbatches as long as another node serves its stage. It stays a
//! donor and a member of reductions until its place is taken: a spare copies from it and enters, then it goes. Without a
//! spare it goes at the next boundary between attempts if its stage lives on without it; the last of a stage works on
//! until someone has come for it, so that the stage never has to be rebuilt.

use super::roster::{JoinKind, Role};
use super::{Coordinator, Phase};
use crate::message::ToWorker;
use skipstone_types::{Event, NodeId, StageId};

impl Coordinator {
    /// A node says that it is about to leave.
    pub(super) fn on_leaving(&mut self, id: NodeId) {
        let Some(stage) = self.nodes.leave(id).map(Role::stage) else { return };
        self.look_for_late_nodes();
        self.log(Event::Leaving { node: id, stage });
    }

    pub(super) fn is_leaving(&self, node: NodeId) -> bool {
        self.nodes.leaving().contains(&node)
    }

    /// Nodes that serve the stage and stay.
    pub(super) fn staying(&self, stage: StageId) -> Vec<NodeId> {
        let mut nodes = self.serving(stage);
        nodes.retain(|node| !self.is_leaving(*node));
        nodes
    }

    /// Nodes that take on work of the stage: those that stay, or all if nobody does.
    pub(super) fn workers_of(&self, stage: StageId) -> Vec<NodeId> {
        let staying = self.staying(stage);
        if staying.is_empty() { self.serving(stage) } else { staying }
    }

    /// Lets nodes go that nothing depends on yet: spares, and joiners whose state others have. At any time.
    pub(super) fn release_idle_leavers(&mut self) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let idle = |role: &Role| match role {
            Role::Spare => true,
            // One that came back with what it had may be the only one to have it.
            Role::Joining(join) => matches!(join.kind, JoinKind::Copy | JoinKind::Rebuild { .. }),
            Role::Serving { .. } => false,
        };
        let is_idle = |id: &NodeId| self.nodes.get(id).is_some_and(|node| idle(&node.role));
        let leavers: Vec<_> = self.nodes.leaving().iter().copied().filter(is_idle).collect();
        for node in leavers {
            self.let_go(node);
        }
    }

    /// Between two attempts: lets nodes go whose place is taken. One at a time is looked at, as each changes what the
    /// others are needed for.
    pub(super) fn release_leavers(&mut self) {
        let leavers: Vec<_> = self.nodes.leaving().iter().copied().collect();
        for node in leavers {
            if self.may_go(node) {
                self.let_go(node);
            }
        }
    }

    fn may_go(&self, id: NodeId) -> bool {
        let Some(Role::Serving { stage }) = self.nodes.get(&id).map(|node| &node.role) else { return false };
        let needed = self
            .nodes
            .joins()
            .any(|(_, join)| join.depends_on(id) || (join.stage == *stage && join.kind == JoinKind::Copy));
        let writes = self.saving.as_ref().is_some_and(|saving| saving.waits_for(id));
        !needed && !writes && !self.staying(*stage).is_empty()
    }

    fn let_go(&mut self, node: NodeId) {
        self.send(node, ToWorker::Leave);
        self.lose(node, "left");
    }
}
