//! The parent of a run that listens: its ticket.

use super::{Ticket, Tickets, TicketsError};
use skipstone_net::{Reach, Relays};
use skipstone_types::RunId;
use std::path::Path;

/// Notes where the coordinator is; answers with a ticket if `life_s` says for how many seconds.
///
/// # Errors
/// See [`TicketsError`].
pub(in crate::live) fn invite(
    dir: &Path,
    run: RunId,
    address: &str,
    relays: &Relays,
    life_s: Option<u64>,
) -> Result<Option<Ticket>, TicketsError> {
    let none = || TicketsError::None { dir: dir.to_owned() };
    let reach: Reach = address.parse().map_err(|_| none())?;
    let host = reach.internet.ok_or_else(none)?;
    let mut tickets = Tickets::open(dir)?;
    tickets.set_host(&host, relays)?;
    life_s.map(|life_s| tickets.issue(run, life_s)).transpose()
}
