//! How fast a stage trains on this machine: what `skipstone bench stage` prints.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::backend::StageBackend;
use crate::config::LlamaConfig;
use crate::cpu::CpuBackend;
use crate::error::{ModelError, Result};
use crate::init::initial_parameters;
use crate::layout::{Role, StageSpec};
use crate::optimizer::{OptimizerStep, clip_factor};

/// Shape of a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchShape {
    /// Width of the model, D.
    pub width: usize,
    /// Layers of the stage.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of the MLP, F.
    pub ffn: usize,
    /// Tokens of a sequence, T.
    pub context: usize,
    /// Sequences of a microbatch, B.
    pub batch: usize,
    /// Compute threads.
    pub threads: usize,
    /// Measured iterations, after one that is not.
    pub repeats: usize,
}

/// Medians over the repeats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchStage {
    /// Forward of one microbatch.
    pub forward_ms: f64,
    /// Backward of one microbatch, with weight gradients.
    pub backward_ms: f64,
    /// Gradient norm, clipping and AdamW, and clearing the gradients.
    pub optimizer_ms: f64,
    /// Tokens through all of that in a second.
    pub tokens_per_s: f64,
    /// Processor time of an iteration, all threads together, which other load on the machine disturbs less;
    /// absent where the system does not tell (not Linux).
    pub cpu_ms: Option<f64>,
    /// Most memory the process ever held; where the system does not tell (not Linux), this stage's buffers.
    pub peak_rss_bytes: u64,
}

/// Trains a relay stage on noise and times it.
///
/// # Errors
/// [`ModelError`] if the shape is impossible.
pub fn bench_stage(shape: &BenchShape) -> Result<BenchStage> {
    if shape.repeats == 0 {
        return Err(ModelError::Spec("repeats is 0; measure at least one iteration".to_owned()));
    }
    let config = LlamaConfig {
        intermediate_size: shape.ffn,
        num_key_value_heads: shape.kv_heads,
        ..LlamaConfig::new(256, shape.width, shape.heads, shape.layers, shape.context)
    };
    let spec =
        StageSpec { role: Role::Relay, layers: 0..shape.layers, batch: shape.batch, context: shape.context };
    let tokens = spec.tokens();
    let estimate = crate::memory::memory_estimate(&config, &spec)?;
    let mut stage = CpuBackend::new(&config, spec, shape.threads)?;
    let pool = stage.pool().clone();
    let mut params = pool.install(|| initial_parameters(&config, stage.layout(), 1));
    let mut grads = vec![0.0; params.len()];
    let (mut m, mut v) = (vec![0.0; params.len()], vec![0.0; params.len()]);
    // A low-discrepancy sequence as noise in [−1, 1).
    let noise = |n: usize, k: f64| -> Vec<f32> {
        (0..n).map(|i| ((i as f64 * k).fract() * 2.0 - 1.0) as f32).collect()
    };
    let x = noise(tokens * shape.width, 0.618_033_988_749_895);
    let dy = noise(tokens * shape.width, 0.414_213_562_373_095);
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let mut cpu_start = None;
    for i in 0..=shape.repeats {
        if i == 1 {
            cpu_start = cpu_seconds();
        }
        let start = Instant::now();
        let (y, saved) = stage.forward(&params, &x)?;
        let forward = start.elapsed().as_secs_f64();
        let dx = stage.backward(&params, saved, &dy, Some(&mut grads))?;
        let backward = start.elapsed().as_secs_f64();
        let clip_factor = clip_factor(stage.grad_norm(&grads), 1.0) as f32;
        let step = OptimizerStep { step: i as u64 + 1, clip_factor, ..OptimizerStep::default() };
        stage.optimizer_step(&mut params, &grads, &mut m, &mut v, &step)?;
        pool.install(|| crate::optimizer::zero(&mut grads));
        let all = start.elapsed().as_secs_f64();
        stage.recycle(y);
        stage.recycle(dx);
        if i > 0 {
            for (list, time) in times.iter_mut().zip([forward, backward - forward, all - backward]) {
                list.push(time * 1e3);
            }
        }
    }
    let cpu_ms = cpu_start.zip(cpu_seconds()).map(|(a, b)| (b - a) * 1e3 / shape.repeats as f64);
    let [forward_ms, backward_ms, optimizer_ms] = times.map(median);
    Ok(BenchStage {
        forward_ms,
        backward_ms,
        optimizer_ms,
        tokens_per_s: tokens as f64 * 1e3 / (forward_ms + backward_ms + optimizer_ms),
        cpu_ms,
        peak_rss_bytes: peak_rss_bytes().unwrap_or_else(|| estimate.total(1)),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// The process's high-water mark of resident memory, where `/proc` tells.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Seconds of processor time of all living threads of this process, where `/proc` tells.
fn cpu_seconds() -> Option<f64> {
    let mut nanoseconds = 0u64;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 * 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_something_plausible() {
        let shape = BenchShape {
            width: 32,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            ffn: 64,
            context: 16,
            batch: 2,
            threads: 1,
            repeats: 2,
        };
        let b = bench_stage(&shape).unwrap();
        assert!(b.forward_ms > 0.0 && b.backward_ms > 0.0 && b.optimizer_ms > 0.0);
        let total = (b.forward_ms + b.backward_ms + b.optimizer_ms) / 1e3;
        assert!((b.tokens_per_s * total / 32.0 - 1.0).abs() < 1e-9);
        assert!(b.peak_rss_bytes > 50_000);
        assert!(bench_stage(&BenchShape { repeats: 0, ..shape }).is_err());
    }
}
