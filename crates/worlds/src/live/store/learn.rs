//! A rebuilt stage learns to answer as the lost one did.

use super::OptimizerSetup;
use skipstone_model::{CpuBackend, ModelError, OptimizerStep, StageBackend};
use skipstone_recovery::Matching;

/// Steps within which the rate rises.
const WARMUP_STEPS: u32 = 5;

/// What the stage was sent, and what it made of it, both (B, T, D).
pub(super) type LessonTensors<'a> = (&'a [f32], &'a [f32]);

/// Takes the steps of `matching` with the weights in `parameters`, each over one sequence, of each lesson in turn: Adam on
/// ‖f(x) − y‖² / ‖y − x‖², where y − x is what the stage added to its input. The rate rises for the first few steps and falls to
/// zero. Where that gets the stage no nearer to its lessons, all of them together, it stays what it was. The same bits on any number
/// of threads.
pub(super) fn learn(
    backend: &mut CpuBackend,
    optimizer: OptimizerSetup,
    parameters: &mut Vec<f32>,
    matching: &Matching,
    lessons: &[LessonTensors<'_>],
) -> Result<(), ModelError> {
    if lessons.is_empty() {
        return Ok(());
    }
    let before = distance(backend, parameters, lessons)?;
    let (batch, context) = (backend.spec().batch, backend.spec().context);
    let mut learned = parameters.clone();
    backend.set_shape(1, context)?;
    let taken = take_steps(backend, optimizer, &mut learned, matching, &sequences(lessons, batch));
    backend.set_shape(batch, context)?;
    taken?;
    // Not a number is no nearer either.
    if distance(backend, &learned, lessons)? < before {
        *parameters = learned;
    }
    Ok(())
}

fn take_steps(
    backend: &mut CpuBackend,
    optimizer: OptimizerSetup,
    parameters: &mut [f32],
    matching: &Matching,
    sequences: &[LessonTensors<'_>],
) -> Result<(), ModelError> {
    let mut gradient = vec![0.0; parameters.len()];
    let (mut first_moments, mut second_moments) = (gradient.clone(), gradient.clone());
    for (taken, (x, y)) in (0..matching.steps).zip(sequences.iter().cycle()) {
        gradient.fill(0.0);
        let (made, saved) = backend.forward(parameters, x)?;
        let added = added(x, y);
        let slope: Vec<f32> =
            made.iter().zip(*y).map(|(made, y)| (2.0 * f64::from(made - y) / added) as f32).collect();
        let back = backend.backward(parameters, saved, &slope, Some(&mut gradient))?;
        [made, slope, back].into_iter().for_each(|buffer| backend.recycle(buffer));
        let rising = f64::from(taken + 1) / f64::from(WARMUP_STEPS);
        let left = 1.0 - f64::from(taken) / f64::from(matching.steps);
        let step = OptimizerStep {
            step: u64::from(taken) + 1,
            learning_rate: (matching.rate * rising.min(1.0) * left) as f32,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            epsilon: optimizer.epsilon,
            weight_decay: 0.0,
            clip_factor: 1.0,
        };
        backend.optimizer_step(parameters, &gradient, &mut first_moments, &mut second_moments, &step)?;
    }
    Ok(())
}

/// The sequences of all lessons: the first of each, then the second of each.
fn sequences<'a>(lessons: &[LessonTensors<'a>], batch: usize) -> Vec<LessonTensors<'a>> {
    (0..batch).flat_map(|at| lessons.iter().map(move |lesson| sequence(lesson, at, batch))).collect()
}

/// One sequence of a lesson whose microbatch has `batch` of them.
fn sequence<'a>((x, y): &LessonTensors<'a>, at: usize, batch: usize) -> LessonTensors<'a> {
    let length = x.len() / batch;
    (&x[at * length..][..length], &y[at * length..][..length])
}

/// How far the answers of a stage with these weights are from its lessons: the sum of ‖f(x) − y‖² / ‖y − x‖².
fn distance(
    backend: &mut CpuBackend,
    parameters: &[f32],
    lessons: &[LessonTensors<'_>],
) -> Result<f64, ModelError> {
    let mut sum = 0.0;
    for (x, y) in lessons {
        let made = backend.infer(parameters, x)?;
        sum += squared_distance(&made, y) / added(x, y);
        backend.recycle(made);
    }
    Ok(sum)
}

/// ‖y − x‖², or 1 where the stage has added nothing.
fn added(x: &[f32], y: &[f32]) -> f64 {
    let squared = squared_distance(x, y);
    if squared > 0.0 { squared } else { 1.0 }
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum()
}
