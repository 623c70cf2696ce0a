//! What came of an arm.

use super::Arm;
use super::failures::{Failures, LossRate};
use super::look::Look;
use super::paths::PLANNED;
use crate::cost::Simulated;
use serde::{Deserialize, Serialize};
use skipstone_model::EvalResult;

/// A validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Iterations done.
    pub iteration: u64,
    /// Virtual seconds since the start.
    pub at_s: f64,
    /// Of the whole model, in nats per token.
    pub validation_loss: f64,
    /// Mean over the iterations since the point before, in nats per token; none at the start.
    pub training_loss: Option<f64>,
}

/// A stage that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostStage {
    /// In which iteration.
    pub iteration: u64,
    /// Which.
    pub stage: u16,
    /// When, in virtual seconds.
    pub at_s: f64,
    /// When it served again, in virtual seconds.
    pub back_s: Option<f64>,
}

/// What came of an arm: a line of `results.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmResult {
    /// Of the arm's content; see [`super::Arm`].
    pub key: String,
    /// How lost stages came back.
    pub strategy: String,
    /// The chance that a relay stage is lost in an iteration; 0 if that is not what failed.
    pub loss_rate: f64,
    /// What failed, in words, if it was something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<String>,
    /// Share of the stages that a microbatch left out.
    pub skip: f64,
    /// Which paths microbatches took, if not planned ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<String>,
    /// The seed.
    pub seed: u64,
    /// How it ended.
    pub ended: String,
    /// Iterations committed.
    pub iterations: u64,
    /// Those that were committed with a hole.
    pub around_holes: u64,
    /// Rebuilds that the strategy refused.
    pub refused: u64,
    /// Virtual seconds of the run.
    pub virtual_s: f64,
    /// Mean virtual seconds from commit to commit.
    pub iteration_s: f64,
    /// Bytes of tensors that nodes sent each other.
    pub sent_bytes: u64,
    /// Stages lost.
    pub lost: Vec<LostStage>,
    /// Validations, by iteration.
    pub points: Vec<Point>,
    /// Validations of the trained model with some of its relay stages left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<EvalResult>,
}

impl ArmResult {
    pub(super) fn new(arm: &Arm, key: String, look: Look<'_>, simulated: &Simulated) -> Self {
        Self {
            key,
            strategy: String::new(),
            loss_rate: 0.0,
            failures: None,
            skip: arm.skip,
            paths: None,
            seed: arm.seed,
            ended: simulated.summary.ended.clone().unwrap_or_default(),
            iterations: simulated.summary.steps,
            around_holes: look.around_holes,
            refused: look.refused,
            virtual_s: simulated.summary.wall_s,
            iteration_s: simulated.iteration.mean_s,
            sent_bytes: simulated.sent_bytes,
            lost: look.lost,
            points: look.points,
            left_out: look.left_out,
        }
        .of(arm)
    }

    /// The same under the names of `arm`. Arms of one content have one result, whatever they are called: one that was to lose stages and
    /// by chance lost none, say, and one without failures.
    pub(super) fn of(self, arm: &Arm) -> Self {
        let (loss_rate, failures) = match &arm.failures {
            Failures::None => (0.0, None),
            Failures::Stages(LossRate::Each(rate)) => (*rate, None),
            other => (0.0, Some(other.to_string())),
        };
        Self {
            strategy: arm.strategy.clone(),
            loss_rate,
            failures,
            skip: arm.skip,
            paths: (arm.paths != PLANNED).then(|| arm.paths.clone()),
            seed: arm.seed,
            ..self
        }
    }

    /// What failed, in a word or two.
    pub fn what_failed(&self) -> String {
        self.failures.clone().unwrap_or_else(|| self.loss_rate.to_string())
    }

    /// Which paths microbatches took.
    pub fn paths(&self) -> &str {
        self.paths.as_deref().unwrap_or(PLANNED)
    }

    /// The last validation's loss.
    pub fn final_loss(&self) -> Option<f64> {
        self.points.last().map(|point| point.validation_loss)
    }

    /// Where the validation loss first came down to `target`, as a fraction between two points: iterations, and virtual
    /// seconds.
    pub fn reached(&self, target: f64) -> Option<(f64, f64)> {
        let index = self.points.iter().position(|point| point.validation_loss <= target)?;
        let after = self.points[index];
        let Some(before) = index.checked_sub(1).map(|before| self.points[before]) else {
            return Some((after.iteration as f64, after.at_s));
        };
        let share = (before.validation_loss - target) / (before.validation_loss - after.validation_loss);
        let between = |from: f64, to: f64| from + share * (to - from);
        Some((between(before.iteration as f64, after.iteration as f64), between(before.at_s, after.at_s)))
    }

    /// The validation loss after so many virtual seconds, between two points if need be; the last one's if the run is over by then.
    pub fn loss_at(&self, at_s: f64) -> Option<f64> {
        let Some(index) = self.points.iter().position(|point| point.at_s >= at_s) else {
            return self.final_loss();
        };
        let after = self.points[index];
        let Some(before) = index.checked_sub(1).map(|before| self.points[before]) else {
            return Some(after.validation_loss);
        };
        let share = (at_s - before.at_s) / (after.at_s - before.at_s);
        Some(before.validation_loss + share * (after.validation_loss - before.validation_loss))
    }

    /// The validation loss after so many iterations, between two points if need be.
    pub fn loss_after(&self, iterations: f64) -> Option<f64> {
        let index = self.points.iter().position(|point| point.iteration as f64 >= iterations)?;
        let after = self.points[index];
        let Some(before) = index.checked_sub(1).map(|before| self.points[before]) else {
            return Some(after.validation_loss);
        };
        let share = (iterations - before.iteration as f64) / (after.iteration - before.iteration) as f64;
        Some(before.validation_loss + share * (after.validation_loss - before.validation_loss))
    }
}
