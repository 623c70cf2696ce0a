//! Perplexity of a whole model, and what is left of it when stages are skipped.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde::{Deserialize, Serialize};

use crate::backend::StageBackend;
use crate::cpu::CpuBackend;
use crate::error::{ModelError, Result};
use crate::generate::{check_tokens, draws, kept_stages};
use crate::layout::StageSpec;
use crate::pool::ComputePool;
use crate::whole::{WholeModel, WholeStage};

/// How a model is evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalOptions {
    /// T: tokens of a window; windows follow each other, the last may be shorter.
    pub context: usize,
    /// Windows of a batch; each batch draws its own stages to skip.
    pub batch: usize,
    /// Skip ratios. The full model (0) is always computed too.
    pub skips: Vec<f64>,
    /// Seeds the draws of stages.
    pub seed: u64,
    /// Compute threads.
    pub threads: usize,
}

/// What one skip ratio gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// The ratio asked for.
    pub skip: f64,
    /// The ratio of stages that were really skipped.
    pub skip_realised: f64,
    /// Relay stages visited by each batch.
    pub relays_visited: usize,
    /// Mean loss, in nats per token.
    pub loss: f64,
    /// e to the loss.
    pub perplexity: f64,
    /// Perplexity over that of the full model.
    pub ratio: f64,
}

/// What an evaluation gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Tokens predicted, by each ratio.
    pub tokens: usize,
    /// One a ratio asked for, in that order.
    pub results: Vec<EvalResult>,
}

/// A batch of windows of equal length: rows × context tokens from `start`.
struct Batch {
    start: usize,
    rows: usize,
    context: usize,
}

impl Batch {
    fn inputs(&self) -> Range<usize> {
        self.start..self.start + self.rows * self.context
    }
}

/// Mean loss of `model` on `tokens` for each skip ratio: every token but the first is predicted from those before it
/// in its window. For each ratio and batch a random subset of relay stages is visited, the activation passes the
/// others unchanged, the origin always computes. The same seed gives the same figures on any number of threads.
///
/// # Errors
/// When there are fewer than two tokens, tokens outside the vocabulary, or an option is out of range.
pub fn evaluate(
    model: &WholeModel,
    tokens: &[u32],
    options: &EvalOptions,
    mut progress: impl FnMut(usize, usize),
) -> Result<Evaluation> {
    if tokens.len() < 2 {
        return Err(ModelError::Spec(format!("{} tokens cannot be predicted; give more text", tokens.len())));
    }
    if options.context == 0 || options.batch == 0 {
        return Err(ModelError::Spec("context and batch have to be at least 1".to_owned()));
    }
    check_tokens(model, tokens)?;
    let mut skips = vec![0.0];
    skips.extend(&options.skips);
    let visited = skips.iter().map(|skip| model.relays_visited(*skip)).collect::<Result<Vec<usize>>>()?;
    let batches = batches(tokens.len() - 1, options);
    let workers = options.threads.clamp(1, batches.len());
    let mut sums = vec![Vec::new(); batches.len()];
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..workers {
            let (sender, skips, batches, next) = (sender.clone(), &skips, &batches, &next);
            scope.spawn(move || {
                let mut runner = ComputePool::new((options.threads / workers).max(1))
                    .and_then(|pool| Runner::new(model, options, &pool));
                while let Some((index, batch)) = claim(next, batches) {
                    let sums = match &mut runner {
                        Ok(runner) => runner.batch(tokens, index, batch, skips, options.seed),
                        Err(error) => Err(ModelError::Spec(error.to_string())),
                    };
                    let failed = sums.is_err();
                    if sender.send((index, sums)).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut done = 0;
        for (index, result) in receiver {
            sums[index] = result.inspect_err(|_| next.store(batches.len(), Ordering::Relaxed))?;
            done += 1;
            progress(done, batches.len());
        }
        Ok::<(), ModelError>(())
    })?;
    let count = tokens.len() - 1;
    let losses: Vec<f64> = (0..skips.len())
        .map(|i| sums.iter().filter_map(|batch| batch.get(i)).sum::<f64>() / count as f64)
        .collect();
    let own = usize::from(model.origin_layers() > 0);
    let stages = (model.relay_stages() + own).max(1) as f64;
    let result = |i: usize| EvalResult {
        skip: skips[i],
        skip_realised: 1.0 - (visited[i] + own) as f64 / stages,
        relays_visited: visited[i],
        loss: losses[i],
        perplexity: losses[i].exp(),
        ratio: (losses[i] - losses[0]).exp(),
    };
    Ok(Evaluation { tokens: count, results: (1..skips.len()).map(result).collect() })
}

fn claim<'b>(next: &AtomicUsize, batches: &'b [Batch]) -> Option<(usize, &'b Batch)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, batches.get(index)?))
}

/// Whole windows in batches, then what is left as a shorter one.
fn batches(predicted: usize, options: &EvalOptions) -> Vec<Batch> {
    let (context, windows) = (options.context, predicted / options.context);
    let mut batches: Vec<Batch> = (0..windows)
        .step_by(options.batch)
        .map(|w| Batch { start: w * context, rows: options.batch.min(windows - w), context })
        .collect();
    let rest = predicted - windows * context;
    if rest > 0 {
        batches.push(Batch { start: windows * context, rows: 1, context: rest });
    }
    batches
}

/// One worker's backends: relay stages have equal shapes, so that one serves them all.
struct Runner<'m> {
    model: &'m WholeModel,
    origin: CpuBackend,
    relay: Option<CpuBackend>,
}

