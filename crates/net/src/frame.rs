//! What is sent: frames, and to whom.

use crate::SendError;
use bytes::Bytes;
use std::{fmt, sync::Arc};

/// The name that a peer gives when it introduces itself (a node's id; 0 is the coordinator). Opaque here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// Which of a connection's two queues a frame waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Small and urgent. Overtakes bulk frames, between the pieces of a large one if need be.
    Control,
    /// Tensors.
    Bulk,
}

impl Priority {
    /// Both, the urgent one first.
    pub const ALL: [Self; 2] = [Self::Control, Self::Bulk];

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// One message: protocol bytes, and the tensor that goes with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The encoded protocol message; small.
    pub header: Bytes,
    /// The tensor's bytes.
    pub payload: Payload,
}

impl Frame {
    /// A frame without a payload.
    pub fn message(header: impl Into<Bytes>) -> Self {
        Self { header: header.into(), payload: Payload::Empty }
    }

    /// A frame that carries `values`; they are sent from where they lie.
    pub fn tensor(header: impl Into<Bytes>, values: Arc<Vec<f32>>) -> Self {
        Self { header: header.into(), payload: Payload::F32(values) }
    }

    /// Bytes of header and payload.
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// Whether there is neither header nor payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses what no receiver would take.
    pub(crate) fn check_size(&self, max_header: usize, max_payload: usize) -> Result<(), SendError> {
        let parts = [("header", self.header.len(), max_header), ("payload", self.payload.len(), max_payload)];
        for (part, bytes, limit) in parts {
            if bytes > limit {
                return Err(SendError::TooLarge { part, bytes, limit });
            }
        }
        Ok(())
    }
}

/// The bulk of a frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Payload {
    /// Nothing.
    #[default]
    Empty,
    /// Numbers; sent without a copy, received into a vector of their own.
    F32(Arc<Vec<f32>>),
    /// Anything else (compressed tensors, text).
    Bytes(Bytes),
}

impl Payload {
    /// The bytes as they go over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::F32(values) => bytemuck::cast_slice(values.as_slice()),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
