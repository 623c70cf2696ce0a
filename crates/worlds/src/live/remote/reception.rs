//! Answers what machines ask of a run.

use super::ask::{Answer, Ask, RunPass};
use super::files::{digest_of, may_read, read_piece, saved_stage, write_piece};
use super::guests::Guests;
use super::manage::{Order, carry_out};
use super::places::Places;
use super::tickets::now_unix_s;
use super::{Capability, Ticket, Tickets};
use crate::live::publish::read_state;
use crate::live::store::stage_path;
use skipstone_net::{BODY_BYTES_MAX, EndpointKey, PeerKey, RequestHandler};
use skipstone_observe::RunInfo;
use skipstone_protocol::WIRE_VERSION;
use skipstone_types::{Iteration, NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most nodes of one machine.
pub(super) const WORKERS_MAX: usize = 64;

/// Nodes that are named to an admin who asks for one that is not there.
const NODES_NAMED: usize = 64;

/// Bytes of a saved state's file beside its tensors.
const STATE_OVERHEAD_BYTES: u64 = 1 << 20;

/// What the coordinator is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::live) enum Told {
    /// The process of the node with this key is gone.
    Gone(PeerKey),
    /// The owner of the admin's ticket with this number had this done, or wants it done.
    Ordered {
        /// The number.
        ticket: u64,
        /// What.
        order: Order,
        /// The number of the ticket that was issued or revoked, or of the node that is to leave.
        of: Option<u64>,
    },
}

type Tell = Box<dyn Fn(Told) + Send + Sync>;

/// A run's reception.
pub(in crate::live) struct Reception {
    dir: PathBuf,
    key: EndpointKey,
    pass: Mutex<RunPass>,
    guests: Mutex<Guests>,
    /// Largest saved state, in bytes.
    state_bytes_max: u64,
    tell: Tell,
    /// One at a time changes the list of tickets.
    managing: Mutex<()>,
    /// The nodes that there are.
    nodes: Mutex<BTreeSet<NodeId>>,
    /// Whose nodes are asked to save what, and the path of what each brings: one for each that it is asked for.
    asked: Mutex<BTreeMap<(Iteration, StageId, PeerKey), Option<String>>>,
    /// Where nodes are, if links are known.
    places: Option<Places>,
}

impl Reception {
    /// For the run in `dir`. `pass` is what is handed to who is let in; `state_bytes_max` the largest state of a stage.
    pub(in crate::live) fn new(
        dir: PathBuf,
        key: EndpointKey,
        pass: RunPass,
        state_bytes_max: u64,
        tell: Tell,
        places: Option<Places>,
    ) -> Self {
        let guests = Mutex::new(Guests::open(&dir));
        let state_bytes_max = state_bytes_max + STATE_OVERHEAD_BYTES;
        let (pass, managing, nodes) = (Mutex::new(pass), Mutex::new(()), Mutex::default());
        let asked = Mutex::default();
        Self { dir, key, pass, guests, state_bytes_max, tell, managing, nodes, asked, places }
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where the coordinator is.
    pub(in crate::live) fn set_address(&self, address: String) {
        self.pass().coordinator = address;
    }

    /// A node has come, or gone.
    pub(in crate::live) fn note_node(&self, node: NodeId, is_there: bool) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if is_there {
            nodes.insert(node)
        } else {
            nodes.remove(&node)
        };
    }

    /// The owner of this key is asked to save a stage. There is one save at a time: what was asked for in an earlier one may no longer
    /// be brought.
    pub(in crate::live) fn note_asked(&self, key: PeerKey, iteration: Iteration, stage: StageId) {
        let mut asked = self.asked();
        asked.retain(|(of, _, _), _| *of == iteration);
        asked.insert((iteration, stage, key), None);
    }

