//! What a strategy sees and what it answers.

use crate::{Lesson, Matching, Retracing, StateFormat};
use serde::{Deserialize, Serialize};
use skipstone_types::StageId;

/// A stage as a strategy sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageView {
    /// Whether a living node serves it.
    pub living: bool,
    /// L2 norm of its gradient (before clipping) in the last committed iteration that reached it; 0 if none did.
    pub gradient_norm: f64,
    /// Whether it holds the same number of layers as a relay stage (relay stages do; the origin may).
    pub like_relay: bool,
}

/// The swarm at the moment of a loss.
#[derive(Debug, Clone, Copy)]
pub struct LossView<'a> {
    /// The stage to rebuild.
    pub lost: StageId,
    /// All stages, origin first.
    pub stages: &'a [StageView],
    /// Iterations since a copy was taken of the lost stage that a living node of another stage keeps; none: there is no such copy.
    pub copy_age: Option<u64>,
    /// Iterations since the last checkpoint of the whole model; none: there is none.
    pub checkpoint_age: Option<u64>,
    /// The run's learning rate at its peak.
    pub learning_rate_peak: f64,
}

/// One ingredient of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The stage whose layers are used: layer j of the rebuilt stage comes from layer j of this one. The rebuilt stage itself: its
    /// newest copy that another stage's node keeps, which is then the only source.
    pub stage: StageId,
    /// Its weight; the coefficients of a recipe add up to 1.
    pub coefficient: f64,
}

/// What the rebuilt stage's Adam moments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moments {
    /// Zero, with the bias correction started anew (CheckFree's code).
    #[default]
    Zero,
    /// Mixed with the same coefficients as the weights.
    Mix,
}

/// How to make a stage again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The ingredients; none = fresh weights from the run's seed.
    pub sources: Vec<Source>,
    /// The moments.
    pub moments: Moments,
    /// Multiplies the stage's learning rate from then on.
    pub learning_rate_factor: f64,
    /// In what numbers the copy is that a stage is restored from; of other sources nothing is rounded.
    pub format: StateFormat,
    /// How the stage that its sources give learns from what its neighbours kept, before it enters.
    pub matching: Option<Matching>,
    /// The steps that a restored stage takes again, before it enters.
    pub retracing: Option<Retracing>,
}

impl Recipe {
    /// The stage as a copy of it was, weights, moments, counters and rate, in the copy's numbers.
    pub fn restore(stage: StageId, format: StateFormat) -> Self {
        let sources = vec![Source { stage, coefficient: 1.0 }];
        let (moments, learning_rate_factor) = (Moments::Mix, 1.0);
        Self { sources, moments, learning_rate_factor, format, matching: None, retracing: None }
    }

    /// What it is learned from, or retraced with, in order: two boundary tensors each.
    pub fn lessons(&self) -> Vec<Lesson> {
        let learned = self.matching.iter().flat_map(|matching| matching.lessons.iter().copied());
        learned.chain(self.retracing.iter().flat_map(Retracing::microbatches)).collect()
    }

    /// Of the microbatches that it is retraced with those whose activation and gradient become again what the stage had made, bit for
    /// bit, for who makes it to keep, in order. Of a rounded copy comes something near them, which nobody could tell from what they
    /// were: none.
    pub fn made_again(&self) -> impl Iterator<Item = Lesson> {
        let exact = self.retracing.iter().filter(|_| !self.format.rounds());
        exact.flat_map(Retracing::microbatches)
    }

    /// In what numbers the states of the sources travel.
    pub fn travels_as(&self, stage: StageId) -> StateFormat {
        if self.restores(stage) { self.format } else { StateFormat::F32 }
    }

    /// Whether `stage` becomes what a copy of itself is.
    pub fn restores(&self, stage: StageId) -> bool {
        matches!(self.sources[..], [source] if source.stage == stage)
    }
}

/// A strategy's answer to a loss.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Rebuild the stage so.
    Rebuild(Recipe),
    /// The whole model goes back to its last checkpoint.
    Rollback,
    /// The stage becomes what it was when it was lost, which nothing but a simulation can give back.
    Return,
    /// The strategy can't make this stage again, because of this.
    Refuse(String),
}
