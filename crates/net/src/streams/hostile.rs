//! Peers that know the secret and misbehave all the same. Each loses its connection, and nobody else anything.

use super::{StreamTransport, link::Link, table::Judge};
use crate::{
    Frame, NetConfig, NetEvent, PeerId, Priority, RunSecret, Transport, channel,
    wire::{
        Head, Kind, MAX_CHUNK, PayloadKind, Seeds, body_sum,
        handshake::{self, Introduced, Myself, outcome, read_outcome},
    },
};
use std::{
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{self, Runtime},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn config(id: u64) -> NetConfig {
    let mut config = NetConfig::new(PeerId(id), 3, RunSecret::new([9; 32]));
    config.max_header = 1000;
    config.max_payload = 100_000;
    config
}

/// A transport with an honest friend, and a runtime for the enemy.
struct Scene {
    victim: StreamTransport,
    events: Receiver<NetEvent>,
    friend: StreamTransport,
    friend_events: Receiver<NetEvent>,
    runtime: Runtime,
}

fn wait<T>(events: &Receiver<NetEvent>, mut pick: impl FnMut(&NetEvent) -> Option<T>) -> T {
    loop {
        let event = events.recv_timeout(PATIENCE).expect("the event didn't come");
        if let Some(picked) = pick(&event) {
            return picked;
        }
        assert!(
            !matches!(event, NetEvent::Down { peer: PeerId(5 | 6), .. }),
            "the friends were parted: {event:?}"
        );
    }
}

fn up(of: u64) -> impl Fn(&NetEvent) -> Option<u64> {
    move |event| match event {
        NetEvent::Up { peer, connection, .. } if peer.0 == of => Some(*connection),
        _ => None,
    }
}

fn down(of: u64) -> impl Fn(&NetEvent) -> Option<(u64, String)> {
    move |event| match event {
        NetEvent::Down { peer, connection, why } if peer.0 == of => Some((*connection, why.clone())),
        _ => None,
    }
}

impl Scene {
    fn new() -> Self {
        let (sink, events) = channel();
        let victim = StreamTransport::bind(config(5), "127.0.0.1:0", sink).unwrap();
        let (sink, friend_events) = channel();
        let friend = StreamTransport::bind(config(6), "127.0.0.1:0", sink).unwrap();
        friend.connect(PeerId(5), &victim.local_address());
        wait(&events, up(6));
        wait(&friend_events, up(5));
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { victim, events, friend, friend_events, runtime }
    }

    /// An authenticated connection, by hand.
    fn enemy(&self, id: u64, incarnation: u64) -> (TcpStream, Introduced) {
        let config = config(id);
        self.runtime.block_on(async {
            let mut stream = TcpStream::connect(self.victim.local_address()).await.unwrap();
            let me = Myself { config: &config, incarnation };
            let who = handshake::dial(&mut stream, me, PeerId(5), None).await.unwrap();
            read_outcome(&mut stream).await.unwrap();
            if id < 5 {
                stream.write_all(&outcome(Ok(1))).await.unwrap();
            }
            (stream, who)
        })
    }

    /// What `bytes` from an authenticated peer lead to.
    fn attack(&self, make: impl FnOnce(u64) -> Vec<u8>, hang_up: bool) -> String {
        let (mut stream, who) = self.enemy(9, 1);
        let connection = wait(&self.events, up(9));
        let bytes = make(who.seeds.outgoing);
        let why = self.runtime.block_on(async {
            stream.write_all(&bytes).await.unwrap();
            if hang_up {
                stream.shutdown().await.unwrap();
            }
            let (ended, why) = wait(&self.events, down(9));
            assert_eq!(ended, connection);
            // The victim closed it: the stream comes to its end.
            let mut rest = Vec::new();
            if let Err(error) = stream.read_to_end(&mut rest).await {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
            why
        });
        self.unharmed();
        why
    }

    fn unharmed(&self) {
        self.victim.send(PeerId(6), Frame::message(&b"hi"[..]), Priority::Control).unwrap();
        let header = wait(&self.friend_events, |event| match event {
            NetEvent::Frame { frame, .. } => Some(frame.header.clone()),
            _ => None,
        });
        assert_eq!(header, &b"hi"[..]);
        self.friend.send(PeerId(5), Frame::message(&b"ho"[..]), Priority::Control).unwrap();
        let header = wait(&self.events, |event| match event {
            NetEvent::Frame { peer: PeerId(6), frame, .. } => Some(frame.header.clone()),
            _ => None,
        });
        assert_eq!(header, &b"ho"[..]);
    }
}

/// A record with a header of 3 bytes and a payload of 8, all right so far.
fn record(seed: u64, sequence: u64, change: impl FnOnce(&mut Head)) -> Vec<u8> {
    let mut head = Head {
        kind: Kind::First,
        lane: Priority::Bulk,
        payload_kind: PayloadKind::F32,
        header_len: 3,
        payload_len: 8,
        chunk_len: 8,
        sequence,
        body_sum: body_sum(b"abc", &[7; 8], seed),
    };
    change(&mut head);
    [&head.encode(seed)[..], b"abc", &[7; 8]].concat()
}

#[test]
fn each_kind_of_bad_frame_costs_its_sender_the_connection() {
    let scene = Scene::new();
    let expect = |words: &str, make: &dyn Fn(u64) -> Vec<u8>| {
        let why = scene.attack(make, false);
        assert!(why.contains(words), "expected '{words}', got '{why}'");
    };
    expect("corrupt", &|_| vec![0xee; 48]);
    expect("corrupt", &|seed| record(seed ^ 1, 0, |_| {}));
    expect("contents are corrupt", &|seed| record(seed, 0, |head| head.body_sum ^= 1));
    expect("header of 1001 bytes", &|seed| record(seed, 0, |head| head.header_len = 1001));
    expect("payload of 100004 bytes", &|seed| record(seed, 0, |head| head.payload_len = 100_004));
    expect("payload of 18446744073709551612 bytes", &|seed| {
        record(seed, 0, |head| head.payload_len = u64::MAX - 3)
    });
    expect("a piece of", &|seed| record(seed, 0, |head| head.chunk_len = MAX_CHUNK + 1));
    expect("multiple of 4", &|seed| record(seed, 0, |head| head.payload_len = 9));
    expect("out of order: number 1 came where 0 was due", &|seed| record(seed, 1, |_| {}));
    expect("out of order: number 0 came where 1 was due", &|seed| {
        [record(seed, 0, |_| {}), record(seed, 0, |_| {})].concat()
    });
    expect("hasn't begun", &|seed| record(seed, 0, |head| head.kind = Kind::More));
    expect("before the lane's last one has ended", &|seed| {
        let begun = record(seed, 0, |head| head.payload_len = 16);
        [begun, record(seed, 1, |_| {})].concat()
    });
    expect("closed by the other end", &|seed| Head::bare(Kind::Goodbye, 0, seed).encode(seed).to_vec());
    let why = scene.attack(|seed| record(seed, 0, |_| {})[..50].to_vec(), true);
    assert!(why.contains("middle of a frame"), "{why}");
    let why = scene.attack(|seed| record(seed, 0, |head| head.payload_len = 16), true);
    assert!(why.contains("middle of a frame"), "{why}");
    let why = scene.attack(|seed| record(seed, 0, |_| {}), true);
    assert!(why.contains("gone"), "{why}");
}

#[test]
fn a_newer_connection_of_a_restarted_peer_replaces_the_older() {
    for id in [4, 9] {
        let scene = Scene::new();
        let (mut old, _) = scene.enemy(id, 1);
        let first = wait(&scene.events, up(id));
        let (_new, _) = scene.enemy(id, 2);
        let (ended, why) = wait(&scene.events, down(id));
        assert_eq!((ended, why.as_str()), (first, "replaced by a newer connection"));
        assert!(wait(&scene.events, up(id)) > first);
        scene.runtime.block_on(async {
            let mut rest = Vec::new();
            drop(
                tokio::time::timeout(PATIENCE, old.read_to_end(&mut rest))
                    .await
                    .expect("the old one is closed"),
            );
        });
        scene.unharmed();
    }
}

#[test]
fn a_new_connection_waits_for_the_last_word_of_the_old() {
    let scene = Scene::new();
    let shared = &scene.victim.shared;
    // An older connection, of which events are being told just now.
    let seeds = Seeds { outgoing: 1, incoming: 2 };
    let who = Introduced { peer: PeerId(4), incarnation: 1, seeds };
    let old = Arc::new(Link::new(who, shared.next_connection(), 1, &shared.config));
    let turn = shared.table.install(&old, Judge::Peer).unwrap();
    let telling = turn.blocking_lock();
    let (_new, _) = scene.enemy(4, 2);
    while !old.is_closing() {
        std::thread::sleep(Duration::from_millis(1));
    }
    while let Ok(event) = scene.events.recv_timeout(Duration::from_millis(60)) {
        assert!(!matches!(event, NetEvent::Up { .. }), "too early: {event:?}");
        if shared.table.link(PeerId(4)).is_some_and(|link| link.born.elapsed() > Duration::from_millis(300)) {
            break;
        }
    }
    drop(telling);
    assert!(wait(&scene.events, up(4)) > old.connection);
    scene.unharmed();
}

#[test]
fn a_peer_that_lost_its_connection_gets_a_new_one() {
    // Same life, and the victim hasn't noticed the loss. A second connection right after the first is taken for
    // a simultaneous dial; later it replaces the first.
    let scene = Scene::new();
    let (_old, _) = scene.enemy(9, 1);
    let first = wait(&scene.events, up(9));
    let config = config(9);
    let refused = scene.runtime.block_on(async {
        let mut stream = TcpStream::connect(scene.victim.local_address()).await.unwrap();
        let me = Myself { config: &config, incarnation: 1 };
        handshake::dial(&mut stream, me, PeerId(5), None).await.unwrap();
        read_outcome(&mut stream).await
    });
    assert!(matches!(refused, Err(crate::wire::Refusal::Duplicate)), "{refused:?}");
    std::thread::sleep(Duration::from_millis(1100));
    let (_new, _) = scene.enemy(9, 1);
    assert_eq!(wait(&scene.events, down(9)).0, first);
    wait(&scene.events, up(9));
    scene.unharmed();
}

#[test]
fn pings_are_answered_and_a_flood_of_them_is_not_amplified() {
    let scene = Scene::new();
    let (mut stream, who) = scene.enemy(9, 1);
    wait(&scene.events, up(9));
    let seed = who.seeds.outgoing;
    let pings: Vec<u8> =
        (0..10_000u64).flat_map(|i| Head::bare(Kind::Ping(1_000_000 + i), i, seed).encode(seed)).collect();
    let limits = crate::wire::Limits { header: 0, payload: 0 };
    let (mut pongs, mut last) = (0, 0);
    scene.runtime.block_on(async {
        let (mut read, mut write) = stream.split();
        let reading = async {
            while last != 1_009_999 {
                let mut bytes = [0; crate::wire::HEAD_LEN];
                read.read_exact(&mut bytes).await.unwrap();
                if let Kind::Pong(token) = Head::decode(&bytes, who.seeds.incoming, limits).unwrap().kind {
                    assert!(token > last);
                    (pongs, last) = (pongs + 1, token);
                }
            }
        };
        let writing = async { write.write_all(&pings).await.unwrap() };
        tokio::time::timeout(PATIENCE, async { tokio::join!(reading, writing) })
            .await
            .expect("the last is answered");
    });
    assert!((1..=10_000).contains(&pongs));
    scene.unharmed();
}
