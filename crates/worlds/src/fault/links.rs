//! Connections between nodes.

use super::kinds::Fault;
use super::node::{NodeEvent, Pid};
use super::value::Value;
use super::world::{Checked, Event, World};
use skipstone_protocol::ToPeer;
use skipstone_types::NodeId;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

/// What both ends call a connection: the lower id first.
pub(super) type Pair = (NodeId, NodeId);

/// A connection between two nodes. Control frames (without a payload) may overtake others; frames of one kind and
/// direction arrive in the order in which they were sent. Pieces of states are a kind of their own.
#[derive(Debug)]
struct Link {
    number: u64,
    /// The processes, in the order of the pair.
    ends: (Pid, Pid),
    /// When the newest frame of each direction and kind arrives.
    last: [[u64; LANES]; 2],
    /// A dead end: what it sent before still arrives.
    draining: bool,
    /// When each direction stood.
    stood_us: u64,
    /// Frames overtake each other until then.
    reorders_until_us: u64,
    /// Frames arrive twice until then.
    duplicates_until_us: u64,
    /// The next frame is damaged on its way.
    corrupts: bool,
}

/// The longest way of a piece of a state that is long because it is one.
const CHUNK_US_MAX: u64 = 1_500_000;

/// Kinds of frames: control, boundary tensors, and pieces of states.
const LANES: usize = 3;

/// Frames remembered, to arrive again long after.
const OLD_FRAMES_MAX: usize = 128;

/// A frame that waits for its connection.
type Waiting = (ToPeer, Option<Value>);

/// All connections between nodes.
#[derive(Debug, Default)]
pub(super) struct Links {
    standing: BTreeMap<Pair, Link>,
    /// Connections that nodes want, by (from, to), with the frames that wait for them.
    wanted: BTreeMap<(NodeId, NodeId), Vec<Waiting>>,
    /// Pairs that can't reach each other until a time.
    blocked: BTreeMap<Pair, u64>,
    next: u64,
    /// Frames that were sent, by (from, to).
    old: VecDeque<(NodeId, NodeId, Waiting)>,
}

fn pair(a: NodeId, b: NodeId) -> Pair {
    (a.min(b), a.max(b))
}

impl Links {
    /// Pairs of living nodes that are connected.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        self.standing.iter().filter(|(_, link)| !link.draining).map(|(pair, _)| *pair).collect()
    }

    /// Processes of a connection, in the order of the pair, and its number.
    pub(super) fn ends(&self, pair: Pair) -> Option<((Pid, Pid), u64)> {
        self.standing.get(&pair).map(|link| (link.ends, link.number))
    }

    /// From now until a time frames of the pair overtake each other.
    pub(super) fn reorder(&mut self, pair: Pair, until_us: u64) {
        if let Some(link) = self.standing.get_mut(&pair) {
            link.reorders_until_us = until_us;
        }
    }

    /// From now until a time frames of the pair arrive twice.
    pub(super) fn duplicate(&mut self, pair: Pair, until_us: u64) {
        if let Some(link) = self.standing.get_mut(&pair) {
            link.duplicates_until_us = until_us;
        }
    }

    /// The next frame of the pair is damaged on its way.
    pub(super) fn corrupt(&mut self, pair: Pair) {
        if let Some(link) = self.standing.get_mut(&pair) {
            link.corrupts = true;
        }
    }

    /// All pairs reach each other again, and frames arrive as they were sent.
    pub(super) fn lift(&mut self) {
        self.blocked.clear();
        for link in self.standing.values_mut() {
            link.reorders_until_us = 0;
            link.duplicates_until_us = 0;
            link.corrupts = false;
        }
    }

    /// Nothing is left of any connection.
    pub(super) fn clear(&mut self) {
        self.standing.clear();
        self.wanted.clear();
        self.blocked.clear();
        self.old.clear();
    }
}

fn standing_reorders(links: &Links, pair: Pair, now_us: u64) -> bool {
    links.standing.get(&pair).is_some_and(|link| link.reorders_until_us > now_us)
}

impl World {
    /// Whether this connection between the two still stands.
    pub(super) fn is_linked(&self, number: u64, a: NodeId, b: NodeId) -> bool {
        self.links.standing.get(&pair(a, b)).is_some_and(|link| link.number == number)
    }

    /// Whether a frame that arrives on this connection is heard.
    pub(super) fn is_heard(&self, number: u64, pid: Pid, from: NodeId) -> bool {
        let node = &self.nodes[pid];
        self.is_linked(number, node.id, from)
            && (!node.forgotten.contains(&from) || self.lets_fenced_through())
    }

