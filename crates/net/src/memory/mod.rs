//! Frames between transports of one process, without sockets: for tests and for worlds in one process.

mod endpoint;
mod hub;

pub use hub::MemoryHub;

use crate::{
    BindError, Frame, NetConfig, NetEvent, PeerId, Priority, SendError, Transport, event::EventSink,
};
use endpoint::{Endpoint, Step};
use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A [`Transport`] that hands frames to other transports on the same [`MemoryHub`]. Keeps the promises of
/// [`StreamTransport`](crate::StreamTransport), the check of run and secret included. Tensors are shared, not copied.
pub struct MemoryTransport {
    hub: MemoryHub,
    address: String,
    deliverer: Option<JoinHandle<()>>,
}

impl MemoryTransport {
    /// Takes `address` on the hub (any text; `memory:0` takes a free one). `sink` gets every event, from the
    /// transport's own thread.
    pub fn bind(
        hub: &MemoryHub,
        config: NetConfig,
        address: &str,
        sink: impl Fn(NetEvent) + Send + Sync + 'static,
    ) -> Result<Self, BindError> {
        let address = hub.open(config, address)?;
        let (for_thread, at) = (hub.clone(), address.clone());
        let deliverer = thread::Builder::new()
            .name("skipstone-memory-net".to_owned())
            .spawn(move || deliver(&for_thread, &at, &(Arc::new(sink) as EventSink)))
            .map_err(|error| {
                hub.lock().endpoints.remove(&address);
                BindError::Threads(error)
            })?;
        Ok(Self { hub: hub.clone(), address, deliverer: Some(deliverer) })
    }

    /// Changes this endpoint, and has its thread look at it again.
    fn with<T>(&self, change: impl FnOnce(&mut Endpoint) -> T) -> Option<T> {
        let mut state = self.hub.lock();
        let endpoint = state.endpoints.get_mut(&self.address)?;
        let result = change(endpoint);
        endpoint.wake.notify_one();
        Some(result)
    }
}

/// Tells the events of the endpoint at `address`, one after the other, until it is stopped.
fn deliver(hub: &MemoryHub, address: &str, sink: &EventSink) {
    let mut state = hub.lock();
    loop {
        let now = Instant::now();
        state.dial_due(address, now);
        let Some(endpoint) = state.endpoints.get_mut(address) else { return };
        match endpoint.step(now) {
            Step::Tell(event) => {
                drop(state);
                sink(event);
                state = hub.lock();
            }
            Step::Wait(time) => {
                let wake = endpoint.wake.clone();
                state = MemoryHub::wait(state, &wake, time);
            }
            Step::Stop => {
                state.endpoints.remove(address);
                return;
            }
        }
    }
}

impl Transport for MemoryTransport {
    fn connect(&self, peer: PeerId, address: &str) {
        self.with(|endpoint| endpoint.want(peer, address));
    }

    fn disconnect(&self, peer: PeerId) {
        self.with(|endpoint| endpoint.wanted.remove(&peer));
        self.hub.lock().end(
            &self.address,
            peer,
            "disconnected by this side",
            "closed by the other end",
            false,
        );
    }

    fn forbid(&self, peer: PeerId) {
        self.with(|endpoint| {
            endpoint.wanted.remove(&peer);
            endpoint.forbidden.insert(peer);
        });
        self.hub.lock().end(&self.address, peer, "cut off by this side", "the other end is gone", true);
    }

    fn send(&self, peer: PeerId, frame: Frame, priority: Priority) -> Result<(), SendError> {
        self.hub.lock().send(&self.address, peer, frame, priority)
    }

    fn silence(&self, peer: PeerId) -> Option<Duration> {
        self.with(|endpoint| Some(endpoint.live(peer)?.1.heard.elapsed())).flatten()
    }

    fn local_address(&self) -> String {
        self.address.clone()
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        {
            // In one go: whoever wants us must not find us again once the connection has ended.
            let mut state = self.hub.lock();
            let peers = state.endpoints.get_mut(&self.address).map(Endpoint::stop).unwrap_or_default();
            for peer in peers {
                state.end(&self.address, peer, "the transport was closed", "closed by the other end", false);
            }
        }
        // A transport that is dropped by its own sink can't wait for itself.
        if let Some(thread) = self.deliverer.take()
            && thread.thread().id() != thread::current().id()
        {
            drop(thread.join());
        }
    }
}
