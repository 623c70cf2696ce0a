//! What every transport promises, asked of every transport.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Peer, World, config, connected, floats, until};
use skipstone_net::{
    Frame, LaneLimits, MemoryHub, NetEvent, Payload, PeerId, Priority, RunSecret, SendError,
};
use std::{
    sync::{Arc, Mutex, OnceLock, mpsc},
    time::{Duration, Instant},
};

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod tcp {
            $(#[test] fn $name() { super::$name(&super::World::Tcp); })*
        }
        #[cfg(feature = "iroh")]
        mod iroh {
            $(#[test] fn $name() { super::$name(&super::World::Iroh); })*
        }
        mod memory {
            $(#[test] fn $name() { super::$name(&super::World::Memory(super::MemoryHub::new())); })*
        }
    };
}

conformance!(
    frames_both_ways_in_order,
    every_kind_of_payload,
    send_errors,
    peer_that_comes_later,
    peer_that_restarts,
    disconnect_is_final,
    forbidden_until_wanted_again,
    simultaneous_dial,
    queue_is_bounded,
    control_overtakes_waiting_bulk,
    wrong_secret_and_wrong_run,
    wrong_peer_and_self,
    heartbeats,
    drop_delivers_what_was_queued,
    events_stay_in_order_under_churn,
    answer_from_within_the_sink,
    occupied_address,
);

fn tagged(tag: u32) -> Frame {
    Frame::message(tag.to_le_bytes().to_vec())
}

fn tag(frame: &Frame) -> u32 {
    u32::from_le_bytes(frame.header[..].try_into().unwrap())
}

fn frames_both_ways_in_order(world: &World) {
    let (mut a, mut b) = connected(world);
    for i in 0..500 {
        let lane = if i % 2 == 0 { Priority::Control } else { Priority::Bulk };
        a.net.send(b.id, tagged(i), lane).unwrap();
        b.net.send(a.id, tagged(1000 + i), lane).unwrap();
    }
    for (to, from, base) in [(&mut b, PeerId(1), 0), (&mut a, PeerId(2), 1000)] {
        let tags: Vec<u32> = (0..500).map(|_| tag(&to.wait_frame(from)) - base).collect();
        for parity in 0..2 {
            let lane: Vec<u32> = tags.iter().copied().filter(|t| t % 2 == parity).collect();
            assert_eq!(lane, (0..500).filter(|t| t % 2 == parity).collect::<Vec<_>>());
        }
        to.check_order();
    }
}

fn every_kind_of_payload(world: &World) {
    let (a, mut b) = connected(world);
    let bits: Vec<f32> =
        [0, 1, 0x7fc0_1234, 0xffff_ffff, 0x8000_0000, 0x7f80_0000].map(f32::from_bits).to_vec();
    let many: Vec<f32> = (0..300_001u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))).collect();
    let payloads = [
        Payload::Empty,
        Payload::F32(Arc::default()),
        Payload::F32(Arc::new(bits)),
        Payload::F32(Arc::new(many)),
        Payload::Bytes(Vec::new().into()),
        Payload::Bytes((0..700_003u32).map(|i| i as u8).collect::<Vec<_>>().into()),
    ];
    for (i, payload) in payloads.iter().enumerate() {
        let header = vec![i as u8; i * 1000];
        a.net.send(b.id, Frame { header: header.into(), payload: payload.clone() }, Priority::Bulk).unwrap();
    }
    for (i, payload) in payloads.iter().enumerate() {
        let got = b.wait_frame(a.id);
        assert_eq!(got.header, vec![i as u8; i * 1000]);
        assert_eq!(std::mem::discriminant(&got.payload), std::mem::discriminant(payload));
        assert_eq!(got.payload.as_bytes(), payload.as_bytes(), "bit for bit, NaNs too");
    }
}

fn send_errors(world: &World) {
    let mut small = config(1);
    (small.max_header, small.max_payload) = (100, 1000);
    let mut a = world.peer_at(small, world.any_address());
    let mut b = world.peer(2);
    assert_eq!(a.net.send(b.id, tagged(1), Priority::Control), Err(SendError::NotConnected(b.id)));
    assert_eq!(a.net.silence(b.id), None);
    a.dial(&b);
    a.wait_up(b.id);
    b.wait_up(a.id);
    let long = Frame::message(vec![0; 101]);
    let sent = a.net.send(b.id, long, Priority::Control);
    assert_eq!(sent, Err(SendError::TooLarge { part: "header", bytes: 101, limit: 100 }));
    let large = Frame::tensor(vec![], Arc::new(vec![0.0; 251]));
    let sent = a.net.send(b.id, large, Priority::Control);
    assert_eq!(sent, Err(SendError::TooLarge { part: "payload", bytes: 1004, limit: 1000 }));
    a.net.send(b.id, Frame::tensor(vec![0; 100], Arc::new(vec![0.0; 250])), Priority::Control).unwrap();
    assert_eq!(b.wait_frame(a.id).len(), 1100);
}

