//! What all tasks of a transport share.

use super::faults::Cuts;
use super::table::Table;
use crate::{LinkShape, NetConfig, NetEvent, PeerId, event::EventSink, secret, wire::handshake::Myself};
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
    pub(crate) address: String,
    pub(crate) handle: Handle,
    pub(crate) table: Table,
    pub(crate) cuts: Cuts,
    incarnation: u64,
    connections: AtomicU64,
    sink: EventSink,
    refusals: Mutex<(Instant, u32)>,
}

impl Shared {
    pub(crate) fn new(config: NetConfig, address: String, sink: EventSink, handle: Handle) -> Self {
        Self {
            config,
            address,
            handle,
            table: Table::default(),
            cuts: Cuts::default(),
            incarnation: u64::from_le_bytes(secret::random()),
            connections: AtomicU64::new(0),
            sink,
            refusals: Mutex::new((Instant::now(), 0)),
        }
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
