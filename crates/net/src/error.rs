//! What can go wrong before a byte is sent.

use crate::PeerId;
use std::io;

/// A frame was not queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection to the peer now.
    #[error("not connected to {0}")]
    NotConnected(PeerId),
    /// The peer's queue holds as much as it may; send again when it has drained.
    #[error("the queue for {peer} is full: {frames} frames of together {bytes} bytes wait to be sent")]
    QueueFull {
        /// Whose queue.
        peer: PeerId,
        /// Frames that wait.
        frames: usize,
        /// Bytes that wait.
        bytes: usize,
    },
    /// The frame is larger than any receiver would take.
    #[error("a frame's {part} of {bytes} bytes is above the limit of {limit} bytes")]
    TooLarge {
        /// `header` or `payload`.
        part: &'static str,
        /// Its size.
        bytes: usize,
        /// The largest size allowed.
        limit: usize,
    },
}

/// A transport can't listen at the address it was given.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Someone else listens there.
    #[error(
        "port {port} of {host} is already in use: stop the process that listens there, or choose another port \
         (port 0 takes any free one)"
    )]
    PortInUse {
        /// The host or interface.
        host: String,
        /// The port.
        port: u16,
    },
    /// The text is not an address.
    #[error(
        "'{address}' is not an address to listen at: write it as IP:PORT, for example 127.0.0.1:0 ({why})"
    )]
    BadAddress {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// Any other refusal of the operating system.
    #[error("can't listen at {address}: {source}{}", remedy(source))]
    Refused {
        /// What was given.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The part that goes over the internet can't be opened.
    #[error("can't open a socket for other machines: {0}")]
    Internet(String),
    /// The transport's threads can't be started.
    #[error("can't start the network threads: {0}")]
    Threads(io::Error),
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (ports below 1024 need privileges: choose a higher one)",
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)",
        _ => "",
    }
}
