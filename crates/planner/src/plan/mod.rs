//! The plan: format, and whether it keeps to the rules of an instance.

mod check;
mod format;
mod violation;

pub use check::check_plan;
pub use format::{DispatchPolicy, PipelinePlan, PlanMode, PlannedMicrobatch, TaskKind};
pub use violation::PlanViolation;
