//! The nodes of the run, and who of them is what.
//!
//! After every message it is asked who serves a stage, who waits for one, and who leaves. Swarms are large, so that is kept
//! beside the nodes. Roles change here only.

use super::roster::{Join, Node, Role};
use skipstone_types::{NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// All nodes, by id; what is only read is read as from a map.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    all: BTreeMap<NodeId, Node>,
    index: Index,
}

/// What follows from the nodes' roles, and who leaves.
#[derive(Debug, Default)]
struct Index {
    /// Ascending.
    serving: BTreeMap<StageId, Vec<NodeId>>,
    joining: BTreeMap<StageId, usize>,
    joiners: BTreeSet<NodeId>,
    spares: BTreeSet<NodeId>,
    leaving: BTreeSet<NodeId>,
}

impl Deref for Nodes {
    type Target = BTreeMap<NodeId, Node>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Nodes {
    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.all.get_mut(&id)
    }

    /// Nodes that serve the stage, ascending.
    pub(super) fn serving(&self, stage: StageId) -> &[NodeId] {
        self.index.serving.get(&stage).map_or(&[], Vec::as_slice)
    }

    /// How many nodes are on their way to the stage.
    pub(super) fn joining(&self, stage: StageId) -> usize {
        self.index.joining.get(&stage).copied().unwrap_or(0)
    }

    /// All nodes on their way to a stage, ascending.
    pub(super) fn joins(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Join)> {
        self.index.joiners.iter().filter_map(|id| Some((*id, self.all.get(id)?.role.join()?)))
    }

    /// A node's way to its stage, if it is on one.
    pub(super) fn join(&self, id: NodeId) -> Option<&Join> {
        self.all.get(&id)?.role.join()
    }

    /// The same, to change; which stage it leads to is not changed.
    pub(super) fn join_mut(&mut self, id: NodeId) -> Option<&mut Join> {
        match &mut self.all.get_mut(&id)?.role {
            Role::Joining(join) => Some(join),
            Role::Spare | Role::Serving { .. } => None,
        }
    }

    /// Nodes on their way to a stage.
    pub(super) fn joiners(&self) -> Vec<NodeId> {
        self.index.joiners.iter().copied().collect()
    }

    /// Nodes without a stage.
    pub(super) fn spares(&self) -> &BTreeSet<NodeId> {
        &self.index.spares
    }

    /// Nodes that have said that they leave.
    pub(super) fn leaving(&self) -> &BTreeSet<NodeId> {
        &self.index.leaving
    }

    /// A node says that it leaves; its role, if that is news.
    pub(super) fn leave(&mut self, id: NodeId) -> Option<&Role> {
        let node = self.all.get(&id)?;
        self.index.leaving.insert(id).then_some(&node.role)
    }

    /// Takes a node in.
    pub(super) fn insert(&mut self, id: NodeId, node: Node) {
        self.remove(id);
        self.index.add(id, &node.role);
        self.all.insert(id, node);
    }

    /// Takes a node out.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<Node> {
        let node = self.all.remove(&id)?;
        self.index.take(id, &node.role);
        self.index.leaving.remove(&id);
        Some(node)
    }

    /// Gives a node another role; the one that it had, if the node is known.
    pub(super) fn set_role(&mut self, id: NodeId, role: Role) -> Option<Role> {
        let node = self.all.get_mut(&id)?;
        self.index.take(id, &node.role);
        self.index.add(id, &role);
        Some(std::mem::replace(&mut node.role, role))
    }
}

impl Index {
    fn add(&mut self, id: NodeId, role: &Role) {
        match role {
            Role::Spare => _ = self.spares.insert(id),
            Role::Joining(join) => {
                self.joiners.insert(id);
                *self.joining.entry(join.stage).or_default() += 1;
            }
            Role::Serving { stage } => {
                let serving = self.serving.entry(*stage).or_default();
                if let Err(place) = serving.binary_search(&id) {
                    serving.insert(place, id);
                }
            }
        }
    }

