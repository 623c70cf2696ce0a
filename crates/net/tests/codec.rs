//! The reader against arbitrary bytes: it never panics, and never takes more memory than its limits allow.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use skipstone_net::{
    Frame, Payload, Priority,
    wire::{Assembler, HEAD_LEN, Head, Incoming, Kind, Limits, PayloadKind, WireError, body_sum},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

const SEED: u64 = 42;
const LIMITS: Limits = Limits { header: 1 << 10, payload: 1 << 14 };

/// Notes the largest allocation of each thread.
struct Watch;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // While a thread ends there is nothing to note any more.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static WATCH: Watch = Watch;

/// Reads all records of a stream; also the largest single allocation that took.
fn read_all(mut bytes: &[u8]) -> (Vec<Incoming>, WireError, usize) {
    let mut assembler = Assembler::new(LIMITS, SEED);
    let mut got = Vec::with_capacity(64);
    LARGEST.set(0);
    loop {
        let result = {
            let mut reading = pin!(assembler.read(&mut bytes));
            match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => result,
                Poll::Pending => unreachable!("a slice is always ready"),
            }
        };
        match result {
            Ok(incoming) => got.push(incoming),
            Err(error) => return (got, error, LARGEST.get()),
        }
    }
}

/// Cuts a frame into records, as a sender does.
fn records(frame: &Frame, lane: Priority, chunk: usize) -> Vec<(Head, Vec<u8>)> {
    let payload = frame.payload.as_bytes();
    let pieces: Vec<&[u8]> = if payload.is_empty() { vec![&[]] } else { payload.chunks(chunk).collect() };
    let pieces = pieces.into_iter().enumerate().map(|(i, piece)| {
        let header: &[u8] = if i == 0 { &frame.header } else { &[] };
        let head = Head {
            kind: if i == 0 { Kind::First } else { Kind::More },
            lane,
            payload_kind: PayloadKind::of(&frame.payload),
            header_len: header.len() as u32,
            payload_len: payload.len() as u64,
            chunk_len: piece.len() as u32,
            sequence: 0,
            body_sum: body_sum(header, piece, SEED),
        };
        (head, [header, piece].concat())
    });
    pieces.collect()
}

/// Records one after the other, numbered.
fn stream(records: &[(Head, Vec<u8>)]) -> Vec<u8> {
    let numbered = records.iter().enumerate().flat_map(|(i, (head, body))| {
        let head = Head { sequence: i as u64, ..*head };
        [&head.encode(SEED)[..], body].concat()
    });
    numbered.collect()
}

fn frame() -> impl Strategy<Value = Frame> {
    let payload = prop_oneof![
        Just(Payload::Empty),
        prop::collection::vec(any::<u32>(), 0..600)
            .prop_map(|bits| Payload::F32(Arc::new(bits.into_iter().map(f32::from_bits).collect()))),
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(|bytes| Payload::Bytes(bytes.into())),
    ];
    (prop::collection::vec(any::<u8>(), 0..200), payload)
        .prop_map(|(header, payload)| Frame { header: header.into(), payload })
}