fn peer_that_comes_later(world: &World) {
    let address = world.peer(2).net.local_address();
    let mut a = world.peer(1);
    a.net.connect(PeerId(2), &address);
    a.wait_unreachable();
    a.settle(Duration::from_millis(300));
    let told = a.seen.iter().filter(|event| matches!(event, NetEvent::Unreachable { .. })).count();
    assert_eq!(told, 1, "once per reason, not once per try");
    let mut b = world.peer_at(config(2), &address);
    a.wait_up(b.id);
    b.wait_up(a.id);
}

fn peer_that_restarts(world: &World) {
    let (mut a, b) = connected(world);
    let address = b.net.local_address();
    drop(b);
    for round in 10..13 {
        a.wait_down(PeerId(2));
        let mut b = world.peer_at(config(2), &address);
        a.wait_up(PeerId(2));
        b.wait_up(a.id);
        a.net.send(PeerId(2), tagged(round), Priority::Bulk).unwrap();
        assert_eq!(tag(&b.wait_frame(a.id)), round);
    }
    a.check_order();
}

fn disconnect_is_final(world: &World) {
    let (mut a, mut b) = connected(world);
    a.net.send(b.id, Frame::tensor(vec![1], Arc::new(vec![1.5; 1 << 20])), Priority::Bulk).unwrap();
    a.net.disconnect(b.id);
    assert_eq!(a.net.send(b.id, tagged(1), Priority::Control), Err(SendError::NotConnected(b.id)));
    assert_eq!(a.wait_down(b.id), "disconnected by this side");
    assert_eq!(floats(&b.wait_frame(a.id).payload), vec![1.5; 1 << 20], "what was queued still goes out");
    assert_eq!(b.wait_down(a.id), "closed by the other end");
    a.settle(Duration::from_millis(300));
    assert_eq!(a.ups_and_downs(b.id), (1, 1), "not wanted any more, so not dialled any more");
    b.dial(&a);
    a.wait_up(b.id);
}

fn forbidden_until_wanted_again(world: &World) {
    let (mut a, mut b) = connected(world);
    b.dial(&a);
    a.net.forbid(b.id);
    a.wait_down(b.id);
    b.wait_down(a.id);
    assert!(a.wait_refused().contains("cut off"));
    a.settle(Duration::from_millis(300));
    b.settle(Duration::from_millis(1));
    assert_eq!(a.ups_and_downs(b.id), (1, 1));
    assert_eq!(b.ups_and_downs(a.id), (1, 1));
    a.dial(&b);
    a.wait_up(b.id);
    b.wait_up(a.id);
}

fn simultaneous_dial(world: &World) {
    for _ in 0..10 {
        let (mut a, mut b) = (world.peer(1), world.peer(2));
        a.dial(&b);
        b.dial(&a);
        a.wait_up(b.id);
        b.wait_up(a.id);
        a.settle(Duration::from_millis(60));
        b.settle(Duration::from_millis(60));
        for (one, other) in [(&a, b.id), (&b, a.id)] {
            assert_eq!(one.ups_and_downs(other), (1, 0), "one connection, and it stays: {:?}", one.brief());
        }
        a.net.send(b.id, tagged(1), Priority::Control).unwrap();
        b.net.send(a.id, tagged(2), Priority::Control).unwrap();
        assert_eq!((tag(&b.wait_frame(a.id)), tag(&a.wait_frame(b.id))), (1, 2));
    }
}

/// A peer whose sink stands still until the gate is opened.
fn gated(world: &World, id: u64) -> (Peer, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let (sender, events) = mpsc::channel();
    let net = world.bind(config(id), world.any_address(), move |event| {
        if matches!(event, NetEvent::Frame { .. }) {
            // An error means that the gate is open for good.
            let _ = gate.lock().unwrap().recv();
        }
        drop(sender.send(event));
    });
    (Peer { id: PeerId(id), net: net.unwrap(), events, seen: Vec::new() }, open)
}

