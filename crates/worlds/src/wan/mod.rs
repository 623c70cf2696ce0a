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
use skipstone_net::{LinkShape, LinkShapes, PeerId};
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
    /// Seconds of a tensor's way beside latency and bytes.
    pub overhead_s: f64,
    /// Whether tensors between two nodes wait for each other.
    pub serial: bool,
}

impl RegionView {
    /// The same place, where links are as they are: only the planner is told of them.
    #[must_use]
    pub fn unshaped(self) -> Self {
        Self { links: Vec::new(), ..self }
    }

    /// What the transport needs.
    pub fn shapes(&self) -> LinkShapes {
        let view = self.clone();
        LinkShapes::new(move |peer| {
            // The coordinator's name says nothing of where it is.
            let region = region_of_name(peer).unwrap_or(view.coordinator);
            let (latency_s, bandwidth_bytes_per_s) = *view.links.get(usize::from(region))?;
            Some(LinkShape {
                latency: Duration::from_secs_f64(latency_s),
                bandwidth_bytes_per_s,
                overhead: Duration::from_secs_f64(view.overhead_s),
                serial: view.serial,
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
        let shapes = table.view(japan).shapes();
        let shape = shapes.of(name_in_region(u64::MAX, taiwan)).unwrap();
        assert_eq!((shape.latency.as_micros(), shape.bandwidth_bytes_per_s), (19_200, 82_378_752.0));
        // The coordinator is in Australia, the first region.
        assert_eq!(shapes.of(PeerId(0)).unwrap().latency.as_micros(), 58_000);
        assert_eq!(shapes.of(name_in_region(7, japan)).unwrap().latency.as_micros(), 1000);
        assert!(shapes.of(name_in_region(7, 12)).is_none());
    }
}
