//! The trait that every way of moving frames implements.

use crate::{Frame, PeerId, Priority, SendError};
use std::time::Duration;

/// Connections to peers. All methods return at once and may be called from any thread, the event sink's included.
/// Dropping a transport sends what is queued (for at most the configured linger), closes every connection, ends
/// its threads and frees its address; no event comes afterwards.
pub trait Transport: Send + Sync {
    /// Wants a connection to `peer`, and keeps it wanted: whenever there is none it is dialled again, at first
    /// quickly, then at longer, jittered intervals, until [`disconnect`](Self::disconnect). Calling it again
    /// changes the address; if nothing changed, nothing happens. Lifts [`forbid`](Self::forbid).
    fn connect(&self, peer: PeerId, address: &str);

    /// Stops wanting `peer`, sends what is queued for it and closes its connection. It may still dial us.
    fn disconnect(&self, peer: PeerId);

    /// Cuts `peer` off at once, without sending what is queued, and turns it away until the next
    /// [`connect`](Self::connect).
    fn forbid(&self, peer: PeerId);

    /// Queues a frame.
    fn send(&self, peer: PeerId, frame: Frame, priority: Priority) -> Result<(), SendError>;

    /// How long nothing at all has come from `peer`; `None` if there is no connection.
    fn silence(&self, peer: PeerId) -> Option<Duration>;

    /// The address that others can connect to.
    fn local_address(&self) -> String;
}
