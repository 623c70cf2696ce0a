//! The coordinator's way to other machines, where it has one: its door on the internet, and who is let in.

use super::start::CoordinatorStart;
use skipstone_net::{NetConfig, PeerKey, StreamTransport};
use skipstone_types::{Iteration, NodeId, StageId};
use std::io;

#[cfg(feature = "iroh")]
pub(super) use crate::live::remote::Told;

/// What the coordinator is told by other machines: nothing.
#[cfg(not(feature = "iroh"))]
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {}

#[cfg(feature = "iroh")]
pub(super) use listening::Desk;

#[cfg(feature = "iroh")]
mod listening {
    use super::{
        CoordinatorStart, Iteration, NetConfig, NodeId, PeerKey, StageId, StreamTransport, Told, io,
    };
    use crate::live::remote::{Places, Reception, RunPass, Tickets};
    use skipstone_net::{Door, Lan, Relays};
    use std::sync::Arc;
    use std::time::Duration;

    /// How long a relay is looked for before tickets are issued without having found one.
    const RELAY_PATIENCE: Duration = Duration::from_secs(5);

    /// Lets nodes of other machines in.
    pub(in crate::live) struct Desk(Option<Arc<Reception>>);

    impl Desk {
        /// Prepares the door, if the run is to have one. `tell` is called for what the coordinator is to hear.
        pub(in crate::live) fn open(
            config: &mut NetConfig,
            order: &CoordinatorStart,
            tell: impl Fn(Told) + Send + Sync + 'static,
        ) -> io::Result<Self> {
            let Some(listen) = &order.listen else { return Ok(Self(None)) };
            let tickets = Tickets::open(&order.dir).map_err(io::Error::other)?;
            let shape = listen.config.shape(listen.vocabulary).map_err(io::Error::other)?;
            let values = [StageId::ORIGIN, StageId(1)].map(|stage| shape.parameters(stage));
            let state_bytes_max = values.into_iter().max().unwrap_or(0) as u64 * 12;
            let pass = RunPass {
                run: order.settings.run,
                secret: order.secret.clone(),
                coordinator: String::new(),
                config: listen.config.clone(),
                vocabulary: listen.vocabulary,
                places: Vec::new(),
            };
            let places = listen.places.as_ref().map(|places| Places::new(places, &listen.config));
            let reception = Reception::new(
                order.dir.clone(),
                tickets.key().clone(),
                pass,
                state_bytes_max,
                Box::new(tell),
                places.transpose().map_err(io::Error::other)?,
            );
            let reception = Arc::new(reception);
            let relays = listen.relays.parse().map_err(io::Error::other)?;
            let mut door = Door::new(tickets.key().clone(), relays);
            let guests = reception.clone();
            door.admits = Arc::new(move |key| guests.admits(key));
            door.requests = Some(reception.clone());
            door.lan = if listen.lan { Lan::Announce } else { Lan::Off };
            door.port = listen.port;
            config.machine = listen.machine;
            config.door = Some(door);
            Ok(Self(Some(reception)))
        }

        /// Calls `tell` with whether other machines may find the coordinator by a relay, once that is known; never, where
        /// there are none. Nothing waits for it but tickets, which last: with the public relays they name the one that was
        /// found, and the address that it saw. Those of one's own are named before they have answered.
        pub(in crate::live) fn look_for_relay(
            order: &CoordinatorStart,
            transport: &StreamTransport,
            tell: impl FnOnce(bool) + Send + 'static,
        ) -> io::Result<()> {
            let Some(listen) = &order.listen else { return Ok(()) };
            match listen.relays.parse().map_err(io::Error::other)? {
                Relays::Public => transport.look_for_relay(RELAY_PATIENCE, tell),
                Relays::Own(_) => tell(true),
                Relays::None => tell(false),
            }
            Ok(())
        }

        /// Says where the coordinator is.
        pub(in crate::live) fn set_address(&self, address: &str) {
            self.0.iter().for_each(|reception| reception.set_address(address.to_owned()));
        }

        /// A node has come, or gone.
        pub(in crate::live) fn note_node(&self, node: NodeId, is_there: bool) {
            self.0.iter().for_each(|reception| reception.note_node(node, is_there));
        }

        /// The owner of this key is asked to save a stage.
        pub(in crate::live) fn note_asked(&self, key: PeerKey, iteration: Iteration, stage: StageId) {
            self.0.iter().for_each(|reception| reception.note_asked(key, iteration, stage));
        }

        /// What nodes were asked to save is whole.
        pub(in crate::live) fn note_published(&self) {
            self.0.iter().for_each(|reception| reception.note_published());
        }

        /// Whether the owner of this key may stay.
        pub(in crate::live) fn admits(&self, key: &PeerKey) -> bool {
            self.0.as_ref().is_none_or(|reception| reception.admits(key))
        }

        /// From which machine the owner of this key came, as that calls itself, and with the ticket of which number.
        pub(in crate::live) fn origin(&self, key: &PeerKey) -> Option<(String, u64)> {
            let (machine, ticket) = self.0.as_ref()?.origin(key)?;
            Some((machine.short(), ticket))
        }

        /// Turns out who came with a ticket that was revoked since; whether there was anybody.
        pub(in crate::live) fn turn_out(&self) -> bool {
            self.0.as_ref().is_some_and(|reception| reception.turn_out())
        }
    }
}

/// This build knows no other machines.
#[cfg(not(feature = "iroh"))]
pub(super) struct Desk;

#[cfg(not(feature = "iroh"))]
#[expect(clippy::unused_self, reason = "as with the feature")]
impl Desk {
    pub(super) fn open(
        _: &mut NetConfig,
        order: &CoordinatorStart,
        _: impl Fn(Told) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        match order.listen {
            None => Ok(Self),
            Some(_) => Err(io::Error::other("this build has no way to other machines (feature iroh)")),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
    pub(super) fn look_for_relay(
        _: &CoordinatorStart,
        _: &StreamTransport,
        _: impl FnOnce(bool) + Send + 'static,
    ) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn set_address(&self, _: &str) {}

    pub(super) fn note_node(&self, _: NodeId, _: bool) {}

    pub(super) fn note_asked(&self, _: PeerKey, _: Iteration, _: StageId) {}

    pub(super) fn note_published(&self) {}

    pub(super) fn admits(&self, _: &PeerKey) -> bool {
        true
    }

    pub(super) fn origin(&self, _: &PeerKey) -> Option<(String, u64)> {
        None
    }

    pub(super) fn turn_out(&self) -> bool {
        false
    }
}
