//! What a transport tells its owner.

use crate::{Frame, PeerId, PeerKey};
use std::{sync::Arc, sync::mpsc, time::Duration};

/// Something that happened on the network. `connection` tells one connection to a peer from the next; it only
/// grows within one transport.
#[derive(Debug, Clone, PartialEq)]
pub enum NetEvent {
    /// The transport accepts connections here.
    Listening {
        /// Address with the real port.
        address: String,
    },
    /// A peer proved who it is; frames can be sent to it.
    Up {
        /// Who.
        peer: PeerId,
        /// On which connection.
        connection: u64,
        /// Where the other end is.
        address: String,
        /// Its key, if it is on another machine.
        key: Option<PeerKey>,
    },
    /// A connection ended; nothing more comes from it, and what was still queued for it is lost.
    Down {
        /// Who.
        peer: PeerId,
        /// Which connection.
        connection: u64,
        /// Why, for people.
        why: String,
    },
    /// A frame arrived whole.
    Frame {
        /// From whom.
        peer: PeerId,
        /// On which connection.
        connection: u64,
        /// What.
        frame: Frame,
        /// How long it took from its first byte here until it was whole.
        receiving: Duration,
    },
    /// A peer's transport answered a heartbeat. At most two a heartbeat interval.
    Heard {
        /// Who.
        peer: PeerId,
        /// On which connection.
        connection: u64,
        /// From ping to pong.
        round_trip: Duration,
    },
    /// Someone who wanted to connect was turned away.
    Refused {
        /// Where the attempt came from.
        address: String,
        /// Whom it claimed to be, if it got that far. Not proven.
        claimed: Option<PeerId>,
        /// Why, for people.
        why: String,
    },
    /// A peer that is wanted can't be reached now; it is tried again. Told once per reason, not once per try.
    Unreachable {
        /// Who.
        peer: PeerId,
        /// Where it was tried.
        address: String,
        /// Why, for people.
        why: String,
    },
}

/// Where a transport's events go. Called from the transport's threads: it has to be quick.
pub(crate) type EventSink = Arc<dyn Fn(NetEvent) + Send + Sync>;

/// A sink that puts every event into a channel, and the channel's other end. Events are dropped once the
/// receiver is gone.
pub fn channel() -> (impl Fn(NetEvent) + Send + Sync + 'static, mpsc::Receiver<NetEvent>) {
    let (sender, receiver) = mpsc::channel();
    (move |event| drop(sender.send(event)), receiver)
}
