//! Once faults are over, every stage is served again within a bounded time, if there are nodes for it.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_types::{Event, StageId};
use std::collections::BTreeSet;

/// Virtual time in which a stage is rebuilt.
const CALM_US: u64 = 20_000_000;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct EveryStageIsServedWhenFaultsEnd {
    hole: Option<StageId>,
    hole_since_us: Option<u64>,
    refused: BTreeSet<StageId>,
}

impl Invariant for EveryStageIsServedWhenFaultsEnd {
    fn name(&self) -> &'static str {
        "every_stage_is_served_when_faults_end"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        if let Observation::Disconnected { .. } | Observation::BegunAnew = seen {
            self.hole_since_us = None;
        }
        if let Some(record) = seen.committed() {
            self.hole = record.stages.iter().find(|part| part.members.is_empty()).map(|part| part.stage);
        }
        if let Observation::Log { event: Event::NodeEntered { stage, .. } } = seen {
            self.hole.take_if(|hole| hole == stage);
        }
        if let Observation::Log { event: Event::RebuildRefused { stage, .. } } = seen {
            self.refused.insert(*stage);
        }
        let Observation::Standing { now_us, calm_since_us, nodes, .. } = seen else { return Ok(()) };
        let enough = truth.settings.respawn || *nodes > usize::from(truth.settings.relay_stages);
        let hole = self.hole.filter(|stage| enough && !self.refused.contains(stage));
        let (Some(stage), Some(calm)) = (hole, calm_since_us) else {
            self.hole_since_us = None;
            return Ok(());
        };
        let since = *self.hole_since_us.get_or_insert(*now_us);
        if *now_us > since.max(*calm) + CALM_US {
            return Err(format!(
                "{stage} is a hole, {} s after faults ended, with {nodes} nodes",
                CALM_US / 1_000_000
            ));
        }
        Ok(())
    }
}
