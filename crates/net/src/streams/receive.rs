//! The receiving half of a connection.

use super::{duct::Reader, faults::CutDirection, link::Link, shared::Shared};
use crate::{
    NetEvent,
    wire::{Assembler, Incoming, Limits, WireError},
};
use std::time::{Duration, Instant};
use tokio::io::BufReader;

/// Large pieces bypass this buffer, so it is small.
const BUFFER: usize = 8 << 10;

/// Why nothing more comes from a stream.
pub(crate) enum Ended {
    /// The other end has said that it is done.
    Goodbye,
    /// Anything else, for people.
    Broken(String),
}

/// Hands out what comes, until the stream ends.
pub(crate) async fn receive(stream: Reader, seed: u64, link: &Link, shared: &Shared) -> Ended {
    let limits = Limits { header: shared.config.max_header, payload: shared.config.max_payload };
    let mut assembler = Assembler::new(limits, seed);
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    let (peer, connection) = (link.peer(), link.connection);
    let pause = shared.config.heartbeat_interval / 2;
    let mut told: Option<Instant> = None;
    loop {
        let incoming = match assembler.read(&mut stream).await {
            Ok(incoming) => incoming,
            Err(WireError::Closed) => return Ended::Broken("the other end is gone".to_owned()),
            Err(error) => return Ended::Broken(error.to_string()),
        };
        shared.cuts.whole(peer, CutDirection::Incoming).await;
        link.heard();
        match incoming {
            Incoming::Piece => {}
            Incoming::Frame(_, frame, receiving) => {
                shared.emit(NetEvent::Frame { peer, connection, frame, receiving });
            }
            Incoming::Ping(token) => link.answer(token),
            Incoming::Pong(token) => {
                if told.is_none_or(|last| last.elapsed() >= pause) {
                    told = Some(Instant::now());
                    let round_trip = Duration::from_micros(link.now().saturating_sub(token));
                    shared.emit(NetEvent::Heard { peer, connection, round_trip });
                }
            }
            Incoming::Goodbye => return Ended::Goodbye,
        }
    }
}
