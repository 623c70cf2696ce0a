//! Chooses the paths of an iteration's microbatches.
//!
//! The trainer asks a [`PathChooser`] with a [`PlanProblem`](skipstone_types::PlanProblem): which nodes live, how
//! long a path is, which orders of stages are allowed. [`BalancedChooser`] answers with paths that load every
//! stage equally, and every node by its speed; it knows nothing of links. [`SwarmChooser`] knows them, and searches for
//! paths that end early. [`DrawnChooser`] draws paths for experiments with them.

mod balanced;
mod bounds;
mod chooser;
mod compiled;
mod drawn;
mod generate;
mod instance;
mod json;
mod methods;
mod plan;
mod random;
mod search;
mod simulate;
mod subset;
mod swarm;

pub use balanced::BalancedChooser;
pub use bounds::{InstanceBounds, LowerBounds, PathBounds, PlacementBounds};
pub use chooser::{PathChooser, PlanError};
pub use compiled::{CompiledInstance, MICROSECONDS, PathRule};
pub use drawn::{DrawnChooser, DrawnError, DrawnPaths, Limits as DrawnLimits};
pub use generate::{DrawnSize, draw_instance};
pub use instance::{
    BackLink, EdgeSwaps, INSTANCE_SCHEMA, Instance, InstanceError, InstanceNode, Link, PACKET_BYTES, Quota,
    RegionLink, Regions, SwapRules, Way,
};
pub use methods::{AsPublished, Method, MethodError, MethodOptions, MethodPlan, Tried, plan_with};
pub use plan::{
    DispatchPolicy, PipelinePlan, PlanMode, PlanViolation, PlannedMicrobatch, TaskKind, check_plan,
};
pub use search::{
    EXACT_NODES_MAX, Exact, Found, Objective, SearchError, SearchOptions, exact, lost_with_a_region, replan,
    search, search_placed,
};
pub use simulate::{Evaluation, MemoryWait, TaskInterval, Trace, TransferInterval, evaluate};
pub use swarm::{
    NodeRoles, Placement, PlacementError, StageCost, SwarmChooser, SwarmDescription, SwarmError, SwarmNode,
    SwarmShape, place, place_with_roles,
};
