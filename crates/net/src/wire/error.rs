//! Why a connection is closed or refused.

use super::{MAX_CHUNK, VERSION};
use std::io;

/// What is wrong with the bytes that a peer sent. Ends that peer's connection.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream ended between two records.
    #[error("the connection was closed by the other end")]
    Closed,
    /// The stream ended within a record.
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    /// The system gave up on the connection.
    #[error("the connection broke: {0}")]
    Io(io::Error),
    /// The head doesn't match its checksum: bytes were altered, or this is not our format.
    #[error("a frame's head is corrupt (checksum)")]
    CorruptHead,
    /// Header or payload don't match their checksum.
    #[error("a frame's contents are corrupt (checksum)")]
    CorruptBody,
    /// Records were lost, repeated or reordered.
    #[error("frame out of order: number {got} came where {expected} was due")]
    OutOfOrder {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// The frame's header is larger than we take.
    #[error("a frame header of {bytes} bytes is above the limit of {limit} bytes")]
    HeaderTooLong {
        /// Announced size.
        bytes: u64,
        /// Our limit.
        limit: usize,
    },
    /// The payload is larger than we take.
    #[error("a payload of {bytes} bytes is above the limit of {limit} bytes")]
    PayloadTooLong {
        /// Announced size.
        bytes: u64,
        /// Our limit.
        limit: usize,
    },
    /// A piece is larger than any sender may make it.
    #[error("a piece of {0} bytes is above the limit of {MAX_CHUNK} bytes")]
    ChunkTooLong(u32),
    /// A field holds a value that has no meaning, or contradicts an earlier one.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
}

impl WireError {
    pub(crate) fn io(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Io(source) }
    }
}

/// Why a handshake failed. Those with a code are told to the other side as well.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not one of us at all.
    #[error("it doesn't speak Skipstone's protocol (wrong first bytes)")]
    NotSkipstone,
    /// Another version of the wire format.
    #[error(
        "it speaks version {theirs} of the wire format and this is version {VERSION}: use the same release of skipstone everywhere"
    )]
    Version {
        /// The version that the other side named.
        theirs: u16,
    },
    /// Another run.
    #[error("it belongs to another run")]
    WrongRun,
    /// The dialled address belongs to another peer, or a peer dialled itself.
    #[error("another peer than the one that was called lives at this address")]
    WrongPeer,
    /// It doesn't know the secret.
    #[error("it doesn't know the run's secret")]
    BadProof,
    /// The peer was cut off with `forbid`.
    #[error("it has been cut off from the run")]
    Forbidden,
    /// Both sides dialled at once, and the other connection stays.
    #[error("another connection to the same peer was made first")]
    Duplicate,
    /// The transport is about to end.
    #[error("it is closing down")]
    Closing,
    /// Too many unproven connections.
    #[error("too many connections are waiting to prove themselves")]
    Busy,
    /// The other side was silent for too long.
    #[error("it didn't prove itself in time")]
    TimedOut,
    /// The other side closed the connection before the end of the handshake.
    #[error("it hung up before it had proven itself")]
    HungUp,
    /// The other side refused us.
    #[error("the other side refused: {}", told(*.0))]
    ByPeer(u8),
    /// The system couldn't connect or gave up on the connection.
    #[error("{0}")]
    Io(io::Error),
}

/// Codes on the wire.
pub(crate) const OK: u8 = 0;

impl Refusal {
    /// The code that tells the other side.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Version { .. } => 1,
            Self::WrongRun => 2,
            Self::WrongPeer => 3,
            Self::BadProof => 4,
            Self::Forbidden => 5,
            Self::Duplicate => 6,
            Self::Closing => 7,
            _ => 8,
        }
    }

    /// Whether whoever answered for the peer's key is not the process that we knew: it belongs to another life of the run.
    pub(crate) fn of_another_life(&self) -> bool {
        let codes = [Self::WrongRun.code(), Self::WrongPeer.code(), Self::BadProof.code()];
        match self {
            Self::WrongRun | Self::WrongPeer | Self::BadProof => true,
            Self::ByPeer(code) => codes.contains(code),
            _ => false,
        }
    }

    pub(crate) fn io(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::HungUp
            }
            _ => Self::Io(source),
        }
    }
}

/// What a refusal code of the other side means.
fn told(code: u8) -> &'static str {
    match code {
        1 => "it speaks another version of the wire format",
        2 => "it belongs to another run",
        3 => "it isn't the peer that was called",
        4 => "it says that we don't know the run's secret",
        5 => "we have been cut off from the run",
        6 => "it has another connection to us",
        7 => "it is closing down",
        _ => "for a reason of its own",
    }
}
