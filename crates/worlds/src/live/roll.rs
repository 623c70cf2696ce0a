//! Which connection is which node's, and who has fallen silent.

use skipstone_net::{PeerId, PeerKey};
use skipstone_protocol::{PhiAccrual, Suspicion};
use skipstone_types::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// A link between machines may be away for so long before the node at its other end is given up: what was sent arrives
/// when it is back, and until then the iteration waits. A cut of 10 s is seen for 11 to 13 s where the way is direct, and for up
/// to 20 s where it leads through a relay: TCP doubles the time between its tries. Deaths of processes are told by their
/// machine, at once.
const AWAY: Duration = Duration::from_secs(25);

#[derive(Debug)]
struct Line {
    connection: u64,
    node: Option<NodeId>,
    /// Its key, if it is on another machine.
    key: Option<PeerKey>,
    detector: PhiAccrual,
}

/// All connections. Times are microseconds of a [`RunningClock`](skipstone_protocol::RunningClock).
#[derive(Debug)]
pub(crate) struct Roll {
    /// How often heartbeats come.
    heartbeat: Duration,
    lines: BTreeMap<PeerId, Line>,
    nodes: BTreeMap<NodeId, PeerId>,
}

impl Roll {
    /// No connections yet; their heartbeats will come at this interval.
    pub(crate) fn new(heartbeat: Duration) -> Self {
        Self { heartbeat, lines: BTreeMap::new(), nodes: BTreeMap::new() }
    }

    pub(crate) fn up(&mut self, peer: PeerId, connection: u64, key: Option<PeerKey>, now_us: u64) {
        let detector = PhiAccrual::new(self.heartbeat.as_micros() as u64, now_us);
        self.lines.insert(peer, Line { connection, node: None, key, detector });
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

    /// The node's key, if it is on another machine.
    pub(crate) fn key(&self, node: NodeId) -> Option<PeerKey> {
        self.lines.get(self.nodes.get(&node)?)?.key
    }

    pub(crate) fn peer_of_connection(&self, connection: u64) -> Option<PeerId> {
        self.lines.iter().find(|(_, line)| line.connection == connection).map(|(peer, _)| *peer)
    }

    /// Peers of other machines whose key is such.
    pub(crate) fn peers_with(&self, such: impl Fn(PeerKey) -> bool) -> Vec<PeerId> {
        self.lines.iter().filter(|(_, line)| line.key.is_some_and(&such)).map(|(peer, _)| *peer).collect()
    }

    /// A heartbeat was answered.
    pub(crate) fn heard(&mut self, peer: PeerId, now_us: u64) {
        if let Some(line) = self.lines.get_mut(&peer) {
            line.detector.heard(now_us);
        }
    }

    /// Nodes that have been silent for longer than their own history makes credible. `silence` tells how long nothing
    /// at all has come from a peer: what is read but not yet handled counts too.
    pub(crate) fn silent(
        &self,
        now_us: u64,
        silence: impl Fn(PeerId) -> Option<Duration>,
    ) -> Vec<(NodeId, Suspicion)> {
        self.lines
            .iter()
            .filter_map(|(peer, line)| {
                let node = line.node?;
                let unheard_us = silence(*peer)?.as_micros() as u64;
                let suspicion = line.detector.suspicion(line.detector.silence_us(now_us).min(unheard_us));
                let patience_us = if line.key.is_some() { AWAY.as_micros() as u64 } else { 0 };
                let lost = suspicion.is_lost() && suspicion.silence_us >= patience_us;
                lost.then_some((node, suspicion))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_its_connection_and_a_fenced_one_loses_only_its_own() {
        let mut roll = Roll::new(Duration::from_millis(100));
        let (peer, other) = (PeerId(9), PeerId(8));
        roll.up(peer, 1, None, 0);
        roll.up(other, 2, None, 0);
        roll.bind(1, NodeId(5));
        roll.bind(2, NodeId(6));
        assert_eq!((roll.node(peer), roll.peer(NodeId(5))), (Some(NodeId(5)), Some(peer)));
        assert_eq!(roll.release(NodeId(6)), Some(other));
        assert_eq!(roll.release(NodeId(6)), None);
        // The process comes again: what is known of the old connection does not touch the new one.
        assert_eq!(roll.down(peer, 1), Some(NodeId(5)));
        roll.up(peer, 3, None, 0);
        assert_eq!(roll.down(peer, 1), None);
        assert_eq!(roll.release(NodeId(5)), None);
        assert_eq!(roll.peer_of_connection(3), Some(peer));
    }

    #[test]
    fn silence_counts_as_far_as_both_the_detector_and_the_transport_have_seen_it() {
        let peer = PeerId(9);
        let mut roll = Roll::new(Duration::from_millis(100));
        roll.up(peer, 1, None, 0);
        (1..=100).for_each(|beat| roll.heard(peer, beat * 100_000));
        let silent = |roll: &Roll, running_ms: u64, transport_ms| {
            roll.silent(10_000_000 + running_ms * 1000, |_| Some(Duration::from_millis(transport_ms)))
                .into_iter()
                .map(|(node, suspicion)| (node, suspicion.silence_us))
                .collect::<Vec<_>>()
        };
        assert_eq!(silent(&roll, 900, 900), [], "nobody is bound");
        roll.bind(1, NodeId(5));
        assert_eq!(silent(&roll, 900, 850), [(NodeId(5), 850_000)]);
        assert_eq!(silent(&roll, 700, 700), []);
        assert_eq!(silent(&roll, 100, 60_000), [], "the detector stood still");
        assert_eq!(silent(&roll, 60_000, 100), [], "what came is not yet handled");
        assert_eq!(roll.silent(60_000_000, |_| None), [], "no connection");
    }

    #[test]
    fn a_link_between_machines_may_be_away_for_a_while() {
        let (peer, key) = (PeerId(9), PeerKey([4; 32]));
        let mut roll = Roll::new(Duration::from_millis(100));
        roll.up(peer, 1, Some(key), 0);
        roll.bind(1, NodeId(5));
        (1..=100).for_each(|beat| roll.heard(peer, beat * 100_000));
        let lost = |roll: &Roll, s: u64| {
            !roll.silent((10 + s) * 1_000_000, |_| Some(Duration::from_secs(s))).is_empty()
        };
        assert!(!lost(&roll, 24) && lost(&roll, 26));
        assert_eq!((roll.key(NodeId(5)), roll.key(NodeId(6))), (Some(key), None));
        assert_eq!(roll.peers_with(|other| other == key), [peer]);
        assert_eq!(roll.peers_with(|other| other != key), []);
    }
}
