//! Bytes of messages: an envelope with version, run, term and sender around each, bounded and checked.

use crate::message::{ToCoordinator, ToPeer, ToWorker};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use skipstone_types::{NodeId, RunId, Term};
use thiserror::Error;

/// Version of every message; peers with another one are refused.
pub const WIRE_VERSION: u16 = 14;

/// Largest encoded message, in bytes (payloads are bounded by the transport).
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A message and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope<M> {
    /// [`WIRE_VERSION`].
    pub version: u16,
    /// The run.
    pub run: RunId,
    /// The sender's term.
    pub term: Term,
    /// The sender; node 0 is the coordinator, and a worker that has no id yet.
    pub sender: NodeId,
    /// What it says.
    pub message: M,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {0} bytes is over the bound of {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// Not a message of this version.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// Another version.
    #[error(
        "the peer speaks version {0} of the protocol, we speak {WIRE_VERSION}: run the same build everywhere"
    )]
    Version(u16),
    /// Another run.
    #[error("the message is of run {0}, not of ours")]
    Run(RunId),
}

/// Kinds of messages that travel.
pub trait Message: Serialize + DeserializeOwned {}
impl Message for ToWorker {}
impl Message for ToCoordinator {}
impl Message for ToPeer {}

/// The bytes of a message.
///
/// # Errors
/// [`WireError::TooLong`] if it is over the bound.
pub fn encode<M: Message>(envelope: &Envelope<M>) -> Result<Vec<u8>, WireError> {
    let bytes = postcard::to_stdvec(envelope).map_err(|error| WireError::Malformed(error.to_string()))?;
    if bytes.len() > MESSAGE_BYTES_MAX { Err(WireError::TooLong(bytes.len())) } else { Ok(bytes) }
}

/// The message in `bytes`, if it is of this version and of `run`.
///
/// # Errors
/// See [`WireError`].
pub fn decode<M: Message>(bytes: &[u8], run: RunId) -> Result<Envelope<M>, WireError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong(bytes.len()));
    }
    // The version comes first, so that a message of another version is told from garbage.
    let (version, _) =
        postcard::take_from_bytes::<u16>(bytes).map_err(|error| WireError::Malformed(error.to_string()))?;
    if version != WIRE_VERSION {
        return Err(WireError::Version(version));
    }
    let (envelope, rest) = postcard::take_from_bytes::<Envelope<M>>(bytes)
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(WireError::Malformed(format!("{} bytes too many", rest.len())));
    }
    if envelope.run != run {
        return Err(WireError::Run(envelope.run));
    }
    Ok(envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope<ToWorker> {
        Envelope {
            version: WIRE_VERSION,
            run: RunId(7),
            term: Term(1),
            sender: NodeId(0),
            message: ToWorker::Fence { nodes: vec![NodeId(3)] },
        }
    }

    #[test]
    fn round_trip() {
        let bytes = encode(&envelope()).unwrap();
        assert_eq!(decode(&bytes, RunId(7)), Ok(envelope()));
    }

    #[test]
    fn strangers_are_refused() {
        let bytes = encode(&envelope()).unwrap();
        assert_eq!(decode::<ToWorker>(&bytes, RunId(8)), Err(WireError::Run(RunId(7))));
        let other = encode(&Envelope { version: 99, ..envelope() }).unwrap();
        assert_eq!(decode::<ToWorker>(&other, RunId(7)), Err(WireError::Version(99)));
        for end in 0..bytes.len() {
            assert!(decode::<ToWorker>(&bytes[..end], RunId(7)).is_err(), "cut at {end}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(matches!(decode::<ToWorker>(&longer, RunId(7)), Err(WireError::Malformed(_))));
    }
}
