//! Whoever joins, or comes back, gets an id that nobody ever had.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_types::NodeId;
use std::collections::BTreeSet;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct NodeIdsAreNeverUsedTwice {
    used: BTreeSet<NodeId>,
}

impl Invariant for NodeIdsAreNeverUsedTwice {
    fn name(&self) -> &'static str {
        "node_ids_are_never_used_twice"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        let Observation::Bound { node, .. } = seen else { return Ok(()) };
        if self.used.insert(*node) { Ok(()) } else { Err(format!("{node} is given out twice")) }
    }
}
