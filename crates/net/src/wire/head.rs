//! The fixed part of a record.

use super::WireError;
use crate::{Payload, Priority};
use twox_hash::XxHash3_64;

/// Bytes of a [`Head`] on the wire.
pub const HEAD_LEN: usize = 48;

/// The largest piece of a payload in one record.
pub const MAX_CHUNK: u32 = 4 << 20;

/// What a receiver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest frame header.
    pub header: usize,
    /// The largest payload.
    pub payload: usize,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A frame's first record: its header, and the first piece of its payload.
    First,
    /// The next piece of the payload of the lane's unfinished frame.
    More,
    /// A heartbeat; the number comes back in a pong.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// The sender sends nothing more.
    Goodbye,
}

/// What a payload is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// There is none.
    Empty,
    /// 32-bit floats.
    F32,
    /// Bytes.
    Bytes,
}

impl PayloadKind {
    /// The kind of `payload`.
    pub fn of(payload: &Payload) -> Self {
        match payload {
            Payload::Empty => Self::Empty,
            Payload::F32(_) => Self::F32,
            Payload::Bytes(_) => Self::Bytes,
        }
    }
}

/// The fixed part of a record. Layout, little-endian: kind, lane, payload kind, 0 (1 byte each); header length
/// (4); payload length, or a heartbeat's number (8); length of the piece (4); 0 (4); sequence number (8);
/// checksum of header and piece (8); checksum of the 40 bytes before (8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What this is.
    pub kind: Kind,
    /// The frame's lane.
    pub lane: Priority,
    /// The frame's kind of payload.
    pub payload_kind: PayloadKind,
    /// Bytes of the frame's header that follow (0 in `More`).
    pub header_len: u32,
    /// Bytes of the frame's whole payload.
    pub payload_len: u64,
    /// Bytes of it in this record.
    pub chunk_len: u32,
    /// Counts the records of a connection and direction from 0.
    pub sequence: u64,
    /// Checksum of the header and the piece.
    pub body_sum: u64,
}

impl Head {
    /// A record that has no body.
    pub fn bare(kind: Kind, sequence: u64, seed: u64) -> Self {
        Self {
            kind,
            lane: Priority::Control,
            payload_kind: PayloadKind::Empty,
            header_len: 0,
            payload_len: 0,
            chunk_len: 0,
            sequence,
            body_sum: body_sum(&[], &[], seed),
        }
    }

    /// The bytes.
    pub fn encode(&self, seed: u64) -> [u8; HEAD_LEN] {
        let (kind, length) = match self.kind {
            Kind::First => (1, self.payload_len),
            Kind::More => (2, self.payload_len),
            Kind::Ping(token) => (3, token),
            Kind::Pong(token) => (4, token),
            Kind::Goodbye => (5, 0),
        };
        let mut out = [0; HEAD_LEN];
        out[0] = kind;
        out[1] = self.lane.index() as u8;
        out[2] = self.payload_kind as u8;
        out[4..8].copy_from_slice(&self.header_len.to_le_bytes());
        out[8..16].copy_from_slice(&length.to_le_bytes());
        out[16..20].copy_from_slice(&self.chunk_len.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.body_sum.to_le_bytes());
        let sum = XxHash3_64::oneshot_with_seed(seed, &out[..40]);
        out[40..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads a head and checks all that can be checked without knowing what came before.
    pub fn decode(bytes: &[u8; HEAD_LEN], seed: u64, limits: Limits) -> Result<Self, WireError> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if XxHash3_64::oneshot_with_seed(seed, &bytes[..40]) != word(40) {
            return Err(WireError::CorruptHead);
        }
        if bytes[3] != 0 || half(20) != 0 {
            return Err(WireError::Malformed("reserved bytes are in use"));
        }
        let (header_len, length, chunk_len) = (half(4), word(8), half(16));
        let kind = match bytes[0] {
            1 => Kind::First,
            2 => Kind::More,
            3 => Kind::Ping(length),
            4 => Kind::Pong(length),
            5 => Kind::Goodbye,
            _ => return Err(WireError::Malformed("unknown kind of record")),
        };
        let lane = match bytes[1] {
            0 => Priority::Control,
            1 => Priority::Bulk,
            _ => return Err(WireError::Malformed("unknown lane")),
        };
        let payload_kind = match bytes[2] {
            0 => PayloadKind::Empty,
            1 => PayloadKind::F32,
            2 => PayloadKind::Bytes,
            _ => return Err(WireError::Malformed("unknown kind of payload")),
        };
        let framed = matches!(kind, Kind::First | Kind::More);
        let payload_len = if framed { length } else { 0 };
        if !framed && (header_len != 0 || chunk_len != 0) {
            return Err(WireError::Malformed("a heartbeat with contents"));
        }
        if u64::from(header_len) > limits.header as u64 {
            return Err(WireError::HeaderTooLong { bytes: header_len.into(), limit: limits.header });
        }
        if payload_len > limits.payload as u64 {
            return Err(WireError::PayloadTooLong { bytes: payload_len, limit: limits.payload });
        }
        if chunk_len > MAX_CHUNK {
            return Err(WireError::ChunkTooLong(chunk_len));
        }
        if u64::from(chunk_len) > payload_len {
            return Err(WireError::Malformed("a piece larger than its payload"));
        }
        if payload_len > 0 && chunk_len == 0 {
            return Err(WireError::Malformed("an empty piece"));
        }
        match payload_kind {
            PayloadKind::Empty if payload_len > 0 => return Err(WireError::Malformed("payload of no kind")),
            PayloadKind::F32 if payload_len % 4 != 0 => {
                return Err(WireError::Malformed("a payload of floats whose length isn't a multiple of 4"));
            }
            _ => {}
        }
        Ok(Self {
            kind,
            lane,
            payload_kind,
            header_len,
            payload_len,
            chunk_len,
            sequence: word(24),
            body_sum: word(32),
        })
    }
}

/// Checksum of a record's header and piece.
pub fn body_sum(header: &[u8], chunk: &[u8], seed: u64) -> u64 {
    let seed = XxHash3_64::oneshot_with_seed(seed, header);
    if chunk.is_empty() { seed } else { XxHash3_64::oneshot_with_seed(seed, chunk) }
}