impl<'m> Runner<'m> {
    fn new(model: &'m WholeModel, options: &EvalOptions, pool: &ComputePool) -> Result<Self> {
        let backend = |stage: &WholeStage| {
            let (role, layers) = (stage.role, stage.layers.clone());
            let spec = StageSpec { role, layers, batch: options.batch, context: options.context };
            CpuBackend::with_pool(model.config(), spec, pool.clone())
        };
        let origin = backend(model.origin())?;
        Ok(Self { model, origin, relay: model.relays().first().map(backend).transpose()? })
    }

    /// The summed loss of a batch for each ratio.
    fn batch(
        &mut self,
        tokens: &[u32],
        index: usize,
        batch: &Batch,
        skips: &[f64],
        seed: u64,
    ) -> Result<Vec<f64>> {
        let inputs = batch.inputs();
        let targets = &tokens[inputs.start + 1..=inputs.end];
        self.origin.set_shape(batch.rows, batch.context)?;
        if let Some(relay) = &mut self.relay {
            relay.set_shape(batch.rows, batch.context)?;
        }
        let params = &self.model.origin().params;
        let embedded = self.origin.infer_embed(params, &tokens[inputs])?;
        let mut sums = Vec::with_capacity(skips.len());
        for &skip in skips {
            let kept = kept_stages(self.model, skip, &mut draws(seed, &format!("batch {index}")))?;
            // The first ratio is 0: another one that leaves nothing out has its sum.
            if let Some(whole) = sums.first().copied().filter(|_| kept.iter().all(|kept| *kept)) {
                sums.push(whole);
                continue;
            }
            let x = self.relays(&embedded, &kept)?;
            let (sum, _) = self.origin.evaluate(params, x.as_deref().unwrap_or(&embedded), targets)?;
            sums.push(sum);
            if let (Some(x), Some(relay)) = (x, &mut self.relay) {
                relay.recycle(x);
            }
        }
        self.origin.recycle(embedded);
        Ok(sums)
    }

    /// The activation after the stages kept; none if that is `x` itself.
    fn relays(&mut self, x: &[f32], kept: &[bool]) -> Result<Option<Vec<f32>>> {
        let Some(relay) = &mut self.relay else { return Ok(None) };
        let mut current: Option<Vec<f32>> = None;
        for (stage, _) in self.model.relays().iter().zip(kept).filter(|(_, kept)| **kept) {
            let y = relay.infer(&stage.params, current.as_deref().unwrap_or(x))?;
            if let Some(old) = current.replace(y) {
                relay.recycle(old);
            }
        }
        Ok(current)
    }
}
