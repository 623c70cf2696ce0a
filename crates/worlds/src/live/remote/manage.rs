//! `skipstone manage`: what the owner of an admin's ticket does to a run on another machine.

use super::ask::{Answer, Ask, Unreachable, ask_once};
use super::tickets::now_unix_s;
use super::{Capability, Invitation, Ticket, TicketError, Tickets, UnfitTicket};
use serde::{Deserialize, Serialize};
use skipstone_net::{BindError, EndpointKey, RequestError, Requester};
use skipstone_types::{NodeId, RunId};
use std::path::Path;
use std::time::Duration;
use thiserror::Error;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Tell which tickets there are.
    List,
    /// Issue a ticket.
    Issue {
        /// What it is for; not for this.
        capability: Capability,
        /// For how many seconds it lets machines in.
        life_s: u64,
    },
    /// Take a ticket back; who came with it is turned out.
    Revoke {
        /// Its number.
        id: u64,
    },
    /// Save the states of all stages soon, as at any other save.
    Save,
    /// End the iteration, save, and stop; `--resume` goes on.
    Stop,
    /// Have a node leave, as if its machine had given notice: its work moves first.
    Drain {
        /// Its number.
        node: NodeId,
    },
}

impl Order {
    /// As it is called in the event log.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Issue { .. } => "issue",
            Self::Revoke { .. } => "revoke",
            Self::Save => "save",
            Self::Stop => "stop",
            Self::Drain { .. } => "drain",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Managed {
    /// These tickets there are.
    Tickets(Vec<Invitation>),
    /// This one is new.
    Issued {
        /// Its number.
        id: u64,
        /// Its text.
        ticket: String,
    },
    /// The run was told.
    Done,
}

/// Why a run can't be managed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManageError {
    /// Not a ticket.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// It is not an admin's, or its time is over.
    #[error(transparent)]
    Unfit(#[from] UnfitTicket),
    /// The network can't be used at all.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The coordinator was not reached.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// It says no.
    #[error("the run does not do that: {0}")]
    Refused(String),
}

/// Asks the ticket's run to carry an order out.
///
/// # Errors
/// See [`ManageError`].
pub fn manage(ticket: &str, order: Order) -> Result<Managed, ManageError> {
    let ticket: Ticket = ticket.parse()?;
    ticket.fits(Capability::Admin, now_unix_s())?;
    let requester = Requester::open(EndpointKey::generate(), ticket.relays.clone())?.with_patience(PATIENCE);
    let question = Ask::Manage { ticket: ticket.to_string(), order };
    let answer = ask_once(&requester, &ticket.host, &question);
    requester.close();
    match answer {
        Ok(Answer::Tickets { tickets }) => Ok(Managed::Tickets(tickets)),
        Ok(Answer::Issued { id, ticket }) => Ok(Managed::Issued { id, ticket }),
        Ok(Answer::Done) => Ok(Managed::Done),
        Ok(_) => Err(ManageError::Refused("it answers something else".to_owned())),
        Err(RequestError::Refused(why)) => Err(ManageError::Refused(why)),
        Err(why) => Err(Unreachable::new(&ticket, why).into()),
    }
}

/// Carries out what concerns the tickets of the run in `dir`; none: it is for the coordinator to do.
pub(super) fn carry_out(dir: &Path, run: RunId, order: Order) -> Result<Option<Answer>, String> {
    let read = || Tickets::read(dir).map_err(|why| why.to_string());
    Ok(Some(match order {
        Order::List => Answer::Tickets { tickets: read()?.all().to_vec() },
        Order::Issue { capability: Capability::Admin, .. } => {
            return Err("only the machine that the run is on issues tickets to manage it".to_owned());
        }
        Order::Issue { capability, life_s } => {
            let ticket = read()?.issue(run, capability, life_s).map_err(|why| why.to_string())?;
            Answer::Issued { id: ticket.id, ticket: ticket.to_string() }
        }
        Order::Revoke { id } => {
            read()?.revoke(id).map_err(|why| why.to_string())?;
            Answer::Done
        }
        Order::Save | Order::Stop | Order::Drain { .. } => return Ok(None),
    }))
}
