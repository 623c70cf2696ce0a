//! What the lab adds to the computation: what `skipstone bench lab` prints.

use super::data::Data;
use super::look::Look;
use super::{Experiment, LabError};
use crate::config::RunConfig;
use crate::cost::{CostModel, Numbers, SimulateError, watch};
use serde::{Deserialize, Serialize};
use skipstone_model::optimizer::{clip_factor, zero};
use skipstone_model::{
    ComputePool, CpuBackend, ModelError, OptimizerStep, StageBackend, grad_norm, initial_parameters,
};
use skipstone_types::{Iteration, Microbatch, StageId};
use std::time::Instant;

/// Medians over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BenchLab {
    /// Parameters of the model.
    pub parameters: usize,
    /// Tokens of an iteration.
    pub tokens: usize,
    /// Real seconds of an iteration in the lab.
    pub lab_s: f64,
    /// Seconds of the same iteration's forwards, backwards and steps alone.
    pub bare_s: f64,
    /// The first over the second, of each round.
    pub ratio: f64,
}

/// Trains the run of `experiment` without failures, skips and validations for `iterations`, in the lab and as a plain loop over the same
/// kernels, in turn, `rounds` times, on one thread.
///
/// # Errors
/// An experiment that can't run, or `iterations` or `rounds` of 0.
pub fn bench_lab(experiment: &Experiment, iterations: u64, rounds: usize) -> Result<BenchLab, LabError> {
    if iterations == 0 || rounds == 0 {
        return Err(LabError::Field {
            field: "iterations, rounds",
            why: "measure at least one of each".to_owned(),
        });
    }
    let arm = experiment.arms()?.into_iter().next();
    let arm = arm.ok_or_else(|| LabError::Field { field: "seeds", why: "there is none".to_owned() })?;
    // The plain loop leaves no stage out, so neither does the lab.
    let config = RunConfig { steps: iterations, skip: 0.0, ..arm.config };
    let data = experiment.data(arm.seed)?;
    let numbers = data.numbers(&config)?;
    let pool = ComputePool::new(1)?;
    let shape = &numbers.setup.shape;
    let parameters = (0..=config.stages).map(|stage| shape.parameters(StageId(stage))).sum();
    let tokens = shape.tokens() * config.microbatches as usize;
    let mut times = Vec::with_capacity(rounds);
    // One more round, before caches and clocks are warm.
    for _ in 0..=rounds {
        let start = Instant::now();
        pool.install(|| in_the_lab(&config, &data, &numbers))?;
        let lab_s = start.elapsed().as_secs_f64() / iterations as f64;
        let start = Instant::now();
        pool.install(|| bare(&config, &numbers, &pool))?;
        times.push((lab_s, start.elapsed().as_secs_f64() / iterations as f64));
    }
    let warm = &times[1..];
    let of = |part: fn(&(f64, f64)) -> f64| median(warm.iter().map(part).collect());
    Ok(BenchLab {
        parameters,
        tokens,
        lab_s: of(|(lab, _)| *lab),
        bare_s: of(|(_, bare)| *bare),
        ratio: of(|(lab, bare)| lab / bare),
    })
}

/// Every protocol message, every tensor's way between simulated nodes, and the computation.
fn in_the_lab(config: &RunConfig, data: &Data, numbers: &Numbers) -> Result<(), LabError> {
    let failed = |why| LabError::Arm { arm: "the lab's run".to_owned(), why: Box::new(why) };
    let mut model = CostModel::of_run(config).map_err(failed)?;
    model.numbers = Some(numbers.clone());
    let mut progress = |_| true;
    let mut look = Look::new(&numbers.setup, data.validation(2), &mut progress);
    watch(model, &mut look).map(|_| ()).map_err(failed)
}

/// A stage of the plain loop.
struct BareStage {
    backend: CpuBackend,
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    first_moments: Vec<f32>,
    second_moments: Vec<f32>,
}

/// The same microbatches through the same kernels, stage after stage, and a step of each.
fn bare(config: &RunConfig, numbers: &Numbers, pool: &ComputePool) -> Result<(), LabError> {
    let shape = &numbers.setup.shape;
    let mut stages = (0..=config.stages)
        .map(|stage| {
            let backend =
                CpuBackend::with_pool(&shape.model, shape.stage_spec(StageId(stage)), pool.clone())?;
            let parameters = initial_parameters(&shape.model, backend.layout(), config.seed);
            let zeros = vec![0.0; parameters.len()];
            let (gradient, first_moments, second_moments) = (zeros.clone(), zeros.clone(), zeros);
            Ok(BareStage { backend, parameters, gradient, first_moments, second_moments })
        })
        .collect::<Result<Vec<_>, ModelError>>()?;
    for iteration in 0..config.steps {
        for microbatch in 0..config.microbatches {
            let batch = numbers.feed.batch(Iteration(iteration), Microbatch(microbatch));
            let bug = |why| LabError::Arm {
                arm: "the plain loop".to_owned(),
                why: Box::new(SimulateError::Bug(why)),
            };
            let (inputs, targets) = batch.map_err(bug)?;
            pass(&mut stages, &inputs, &targets)?;
        }
        for stage in &mut stages {
            let clip_factor = clip_factor(grad_norm(&stage.gradient), 1.0) as f32;
            let step = OptimizerStep { step: iteration + 1, clip_factor, ..OptimizerStep::default() };
            let moments = (&mut stage.first_moments, &mut stage.second_moments);
            let (parameters, gradient) = (&mut stage.parameters, &stage.gradient);
            stage.backend.optimizer_step(parameters, gradient, moments.0, moments.1, &step)?;
            zero(&mut stage.gradient);
        }
    }
    Ok(())
}

/// Forward, loss and backward of a microbatch.
fn pass(stages: &mut [BareStage], inputs: &[u32], targets: &[u32]) -> Result<(), ModelError> {
    let Some((origin, relays)) = stages.split_first_mut() else { return Ok(()) };
    let (mut x, embedded) = origin.backend.embed(&origin.parameters, inputs)?;
    let mut kept = Vec::with_capacity(relays.len());
    for relay in relays.iter_mut() {
        let (y, saved) = relay.backend.forward(&relay.parameters, &x)?;
        relay.backend.recycle(std::mem::replace(&mut x, y));
        kept.push(saved);
    }
    let loss = origin.backend.loss(&origin.parameters, &x, targets, Some(&mut origin.gradient), 1.0)?;
    let mut dy = loss.dx;
    for (relay, saved) in relays.iter_mut().zip(kept).rev() {
        let dx = relay.backend.backward(&relay.parameters, saved, &dy, Some(&mut relay.gradient))?;
        relay.backend.recycle(std::mem::replace(&mut dy, dx));
    }
    origin.backend.embed_backward(&origin.parameters, embedded, &dy, Some(&mut origin.gradient))?;
    origin.backend.recycle(x);
    origin.backend.recycle(dy);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
