//! The plan: format, and whether it keeps to the rules of an instance.

mod check;
mod format;
mod violation;

pub(crate) use check::check_placement;
pub use check::check_plan;
pub use format::{DispatchPolicy, PipelinePlan, PlanMode, PlannedMicrobatch, TaskKind};
pub use violation::PlanViolation;
