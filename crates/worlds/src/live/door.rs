//! How a node's process takes part in the internet, where it does.

use super::start::NodeStart;
use super::store::RunFiles;
use skipstone_net::{NetConfig, StreamTransport};
use std::io;
use std::sync::Arc;

/// Opens the way to other machines, if the node is to have one.
#[cfg(feature = "iroh")]
pub(super) fn open(config: &mut NetConfig, order: &NodeStart) -> io::Result<()> {
    use skipstone_net::{Door, EndpointKey, Lan};
    let Some(door) = &order.door else { return Ok(()) };
    config.machine = door.machine;
    let key = match &door.key {
        None => EndpointKey::generate(),
        Some(key) => EndpointKey::from_hex(key).map_err(io::Error::other)?,
    };
    let relays = door.relays.parse().map_err(io::Error::other)?;
    // From another machine the coordinator is looked for again where it comes back with another address.
    let lan = if door.host.is_some() { Lan::Look } else { Lan::Off };
    config.door = Some(Door { lan, ..Door::new(key, relays) });
    Ok(())
}

/// This build knows no other machines.
#[cfg(not(feature = "iroh"))]
pub(super) fn open(_: &mut NetConfig, order: &NodeStart) -> io::Result<()> {
    match order.door {
        None => Ok(()),
        Some(_) => Err(io::Error::other("this build has no way to other machines (feature iroh)")),
    }
}

/// The run's folder, for a node on a machine that doesn't have it.
#[cfg(feature = "iroh")]
pub(super) fn run_files(
    order: &NodeStart,
    transport: &StreamTransport,
) -> io::Result<Option<Arc<dyn RunFiles>>> {
    let host = order.door.as_ref().and_then(|door| door.host.as_deref());
    let Some((host, requester)) = host.zip(transport.requester()) else { return Ok(None) };
    let host = host.parse().map_err(io::Error::other)?;
    Ok(Some(Arc::new(super::remote::RemoteFiles::new(requester, host, order.dir.clone()))))
}

/// This build's nodes are all on one machine.
#[cfg(not(feature = "iroh"))]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(super) fn run_files(_: &NodeStart, _: &StreamTransport) -> io::Result<Option<Arc<dyn RunFiles>>> {
    Ok(None)
}