fn same(one: &Frame, other: &Frame) -> bool {
    one.header == other.header
        && std::mem::discriminant(&one.payload) == std::mem::discriminant(&other.payload)
        && one.payload.as_bytes() == other.payload.as_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_of_two_lanes_come_out_whole(
        control in frame(), bulk in frame(), chunk in 1usize..700, at in any::<prop::sample::Index>(),
    ) {
        let mut all = records(&bulk, Priority::Bulk, chunk);
        let urgent = records(&control, Priority::Control, chunk);
        let at = at.index(all.len() + 1);
        all.splice(at..at, urgent);
        let (got, end, _) = read_all(&stream(&all));
        prop_assert!(matches!(end, WireError::Closed), "{end}");
        let frames: Vec<_> = got.iter().filter_map(|incoming| match incoming {
            Incoming::Frame(lane, frame, _) => Some((*lane, frame)),
            _ => None,
        }).collect();
        prop_assert_eq!(frames.len(), 2);
        for (lane, frame) in frames {
            let sent = if lane == Priority::Control { &control } else { &bulk };
            prop_assert!(same(frame, sent));
        }
    }

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (got, _, largest) = read_all(&bytes);
        prop_assert!(got.is_empty());
        prop_assert!(largest < 1024, "{largest}");
    }

    /// The checksum of the head is right, all else is arbitrary: as bad as an authenticated peer can be.
    #[test]
    fn arbitrary_heads(
        fields in prop::collection::vec((0u8..7, 0u8..3, 0u8..4, prop_oneof![0u32..2000, any::<u32>()],
            prop_oneof![0u64..20000, any::<u64>()], prop_oneof![0u32..20000, any::<u32>()], any::<bool>()), 1..6),
        body in prop::collection::vec(any::<u8>(), 0..30000),
    ) {
        let mut bytes = Vec::new();
        for (i, (kind, lane, payload, header_len, payload_len, chunk_len, right)) in fields.into_iter().enumerate() {
            let mut head = [0; HEAD_LEN];
            (head[0], head[1], head[2]) = (kind, lane, payload);
            head[4..8].copy_from_slice(&header_len.to_le_bytes());
            head[8..16].copy_from_slice(&payload_len.to_le_bytes());
            head[16..20].copy_from_slice(&chunk_len.to_le_bytes());
            head[24] = i as u8;
            let (header_len, chunk_len) = (header_len as usize, chunk_len as usize);
            let body = &body[..body.len().min(header_len.saturating_add(chunk_len))];
            if right && body.len() >= header_len {
                let sum = body_sum(&body[..header_len], &body[header_len..], SEED);
                head[32..40].copy_from_slice(&sum.to_le_bytes());
            }
            let sum = twox_hash::XxHash3_64::oneshot_with_seed(SEED, &head[..40]);
            head[40..].copy_from_slice(&sum.to_le_bytes());
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(body);
        }
        let (_, _, largest) = read_all(&bytes);
        prop_assert!(largest <= LIMITS.payload, "took {largest} bytes at once");
    }

    #[test]
    fn any_altered_bit_is_noticed(frame in frame(), chunk in 1usize..700, place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = stream(&records(&frame, Priority::Bulk, chunk));
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let (got, end, _) = read_all(&bytes);
        prop_assert!(matches!(end, WireError::CorruptHead | WireError::CorruptBody), "{end}");
        prop_assert!(!got.iter().any(|incoming| matches!(incoming, Incoming::Frame(..))));
    }

    #[test]
    fn a_stream_cut_anywhere_is_truncated(frame in frame(), chunk in 1usize..700, place in any::<prop::sample::Index>()) {
        let bytes = stream(&records(&frame, Priority::Bulk, chunk));
        let place = 1 + place.index(bytes.len() - 1);
        let (got, end, _) = read_all(&bytes[..place]);
        prop_assert!(matches!(end, WireError::Truncated), "{end}");
        prop_assert!(!got.iter().any(|incoming| matches!(incoming, Incoming::Frame(..))));
    }

    #[test]
    fn records_out_of_order_are_noticed(frame in frame(), chunk in 1usize..700, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let mut all: Vec<Vec<u8>> = [0; 3]
            .into_iter()
            .flat_map(|_| records(&frame, Priority::Bulk, chunk))
            .enumerate()
            .map(|(i, (head, body))| [&Head { sequence: i as u64, ..head }.encode(SEED)[..], &body].concat())
            .collect();
        let a = a.index(all.len());
        let b = (a + 1 + b.index(all.len() - 1)) % all.len();
        all.swap(a, b);
        let (_, end, _) = read_all(&all.concat());
        prop_assert!(matches!(end, WireError::OutOfOrder { .. }), "{end}");
    }
}

#[test]
fn limits_are_exact() {
    let head = |header_len, payload_len, chunk_len| Head {
        kind: Kind::First,
        lane: Priority::Bulk,
        payload_kind: PayloadKind::Bytes,
        header_len,
        payload_len,
        chunk_len,
        sequence: 0,
        body_sum: 0,
    };
    let check = |head: Head| Head::decode(&head.encode(SEED), SEED, LIMITS);
    assert!(check(head(1 << 10, 1 << 14, 1)).is_ok());
    assert!(matches!(
        check(head((1 << 10) + 1, 0, 0)),
        Err(WireError::HeaderTooLong { bytes: 1025, limit: 1024 })
    ));
    assert!(matches!(check(head(0, (1 << 14) + 1, 1)), Err(WireError::PayloadTooLong { bytes: 16385, .. })));
    assert!(matches!(check(head(0, 100, 101)), Err(WireError::Malformed(_))));
    assert!(matches!(check(head(0, 100, 0)), Err(WireError::Malformed(_))));
    let odd = Head { payload_kind: PayloadKind::F32, ..head(0, 10, 10) };
    assert!(matches!(check(odd), Err(WireError::Malformed(_))));
    let empty = Head { payload_kind: PayloadKind::Empty, ..head(0, 8, 8) };
    assert!(matches!(check(empty), Err(WireError::Malformed(_))));
}