    /// What was asked for is whole, and counts: it may no longer be brought.
    pub(in crate::live) fn note_published(&self) {
        self.asked().clear();
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<(Iteration, StageId, PeerKey), Option<String>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the owner of this key was asked for the file, and has brought no other in its place.
    fn may_bring(&self, from: &PeerKey, path: &str) -> bool {
        let Some((iteration, stage)) = saved_stage(path) else { return false };
        let mut asked = self.asked();
        asked
            .get_mut(&(iteration, stage, *from))
            .is_some_and(|brings| brings.get_or_insert_with(|| path.to_owned()) == path)
    }

    /// Whether the file is there and part of the state that counts.
    fn is_published(&self, path: &str) -> bool {
        let (file, Ok(counts)) = (self.dir.join(path), read_state(&self.dir)) else { return false };
        let states = self.dir.join("state");
        let mut parts = counts.stages.iter();
        file.is_file()
            && parts.any(|part| stage_path(&states, counts.iteration, part.stage, &part.state) == file)
    }

    /// The nodes that there are, in words, if this is none of them.
    fn others_than(&self, node: NodeId) -> Option<String> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.contains(&node) {
            return None;
        }
        let named: Vec<String> = nodes.iter().take(NODES_NAMED).map(|node| node.0.to_string()).collect();
        let more = match nodes.len().saturating_sub(NODES_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(match named.as_slice() {
            [] => "none".to_owned(),
            [one] => format!("node {one}"),
            named => format!("nodes {}{more}", named.join(", ")),
        })
    }

    /// Whether the owner of this key was let in.
    pub(in crate::live) fn admits(&self, key: &PeerKey) -> bool {
        self.guests().get(key).is_some()
    }

    /// From which machine the owner of this key came, and with which ticket.
    pub(in crate::live) fn origin(&self, key: &PeerKey) -> Option<(PeerKey, u64)> {
        let guest = self.guests().get(key)?.clone();
        Some((guest.machine.parse().ok()?, guest.ticket))
    }

    /// Turns out who came with a ticket that was revoked since; whether there was anybody.
    pub(in crate::live) fn turn_out(&self) -> bool {
        // A list that can't be read just now turns nobody out.
        Tickets::standing(&self.dir).is_some_and(|standing| self.guests().keep_only(&standing))
    }

    /// The ticket, if it holds for this purpose.
    fn check(&self, ticket: &str, wanted: Capability) -> Result<Ticket, String> {
        self.check_but(ticket, wanted, |_| false)
    }

    /// The ticket, if it holds for this purpose, or `came_before` says that who shows it came with it: the end of its time
    /// only keeps others from coming, and a list that can't be read just now turns nobody out.
    fn check_but(
        &self,
        ticket: &str,
        wanted: Capability,
        came_before: impl FnOnce(&Ticket) -> bool,
    ) -> Result<Ticket, String> {
        let ticket: Ticket = ticket.parse().map_err(|why: super::TicketError| why.to_string())?;
        if ticket.run != self.pass().run || !ticket.is_of(&self.key) {
            return Err("this ticket is of another run".to_owned());
        }
        // What it is for comes before its time: a new one like it would be of no use.
        ticket.fits(wanted, 0).map_err(|why| why.to_string())?;
        let why = match Tickets::known(&self.dir, &ticket) {
            Ok(None) => return Err("this ticket is not known here; ask for a new one".to_owned()),
            Ok(Some(known)) if known.revoked => {
                return Err("this ticket was revoked; ask for a new one".to_owned());
            }
            Ok(Some(known)) if known.expires_unix_s > now_unix_s() => return Ok(ticket),
            Ok(Some(_)) => "this ticket has expired; ask for a new one",
            Err(_) => "the run can't read its list of tickets; look at join/tickets.json in its folder",
        };
        if came_before(&ticket) { Ok(ticket) } else { Err(why.to_owned()) }
    }

    /// The event log from a byte on, for whoever has a ticket of any kind.
    fn watch(&self, ticket: &str, offset: u64) -> Result<(Answer, Vec<u8>), String> {
        self.check(ticket, Capability::Viewer)?;
        let failed = |why: std::io::Error| format!("the run's log can't be read: {why}");
        let (piece, total) = read_piece(&self.dir.join("events.jsonl"), offset).map_err(failed)?;
        let info = self.info().map_err(|why| why.to_string())?;
        Ok((Answer::Log { info: Box::new(info), total }, piece))
    }

    /// Carries an order out, for whoever has an admin's ticket.
    fn manage(&self, ticket: &str, order: Order) -> Result<Answer, String> {
        let ticket = self.check(ticket, Capability::Admin)?;
        let _alone = self.managing.lock().unwrap_or_else(PoisonError::into_inner);
        let run = self.pass().run;
        if let Order::Drain { node } = order
            && let Some(others) = self.others_than(node)
        {
            return Err(format!(
                "there is no node {}: the run has {others}; `skipstone watch` with the same ticket tells what each does",
                node.0
            ));
        }
        let answer = carry_out(&self.dir, run, order)?;
        let of = match (&answer, order) {
            (Some(Answer::Issued { id, .. }), _) => Some(*id),
            (_, Order::Revoke { id }) => Some(id),
            (_, Order::Drain { node }) => Some(u64::from(node.0)),
            _ => None,
        };
        if order != Order::List {
            (self.tell)(Told::Ordered { ticket: ticket.id, order, of });
        }
        Ok(answer.unwrap_or(Answer::Done))
    }

    /// What is told of the run beside its log: no paths, no prices.
    fn info(&self) -> Result<RunInfo, crate::config::ConfigError> {
        let pass = self.pass();
        Ok(RunInfo {
            model: pass.config.model.clone(),
            parameters: pass.config.shape(pass.vocabulary)?.model.parameters() as u64,
            ..RunInfo::from_settings(&pass.config.settings()?)
        })
    }

    fn pass(&self) -> MutexGuard<'_, RunPass> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(
        &self,
        from: PeerKey,
        ticket: &str,
        version: &str,
        wire: u16,
        workers: &[String],
        region: Option<&str>,
    ) -> Result<RunPass, String> {
        let keys = workers.iter().map(|key| key.parse()).collect::<Result<Vec<PeerKey>, _>>();
        let came_before =
            |ticket: &Ticket| keys.as_ref().is_ok_and(|keys| self.guests().came(&from, keys, ticket.id));
        let ticket = self.check_but(ticket, Capability::Worker, came_before)?;
        let mut pass = self.pass().clone();
        if wire != WIRE_VERSION {
            let ours = env!("CARGO_PKG_VERSION");
            return Err(format!(
                "this machine has skipstone {version} (wire version {wire}), the run {ours} (wire version {WIRE_VERSION}); install the same"
            ));
        }
        if workers.is_empty() || workers.len() > WORKERS_MAX {
            return Err(format!("a machine joins with 1 to {WORKERS_MAX} nodes, not {}", workers.len()));
        }
        let keys = keys.map_err(|why| why.to_string())?;
        let mut guests = self.guests();
        pass.places = match (&self.places, region) {
            (Some(places), region) => places.of(region, guests.before(&from), keys.len())?,
            (None, None) => Vec::new(),
            (None, Some(_)) => {
                return Err(
                    "the run knows of no regions; join without --region, or run `train --listen --links TABLE`"
                        .to_owned(),
                );
            }
        };
        guests.admit(from, &keys, ticket.id).map_err(|why| why.to_string())?;
        Ok(pass)
    }

