//! What can go wrong when links are measured.

use super::host::MACHINES_MAX;
use super::word::REGION_BYTES_MAX;
use crate::wan::WanError;
use skipstone_net::BindError;
use std::io;
use thiserror::Error;

/// Links can't be measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinksError {
    /// Too few machines, or too many.
    #[error("--machines takes 2 to {MACHINES_MAX}, this one among them, not {0}")]
    Machines(usize),
    /// A name that is none.
    #[error("--region takes a name of 1 to {REGION_BYTES_MAX} bytes")]
    Region,
    /// Not an invitation.
    #[error(
        "this is not a whole invitation: it is one word; copy it again from what `skipstone doctor --links` prints"
    )]
    Invitation,
    /// The network can't be used at all.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system refuses.
    #[error("random numbers: {0}")]
    System(#[from] io::Error),
    /// The table that is rehearsed can't be read.
    #[error("--wan {name}: {why}")]
    Wan {
        /// What was given.
        name: String,
        /// What is wrong, and what to do.
        why: WanError,
    },
    /// A region that it has not.
    #[error("--wan {name} has no region {region}; it has {known}")]
    UnknownRegion {
        /// The table.
        name: String,
        /// The region.
        region: String,
        /// Those that there are.
        known: String,
    },
    /// The others did not come.
    #[error(
        "{found} of {wanted} machines came within {waited_s} s; start `skipstone doctor INVITATION` on all of them at about the same time"
    )]
    Missing {
        /// How many came, this one among them.
        found: usize,
        /// How many should have.
        wanted: usize,
        /// How long it was waited.
        waited_s: u64,
    },
    /// No connection.
    #[error(
        "no connection to {whom}: {why}; check that both sides use the same --relay, and `skipstone doctor` there"
    )]
    Unreachable {
        /// To whom.
        whom: String,
        /// Why, as far as that is known.
        why: String,
    },
    /// A machine that took part is gone.
    #[error("{whom} is gone: {why}; start again on all machines")]
    Gone {
        /// Which.
        whom: String,
        /// Why.
        why: String,
    },
    /// The host says no.
    #[error("the host does not let this machine take part: {0}")]
    Refused(String),
    /// The table that came out can't be read.
    #[error("what was measured is no table ({0}); report this")]
    Table(String),
}
