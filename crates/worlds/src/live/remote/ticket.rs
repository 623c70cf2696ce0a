//! A ticket: all that a machine needs to find a run and be let in. It is a line of text; whoever has it can join.

use super::LinksInvitation;
use serde::{Deserialize, Serialize};
use skipstone_net::{EndpointKey, InternetReach, Relays};
use skipstone_types::RunId;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// What every ticket begins with; the number is its format.
const PREFIX: &str = "skipstone1";

/// Bytes before the text: run, id, expiry, signature.
const FIXED_BYTES: usize = 8 + 8 + 8 + 64;

/// Longest text of a ticket.
const TEXT_BYTES_MAX: usize = 8192;

/// Why a text is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It is something else, or only a part.
    #[error(
        "this is not a whole ticket: it is one word that begins with {PREFIX}; copy it again from what `skipstone train --listen` prints"
    )]
    Damaged,
    /// A later version wrote it.
    #[error("this ticket is of a later version of skipstone; update this machine's")]
    Later,
    /// It is what `doctor --links` prints.
    #[error(
        "this is an invitation to measure links, no ticket of a run: `skipstone doctor` takes it; tickets are printed by `skipstone train --listen`"
    )]
    Invitation,
}

/// Why a ticket is of no use for what its owner wants, by what it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnfitTicket {
    /// It is for something else.
    #[error("{}", other_kind(*.is, *.wanted))]
    OtherKind {
        /// What it is.
        is: Capability,
        /// What it would have to be, at the least.
        wanted: Capability,
    },
    /// Its time is over.
    #[error("this ticket expired {}; ask for a new one: `skipstone tickets DIR {}`", ago(*.late_s), new_option(*.is))]
    Expired {
        /// For so many seconds.
        late_s: u64,
        /// What it is.
        is: Capability,
    },
}

fn other_kind(is: Capability, wanted: Capability) -> String {
    format!(
        "this is {}'s ticket, which is for `skipstone {}`; to {} the run, ask for {}'s: `skipstone tickets DIR {}`, where the run is",
        with_article(is),
        is.command(),
        wanted.command(),
        with_article(wanted),
        new_option(wanted)
    )
}

/// `a worker`, `an admin`.
fn with_article(capability: Capability) -> String {
    let article = if capability == Capability::Admin { "an" } else { "a" };
    format!("{article} {}", capability.name())
}

/// What `skipstone tickets` issues such a ticket with.
fn new_option(capability: Capability) -> String {
    match capability {
        Capability::Worker => "--new".to_owned(),
        other => format!("--new --for {}", other.name()),
    }
}

/// How long ago something was, as people say it.
fn ago(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..5 => return "just now".to_owned(),
        5..120 => (seconds, "seconds"),
        120..7200 => (seconds / 60, "minutes"),
        7200..172_800 => (seconds / 3600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

/// What a ticket lets its owner do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Join with nodes, and watch.
    #[default]
    Worker,
    /// Watch.
    Viewer,
    /// Issue and revoke tickets, save and stop the run, and all the others do.
    Admin,
}

impl Capability {
    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }

    /// The command that it is for first of all.
    pub fn command(self) -> &'static str {
        match self {
            Self::Worker => "join",
            Self::Viewer => "watch",
            Self::Admin => "manage",
        }
    }

    /// Whether it lets its owner do all that the other does.
    pub fn includes(self, other: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Worker => other != Self::Admin,
            Self::Viewer => other == Self::Viewer,
        }
    }
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The run.
    pub run: RunId,
    /// What it lets its owner do.
    pub capability: Capability,
    /// Its number, by which it is revoked.
    pub id: u64,
    /// Until when it lets machines in, in seconds since 1970.
    pub expires_unix_s: u64,
    /// Where the coordinator is.
    pub host: InternetReach,
    /// Through whom processes of the run find each other.
    pub relays: Relays,
    signature: [u8; 64],
}

fn signed(run: RunId, capability: Capability, id: u64, expires_unix_s: u64) -> Vec<u8> {
    let words = [run.0, id, expires_unix_s].map(u64::to_le_bytes);
    [format!("skipstone {} ticket", capability.name()).as_bytes(), &words.concat()].concat()
}

impl Ticket {
    /// A ticket of the coordinator with this key.
    pub fn issue(
        key: &EndpointKey,
        run: RunId,
        capability: Capability,
        id: u64,
        expires_unix_s: u64,
        host: InternetReach,
        relays: Relays,
    ) -> Self {
        let signature = key.sign(&signed(run, capability, id, expires_unix_s));
        Self { run, capability, id, expires_unix_s, host, relays, signature }
    }

    /// Whether it serves this purpose at this time, by what it says itself; only the run knows whether it was revoked.
    ///
    /// # Errors
    /// See [`UnfitTicket`].
    pub fn fits(&self, wanted: Capability, now_unix_s: u64) -> Result<(), UnfitTicket> {
        let is = self.capability;
        if !is.includes(wanted) {
            return Err(UnfitTicket::OtherKind { is, wanted });
        }
        match now_unix_s.saturating_sub(self.expires_unix_s) {
            0 => Ok(()),
            late_s => Err(UnfitTicket::Expired { late_s, is }),
        }
    }

