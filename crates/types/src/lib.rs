//! The words that every other crate speaks: identifiers, paths, plans, events and configuration.
//!
//! This crate is pure: it does no I/O, reads no clock and draws no random numbers. The vocabulary is
//! the field's (stage, microbatch, replica, path, activation, gradient, iteration) and is explained in
//! `ARCHITECTURE.md`.

mod edge_swaps;
mod event;
mod hash;
mod ids;
mod path;
mod plan;
mod schedule;
mod settings;
mod spot_checks;

pub use edge_swaps::EdgeSwaps;
pub use event::{CommittedStage, EVENT_SCHEMA, Event, EventRecord, Refusal, Remedy, StagePace};
pub use hash::Digest;
pub use ids::{Attempt, Iteration, Microbatch, NodeId, PlanEpoch, RunId, StageId, Term};
pub use path::{Path, PathRules, PathViolation, Visit};
pub use plan::{Pace, PlaceAnswer, PlaceProblem, Plan, PlanProblem, Swap};
pub use schedule::{LearningRate, RateShape};
pub use settings::{Settings, SettingsError, WhileLost};
pub use spot_checks::{Difference, Ruling, SpotChecks};
