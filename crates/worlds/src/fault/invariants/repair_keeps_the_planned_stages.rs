//! Whatever dies, a microbatch goes through the stages of the plan that its attempt began with.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_types::{Path, Plan};

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct RepairKeepsThePlannedStages {
    plan: Option<Plan>,
}

impl Invariant for RepairKeepsThePlannedStages {
    fn name(&self) -> &'static str {
        "repair_keeps_the_planned_stages"
    }

    fn observe(&mut self, seen: &Observation<'_>, _truth: &Truth) -> Result<(), String> {
        if let Observation::Planned { plan } = seen {
            self.plan = Some((*plan).clone());
        }
        let (Some(record), Some(plan)) = (seen.committed(), &self.plan) else { return Ok(()) };
        if record.plan_epoch != plan.epoch {
            return Err(format!(
                "{} ran on plan {}, not on {}",
                record.iteration, record.plan_epoch, plan.epoch
            ));
        }
        for (index, (ran, planned)) in record.paths.iter().zip(&plan.paths).enumerate() {
            let stages = |path: &Path| path.0.iter().map(|visit| visit.stage).collect::<Vec<_>>();
            if stages(ran) != stages(planned) {
                let t = record.iteration;
                return Err(format!("{t}: microbatch {index} ran over {ran:?}, planned was {planned:?}"));
            }
        }
        Ok(())
    }
}
