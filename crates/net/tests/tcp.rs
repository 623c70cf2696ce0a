//! What only real sockets can show.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Peer, World, config, connected, floats, until};
use skipstone_net::{Frame, LinkShape, LinkShapes, NetConfig, NetEvent, PeerId, Priority, wire};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

/// A stranger's connection to `peer`.
fn stranger(peer: &Peer) -> TcpStream {
    let stream = TcpStream::connect(peer.net.local_address()).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    stream
}

/// What the other side sends until it closes.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too.
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    bytes
}

/// Shows that `a` and `b` still have the connection that they had.
fn unharmed(a: &mut Peer, b: &mut Peer) {
    a.net.send(b.id, Frame::message(&b"still here"[..]), Priority::Control).unwrap();
    assert_eq!(b.wait_frame(a.id).header, &b"still here"[..]);
    assert_eq!((a.ups_and_downs(b.id), b.ups_and_downs(a.id)), ((1, 0), (1, 0)));
}

#[test]
fn garbage_instead_of_a_hello() {
    let (mut a, mut b) = connected(&World::Tcp);
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 5000], b"SKIPSTOO\x01\x00.........."] {
        let mut stream = stranger(&a);
        stream.write_all(garbage).unwrap();
        assert_eq!(read_all(&mut stream), b"", "who doesn't speak the protocol gets no answer");
        assert!(a.wait_refused().contains("doesn't speak"));
    }
    // The right first bytes, then noise: another run, most likely.
    let mut stream = stranger(&a);
    stream.write_all(b"SKIPSTON\x01\x00").unwrap();
    stream.write_all(&[0xaa; 64]).unwrap();
    assert_eq!(read_all(&mut stream)[..10], *b"SKIPSTON\x01\x00");
    assert!(a.wait_refused().contains("another run"));
    // Gone before the end of the hello.
    stranger(&a).write_all(b"SKIPSTON\x01\x00abc").unwrap();
    assert!(a.wait_refused().contains("hung up"));
    unharmed(&mut a, &mut b);
}

#[test]
fn wrong_version_is_told_to_both() {
    let (mut a, mut b) = connected(&World::Tcp);
    let mut stream = stranger(&a);
    stream.write_all(b"SKIPSTON\x63\x00").unwrap();
    assert_eq!(read_all(&mut stream), b"SKIPSTON\x01\x00\x01", "our version, and the code for it");
    let why = a.wait_refused();
    assert!(why.contains("version 99") && why.contains("version 1"), "{why}");
    unharmed(&mut a, &mut b);

    // And the other way round: a listener of another version.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    a.net.connect(PeerId(9), &listener.local_addr().unwrap().to_string());
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 74]).unwrap();
    stream.write_all(b"SKIPSTON\x07\x00\x01").unwrap();
    assert!(a.wait_unreachable().contains("version 7"));
}

#[test]
fn secret_never_travels_and_cant_be_replayed() {
    // A full handshake is recorded and played again: the listener's nonce differs, so it proves nothing.
    let mut a = World::Tcp.peer(1);
    let tap = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut b = World::Tcp.peer(2);
    b.net.connect(a.id, &tap.local_addr().unwrap().to_string());
    let (mut inner, _) = tap.accept().unwrap();
    let mut outer = stranger(&a);
    let (mut hello, mut reply, mut proof) = ([0; 74], [0; 91], [0; 33]);
    inner.read_exact(&mut hello).unwrap();
    outer.write_all(&hello).unwrap();
    outer.read_exact(&mut reply).unwrap();
    inner.write_all(&reply).unwrap();
    inner.read_exact(&mut proof).unwrap();
    b.net.disconnect(a.id);
    drop((inner, outer));
    let secret = [5; 32];
    for said in [&hello[..], &reply, &proof] {
        assert!(!said.windows(32).any(|window| window == secret));
    }
    let mut again = stranger(&a);
    again.write_all(&hello).unwrap();
    let mut other = [0; 91];
    again.read_exact(&mut other).unwrap();
    assert_ne!(other, reply);
    again.write_all(&proof).unwrap();
    assert_eq!(read_all(&mut again), b"");
    a.wait("the refusal of the replay", |event| match event {
        NetEvent::Refused { why, claimed, .. } if why.contains("secret") => {
            assert_eq!(*claimed, Some(PeerId(2)));
            Some(())
        }
        _ => None,
    });
    assert_eq!(a.ups_and_downs(PeerId(2)), (0, 0));
    b.settle(Duration::from_millis(1));
    assert_eq!(b.ups_and_downs(PeerId(1)), (0, 0));
}

