//! Connections that others make over the internet.

use super::{Door, FRAMES, REQUESTS, requests};
use crate::streams::{
    accept::tell_refusal,
    duct::{Duct, Ducts},
    life::{Origin, run_link},
    link::Link,
    settle::{Settled, as_listener},
    shared::Shared,
};
use crate::{PeerId, PeerKey, wire::Refusal};
use iroh::Endpoint;
use iroh::endpoint::{Accepting, Connection, Incoming, RecvStream, SendStream};
use std::{io, sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt, sync::OwnedSemaphorePermit, sync::Semaphore, time};

/// The first byte of a bulk stream: a stream that carries nothing yet is not seen by the other end.
pub(super) const BULK: u8 = 0xb1;

/// Tells why a connection is closed.
const TURNED_AWAY: u32 = 1;

/// How long the last word may take to arrive.
const LAST_WORD: Duration = Duration::from_secs(1);

/// At most so many known connections ask something at once, and so many strangers.
const ASKING_MAX: [usize; 2] = [1024, 64];

/// Accepts until the endpoint is closed. Each connection proves itself in a task of its own.
pub(crate) async fn accept_loop(shared: Arc<Shared>, endpoint: Endpoint, door: Door) {
    let unproven = Arc::new(Semaphore::new(shared.config.max_unauthenticated.max(1)));
    let asking = ASKING_MAX.map(|most| Arc::new(Semaphore::new(most)));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = unproven.clone().try_acquire_owned() else {
            // Whoever floods us is made to show that its address is its own, and then turned away.
            if incoming.remote_addr_validated() {
                incoming.refuse();
            } else {
                drop(incoming.retry());
            }
            continue;
        };
        tokio::spawn(admit(shared.clone(), door.clone(), incoming, permit, asking.clone()));
    }
}

async fn admit(
    shared: Arc<Shared>,
    door: Door,
    incoming: Incoming,
    permit: OwnedSemaphorePermit,
    asking: [Arc<Semaphore>; 2],
) {
    let mut claimed = None;
    let mut address = format!("{:?}", incoming.remote_addr());
    let Ok(accepting) = incoming.accept() else { return };
    let proving = async {
        let (connection, frames) = greet(accepting).await?;
        address = format!("iroh:{}", connection.remote_id().fmt_short());
        if frames {
            return prove(&shared, &door, connection, &mut claimed).await.map(|()| None);
        }
        Ok(Some(connection))
    };
    let result = time::timeout(shared.config.handshake_timeout, proving).await;
    drop(permit);
    match result.unwrap_or(Err(Refusal::TimedOut)) {
        Ok(None) => {}
        Ok(Some(connection)) => {
            let Some(handler) = door.requests else { return };
            let from = PeerKey(*connection.remote_id().as_bytes());
            let [known, strangers] = asking;
            let room = if requests::is_stranger(&*handler, &from) { strangers } else { known };
            match room.try_acquire_owned() {
                Ok(_permit) => requests::serve(connection, handler).await,
                Err(_) => connection.close(TURNED_AWAY.into(), b"busy"),
            }
        }
        Err(refusal) => tell_refusal(&shared, Err(refusal), address, claimed),
    }
}

/// The QUIC handshake; whether frames are to come.
async fn greet(mut accepting: Accepting) -> Result<(Connection, bool), Refusal> {
    let broken = |why: String| Refusal::Io(io::Error::new(io::ErrorKind::ConnectionAborted, why));
    let protocol = accepting.alpn().await.map_err(|why| broken(why.to_string()))?;
    let connection = accepting.await.map_err(|why| broken(why.to_string()))?;
    match protocol.as_slice() {
        FRAMES => Ok((connection, true)),
        REQUESTS => Ok((connection, false)),
        _ => Err(Refusal::NotSkipstone),
    }
}

/// Our handshake; if it succeeds, the connection lives on in a task of its own.
async fn prove(
    shared: &Arc<Shared>,
    door: &Door,
    connection: Connection,
    claimed: &mut Option<PeerId>,
) -> Result<(), Refusal> {
    let key = PeerKey(*connection.remote_id().as_bytes());
    if !(door.admits)(&key) {
        connection.close(TURNED_AWAY.into(), b"not admitted");
        return Err(Refusal::Forbidden);
    }
    let lost = |why: iroh::endpoint::ConnectionError| Refusal::Io(io::Error::from(why));
    let (send, receive) = connection.accept_bi().await.map_err(lost)?;
    let (bulk_send, mut bulk_receive) = connection.accept_bi().await.map_err(lost)?;
    if bulk_receive.read_u8().await.map_err(Refusal::io)? != BULK {
        return Err(Refusal::NotSkipstone);
    }
    let mut stream = tokio::io::join(receive, send);
    let settled = as_listener(shared, &mut stream, claimed).await;
    let (receive, send) = stream.into_inner();
    keep(shared, key, Streams { connection, send, receive, bulk_send, bulk_receive }, settled).map(drop)
}

/// An iroh connection and its two streams.
pub(super) struct Streams {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    pub(super) bulk_send: SendStream,
    pub(super) bulk_receive: RecvStream,
}

/// After our handshake with the owner of `key`: the connection lives on in a task of its own, or ends.
pub(super) fn keep(
    shared: &Arc<Shared>,
    key: PeerKey,
    streams: Streams,
    settled: Result<Settled, Refusal>,
) -> Result<Arc<Link>, Refusal> {
    let Streams { connection, send, receive, bulk_send, bulk_receive } = streams;
    let settled = match settled {
        Ok(settled) => settled,
        Err(refusal) => {
            tokio::spawn(part(connection, send));
            return Err(refusal);
        }
    };
    // Control frames before bulk ones; a stream that is closed already has nothing to put first.
    let _ = send.set_priority(1);
    let ducts = Ducts {
        control: Duct { read: Box::new(receive), write: Box::new(send) },
        bulk: Some(Duct { read: Box::new(bulk_receive), write: Box::new(bulk_send) }),
        _keep: Some(Box::new(connection)),
    };
    let (link, origin) = (settled.link.clone(), Origin { address: format!("iroh:{key}"), key: Some(key) });
    tokio::spawn(run_link(shared.clone(), settled, ducts, origin));
    Ok(link)
}

/// Ends a connection that is not kept, once the other end has been told why: closing it throws away what is under way.
async fn part(connection: Connection, mut send: SendStream) {
    if send.finish().is_ok() {
        drop(time::timeout(LAST_WORD, send.stopped()).await);
    }
    connection.close(TURNED_AWAY.into(), b"not kept");
}
