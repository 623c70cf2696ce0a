//! `DIR/join/`: the coordinator's key, and the tickets that it has issued.

use super::{Capability, Ticket};
use crate::text::{FILE_BYTES_MAX, from_json};
use serde::{Deserialize, Serialize};
use skipstone_net::{EndpointKey, InternetReach, Relays};
use skipstone_types::RunId;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// Version of `tickets.json`.
const FORMAT: u32 = 1;

/// Most tickets that a run keeps in mind.
const TICKETS_MAX: usize = 1000;

/// Why tickets can't be read or issued.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TicketsError {
    /// The run does not listen.
    #[error("{} has issued no tickets: start the run with --listen", dir.display())]
    None {
        /// The run's folder.
        dir: PathBuf,
    },
    /// The system refuses.
    #[error("{}: {source}; check the path, its permissions and the space left on the disk", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{} is damaged ({why}); remove it: then no ticket of before is valid", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is no such ticket.
    #[error(
        "no ticket has the number {0}; `skipstone tickets` lists them where the run is, `skipstone manage TICKET` from elsewhere"
    )]
    Unknown(u64),
    /// There are too many.
    #[error("there are {TICKETS_MAX} tickets: drop expired ones with `skipstone tickets --revoke expired`")]
    Many,
}

/// What is known of an issued ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Its number.
    pub id: u64,
    /// When it was issued, in seconds since 1970.
    pub issued_unix_s: u64,
    /// Until when it lets machines in.
    pub expires_unix_s: u64,
    /// Whether it was taken back: who came with it is turned out.
    pub revoked: bool,
    /// What it lets its owner do.
    #[serde(default)]
    pub capability: Capability,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    format: u32,
    tickets: Vec<Invitation>,
    /// Where the coordinator was seen last, and its relays: for tickets that are issued later.
    host: Option<(String, Relays)>,
    /// The highest number so far, be the ticket forgotten: another one with its number would make it hold again.
    #[serde(default)]
    last_id: u64,
}

/// Tickets that were forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Whose time is over.
    pub expired: usize,
    /// That were taken back.
    pub revoked: usize,
}

/// The tickets of a run.
#[derive(Debug)]
pub struct Tickets {
    dir: PathBuf,
    key: EndpointKey,
    file: File,
}

/// Seconds since 1970.
pub(super) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn folder(dir: &Path) -> PathBuf {
    dir.join("join")
}

fn list_path(dir: &Path) -> PathBuf {
    folder(dir).join("tickets.json")
}

impl Tickets {
    /// Those of the run in `dir`; a run that listens for the first time gets its key here.
    ///
    /// # Errors
    /// See [`TicketsError`].
    pub fn open(dir: &Path) -> Result<Self, TicketsError> {
        let path = folder(dir);
        fs::create_dir_all(&path).map_err(|source| TicketsError::File { path: path.clone(), source })?;
        let key = path.join("key");
        if !key.exists() {
            write_secret(&key, &EndpointKey::generate().to_hex())
                .map_err(|source| TicketsError::File { path: key, source })?;
        }
        Self::read(dir)
    }

