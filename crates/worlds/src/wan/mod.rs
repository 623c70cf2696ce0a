//! A network between regions, and compute as fast as it is modelled: what `--wan` and `--pace` mean.
//!
//! The table is the planner's ([`skipstone_planner::Regions`]), so that a plan, a simulation and a live run on shaped links
//! speak of the same network.

mod describe;
mod pace;
mod table;

pub use describe::describe;
pub use pace::{PACE_FROM_TABLE, PaceCount, TaskTimes};
pub use table::{BUILT_IN, WanError, WanTable};

use serde::{Deserialize, Serialize};
use skipstone_net::{LinkShape, LinkShapes, PeerId, Unsteady};
use skipstone_planner::PACKET_BYTES;
use std::time::Duration;

/// Bits of a [`PeerId`] below those that say its region.
const REGION_SHIFT: u32 = 48;

/// The most regions of a table: they must fit a peer's name.
pub(crate) const REGIONS_MAX: usize = 1000;

/// A peer's name that says its region: `id`'s low bits, and the region above them.
pub(crate) fn name_in_region(id: u64, region: u16) -> PeerId {
    PeerId(id & ((1 << REGION_SHIFT) - 1) | u64::from(region & 0x7fff) << REGION_SHIFT | 1 << 63)
}

/// The region that a peer's name says; the coordinator's says none.
pub(crate) fn region_of_name(peer: PeerId) -> Option<u16> {
    (peer != PeerId(0)).then_some((peer.0 >> REGION_SHIFT) as u16 & 0x7fff)
}

/// The links of one process, by the region of the other end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionView {
    /// The process's own region.
    pub region: u16,
    /// The coordinator's.
    pub coordinator: u16,
    /// Latency in seconds and bytes per second to each region.
    pub links: Vec<(f64, f64)>,
    /// Seconds from each region to this one.
    #[serde(default)]
    pub back_s: Vec<f64>,
    /// What chance does on the link to each region.
    #[serde(default)]
    pub chances: Vec<Option<LinkChance>>,
    /// Seconds of a tensor's way beside latency and bytes.
    pub overhead_s: f64,
    /// Whether tensors between two nodes wait for each other.
    pub serial: bool,
    /// What jitter and loss are drawn from.
    #[serde(default)]
    pub seed: u64,
}

/// What chance does on a link.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LinkChance {
    /// The most seconds that anything is late by jitter.
    pub jitter_s: f64,
    /// The share of packets that are lost.
    pub loss: f64,
    /// Seconds after which a lost packet is there again.
    pub round_trip_s: f64,
    /// The most packets of a tensor whose loss makes its end late.
    pub packets_max: u32,
}

impl LinkChance {
    /// What the transport and the simulation draw from.
    pub(crate) fn unsteady(&self, seed: u64) -> Unsteady {
        let us = |seconds: f64| (seconds * 1e6).round() as u64;
        Unsteady {
            jitter_us: us(self.jitter_s),
            loss: self.loss,
            round_trip_us: us(self.round_trip_s),
            packet_bytes: PACKET_BYTES,
            packets_max: self.packets_max,
            seed,
        }
    }
}

impl RegionView {
    /// The same place, where links are as they are: only the planner is told of them.
    #[must_use]
    pub fn unshaped(self) -> Self {
        Self { links: Vec::new(), back_s: Vec::new(), chances: Vec::new(), ..self }
    }

    /// What the transport needs.
    pub fn shapes(&self) -> LinkShapes {
        let view = self.clone();
        LinkShapes::new(move |peer| {
            // The coordinator's name says nothing of where it is.
            let region = region_of_name(peer).unwrap_or(view.coordinator);
            let (latency_s, bandwidth_bytes_per_s) = *view.links.get(usize::from(region))?;
            let latency = Duration::from_secs_f64(latency_s);
            let chance = view.chances.get(usize::from(region)).copied().flatten();
            let back = view.back_s.get(usize::from(region)).map_or(latency, |s| Duration::from_secs_f64(*s));
            Some(LinkShape {
                latency,
                round_trip: latency + back,
                bandwidth_bytes_per_s,
                overhead: Duration::from_secs_f64(view.overhead_s),
                serial: view.serial,
                unsteady: chance.map(|chance| chance.unsteady(view.seed)),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_where_its_owner_is() {
        let table = WanTable::load("gcp12").unwrap();
        let (japan, taiwan) = (table.region("Japan").unwrap(), table.region("Taiwan").unwrap());
        let shapes = table.view(japan, 0).shapes();
        let shape = shapes.of(name_in_region(u64::MAX, taiwan)).unwrap();
        assert_eq!((shape.latency.as_micros(), shape.bandwidth_bytes_per_s), (19_200, 82_378_752.0));
        // The coordinator is in Australia, the first region.
        assert_eq!(shapes.of(PeerId(0)).unwrap().latency.as_micros(), 58_000);
        assert_eq!(shapes.of(name_in_region(7, japan)).unwrap().latency.as_micros(), 1000);
        assert!(shapes.of(name_in_region(7, 12)).is_none());
    }

    #[test]
    fn plans_reckon_with_the_mean_of_what_is_drawn() {
        let text = r#"{"regions": {"intra": {"latency_s": 0.001, "bandwidth_Bps": 1e9}, "links": [
            {"a": "home", "b": "far", "latency_s": 0.03, "bandwidth_Bps": 2.5e6, "jitter_s": 0.02, "loss": 0.01,
             "back": {"latency_s": 0.01, "loss": 0}}]}}"#;
        let table = WanTable::from_json(text).unwrap();
        for bytes in [0.0, 5000.0, 1e6] {
            let way = table.way(0, 1);
            let unsteady = table.chance(0, 1).unwrap().unsteady(5);
            let count = 400_000;
            let late_us: u64 = (0..count).map(|n| unsteady.late_us(n, bytes)).sum();
            let mean_s = late_us as f64 / 1e6 / count as f64;
            let told_s = way.tensor_s(bytes) - bytes / way.bandwidth_bytes_per_s - 0.03;
            assert!((mean_s / told_s - 1.0).abs() < 0.01, "{bytes} bytes: {mean_s} s, told {told_s} s");
        }
    }

    #[test]
    fn a_process_waits_for_its_own_way_and_the_other() {
        let text = r#"{"regions": {"intra": {"latency_s": 0.001, "bandwidth_Bps": 1e9}, "links": [
            {"a": "home", "b": "far", "latency_s": 0.03, "bandwidth_Bps": 2.5e6, "back": {"latency_s": 0.01}}]}}"#;
        let table = WanTable::from_json(text).unwrap();
        let shape = table.view(1, 0).shapes().of(name_in_region(1, 0)).unwrap();
        assert_eq!((shape.latency.as_millis(), shape.round_trip.as_millis()), (10, 40));
        // What was written before links had a way back is read as it was.
        let old = r#"{"region": 1, "coordinator": 0, "links": [[0.03, 1e6], [0.001, 1e9]], "overhead_s": 0, "serial": true}"#;
        let view: RegionView = serde_json::from_str(old).unwrap();
        let shape = view.shapes().of(name_in_region(1, 0)).unwrap();
        assert_eq!(shape, LinkShape::steady(Duration::from_millis(30), 1e6));
    }
}
