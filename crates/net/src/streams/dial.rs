//! Connections that we make.

use super::{
    backoff::Backoff,
    duct::Ducts,
    faults::CutDirection,
    life::{Origin, run_link},
    link::{Close, Link},
    settle::as_dialler,
    shared::Shared,
    socket_for,
};
use crate::{NetEvent, PeerId, Reach, ReachError, wire::Refusal};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpStream, lookup_host},
    time,
};

/// A connection that lived so long was a good one: the next pause is short again.
const GOOD: Duration = Duration::from_secs(1);

/// A peer on another machine from which nothing came for so long, heartbeats included, is dialled beside the connection: where
/// its process has died, no system says so, and its successor would wait for us until the connection is given up.
const SILENT: Duration = Duration::from_secs(2);

/// Keeps a connection to `peer` up, until it is aborted or the peer isn't wanted any more.
pub(crate) async fn dial_loop(shared: Arc<Shared>, peer: PeerId) {
    let mut backoff = Backoff::new(shared.config.backoff_min, shared.config.backoff_max);
    let mut told = String::new();
    while let Some(address) = shared.table.address(peer) {
        let link = match shared.table.link(peer) {
            Some(link) => Ok(link),
            None => dial_in_time(&shared, peer, &address, None).await,
        };
        match link {
            Ok(link) => {
                outlive(&shared, peer, &address, &link).await;
                told.clear();
                if link.born.elapsed() > GOOD {
                    backoff.reset();
                }
            }
            // The other connection serves, or will in a moment.
            Err(Refusal::Duplicate) => {}
            Err(_) if shared.table.link(peer).is_some() => continue,
            Err(refusal) => {
                let why = refusal.to_string();
                if why != told {
                    told.clone_from(&why);
                    shared.emit(NetEvent::Unreachable { peer, address, why });
                }
            }
        }
        time::sleep(backoff.pause()).await;
    }
}

/// Waits for the end of a connection, and makes it end if another process answers in the peer's place.
async fn outlive(shared: &Arc<Shared>, peer: PeerId, address: &str, link: &Arc<Link>) {
    if !far(shared, address) {
        return link.ended().await;
    }
    loop {
        tokio::select! {
            () = link.ended() => return,
            () = silent(link) => {}
        }
        match dial_in_time(shared, peer, address, Some(link)).await {
            // The new connection has told this one to close.
            Ok(_) => return link.ended().await,
            Err(refusal) if refusal.of_another_life() => {
                link.close(Close::Now("another process answers in its place"));
                return link.ended().await;
            }
            // It lives and is slow, or can't be reached just now.
            Err(_) => {}
        }
    }
}

/// Waits until a peer has been silent at several looks in a row: whoever stood still itself has not read yet what came.
async fn silent(link: &Link) {
    let mut looks = 0;
    while looks < 3 {
        time::sleep(SILENT / 10).await;
        looks = if link.silence() > SILENT { looks + 1 } else { 0 };
    }
}

/// One try, bounded in time.
async fn dial_in_time(
    shared: &Arc<Shared>,
    peer: PeerId,
    address: &str,
    held: Option<&Link>,
) -> Result<Arc<Link>, Refusal> {
    let dialling = dial(shared, peer, address, held);
    let connecting = shared.shape(peer).map_or(Duration::ZERO, |shape| shape.connecting());
    time::sleep(connecting).await;
    time::timeout(shared.config.handshake_timeout, dialling).await.unwrap_or(Err(Refusal::TimedOut))
}

/// Whether the way to this address leads to another machine.
fn far(shared: &Shared, address: &str) -> bool {
    address.parse::<Reach>().is_ok_and(|reach| reach.internet.is_some() && !near(shared, &reach))
}

/// Whether a process can be reached over loopback.
fn near(shared: &Shared, reach: &Reach) -> bool {
    reach.tcp.as_ref().is_some_and(|(machine, _)| *machine == 0 || *machine == shared.config.machine)
}

/// One try. On success the connection lives on in a task of its own.
async fn dial(
    shared: &Arc<Shared>,
    peer: PeerId,
    address: &str,
    held: Option<&Link>,
) -> Result<Arc<Link>, Refusal> {
    if peer == shared.config.id {
        return Err(Refusal::WrongPeer);
    }
    let unreachable = |why: String| Refusal::Io(io::Error::new(io::ErrorKind::AddrNotAvailable, why));
    let reach: Reach = address.parse().map_err(|why: ReachError| unreachable(why.to_string()))?;
    shared.cuts.whole(peer, CutDirection::Both).await;
    match &reach {
        Reach { tcp: Some((_, address)), .. } if near(shared, &reach) => {
            dial_tcp(shared, peer, address, held).await
        }
        #[cfg(feature = "iroh")]
        Reach { internet: Some(reach), .. } => crate::internet::dial(shared, peer, reach, held).await,
        _ => Err(unreachable("it is on another machine, and gives no way to it".to_owned())),
    }
}

async fn dial_tcp(
    shared: &Arc<Shared>,
    peer: PeerId,
    address: &str,
    held: Option<&Link>,
) -> Result<Arc<Link>, Refusal> {
    let mut stream = open(address, shared.config.socket_buffer).await.map_err(Refusal::Io)?;
    stream.set_nodelay(true).map_err(Refusal::io)?;
    let settled = as_dialler(shared, &mut stream, peer, held).await?;
    let link = settled.link.clone();
    let origin = Origin { address: address.to_owned(), key: None };
    tokio::spawn(run_link(shared.clone(), settled, Ducts::single(stream), origin));
    Ok(link)
}

/// Connects to the first of a name's addresses that answers.
async fn open(address: &str, buffer: Option<u32>) -> io::Result<TcpStream> {
    let name = |source: io::Error| {
        io::Error::new(
            source.kind(),
            format!("'{address}' can't be resolved (write it as HOST:PORT): {source}"),
        )
    };
    let mut last = None;
    for target in lookup_host(address).await.map_err(name)? {
        match socket_for(target, buffer)?.connect(target).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| name(io::ErrorKind::NotFound.into())))
}
