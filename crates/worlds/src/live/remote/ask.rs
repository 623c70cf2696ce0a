//! What machines ask of a run's coordinator, and its answers: JSON heads, with a file's bytes as bodies.

use super::manage::Order;
use super::places::GuestPlace;
use super::{Invitation, Ticket};
use crate::config::RunConfig;
use serde::{Deserialize, Serialize};
use skipstone_net::{BODY_BYTES_MAX, InternetReach, RequestError, Requester};
use skipstone_observe::RunInfo;
use skipstone_types::RunId;
use thiserror::Error;

/// Bytes of a file in one request.
pub(super) const PIECE_BYTES: usize = BODY_BYTES_MAX;

/// What a machine asks of a run's reception.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Let nodes with these keys in; who asks may speak for them.
    Join {
        /// The ticket.
        ticket: String,
        /// The version that asks.
        version: String,
        /// The wire version that it speaks.
        wire: u16,
        /// Public keys of its nodes.
        workers: Vec<String>,
        /// The region that it is in, by the run's table of links; none: the next of the table's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
    },
    /// A piece of a file of the run's folder.
    Read {
        /// Which, by its path in the folder.
        path: String,
        /// From which byte.
        offset: u64,
    },
    /// The next piece of a file for the run's folder is in the body.
    Write {
        /// Which.
        path: String,
        /// From which byte; 0 begins anew.
        offset: u64,
        /// Bytes of the whole file.
        total: u64,
        /// BLAKE3 of the whole file, in hexadecimal.
        digest: String,
    },
    /// What is in the event log from this byte on.
    Watch {
        /// The ticket.
        ticket: String,
        /// From which byte.
        offset: u64,
    },
    /// Do this; for whoever has an admin's ticket.
    Manage {
        /// The ticket.
        ticket: String,
        /// What.
        order: Order,
    },
    /// What time is it; anybody may ask.
    Time,
    /// The process of the node with this key is gone.
    Gone {
        /// The key.
        worker: String,
    },
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Welcome.
    Pass(Box<RunPass>),
    /// A piece of a file is in the body.
    Piece {
        /// Bytes of the whole file.
        total: u64,
        /// BLAKE3 of the whole file, in hexadecimal, with its first piece.
        digest: Option<String>,
    },
    /// A piece of the event log is in the body.
    Log {
        /// What is known of the run beside.
        info: Box<RunInfo>,
        /// Bytes of the log so far.
        total: u64,
    },
    /// All tickets, the oldest first.
    Tickets {
        /// These.
        tickets: Vec<Invitation>,
    },
    /// A new ticket.
    Issued {
        /// Its number.
        id: u64,
        /// Its text.
        ticket: String,
    },
    /// The time.
    Time {
        /// In seconds since 1970.
        unix_s: u64,
        /// The wire version that the run speaks.
        wire: u16,
    },
    /// It is done.
    Done,
}

/// All that a node of another machine is to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::live) struct RunPass {
    /// The run.
    pub(in crate::live) run: RunId,
    /// The run's secret, in hexadecimal.
    pub(in crate::live) secret: String,
    /// Where the coordinator is.
    pub(in crate::live) coordinator: String,
    /// Model, stages, batches, optimiser, seed.
    pub(in crate::live) config: RunConfig,
    /// Tokens of the vocabulary.
    pub(in crate::live) vocabulary: usize,
    /// Where each of its nodes is; empty where links are not known.
    pub(in crate::live) places: Vec<GuestPlace>,
}

/// Ways to a run that are named, if it can't be reached.
const WAYS_NAMED: usize = 3;

/// A run does not answer. Its owner knows it by the ticket, not by its key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the run of this ticket (number {ticket}{}) can't be reached: {why}; it has ended, its machine is away, or there is no network between the two. `skipstone train --resume --listen` goes on with it, where it was started",
    at(.addresses)
)]
pub struct Unreachable {
    /// The ticket's number.
    ticket: u64,
    /// Where it was seen last.
    addresses: Vec<String>,
    /// Why, as far as the network tells.
    why: String,
}

impl Unreachable {
    /// The ticket's run was asked, and this came of it.
    pub(super) fn new(ticket: &Ticket, why: RequestError) -> Self {
        let why = match why {
            RequestError::Unreachable { why, .. } => why,
            why => why.to_string(),
        };
        let addresses = ticket.host.ways.iter().filter_map(|way| way.strip_prefix("ip:"));
        let addresses = addresses.take(WAYS_NAMED).map(str::to_owned).collect();
        Self { ticket: ticket.id, addresses, why }
    }
}

/// `, seen last at 192.0.2.1:7000`.
fn at(addresses: &[String]) -> String {
    if addresses.is_empty() { String::new() } else { format!(", seen last at {}", addresses.join(" and ")) }
}

/// Asks, and reads the answer; tries again where a connection is lost on the way.
pub(super) fn ask(
    requester: &Requester,
    host: &InternetReach,
    question: &Ask,
    body: &[u8],
) -> Result<(Answer, Vec<u8>), RequestError> {
    understood(requester.ask_again(host, &head_of(question)?, body)?)
}

/// As [`ask`], without a second try: for what must not be done twice, and where a quick no is worth more.
pub(super) fn ask_once(
    requester: &Requester,
    host: &InternetReach,
    question: &Ask,
) -> Result<Answer, RequestError> {
    understood(requester.ask(host, &head_of(question)?, &[])?).map(|(answer, _)| answer)
}

fn head_of(question: &Ask) -> Result<Vec<u8>, RequestError> {
    serde_json::to_vec(question).map_err(|why| RequestError::Refused(why.to_string()))
}

fn understood((head, body): (Vec<u8>, Vec<u8>)) -> Result<(Answer, Vec<u8>), RequestError> {
    let answer = serde_json::from_slice(&head)
        .map_err(|why| RequestError::Refused(format!("its answer is not understood ({why})")))?;
    Ok((answer, body))
}