    /// A node tells a peer; if there is no connection it is dialled first.
    pub(super) fn send_to_peer(
        &mut self,
        pid: Pid,
        to: NodeId,
        message: ToPeer,
        payload: Option<Value>,
    ) -> Checked {
        let from = self.nodes[pid].id;
        let message = self.through_wire(message, self.nodes[pid].worker.term(), from)?;
        if self.nodes[pid].forgotten.contains(&to) && !self.lets_fenced_through() {
            return Ok(());
        }
        if self.links.standing.get(&pair(from, to)).is_some_and(|link| !link.draining) {
            self.transmit(from, to, message, payload);
            return Ok(());
        }
        if !self.nodes[pid].addresses.contains_key(&to) {
            return Ok(());
        }
        if let Entry::Vacant(vacant) = self.links.wanted.entry((from, to)) {
            vacant.insert(Vec::new());
            let delay = self.draw_message() * 2;
            self.schedule(delay, Event::DialPeer { from: pid, to });
        }
        if !self.random.chance(self.plan.lose_undialled)
            && let Some(waiting) = self.links.wanted.get_mut(&(from, to))
        {
            waiting.push((message, payload));
        }
        Ok(())
    }

    fn transmit(&mut self, from: NodeId, to: NodeId, message: ToPeer, payload: Option<Value>) {
        if self.plan.has(Fault::Stale) {
            if self.links.old.len() == OLD_FRAMES_MAX {
                self.links.old.pop_front();
            }
            self.links.old.push_back((from, to, (message.clone(), payload)));
        }
        for (message, payload) in self.tamper_with_frame(from, message, payload) {
            let now = self.now;
            let standing = self.links.standing.get(&pair(from, to));
            if standing.is_some_and(|link| link.duplicates_until_us > now) {
                self.push_out_of_order(from, to, (message.clone(), payload));
            }
            let reorders = standing_reorders(&self.links, pair(from, to), now);
            if reorders && self.random.chance(0.5) {
                self.push_out_of_order(from, to, (message, payload));
                continue;
            }
            let lane = match payload {
                None => 0,
                Some(Value::Chunk { .. }) => 2,
                Some(_) => 1,
            };
            self.push_to_peer(from, to, lane, |link| NodeEvent::PeerFrame { link, from, message, payload });
        }
    }

    fn push_to_peer(&mut self, from: NodeId, to: NodeId, lane: usize, event: impl FnOnce(u64) -> NodeEvent) {
        let Some(((low, high), number)) = self.links.ends(pair(from, to)) else { return };
        let (sender, pid) = if from < to { (low, high) } else { (high, low) };
        let way = if lane == 2 { self.plan.chunk_ways } else { 1 };
        let way_us = self.draw_arrival(sender, pid) - self.now;
        let arrival = self.now + way_us.max((way * way_us).min(CHUNK_US_MAX));
        let Some(link) = self.links.standing.get_mut(&pair(from, to)) else { return };
        let last = &mut link.last[usize::from(from > to)][lane];
        *last = (*last).max(arrival);
        let at = *last;
        if std::mem::take(&mut link.corrupts) {
            // The receiver sees that the frame is damaged, and closes the connection.
            self.queue.push(at, Event::BreakLink { pair: pair(from, to), number });
            return;
        }
        self.queue.push(at, Event::Node(pid, event(number)));
    }

    /// A frame takes a way of its own: it may arrive long after those sent later.
    fn push_out_of_order(&mut self, from: NodeId, to: NodeId, (message, payload): Waiting) {
        let Some(((low, high), link)) = self.links.ends(pair(from, to)) else { return };
        let (sender, pid) = if from < to { (low, high) } else { (high, low) };
        let stood_us = self.links.standing.get(&pair(from, to)).map_or(0, |link| link.stood_us);
        let late = self.draw_message() * self.random.between(0, 20);
        let at = self.draw_arrival(sender, pid).max(stood_us) + late;
        self.queue.push(at, Event::Node(pid, NodeEvent::PeerFrame { link, from, message, payload }));
    }

    /// Frames that were sent long ago arrive again, where their connection stands.
    pub(super) fn repeat_old_frames(&mut self, count: u64) -> bool {
        let mut any = false;
        for _ in 0..count {
            let last = self.links.old.len().saturating_sub(1) as u64;
            let index = self.random.between(0, last) as usize;
            let Some((from, to, frame)) = self.links.old.get(index).cloned() else { break };
            if self.links.standing.get(&pair(from, to)).is_some_and(|link| !link.draining) {
                any = true;
                self.push_out_of_order(from, to, frame);
            }
        }
        any
    }

