//! Why paths can't be drawn as asked.

use skipstone_types::StageId;
use std::fmt;
use thiserror::Error;

/// Why paths can't be drawn as asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DrawnError {
    /// Not a weight for each relay stage.
    #[error("visits: {given} numbers for {relay_stages} relay stages; give one for each")]
    Count {
        /// Weights given.
        given: usize,
        /// Relay stages.
        relay_stages: usize,
    },
    /// A weight that is none.
    #[error("visits: {weight} is not a number above 0; a stage that no path visits learns nothing")]
    Weight {
        /// As given.
        weight: String,
    },
    /// A share above 1.
    #[error(
        "visits: a path would visit {stage} {visits} times, but visits no stage twice; bring the numbers nearer together, or skip more"
    )]
    TooOften {
        /// The stage.
        stage: StageId,
        /// Visits a path, on average.
        visits: String,
    },
    /// No set of stages obeys the rules.
    #[error(
        "no path visits {picks} of {relay_stages} relay stages, those included that are to be on every path, {limits}; raise jump, or lower together"
    )]
    NoPath {
        /// Relay stages of a path.
        picks: usize,
        /// Relay stages.
        relay_stages: usize,
        /// The rules that say which sets there are.
        limits: Limits,
    },
    /// No paths that obey the rules visit stages as often as they should.
    #[error(
        "no paths of {picks} relay stages visit each as often as they should {limits}: {stage} would be on {reached} of them, not on {asked}; \
         raise jump, lower together, or give visits that fit them"
    )]
    Unreachable {
        /// The stage that is farthest off.
        stage: StageId,
        /// Relay stages of a path.
        picks: usize,
        /// The rules that say which sets there are.
        limits: Limits,
        /// The share of the paths that should visit it.
        asked: String,
        /// The nearest that was found.
        reached: String,
    },
}

/// The rules of drawn paths that say which sets of stages there are; as text: the end of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest jump.
    pub jump_max: u16,
    /// Adjacent stages left out at one place at least.
    pub together: u16,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "with jumps of at most {}", self.jump_max)?;
        if self.together > 0 {
            write!(f, " and {} adjacent ones left out together", self.together)?;
        }
        Ok(())
    }
}
