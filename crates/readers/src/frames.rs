//! Records of a connection, put together to frames (`skipstone-net`, `wire`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, within};
use skipstone_net::wire::{
    Assembler, HEAD_LEN, Head, Incoming, Kind, Limits, PayloadKind, WireError, body_sum,
};
use skipstone_net::{Frame, Payload, Priority};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Seeds the checksums.
const SEED: u64 = 42;
/// What the reader takes: less than a run does, so that a frame over a limit is small.
const LIMITS: Limits = Limits { header: 1 << 12, payload: 1 << 16 };

/// One unfinished frame a lane and the frames that were finished, whose bytes came in; a few words a record.
fn memory_max(input: usize) -> usize {
    2 * (LIMITS.header + LIMITS.payload) + 16 * input + (4 << 10)
}

pub(crate) const READER: Reader = Reader {
    name: "frames",
    what: "records of a peer, put together to frames",
    text: false,
    memory_max,
    read,
    mend: Some(mend),
    seeds,
};

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let (frames, end) = within(memory_max(bytes.len()), bytes, || assemble(bytes))?;
    let written = stream(&frames, 1000);
    let (again, end_again) = assemble(&written);
    if !matches!(end_again, WireError::Closed) {
        return Err(lost(end_again));
    }
    let plain = |frames: &[(Priority, Frame)]| -> Vec<_> {
        let bytes = |frame: &Frame| (frame.header.to_vec(), frame.payload.as_bytes().to_vec());
        frames.iter().map(|(lane, frame)| (*lane, PayloadKind::of(&frame.payload), bytes(frame))).collect()
    };
    same(&plain(&frames), &plain(&again))?;
    if matches!(end, WireError::Closed) { Ok(Verdict::Taken) } else { refused(end) }
}

/// All frames of a stream, and why it ended.
fn assemble(mut bytes: &[u8]) -> (Vec<(Priority, Frame)>, WireError) {
    let mut assembler = Assembler::new(LIMITS, SEED);
    let mut frames = Vec::new();
    loop {
        let mut reading = pin!(assembler.read(&mut bytes));
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Incoming::Frame(lane, frame, _))) => frames.push((lane, frame)),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(end)) => return (frames, end),
            // A slice is always ready.
            Poll::Pending => return (frames, WireError::Truncated),
        }
    }
}

/// The records of frames, one frame after the other, payloads in pieces of `chunk` bytes.
fn stream(frames: &[(Priority, Frame)], chunk: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sequence = 0;
    for (lane, frame) in frames {
        let payload = frame.payload.as_bytes();
        let pieces: Vec<&[u8]> = if payload.is_empty() { vec![&[]] } else { payload.chunks(chunk).collect() };
        for (index, piece) in pieces.into_iter().enumerate() {
            let header: &[u8] = if index == 0 { &frame.header } else { &[] };
            let head = Head {
                kind: if index == 0 { Kind::First } else { Kind::More },
                lane: *lane,
                payload_kind: PayloadKind::of(&frame.payload),
                header_len: header.len() as u32,
                payload_len: payload.len() as u64,
                chunk_len: piece.len() as u32,
                sequence,
                body_sum: body_sum(header, piece, SEED),
            };
            sequence += 1;
            out.extend([&head.encode(SEED)[..], header, piece].concat());
        }
    }
    out
}

/// Numbers the records, and makes both checksums right wherever a head lies. A head whose lengths pass the end of the
/// input keeps them.
fn mend(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let (mut at, mut sequence) = (0, 0_u64);
    while at + HEAD_LEN <= out.len() {
        let half =
            |from: usize| u32::from_le_bytes(std::array::from_fn(|index| out[at + from + index])) as usize;
        let (header_len, chunk_len) = (half(4), half(16));
        let body = at + HEAD_LEN;
        let header_end = (body.saturating_add(header_len)).min(out.len());
        let end = (header_end.saturating_add(chunk_len)).min(out.len());
        let sum = body_sum(&out[body..header_end], &out[header_end..end], SEED);
        out[at + 24..at + 32].copy_from_slice(&sequence.to_le_bytes());
        out[at + 32..at + 40].copy_from_slice(&sum.to_le_bytes());
        // A body without a piece has the plain checksum of its header: the one that a head has over itself.
        let head_sum = body_sum(&out[at..at + 40], &[], SEED);
        out[at + 40..at + 48].copy_from_slice(&head_sum.to_le_bytes());
        sequence += 1;
        at = end;
    }
    out
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let floats = |count: u16| Arc::new((0..count).map(f32::from).collect::<Vec<_>>());
    let small = Frame::message(&b"a header"[..]);
    let tensor = Frame::tensor(&b"gradient"[..], floats(700));
    let text = Frame { header: (&b""[..]).into(), payload: Payload::Bytes((&b"some text"[..]).into()) };
    let empty = Frame { header: (&b""[..]).into(), payload: Payload::Empty };
    let mut beats = Head::bare(Kind::Ping(7), 0, SEED).encode(SEED).to_vec();
    beats.extend(Head::bare(Kind::Pong(7), 1, SEED).encode(SEED));
    beats.extend(Head::bare(Kind::Goodbye, 2, SEED).encode(SEED));
    let stream = |frames: &[(Priority, Frame)]| stream(frames, 1024);
    Ok(vec![
        ("message".to_owned(), stream(&[(Priority::Control, small.clone())])),
        ("tensor-in-pieces".to_owned(), stream(&[(Priority::Bulk, tensor)])),
        ("two-lanes".to_owned(), stream(&[(Priority::Bulk, text), (Priority::Control, small)])),
        ("empty".to_owned(), stream(&[(Priority::Control, empty)])),
        ("heartbeats".to_owned(), beats),
    ])
}