#[test]
fn silence_in_a_handshake_is_bounded_in_time_and_number() {
    let mut strict = config(1);
    strict.handshake_timeout = Duration::from_millis(400);
    strict.max_unauthenticated = 3;
    let mut a = World::Tcp.peer_at(strict, "127.0.0.1:0");
    let start = Instant::now();
    let mut silent: Vec<TcpStream> = (0..3).map(|_| stranger(&a)).collect();
    let mut fourth = stranger(&a);
    assert_eq!(read_all(&mut fourth), b"");
    assert!(start.elapsed() < Duration::from_millis(390), "the fourth is refused at once");
    assert!(a.wait_refused().contains("too many"));
    for stream in &mut silent {
        assert_eq!(read_all(stream), b"");
        assert!(a.wait_refused().contains("in time"));
    }
    assert!(start.elapsed() >= Duration::from_millis(400));
    let mut b = World::Tcp.peer(2);
    b.dial(&a);
    a.wait_up(b.id);
    b.wait_up(a.id);
    unharmed(&mut a, &mut b);
}

#[test]
fn dialling_something_silent_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut strict = config(1);
    strict.handshake_timeout = Duration::from_millis(200);
    let mut a = World::Tcp.peer_at(strict, "127.0.0.1:0");
    a.net.connect(PeerId(2), &listener.local_addr().unwrap().to_string());
    assert!(a.wait_unreachable().contains("in time"));
    let start = Instant::now();
    drop(a);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "a dialler in the middle of a handshake doesn't hold it up"
    );
}

#[test]
fn large_payloads_arrive_bit_for_bit() {
    let (mut a, mut b) = connected(&World::Tcp);
    let make = |salt: u32| -> Arc<Vec<f32>> {
        Arc::new((0..16u32 << 20).map(|i| f32::from_bits((i ^ salt).wrapping_mul(0x9e37_79b1))).collect())
    };
    let (there, back) = (make(1), make(2));
    a.net.send(b.id, Frame::tensor(vec![1], there.clone()), Priority::Bulk).unwrap();
    b.net.send(a.id, Frame::tensor(vec![2], back.clone()), Priority::Bulk).unwrap();
    let (got_there, got_back) = (b.wait_frame(a.id), a.wait_frame(b.id));
    let same =
        |x: &[f32], y: &[f32]| bytemuck::cast_slice::<f32, u8>(x) == bytemuck::cast_slice::<f32, u8>(y);
    assert!(same(floats(&got_there.payload), &there));
    assert!(same(floats(&got_back.payload), &back));
}

