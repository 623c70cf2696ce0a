//! Connections that others make.

use super::{
    duct::Ducts,
    life::{Origin, run_link},
    settle::as_listener,
    shared::Shared,
};
use crate::{NetEvent, PeerId, wire::Refusal};
use std::{sync::Arc, time::Duration};
use tokio::{
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
                let address = shared.reach().to_string();
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
            tell_refusal(&shared, result, address, claimed);
        });
    }
}

/// Tells of a connection that was turned away.
pub(crate) fn tell_refusal(
    shared: &Shared,
    result: Result<(), Refusal>,
    address: String,
    claimed: Option<PeerId>,
) {
    // A duplicate is refused in the ordinary course of things.
    if let Err(refusal) = result
        && !matches!(refusal, Refusal::Duplicate | Refusal::Closing)
    {
        let why = refusal.to_string();
        shared.emit_refusal(NetEvent::Refused { address, claimed, why });
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
    let settled = as_listener(shared, &mut stream, claimed).await?;
    let origin = Origin { address: address.to_owned(), key: None };
    tokio::spawn(run_link(shared.clone(), settled, Ducts::single(stream), origin));
    Ok(())
}
