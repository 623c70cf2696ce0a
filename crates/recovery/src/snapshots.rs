//! Copies of a stage's state with nodes of other stages.

use crate::spec::{Spec, SpecError};
use skipstone_types::StageId;
use std::num::NonZeroU64;

/// Iterations between copies, where nothing is said.
const EVERY_ITERATIONS: u64 = 10;

/// Most iterations between copies.
const EVERY_ITERATIONS_MAX: u64 = 1_000_000;

/// How often stages are copied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Snapshots {
    every: NonZeroU64,
    /// Whether the origin is copied too.
    origin: bool,
}

impl Snapshots {
    /// The options `every` and `origin`.
    pub(crate) fn of(spec: &mut Spec<'_>) -> Result<Self, SpecError> {
        let every = spec.whole("every", EVERY_ITERATIONS, 1..=EVERY_ITERATIONS_MAX)?;
        let origin = spec.choice("origin", &["yes", "no"])? == "yes";
        Ok(Self { every: NonZeroU64::new(every).unwrap_or(NonZeroU64::MIN), origin })
    }

    /// Iterations between two copies of the stage.
    pub(crate) fn every(&self, stage: StageId) -> Option<NonZeroU64> {
        (self.origin || !stage.is_origin()).then_some(self.every)
    }
}