fn queue_is_bounded(world: &World) {
    let limits = LaneLimits { frames: 50, bytes: 8 << 20 };
    let mut bounded = config(1);
    bounded.bulk = limits;
    let (mut b, open) = gated(world, 2);
    let mut a = world.peer_at(bounded, world.any_address());
    a.dial(&b);
    a.wait_up(b.id);
    b.wait_up(a.id);
    let payload = Arc::new(vec![1.0; 1 << 18]);
    let mut sent = 0u32;
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut full_since: Option<Instant> = None;
    // Until the queue has been full for a while: the system's socket buffers are full then, too.
    while full_since.is_none_or(|since| since.elapsed() < Duration::from_millis(300)) {
        assert!(Instant::now() < deadline, "{sent} frames of a MiB, and the queue is never full");
        match a.net.send(b.id, Frame::tensor(sent.to_le_bytes().to_vec(), payload.clone()), Priority::Bulk) {
            Ok(()) => {
                sent += 1;
                full_since = None;
                assert!(sent < 1000, "the queue has no bound");
            }
            Err(SendError::QueueFull { bytes, frames, .. }) => {
                assert!(bytes <= limits.bytes + (1 << 20) && frames <= limits.frames, "{bytes} {frames}");
                full_since.get_or_insert_with(Instant::now);
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(other) => panic!("{other}"),
        }
    }
    a.net.send(b.id, tagged(u32::MAX), Priority::Control).expect("bulk doesn't crowd out control");
    drop(open);
    let mut bulk = 0;
    let mut control = 0;
    while bulk < sent || control < 1 {
        match tag(&b.wait_frame(a.id)) {
            u32::MAX => control += 1,
            n => {
                assert_eq!(n, bulk, "every frame that was taken arrives, in order");
                bulk += 1;
            }
        }
    }
}

fn control_overtakes_waiting_bulk(world: &World) {
    let (mut b, open) = gated(world, 2);
    let mut a = world.peer(1);
    a.dial(&b);
    a.wait_up(b.id);
    b.wait_up(a.id);
    // More than the system's socket buffers hold.
    let payload = Arc::new(vec![1.0; 16 << 20]);
    for i in 0..4u32 {
        a.net.send(b.id, Frame::tensor(i.to_le_bytes().to_vec(), payload.clone()), Priority::Bulk).unwrap();
    }
    a.net.send(b.id, tagged(99), Priority::Control).unwrap();
    drop(open);
    let order: Vec<u32> = (0..5).map(|_| tag(&b.wait_frame(a.id))).collect();
    let bulk: Vec<u32> = order.iter().copied().filter(|t| *t != 99).collect();
    assert_eq!(bulk, [0, 1, 2, 3]);
    let place = order.iter().position(|t| *t == 99).unwrap();
    assert!(place <= 2, "the control frame came after {place} large ones: {order:?}");
}

fn wrong_secret_and_wrong_run(world: &World) {
    let mut a = world.peer(1);
    for (change, words) in [(0, "secret"), (1, "run")] {
        let mut other = config(2);
        if change == 0 {
            other.secret = RunSecret::new([6; 32]);
        } else {
            other.run = 78;
        }
        let mut b = world.peer_at(other, world.any_address());
        b.dial(&a);
        let (theirs, ours) = (b.wait_unreachable(), a.wait_refused());
        assert!(theirs.contains(words) && ours.contains(words), "{theirs} / {ours}");
        a.dial(&b);
        assert!(a.wait_unreachable().contains(words));
        assert_eq!((a.ups_and_downs(b.id), b.ups_and_downs(a.id)), ((0, 0), (0, 0)));
        a.net.disconnect(b.id);
    }
    let mut c = world.peer(3);
    c.dial(&a);
    a.wait_up(c.id);
    c.wait_up(a.id);
}

fn wrong_peer_and_self(world: &World) {
    let (mut a, b) = (world.peer(1), world.peer(2));
    a.net.connect(PeerId(9), &b.net.local_address());
    assert!(a.wait_unreachable().contains("isn't the peer") || a.brief().join("").contains("another peer"));
    a.net.connect(a.id, &a.net.local_address());
    assert!(a.wait_unreachable().contains("another peer"));
    assert_eq!(a.ups_and_downs(a.id), (0, 0));
}

fn heartbeats(world: &World) {
    let (mut a, b) = connected(world);
    for _ in 0..5 {
        a.wait("Heard", |event| match event {
            NetEvent::Heard { peer, round_trip, .. } => {
                assert_eq!(*peer, PeerId(2));
                assert!(*round_trip < Duration::from_secs(5));
                Some(())
            }
            _ => None,
        });
        assert!(a.net.silence(b.id).unwrap() < Duration::from_secs(5));
    }
    drop(b);
    a.wait_down(PeerId(2));
    assert_eq!(a.net.silence(PeerId(2)), None);
}

fn drop_delivers_what_was_queued(world: &World) {
    let (a, mut b) = connected(world);
    let payload = Arc::new(vec![2.5; 1 << 20]);
    for i in 0..8u32 {
        a.net.send(b.id, Frame::tensor(i.to_le_bytes().to_vec(), payload.clone()), Priority::Bulk).unwrap();
    }
    a.net.send(b.id, tagged(100), Priority::Control).unwrap();
    let start = Instant::now();
    drop(a);
    assert!(start.elapsed() < Duration::from_secs(3), "took {:?} to end", start.elapsed());
    let mut tags: Vec<u32> = (0..9).map(|_| tag(&b.wait_frame(PeerId(1)))).collect();
    tags.sort_unstable();
    assert_eq!(tags, [0, 1, 2, 3, 4, 5, 6, 7, 100]);
    assert_eq!(b.wait_down(PeerId(1)), "closed by the other end");
    let start = Instant::now();
    drop(b);
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?} to end with nothing to do", start.elapsed());
}

