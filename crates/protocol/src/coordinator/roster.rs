//! Who belongs to the run: arrivals and losses.

use super::pace::Speed;
use super::{Coordinator, NODE_IDS_RESERVED, Phase};
use crate::command::CoordinatorCommand;
use crate::domain::FailureDomain;
use crate::journal::Entry;
use crate::message::{Holding, NAMES_MAX, ToCoordinator, ToWorker, TransferId};
use skipstone_recovery::Recipe;
use skipstone_types::{Digest, Event, Iteration, NodeId, StageId};

/// How a joiner gets its state.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JoinKind {
    /// From the seed or from `state/`, at the start.
    First,
    /// From replicas, following their gradients.
    Copy,
    /// From other stages.
    Rebuild(Box<Making>),
    /// It came back with what it had.
    Keep,
}

/// How a lost stage is made again.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Making {
    pub(super) recipe: Recipe,
    /// The sources' states are those before this iteration.
    pub(super) from: Iteration,
    /// Of the recipe's sources, in its order.
    pub(super) source_lineages: Vec<u32>,
    /// Who gives its lessons, in their order.
    pub(super) teachers: Vec<(NodeId, NodeId)>,
    /// What must come of it, where that is known: a copy gives the bits that were copied.
    pub(super) gives: Option<Digest>,
}

/// A node on its way to a stage.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) stage: StageId,
    pub(super) transfer: TransferId,
    pub(super) kind: JoinKind,
    pub(super) donors: Vec<NodeId>,
    pub(super) since_us: u64,
    /// What it reported to hold.
    pub(super) ready: Option<(Iteration, Digest)>,
    /// What it has stepped to since.
    pub(super) stepped: Option<(Iteration, Digest)>,
    /// Iterations that were held up for it, so that it could enter, and the last of them.
    pub(super) waits: (u32, Iteration),
    /// The first iteration whose reduced gradient it has not confirmed.
    pub(super) followed: Iteration,
}

/// What a node is for.
#[derive(Debug)]
pub(super) enum Role {
    /// Nothing yet.
    Spare,
    /// A stage soon.
    Joining(Box<Join>),
    /// A stage.
    Serving { stage: StageId },
}

impl Join {
    /// Whether it waits for something that this node is to send.
    pub(super) fn depends_on(&self, node: NodeId) -> bool {
        let teaches = || self.teachers().any(|teacher| teacher == node);
        self.donors.contains(&node) || (self.ready.is_none() && teaches())
    }

    /// Who gives it lessons, each as often as it does.
    pub(super) fn teachers(&self) -> impl Iterator<Item = NodeId> {
        let teachers = match &self.kind {
            JoinKind::Rebuild(making) => making.teachers.as_slice(),
            JoinKind::First | JoinKind::Copy | JoinKind::Keep => &[],
        };
        teachers.iter().flat_map(|(before, after)| [*before, *after])
    }
}

impl Role {
    /// The stage that the node serves, or is to serve.
    pub(super) fn stage(&self) -> Option<StageId> {
        match self {
            Self::Spare => None,
            Self::Joining(join) => Some(join.stage),
            Self::Serving { stage } => Some(*stage),
        }
    }

    /// The way to the stage, if the node is on one.
    pub(super) fn join(&self) -> Option<&Join> {
        match self {
            Self::Joining(join) => Some(join),
            Self::Spare | Self::Serving { .. } => None,
        }
    }
}

/// A node of the run.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: String,
    /// What fails together with it.
    pub(super) domain: FailureDomain,
    pub(super) role: Role,
    /// The roster version whose addresses it has been told.
    pub(super) told: u64,
    /// Transfers to it that failed.
    pub(super) failures: u32,
    pub(super) speed: Speed,
}

/// A process that says hello.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) connection: u64,
    pub(super) address: String,
    pub(super) domain: FailureDomain,
    pub(super) process: u32,
    /// Its id so far, for the log.
    pub(super) was: Option<NodeId>,
}

