//! Connections between machines: iroh (QUIC). A process is its public key; connections are encrypted, go directly where
//! that can be, through holes in NATs or a relay where it can't, and outlive changes of address.
//!
//! Frames go over the same handshake and records as over TCP, on two streams a connection: one a lane. Beside them a
//! process may answer small requests ([`RequestHandler`]): how a machine joins a run, and gets its files.

mod connect;
mod door;
mod key;
mod lan;
mod listen;
#[cfg(feature = "relay")]
mod relay;
mod requester;
mod requests;

pub(crate) use connect::dial;
pub use door::{Door, Relays, RelaysError};
pub(crate) use door::{reach_of, settle};
pub use key::EndpointKey;
pub use lan::Lan;
pub(crate) use listen::accept_loop;
#[cfg(feature = "relay")]
pub use relay::Relay;
pub use requester::{RequestError, Requester};
pub use requests::{BODY_BYTES_MAX, HEAD_BYTES_MAX, RequestHandler};

/// Frames of a run.
pub(crate) const FRAMES: &[u8] = b"skipstone/frames/1";
/// Requests and answers.
const REQUESTS: &[u8] = b"skipstone/requests/1";