#[test]
fn a_peer_that_stands_still_is_silent_and_then_cut_off() {
    // Its sink never returns, so its only thread neither reads nor answers.
    let mut patient = config(1);
    patient.silence_limit = Duration::from_millis(600);
    patient.linger = Duration::from_millis(100);
    let mut a = World::Tcp.peer_at(patient, "127.0.0.1:0");
    let (unblock, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let b = World::Tcp
        .bind(NetConfig { threads: 1, ..config(2) }, "127.0.0.1:0", move |event| {
            if matches!(event, NetEvent::Frame { .. }) {
                let _ = gate.lock().unwrap().recv();
            }
        })
        .unwrap();
    a.net.connect(PeerId(2), &b.local_address());
    a.wait_up(PeerId(2));
    a.net.send(PeerId(2), Frame::message(&b"stop"[..]), Priority::Control).unwrap();
    until("the silence shows", || a.net.silence(PeerId(2)).is_some_and(|t| t > Duration::from_millis(300)));
    let why = a.wait_down(PeerId(2));
    assert!(why.starts_with("nothing came from it for"), "{why}");
    drop(unblock);
    a.wait_up(PeerId(2));
}

#[test]
fn the_port_is_free_after_the_drop() {
    let (mut a, b) = connected(&World::Tcp);
    let address = b.net.local_address();
    drop(b);
    let b = World::Tcp.peer_at(config(2), &address);
    assert_eq!(b.net.local_address(), address);
    a.wait_down(PeerId(2));
    a.wait_up(PeerId(2));
}

#[test]
fn the_format_is_what_it_was() {
    // Golden bytes: a change here is a new wire::VERSION.
    let head = wire::Head {
        kind: wire::Kind::First,
        lane: Priority::Bulk,
        payload_kind: wire::PayloadKind::F32,
        header_len: 3,
        payload_len: 8,
        chunk_len: 8,
        sequence: 5,
        body_sum: wire::body_sum(b"abc", &[1, 2, 3, 4, 5, 6, 7, 8], 42),
    };
    let mut expected =
        vec![1, 1, 1, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    expected.extend_from_slice(&GOLDEN);
    assert_eq!(head.encode(42).to_vec(), expected);
    assert_eq!((wire::VERSION, wire::HEAD_LEN), (1, 48));
}

/// Both checksums, computed with the reference implementation of XXH3-64.
const GOLDEN: [u8; 16] =
    [0x61, 0xf2, 0x09, 0x0b, 0x08, 0xda, 0x38, 0x03, 0xea, 0x5b, 0xe7, 0x29, 0xae, 0xd6, 0xc1, 0x5d];

#[test]
fn a_shaped_link_takes_its_time_and_holds_nothing_else_up() {
    const LATENCY: Duration = Duration::from_millis(60);
    let shape = LinkShape::steady(LATENCY, 1e6);
    let shaped = |id| {
        let shapes = LinkShapes::new(move |peer| (peer == PeerId(1) || peer == PeerId(2)).then_some(shape));
        World::Tcp.peer_at(NetConfig { shapes: Some(shapes), ..config(id) }, "127.0.0.1:0")
    };
    let (mut a, mut b, mut c) = (shaped(1), shaped(2), World::Tcp.peer(3));
    let dialled = Instant::now();
    a.dial(&b);
    a.wait_up(b.id);
    assert!(dialled.elapsed() >= 4 * LATENCY, "a connection costs two round trips");
    b.wait_up(a.id);
    c.dial(&a);
    c.wait_up(a.id);
    a.wait_up(c.id);
    let far = Arc::new(vec![0.5; 100_000]);
    let sent = Instant::now();
    // 400 kB, 0.4 s of the link, then a message, and one to a peer that is near.
    a.net.send(b.id, Frame::tensor(&b"far"[..], far.clone()), Priority::Bulk).unwrap();
    a.net.send(b.id, Frame::message(&b"word"[..]), Priority::Control).unwrap();
    a.net.send(c.id, Frame::message(&b"near"[..]), Priority::Control).unwrap();
    assert_eq!(c.wait_frame(a.id).header, &b"near"[..]);
    assert_eq!(b.wait_frame(a.id).header, &b"word"[..]);
    assert!(sent.elapsed() >= LATENCY);
    let tensor = b.wait_frame(a.id);
    assert_eq!(tensor, Frame::tensor(&b"far"[..], far.clone()));
    assert!(sent.elapsed() >= LATENCY + Duration::from_millis(400));
    let round_trip = a.wait("a heartbeat", |event| match event {
        NetEvent::Heard { peer: PeerId(2), round_trip, .. } => Some(*round_trip),
        _ => None,
    });
    assert!(round_trip >= 2 * LATENCY);
}