    fn handle(&self, from: PeerKey, question: Ask, body: &[u8]) -> Result<(Answer, Vec<u8>), String> {
        if let Ask::Join { ticket, version, wire, workers, region } = &question {
            let pass = self.join(from, ticket, version, *wire, workers, region.as_deref())?;
            return Ok((Answer::Pass(Box::new(pass)), Vec::new()));
        }
        if let Ask::Watch { ticket, offset } = &question {
            return self.watch(ticket, *offset);
        }
        if let Ask::Manage { ticket, order } = &question {
            return Ok((self.manage(ticket, *order)?, Vec::new()));
        }
        if matches!(question, Ask::Time) {
            return Ok((Answer::Time { unix_s: now_unix_s(), wire: WIRE_VERSION }, Vec::new()));
        }
        if !self.admits(&from) {
            return Err("only nodes of the run are answered; join with a ticket first".to_owned());
        }
        match question {
            Ask::Read { path, offset } if may_read(&path) => {
                let file = self.dir.join(&path);
                let failed = |why: std::io::Error| format!("{path} can't be read: {why}");
                let (piece, total) = read_piece(&file, offset).map_err(failed)?;
                let digest = if offset == 0 { Some(digest_of(&file).map_err(failed)?) } else { None };
                Ok((Answer::Piece { total, digest }, piece))
            }
            Ask::Write { path, offset, total, digest } if self.may_bring(&from, &path) => {
                if total > self.state_bytes_max {
                    return Err(format!("{path} is longer than any state of this run"));
                }
                // The run is saved again before it got further: the same bits are there, and nobody takes them away.
                if self.is_published(&path) {
                    return Ok((Answer::Done, Vec::new()));
                }
                write_piece(&self.dir.join(&path), &from, offset, body, total, &digest)
                    .map(|_| (Answer::Done, Vec::new()))
                    .map_err(|why| format!("{path} can't be written: {why}"))
            }
            Ask::Gone { worker } => {
                let worker: PeerKey = worker.parse().map_err(|_| "that is no key".to_owned())?;
                // A machine speaks for those who came with it.
                let machine = self.guests().get(&worker).map(|guest| guest.machine.clone());
                if machine != Some(from.to_string()) {
                    return Err("that node is not yours".to_owned());
                }
                (self.tell)(Told::Gone(worker));
                Ok((Answer::Done, Vec::new()))
            }
            Ask::Read { path, .. } => Err(format!("{path} is not for nodes of other machines")),
            Ask::Write { path, .. } => Err(format!("this node is not asked for {path}")),
            Ask::Join { .. } | Ask::Watch { .. } | Ask::Manage { .. } | Ask::Time => {
                Err("a second answer".to_owned())
            }
        }
    }
}

