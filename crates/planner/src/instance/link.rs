//! Links between regions: what a table says of them, and what a message or tensor takes in the mean.

use serde::{Deserialize, Serialize};

/// Bytes of a packet where loss is reckoned: what QUIC sends in one before it knows of longer ones (RFC 9000, section 14).
pub const PACKET_BYTES: f64 = 1200.0;

/// The constant of Mathis' bound: √(3/2), of losses at even distances where every packet is acknowledged.
const MATHIS: f64 = 1.224_744_871_391_589;

/// The network: regions and the links between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Regions {
    /// The link between two nodes of one region.
    pub intra: Link,
    /// Links between regions; each pair once, in either order.
    #[serde(default)]
    pub links: Vec<RegionLink>,
}

/// A link's figures, one way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Seconds until the first byte arrives.
    pub latency_s: f64,
    /// Bytes per second.
    #[serde(rename = "bandwidth_Bps")]
    pub bandwidth_bytes_per_s: f64,
    /// The most that a message or tensor takes beyond that, in seconds; anything from 0 to it is equally likely.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jitter_s: f64,
    /// The share of packets that are lost and sent again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub loss: f64,
}

/// A link between two regions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionLink {
    /// One region.
    pub a: String,
    /// The other region.
    pub b: String,
    /// Its figures, from `a` to `b`.
    #[serde(flatten)]
    pub link: Link,
    /// What is different from `b` to `a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<BackLink>,
}

/// The figures of a link's way back that are not those of its way there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackLink {
    /// As [`Link::latency_s`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_s: Option<f64>,
    /// As [`Link::bandwidth_bytes_per_s`].
    #[serde(default, rename = "bandwidth_Bps", skip_serializing_if = "Option::is_none")]
    pub bandwidth_bytes_per_s: Option<f64>,
    /// As [`Link::jitter_s`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_s: Option<f64>,
    /// As [`Link::loss`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Link {
    /// The most that a link may lose: beyond half of the packets nothing trains.
    pub const LOSS_MAX: f64 = 0.5;

    /// A link without jitter or loss.
    pub const fn steady(latency_s: f64, bandwidth_bytes_per_s: f64) -> Self {
        Self { latency_s, bandwidth_bytes_per_s, jitter_s: 0.0, loss: 0.0 }
    }

    /// Seconds of a message's way, in the mean, where nothing is lost.
    fn mean_latency_s(&self) -> f64 {
        self.latency_s + 0.5 * self.jitter_s
    }

    /// What it comes to in the mean, where answers take the link `back`.
    ///
    /// With loss, the bandwidth is at most 1200 bytes / round trip · √(3/2) / √loss: the throughput of a stream that halves its
    /// window for every loss (Mathis, Semke, Mahdavi and Ott, "The macroscopic behavior of the TCP congestion avoidance
    /// algorithm", ACM SIGCOMM Computer Communication Review 27(3), 1997, equation 3). Congestion controllers of today start
    /// from that, and some do better.
    pub fn way(&self, back: &Self) -> Way {
        let round_trip_s = self.mean_latency_s() + back.mean_latency_s();
        let bandwidth_bytes_per_s = if self.loss > 0.0 && round_trip_s > 0.0 {
            let most = PACKET_BYTES / round_trip_s * MATHIS / self.loss.sqrt();
            self.bandwidth_bytes_per_s.min(most)
        } else {
            self.bandwidth_bytes_per_s
        };
        Way { latency_s: self.mean_latency_s(), bandwidth_bytes_per_s, round_trip_s, loss: self.loss }
    }
}

impl RegionLink {
    /// Its figures from `b` to `a`.
    pub fn back(&self) -> Link {
        let (there, back) = (self.link, self.back.unwrap_or_default());
        Link {
            latency_s: back.latency_s.unwrap_or(there.latency_s),
            bandwidth_bytes_per_s: back.bandwidth_bytes_per_s.unwrap_or(there.bandwidth_bytes_per_s),
            jitter_s: back.jitter_s.unwrap_or(there.jitter_s),
            loss: back.loss.unwrap_or(there.loss),
        }
    }

    /// A link that is `there` from `a` to `b`, and `back` from `b` to `a`.
    pub fn both(a: String, b: String, there: Link, back: Link) -> Self {
        let whole = BackLink {
            latency_s: Some(back.latency_s),
            bandwidth_bytes_per_s: Some(back.bandwidth_bytes_per_s),
            jitter_s: Some(back.jitter_s),
            loss: Some(back.loss),
        };
        Self { a, b, link: there, back: (back != there).then_some(whole) }
    }
}

impl Regions {
    /// The figures from region `a` to region `b`; none if nothing is said of them.
    pub fn link(&self, a: &str, b: &str) -> Option<Link> {
        if a == b {
            return Some(self.intra);
        }
        self.links.iter().find_map(|entry| match () {
            () if entry.a == a && entry.b == b => Some(entry.link),
            () if entry.a == b && entry.b == a => Some(entry.back()),
            () => None,
        })
    }

