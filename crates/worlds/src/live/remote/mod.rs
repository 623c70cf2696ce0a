//! Nodes on other machines: tickets, who is let in, and files that have to cross the network.
//!
//! The coordinator's process has a reception (`reception`): it checks tickets, keeps the list of keys that are
//! let in (`guests`), and gives and takes the few files that a node needs of the run's folder
//! (`files`); by a table of links it also says where each node is (`places`). `skipstone join` ([`join()`]) is the parent of a machine's nodes, as `train` is at home.

mod ask;
mod doctor;
mod files;
mod guests;
mod invite;
mod join;
mod links;
mod manage;
mod places;
mod reception;
#[cfg(test)]
mod scene;
mod ticket;
mod tickets;
mod watch;

pub(in crate::live) use ask::RunPass;
pub use ask::{Ask, Unreachable};
pub use doctor::{Check, DoctorOptions, Health, examine};
pub(in crate::live) use files::RemoteFiles;
pub(in crate::live) use invite::{invite, note_host};
pub use join::{JoinError, JoinNews, JoinOptions, Joined, join};
pub use links::{
    GuestOptions, HostOptions, LinksError, LinksInvitation, MACHINES_MAX, measure_as_guest, measure_as_host,
};
pub use manage::{ManageError, Managed, Order, manage};
pub(in crate::live) use places::Places;
pub(in crate::live) use reception::{Reception, Told};
pub use ticket::{Capability, Ticket, TicketError, UnfitTicket};
pub use tickets::{Dropped, Invitation, Tickets, TicketsError};
pub use watch::{WatchError, Watched, watch};
