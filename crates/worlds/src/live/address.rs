//! Where a node is reached: its name in the transport, and its socket.

use crate::wan::name_in_region;
use skipstone_net::PeerId;
use std::fmt;
use std::io;

/// `<id>@<ip:port>`. The id is drawn by the process and stays while it lives, whereas its node id comes from the
/// coordinator and changes when it is set aside and comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerAddress {
    pub(crate) peer: PeerId,
    pub(crate) socket: String,
}

impl PeerAddress {
    /// An id that no other process of the run has, and that is no node's.
    /// It says in which region the process is.
    pub(crate) fn draw_id(region: u16) -> io::Result<PeerId> {
        Ok(name_in_region(getrandom::u64().map_err(io::Error::other)?, region))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (peer, socket) = text.split_once('@')?;
        let peer = PeerId(u64::from_str_radix(peer, 16).ok()?);
        (peer.0 != 0).then(|| Self { peer, socket: socket.to_owned() })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}@{}", self.peer.0, self.socket)
    }
}