impl RequestHandler for Reception {
    fn body_bytes_max(&self, from: &PeerKey) -> usize {
        if self.admits(from) { BODY_BYTES_MAX } else { 0 }
    }

    fn answer(&self, from: PeerKey, head: &[u8], body: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        let question = serde_json::from_slice(head).map_err(|why| format!("not understood: {why}"))?;
        let (answer, body) = self.handle(from, question, body)?;
        Ok((serde_json::to_vec(&answer).map_err(|why| why.to_string())?, body))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{GUEST, STRANGER, Scene, WORKER, scene};
    use super::*;
    use crate::live::publish::{StateManifest, publish};
    use skipstone_net::Relays;
    use skipstone_protocol::SavedStage;
    use skipstone_types::{Digest, RunId};
    use std::path::Path;

    #[test]
    fn who_has_a_ticket_is_let_in_with_its_nodes_and_turned_out_with_it() {
        let mut scene = scene();
        let ticket = scene.tickets.issue(RunId(4), Capability::Worker, 60).unwrap();
        assert!(matches!(scene.join(&ticket.to_string(), WIRE_VERSION, 1), Ok((Answer::Pass(_), _))));
        assert!(scene.reception.admits(&GUEST) && scene.reception.admits(&WORKER));
        assert!(!scene.reception.admits(&STRANGER) && !scene.reception.turn_out());
        scene.tickets.revoke(ticket.id).unwrap();
        assert!(scene.reception.turn_out() && !scene.reception.admits(&WORKER));
        assert!(scene.join(&ticket.to_string(), WIRE_VERSION, 1).unwrap_err().contains("revoked"));
    }

    #[test]
    fn the_end_of_a_tickets_time_only_keeps_others_from_coming() {
        let mut scene = scene();
        let ticket = scene.tickets.issue(RunId(4), Capability::Worker, 0).unwrap();
        let text = ticket.to_string();
        // It came in time, however slow this machine is.
        scene.reception.guests().admit(GUEST, &[WORKER], ticket.id).unwrap();
        while now_unix_s() <= ticket.expires_unix_s {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(scene.join(&text, WIRE_VERSION, 1).is_ok(), "it was in before");
        assert_eq!(scene.reception.origin(&WORKER), Some((GUEST, ticket.id)));
        let with = |from, worker: PeerKey| {
            let workers = vec![worker.to_string()];
            let (ticket, version) = (text.clone(), "0".to_owned());
            let question = Ask::Join { ticket, version, wire: WIRE_VERSION, workers, region: None };
            scene.ask(from, &question, &[])
        };
        assert!(with(STRANGER, WORKER).unwrap_err().contains("expired"), "another machine");
        assert!(with(GUEST, STRANGER).unwrap_err().contains("expired"), "another node");
        let list = scene.dir.path().join("join").join("tickets.json");
        let before = std::fs::read(&list).unwrap();
        std::fs::write(&list, "{").unwrap();
        assert!(with(GUEST, WORKER).is_ok());
        assert!(with(STRANGER, WORKER).unwrap_err().contains("tickets.json"));
        std::fs::write(&list, before).unwrap();
        Tickets::read(scene.dir.path()).unwrap().revoke(ticket.id).unwrap();
        assert!(with(GUEST, WORKER).unwrap_err().contains("revoked"));
    }

    #[test]
    fn no_other_ticket_version_or_number_of_nodes_is() {
        let mut scene = scene();
        let good = scene.tickets.issue(RunId(4), Capability::Worker, 60).unwrap();
        let expired = scene.tickets.issue(RunId(4), Capability::Worker, 0).unwrap().to_string();
        let other_run = scene.tickets.issue(RunId(5), Capability::Worker, 60).unwrap().to_string();
        let host = good.host.clone();
        let forged = Ticket::issue(
            &EndpointKey::generate(),
            RunId(4),
            Capability::Worker,
            1,
            u64::MAX,
            host.clone(),
            Relays::None,
        );
        let unknown = Ticket::issue(
            scene.tickets.key(),
            RunId(4),
            Capability::Worker,
            99,
            u64::MAX,
            host,
            Relays::None,
        );
        for (ticket, why) in [
            (expired, "expired"),
            (other_run, "another run"),
            (forged.to_string(), "another run"),
            (unknown.to_string(), "not known"),
            ("nonsense".to_owned(), "not a whole ticket"),
        ] {
            assert!(scene.join(&ticket, WIRE_VERSION, 1).unwrap_err().contains(why), "{why}");
        }
        let good = good.to_string();
        assert!(scene.join(&good, WIRE_VERSION + 1, 1).unwrap_err().contains("wire version"));
        for workers in [0, WORKERS_MAX + 1] {
            assert!(scene.join(&good, WIRE_VERSION, workers).unwrap_err().contains("nodes"));
        }
        assert!(!scene.reception.admits(&GUEST));
    }

    #[test]
    fn a_viewers_ticket_shows_the_log_and_nothing_else() {
        let mut scene = scene();
        std::fs::write(scene.dir.path().join("events.jsonl"), "{}\n{}\n").unwrap();
        let ticket = scene.tickets.issue(RunId(4), Capability::Viewer, 60).unwrap();
        let watch = |offset| Ask::Watch { ticket: ticket.to_string(), offset };
        let (answer, piece) = scene.ask(STRANGER, &watch(3), &[]).unwrap();
        assert!(
            matches!(answer, Answer::Log { total: 6, info } if info.relay_stages > 0 && info.out.as_os_str().is_empty())
        );
        assert_eq!(piece, b"{}\n");
        assert!(scene.ask(STRANGER, &watch(u64::MAX), &[]).unwrap().1.is_empty());
        assert!(scene.join(&ticket.to_string(), WIRE_VERSION, 1).unwrap_err().contains("a viewer's ticket"));
        assert!(!scene.reception.admits(&GUEST) && !scene.reception.admits(&STRANGER));
        scene.tickets.revoke(ticket.id).unwrap();
        assert!(scene.ask(STRANGER, &watch(0), &[]).unwrap_err().contains("revoked"));
    }

    #[test]
    fn an_admins_ticket_manages_tickets_and_the_run_and_no_other_does() {
        let mut scene = scene();
        let ticket = |scene: &mut Scene, capability| {
            scene.tickets.issue(RunId(4), capability, 60).unwrap().to_string()
        };
        let tickets =
            [Capability::Worker, Capability::Viewer, Capability::Admin].map(|of| ticket(&mut scene, of));
        let manage = |ticket: &str, order| {
            scene
                .ask(STRANGER, &Ask::Manage { ticket: ticket.to_owned(), order }, &[])
                .map(|(answer, _)| answer)
        };
        for other in &tickets[..2] {
            assert!(manage(other, Order::Stop).unwrap_err().contains("an admin's"));
        }
        assert!(scene.told.lock().unwrap().is_empty());
        let admin = &tickets[2];
        let issue = |capability| Order::Issue { capability, life_s: 60 };
        let Ok(Answer::Issued { id: 4, ticket: fresh }) = manage(admin, issue(Capability::Worker)) else {
            panic!()
        };
        assert!(matches!(scene.join(&fresh, WIRE_VERSION, 1), Ok((Answer::Pass(_), _))));
        assert!(manage(admin, issue(Capability::Admin)).unwrap_err().contains("only the machine"));
        assert!(matches!(manage(admin, Order::Revoke { id: 4 }), Ok(Answer::Done)));
        assert!(scene.reception.turn_out() && !scene.reception.admits(&WORKER));
        assert!(manage(admin, Order::Revoke { id: 9 }).unwrap_err().contains("no ticket has the number 9"));
        let Ok(Answer::Tickets { tickets: all }) = manage(admin, Order::List) else { panic!() };
        assert_eq!(all.iter().map(|known| known.revoked).collect::<Vec<_>>(), [false, false, false, true]);
        for order in [Order::Save, Order::Stop] {
            assert!(matches!(manage(admin, order), Ok(Answer::Done)));
        }
        scene.reception.note_node(NodeId(7), true);
        assert!(matches!(manage(admin, Order::Drain { node: NodeId(7) }), Ok(Answer::Done)));
        scene.reception.note_node(NodeId(7), false);
        let drain = || manage(admin, Order::Drain { node: NodeId(7) }).unwrap_err();
        assert!(drain().contains("there is no node 7: the run has none;"), "{}", drain());
        (8..12).for_each(|node| scene.reception.note_node(NodeId(node), true));
        assert!(drain().contains("there is no node 7: the run has nodes 8, 9, 10, 11;"), "{}", drain());
        let told = scene.told.lock().unwrap().clone();
        let orders: Vec<_> = told
            .iter()
            .map(|told| match told {
                Told::Ordered { ticket: 3, order, of } => (order.name(), *of),
                other => panic!("{other:?}"),
            })
            .collect();
        let done =
            [("issue", Some(4)), ("revoke", Some(4)), ("save", None), ("stop", None), ("drain", Some(7))];
        assert_eq!(orders, done);
        assert!(
            matches!(scene.join(admin, WIRE_VERSION, 1), Ok((Answer::Pass(_), _))),
            "it can do what workers' do"
        );
        Tickets::read(scene.dir.path()).unwrap().revoke(3).unwrap();
        assert!(manage(admin, Order::List).unwrap_err().contains("revoked"));
    }

    #[test]
    fn strangers_get_nothing_and_guests_only_what_is_theirs() {
        let mut scene = scene();
        std::fs::create_dir(scene.dir.path().join("data")).unwrap();
        std::fs::write(scene.dir.path().join("data").join("tokens.bin"), b"tokens").unwrap();
        let read = |path: &str| Ask::Read { path: path.to_owned(), offset: 0 };
        assert!(scene.ask(STRANGER, &read("data/tokens.bin"), &[]).unwrap_err().contains("ticket"));
        assert_eq!(scene.reception.body_bytes_max(&STRANGER), 0);
        let ticket = scene.tickets.issue(RunId(4), Capability::Worker, 60).unwrap().to_string();
        scene.join(&ticket, WIRE_VERSION, 1).unwrap();
        let (answer, piece) = scene.ask(WORKER, &read("data/tokens.bin"), &[]).unwrap();
        assert!(matches!(answer, Answer::Piece { total: 6, digest: Some(_) }) && piece == b"tokens");
        assert!(scene.ask(WORKER, &read("join/key"), &[]).unwrap_err().contains("not for nodes"));
        let write = |path: &str, total| Ask::Write {
            path: path.to_owned(),
            offset: 0,
            total,
            digest: blake3::hash(b"state").to_hex().to_string(),
        };
        let state = "state/3/stage-1-0123456789abcdef.safetensors";
        scene.reception.note_asked(WORKER, Iteration(3), StageId(1));
        assert!(matches!(scene.ask(WORKER, &write(state, 5), b"state"), Ok((Answer::Done, _))));
        assert_eq!(std::fs::read(scene.dir.path().join(state)).unwrap(), b"state");
        assert!(scene.ask(WORKER, &write(state, 1 << 30), b"state").unwrap_err().contains("longer"));
        assert!(scene.ask(WORKER, &write("data/tokens.bin", 5), b"state").unwrap_err().contains("not asked"));
        let gone = |key: PeerKey| Ask::Gone { worker: key.to_string() };
        scene.ask(GUEST, &gone(WORKER), &[]).unwrap();
        assert!(scene.ask(GUEST, &gone(STRANGER), &[]).unwrap_err().contains("not yours"));
        assert_eq!(*scene.told.lock().unwrap(), [Told::Gone(WORKER)]);
        assert!(scene.reception.answer(GUEST, b"{", &[]).unwrap_err().contains("not understood"));
    }

    #[test]
    fn a_guest_brings_what_it_was_asked_for_and_changes_nothing_that_counts() {
        let mut scene = scene();
        let ticket = scene.tickets.issue(RunId(4), Capability::Worker, 60).unwrap().to_string();
        scene.join(&ticket, WIRE_VERSION, 1).unwrap();
        let part = SavedStage { stage: StageId(1), state: Digest([5; 32]), lineage: 0 };
        let path = |iteration: u64, stage: u16, state: u8| {
            let (iteration, stage) = (Iteration(iteration), StageId(stage));
            let path = stage_path(Path::new("state"), iteration, stage, &Digest([state; 32]));
            path.to_str().unwrap().to_owned()
        };
        let bring = |path: &str, bytes: &[u8]| {
            let (path, digest) = (path.to_owned(), blake3::hash(bytes).to_hex().to_string());
            let question = Ask::Write { path, offset: 0, total: bytes.len() as u64, digest };
            scene.ask(WORKER, &question, bytes).map(drop)
        };
        let there = |path: &str| std::fs::read(scene.dir.path().join(path)).ok();
        let ask_for =
            |iteration, stage| scene.reception.note_asked(WORKER, Iteration(iteration), StageId(stage));
        assert!(bring(&path(8, 1, 5), b"state").unwrap_err().contains("not asked"), "nothing is saved");
        ask_for(8, 1);
        scene.reception.note_asked(GUEST, Iteration(8), StageId(2));
        for other in [path(7, 1, 5), path(9, 1, 5), path(8, 2, 5)] {
            assert!(bring(&other, b"state").unwrap_err().contains("not asked"), "{other}");
        }
        bring(&path(8, 1, 5), b"state").unwrap();
        bring(&path(8, 1, 5), b"state").unwrap();
        assert!(bring(&path(8, 1, 6), b"more").unwrap_err().contains("not asked"), "a second file");
        publish(scene.dir.path(), &StateManifest::new(Iteration(8), 0, vec![part])).unwrap();
        scene.reception.note_published();
        assert!(bring(&path(8, 1, 5), b"other").unwrap_err().contains("not asked"), "it counts already");
        // The run ends here, say, and is saved again: the file is there.
        ask_for(8, 1);
        bring(&path(8, 1, 5), b"other").unwrap();
        assert_eq!(there(&path(8, 1, 5)).unwrap(), b"state");
        // What an earlier save asked for is over with the next.
        ask_for(9, 1);
        assert!(bring(&path(8, 1, 6), b"other").is_err());
        bring(&path(9, 1, 6), b"next").unwrap();
        assert_eq!(there(&path(9, 1, 6)).unwrap(), b"next");
        assert!(there(&path(8, 1, 6)).is_none() && there(&path(8, 2, 5)).is_none());
    }
}
