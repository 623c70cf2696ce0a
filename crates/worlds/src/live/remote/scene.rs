//! What tests of the reception, and of those who ask it, begin with.

use super::Tickets;
use super::ask::{Answer, Ask, RunPass};
use super::reception::{Reception, Told};
use crate::config::RunConfig;
use skipstone_net::{InternetReach, PeerKey, Relays, RequestHandler};
use skipstone_types::RunId;
use std::sync::{Arc, Mutex};

/// A run's reception without a run.
pub(super) struct Scene {
    pub(super) dir: tempfile::TempDir,
    pub(super) tickets: Tickets,
    pub(super) reception: Arc<Reception>,
    pub(super) told: Arc<Mutex<Vec<Told>>>,
}

pub(super) const GUEST: PeerKey = PeerKey([1; 32]);
pub(super) const WORKER: PeerKey = PeerKey([2; 32]);
pub(super) const STRANGER: PeerKey = PeerKey([9; 32]);

/// That of run 4, which has issued no ticket.
pub(super) fn scene() -> Scene {
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
    Scene { dir, tickets, reception: Arc::new(reception), told }
}

impl Scene {
    pub(super) fn ask(
        &self,
        from: PeerKey,
        question: &Ask,
        body: &[u8],
    ) -> Result<(Answer, Vec<u8>), String> {
        let (head, body) = self.reception.answer(from, &serde_json::to_vec(question).unwrap(), body)?;
        Ok((serde_json::from_slice(&head).unwrap(), body))
    }

    pub(super) fn join(&self, ticket: &str, wire: u16, workers: usize) -> Result<(Answer, Vec<u8>), String> {
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
