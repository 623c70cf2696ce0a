//! Connections that we make.

use super::{
    backoff::Backoff, duct::Ducts, faults::CutDirection, life::run_link, link::Link, shared::Shared,
    socket_for, table::Judge,
};
use crate::{
    NetEvent, PeerId,
    wire::{
        Refusal,
        handshake::{self, outcome, read_outcome},
    },
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, lookup_host},
    time,
};

/// A connection that lived so long was a good one: the next pause is short again.
const GOOD: Duration = Duration::from_secs(1);

/// Keeps a connection to `peer` up, until it is aborted or the peer isn't wanted any more.
pub(crate) async fn dial_loop(shared: Arc<Shared>, peer: PeerId) {
    let mut backoff = Backoff::new(shared.config.backoff_min, shared.config.backoff_max);
    let mut told = String::new();
    while let Some(address) = shared.table.address(peer) {
        let link = match shared.table.link(peer) {
            Some(link) => Ok(link),
            None => dial_in_time(&shared, peer, &address).await,
        };
        match link {
            Ok(link) => {
                link.ended().await;
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

/// One try, bounded in time.
async fn dial_in_time(shared: &Arc<Shared>, peer: PeerId, address: &str) -> Result<Arc<Link>, Refusal> {
    let dialling = dial(shared, peer, address);
    let connecting = shared.shape(peer).map_or(Duration::ZERO, |shape| shape.connecting());
    time::sleep(connecting).await;
    time::timeout(shared.config.handshake_timeout, dialling).await.unwrap_or(Err(Refusal::TimedOut))
}

/// One try. On success the connection lives on in a task of its own.
async fn dial(shared: &Arc<Shared>, peer: PeerId, address: &str) -> Result<Arc<Link>, Refusal> {
    if peer == shared.config.id {
        return Err(Refusal::WrongPeer);
    }
    shared.cuts.whole(peer, CutDirection::Both).await;
    let mut stream = open(address, shared.config.socket_buffer).await.map_err(Refusal::Io)?;
    stream.set_nodelay(true).map_err(Refusal::io)?;
    let who = handshake::dial(&mut stream, shared.myself(), peer).await?;
    let connection = shared.next_connection();
    let accepted = read_outcome(&mut stream).await?;
    let we_judge = shared.config.id < peer;
    let (judge, number) = if we_judge { (Judge::Dialler, connection) } else { (Judge::Peer, accepted) };
    let link = Arc::new(Link::new(who, connection, number, &shared.config));
    match shared.table.install(&link, judge) {
        Ok(turn) => {
            let preamble = if we_judge { outcome(Ok(number)).to_vec() } else { Vec::new() };
            tokio::spawn(run_link(
                shared.clone(),
                link.clone(),
                turn,
                Ducts::single(stream),
                preamble,
                address.to_owned(),
            ));
            Ok(link)
        }
        Err(refusal) => {
            if we_judge {
                stream.write_all(&outcome(Err(&refusal))).await.map_err(Refusal::io)?;
            }
            Err(refusal)
        }
    }
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