    /// Those of the run in `dir`.
    ///
    /// # Errors
    /// See [`TicketsError`].
    pub fn read(dir: &Path) -> Result<Self, TicketsError> {
        let path = folder(dir).join("key");
        let text = match skipstone_files::read_text(&path, 1000) {
            Ok(text) => text,
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                return Err(TicketsError::None { dir: dir.to_owned() });
            }
            Err(source) => return Err(TicketsError::File { path, source }),
        };
        let key = EndpointKey::from_hex(&text)
            .map_err(|why| TicketsError::Damaged { path, why: why.to_string() })?;
        Ok(Self { dir: dir.to_owned(), key, file: read_list(dir)? })
    }

    /// The key of the run's coordinator.
    pub fn key(&self) -> &EndpointKey {
        &self.key
    }

    /// All that were issued, the oldest first.
    pub fn all(&self) -> &[Invitation] {
        &self.file.tickets
    }

    /// Notes where the coordinator is.
    ///
    /// # Errors
    /// The file system's.
    pub fn set_host(&mut self, host: &InternetReach, relays: &Relays) -> Result<(), TicketsError> {
        self.file.host = Some((host.to_string(), relays.clone()));
        self.write()
    }

    /// Where the coordinator was seen last.
    pub(in crate::live) fn host(&self) -> Option<InternetReach> {
        self.file.host.as_ref()?.0.parse().ok()
    }

    /// Issues one that holds for so many seconds.
    ///
    /// # Errors
    /// See [`TicketsError`]; a coordinator that was never up can't be pointed to.
    pub fn issue(&mut self, run: RunId, capability: Capability, life_s: u64) -> Result<Ticket, TicketsError> {
        let none = || TicketsError::None { dir: self.dir.clone() };
        let host = self.host().ok_or_else(none)?;
        let relays = self.file.host.as_ref().map_or(Relays::None, |(_, relays)| relays.clone());
        if self.file.tickets.len() >= TICKETS_MAX {
            return Err(TicketsError::Many);
        }
        let highest = self.file.tickets.iter().map(|known| known.id).max().unwrap_or(0);
        let id = highest.max(self.file.last_id).saturating_add(1);
        self.file.last_id = id;
        let issued_unix_s = now_unix_s();
        let expires_unix_s = issued_unix_s.saturating_add(life_s);
        self.file.tickets.push(Invitation { id, issued_unix_s, expires_unix_s, revoked: false, capability });
        self.write()?;
        Ok(Ticket::issue(&self.key, run, capability, id, expires_unix_s, host, relays))
    }

    /// Takes a ticket back: it lets nobody in any more, and who came with it is turned out.
    ///
    /// # Errors
    /// See [`TicketsError`].
    pub fn revoke(&mut self, id: u64) -> Result<(), TicketsError> {
        let known = self.file.tickets.iter_mut().find(|known| known.id == id);
        known.ok_or(TicketsError::Unknown(id))?.revoked = true;
        self.write()
    }

    /// Forgets those that are expired or revoked; answers how many. Who came with them is turned out.
    ///
    /// # Errors
    /// The file system's.
    pub fn drop_old(&mut self) -> Result<Dropped, TicketsError> {
        let now = now_unix_s();
        let mut dropped = Dropped { expired: 0, revoked: 0 };
        // A list of before says nothing of the highest number, which may be one of these.
        let highest = self.file.tickets.iter().map(|known| known.id).max().unwrap_or(0);
        self.file.last_id = self.file.last_id.max(highest);
        self.file.tickets.retain(|known| {
            let expired = known.expires_unix_s <= now;
            dropped.revoked += usize::from(known.revoked);
            dropped.expired += usize::from(expired && !known.revoked);
            !known.revoked && !expired
        });
        self.write()?;
        Ok(dropped)
    }

    fn write(&self) -> Result<(), TicketsError> {
        let path = list_path(&self.dir);
        let json = serde_json::to_vec_pretty(&self.file).unwrap_or_default();
        skipstone_files::write(&path, &[&json]).map_err(|source| TicketsError::File { path, source })
    }

    /// What stands now about a ticket; none: it is forgotten, or was never issued.
    ///
    /// # Errors
    /// A list that can't be read.
    pub(super) fn known(dir: &Path, ticket: &Ticket) -> Result<Option<Invitation>, TicketsError> {
        let is_it = |known: &Invitation| {
            (known.id, known.capability, known.expires_unix_s)
                == (ticket.id, ticket.capability, ticket.expires_unix_s)
        };
        Ok(read_list(dir)?.tickets.into_iter().find(is_it))
    }

    /// The numbers of tickets whose guests may stay.
    pub(super) fn standing(dir: &Path) -> Option<Vec<u64>> {
        let standing = read_list(dir).ok()?.tickets.into_iter().filter(|known| !known.revoked);
        Some(standing.map(|known| known.id).collect())
    }
}

