//! What is under way on a shaped link.

use crate::{LinkShape, Priority, queue::Piece, wire::Kind};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// A record that is under way.
#[derive(Debug)]
pub(super) enum Parcel {
    /// A heartbeat or its answer.
    Bare(Kind),
    /// A frame, or a part of it.
    Piece(Piece),
}

/// Records under way on a shaped link, each with the time at which it arrives. Control frames and heartbeats wait for
/// nothing but each other. Nothing is copied: a piece names its frame, which counts in the queue until it is written.
#[derive(Debug)]
pub(super) struct DelayLine {
    shape: LinkShape,
    /// Control, bulk; each in the order in which it arrives.
    lanes: [VecDeque<(Instant, Parcel)>; 2],
    /// When the newest record of each lane arrives.
    newest: [Option<Instant>; 2],
    /// When the first byte of the newest tensor was sent.
    began: Option<Instant>,
    /// Bytes of the newest tensor sent so far.
    sent: usize,
    /// When its last byte is sent, and the link free for the next.
    free: Option<Instant>,
    /// Messages and tensors sent so far.
    count: u64,
    /// By how much the newest tensor is late.
    late: Duration,
}

impl DelayLine {
    pub(super) fn new(shape: LinkShape) -> Self {
        Self {
            shape,
            lanes: [VecDeque::new(), VecDeque::new()],
            newest: [None; 2],
            began: None,
            sent: 0,
            free: None,
            count: 0,
            late: Duration::ZERO,
        }
    }

    /// A record is sent at `now`.
    pub(super) fn send(&mut self, parcel: Parcel, now: Instant) {
        let (lane, way) = match &parcel {
            Parcel::Piece(piece) if piece.lane == Priority::Bulk => {
                (Priority::Bulk, self.bulk_way(piece, now))
            }
            _ => (Priority::Control, self.shape.latency + self.lateness(0)),
        };
        let lane = lane.index();
        let arrives = self.newest[lane].map_or(now + way, |newest| newest.max(now + way));
        self.newest[lane] = Some(arrives);
        self.lanes[lane].push_back((arrives, parcel));
    }

    /// From now until a piece of a tensor has arrived.
    fn bulk_way(&mut self, piece: &Piece, now: Instant) -> Duration {
        if piece.is_first() {
            let free = self.free.filter(|_| self.shape.serial);
            self.began = Some(free.map_or(now, |free| free.max(now)));
            self.sent = 0;
            self.late = self.lateness(piece.frame.payload.len());
        }
        self.sent += piece.bytes().len();
        let began = self.began.unwrap_or(now);
        let sent = began + self.shape.sending(self.sent);
        self.free = Some(sent);
        sent.saturating_duration_since(now) + self.shape.latency + self.shape.overhead + self.late
    }

    /// By how much the next message or tensor is late.
    fn lateness(&mut self, bytes: usize) -> Duration {
        let Some(unsteady) = &self.shape.unsteady else { return Duration::ZERO };
        self.count += 1;
        Duration::from_micros(unsteady.late_us(self.count, bytes as f64))
    }

    /// The next record that has arrived at `now`; control before bulk.
    pub(super) fn arrived(&mut self, now: Instant) -> Option<Parcel> {
        let lane = self.lanes.iter_mut().find(|lane| lane.front().is_some_and(|(at, _)| *at <= now))?;
        lane.pop_front().map(|(_, parcel)| parcel)
    }

    /// When the next record arrives.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(|lane| lane.front()).map(|(at, _)| *at).min()
    }

    /// Whether nothing is under way but heartbeats.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().flatten().all(|(_, parcel)| matches!(parcel, Parcel::Bare(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, LaneLimits, PeerId, Unsteady, queue::SendQueue};
    use std::sync::Arc;

    const LATENCY: Duration = Duration::from_millis(50);

    fn shape(serial: bool) -> LinkShape {
        // 1000 floats a second.
        LinkShape { serial, ..LinkShape::steady(LATENCY, 4000.0) }
    }

    /// Sends two tensors of 1000 floats, in pieces of 1000 bytes, and a message half a second later; answers with the
    /// milliseconds at which whole frames arrive.
    fn arrivals(shape: LinkShape) -> Vec<(Priority, u128)> {
        let limits = LaneLimits { frames: 9, bytes: 1 << 20 };
        let queue = SendQueue::new(limits, limits);
        let start = Instant::now();
        let mut line = DelayLine::new(shape);
        for _ in 0..2 {
            let tensor = Frame::tensor(vec![], Arc::new(vec![0.0; 1000]));
            queue.push(PeerId(1), tensor, Priority::Bulk).unwrap();
        }
        while let Some(piece) = queue.pop(&Priority::ALL, 1000) {
            line.send(Parcel::Piece(piece), start);
        }
        let later = start + Duration::from_millis(500);
        queue.push(PeerId(1), Frame::message(vec![]), Priority::Control).unwrap();
        line.send(Parcel::Piece(queue.pop(&Priority::ALL, 1000).unwrap()), later);
        let mut whole = Vec::new();
        while let Some(at) = line.next() {
            assert!(line.arrived(at - Duration::from_nanos(1)).is_none());
            let Some(Parcel::Piece(piece)) = line.arrived(at) else {
                panic!("nothing arrives when it should")
            };
            if piece.range.end == piece.frame.payload.len() {
                whole.push((piece.lane, (at - start).as_millis()));
            }
        }
        whole
    }

    #[test]
    fn serial_tensors_wait_for_each_other_and_nothing_waits_for_them() {
        let want = [(Priority::Control, 550), (Priority::Bulk, 1050), (Priority::Bulk, 2050)];
        assert_eq!(arrivals(shape(true)), want);
    }

    #[test]
    fn other_tensors_have_the_link_to_themselves() {
        let want = [(Priority::Control, 550), (Priority::Bulk, 1050), (Priority::Bulk, 1050)];
        assert_eq!(arrivals(shape(false)), want);
    }

    #[test]
    fn what_is_late_keeps_its_order_and_delays_what_comes_after_it() {
        let steady = arrivals(shape(true));
        for seed in 0..20 {
            let unsteady = Unsteady {
                jitter_us: 200_000,
                loss: 0.3,
                round_trip_us: 100_000,
                packet_bytes: 1200.0,
                packets_max: 9,
                seed,
            };
            let late = arrivals(LinkShape { unsteady: Some(unsteady), ..shape(true) });
            let times = |of: &[(Priority, u128)]| -> [u128; 3] {
                let lane = |wanted| of.iter().filter(move |(lane, _)| *lane == wanted).map(|(_, at)| *at);
                let (control, mut bulk) = (lane(Priority::Control).sum(), lane(Priority::Bulk));
                [control, bulk.next().unwrap(), bulk.next().unwrap()]
            };
            let (early, late) = (times(&steady), times(&late));
            // The message was the third to be sent.
            let by = |number, bytes| u128::from(unsteady.late_us(number, bytes)) / 1000;
            assert!(late[0].abs_diff(early[0] + by(3, 0.0)) <= 1);
            assert!(late[1].abs_diff(early[1] + by(1, 4000.0)) <= 1);
            assert!(late[2].abs_diff((early[2] + by(2, 4000.0)).max(late[1])) <= 1);
        }
    }
}
