//! What a swarm on one machine costs against one process, and how soon it works again after a SIGKILL.
//!
//! ```text
//! cargo run --release -p skipstone-worlds --example bench_swarm -- one RUN.toml     the whole model, all cores
//! cargo run --release -p skipstone-worlds --example bench_swarm -- swarm RUN.toml   the same as a swarm
//! cargo run --release -p skipstone-worlds --example bench_swarm -- kills DIR        of a run with --churn
//! ```

use skipstone_data::{SampleOrder, prepare};
use skipstone_model::{
    CpuBackend, OptimizerStep, Role, StageBackend, StageLayout, StageSpec, initial_parameters,
};
use skipstone_observe::{Progress, read_events};
use skipstone_types::Event;
use skipstone_worlds::config::RunConfig;
use skipstone_worlds::live::{RunOptions, run, run_coordinator, run_node};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Iterations that are left out: connections, caches, buffers.
const WARMUP: usize = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["internal-coordinator"] => return run_coordinator(),
        ["internal-node"] => return run_node(),
        ["one", file] => one_process(Path::new(file)),
        ["swarm", file] => swarm(Path::new(file)),
        ["kills", dir] => kills(Path::new(dir)),
        _ => Err("say `one RUN.toml`, `swarm RUN.toml` or `kills DIR`".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn report(what: &str, tokens: usize, mut seconds: Vec<f64>) {
    seconds.drain(..WARMUP.min(seconds.len().saturating_sub(1)));
    let total: f64 = seconds.iter().sum();
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    println!(
        "{what}: {} iterations, {:.0} tokens/s on average, {:.0} at the median",
        seconds.len(),
        tokens as f64 * seconds.len() as f64 / total,
        tokens as f64 / median
    );
}

fn one_process(file: &Path) -> Result<(), Box<dyn Error>> {
    let config = RunConfig::read(file)?;
    let prepared = prepare(&config.data_request()?)?;
    let shape = config.shape(prepared.tokenizer.vocab_size())?;
    let (batch, context) = (shape.batches.batch, shape.batches.context);
    let spec = StageSpec { role: Role::Origin, layers: 0..shape.model.num_hidden_layers, batch, context };
    let layout = StageLayout::of(&shape.model, &spec);
    let threads = std::thread::available_parallelism()?.get();
    let mut backend = CpuBackend::new(&shape.model, spec, threads)?;
    let mut parameters = initial_parameters(&shape.model, &layout, config.seed);
    let zeros = vec![0.0_f32; layout.len()];
    let (mut first, mut second) = (zeros.clone(), zeros.clone());
    let tokens = prepared.dataset.train();
    let order = SampleOrder::new(config.seed, tokens.len(), shape.batches)?;
    let (mut inputs, mut targets) = (vec![0; batch * context], vec![0; batch * context]);
    let mut seconds = Vec::new();
    for iteration in 0..config.steps {
        let start = Instant::now();
        let mut sum = zeros.clone();
        for microbatch in 0..shape.batches.microbatches {
            order.fill(tokens, iteration, microbatch, &mut inputs, &mut targets);
            let (x, saved) = backend.embed(&parameters, &inputs)?;
            let out = backend.loss(&parameters, &x, &targets, Some(&mut sum), 1.0)?;
            backend.embed_backward(&parameters, saved, &out.dx, Some(&mut sum))?;
            backend.recycle(x);
            backend.recycle(out.dx);
        }
        let scale = 1.0 / (shape.batches.microbatches * batch * context) as f32;
        let step = OptimizerStep { step: iteration + 1, clip_factor: scale, ..OptimizerStep::default() };
        backend.optimizer_step(&mut parameters, &sum, &mut first, &mut second, &step)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    report("one process", shape.batches.microbatches * batch * context, seconds);
    Ok(())
}

fn swarm(file: &Path) -> Result<(), Box<dyn Error>> {
    let config = RunConfig::read(file)?;
    let options = RunOptions {
        resume: false,
        progress: Progress::Quiet,
        kills: Vec::new(),
        chaos: None,
        port: 0,
        health: None,
        listen: None,
    };
    let outcome = run(&config, options)?;
    let commits: Vec<u64> = read_events(&outcome.folder.dir.join("events.jsonl"))?
        .iter()
        .filter(|record| matches!(record.event, Event::Committed { .. }))
        .map(|record| record.time_ms)
        .collect();
    let seconds = commits.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1000.0).collect();
    let shape = config.batch_shape()?;
    report("swarm", shape.microbatches * shape.batch * shape.context, seconds);
    println!("goodput {:.3}, {:?}", outcome.observed.summary.goodput, outcome.observed.summary.badput);
    Ok(())
}

/// From a SIGKILL to: its loss being known, the stage being at work again, the next commit.
///
/// A stage is at work again when a living replica has taken the share over or the next attempt has begun with it; one
/// that lost its last replica, when the first attempt begins with the rebuilt stage.
fn kills(dir: &Path) -> Result<(), Box<dyn Error>> {
    let events = read_events(&dir.join("events.jsonl"))?;
    let [mut known, mut repairing, mut rebuilding, mut committed] = [const { Vec::new() }; 4];
    for (index, record) in events.iter().enumerate() {
        let Event::Killed { node: Some(node), stage, .. } = &record.event else { continue };
        let after = |wanted: &dyn Fn(&Event) -> bool| {
            let later = events[index..].iter().find(|later| wanted(&later.event))?;
            Some((later.time_ms - record.time_ms) as f64)
        };
        let is_lost = |event: &Event| matches!(event, Event::NodeLost { node: lost, .. } if lost == node);
        let Some(lost_ms) = after(&is_lost) else { continue };
        known.push(lost_ms);
        // Whether its stage was lost shows before anything else happens to the attempt.
        let whose = events[index..].iter().find_map(|later| match &later.event {
            Event::StageLost { stage: lost, .. } if Some(*lost) == *stage => Some(true),
            Event::Repaired { lost, .. } if lost == node => Some(false),
            Event::AttemptStarted { .. } | Event::Committed { .. } => Some(false),
            _ => None,
        });
        if whose == Some(true) {
            let rebuilt = |event: &Event| matches!(event, Event::StageRebuilt { stage: back, .. } if Some(*back) == *stage);
            rebuilding.extend(after(&rebuilt));
        } else {
            let works =
                |event: &Event| matches!(event, Event::Repaired { .. } | Event::AttemptStarted { .. });
            repairing.extend(after(&works));
        }
        committed.extend(after(&|event: &Event| matches!(event, Event::Committed { .. })));
    }
    let both = repairing.iter().chain(&rebuilding).copied().collect();
    for (what, mut times) in [
        ("loss known", known),
        ("a replica lives: its share taken over", repairing),
        ("none lives: rebuilt and at work", rebuilding),
        ("stage at work again, both kinds", both),
        ("next commit", committed),
    ] {
        times.sort_by(f64::total_cmp);
        let at =
            |share: f64| times.get(((times.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(0.0);
        println!(
            "{what}: {} kills, median {:.0} ms, 95 % within {:.0} ms, {:.0} ms at most",
            times.len(),
            at(0.5),
            at(0.95),
            at(1.0)
        );
    }
    Ok(())
}
