//! Connections that we make over the internet.

use super::{
    FRAMES,
    door::address_of,
    listen::{BULK, Streams, keep},
};
use crate::streams::{link::Link, settle::as_dialler, shared::Shared};
use crate::{InternetReach, PeerId, wire::Refusal};
use std::{io, sync::Arc};
use tokio::io::AsyncWriteExt;

/// One try, in place of a connection that is `held` and silent. On success the connection lives on in a task of its own.
pub(crate) async fn dial(
    shared: &Arc<Shared>,
    peer: PeerId,
    reach: &InternetReach,
    held: Option<&Link>,
) -> Result<Arc<Link>, Refusal> {
    let failed = |why: String| Refusal::Io(io::Error::new(io::ErrorKind::HostUnreachable, why));
    let endpoint = shared.endpoint().ok_or_else(|| {
        failed("it is on another machine, and this process takes no part in the internet".to_owned())
    })?;
    let address = address_of(reach).ok_or_else(|| failed("its key is no key".to_owned()))?;
    let connection = endpoint.connect(address, FRAMES).await.map_err(|why| failed(format!("{why:#}")))?;
    let lost = |why: iroh::endpoint::ConnectionError| Refusal::Io(io::Error::from(why));
    // Both streams are there before anything is agreed: afterwards nothing may fail any more.
    let (send, receive) = connection.open_bi().await.map_err(lost)?;
    let (mut bulk_send, bulk_receive) = connection.open_bi().await.map_err(lost)?;
    bulk_send.write_u8(BULK).await.map_err(Refusal::io)?;
    let mut stream = tokio::io::join(receive, send);
    let settled = as_dialler(shared, &mut stream, peer, held).await;
    let (receive, send) = stream.into_inner();
    let streams = Streams { connection, send, receive, bulk_send, bulk_receive };
    keep(shared, reach.key, streams, settled)
}
