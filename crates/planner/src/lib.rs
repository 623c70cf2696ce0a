//! Chooses the paths of an iteration's microbatches.
//!
//! The trainer asks a [`PathChooser`] with a [`PlanProblem`](skipstone_types::PlanProblem): which nodes live, how
//! long a path is, which orders of stages are allowed. [`BalancedChooser`] answers with paths that load every
//! stage equally, and every node by its speed; it knows nothing of links.

mod balanced;
mod chooser;
mod random;
mod subset;

pub use balanced::BalancedChooser;
pub use chooser::{PathChooser, PlanError};
