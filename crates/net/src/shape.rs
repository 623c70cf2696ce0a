//! Links that behave as if they were long: latency and bandwidth between processes that share a machine.

use crate::PeerId;
use std::{fmt, sync::Arc, time::Duration};

/// How one directed link behaves. What is sent on it arrives `latency + bytes / bandwidth` later.
///
/// The sender holds each piece back until its time has come, so nothing else waits for it, order is kept, and what
/// waits counts against the bounds of the sender's queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkShape {
    /// How long everything is under way, one way: control frames, heartbeats and the end of a connection too.
    pub latency: Duration,
    /// Bytes per second of a tensor's way; above 0.
    pub bandwidth_bytes_per_s: f64,
    /// What a tensor takes beside latency and bytes.
    pub overhead: Duration,
    /// Whether tensors wait for each other's bytes; if not, each has the bandwidth to itself, but for the order in which
    /// they were sent.
    pub serial: bool,
}

impl LinkShape {
    /// How long `bytes` take beside the latency.
    pub(crate) fn sending(&self, bytes: usize) -> Duration {
        Duration::try_from_secs_f64(bytes as f64 / self.bandwidth_bytes_per_s).unwrap_or(Duration::MAX / 4)
    }

    /// Ways that a connection costs before anything is heard on it: one and a half for TCP, two for the handshake.
    pub(crate) fn connecting(&self) -> Duration {
        self.latency * 4
    }
}

/// The shapes of a process's links, by peer. Both ends of a connection shape what they send.
#[derive(Clone)]
pub struct LinkShapes(Arc<dyn Fn(PeerId) -> Option<LinkShape> + Send + Sync>);

impl LinkShapes {
    /// Links are as `of` says; with none they are as fast as they can be.
    pub fn new(of: impl Fn(PeerId) -> Option<LinkShape> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    /// The shape of the link to `peer`.
    pub fn of(&self, peer: PeerId) -> Option<LinkShape> {
        (self.0)(peer)
    }
}

impl fmt::Debug for LinkShapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkShapes")
    }
}