impl Coordinator {
    pub(super) fn on_hello(&mut self, connection: u64, hello: ToCoordinator, domain: FailureDomain) {
        let ToCoordinator::Hello { holding, address, process, was } = hello else {
            self.reject(connection, "the first message must be a hello");
            return;
        };
        if matches!(self.phase, Phase::Ending) {
            self.reject(connection, "the run is over");
            return;
        }
        if holding.as_ref().is_some_and(|holding| holding.run != self.settings.run) {
            self.reject(connection, "the node belongs to another run");
            return;
        }
        if let Some(holding) = &holding
            && self.nodes.contains_key(&holding.node)
        {
            // It reconnected before its old connection was seen to be gone: what it was is over all the same.
            self.lose(holding.node, "connection");
        }
        // While we know it under that id, its loss has not been told: then it is lost first, and comes back as another.
        let was = was.filter(|was| was.0 != 0 && *was < self.node_ids_below && !self.nodes.contains_key(was));
        let arrival = Arrival { connection, address, domain, process, was };
        let names = holding.iter().flat_map(|holding| holding.names.iter().chain([&holding.node])).copied();
        let names: Vec<_> = names.chain(was).take(NAMES_MAX + 2).collect();
        // Whatever it is taken in for, it has the next id.
        let node = self.next_node;
        let strikes = self.strikes.rename(names, node).to_vec();
        // It may not know itself by its older names when the next coordinator asks.
        for iteration in strikes {
            self.journal(Entry::Struck { node, iteration });
        }
        let Some(arrival) = self.keep_returning(arrival, holding.as_deref()) else { return };
        let node = self.new_node_id();
        let Some(holding) = holding else {
            self.welcome(arrival, node, true);
            return;
        };
        let keeps = self.may_keep(&holding);
        self.welcome(arrival, node, !keeps);
        if keeps {
            self.take_back(node, &holding);
        } else {
            self.log(Event::NodeEmptied { node, stage: holding.stage });
        }
    }

    fn reject(&mut self, connection: u64, why: &str) {
        self.log(Event::Refused { node: None, why: why.to_owned() });
        self.out.push(CoordinatorCommand::Reject { connection, why: why.to_owned() });
    }

    pub(super) fn new_node_id(&mut self) -> NodeId {
        let node = self.next_node;
        self.next_node = NodeId(node.0 + 1);
        if node >= self.node_ids_below {
            self.node_ids_below = NodeId(node.0 + NODE_IDS_RESERVED);
            self.journal(Entry::NodesBelow { node: self.node_ids_below });
        }
        node
    }

    pub(super) fn welcome(&mut self, arrival: Arrival, node: NodeId, empty: bool) {
        let Arrival { connection, address, domain, process, was } = arrival;
        self.roster_version += 1;
        let speed = Speed::new(self.iteration, self.now_us);
        let role = Role::Spare;
        self.nodes.insert(node, Node { address, domain, role, told: 0, failures: 0, speed });
        self.out.push(CoordinatorCommand::Bind { connection, node });
        self.send_welcome(node, empty);
        if was.is_some() && matches!(self.phase, Phase::Running) {
            self.make_known(node);
        }
        self.fence_let_go(node);
        self.log(Event::NodeJoined { node, process, was });
    }