fn events_stay_in_order_under_churn(world: &World) {
    let (mut a, mut b) = connected(world);
    for round in 0..20 {
        for i in 0..20 {
            // Not connected is fine, here.
            drop(b.net.send(a.id, tagged(i), Priority::Bulk));
            drop(a.net.send(b.id, tagged(i), Priority::Control));
        }
        match round % 3 {
            0 => a.net.disconnect(b.id),
            1 => b.net.forbid(a.id),
            _ => b.net.disconnect(a.id),
        }
        b.dial(&a);
        a.dial(&b);
        a.settle(Duration::from_millis(5 * (round % 4)));
    }
    for (one, other) in [(&a, b.id), (&b, a.id)] {
        until("both are connected", || one.net.silence(other).is_some());
    }
    a.settle(Duration::from_millis(300));
    b.settle(Duration::from_millis(1));
    a.check_order();
    b.check_order();
    let (ups, downs) = a.ups_and_downs(b.id);
    assert!(ups == downs + 1 && ups > 1, "connected in the end: {ups} ups, {downs} downs");
}

fn answer_from_within_the_sink(world: &World) {
    let slot: Arc<OnceLock<Arc<dyn skipstone_net::Transport>>> = Arc::default();
    let for_sink = slot.clone();
    let echo = world.bind(config(2), world.any_address(), move |event| {
        if let NetEvent::Frame { peer, frame, .. } = event
            && let Some(net) = for_sink.get()
        {
            net.send(peer, frame, Priority::Control).unwrap();
        }
    });
    let echo: Arc<dyn skipstone_net::Transport> = Arc::from(echo.unwrap());
    assert!(slot.set(echo.clone()).is_ok());
    let mut a = world.peer(1);
    a.net.connect(PeerId(2), &echo.local_address());
    a.wait_up(PeerId(2));
    for i in 0..50 {
        a.net.send(PeerId(2), tagged(i), Priority::Control).unwrap();
        assert_eq!(tag(&a.wait_frame(PeerId(2))), i);
    }
}

fn occupied_address(world: &World) {
    let mut a = world.peer(1);
    let address = a.net.local_address();
    let error = world.bind(config(2), &address, |_| {}).err().expect("the address is taken").to_string();
    if let World::Tcp = world {
        let port = address.rsplit(':').next().unwrap();
        assert!(error.contains(port) && error.contains("choose another port"), "{error}");
        for bad in ["nonsense", "127.0.0.1", "127.0.0.1:99999", ""] {
            let error = world.bind(config(2), bad, |_| {}).err().expect("not an address").to_string();
            assert!(error.contains("IP:PORT"), "{error}");
        }
        a.net.connect(PeerId(5), "no port here");
        assert!(a.wait_unreachable().contains("HOST:PORT"));
    }
}
