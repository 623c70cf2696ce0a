//! Lower bounds on the makespan. Each holds for any policy, starts and orders.

mod one_machine;
mod paths;
mod placement;
mod round_trip;
mod shared;
mod turns;

pub use paths::PathBounds;
pub(crate) use paths::path_bounds;
pub use placement::{InstanceBounds, PlacementBounds};

use crate::compiled::CompiledInstance;
use crate::plan::PipelinePlan;
use crate::simulate::Schedule;

/// What no plan of these paths, of this placement, or of this instance can go below.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowerBounds {
    /// With the plan's paths.
    pub paths: PathBounds,
    /// With the plan's placement, over all legal paths.
    pub placement: PlacementBounds,
    /// With any placement; none for a full pipeline.
    pub instance: Option<InstanceBounds>,
}

impl LowerBounds {
    /// The bounds of a plan that [`check_plan`](crate::check_plan) has nothing against.
    pub fn of_plan(compiled: &CompiledInstance, plan: &PipelinePlan) -> Self {
        let schedule = Schedule::of_plan(compiled, plan);
        Self {
            paths: path_bounds(compiled, &schedule),
            placement: PlacementBounds::new(compiled, &plan.stages, plan.is_full()).with_shared(
                compiled,
                &plan.stages,
                plan.is_full(),
            ),
            instance: (!plan.is_full()).then(|| InstanceBounds::new(compiled)),
        }
    }

    /// Microseconds that no plan with this placement goes below: what the gap is measured against.
    pub fn placement_us(&self) -> u64 {
        self.placement.best_us().max(self.instance.map_or(0, |bounds| bounds.best_us()))
    }

    /// The largest of all.
    pub fn best_us(&self) -> u64 {
        self.placement_us().max(self.paths.best_us())
    }
}
