//! Connections in virtual time, as the transport shapes them live.

use skipstone_net::Unsteady;
use std::collections::HashMap;

/// A process, by number.
pub(super) type Pid = usize;

/// The coordinator's number where chance is drawn.
const HUB: Pid = usize::MAX;

/// One direction of a connection, in microseconds: when the newest message of each kind arrives, and when the last tensor's last byte is
/// sent.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    control: u64,
    bulk: u64,
    free: u64,
    /// Messages and tensors so far.
    count: u64,
}

/// A tensor's way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) latency_us: u64,
    pub(super) round_trip_us: u64,
    pub(super) bytes_per_us: f64,
    pub(super) overhead_us: u64,
    pub(super) serial: bool,
    pub(super) unsteady: Option<Unsteady>,
}

impl Way {
    /// The same, as chance has it from one process to another.
    fn between(&self, from: Pid, to: Pid) -> Self {
        Self { unsteady: self.unsteady.map(|unsteady| unsteady.between(from as u64, to as u64)), ..*self }
    }
}

impl Lane {
    /// When a message that is sent now arrives: in order.
    fn control(&mut self, now_us: u64, way: &Way) -> u64 {
        let late_us = self.late_us(0.0, way);
        self.control = self.control.max(now_us + way.latency_us + late_us);
        self.control
    }

    /// When a tensor that is sent now arrives, and since when it is under way.
    fn bulk(&mut self, now_us: u64, bytes: f64, way: &Way) -> (u64, u64) {
        let began_us = if way.serial { now_us.max(self.free) } else { now_us };
        let sent_us = began_us + (bytes / way.bytes_per_us).round() as u64;
        self.free = sent_us;
        let late_us = self.late_us(bytes, way);
        self.bulk = self.bulk.max(sent_us + way.latency_us + way.overhead_us + late_us);
        (self.bulk, began_us)
    }

    /// By how much the next message or tensor is late.
    fn late_us(&mut self, bytes: f64, way: &Way) -> u64 {
        let Some(unsteady) = &way.unsteady else { return 0 };
        self.count += 1;
        unsteady.late_us(self.count, bytes)
    }
}

#[derive(Debug, Clone, Copy)]
struct Wire {
    /// When both ends know that it stands.
    stands_us: u64,
    /// From the lower number to the higher, and back.
    lanes: [Lane; 2],
}

/// What becomes of a message to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It arrives then, and was under way since then.
    Arrives { at_us: u64, began_us: u64 },
    /// The peer is being dialled; what is sent meanwhile is lost, and the connection stands then.
    Dialled { stands_us: u64 },
    /// The peer is still being dialled.
    Lost,
}

/// All connections between nodes, and each node's with the coordinator.
#[derive(Debug, Default)]
pub(super) struct Wires {
    peers: HashMap<(Pid, Pid), Wire>,
    /// To the coordinator, and from it, by process.
    hub: HashMap<Pid, [Lane; 2]>,
}

impl Wires {
    /// A node sends to a peer; `bytes` of a tensor if there is one.
    pub(super) fn send(
        &mut self,
        (from, to): (Pid, Pid),
        now_us: u64,
        bytes: Option<f64>,
        way: &Way,
        connect_us: u64,
    ) -> Sent {
        let mut dialled = false;
        let wire = self.peers.entry((from.min(to), from.max(to))).or_insert_with(|| {
            dialled = true;
            // The ways of the handshakes, as the transport waits for them.
            Wire { stands_us: now_us + 2 * way.round_trip_us + connect_us, lanes: [Lane::default(); 2] }
        });
        if dialled {
            return Sent::Dialled { stands_us: wire.stands_us };
        }
        if now_us < wire.stands_us {
            return Sent::Lost;
        }
        let lane = &mut wire.lanes[usize::from(from > to)];
        let way = &way.between(from, to);
        match bytes {
            None => Sent::Arrives { at_us: lane.control(now_us, way), began_us: now_us },
            Some(bytes) => {
                let (at_us, began_us) = lane.bulk(now_us, bytes, way);
                Sent::Arrives { at_us, began_us }
            }
        }
    }

    /// When a message from or to the coordinator arrives.
    pub(super) fn with_hub(&mut self, pid: Pid, to_hub: bool, now_us: u64, way: &Way) -> u64 {
        let way = if to_hub { way.between(pid, HUB) } else { way.between(HUB, pid) };
        self.hub.entry(pid).or_default()[usize::from(!to_hub)].control(now_us, &way)
    }

    /// A process is gone, and its connections with it.
    pub(super) fn close(&mut self, pid: Pid) {
        self.peers.retain(|(a, b), _| *a != pid && *b != pid);
        self.hub.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(serial: bool) -> Way {
        Way { latency_us: 50, round_trip_us: 100, bytes_per_us: 1.0, overhead_us: 5, serial, unsteady: None }
    }

    #[test]
    fn a_connection_is_dialled_first_and_keeps_order() {
        let mut wires = Wires::default();
        let send = |wires: &mut Wires, now, bytes, serial| wires.send((1, 2), now, bytes, &way(serial), 10);
        assert_eq!(send(&mut wires, 0, Some(9.0), true), Sent::Dialled { stands_us: 210 });
        assert_eq!(send(&mut wires, 209, None, true), Sent::Lost);
        assert_eq!(send(&mut wires, 300, Some(100.0), true), Sent::Arrives { at_us: 455, began_us: 300 });
        assert_eq!(send(&mut wires, 301, Some(100.0), true), Sent::Arrives { at_us: 555, began_us: 400 });
        assert_eq!(send(&mut wires, 302, None, true), Sent::Arrives { at_us: 352, began_us: 302 });
        let back = wires.send((2, 1), 303, Some(100.0), &way(true), 10);
        assert_eq!(back, Sent::Arrives { at_us: 458, began_us: 303 });
        wires.close(2);
        assert!(matches!(send(&mut wires, 900, None, false), Sent::Dialled { .. }));
        assert_eq!(send(&mut wires, 2000, Some(100.0), false), Sent::Arrives { at_us: 2155, began_us: 2000 });
        assert_eq!(send(&mut wires, 2000, Some(100.0), false), Sent::Arrives { at_us: 2155, began_us: 2000 });
        assert_eq!(send(&mut wires, 2001, Some(10.0), false), Sent::Arrives { at_us: 2155, began_us: 2001 });
    }
}
