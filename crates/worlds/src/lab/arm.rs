//! One training run of an experiment.

use super::data::Data;
use super::look::Look;
use super::{ArmResult, LabError};
use crate::config::RunConfig;
use crate::cost::{CostModel, watch};
use crate::live::{Kill, Target, When};
use serde::Serialize;
use skipstone_types::{Iteration, StageId};
use std::fmt;

/// Raised when an arm of the same content gives another result than before.
const FORMAT: u32 = 1;

/// One training run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arm {
    /// How lost stages come back.
    pub strategy: String,
    /// The chance that a relay stage is lost in an iteration.
    pub loss_rate: f64,
    /// Share of the stages that a microbatch leaves out.
    pub skip: f64,
    /// Of weights, samples and losses.
    pub seed: u64,
    /// The stages lost, in order of time.
    pub losses: Vec<(Iteration, StageId)>,
    /// Iterations between two validations.
    pub eval_every: u64,
    /// Tokens of a validation.
    pub eval_tokens: usize,
    /// The run.
    pub config: RunConfig,
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.strategy)?;
        if self.loss_rate > 0.0 {
            write!(f, ", {} losses a stage and iteration", self.loss_rate)?;
        }
        write!(f, ", skip {}, seed {}", self.skip, self.seed)
    }
}

impl Arm {
    /// What the result depends on, in 32 hexadecimal digits.
    pub(super) fn key(&self, data: &Data) -> String {
        // Where the text lies is no part of it; what it says is.
        let config = RunConfig { data: None, ..self.config.clone() };
        let content = (FORMAT, &data.digest, &self.losses, self.eval_every, self.eval_tokens, config);
        let content = serde_json::to_vec(&content).unwrap_or_default();
        blake3::hash(&content).to_hex()[..32].to_owned()
    }

    /// Trains. `progress` hears how many iterations are done, and says whether to go on.
    pub(super) fn run(
        &self,
        data: &Data,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<ArmResult, LabError> {
        let failed = |why| LabError::Arm { arm: self.to_string(), why };
        let mut model = CostModel::of_run(&self.config).map_err(failed)?;
        let numbers = data.numbers(&self.config)?;
        let mut look = Look::new(&numbers.setup, data.validation(self.eval_tokens), progress);
        model.script = self
            .losses
            .iter()
            .map(|(iteration, stage)| Kill {
                when: When::Iteration(*iteration),
                target: Target::WholeStage(*stage),
            })
            .collect();
        model.weights_every = self.eval_every;
        model.numbers = Some(numbers);
        let simulated = watch(model, &mut look);
        if look.interrupted {
            return Err(LabError::Interrupted);
        }
        Ok(ArmResult::new(self, self.key(data), look, &simulated.map_err(failed)?))
    }
}