fn read_list(dir: &Path) -> Result<File, TicketsError> {
    let path = list_path(dir);
    let text = match skipstone_files::read_text(&path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return Ok(File { format: FORMAT, tickets: Vec::new(), host: None, last_id: 0 });
        }
        Err(source) => return Err(TicketsError::File { path, source }),
    };
    let file: File = from_json(&text).map_err(|why| TicketsError::Damaged { path: path.clone(), why })?;
    if file.format == FORMAT {
        Ok(file)
    } else {
        Err(TicketsError::Damaged { path, why: format!("it is of format {}", file.format) })
    }
}

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_issued_listed_and_taken_back_across_openings() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Tickets::read(dir.path()), Err(TicketsError::None { .. })));
        let mut tickets = Tickets::open(dir.path()).unwrap();
        assert!(
            matches!(tickets.issue(RunId(3), Capability::Worker, 60), Err(TicketsError::None { .. })),
            "no coordinator yet"
        );
        let host = InternetReach { key: tickets.key().public(), ways: vec!["ip:192.0.2.1:1".to_owned()] };
        tickets.set_host(&host, &Relays::None).unwrap();
        let first = tickets.issue(RunId(3), Capability::Worker, 60).unwrap();
        let second = Tickets::read(dir.path()).unwrap().issue(RunId(3), Capability::Worker, 0).unwrap();
        let mut tickets = Tickets::read(dir.path()).unwrap();
        assert!(first.is_of(tickets.key()) && second.is_of(tickets.key()));
        assert_eq!((first.id, second.id, &first.host), (1, 2, &host));
        tickets.revoke(1).unwrap();
        assert!(matches!(tickets.revoke(9), Err(TicketsError::Unknown(9))));
        assert!(Tickets::known(dir.path(), &first).unwrap().unwrap().revoked);
        assert_eq!(Tickets::standing(dir.path()), Some(vec![2]));
        assert_eq!(tickets.drop_old().unwrap(), Dropped { expired: 1, revoked: 1 });
        assert_eq!(Tickets::known(dir.path(), &second).unwrap(), None);
    }

    #[test]
    fn a_ticket_that_was_taken_back_and_forgotten_never_holds_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut tickets = Tickets::open(dir.path()).unwrap();
        let host = InternetReach { key: tickets.key().public(), ways: Vec::new() };
        tickets.set_host(&host, &Relays::None).unwrap();
        let old = tickets.issue(RunId(3), Capability::Worker, 60).unwrap();
        // As a list was before it said which numbers were given out.
        tickets.file.last_id = 0;
        tickets.revoke(old.id).unwrap();
        tickets.drop_old().unwrap();
        let mut tickets = Tickets::read(dir.path()).unwrap();
        let new = tickets.issue(RunId(3), Capability::Worker, 90).unwrap();
        assert_eq!(new.id, 2, "1 is the old one's");
        // What an earlier version did.
        tickets.file.tickets[0].id = old.id;
        tickets.write().unwrap();
        assert_eq!(Tickets::known(dir.path(), &old).unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_key_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        Tickets::open(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join("join").join("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn damaged_files_are_told() {
        let dir = tempfile::tempdir().unwrap();
        Tickets::open(dir.path()).unwrap();
        for bad in ["", "{", "{\"format\": 9, \"tickets\": [], \"host\": null}"] {
            fs::write(list_path(dir.path()), bad).unwrap();
            assert!(matches!(Tickets::read(dir.path()), Err(TicketsError::Damaged { .. })), "{bad}");
        }
        fs::write(folder(dir.path()).join("key"), "abc").unwrap();
        assert!(matches!(Tickets::read(dir.path()), Err(TicketsError::Damaged { .. })));
    }
}
