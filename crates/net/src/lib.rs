//! How Skipstone's processes talk: authenticated connections that carry small protocol headers and large
//! tensors, used from plain threads.
//!
//! A driver owns one [`Transport`]. It says which peers it wants ([`Transport::connect`]), queues frames
//! ([`Transport::send`], which never blocks) and gets everything that happens as [`NetEvent`]s, through a
//! closure or an ordinary channel ([`channel`]). The bytes are moved by threads that the transport owns, and
//! that never compute; heartbeats go out from there too, however busy the driver is.
//!
//! What a transport promises:
//!
//! * For one peer, events come as `Up`, then its frames, then `Down`; never two connections at once. A newer
//!   connection replaces an older one (`Down`, then `Up`).
//! * A frame that [`Transport::send`] took arrives whole, once and unaltered, or the connection goes `Down`.
//!   Frames of one [`Priority`] arrive in the order in which they were sent; control frames overtake bulk ones.
//! * Whatever a peer sends, it costs at most its own connection. Every length is checked before memory is taken.
//! * Only who proves that it knows the run's [`RunSecret`] becomes a peer. Loopback TCP is **not encrypted** and
//!   frames are check-summed, not signed: the secret keeps strangers out, not someone who rewrites packets. Between
//!   machines (`internet`, feature `iroh`) everything is encrypted, and each end is known by its key.
//!
//! What it doesn't promise: that a frame was *processed*, that frames outlive their connection, or that a peer
//! which is `Up` is alive: that is for a failure detector to say, fed by [`NetEvent::Heard`] and
//! [`Transport::silence`]. What a receiver has been handed and keeps is bounded by the protocol's credits, not
//! here.

#[cfg(target_endian = "big")]
compile_error!("Skipstone puts tensors on the wire as they lie in memory, and the wire is little-endian");

mod bench;
mod config;
mod error;
mod event;
mod frame;
#[cfg(feature = "iroh")]
mod internet;
mod memory;
mod queue;
mod reach;
mod secret;
mod shape;
mod streams;
mod transport;
pub mod wire;

pub use bench::{BenchError, BenchOptions, InternetBench, NetBench, PayloadBench, RoundTrip, bench};
pub use config::{LaneLimits, NetConfig};
pub use error::{BindError, SendError};
pub use event::{NetEvent, channel};
pub use frame::{Frame, Payload, PeerId, Priority};
#[cfg(feature = "relay")]
pub use internet::Relay;
#[cfg(feature = "iroh")]
pub use internet::{
    BODY_BYTES_MAX, Door, EndpointKey, HEAD_BYTES_MAX, Lan, Relays, RelaysError, RequestError,
    RequestHandler, Requester,
};
pub use memory::{MemoryHub, MemoryTransport};
pub use reach::{InternetReach, PeerKey, Reach, ReachError};
pub use secret::{RunSecret, SecretError};
pub use shape::{LinkShape, LinkShapes, Unsteady};
pub use streams::{CutDirection, StreamTransport};
pub use transport::Transport;
