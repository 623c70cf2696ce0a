//! What machines that measure their links say to each other: JSON in the headers of frames.

use serde::{Deserialize, Serialize};
use skipstone_net::PeerId;

/// Longest name of a region.
pub(super) const REGION_BYTES_MAX: usize = 64;

/// A machine that takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Its name in the transport.
    pub(super) peer: u64,
    /// Where it is reached.
    pub(super) address: String,
    /// Its region.
    pub(super) region: String,
}

impl Member {
    pub(super) fn id(&self) -> PeerId {
        PeerId(self.peer)
    }
}

/// Times there and back to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct RoundTrips {
    /// How many.
    pub(super) count: u32,
    /// The shortest, in seconds.
    pub(super) least_s: f64,
    /// Their mean, in seconds.
    pub(super) mean_s: f64,
}

/// How long a load was under way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Load {
    /// Bytes.
    pub(super) bytes: u64,
    /// Seconds from its first byte until its last, where it arrived.
    pub(super) seconds: f64,
}

impl Load {
    /// Bytes per second.
    pub(super) fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.seconds.max(1e-6)
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Word {
    /// To the host: I am here.
    Here(Member),
    /// From the host: you can't take part.
    Refused(String),
    /// From the host: these take part; connect to those before you.
    Members(Vec<Member>),
    /// To the host: I have a connection to each of them. From the host: listen for a while, and say what you have heard.
    Ready,
    /// To the host: times there and back to each.
    Heard(Vec<(u64, RoundTrips)>),
    /// From the host: send to this one.
    Send(u64),
    /// To the host: how fast that was.
    Sent(Load),
    /// A load is in the payload.
    Load,
    /// It was under way for so long.
    Took(Load),
    /// From the host: it is done.
    Done,
}
