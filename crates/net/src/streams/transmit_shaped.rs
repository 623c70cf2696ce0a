//! The sending half of a connection on a shaped link.

use super::{
    delay::{DelayLine, Parcel},
    duct::Writer,
    faults::CutDirection,
    link::Link,
    shared::Shared,
    transmit::{Encoder, write_both},
};
use crate::{LinkShape, Priority, wire::Kind};
use std::{io, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    time::{self, Instant},
};

/// A tensor arrives in pieces of so much time, so that a receiver sees for how long it was under way.
const PIECE_TIME: Duration = Duration::from_millis(20);
/// No piece is smaller.
const PIECE_BYTES_MIN: usize = 32 << 10;

/// As [`transmit`](super::transmit::transmit), but everything is written when it is to arrive.
pub(crate) async fn transmit_shaped(
    mut stream: Writer,
    link: &Link,
    preamble: &[u8],
    shape: LinkShape,
    shared: &Shared,
) -> io::Result<()> {
    let heartbeat = shared.config.heartbeat_interval;
    let per_piece = (shape.bandwidth_bytes_per_s * PIECE_TIME.as_secs_f64()).min(1e12) as usize;
    let chunk = per_piece.max(PIECE_BYTES_MIN).min(shared.config.chunk.max(4 << 10));
    let unsteady = shape.unsteady.map(|unsteady| unsteady.between(shared.config.id.0, link.peer().0));
    let mut line = DelayLine::new(LinkShape { unsteady, ..shape });
    let mut next_ping = Instant::now();
    let mut encoder = Encoder::new(preamble, link.who.seeds.outgoing);
    loop {
        shared.cuts.whole(link.peer(), CutDirection::Outgoing).await;
        let now = Instant::now();
        if now >= next_ping {
            next_ping = now + heartbeat;
            line.send(Parcel::Bare(Kind::Ping(link.now())), now);
        }
        if let Some(token) = link.take_pong() {
            line.send(Parcel::Bare(Kind::Pong(token)), now);
        }
        while let Some(piece) = link.queue.pop(&Priority::ALL, chunk) {
            line.send(Parcel::Piece(piece), now);
        }
        if let Some(parcel) = line.arrived(now) {
            write(&mut stream, link, &mut encoder, &parcel).await?;
            continue;
        }
        if !encoder.out.is_empty() {
            stream.write_all(&encoder.out).await?;
            encoder.out.clear();
        }
        if link.is_closing() && link.queue.is_empty(&Priority::ALL) && line.is_empty() {
            encoder.bare(Kind::Goodbye);
            stream.write_all(&encoder.out).await?;
            return stream.shutdown().await;
        }
        let wake = line.next().map_or(next_ping, |next| next.min(next_ping));
        tokio::select! {
            () = link.work(&Priority::ALL) => {}
            () = time::sleep_until(wake) => {}
        }
    }
}

async fn write(stream: &mut Writer, link: &Link, encoder: &mut Encoder, parcel: &Parcel) -> io::Result<()> {
    let tail = match parcel {
        Parcel::Bare(kind) => {
            encoder.bare(*kind);
            &[][..]
        }
        Parcel::Piece(piece) => {
            encoder.piece(piece);
            piece.bytes()
        }
    };
    if link.take_corruption() {
        let middle = encoder.out.len() / 2;
        encoder.out[middle] ^= 0x20;
    }
    write_both(stream, &encoder.out, tail).await?;
    encoder.out.clear();
    if let Parcel::Piece(piece) = parcel {
        link.queue.written(piece);
    }
    Ok(())
}
