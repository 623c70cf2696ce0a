//! One end of the links that are measured.

use super::LinksError;
use super::word::{Load, Member, RoundTrips, Word};
use crate::live::address::PeerAddress;
use crate::wan::WanTable;
use skipstone_net::{
    Door, EndpointKey, Frame, NetConfig, NetEvent, PeerId, Priority, Relays, RunSecret, StreamTransport,
    Transport,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// The number of the run that all who measure belong to.
const RUN: u64 = 0x6c69_6e6b_7300;

/// Longest message: names and addresses of all machines.
const WORD_BYTES_MAX: usize = 256 << 10;

/// The first load; each is twice the one before, until one takes long enough or is the largest.
const LOAD_BYTES_MIN: usize = 64 << 10;
const LOAD_BYTES_MAX: usize = 64 << 20;
const LOAD_S: f64 = 0.7;

/// A load that takes longer than this is given up, and so is who sends nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a relay is looked for before others are invited.
const RELAY_PATIENCE: Duration = Duration::from_secs(5);

/// How an end is to be.
#[derive(Debug, Clone)]
pub(super) struct MachineOptions {
    pub(super) region: String,
    pub(super) relays: Relays,
    pub(super) secret: RunSecret,
    /// Processes with the same number talk over loopback.
    pub(super) number: u64,
    /// A table by which links are held back.
    pub(super) wan: Option<String>,
}

/// An end of links, driven by one thread.
pub(super) struct Machine {
    pub(super) me: PeerId,
    pub(super) region: String,
    transport: StreamTransport,
    events: Receiver<NetEvent>,
    up: BTreeMap<PeerId, Vec<f64>>,
    /// Why a peer is not there, as far as is known.
    whys: BTreeMap<PeerId, String>,
    words: VecDeque<(PeerId, Word)>,
}

impl Machine {
    pub(super) fn open(options: &MachineOptions) -> Result<Self, LinksError> {
        let (region, shapes) = match &options.wan {
            None => (0, None),
            Some(name) => {
                let table =
                    WanTable::load(name).map_err(|why| LinksError::Wan { name: name.clone(), why })?;
                let region = table.region(&options.region).ok_or_else(|| LinksError::UnknownRegion {
                    name: name.clone(),
                    region: options.region.clone(),
                    known: table.names().join(", "),
                })?;
                (region, Some(table.view(region, getrandom::u64().unwrap_or_default()).shapes()))
            }
        };
        let me = PeerAddress::draw_id(region)?;
        let mut config = NetConfig::new(me, RUN, options.secret.clone());
        config.max_header = WORD_BYTES_MAX;
        config.max_payload = LOAD_BYTES_MAX;
        config.shapes = shapes;
        config.machine = options.number;
        // A buffer of the system's choice fits long links.
        config.socket_buffer = None;
        config.door = Some(Door::new(EndpointKey::generate(), options.relays.clone()));
        let (sink, events) = mpsc::channel();
        let transport = StreamTransport::bind(config, "127.0.0.1:0", move |event| drop(sink.send(event)))?;
        let (up, whys, words) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        Ok(Self { me, region: options.region.clone(), transport, events, up, whys, words })
    }

    /// Waits until a relay answers, where that is one of the public ones: an invitation names it, and the address that it saw.
    pub(super) fn look_for_relay(&self, relays: &Relays) {
        if *relays == Relays::Public {
            let (looked, answer) = mpsc::channel();
            self.transport.look_for_relay(RELAY_PATIENCE, move |found| {
                let _ = looked.send(found);
            });
            // Where none answers, guests reach this machine directly or not at all.
            let _ = answer.recv();
        }
    }

    /// As others are told of it.
    pub(super) fn member(&self) -> Member {
        Member { peer: self.me.0, address: self.transport.local_address(), region: self.region.clone() }
    }

    pub(super) fn connect(&self, peer: PeerId, address: &str) {
        self.transport.connect(peer, address);
    }

    pub(super) fn is_up(&self, peer: PeerId) -> bool {
        self.up.contains_key(&peer)
    }

    /// Why there is no connection to a peer.
    pub(super) fn why(&self, peer: PeerId) -> String {
        self.whys.get(&peer).cloned().unwrap_or_else(|| "it does not answer".to_owned())
    }

    pub(super) fn say(&self, peer: PeerId, word: &Word) {
        if let Ok(header) = serde_json::to_vec(word) {
            // A connection that is gone is seen by who waits for the answer.
            drop(self.transport.send(peer, Frame::message(header), Priority::Control));
        }
    }

    /// The next message; none if none came in that time.
    pub(super) fn hear(&mut self, time: Duration) -> Option<(PeerId, Word)> {
        let until = Instant::now() + time;
        loop {
            if let Some(word) = self.words.pop_front() {
                return Some(word);
            }
            let event = self.events.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
            self.take(event);
        }
    }

    /// Messages that are to be heard again, before all others.
    pub(super) fn put_back(&mut self, words: Vec<(PeerId, Word)>) {
        for word in words.into_iter().rev() {
            self.words.push_front(word);
        }
    }

    fn take(&mut self, event: NetEvent) {
        match event {
            NetEvent::Up { peer, .. } => {
                self.up.insert(peer, Vec::new());
            }
            NetEvent::Down { peer, why, .. } => {
                self.up.remove(&peer);
                self.whys.insert(peer, why);
            }
            NetEvent::Unreachable { peer, why, .. } => {
                self.whys.insert(peer, why);
            }
            NetEvent::Heard { peer, round_trip, .. } => {
                if let Some(heard) = self.up.get_mut(&peer).filter(|heard| heard.len() < 10_000) {
                    heard.push(round_trip.as_secs_f64());
                }
            }
            NetEvent::Frame { peer, frame, receiving, .. } => match serde_json::from_slice(&frame.header) {
                Ok(Word::Load) => {
                    let bytes = frame.payload.len() as u64;
                    self.say(peer, &Word::Took(Load { bytes, seconds: receiving.as_secs_f64() }));
                }
                Ok(word) => self.words.push_back((peer, word)),
                Err(_) => self.transport.forbid(peer),
            },
            NetEvent::Listening { .. } | NetEvent::Refused { .. } => {}
        }
    }

    /// Forgets the round trips so far, listens for a while, and tells those since.
    pub(super) fn listen(&mut self, time: Duration) -> Vec<(u64, RoundTrips)> {
        self.up.values_mut().for_each(Vec::clear);
        let until = Instant::now() + time;
        let mut kept = Vec::new();
        while let Some(word) = self.hear(until.saturating_duration_since(Instant::now())) {
            kept.push(word);
        }
        self.put_back(kept);
        let trips = |heard: &Vec<f64>| RoundTrips {
            count: heard.len() as u32,
            least_s: heard.iter().copied().fold(f64::INFINITY, f64::min),
            mean_s: heard.iter().sum::<f64>() / heard.len() as f64,
        };
        let heard = self.up.iter().filter(|(_, heard)| !heard.is_empty());
        heard.map(|(peer, heard)| (peer.0, trips(heard))).collect()
    }

    /// Sends loads to a peer until one says how fast they go; why not, if there is no such.
    pub(super) fn measure(&mut self, to: PeerId) -> Result<Load, String> {
        let header = serde_json::to_vec(&Word::Load).map_err(|why| why.to_string())?;
        let mut bytes = LOAD_BYTES_MIN;
        loop {
            let values = Arc::new((0..bytes / 4).map(|n| n as f32).collect::<Vec<_>>());
            self.transport
                .send(to, Frame::tensor(header.clone(), values), Priority::Bulk)
                .map_err(|why| why.to_string())?;
            let load = self.took(to)?;
            if load.seconds >= LOAD_S || bytes >= LOAD_BYTES_MAX {
                return Ok(load);
            }
            bytes *= 2;
        }
    }

    fn took(&mut self, from: PeerId) -> Result<Load, String> {
        let (until, mut kept) = (Instant::now() + PATIENCE, Vec::new());
        let took = loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.is_up(from) {
                break Err(self.why(from));
            }
            match self.hear(left.min(Duration::from_millis(500))) {
                Some((peer, Word::Took(load))) if peer == from => break Ok(load),
                Some(other) => kept.push(other),
                None => {}
            }
        };
        self.put_back(kept);
        took
    }
}
