//! The parent of a run that listens: its ticket.

use super::{Capability, Ticket, Tickets, TicketsError};
use skipstone_net::{Reach, Relays};
use skipstone_types::RunId;
use std::path::Path;

/// Notes where the coordinator is, for tickets that are issued later too.
///
/// # Errors
/// See [`TicketsError`].
pub(in crate::live) fn note_host(dir: &Path, address: &str, relays: &Relays) -> Result<(), TicketsError> {
    let none = || TicketsError::None { dir: dir.to_owned() };
    let reach: Reach = address.parse().map_err(|_| none())?;
    let host = reach.internet.ok_or_else(none)?;
    Tickets::open(dir)?.set_host(&host, relays)
}

/// A ticket that lets machines in for so many seconds.
///
/// # Errors
/// See [`TicketsError`].
pub(in crate::live) fn invite(dir: &Path, run: RunId, life_s: u64) -> Result<Ticket, TicketsError> {
    Tickets::open(dir)?.issue(run, Capability::Worker, life_s)
}
