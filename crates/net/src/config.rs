//! Settings of a transport, with defaults that suit one machine.

use crate::{LinkShapes, PeerId, RunSecret};
use std::time::Duration;

/// How much may wait to be sent to one peer at one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLimits {
    /// Frames.
    pub frames: usize,
    /// Bytes of headers and payloads. A single frame above it is still taken when nothing else waits.
    pub bytes: usize,
}

/// Settings of a transport.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// Who we are.
    pub id: PeerId,
    /// The run; peers of another run are refused.
    pub run: u64,
    /// What all peers of the run know.
    pub secret: RunSecret,
    /// The largest frame header, sent or received (1 MiB).
    pub max_header: usize,
    /// The largest payload, sent or received (1 GiB).
    pub max_payload: usize,
    /// What may wait for one peer as control frames (4096 frames, 64 MiB).
    pub control: LaneLimits,
    /// What may wait for one peer as bulk frames (1024 frames, 512 MiB).
    pub bulk: LaneLimits,
    /// A large payload goes out in pieces of this size, so that control frames can get in between (256 KiB).
    pub chunk: usize,
    /// A ping goes to every peer this often (100 ms).
    pub heartbeat_interval: Duration,
    /// A connection on which nothing at all came for so long is closed, to free what it holds; failure detectors
    /// decide much earlier (60 s).
    pub silence_limit: Duration,
    /// A handshake has to be over by then (5 s).
    pub handshake_timeout: Duration,
    /// At most so many connections may be in a handshake at once (64).
    pub max_unauthenticated: usize,
    /// The first pause before dialling again (25 ms); pauses double and are jittered.
    pub backoff_min: Duration,
    /// The longest pause before dialling again (1 s).
    pub backoff_max: Duration,
    /// How long a closing connection may take to send what is queued (500 ms).
    pub linger: Duration,
    /// Socket buffers in bytes (256 KiB). What the system has taken can't be overtaken: on loopback a control
    /// frame behind bulk frames waits 1–2 ms with 256 KiB, and 7–20 ms with buffers that the system chooses
    /// (`None`), for the same throughput. Long links need `None`, or bandwidth × round trip.
    pub socket_buffer: Option<u32>,
    /// Shapes of links, where processes of one machine are to be as far apart as others (none).
    pub shapes: Option<LinkShapes>,
    /// The number of this machine: processes with the same one reach each other over loopback (0: there is one machine).
    pub machine: u64,
    /// The way to other machines (none).
    #[cfg(feature = "iroh")]
    pub door: Option<crate::Door>,
    /// Threads that move bytes (1: a second one costs more in wake-ups than it brings, until many cores idle).
    pub threads: usize,
}

impl NetConfig {
    /// The defaults.
    pub fn new(id: PeerId, run: u64, secret: RunSecret) -> Self {
        Self {
            id,
            run,
            secret,
            max_header: 1 << 20,
            max_payload: 1 << 30,
            control: LaneLimits { frames: 4096, bytes: 64 << 20 },
            bulk: LaneLimits { frames: 1024, bytes: 512 << 20 },
            chunk: 256 << 10,
            heartbeat_interval: Duration::from_millis(100),
            silence_limit: Duration::from_mins(1),
            handshake_timeout: Duration::from_secs(5),
            max_unauthenticated: 64,
            backoff_min: Duration::from_millis(25),
            backoff_max: Duration::from_secs(1),
            linger: Duration::from_millis(500),
            socket_buffer: Some(256 << 10),
            shapes: None,
            machine: 0,
            #[cfg(feature = "iroh")]
            door: None,
            threads: 1,
        }
    }
}
