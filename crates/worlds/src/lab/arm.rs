//! One training run of an experiment.

use super::data::Data;
use super::failures::{Failures, Lost};
use super::look::Look;
use super::paths::{self, PLANNED};
use super::{ArmResult, LabError};
use crate::config::RunConfig;
use crate::cost::{CostModel, SimulateError, watch};
use crate::text;
use serde::Serialize;
use skipstone_types::Iteration;
use std::fmt;

/// Raised when an arm of the same content gives another result than before.
const FORMAT: u32 = 1;

/// One training run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arm {
    /// How lost stages come back.
    pub strategy: String,
    /// What fails.
    pub failures: Failures,
    /// Share of the stages that a microbatch leaves out.
    pub skip: f64,
    /// Which paths microbatches take.
    pub paths: String,
    /// Of weights, samples and losses.
    pub seed: u64,
    /// What is lost, in order of time, but for a trace.
    pub losses: Vec<(Iteration, Lost)>,
    /// Iterations between two validations.
    pub eval_every: u64,
    /// Tokens of a validation.
    pub eval_tokens: usize,
    /// Shares of the relay stages that are left out of the trained model in its last validations.
    pub eval_skips: Vec<f64>,
    /// The run.
    pub config: RunConfig,
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.strategy)?;
        match &self.failures {
            Failures::None => {}
            Failures::Stages(_) => write!(f, ", {} losses a stage and iteration", self.failures)?,
            Failures::Regions(_) => write!(f, ", {} losses an iteration", self.failures)?,
            Failures::Trace(_) => write!(f, ", failures of {}", self.failures)?,
        }
        if self.paths != PLANNED {
            write!(f, ", paths {}", self.paths)?;
        }
        write!(f, ", skip {}, seed {}", self.skip, self.seed)
    }
}

impl Arm {
    /// What the result depends on, in 32 hexadecimal digits.
    ///
    /// # Errors
    /// A trace that can't be read.
    pub(super) fn key(&self, data: &Data) -> Result<String, LabError> {
        // Where the text and a trace lie is no part of it; what they say is.
        let mut config = RunConfig { data: None, ..self.config.clone() };
        if let Failures::Trace(path) = &self.failures {
            let content = skipstone_files::read_text(path, text::FILE_BYTES_MAX)
                .map_err(|source| LabError::Read { path: path.clone(), source })?;
            config.churn = Some(blake3::hash(content.as_bytes()).to_hex().to_string());
        }
        let content = (FORMAT, &data.digest, &self.losses, self.eval_every, self.eval_tokens, config);
        let mut content = serde_json::to_vec(&content).unwrap_or_default();
        if !self.eval_skips.is_empty() {
            content.extend(serde_json::to_vec(&self.eval_skips).unwrap_or_default());
        }
        if self.paths != PLANNED {
            content.extend(serde_json::to_vec(&("paths", &self.paths)).unwrap_or_default());
        }
        Ok(blake3::hash(&content).to_hex()[..32].to_owned())
    }

    /// Trains. `progress` hears how many iterations are done, and says whether to go on.
    pub(super) fn run(
        &self,
        data: &Data,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<ArmResult, LabError> {
        let failed = |why| LabError::Arm { arm: self.to_string(), why: Box::new(why) };
        let mut model = CostModel::of_run(&self.config).map_err(failed)?;
        let numbers = data.numbers(&self.config)?;
        let mut look = Look::new(&numbers.setup, data.validation(self.eval_tokens), progress);
        model.script = self.losses.iter().map(|(iteration, lost)| lost.kill(*iteration)).collect();
        model.paths = paths::parse(&self.paths)?;
        model.weights_every = self.eval_every;
        model.numbers = Some(numbers);
        let simulated = watch(model, &mut look);
        if look.interrupted {
            return Err(LabError::Interrupted);
        }
        let simulated = simulated.map_err(failed)?;
        look.leave_out(&self.eval_skips).map_err(|why| failed(SimulateError::Watcher(why)))?;
        Ok(ArmResult::new(self, self.key(data)?, look, &simulated))
    }
}
