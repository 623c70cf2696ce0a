//! Connections that others make.

use super::{duct::Ducts, faults::CutDirection, life::run_link, link::Link, shared::Shared, table::Judge};
use crate::{
    NetEvent, PeerId,
    wire::{
        Refusal,
        handshake::{self, outcome, read_outcome},
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};

/// Accepts until it is aborted. Each connection proves itself in a task of its own.
pub(crate) async fn accept_loop(shared: Arc<Shared>, listener: TcpListener) {
    let unproven = Arc::new(Semaphore::new(shared.config.max_unauthenticated.max(1)));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a connection that died in the queue. Neither is a reason to stop.
                let why = format!("can't accept a connection: {error}");
                let address = shared.address.clone();
                shared.emit_refusal(NetEvent::Refused { address, claimed: None, why });
                time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let shared = shared.clone();
        let permit = unproven.clone().try_acquire_owned();
        let address = address.to_string();
        let Ok(permit) = permit else {
            let why = Refusal::Busy.to_string();
            shared.emit_refusal(NetEvent::Refused { address, claimed: None, why });
            continue;
        };
        tokio::spawn(async move {
            let mut claimed = None;
            let proving = prove(&shared, stream, &address, &mut claimed);
            let result = match time::timeout(shared.config.handshake_timeout, proving).await {
                Ok(result) => result,
                Err(_) => Err(Refusal::TimedOut),
            };
            drop(permit);
            // A duplicate is refused in the ordinary course of things.
            if let Err(refusal) = result
                && !matches!(refusal, Refusal::Duplicate | Refusal::Closing)
            {
                let why = refusal.to_string();
                shared.emit_refusal(NetEvent::Refused { address, claimed, why });
            }
        });
    }
}

/// The handshake; if it succeeds, the connection lives on in a task of its own.
async fn prove(
    shared: &Arc<Shared>,
    mut stream: TcpStream,
    address: &str,
    claimed: &mut Option<PeerId>,
) -> Result<(), Refusal> {
    stream.set_nodelay(true).map_err(Refusal::io)?;
    let who = handshake::accept(&mut stream, shared.myself(), claimed).await?;
    shared.cuts.whole(who.peer, CutDirection::Both).await;
    let connection = shared.next_connection();
    let we_judge = shared.config.id < who.peer;
    let number = if we_judge {
        connection
    } else {
        let admitted = shared.table.admits(who.peer);
        stream.write_all(&outcome(admitted.as_ref().map(|()| 0))).await.map_err(Refusal::io)?;
        admitted?;
        read_outcome(&mut stream).await?
    };
    let link = Arc::new(Link::new(who, connection, number, &shared.config));
    let judge = if we_judge { Judge::Listener } else { Judge::Peer };
    match shared.table.install(&link, judge) {
        Ok(turn) => {
            let preamble = if we_judge { outcome(Ok(number)).to_vec() } else { Vec::new() };
            tokio::spawn(run_link(
                shared.clone(),
                link,
                turn,
                Ducts::single(stream),
                preamble,
                address.to_owned(),
            ));
            Ok(())
        }
        Err(refusal) => {
            if we_judge {
                stream.write_all(&outcome(Err(&refusal))).await.map_err(Refusal::io)?;
            }
            Err(refusal)
        }
    }
}
