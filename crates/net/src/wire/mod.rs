//! The wire format, free of sockets: what bytes mean, and which are refused.
//!
//! A connection opens with a handshake; then each side sends **records**. A record is a [`Head`] of
//! [`HEAD_LEN`] bytes, and what the head announces: the frame's header (first record of a frame only) and a
//! piece of its payload. The records of a control frame may come between those of a bulk frame; each of the two
//! lanes has at most one unfinished frame.

mod assemble;
mod error;
pub(crate) mod handshake;
mod head;
mod identity;

pub use assemble::{Assembler, Incoming};
pub use error::{Refusal, WireError};
pub use head::{HEAD_LEN, Head, Kind, Limits, MAX_CHUNK, PayloadKind, body_sum};
pub use identity::Seeds;

/// The version of this format; peers of another one are refused.
pub const VERSION: u16 = 1;

/// The first bytes of every connection, in both directions.
pub const MAGIC: [u8; 8] = *b"SKIPSTON";
