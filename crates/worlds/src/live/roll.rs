//! Which connection is which node's, and who has fallen silent.

use skipstone_net::PeerId;
use skipstone_types::NodeId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The least silence that counts as death.
const SILENCE_MIN: Duration = Duration::from_secs(2);

/// Silence of so many usual intervals counts as death.
const SILENCE_INTERVALS: u32 = 10;

#[derive(Debug)]
struct Line {
    connection: u64,
    node: Option<NodeId>,
    /// When a heartbeat was answered last.
    heard: Option<Instant>,
    /// The usual time between two answers.
    interval: Duration,
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    lines: BTreeMap<PeerId, Line>,
    nodes: BTreeMap<NodeId, PeerId>,
}

impl Roll {
    pub(crate) fn up(&mut self, peer: PeerId, connection: u64) {
        let line = Line { connection, node: None, heard: None, interval: Duration::ZERO };
        self.lines.insert(peer, line);
    }

    /// A connection is gone; answers with the node that it was bound to.
    pub(crate) fn down(&mut self, peer: PeerId, connection: u64) -> Option<NodeId> {
        let line = self.lines.get(&peer).filter(|line| line.connection == connection)?;
        let node = line.node;
        self.lines.remove(&peer);
        if let Some(node) = node {
            self.nodes.remove(&node);
        }
        node
    }

    pub(crate) fn bind(&mut self, connection: u64, node: NodeId) {
        let line = self.lines.iter_mut().find(|(_, line)| line.connection == connection);
        if let Some((peer, line)) = line {
            line.node = Some(node);
            self.nodes.insert(node, *peer);
        }
    }

    /// The node is fenced; answers with the connection to close, if it is still the node's.
    pub(crate) fn release(&mut self, node: NodeId) -> Option<PeerId> {
        let peer = self.nodes.remove(&node)?;
        let line = self.lines.get_mut(&peer).filter(|line| line.node == Some(node))?;
        line.node = None;
        Some(peer)
    }

    pub(crate) fn node(&self, peer: PeerId) -> Option<NodeId> {
        self.lines.get(&peer)?.node
    }

    pub(crate) fn peer(&self, node: NodeId) -> Option<PeerId> {
        self.nodes.get(&node).copied()
    }

    pub(crate) fn peer_of_connection(&self, connection: u64) -> Option<PeerId> {
        self.lines.iter().find(|(_, line)| line.connection == connection).map(|(peer, _)| *peer)
    }

    pub(crate) fn heard(&mut self, peer: PeerId, now: Instant) {
        let Some(line) = self.lines.get_mut(&peer) else { return };
        if let Some(before) = line.heard.replace(now) {
            // A moving average that follows a slowdown within a few heartbeats.
            line.interval = (line.interval * 7 + now.duration_since(before)) / 8;
        }
    }

    /// Nodes that have been silent for longer than they may.
    pub(crate) fn silent(&self, silence: impl Fn(PeerId) -> Option<Duration>) -> Vec<NodeId> {
        self.lines
            .iter()
            .filter_map(|(peer, line)| {
                let limit = SILENCE_MIN.max(line.interval * SILENCE_INTERVALS);
                (silence(*peer)? > limit).then_some(line.node).flatten()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_its_connection_and_a_fenced_one_loses_only_its_own() {
        let mut roll = Roll::default();
        let (peer, other) = (PeerId(9), PeerId(8));
        roll.up(peer, 1);
        roll.up(other, 2);
        roll.bind(1, NodeId(5));
        roll.bind(2, NodeId(6));
        assert_eq!((roll.node(peer), roll.peer(NodeId(5))), (Some(NodeId(5)), Some(peer)));
        assert_eq!(roll.release(NodeId(6)), Some(other));
        assert_eq!(roll.release(NodeId(6)), None);
        // The process comes again: what is known of the old connection does not touch the new one.
        assert_eq!(roll.down(peer, 1), Some(NodeId(5)));
        roll.up(peer, 3);
        assert_eq!(roll.down(peer, 1), None);
        assert_eq!(roll.release(NodeId(5)), None);
        assert_eq!(roll.peer_of_connection(3), Some(peer));
    }

    #[test]
    fn silence_is_measured_by_the_usual_interval() {
        let mut roll = Roll::default();
        let peer = PeerId(9);
        roll.up(peer, 1);
        roll.bind(1, NodeId(5));
        let silent = |roll: &Roll, seconds| roll.silent(|_| Some(Duration::from_secs(seconds)));
        assert_eq!(silent(&roll, 1), []);
        assert_eq!(silent(&roll, 3), [NodeId(5)]);
        let start = Instant::now();
        (0..40).for_each(|second| roll.heard(peer, start + Duration::from_secs(second)));
        assert_eq!(silent(&roll, 3), []);
        assert_eq!(silent(&roll, 11), [NodeId(5)]);
    }
}
