//! From a byte stream to a connection: who is at the other end, and whether this one is kept.

use super::{faults::CutDirection, link::Link, shared::Shared, table::Judge};
use crate::{
    PeerId,
    wire::{
        Refusal,
        handshake::{self, outcome, read_outcome},
    },
};
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::Mutex,
};

/// A connection that is kept.
pub(crate) struct Settled {
    pub(crate) link: Arc<Link>,
    /// Held while its events are told.
    pub(crate) turn: Arc<Mutex<()>>,
    /// To be sent before anything else.
    pub(crate) preamble: Vec<u8>,
}

/// The part of the side that was dialled. `claimed` tells whom the other says it is, as soon as that is known.
pub(crate) async fn as_listener<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut S,
    claimed: &mut Option<PeerId>,
) -> Result<Settled, Refusal> {
    let who = handshake::accept(stream, shared.myself(), claimed).await?;
    shared.cuts.whole(who.peer, CutDirection::Both).await;
    let connection = shared.next_connection();
    let we_judge = shared.config.id < who.peer;
    let number = if we_judge {
        connection
    } else {
        let admitted = shared.table.admits(who.peer);
        stream.write_all(&outcome(admitted.as_ref().map(|()| 0))).await.map_err(Refusal::io)?;
        admitted?;
        read_outcome(stream).await?
    };
    let link = Arc::new(Link::new(who, connection, number, &shared.config));
    let judge = if we_judge { Judge::Listener } else { Judge::Peer };
    install(shared, stream, link, judge, number).await
}

/// The part of the side that dials. A connection that is `held` stays if the same life of the peer is at its other end.
pub(crate) async fn as_dialler<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut S,
    peer: PeerId,
    held: Option<&Link>,
) -> Result<Settled, Refusal> {
    let held = held.map(|link| link.who.incarnation);
    let who = handshake::dial(stream, shared.myself(), peer, held).await?;
    let connection = shared.next_connection();
    let accepted = read_outcome(stream).await?;
    let we_judge = shared.config.id < peer;
    let (judge, number) = if we_judge { (Judge::Dialler, connection) } else { (Judge::Peer, accepted) };
    let link = Arc::new(Link::new(who, connection, number, &shared.config));
    install(shared, stream, link, judge, number).await
}

async fn install<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut S,
    link: Arc<Link>,
    judge: Judge,
    number: u64,
) -> Result<Settled, Refusal> {
    let we_judge = judge != Judge::Peer;
    match shared.table.install(&link, judge) {
        Ok(turn) => {
            let preamble = if we_judge { outcome(Ok(number)).to_vec() } else { Vec::new() };
            Ok(Settled { link, turn, preamble })
        }
        Err(refusal) => {
            if we_judge {
                stream.write_all(&outcome(Err(&refusal))).await.map_err(Refusal::io)?;
            }
            Err(refusal)
        }
    }
}
