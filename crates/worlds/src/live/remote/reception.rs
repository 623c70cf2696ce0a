//! Answers what machines ask of a run.

use super::ask::{Answer, Ask, RunPass};
use super::files::{digest_of, may_read, may_write, read_piece, write_piece};
use super::guests::Guests;
use super::manage::{Order, carry_out};
use super::places::Places;
use super::tickets::now_unix_s;
use super::{Capability, Ticket, Tickets};
use skipstone_net::{BODY_BYTES_MAX, EndpointKey, PeerKey, RequestHandler};
use skipstone_observe::RunInfo;
use skipstone_protocol::WIRE_VERSION;
use skipstone_types::NodeId;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most nodes of one machine.
pub(super) const WORKERS_MAX: usize = 64;

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
        Self { dir, key, pass, guests, state_bytes_max, tell, managing, nodes, places }
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

    fn has_node(&self, node: NodeId) -> bool {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    /// Whether the owner of this key was let in.
    pub(in crate::live) fn admits(&self, key: &PeerKey) -> bool {
        self.guests().get(key).is_some()
    }

    /// Turns out who came with a ticket that was revoked since; whether there was anybody.
    pub(in crate::live) fn turn_out(&self) -> bool {
        // A list that can't be read just now turns nobody out.
        Tickets::standing(&self.dir).is_some_and(|standing| self.guests().keep_only(&standing))
    }

    /// The ticket, if it holds.
    fn check(&self, ticket: &str) -> Result<Ticket, String> {
        let ticket: Ticket = ticket.parse().map_err(|why: super::TicketError| why.to_string())?;
        if ticket.run != self.pass().run || !ticket.is_of(&self.key) {
            return Err("this ticket is of another run".to_owned());
        }
        match Tickets::known(&self.dir, ticket.id) {
            None => Err("this ticket is not known here; ask for a new one".to_owned()),
            Some(known) if known.revoked => Err("this ticket was revoked; ask for a new one".to_owned()),
            Some(known) if known.expires_unix_s <= now_unix_s() => {
                Err("this ticket has expired; ask for a new one".to_owned())
            }
            Some(_) => Ok(ticket),
        }
    }

    /// The event log from a byte on, for whoever has a ticket of any kind.
    fn watch(&self, ticket: &str, offset: u64) -> Result<(Answer, Vec<u8>), String> {
        self.check(ticket)?;
        let failed = |why: std::io::Error| format!("the run's log can't be read: {why}");
        let (piece, total) = read_piece(&self.dir.join("events.jsonl"), offset).map_err(failed)?;
        let info = self.info().map_err(|why| why.to_string())?;
        Ok((Answer::Log { info: Box::new(info), total }, piece))
    }

    /// Carries an order out, for whoever has an admin's ticket.
    fn manage(&self, ticket: &str, order: Order) -> Result<Answer, String> {
        let ticket = self.check(ticket)?;
        if ticket.capability != Capability::Admin {
            return Err("this ticket is not for that: one is issued where the run is, by `skipstone tickets --new --for admin`".to_owned());
        }
        let _alone = self.managing.lock().unwrap_or_else(PoisonError::into_inner);
        let run = self.pass().run;
        if let Order::Drain { node } = order
            && !self.has_node(node)
        {
            return Err(format!(
                "there is no node {}; `skipstone watch` with the same ticket tells which there are",
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
        let ticket = self.check(ticket)?;
        if ticket.capability == Capability::Viewer {
            return Err("this ticket is for watching only: `skipstone watch TICKET`".to_owned());
        }
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
        let keys = workers.iter().map(|key| key.parse()).collect::<Result<Vec<PeerKey>, _>>();
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
            Ask::Write { path, offset, total, digest } if may_write(&path) => {
                if total > self.state_bytes_max {
                    return Err(format!("{path} is longer than any state of this run"));
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
            Ask::Read { path, .. } | Ask::Write { path, .. } => {
                Err(format!("{path} is not for nodes of other machines"))
            }
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
    use super::*;
    use crate::config::RunConfig;
    use skipstone_net::{InternetReach, Relays};
    use skipstone_types::RunId;
    use std::sync::Arc;

    struct Scene {
        dir: tempfile::TempDir,
        tickets: Tickets,
        reception: Reception,
        told: Arc<Mutex<Vec<Told>>>,
    }

    const GUEST: PeerKey = PeerKey([1; 32]);
    const WORKER: PeerKey = PeerKey([2; 32]);
    const STRANGER: PeerKey = PeerKey([9; 32]);

    fn scene() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let mut tickets = Tickets::open(dir.path()).unwrap();
        let host = InternetReach { key: tickets.key().public(), ways: Vec::new() };
        tickets.set_host(&host, &Relays::None).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let pass = RunPass {
            run: RunId(4),
            secret: "secret".to_owned(),
            coordinator: String::new(),
            config: RunConfig::default(),
            vocabulary: 256,
            places: Vec::new(),
        };
        let reception = Reception::new(
            dir.path().to_owned(),
            tickets.key().clone(),
            pass,
            1000,
            Box::new(move |what| heard.lock().unwrap().push(what)),
            None,
        );
        Scene { dir, tickets, reception, told }
    }

    impl Scene {
        fn ask(&self, from: PeerKey, question: &Ask, body: &[u8]) -> Result<(Answer, Vec<u8>), String> {
            let (head, body) = self.reception.answer(from, &serde_json::to_vec(question).unwrap(), body)?;
            Ok((serde_json::from_slice(&head).unwrap(), body))
        }

        fn join(&self, ticket: &str, wire: u16, workers: usize) -> Result<(Answer, Vec<u8>), String> {
            let question = Ask::Join {
                ticket: ticket.to_owned(),
                version: "0".to_owned(),
                wire,
                workers: vec![WORKER.to_string(); workers],
                region: None,
            };
            self.ask(GUEST, &question, &[])
        }
    }

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
        assert!(scene.join(&ticket.to_string(), WIRE_VERSION, 1).unwrap_err().contains("watching only"));
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
            assert!(manage(other, Order::Stop).unwrap_err().contains("not for that"));
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
        assert!(manage(admin, Order::Drain { node: NodeId(7) }).unwrap_err().contains("there is no node 7"));
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
        assert!(matches!(scene.ask(WORKER, &write(state, 5), b"state"), Ok((Answer::Done, _))));
        assert_eq!(std::fs::read(scene.dir.path().join(state)).unwrap(), b"state");
        assert!(scene.ask(WORKER, &write(state, 1 << 30), b"state").unwrap_err().contains("longer"));
        assert!(scene.ask(WORKER, &write("data/tokens.bin", 5), b"state").is_err());
        let gone = |key: PeerKey| Ask::Gone { worker: key.to_string() };
        scene.ask(GUEST, &gone(WORKER), &[]).unwrap();
        assert!(scene.ask(GUEST, &gone(STRANGER), &[]).unwrap_err().contains("not yours"));
        assert_eq!(*scene.told.lock().unwrap(), [Told::Gone(WORKER)]);
        assert!(scene.reception.answer(GUEST, b"{", &[]).unwrap_err().contains("not understood"));
    }
}
