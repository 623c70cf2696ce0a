//! The keys that are let in, and on whose ticket: kept in `DIR/join/guests.json`, since a coordinator may die.

use crate::live::say;
use crate::text::{FILE_BYTES_MAX, from_json};
use serde::{Deserialize, Serialize};
use skipstone_net::PeerKey;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Most keys; a run that has seen more nodes of other machines lets no more in.
const GUESTS_MAX: usize = 20_000;

/// How a key came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Guest {
    /// The number of the ticket.
    pub(super) ticket: u64,
    /// The key of the machine's parent process, in hexadecimal.
    pub(super) machine: String,
    /// Nodes of other machines that had been let in before its machine's; none: an older version did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<usize>,
}

/// The keys that are let in.
#[derive(Debug)]
pub(super) struct Guests {
    dir: PathBuf,
    guests: BTreeMap<PeerKey, Guest>,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("join").join("guests.json")
}

impl Guests {
    /// Those of before, if there are any. A list that can't be read lets nobody in: they ask again.
    pub(super) fn open(dir: &Path) -> Self {
        let read = || -> Option<BTreeMap<PeerKey, Guest>> {
            let text = skipstone_files::read_text(&path(dir), FILE_BYTES_MAX).ok()?;
            let listed: BTreeMap<String, Guest> = from_json(&text).ok()?;
            listed.into_iter().map(|(key, guest)| Some((key.parse().ok()?, guest))).collect()
        };
        Self { dir: dir.to_owned(), guests: read().unwrap_or_default() }
    }

    /// Lets a machine in, and its nodes. A machine that was in before keeps its place.
    pub(super) fn admit(&mut self, machine: PeerKey, nodes: &[PeerKey], ticket: u64) -> io::Result<()> {
        let new = nodes.iter().chain([&machine]).filter(|key| !self.guests.contains_key(key)).count();
        if self.guests.len() + new > GUESTS_MAX {
            return Err(io::Error::other("the run has let in as many nodes as it keeps in mind"));
        }
        let before = Some(self.before(&machine));
        let guest = Guest { ticket, machine: machine.to_string(), before };
        if nodes.iter().chain([&machine]).all(|key| self.guests.get(key) == Some(&guest)) {
            return Ok(()); // a disk that is full keeps nobody out who is in
        }
        self.guests.extend(nodes.iter().chain([&machine]).map(|key| (*key, guest.clone())));
        self.write()
    }

    /// Turns out whoever came with another ticket than these; answers whether there was anybody.
    pub(super) fn keep_only(&mut self, tickets: &[u64]) -> bool {
        let before = self.guests.len();
        self.guests.retain(|_, guest| tickets.contains(&guest.ticket));
        let some = self.guests.len() < before;
        if some && let Err(why) = self.write() {
            say(&format_args!("join/guests.json can't be written: {why}"));
        }
        some
    }

    /// Nodes that were let in so far.
    pub(super) fn nodes(&self) -> usize {
        let machines: std::collections::BTreeSet<&str> =
            self.guests.values().map(|guest| guest.machine.as_str()).collect();
        self.guests.len().saturating_sub(machines.len())
    }

    /// Nodes of other machines that were let in before this machine's, or are now.
    pub(super) fn before(&self, machine: &PeerKey) -> usize {
        self.get(machine).and_then(|guest| guest.before).unwrap_or_else(|| self.nodes())
    }

    /// Whether this machine came with this ticket, and all of these nodes with it.
    pub(super) fn came(&self, machine: &PeerKey, nodes: &[PeerKey], ticket: u64) -> bool {
        let came = |guest: &Guest| guest.ticket == ticket && guest.machine == machine.to_string();
        nodes.iter().chain([machine]).all(|key| self.guests.get(key).is_some_and(came))
    }

    /// How the owner of a key came in.
    pub(super) fn get(&self, key: &PeerKey) -> Option<&Guest> {
        self.guests.get(key)
    }

    fn write(&self) -> io::Result<()> {
        let listed: BTreeMap<String, &Guest> =
            self.guests.iter().map(|(key, guest)| (key.to_string(), guest)).collect();
        let json = serde_json::to_vec(&listed).map_err(io::Error::other)?;
        skipstone_files::write(&path(&self.dir), &[&json])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_outlive_a_coordinator_and_leave_with_their_ticket() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("join")).unwrap();
        let (a, b, c) = (PeerKey([1; 32]), PeerKey([2; 32]), PeerKey([3; 32]));
        let mut guests = Guests::open(dir.path());
        guests.admit(a, &[b], 1).unwrap();
        guests.admit(c, &[], 2).unwrap();
        let mut guests = Guests::open(dir.path());
        assert_eq!(guests.nodes(), 1);
        assert_eq!(guests.get(&b), Some(&Guest { ticket: 1, machine: a.to_string(), before: Some(0) }));
        assert_eq!(guests.before(&c), 1, "it comes after b");
        guests.admit(a, &[b], 1).unwrap();
        assert_eq!((guests.nodes(), guests.before(&a)), (1, 0), "who comes again has its place");
        assert!(guests.keep_only(&[2]) && !guests.keep_only(&[2]));
        assert_eq!(Guests::open(dir.path()).get(&a), None);
        std::fs::write(path(dir.path()), "{\"x\": 1}").unwrap();
        assert_eq!(Guests::open(dir.path()).get(&c), None);
        let many: Vec<PeerKey> =
            (0..GUESTS_MAX as u64).map(|at| PeerKey(*blake3::hash(&at.to_le_bytes()).as_bytes())).collect();
        assert!(guests.admit(a, &many, 3).is_err());
        guests.admit(a, &many[2..], 3).unwrap();
        guests.admit(a, &many[2..], 3).unwrap();
        assert!(guests.admit(PeerKey([4; 32]), &[], 3).is_err());
    }
}
