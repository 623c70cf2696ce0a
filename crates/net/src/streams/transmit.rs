//! The sending half of a connection.

use super::{duct::Writer, faults::CutDirection, link::Link, shared::Shared};
use crate::{
    Priority,
    queue::Piece,
    wire::{Head, Kind, MAX_CHUNK, PayloadKind, body_sum},
};
use std::{io, io::IoSlice};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::{self, Instant},
};

/// Pieces up to this size are copied together into one write.
const SMALL: usize = 4 << 10;
/// …until so much is together.
const GATHER: usize = 64 << 10;

/// Writes `preamble`, then what is queued in the lanes `of`, with heartbeats in between where control frames are among
/// them. Ends well once the link is closing and everything has been written.
pub(crate) async fn transmit(
    mut stream: Writer,
    link: &Link,
    preamble: &[u8],
    of: &[Priority],
    seed: u64,
    shared: &Shared,
) -> io::Result<()> {
    let beats = of.contains(&Priority::Control);
    let (heartbeat, chunk) = (shared.config.heartbeat_interval, shared.config.chunk);
    let chunk = chunk.clamp(4 << 10, MAX_CHUNK as usize);
    let mut next_ping = Instant::now();
    let mut encoder = Encoder::new(preamble, seed);
    let mut small = Vec::new();
    loop {
        shared.cuts.whole(link.peer(), CutDirection::Outgoing).await;
        // Looked at before every write: a long queue must not keep heartbeats waiting.
        let now = Instant::now();
        if beats && now >= next_ping {
            next_ping = now + heartbeat;
            encoder.bare(Kind::Ping(link.now()));
        }
        if beats && let Some(token) = link.take_pong() {
            encoder.bare(Kind::Pong(token));
        }
        let mut large = None;
        while encoder.out.len() < GATHER
            && let Some(piece) = link.queue.pop(of, chunk)
        {
            encoder.piece(&piece);
            if piece.bytes().len() > SMALL {
                large = Some(piece);
                break;
            }
            encoder.out.extend_from_slice(piece.bytes());
            small.push(piece);
        }
        if !encoder.out.is_empty() {
            if link.take_corruption() {
                let middle = encoder.out.len() / 2;
                encoder.out[middle] ^= 0x20;
            }
            let tail = large.as_ref().map_or(&[][..], Piece::bytes);
            write_both(&mut stream, &encoder.out, tail).await?;
            encoder.out.clear();
            for piece in small.drain(..).chain(large) {
                link.queue.written(&piece);
            }
            continue;
        }
        if link.is_closing() && link.queue.is_empty(of) {
            encoder.bare(Kind::Goodbye);
            stream.write_all(&encoder.out).await?;
            return stream.shutdown().await;
        }
        tokio::select! {
            () = link.work(of) => {}
            () = time::sleep_until(next_ping), if beats => {}
        }
    }
}

/// Builds records.
pub(super) struct Encoder {
    /// What has been built and not yet written.
    pub(super) out: Vec<u8>,
    seed: u64,
    sequence: u64,
}

impl Encoder {
    pub(super) fn new(preamble: &[u8], seed: u64) -> Self {
        Self { out: preamble.to_vec(), seed, sequence: 0 }
    }

    pub(super) fn bare(&mut self, kind: Kind) {
        self.push(&Head::bare(kind, 0, self.seed));
    }

    /// Head and header of a record; the payload follows.
    pub(super) fn piece(&mut self, piece: &Piece) {
        let header: &[u8] = if piece.is_first() { &piece.frame.header } else { &[] };
        self.push(&Head {
            kind: if piece.is_first() { Kind::First } else { Kind::More },
            lane: piece.lane,
            payload_kind: PayloadKind::of(&piece.frame.payload),
            header_len: header.len() as u32,
            payload_len: piece.frame.payload.len() as u64,
            chunk_len: piece.bytes().len() as u32,
            sequence: 0,
            body_sum: body_sum(header, piece.bytes(), self.seed),
        });
        self.out.extend_from_slice(header);
    }

    fn push(&mut self, head: &Head) {
        let head = Head { sequence: self.sequence, ..*head };
        self.sequence += 1;
        self.out.extend_from_slice(&head.encode(self.seed));
    }
}

/// Writes two slices as one.
pub(super) async fn write_both<W: AsyncWrite + Unpin>(
    stream: &mut W,
    first: &[u8],
    second: &[u8],
) -> io::Result<()> {
    let mut slices = [IoSlice::new(first), IoSlice::new(second)];
    let mut slices = &mut slices[..];
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let written = stream.write_vectored(slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}