    /// What the link from region `a` to region `b` comes to in the mean.
    pub fn way(&self, a: &str, b: &str) -> Option<Way> {
        Some(self.link(a, b)?.way(&self.link(b, a)?))
    }
}

/// One way of a link in the mean: what plans reckon with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// Seconds of a message's way where no packet of it is lost.
    pub latency_s: f64,
    /// Bytes per second.
    pub bandwidth_bytes_per_s: f64,
    /// Seconds there and back.
    pub round_trip_s: f64,
    /// The share of packets that are lost.
    pub loss: f64,
}

impl Way {
    /// Seconds of a message's way.
    pub fn message_s(&self) -> f64 {
        self.latency_s + self.resending_s(1.0)
    }

    /// Seconds of a tensor's way.
    pub fn tensor_s(&self, bytes: f64) -> f64 {
        self.latency_s + bytes / self.bandwidth_bytes_per_s + self.resending_s(bytes)
    }

    /// Packets of so many bytes whose loss is seen only when all has been sent: those of the last round trip. What is lost
    /// before is there again in time.
    pub fn packets_at_risk(&self, bytes: f64) -> u32 {
        let last = self.bandwidth_bytes_per_s * self.round_trip_s;
        (bytes.min(last) / PACKET_BYTES).ceil().clamp(1.0, 1e6) as u32
    }

    /// Seconds for which the last of so many bytes is late because packets were lost: a round trip each time that one of those
    /// at risk is lost again. More than `n` times with probability 1 − (1 − lossⁿ⁺¹)^packets.
    fn resending_s(&self, bytes: f64) -> f64 {
        if self.loss <= 0.0 {
            return 0.0;
        }
        let packets = self.packets_at_risk(bytes);
        let (mut rounds, mut lost) = (0.0, self.loss);
        // Half are lost at most, so that 60 terms leave nothing to add.
        for _ in 0..60 {
            rounds += 1.0 - power(1.0 - lost, packets);
            lost *= self.loss;
        }
        rounds * self.round_trip_s
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_link_costs_latency_and_bytes_to_the_bit() {
        let link = Link::steady(0.1285, 10_551_296.0);
        let way = link.way(&link);
        assert_eq!(way.tensor_s(1e7).to_bits(), (0.1285 + 1e7 / 10_551_296.0_f64).to_bits());
        assert_eq!(way.message_s().to_bits(), 0.1285_f64.to_bits());
        assert_eq!(
            serde_json::to_string(&link).unwrap(),
            r#"{"latency_s":0.1285,"bandwidth_Bps":10551296.0}"#
        );
    }

    #[test]
    fn loss_costs_bandwidth_and_round_trips() {
        let link = Link { jitter_s: 0.02, loss: 0.01, ..Link::steady(0.04, 1e7) };
        let way = link.way(&Link { jitter_s: 0.0, ..link });
        assert!((way.latency_s - 0.05).abs() < 1e-12 && (way.round_trip_s - 0.09).abs() < 1e-12);
        // 1200 bytes / 90 ms · 1.2247 / 0.1
        assert!((way.bandwidth_bytes_per_s - 163_299.3).abs() < 1.0, "{}", way.bandwidth_bytes_per_s);
        // A single packet: 0.01 / 0.99 round trips.
        assert!((way.message_s() - 0.05 - 0.09 / 99.0).abs() < 1e-9);
        // 1.2247 / √0.01 packets are on their way in a round trip.
        assert_eq!((way.packets_at_risk(1e6), way.packets_at_risk(3000.0)), (13, 3));
        let late = way.tensor_s(1e6) - way.latency_s - 1e6 / way.bandwidth_bytes_per_s;
        let expected = 0.09 * (1.0 - 0.99_f64.powi(13) + 1.0 - 0.9999_f64.powi(13) + 13e-6);
        assert!((late - expected).abs() < 1e-7, "{late} {expected}");
    }

    #[test]
    fn a_way_back_differs_in_what_it_says() {
        let text = r#"{"intra": {"latency_s": 0.001, "bandwidth_Bps": 1e8}, "links": [
            {"a": "x", "b": "y", "latency_s": 0.02, "bandwidth_Bps": 2.5e6, "back": {"bandwidth_Bps": 2.5e7}}]}"#;
        let regions: Regions = serde_json::from_str(text).unwrap();
        assert_eq!(regions.link("x", "y"), Some(Link::steady(0.02, 2.5e6)));
        assert_eq!(regions.link("y", "x"), Some(Link::steady(0.02, 2.5e7)));
        assert_eq!(regions.link("y", "z"), None);
        let again: Regions = serde_json::from_str(&serde_json::to_string(&regions).unwrap()).unwrap();
        assert_eq!(again, regions);
        let both = RegionLink::both("x".into(), "y".into(), Link::steady(0.02, 1.0), Link::steady(0.02, 1.0));
        assert_eq!(both.back, None);
        assert!(
            serde_json::from_str::<Regions>(&text.replace("\"back\": {\"band", "\"back\": {\"wand")).is_err()
        );
    }
}
