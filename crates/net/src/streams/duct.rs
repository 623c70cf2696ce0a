//! The byte streams that a connection is made of.

use crate::{Priority, wire::Seeds};
use std::any::Any;
use tokio::io::{AsyncRead, AsyncWrite};

/// The receiving half of a byte stream.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The sending half.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// One byte stream, both ways.
pub(crate) struct Duct {
    pub(crate) read: Reader,
    pub(crate) write: Writer,
}

/// A connection's streams. TCP has one, for everything; QUIC has one a lane, so that what the network loses of a tensor
/// holds up no control frame.
pub(crate) struct Ducts {
    /// For control frames and heartbeats, and for bulk frames too unless they have their own.
    pub(crate) control: Duct,
    pub(crate) bulk: Option<Duct>,
    /// What the streams live in; dropped after them.
    pub(crate) _keep: Option<Box<dyn Any + Send>>,
}

impl Ducts {
    /// One stream for everything.
    pub(crate) fn single(stream: tokio::net::TcpStream) -> Self {
        let (read, write) = stream.into_split();
        let control = Duct { read: Box::new(read), write: Box::new(write) };
        Self { control, bulk: None, _keep: None }
    }
}

/// The lanes of the control stream, where bulk frames have their own stream or not.
pub(crate) fn control_lanes(has_bulk: bool) -> &'static [Priority] {
    if has_bulk { &[Priority::Control] } else { &Priority::ALL }
}

/// Seeds of the bulk stream: other ones than the control stream's, so that records of one don't pass for the other's.
pub(crate) fn bulk_seeds(seeds: Seeds) -> Seeds {
    let other = |seed: u64| seed ^ 0x9e37_79b9_7f4a_7c15;
    Seeds { outgoing: other(seeds.outgoing), incoming: other(seeds.incoming) }
}