    /// Whether the owner of the key has issued it. Only where to look for the coordinator may have been changed since:
    /// nobody else can answer there.
    pub(super) fn is_of(&self, key: &EndpointKey) -> bool {
        key.public() == self.host.key
            && key
                .public()
                .has_signed(&signed(self.run, self.capability, self.id, self.expires_unix_s), &self.signature)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [self.run.0, self.id, self.expires_unix_s].map(u64::to_le_bytes).concat();
        bytes.extend_from_slice(&self.signature);
        bytes.extend_from_slice(format!("{} {}", self.host, self.relays).as_bytes());
        if self.capability != Capability::Worker {
            bytes.extend_from_slice(format!(" {}", self.capability.name()).as_bytes());
        }
        // A slip in copying is told from a ticket that is not let in.
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(&sum.as_bytes()[..4]);
        let text = data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
        write!(f, "{PREFIX}{text}")
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if LinksInvitation::is_meant(text) {
            return Err(TicketError::Invitation);
        }
        let Some(rest) = text.strip_prefix(PREFIX).filter(|_| text.len() <= TEXT_BYTES_MAX) else {
            let later = text.starts_with("skipstone") && text.len() <= TEXT_BYTES_MAX;
            let digit = text.as_bytes().get(PREFIX.len() - 1).is_some_and(u8::is_ascii_digit);
            return Err(if later && digit { TicketError::Later } else { TicketError::Damaged });
        };
        let bytes = data_encoding::BASE32_NOPAD
            .decode(rest.to_ascii_uppercase().as_bytes())
            .map_err(|_| TicketError::Damaged)?;
        let parse = || {
            let (bytes, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
            if blake3::hash(bytes).as_bytes()[..4] != *sum {
                return None;
            }
            let (fixed, text) = bytes.split_at_checked(FIXED_BYTES)?;
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| fixed[at + i]));
            let mut words = std::str::from_utf8(text).ok()?.split(' ');
            let (host, relays) = (words.next()?, words.next()?);
            let capability = match (words.next(), words.next()) {
                (None, None) => Capability::Worker,
                (Some("viewer"), None) => Capability::Viewer,
                (Some("admin"), None) => Capability::Admin,
                _ => return None,
            };
            Some(Self {
                run: RunId(word(0)),
                capability,
                id: word(8),
                expires_unix_s: word(16),
                host: host.parse().ok()?,
                relays: relays.parse().ok()?,
                signature: std::array::from_fn(|i| fixed[24 + i]),
            })
        };
        parse().ok_or(TicketError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(key: &EndpointKey) -> Ticket {
        ticket_for(key, Capability::Worker)
    }

    fn ticket_for(key: &EndpointKey, capability: Capability) -> Ticket {
        let ways = vec!["ip:192.0.2.1:7000".to_owned(), "relay:https://relay.example./".to_owned()];
        let host = InternetReach { key: key.public(), ways };
        Ticket::issue(key, RunId(5), capability, 77, 1_900_000_000, host, Relays::Public)
    }

    #[test]
    fn a_ticket_is_read_as_it_was_written_and_known_by_its_issuer() {
        let key = EndpointKey::generate();
        let ticket = ticket(&key);
        let again: Ticket = format!(" {ticket}\n").parse().unwrap();
        assert_eq!(again, ticket);
        assert!(again.is_of(&key));
        assert!(!again.is_of(&EndpointKey::generate()));
        assert!(!Ticket { expires_unix_s: u64::MAX, ..again.clone() }.is_of(&key), "a longer life");
        assert!(!Ticket { id: 78, ..again }.is_of(&key));
    }

    #[test]
    fn who_may_watch_can_not_make_a_workers_ticket_of_it() {
        let key = EndpointKey::generate();
        let ticket = ticket_for(&key, Capability::Viewer);
        let again: Ticket = ticket.to_string().parse().unwrap();
        assert_eq!(again, ticket);
        assert!(again.is_of(&key));
        assert!(!Ticket { capability: Capability::Worker, ..again }.is_of(&key));
    }

    #[test]
    fn anything_else_is_refused() {
        let text = ticket(&EndpointKey::generate()).to_string();
        for cut in [0, 5, PREFIX.len(), text.len() / 2, text.len() - 1] {
            assert_eq!(text[..cut].parse::<Ticket>(), Err(TicketError::Damaged), "{cut}");
        }
        for at in PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            assert!(String::from_utf8(bytes).unwrap().parse::<Ticket>().is_err(), "{at}");
        }
        assert_eq!("skipstone2abc".parse::<Ticket>(), Err(TicketError::Later));
        assert_eq!("skipstonelinks1abc".parse::<Ticket>(), Err(TicketError::Invitation));
        assert_eq!("127.0.0.1:4000".parse::<Ticket>(), Err(TicketError::Damaged));
    }

    #[test]
    fn what_a_ticket_is_not_for_and_when_it_ended_is_said_in_words() {
        let key = EndpointKey::generate();
        let says = |is, wanted, late_s| {
            let ticket = ticket_for(&key, is);
            ticket.fits(wanted, ticket.expires_unix_s + late_s).map_err(|why| why.to_string())
        };
        let (worker, viewer, admin) = (Capability::Worker, Capability::Viewer, Capability::Admin);
        for (is, wanted) in [(admin, worker), (admin, admin), (worker, viewer), (viewer, viewer)] {
            assert_eq!(says(is, wanted, 0), Ok(()), "{is:?} {wanted:?}");
        }
        assert_eq!(
            says(viewer, worker, 99).unwrap_err(),
            "this is a viewer's ticket, which is for `skipstone watch`; to join the run, ask for a worker's: `skipstone tickets DIR --new`, where the run is"
        );
        let stop = says(worker, admin, 0).unwrap_err();
        assert!(stop.contains("a worker's ticket") && stop.contains("--new --for admin"), "{stop}");
        for (late_s, words) in [
            (1, "just now"),
            (59, "59 seconds ago"),
            (150, "2 minutes ago"),
            (7200, "2 hours ago"),
            (400_000, "4 days ago"),
        ] {
            let why = says(viewer, viewer, late_s).unwrap_err();
            assert!(why.contains(words) && why.contains("--new --for viewer"), "{why}");
        }
    }
}