    /// A process that others have cut off is back under another id: it may get something from them, or they from it, before the next
    /// attempt tells them where all nodes are, and the run may be waiting for just that.
    fn make_known(&mut self, node: NodeId) {
        let Some(address) = self.nodes.get(&node).map(|known| known.address.clone()) else { return };
        let others: Vec<_> = self.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            self.send(other, ToWorker::Know { addresses: vec![(node, address.clone())] });
        }
        // Others may have come back while it was away.
        let addresses = self.addresses_for(node);
        self.send(node, ToWorker::Know { addresses });
    }

    /// Tells a node who it is, and all of the settings but what spot checks follow from: who knows that lies unseen.
    pub(super) fn send_welcome(&mut self, node: NodeId, empty: bool) {
        let mut settings = Box::new(self.settings.clone());
        settings.spot_checks.salt = 0;
        self.send(node, ToWorker::Welcome { node, settings, empty });
    }

    /// Whether a node that comes back may go on with what it holds: its stage has no living replica, and its state
    /// is the one that the stage was lost with.
    fn may_keep(&self, holding: &Holding) -> bool {
        let Some(stage) = self.stages.get(usize::from(holding.stage.0)) else { return false };
        // What it was before an earlier iteration it still is, if it has not stepped since.
        let earlier = || {
            let (at, digest) = stage.digests.range(..holding.iteration).next_back()?;
            stage.last_step.is_none_or(|step| step < *at).then_some(digest)
        };
        let vouched_for = match stage.digests.get(&holding.iteration).or_else(earlier) {
            Some(known) => *known == holding.state,
            None => self.has_stepped_unheard(holding) || self.is_recorded_before_its_step(holding),
        };
        matches!(self.phase, Phase::Running)
            && !self.is_served(holding.stage)
            && holding.iteration <= self.iteration
            && vouched_for
            && (!self.stepped_since(holding.stage, holding.iteration) || self.can_step(holding))
    }

    /// Whether the node has taken the last step of its stage as decided, and nobody has said what that came to: its word
    /// counts as it would have, had it come before the node was lost.
    fn has_stepped_unheard(&self, holding: &Holding) -> bool {
        let Some((stage, heard)) =
            self.stages.get(usize::from(holding.stage.0)).zip(holding.record.as_deref())
        else {
            return false;
        };
        let Some(last) = stage.last_step else { return false };
        let (members, lineage) = &stage.last_step_members;
        // Within a generation what is decided never changes, so an older record than are remembered is as good.
        let is_decided = heard.generation == self.generation
            && self.records.get(&heard.iteration).is_none_or(|record| **record == *heard);
        // Nothing may have reached the stage in the iterations after its last step.
        last < holding.iteration
            && heard.iteration >= last
            && is_decided
            && *lineage == stage.lineage
            && holding.name_among(members).is_some()
    }

    /// Whether the last record of the iteration that the node is at names it as one that held the stage, in this lineage.
    fn is_recorded_before_its_step(&self, holding: &Holding) -> bool {
        let record = self.records.get(&holding.iteration);
        record.and_then(|record| record.stage(holding.stage)).is_some_and(|part| {
            holding.name_among(&part.members).is_some()
                && self
                    .stages
                    .get(usize::from(holding.stage.0))
                    .is_some_and(|now| now.lineage == part.lineage)
        })
    }

    /// Whether the node lacks only the last step of its stage, and holds the gradient for it.
    fn can_step(&self, holding: &Holding) -> bool {
        let record = self.records.get(&holding.iteration);
        let part = record.and_then(|record| record.stage(holding.stage));
        part.is_some_and(|part| part.step && holding.reduced == Some(part.gradient))
            && !self.stepped_since(holding.stage, holding.iteration.next())
    }

    /// Addresses that the node has not been told yet.
    pub(super) fn addresses_for(&mut self, node: NodeId) -> Vec<(NodeId, String)> {
        let version = self.roster_version;
        match self.nodes.get_mut(node) {
            Some(known) if known.told < version => known.told = version,
            _ => return Vec::new(),
        }
        self.nodes
            .iter()
            .filter(|(id, _)| **id != node)
            .map(|(id, node)| (*id, node.address.clone()))
            .collect()
    }

    /// Declares a node lost: it is fenced, and what it owed is done by others.
    pub(super) fn lose(&mut self, node: NodeId, why: &str) {
        let Some(lost) = self.nodes.remove(node) else { return };
        let stage = lost.role.stage();
        let wasted_us = self.attempt.as_ref().map_or(0, |attempt| attempt.busy_us_of(node));
        self.out.push(CoordinatorCommand::Disconnect { node });
        self.log(Event::NodeLost { node, stage, why: why.to_owned(), wasted_us });
        let living: Vec<_> = self.nodes.keys().copied().collect();
        for other in living {
            self.send(other, ToWorker::Fence { nodes: vec![node] });
        }
        // Its process may have come back before anyone saw that it was gone.
        let is_back = |(_, known): &(&NodeId, &Node)| known.address == lost.address;
        if let Some(again) = self.nodes.iter().find(is_back).map(|(again, _)| *again) {
            self.make_known(again);
        }
        match lost.role {
            Role::Spare => {}
            Role::Joining(join) => self.release_donors(&join),
            Role::Serving { stage } => self.lose_replica(stage, node),
        }
        self.forget_copies_with(node);
        self.restart_transfers_of(node);
        self.saver_lost(node);
        self.look_for_late_nodes();
        self.check_without(node);
    }

    fn lose_replica(&mut self, stage: StageId, node: NodeId) {
        // A plan that names the node is of no use.
        self.planning = None;
        if self.is_served(stage) {
            self.repair(stage, node);
            self.forget_votes_of(node, stage);
            return;
        }
        self.abort_attempt();
        let heir = self.nodes.joins().any(|(_, join)| join.stage == stage && self.may_enter(join));
        if !heir && self.stages[usize::from(stage.0)].lost_since_us.is_none() {
            self.stages[usize::from(stage.0)].lost_since_us = Some(self.now_us);
            self.log(Event::StageLost { stage, iteration: self.iteration });
        }
    }
}
