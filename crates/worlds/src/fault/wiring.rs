//! Connections between the coordinator and its workers.

use super::hub::HubEvent;
use super::node::{NodeEvent, Pid};
use super::weather::HUB;
use super::world::{Broken, Checked, Event, World};
use skipstone_protocol::{ToCoordinator, ToWorker};
use skipstone_types::NodeId;
use std::collections::BTreeMap;

/// A connection, as both ends see it. Frames of one direction arrive in the order in which they were sent.
#[derive(Debug)]
struct Connection {
    pid: Pid,
    node: Option<NodeId>,
    /// Which of the coordinator's lives it belongs to.
    life: u64,
    /// Nothing sent before this arrives any more.
    cut_to_hub: bool,
    cut_to_node: bool,
    last_to_hub: u64,
    last_to_node: u64,
}

/// All connections that ever were, by number.
#[derive(Debug, Default)]
pub(super) struct Wiring {
    connections: Vec<Connection>,
    /// The connection of each bound node.
    of_node: BTreeMap<NodeId, u64>,
}

impl Wiring {
    fn get(&self, connection: u64) -> Option<&Connection> {
        self.connections.get(connection as usize)
    }

    fn get_mut(&mut self, connection: u64) -> Option<&mut Connection> {
        self.connections.get_mut(connection as usize)
    }

    /// Whether what arrives at the coordinator on this connection is heard by this life of it.
    pub(super) fn reaches_hub(&self, connection: u64, life: u64) -> bool {
        self.get(connection).is_some_and(|connection| !connection.cut_to_hub && connection.life == life)
    }

    /// Whether what arrives at the node on this connection is heard.
    pub(super) fn reaches_node(&self, connection: u64) -> bool {
        self.get(connection).is_some_and(|connection| !connection.cut_to_node)
    }

    /// The node that a connection is bound to, if it still is.
    pub(super) fn node_of(&self, connection: u64) -> Option<NodeId> {
        let node = self.get(connection)?.node?;
        (self.of_node.get(&node) == Some(&connection)).then_some(node)
    }

    /// Binds a connection to a node.
    pub(super) fn bind(&mut self, connection: u64, node: NodeId) -> Checked {
        if let Some(known) = self.get(connection).and_then(|connection| connection.node) {
            return Err(Broken::interface(format!("connection {connection} is bound to {known} and {node}")));
        }
        if let Some(known) = self.get_mut(connection) {
            known.node = Some(node);
        }
        if let Some(old) = self.of_node.insert(node, connection).and_then(|old| self.get_mut(old)) {
            old.cut_to_hub = true;
        }
        Ok(())
    }

    /// The processes of bound nodes.
    pub(super) fn bound(&self) -> impl Iterator<Item = (NodeId, Pid)> {
        self.of_node.iter().filter_map(|(node, connection)| Some((*node, self.get(*connection)?.pid)))
    }

    /// Who is at the other end of a connection.
    pub(super) fn pid_of(&self, connection: u64) -> Option<Pid> {
        self.get(connection).map(|connection| connection.pid)
    }

    /// Whether a connection ever was bound to a node.
    pub(super) fn was_bound(&self, connection: u64) -> bool {
        self.get(connection).is_some_and(|connection| connection.node.is_some())
    }

    /// The node's connection has ended.
    pub(super) fn unbind(&mut self, node: NodeId) {
        self.of_node.remove(&node);
    }

    /// The coordinator died.
    pub(super) fn unbind_all(&mut self) {
        self.of_node.clear();
    }
}

impl World {
    /// A node tries to reach the coordinator.
    pub(super) fn dial_hub(&mut self, pid: Pid) {
        if !self.nodes[pid].alive || self.nodes[pid].connection.is_some() {
            return;
        }
        let blocked =
            self.nodes[pid].hub_blocked_until > self.now || !self.weather.connects(pid, HUB, self.now);
        if blocked || !self.hub.is_up() {
            let delay = self.draw(self.plan.tempo.redial_us);
            self.schedule(delay, Event::Node(pid, NodeEvent::Dial));
            return;
        }
        let connection = self.wiring.connections.len() as u64;
        self.wiring.connections.push(Connection {
            pid,
            node: None,
            life: self.hub.life,
            cut_to_hub: false,
            cut_to_node: false,
            last_to_hub: 0,
            last_to_node: 0,
        });
        self.nodes[pid].connection = Some(connection);
        self.push_to_node(connection, NodeEvent::Up { connection });
    }

