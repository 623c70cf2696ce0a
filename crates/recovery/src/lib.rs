//! Recovery strategies: how a stage whose last replica is gone is made again.
//!
//! Strategies are symbolic. They see norms and which stages live ([`LossView`]), and answer with a [`Recipe`]:
//! layer by layer, which stages to mix with which coefficients, and what happens to the optimiser's moments.
//! Tensors are mixed by whoever holds them (`skipstone-model`), so the same strategy runs in the fault
//! simulation, in the lab and live.
//!
//! ```
//! use skipstone_recovery::{strategy, Decision, LossView, StageView};
//! use skipstone_types::StageId;
//!
//! let served = StageView { living: true, gradient_norm: 1.0, like_relay: true };
//! let lost = StageView { living: false, ..served };
//! let view = LossView { lost: StageId(2), stages: &[served, served, lost, served], copy_age: None, checkpoint_age: None, learning_rate_peak: 1e-3 };
//! let Decision::Rebuild(recipe) = strategy("uniform").unwrap().on_loss(&view) else { panic!() };
//! assert_eq!(recipe.sources.len(), 2);
//! assert_eq!(recipe.sources[0].coefficient, 0.5);
//! ```

mod format;
mod matching;
mod neighbours;
mod partners;
mod recipe;
mod redundant;
mod retracing;
mod snapshots;
mod spec;
mod strategies;

pub use format::StateFormat;
pub use matching::{LESSONS_MAX, Lesson, Matching};
pub use recipe::{Decision, LossView, Moments, Recipe, Source, StageView};
pub use retracing::{RETRACED_ITERATIONS_MAX, RETRACED_MAX, Retraced, Retracing};
pub use snapshots::{is_open, with_option};
pub use spec::{Spec, SpecError};
pub use strategies::{DEFAULT_STRATEGY, STRATEGY_NAMES, Strategy, checkfree, strategy};
