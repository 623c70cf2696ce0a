//! Whatever is waited for, somebody who is there will bring it about; and once faults are over, soon.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{Owner, Wait};
use std::collections::BTreeMap;

/// Virtual time that a wait may last once faults are over.
const CALM_US: u64 = 45_000_000;

/// No wait ends later than this by itself.
const TIME_US_MAX: u64 = 900_000_000;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct WaitsHaveAnOwnerAndAnEnd {
    since_us: BTreeMap<Wait, u64>,
}

impl Invariant for WaitsHaveAnOwnerAndAnEnd {
    fn name(&self) -> &'static str {
        "waits_have_an_owner_and_an_end"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        let Observation::Waits { waits, bound, now_us, calm } = seen else { return Ok(()) };
        if waits.is_empty() {
            return Err("the run is not over, and nothing is waited for".to_owned());
        }
        for wait in *waits {
            match &wait.owner {
                Owner::Nodes(nodes) if nodes.is_empty() => {
                    return Err(format!("{} is waited for, from nobody", wait.what));
                }
                Owner::Nodes(nodes) => {
                    if let Some(node) = nodes.iter().find(|node| !bound.contains(node)) {
                        return Err(format!("{} is waited for, from {node}, which is lost", wait.what));
                    }
                }
                Owner::Time { left_us } if *left_us > TIME_US_MAX => {
                    return Err(format!("{} is waited for, for {left_us} µs", wait.what));
                }
                Owner::Time { .. } | Owner::Planner | Owner::Outside => {}
            }
        }
        if !calm {
            self.since_us.clear();
            return Ok(());
        }
        self.since_us.retain(|wait, _| waits.contains(wait));
        for wait in waits.iter().filter(|wait| matches!(wait.owner, Owner::Nodes(_) | Owner::Planner)) {
            let since_us = *self.since_us.entry(wait.clone()).or_insert(*now_us);
            if *now_us > since_us + CALM_US {
                return Err(format!("{wait:?} for {} s, although faults are over", CALM_US / 1_000_000));
            }
        }
        Ok(())
    }
}
