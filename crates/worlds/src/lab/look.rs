//! What the lab sees of a run.

use super::result::{LostStage, Point};
use crate::cost::{Seen, Watcher};
use crate::live::store::EngineSetup;
use skipstone_model::{EvalOptions, EvalResult, WholeModel, evaluate};
use skipstone_types::{Event, Iteration, StageId};

/// Windows of a validation's batch.
const EVAL_BATCH: usize = 8;

/// Watches a run, and validates.
pub(super) struct Look<'a> {
    setup: EngineSetup,
    validation: &'a [u32],
    progress: &'a mut dyn FnMut(u64) -> bool,
    /// Whether it was told to stop.
    pub(super) interrupted: bool,
    pub(super) points: Vec<Point>,
    pub(super) lost: Vec<LostStage>,
    pub(super) refused: u64,
    /// Iterations of the training that are done; those that a rollback repeats count once.
    done: u64,
    /// Iterations committed with a hole.
    pub(super) around_holes: u64,
    /// Validations of the trained model without some of its stages.
    pub(super) left_out: Vec<EvalResult>,
    /// Sum of the training losses since the last point, and how many.
    training: (f64, u64),
    /// What was validated last.
    model: Option<WholeModel>,
}

impl<'a> Look<'a> {
    pub(super) fn new(
        setup: &EngineSetup,
        validation: &'a [u32],
        progress: &'a mut dyn FnMut(u64) -> bool,
    ) -> Self {
        Self {
            setup: setup.clone(),
            validation,
            progress,
            interrupted: false,
            points: Vec::new(),
            lost: Vec::new(),
            refused: 0,
            done: 0,
            around_holes: 0,
            left_out: Vec::new(),
            training: (0.0, 0),
            model: None,
        }
    }

    /// Loss on the validation tokens of the whole model, in nats per token; a hole is passed by.
    fn validate(&mut self, stages: Vec<Option<Vec<f32>>>) -> Result<f64, String> {
        let shape = &self.setup.shape;
        let stages = stages.into_iter().zip(0..).map(|(weights, stage)| {
            let spec = shape.stage_spec(StageId(stage));
            // A residual stage of zeros adds nothing.
            let zeros = || vec![0.0; spec.parameters(&shape.model)];
            let weights = weights.unwrap_or_else(zeros);
            (spec, weights)
        });
        let model =
            WholeModel::new(shape.model.clone(), stages.collect()).map_err(|error| error.to_string())?;
        let results = self.evaluate(&model, &[0.0])?;
        self.model = Some(model);
        results.first().map(|result| result.loss).ok_or_else(|| "nothing was validated".to_owned())
    }

    fn evaluate(&self, model: &WholeModel, skips: &[f64]) -> Result<Vec<EvalResult>, String> {
        let options = EvalOptions {
            context: self.setup.shape.batches.context,
            batch: EVAL_BATCH,
            skips: skips.to_vec(),
            seed: 0,
            threads: 1,
        };
        let evaluation =
            evaluate(model, self.validation, &options, |_, _| {}).map_err(|error| error.to_string())?;
        Ok(evaluation.results)
    }

    /// Validates what was validated last once more, with these shares of its relay stages left out.
    pub(super) fn leave_out(&mut self, skips: &[f64]) -> Result<(), String> {
        if let Some(model) = self.model.as_ref().filter(|_| !skips.is_empty()) {
            self.left_out = self.evaluate(model, skips)?;
            self.left_out.retain(|result| skips.contains(&result.skip));
        }
        Ok(())
    }

    fn hear(&mut self, at_us: u64, event: &Event) {
        match event {
            Event::Committed { iteration, loss, stages, .. } => {
                self.done = self.done.max(iteration.0 + 1);
                self.training = (self.training.0 + loss, self.training.1 + 1);
                self.around_holes += u64::from(stages.iter().any(|part| part.nodes.is_empty()));
            }
            Event::StageLost { stage, iteration } => {
                let (iteration, stage) = (iteration.0, stage.0);
                self.lost.push(LostStage { iteration, stage, at_s: at_us as f64 / 1e6, back_s: None });
            }
            Event::StageRebuilt { stage, .. } => {
                let lost = self.lost.iter_mut().rev().find(|lost| lost.stage == stage.0);
                if let Some(lost) = lost.filter(|lost| lost.back_s.is_none()) {
                    lost.back_s = Some(at_us as f64 / 1e6);
                }
            }
            Event::RebuildRefused { .. } => self.refused += 1,
            _ => {}
        }
    }
}

impl Watcher for Look<'_> {
    fn progress(&mut self, _committed: u64) {
        self.interrupted |= !(self.progress)(self.done);
    }

    fn see(&mut self, seen: Seen) -> Result<(), String> {
        if self.interrupted {
            return Err("interrupted".to_owned());
        }
        match seen {
            Seen::Event { at_us, event } => self.hear(at_us, &event),
            Seen::Weights { at_us, iteration: Iteration(iteration), stages } => {
                let (sum, count) = std::mem::take(&mut self.training);
                let training_loss = (count > 0).then(|| sum / count as f64);
                let validation_loss = self.validate(stages)?;
                self.points.push(Point {
                    iteration,
                    at_s: at_us as f64 / 1e6,
                    validation_loss,
                    training_loss,
                });
            }
        }
        Ok(())
    }
}