    fn take(&mut self, id: NodeId, role: &Role) {
        match role {
            Role::Spare => _ = self.spares.remove(&id),
            Role::Joining(join) => {
                self.joiners.remove(&id);
                if let Some(count) = self.joining.get_mut(&join.stage) {
                    *count -= 1;
                }
            }
            Role::Serving { stage } => {
                if let Some(serving) = self.serving.get_mut(stage)
                    && let Ok(place) = serving.binary_search(&id)
                {
                    serving.remove(place);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::Speed;
    use super::super::roster::JoinKind;
    use super::*;
    use crate::domain::FailureDomain;
    use crate::message::TransferId;
    use skipstone_types::{Iteration, Term};

    const STAGES: [StageId; 2] = [StageId(0), StageId(1)];

    fn joining(stage: StageId) -> Role {
        Role::Joining(Box::new(Join {
            stage,
            transfer: TransferId { term: Term(1), number: 1 },
            kind: JoinKind::First,
            donors: Vec::new(),
            since_us: 0,
            ready: None,
            stepped: None,
            waits: (0, Iteration(0)),
            followed: Iteration(0),
        }))
    }

    fn take(nodes: &mut Nodes, id: NodeId, step: usize) {
        match step {
            0 => {
                let speed = Speed::new(Iteration(0), 0);
                let node = Node {
                    address: String::new(),
                    domain: FailureDomain::default(),
                    role: Role::Spare,
                    told: 0,
                    failures: 0,
                    speed,
                };
                nodes.insert(id, node);
            }
            1 => _ = nodes.remove(id),
            2 => _ = nodes.set_role(id, Role::Spare),
            3 | 4 => _ = nodes.set_role(id, joining(STAGES[step - 3])),
            5 | 6 => _ = nodes.set_role(id, Role::Serving { stage: STAGES[step - 5] }),
            _ => _ = nodes.leave(id),
        }
    }

    #[test]
    fn what_is_kept_beside_the_nodes_follows_from_their_roles_whatever_happens() {
        const STEPS: usize = 8;
        let choices = 2 * STEPS;
        for sequence in 0..choices.pow(4) {
            let mut nodes = Nodes::default();
            // Both are there at first, and one serves.
            take(&mut nodes, NodeId(1), 0);
            take(&mut nodes, NodeId(2), 0);
            take(&mut nodes, NodeId(2), 5);
            let mut leaving = BTreeSet::new();
            for place in 0..4 {
                let choice = sequence / choices.pow(place) % choices;
                let (id, step) = (NodeId((choice / STEPS) as u32 + 1), choice % STEPS);
                match step {
                    0 | 1 => _ = leaving.remove(&id),
                    7 if nodes.contains_key(&id) => _ = leaving.insert(id),
                    _ => {}
                }
                take(&mut nodes, id, step);
            }
            let with = |what: &dyn Fn(&Role) -> bool| -> Vec<NodeId> {
                nodes.iter().filter(|(_, node)| what(&node.role)).map(|(id, _)| *id).collect()
            };
            for stage in STAGES {
                let serving =
                    with(&|role| matches!(role, Role::Serving { stage: served } if *served == stage));
                assert_eq!(nodes.serving(stage), serving, "{sequence}");
                let joining = with(&|role| role.join().is_some_and(|join| join.stage == stage));
                assert_eq!(nodes.joining(stage), joining.len(), "{sequence}");
            }
            let joiners = with(&|role| role.join().is_some());
            assert_eq!(nodes.joiners(), joiners, "{sequence}");
            assert_eq!(nodes.joins().map(|(id, _)| id).collect::<Vec<_>>(), joiners, "{sequence}");
            let spares = with(&|role| matches!(role, Role::Spare));
            assert_eq!(nodes.spares().iter().copied().collect::<Vec<_>>(), spares, "{sequence}");
            assert_eq!(nodes.leaving(), &leaving, "{sequence}");
        }
    }
}
