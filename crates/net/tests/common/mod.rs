//! A peer under test, on either transport.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::match_wild_err_arm)]

use skipstone_net::{
    BindError, Frame, MemoryHub, MemoryTransport, NetConfig, NetEvent, Payload, PeerId, RunSecret,
    StreamTransport, Transport,
};
use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Where the peers of a test live.
pub enum World {
    Tcp,
    /// Every peer on a machine of its own.
    #[cfg(feature = "iroh")]
    Iroh,
    Memory(MemoryHub),
}

impl World {
    pub fn any_address(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory:0",
            Self::Tcp => "127.0.0.1:0",
            #[cfg(feature = "iroh")]
            Self::Iroh => "127.0.0.1:0",
        }
    }

    pub fn bind(
        &self,
        config: NetConfig,
        address: &str,
        sink: impl Fn(NetEvent) + Send + Sync + 'static,
    ) -> Result<Box<dyn Transport>, BindError> {
        Ok(match self {
            Self::Tcp => Box::new(StreamTransport::bind(config, address, sink)?),
            #[cfg(feature = "iroh")]
            Self::Iroh => {
                let mut config = config;
                config.machine = config.id.0;
                // Encryption on a busy machine takes its time.
                config.linger = Duration::from_secs(5);
                let reach: skipstone_net::Reach = address.parse().unwrap();
                config.door.get_or_insert_with(|| {
                    // A peer that comes again has its old key, and its old port.
                    let key = format!("{:064x}", 1 + config.id.0);
                    let key = skipstone_net::EndpointKey::from_hex(&key).unwrap();
                    let mut door = skipstone_net::Door::new(key, skipstone_net::Relays::None);
                    let mut ways = reach.internet.iter().flat_map(|internet| &internet.ways);
                    let port = ways.find_map(|way| way.rsplit(':').next()?.parse().ok());
                    door.port = port.unwrap_or(0);
                    door
                });
                Box::new(StreamTransport::bind(config, &reach.tcp.unwrap().1, sink)?)
            }
            Self::Memory(hub) => Box::new(MemoryTransport::bind(hub, config, address, sink)?),
        })
    }

    pub fn peer(&self, id: u64) -> Peer {
        self.peer_at(config(id), self.any_address())
    }

    pub fn peer_at(&self, config: NetConfig, address: &str) -> Peer {
        let id = config.id;
        let (sender, events) = mpsc::channel();
        let net = self.bind(config, address, move |event| drop(sender.send(event))).unwrap();
        Peer { id, net, events, seen: Vec::new() }
    }
}

pub fn config(id: u64) -> NetConfig {
    let mut config = NetConfig::new(PeerId(id), 77, RunSecret::new([5; 32]));
    config.heartbeat_interval = Duration::from_millis(20);
    config.backoff_max = Duration::from_millis(100);
    config
}

pub struct Peer {
    pub id: PeerId,
    pub net: Box<dyn Transport>,
    pub events: Receiver<NetEvent>,
    /// Everything that was waited through, but for heartbeats.
    pub seen: Vec<NetEvent>,
}

impl Peer {
    pub fn dial(&self, other: &Self) {
        self.net.connect(other.id, &other.net.local_address());
    }

    /// The next event that `pick` takes; the others are kept in `seen`.
    pub fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&NetEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    let picked = pick(&event);
                    self.note(event);
                    if let Some(picked) = picked {
                        return picked;
                    }
                }
                Err(_) => panic!("{}: waited in vain for {what}; saw {:?}", self.id, self.brief()),
            }
        }
    }

    fn note(&mut self, event: NetEvent) {
        if !matches!(event, NetEvent::Heard { .. }) {
            self.seen.push(event);
        }
    }

    /// `seen`, short enough to print.
    pub fn brief(&self) -> Vec<String> {
        self.seen.iter().map(|event| format!("{event:?}").chars().take(200).collect()).collect()
    }

    pub fn wait_up(&mut self, other: PeerId) -> u64 {
        self.wait("Up", |event| match event {
            NetEvent::Up { peer, connection, .. } if *peer == other => Some(*connection),
            _ => None,
        })
    }

    pub fn wait_down(&mut self, other: PeerId) -> String {
        self.wait("Down", |event| match event {
            NetEvent::Down { peer, why, .. } if *peer == other => Some(why.clone()),
            _ => None,
        })
    }

    pub fn wait_frame(&mut self, other: PeerId) -> Frame {
        self.wait("Frame", |event| match event {
            NetEvent::Frame { peer, frame, .. } if *peer == other => Some(frame.clone()),
            _ => None,
        })
    }

    pub fn wait_refused(&mut self) -> String {
        self.wait("Refused", |event| match event {
            NetEvent::Refused { why, .. } => Some(why.clone()),
            _ => None,
        })
    }

    pub fn wait_unreachable(&mut self) -> String {
        self.wait("Unreachable", |event| match event {
            NetEvent::Unreachable { why, .. } => Some(why.clone()),
            _ => None,
        })
    }

    /// Takes in what comes within `time`.
    pub fn settle(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => self.note(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// How many `Up` and `Down` from `other` were seen.
    pub fn ups_and_downs(&self, other: PeerId) -> (usize, usize) {
        let count = |up: bool| {
            self.seen
                .iter()
                .filter(|event| match event {
                    NetEvent::Up { peer, .. } => up && *peer == other,
                    NetEvent::Down { peer, .. } => !up && *peer == other,
                    _ => false,
                })
                .count()
        };
        (count(true), count(false))
    }

    /// Per peer: `Up`, frames, `Down`, never two connections at once, connection numbers only grow.
    pub fn check_order(&self) {
        let mut open = std::collections::HashMap::new();
        let mut last = std::collections::HashMap::new();
        for event in &self.seen {
            match event {
                NetEvent::Up { peer, connection, .. } => {
                    assert!(open.insert(*peer, *connection).is_none(), "two connections: {:?}", self.brief());
                    let before = last.insert(*peer, *connection);
                    assert!(before.is_none_or(|before| before < *connection), "{:?}", self.brief());
                }
                NetEvent::Down { peer, connection, .. } => {
                    assert_eq!(open.remove(peer), Some(*connection), "{:?}", self.brief());
                }
                NetEvent::Frame { peer, connection, .. } => {
                    assert_eq!(open.get(peer), Some(connection), "{:?}", self.brief());
                }
                _ => {}
            }
        }
    }
}

pub fn connected(world: &World) -> (Peer, Peer) {
    let (mut a, mut b) = (world.peer(1), world.peer(2));
    a.dial(&b);
    a.wait_up(b.id);
    b.wait_up(a.id);
    (a, b)
}

pub fn floats(payload: &Payload) -> &[f32] {
    match payload {
        Payload::F32(values) => values,
        other => panic!("not floats: {other:?}"),
    }
}

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