    fn push_to_node(&mut self, connection: u64, event: NodeEvent) {
        let Some(pid) = self.wiring.get(connection).map(|known| known.pid) else { return };
        let arrival = self.draw_arrival(HUB, pid);
        let Some(known) = self.wiring.get_mut(connection) else { return };
        known.last_to_node = known.last_to_node.max(arrival);
        let at = known.last_to_node;
        self.queue.push(at, Event::Node(pid, event));
    }

    fn push_to_hub(&mut self, connection: u64, event: HubEvent) {
        let Some(pid) = self.wiring.get(connection).map(|known| known.pid) else { return };
        let arrival = self.draw_arrival(pid, HUB);
        let Some(known) = self.wiring.get_mut(connection) else { return };
        known.last_to_hub = known.last_to_hub.max(arrival);
        let at = known.last_to_hub;
        self.queue.push(at, Event::Hub(event));
    }

    /// The coordinator tells a bound node.
    pub(super) fn send_to_node(&mut self, to: NodeId, message: ToWorker) -> Checked {
        let Some(connection) = self.wiring.of_node.get(&to).copied() else { return Ok(()) };
        self.send_on(connection, message)
    }

    /// The coordinator tells the other end of a connection.
    pub(super) fn send_on(&mut self, connection: u64, message: ToWorker) -> Checked {
        let term = self.hub.term();
        let message = self.through_wire(message, term, NodeId(0))?;
        self.push_to_node(connection, NodeEvent::Frame { connection, term, message });
        Ok(())
    }

    /// A node tells the coordinator.
    pub(super) fn send_to_hub(&mut self, pid: Pid, message: ToCoordinator) -> Checked {
        let node = &self.nodes[pid];
        let (sender, term) = (node.worker.node(), node.worker.term());
        let Some(connection) = node.connection else { return Ok(()) };
        let message = self.through_wire(message, term, sender)?;
        self.push_to_hub(connection, HubEvent::Frame { connection, sender, term, message });
        Ok(())
    }

    /// The coordinator closes a connection: what it sent before still arrives.
    pub(super) fn close_from_hub(&mut self, connection: u64) {
        if let Some(known) = self.wiring.get_mut(connection) {
            known.cut_to_hub = true;
        }
        self.push_to_node(connection, NodeEvent::Down { connection });
    }

    /// The coordinator cuts a node off.
    pub(super) fn disconnect(&mut self, node: NodeId) {
        if let Some(connection) = self.wiring.of_node.remove(&node) {
            self.close_from_hub(connection);
        }
    }

    /// A connection breaks: what is under way is lost, and each end learns of it in its time.
    pub(super) fn break_hub_connection(&mut self, pid: Pid) {
        let Some(connection) = self.nodes[pid].connection else { return };
        if let Some(known) = self.wiring.get_mut(connection) {
            known.cut_to_hub = true;
            known.cut_to_node = true;
        }
        let (first, second) =
            (self.draw(self.plan.tempo.redial_us), self.draw(self.plan.tempo.redial_us) / 4);
        self.schedule(second, Event::Node(pid, NodeEvent::Down { connection }));
        self.schedule(first, Event::Hub(HubEvent::Gone { connection }));
    }

    /// A node's process is gone; what it sent before may still arrive.
    pub(super) fn node_end_gone(&mut self, pid: Pid, drains: bool) {
        let Some(connection) = self.nodes[pid].connection.take() else { return };
        if let Some(known) = self.wiring.get_mut(connection) {
            known.cut_to_node = true;
            known.cut_to_hub |= !drains;
        }
        self.push_to_hub(connection, HubEvent::Gone { connection });
    }

    /// The coordinator's process is gone; what it sent before may still arrive.
    pub(super) fn hub_end_gone(&mut self) {
        let life = self.hub.life;
        let open: Vec<_> = (0..self.wiring.connections.len() as u64)
            .filter(|connection| self.wiring.get(*connection).is_some_and(|known| known.life == life))
            .filter(|connection| {
                self.wiring.get(*connection).is_some_and(|known| {
                    self.nodes[known.pid].connection == Some(*connection) && self.nodes[known.pid].alive
                })
            })
            .collect();
        for connection in open {
            let drains = self.random.chance(self.plan.drain);
            if let Some(known) = self.wiring.get_mut(connection) {
                known.cut_to_hub = true;
                known.cut_to_node |= !drains;
            }
            self.push_to_node(connection, NodeEvent::Down { connection });
        }
        self.wiring.unbind_all();
    }
}
