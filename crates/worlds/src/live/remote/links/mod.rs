//! `skipstone doctor --links`: machines that are to train together measure the links between each two of them, before there is a
//! run, and write a table for `--links` and `--wan`.
//!
//! One machine is the host. It prints an invitation, waits for the others, and has each two measured, one pair and one
//! direction after the other, over the transport that a run's nodes use. The host runs
//! a second end on its own machine, for the link within a region.

mod error;
mod guest;
mod host;
mod invitation;
mod machine;
mod table;
mod word;

pub use error::LinksError;
pub use guest::{GuestOptions, measure_as_guest};
pub use host::{HostOptions, MACHINES_MAX, measure_as_host};
pub use invitation::LinksInvitation;
