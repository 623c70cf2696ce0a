//! One transport on the hub.

use crate::{NetConfig, NetEvent, PeerId, queue::SendQueue};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Condvar},
    time::{Duration, Instant},
};

pub(super) struct Endpoint {
    pub(super) config: NetConfig,
    pub(super) wake: Arc<Condvar>,
    pub(super) wanted: HashMap<PeerId, Wish>,
    pub(super) forbidden: HashSet<PeerId>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) notices: VecDeque<NetEvent>,
    pub(super) stopped: bool,
    next: u64,
    /// The connection that was served last; the others come first now.
    cursor: u64,
}

/// A peer that is to be dialled.
pub(super) struct Wish {
    pub(super) address: String,
    pub(super) due: Instant,
    pub(super) told: String,
}

/// One side of a connection.
pub(super) struct Connection {
    pub(super) peer: PeerId,
    /// The other side's endpoint and its number there.
    pub(super) remote: (String, u64),
    /// Frames on their way to this side.
    pub(super) inbox: Arc<SendQueue>,
    pub(super) heard: Instant,
    pub(super) ended: Option<String>,
    up: bool,
    next_heard: Instant,
}

/// What an endpoint's thread does next.
pub(super) enum Step {
    Tell(NetEvent),
    Wait(Duration),
    Stop,
}

impl Endpoint {
    pub(super) fn new(config: NetConfig, address: &str) -> Self {
        Self {
            config,
            wake: Arc::default(),
            wanted: HashMap::new(),
            forbidden: HashSet::new(),
            connections: BTreeMap::new(),
            notices: VecDeque::from([NetEvent::Listening { address: address.to_owned() }]),
            stopped: false,
            next: 1,
            cursor: 0,
        }
    }

    pub(super) fn want(&mut self, peer: PeerId, address: &str) {
        self.forbidden.remove(&peer);
        if self.wanted.get(&peer).is_none_or(|wish| wish.address != address) {
            let wish = Wish { address: address.to_owned(), due: Instant::now(), told: String::new() };
            self.wanted.insert(peer, wish);
        }
    }

    /// The number of the next connection.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Adds a connection; `inbox` is bounded by the other side, which fills it.
    pub(super) fn attach(&mut self, number: u64, peer: PeerId, remote: (String, u64), inbox: SendQueue) {
        let inbox = Arc::new(inbox);
        let now = Instant::now();
        let connection =
            Connection { peer, remote, inbox, heard: now, ended: None, up: false, next_heard: now };
        self.connections.insert(number, connection);
        self.wake.notify_one();
    }

    /// The connection to `peer`, if there is one that hasn't ended.
    pub(super) fn live(&self, peer: PeerId) -> Option<(u64, &Connection)> {
        let mut live = self.connections.iter().filter(|(_, c)| c.peer == peer && c.ended.is_none());
        live.next().map(|(number, connection)| (*number, connection))
    }

    /// Has the thread end when everything has been told; answers with the peers that are connected.
    pub(super) fn stop(&mut self) -> Vec<PeerId> {
        self.stopped = true;
        self.wake.notify_one();
        self.connections.values().filter(|c| c.ended.is_none()).map(|c| c.peer).collect()
    }

    /// Ends a connection; what is on its way to this side is lost if `cut`.
    pub(super) fn end(&mut self, number: u64, why: &str, cut: bool) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.ended.get_or_insert_with(|| why.to_owned());
            if cut {
                connection.inbox = Arc::new(SendQueue::new(self.config.control, self.config.bulk));
            }
        }
        self.wake.notify_one();
    }

    /// The next thing to do.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if let Some(event) = self.notices.pop_front() {
            return Step::Tell(event);
        }
        let after = self.connections.range(self.cursor + 1..).map(|(number, _)| *number);
        let before = self.connections.range(..=self.cursor).map(|(number, _)| *number);
        let order: Vec<u64> = after.chain(before).collect();
        for number in order {
            if let Some(event) = self.serve(number, now) {
                self.cursor = number;
                return Step::Tell(event);
            }
        }
        if self.stopped { Step::Stop } else { Step::Wait(self.config.backoff_min) }
    }

    /// The next event of one connection.
    fn serve(&mut self, number: u64, now: Instant) -> Option<NetEvent> {
        let connection = self.connections.get(&number)?;
        let peer = connection.peer;
        // An older connection to the same peer has its last word first.
        if self.connections.range(..number).any(|(_, other)| other.peer == peer) {
            return None;
        }
        let connection = self.connections.get_mut(&number)?;
        if !connection.up {
            connection.up = true;
            let address = connection.remote.0.clone();
            return Some(NetEvent::Up { peer, connection: number, address, key: None });
        }
        if let Some(piece) = connection.inbox.pop(&crate::Priority::ALL, usize::MAX) {
            connection.inbox.written(&piece);
            connection.heard = now;
            return Some(NetEvent::Frame {
                peer,
                connection: number,
                frame: piece.frame,
                receiving: Duration::ZERO, // handed over in one piece
            });
        }
        if connection.ended.is_some() {
            let why = self.connections.remove(&number)?.ended?;
            return Some(NetEvent::Down { peer, connection: number, why });
        }
        if now >= connection.next_heard {
            connection.next_heard = now + self.config.heartbeat_interval;
            connection.heard = now;
            return Some(NetEvent::Heard { peer, connection: number, round_trip: Duration::ZERO });
        }
        None
    }
}
