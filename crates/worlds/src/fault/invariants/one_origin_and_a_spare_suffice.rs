//! A run is given up only if for a while no origin was left; with one, and another node, it goes on to its end.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::End;

/// An origin that comes back within this time is waited for.
const PATIENCE_US: u64 = 7_000_000;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct OneOriginAndASpareSuffice {
    lacks_since_us: Option<u64>,
    now_us: u64,
}

impl Invariant for OneOriginAndASpareSuffice {
    fn name(&self) -> &'static str {
        "one_origin_and_a_spare_suffice"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Standing { now_us, origins, nodes, .. } => {
                if *origins > 0 && *nodes > 1 {
                    self.lacks_since_us = None;
                } else {
                    self.lacks_since_us.get_or_insert(*now_us);
                }
                self.now_us = *now_us;
            }
            Observation::BegunAnew => self.lacks_since_us = None,
            Observation::Ended { end: End::Failed { why }, .. } => {
                let lacking = self.lacks_since_us.map(|since| self.now_us.saturating_sub(since));
                if lacking.is_none_or(|lacking_us| lacking_us < PATIENCE_US) {
                    return Err(format!("given up with origins there {lacking:?} µs ago: {why}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