    /// A node tries to reach a peer that it wants.
    pub(super) fn dial_peer(&mut self, pid: Pid, to: NodeId) {
        let from = self.nodes[pid].id;
        let refused = !self.nodes[pid].alive || self.nodes[pid].forgotten.contains(&to);
        let target = self.nodes[pid].addresses.get(&to).map(|machine| self.machines[*machine]);
        let Some(target) = target.filter(|target| !refused && self.nodes[*target].alive) else {
            self.links.wanted.remove(&(from, to));
            return;
        };
        if self.nodes[target].forgotten.contains(&from) {
            self.links.wanted.remove(&(from, to));
            return;
        }
        let linked = self.links.standing.get(&pair(from, to)).is_some_and(|link| !link.draining);
        let blocked = self.links.blocked.get(&pair(from, to)).is_some_and(|until| *until > self.now);
        if !linked
            && (blocked
                || !self.weather.connects(pid, target, self.now)
                || self.nodes[target].id != to
                || self.nodes[target].forbidden.contains(&pid)
                || self.nodes[target].stalled
                || self.nodes[pid].stalled)
        {
            let delay = self.draw(self.plan.tempo.redial_us);
            self.schedule(delay, Event::DialPeer { from: pid, to });
            return;
        }
        if !linked {
            self.link((from, pid), (to, target));
        }
        for (message, payload) in self.links.wanted.remove(&(from, to)).unwrap_or_default() {
            self.transmit(from, to, message, payload);
        }
    }

    fn link(&mut self, (from, pid): (NodeId, Pid), (to, target): (NodeId, Pid)) {
        self.links.next += 1;
        let ends = if from < to { (pid, target) } else { (target, pid) };
        let link = Link {
            number: self.links.next,
            ends,
            last: [[self.now; LANES]; 2],
            draining: false,
            stood_us: 0,
            reorders_until_us: 0,
            duplicates_until_us: 0,
            corrupts: false,
        };
        self.links.standing.insert(pair(from, to), link);
        // Each end hears that the connection stands before anything else on it.
        for (from, to) in [(from, to), (to, from)] {
            let peer = from;
            self.push_to_peer(from, to, 0, |link| NodeEvent::PeerUp { link, peer });
            let Some(link) = self.links.standing.get_mut(&pair(from, to)) else { continue };
            let direction = usize::from(from > to);
            link.last[direction][1] = link.last[direction][0];
            link.stood_us = link.stood_us.max(link.last[direction][0]);
        }
    }

    /// A connection between two living nodes is seen to be dead, if it still is the one that is meant.
    pub(super) fn break_link_if(&mut self, pair: Pair, number: u64) {
        if self.links.ends(pair).is_some_and(|(_, standing)| standing == number) {
            self.break_link(pair, 0);
        }
    }

    /// The connection between two living nodes breaks; it is dialled again.
    pub(super) fn break_link(&mut self, (a, b): Pair, for_us: u64) {
        let Some(link) = self.links.standing.remove(&(a, b)) else { return };
        self.links.blocked.insert((a, b), self.now + for_us);
        let ends = [(link.ends.0, b), (link.ends.1, a)];
        let dialler = ends
            .into_iter()
            .find(|(pid, to)| self.nodes[*pid].alive && self.nodes[*pid].addresses.contains_key(to));
        if let Some((pid, to)) = dialler {
            let from = self.nodes[pid].id;
            if let Entry::Vacant(vacant) = self.links.wanted.entry((from, to)) {
                vacant.insert(Vec::new());
                let delay = self.draw(self.plan.tempo.redial_us);
                self.schedule(delay, Event::DialPeer { from: pid, to });
            }
        }
    }

    /// A node never again exchanges anything with these.
    pub(super) fn forget_peers(&mut self, pid: Pid, peers: &[NodeId]) {
        if self.lets_fenced_through() {
            return;
        }
        let from = self.nodes[pid].id;
        for peer in peers {
            self.nodes[pid].forgotten.insert(*peer);
            let process = self.nodes.iter().position(|node| node.id == *peer && node.alive);
            self.nodes[pid].forbidden.extend(process);
            self.links.wanted.remove(&(from, *peer));
            self.links.standing.remove(&pair(from, *peer));
        }
    }

    /// A process is gone or has a new id. Its peers' frames are lost; its own still arrive if it `drains`.
    pub(super) fn close_links_of(&mut self, pid: Pid, drains: bool) {
        let id = self.nodes[pid].id;
        self.links.wanted.retain(|(from, _), _| *from != id);
        if drains {
            for link in
                self.links.standing.values_mut().filter(|link| link.ends.0 == pid || link.ends.1 == pid)
            {
                link.draining = true;
            }
        } else {
            self.links.standing.retain(|_, link| link.ends.0 != pid && link.ends.1 != pid);
        }
    }
}
