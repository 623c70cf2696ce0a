//! What all tasks of a transport share.

use super::faults::Cuts;
use super::table::Table;
use crate::{
    LinkShape, NetConfig, NetEvent, PeerId, Reach, event::EventSink, secret, wire::handshake::Myself,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// At most so many refusals a second become events; a scanner must not flood the driver.
const REFUSALS_PER_SECOND: u32 = 20;

pub(crate) struct Shared {
    pub(crate) config: NetConfig,
    reach: Reach,
    #[cfg(feature = "iroh")]
    endpoint: Option<iroh::Endpoint>,
    pub(crate) handle: Handle,
    pub(crate) table: Table,
    pub(crate) cuts: Cuts,
    incarnation: u64,
    connections: AtomicU64,
    sink: EventSink,
    refusals: Mutex<(Instant, u32)>,
}

impl Shared {
    pub(crate) fn new(config: NetConfig, reach: Reach, sink: EventSink, handle: Handle) -> Self {
        Self {
            config,
            reach,
            #[cfg(feature = "iroh")]
            endpoint: None,
            handle,
            table: Table::default(),
            cuts: Cuts::default(),
            incarnation: u64::from_le_bytes(secret::random()),
            connections: AtomicU64::new(0),
            sink,
            refusals: Mutex::new((Instant::now(), 0)),
        }
    }

    /// Gives it a way to other machines.
    #[cfg(feature = "iroh")]
    pub(crate) fn with_endpoint(self, endpoint: iroh::Endpoint) -> Self {
        Self { endpoint: Some(endpoint), ..self }
    }

    /// The way to other machines.
    #[cfg(feature = "iroh")]
    pub(crate) fn endpoint(&self) -> Option<iroh::Endpoint> {
        self.endpoint.clone()
    }

    /// Where this process is, as far as it is known now.
    pub(crate) fn reach(&self) -> Reach {
        #[cfg(feature = "iroh")]
        if let Some(endpoint) = &self.endpoint {
            let relays = self.config.door.as_ref().map(|door| &door.relays);
            let internet = relays.map(|relays| crate::internet::reach_of(&endpoint.addr(), relays));
            return Reach { internet, ..self.reach.clone() };
        }
        self.reach.clone()
    }

    pub(crate) fn myself(&self) -> Myself<'_> {
        Myself { config: &self.config, incarnation: self.incarnation }
    }

    pub(crate) fn emit(&self, event: NetEvent) {
        (self.sink)(event);
    }

    /// As [`emit`](Self::emit), for refusals.
    pub(crate) fn emit_refusal(&self, event: NetEvent) {
        {
            let mut guard = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if guard.0.elapsed() > Duration::from_secs(1) {
                *guard = (Instant::now(), 0);
            }
            guard.1 += 1;
            if guard.1 > REFUSALS_PER_SECOND {
                return;
            }
        }
        self.emit(event);
    }

    /// How the link to `peer` is shaped, if it is.
    pub(crate) fn shape(&self, peer: PeerId) -> Option<LinkShape> {
        self.config.shapes.as_ref().and_then(|shapes| shapes.of(peer))
    }

    /// The number of the next connection.
    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }
}
