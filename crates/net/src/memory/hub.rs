//! What the transports of a process share.

use super::endpoint::Endpoint;
use crate::{
    BindError, Frame, NetConfig, NetEvent, PeerId, Priority, SendError, queue::SendQueue, wire::Refusal,
};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A network within this process. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryHub(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    pub(super) endpoints: HashMap<String, Endpoint>,
    named: u64,
}

impl MemoryHub {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'a>(
        state: MutexGuard<'a, State>,
        wake: &Condvar,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        wake.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes an address.
    pub(super) fn open(&self, config: NetConfig, address: &str) -> Result<String, BindError> {
        let mut state = self.lock();
        let address = if address == "memory:0" {
            state.named += 1;
            format!("memory:auto-{}", state.named)
        } else {
            address.to_owned()
        };
        if state.endpoints.contains_key(&address) {
            return Err(BindError::Refused { address, source: io::ErrorKind::AddrInUse.into() });
        }
        let endpoint = Endpoint::new(config, &address);
        state.endpoints.insert(address.clone(), endpoint);
        Ok(address)
    }
}

impl State {
    /// Dials whoever `address` wants and hasn't got, if it is time.
    pub(super) fn dial_due(&mut self, address: &str, now: Instant) {
        let Some(endpoint) = self.endpoints.get(address) else { return };
        if endpoint.stopped {
            return;
        }
        let due: Vec<(PeerId, String)> = endpoint
            .wanted
            .iter()
            .filter(|(peer, wish)| now >= wish.due && endpoint.live(**peer).is_none())
            .map(|(peer, wish)| (*peer, wish.address.clone()))
            .collect();
        for (peer, target) in due {
            let result = self.link(address, peer, &target);
            let Some(endpoint) = self.endpoints.get_mut(address) else { return };
            let Some(wish) = endpoint.wanted.get_mut(&peer) else { continue };
            wish.due = now + endpoint.config.backoff_min;
            let told = result.err().map_or(String::new(), |refusal| refusal.to_string());
            if told != wish.told && !told.is_empty() {
                endpoint.notices.push_back(NetEvent::Unreachable {
                    peer,
                    address: target,
                    why: told.clone(),
                });
            }
            wish.told = told;
        }
    }

    /// Connects two endpoints.
    fn link(&mut self, near: &str, peer: PeerId, far: &str) -> Result<(), Refusal> {
        let nobody = || Refusal::Io(io::ErrorKind::ConnectionRefused.into());
        let dialler = self.endpoints.get(near).ok_or_else(nobody)?.config.clone();
        let target = self.endpoints.get_mut(far).filter(|target| !target.stopped).ok_or_else(nobody)?;
        let proof = |config: &NetConfig| config.secret.prove("memory", &[]);
        let refusal = if target.config.run != dialler.run {
            Some(Refusal::WrongRun)
        } else if target.config.id != peer || peer == dialler.id {
            Some(Refusal::WrongPeer)
        } else if proof(&target.config) != proof(&dialler) {
            Some(Refusal::BadProof)
        } else if target.forbidden.contains(&dialler.id) {
            Some(Refusal::Forbidden)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let why = refusal.to_string();
            let claimed = Some(dialler.id);
            target.notices.push_back(NetEvent::Refused { address: near.to_owned(), claimed, why });
            target.wake.notify_one();
            return Err(refusal);
        }
        let to_near = target.config.clone();
        let queue = |sender: &NetConfig| SendQueue::new(sender.control, sender.bulk);
        let far_number = target.number();
        let old = target.live(dialler.id).map(|(number, _)| number);
        if let Some(old) = old {
            target.end(old, "replaced by a newer connection", false);
        }
        let source = self.endpoints.get_mut(near).ok_or_else(nobody)?;
        let near_number = source.number();
        source.attach(near_number, peer, (far.to_owned(), far_number), queue(&to_near));
        let target = self.endpoints.get_mut(far).ok_or_else(nobody)?;
        target.attach(far_number, dialler.id, (near.to_owned(), near_number), queue(&dialler));
        Ok(())
    }

    /// Ends the connection between `near` and `peer` on both sides.
    pub(super) fn end(&mut self, near: &str, peer: PeerId, here: &str, there: &str, cut: bool) {
        let Some(endpoint) = self.endpoints.get_mut(near) else { return };
        let Some((number, connection)) = endpoint.live(peer) else { return };
        let (far, far_number) = connection.remote.clone();
        endpoint.end(number, here, cut);
        if let Some(other) = self.endpoints.get_mut(&far) {
            other.end(far_number, there, cut);
        }
    }

    /// Puts a frame into the peer's inbox.
    pub(super) fn send(
        &self,
        near: &str,
        peer: PeerId,
        frame: Frame,
        priority: Priority,
    ) -> Result<(), SendError> {
        let lost = || SendError::NotConnected(peer);
        let endpoint = self.endpoints.get(near).ok_or_else(lost)?;
        frame.check_size(endpoint.config.max_header, endpoint.config.max_payload)?;
        let (_, connection) = endpoint.live(peer).ok_or_else(lost)?;
        let (far, number) = &connection.remote;
        let other = self.endpoints.get(far).ok_or_else(lost)?;
        other.connections.get(number).ok_or_else(lost)?.inbox.push(peer, frame, priority)?;
        other.wake.notify_one();
        Ok(())
    }
}
