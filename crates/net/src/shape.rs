//! Links that behave as if they were long: latency, bandwidth, jitter and loss between processes that share a machine.

use crate::PeerId;
use std::{fmt, sync::Arc, time::Duration};

/// How one directed link behaves. What is sent on it arrives `latency + bytes / bandwidth` later, and by jitter and loss later
/// still.
///
/// The sender holds each piece back until its time has come, so nothing else waits for it, order is kept, and what
/// waits counts against the bounds of the sender's queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkShape {
    /// How long everything is under way, one way: control frames, heartbeats and the end of a connection too.
    pub latency: Duration,
    /// How long it takes there and back.
    pub round_trip: Duration,
    /// Bytes per second of a tensor's way; above 0.
    pub bandwidth_bytes_per_s: f64,
    /// What a tensor takes beside latency and bytes.
    pub overhead: Duration,
    /// Whether tensors wait for each other's bytes; if not, each has the bandwidth to itself, but for the order in which
    /// they were sent.
    pub serial: bool,
    /// What things take beyond that, by chance; none: nothing.
    pub unsteady: Option<Unsteady>,
}

impl LinkShape {
    /// A link that is as long both ways, without overhead, jitter or loss; tensors wait for each other.
    pub fn steady(latency: Duration, bandwidth_bytes_per_s: f64) -> Self {
        let (round_trip, overhead) = (2 * latency, Duration::ZERO);
        Self { latency, round_trip, bandwidth_bytes_per_s, overhead, serial: true, unsteady: None }
    }

    /// How long `bytes` take beside the latency.
    pub(crate) fn sending(&self, bytes: usize) -> Duration {
        Duration::try_from_secs_f64(bytes as f64 / self.bandwidth_bytes_per_s).unwrap_or(Duration::MAX / 4)
    }

    /// What a connection costs before anything is heard on it: one round trip and a half for TCP, half of one for the
    /// handshake.
    pub(crate) fn connecting(&self) -> Duration {
        self.round_trip * 2
    }

    /// How long what the other end sends is under way.
    pub(crate) fn latency_back(&self) -> Duration {
        self.round_trip.saturating_sub(self.latency)
    }
}

/// Jitter and loss of a directed link on which everything arrives in the end, and in order: what is lost is sent again, which
/// takes a round trip each time. How late the n-th message is follows from the seed and from n alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unsteady {
    /// Microseconds that anything is late at most by jitter; anything from 0 to it is equally likely.
    pub jitter_us: u64,
    /// The share of packets that are lost, below 1.
    pub loss: f64,
    /// Microseconds after which a lost packet is there again.
    pub round_trip_us: u64,
    /// Bytes of a packet; above 0.
    pub packet_bytes: f64,
    /// The most packets of a tensor whose loss makes its end late: those of the last round trip.
    pub packets_max: u32,
    /// What chance follows from.
    pub seed: u64,
}

/// So often a packet is lost at most; the next time it arrives.
const ROUNDS_MAX: u64 = 60;

impl Unsteady {
    /// The same, as it is from one process to another: each pair has a chance of its own.
    #[must_use]
    pub fn between(self, from: u64, to: u64) -> Self {
        Self { seed: mix(mix(self.seed ^ from).wrapping_add(to)), ..self }
    }

    /// Microseconds that the `number`-th message or tensor of a link is late.
    pub fn late_us(&self, number: u64, bytes: f64) -> u64 {
        let first = mix(self.seed.wrapping_add(number));
        let jitter_us = (share(first) * (self.jitter_us as f64 + 1.0)) as u64;
        if self.loss <= 0.0 {
            return jitter_us;
        }
        let most = f64::from(self.packets_max.max(1));
        let packets = (bytes / self.packet_bytes).ceil().clamp(1.0, most) as u32;
        let chance = share(mix(first));
        let (mut rounds, mut lost) = (0, self.loss);
        // Some packet is lost more than n times with probability 1 − (1 − lossⁿ⁺¹)^packets.
        while rounds < ROUNDS_MAX && chance < 1.0 - power(1.0 - lost, packets) {
            rounds += 1;
            lost *= self.loss;
        }
        jitter_us + rounds * self.round_trip_us
    }
}

/// SplitMix64's step: scatters all bits.
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// From 0 to 1, without 1.
fn share(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// By squaring: the same bits on every machine.
fn power(base: f64, mut exponent: u32) -> f64 {
    let (mut square, mut product) = (base, 1.0);
    while exponent > 0 {
        if exponent & 1 == 1 {
            product *= square;
        }
        square *= square;
        exponent >>= 1;
    }
    product
}

/// The shapes of a process's links, by peer. Both ends of a connection shape what they send.
#[derive(Clone)]
pub struct LinkShapes(Arc<dyn Fn(PeerId) -> Option<LinkShape> + Send + Sync>);

impl LinkShapes {
    /// Links are as `of` says; with none they are as fast as they can be.
    pub fn new(of: impl Fn(PeerId) -> Option<LinkShape> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    /// The shape of the link to `peer`.
    pub fn of(&self, peer: PeerId) -> Option<LinkShape> {
        (self.0)(peer)
    }
}

impl fmt::Debug for LinkShapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkShapes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSSY: Unsteady = Unsteady {
        jitter_us: 1000,
        loss: 0.2,
        round_trip_us: 1_000_000,
        packet_bytes: 1200.0,
        packets_max: 3,
        seed: 7,
    };

    #[test]
    fn lateness_follows_from_seed_pair_and_number() {
        let late = |unsteady: Unsteady| (0..50).map(|n| unsteady.late_us(n, 900.0)).collect::<Vec<_>>();
        assert_eq!(late(LOSSY.between(1, 2)), late(LOSSY.between(1, 2)));
        for other in [LOSSY.between(2, 1), LOSSY.between(1, 3), Unsteady { seed: 8, ..LOSSY }.between(1, 2)] {
            assert_ne!(late(LOSSY.between(1, 2)), late(other));
        }
    }

    #[test]
    fn jitter_is_even_and_loss_is_as_often_as_said() {
        let count = 100_000;
        let late: Vec<u64> = (0..count).map(|n| LOSSY.late_us(n, 1e9)).collect();
        let jitter: Vec<u64> = late.iter().map(|us| us % 1_000_000).collect();
        assert!(jitter.iter().all(|us| *us <= 1000) && jitter.contains(&1000) && jitter.contains(&0));
        let mean = jitter.iter().sum::<u64>() as f64 / count as f64;
        assert!((mean - 500.0).abs() < 5.0, "{mean}");
        // Three packets: all arrive at once with 0.8³, after one more round trip at the latest with 0.96³.
        let share =
            |rounds| late.iter().filter(|us| **us / 1_000_000 <= rounds).count() as f64 / count as f64;
        assert!((share(0) - 0.512).abs() < 0.01 && (share(1) - 0.8847).abs() < 0.01, "{}", share(0));
        // A message is one packet.
        let alone = (0..count).filter(|n| LOSSY.late_us(*n, 0.0) < 1_000_000).count() as f64 / count as f64;
        assert!((alone - 0.8).abs() < 0.01, "{alone}");
    }
}
