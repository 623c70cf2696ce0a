//! What fails together.

use serde::{Deserialize, Serialize};

/// Where a node is, as far as whoever connected it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FailureDomain {
    /// Its region in the run's table of links.
    pub region: Option<u16>,
    /// Its machine. Where links are only made longer all nodes share one, in many regions.
    pub machine: Option<u64>,
}

impl FailureDomain {
    /// How much of what could fail the two share: 0 = nothing that is known, 1 = a region, 2 = a machine too.
    pub fn shared_with(self, other: Self) -> u8 {
        let same = |a: Option<u64>, b: Option<u64>| a.is_some() && a == b;
        let regions = (self.region.map(u64::from), other.region.map(u64::from));
        let same_region = same(regions.0, regions.1);
        if regions.0.is_some() && regions.1.is_some() && !same_region {
            return 0;
        }
        if same(self.machine, other.machine) { 2 } else { u8::from(same_region) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_come_before_machines_and_the_unknown_is_shared_with_nobody() {
        let at = |region, machine| FailureDomain { region, machine };
        for (a, b, shared) in [
            (at(Some(1), Some(7)), at(Some(1), Some(7)), 2),
            (at(Some(1), Some(7)), at(Some(1), Some(8)), 1),
            // One machine, whose links are made as long as between regions.
            (at(Some(1), Some(7)), at(Some(2), Some(7)), 0),
            (at(None, Some(7)), at(None, Some(7)), 2),
            (at(None, Some(7)), at(Some(1), Some(7)), 2),
            (at(None, Some(7)), at(None, Some(8)), 0),
            (at(None, None), at(None, None), 0),
        ] {
            assert_eq!((a.shared_with(b), b.shared_with(a)), (shared, shared), "{a:?} {b:?}");
        }
    }
}
