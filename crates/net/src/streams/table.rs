//! Who is wanted, who is connected, who is forbidden.

use super::link::{Close, Link};
use crate::{PeerId, wire::Refusal};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Mutex as Turn, task::AbortHandle};

/// When both sides dial at once, the second connection comes within this time of the first. A later one means
/// that the peer has lost the first, and replaces it.
const CROSSING: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Table {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    peers: HashMap<PeerId, Entry>,
    forbidden: HashSet<PeerId>,
    closing: bool,
}

#[derive(Default)]
struct Entry {
    /// Where the peer is to be dialled, and the task that does.
    wanted: Option<(String, AbortHandle)>,
    link: Option<Arc<Link>>,
    /// Held by the link whose events are being told: a peer's `Up` … `Down` never overlap.
    turn: Arc<Turn<()>>,
}

/// Who decides about a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judge {
    /// We do, and the peer dialled.
    Listener,
    /// We do, and we dialled.
    Dialler,
    /// The other side does, and has accepted it.
    Peer,
}

impl Table {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `peer` is wanted; `dial` starts the task that dials.
    pub(crate) fn want(&self, peer: PeerId, address: &str, dial: impl FnOnce() -> AbortHandle) {
        let mut inner = self.inner();
        if inner.closing {
            return;
        }
        inner.forbidden.remove(&peer);
        let entry = inner.peers.entry(peer).or_default();
        if let Some((current, task)) = &mut entry.wanted {
            if current == address {
                return;
            }
            task.abort();
        }
        // The task asks for its address under this lock, so it can't be too early.
        entry.wanted = Some((address.to_owned(), dial()));
    }

    pub(crate) fn unwant(&self, peer: PeerId, how: Close) {
        self.inner().drop_peer(peer, how);
    }

    pub(crate) fn forbid(&self, peer: PeerId, how: Close) {
        let mut inner = self.inner();
        inner.forbidden.insert(peer);
        inner.drop_peer(peer, how);
    }

    /// Where to dial `peer`; `None` if it isn't wanted any more.
    pub(crate) fn address(&self, peer: PeerId) -> Option<String> {
        Some(self.inner().peers.get(&peer)?.wanted.as_ref()?.0.clone())
    }

    /// The connection to send on.
    pub(crate) fn link(&self, peer: PeerId) -> Option<Arc<Link>> {
        self.inner().peers.get(&peer)?.link.clone()
    }

    /// Whether a connection with `peer` may be made at all.
    pub(crate) fn admits(&self, peer: PeerId) -> Result<(), Refusal> {
        self.inner().admits(peer)
    }

    /// Makes `link` the connection to its peer, unless the one that there is should stay. The answer is to be
    /// held while events are told.
    pub(crate) fn install(&self, link: &Arc<Link>, judge: Judge) -> Result<Arc<Turn<()>>, Refusal> {
        let mut inner = self.inner();
        inner.admits(link.peer())?;
        let entry = inner.peers.entry(link.peer()).or_default();
        if let Some(old) = &entry.link {
            let same_life = old.who.incarnation == link.who.incarnation;
            let stays = same_life
                && match judge {
                    Judge::Listener => old.born.elapsed() < CROSSING,
                    Judge::Dialler => true,
                    Judge::Peer => old.number > link.number,
                };
            if stays {
                return Err(Refusal::Duplicate);
            }
            old.close(Close::Now("replaced by a newer connection"));
        }
        entry.link = Some(link.clone());
        Ok(entry.turn.clone())
    }

    /// Takes `link` out, so that nothing more is sent on it.
    pub(crate) fn remove(&self, link: &Link) {
        let mut inner = self.inner();
        if let Some(entry) = inner.peers.get_mut(&link.peer())
            && entry.link.as_ref().is_some_and(|current| current.connection == link.connection)
        {
            entry.link = None;
        }
    }

    /// Forgets `peer` if there is nothing to remember.
    pub(crate) fn tidy(&self, peer: PeerId) {
        let mut inner = self.inner();
        if inner.peers.get(&peer).is_some_and(|entry| {
            entry.wanted.is_none() && entry.link.is_none() && Arc::strong_count(&entry.turn) == 1
        }) {
            inner.peers.remove(&peer);
        }
    }

    /// Ends everything for good; answers with the connections that are ending.
    pub(crate) fn close(&self, how: Close) -> Vec<Arc<Link>> {
        let mut inner = self.inner();
        inner.closing = true;
        let links = inner.peers.values().filter_map(|entry| entry.link.clone()).collect();
        let peers: Vec<PeerId> = inner.peers.keys().copied().collect();
        for peer in peers {
            inner.drop_peer(peer, how);
        }
        links
    }
}

impl Inner {
    fn admits(&self, peer: PeerId) -> Result<(), Refusal> {
        if self.closing {
            Err(Refusal::Closing)
        } else if self.forbidden.contains(&peer) {
            Err(Refusal::Forbidden)
        } else {
            Ok(())
        }
    }

    /// Stops dialling `peer` and closes its connection. The link's task tells `Down` in its own time.
    fn drop_peer(&mut self, peer: PeerId, how: Close) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if let Some((_, task)) = entry.wanted.take() {
            task.abort();
        }
        if let Some(link) = entry.link.take() {
            link.close(how);
        }
        if Arc::strong_count(&entry.turn) == 1 {
            self.peers.remove(&peer);
        }
    }
}
