//! `skipstone demo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use skipstone_model::{BenchShape, bench_stage};
use skipstone_observe::Progress;
use skipstone_types::{Iteration, StageId};
use skipstone_worlds::config::RunConfig;
use skipstone_worlds::cost::{CostModel, simulate};
use skipstone_worlds::live::{Kill, KillScript, RunOptions, Target, When};

use crate::commands::train::train;
use crate::failure::{Failure, Outcome};
use crate::output::{say, threads};

const EXAMPLES: &str = "\
Examples:
  skipstone demo
  skipstone demo --seconds 60 --out try
  skipstone demo --steps 300 --json
  skipstone demo --wan gcp12                            the same as if spread over 12 cloud regions: far fewer iterations

Trains a small LLaMA on embedded stories with 12 processes on this machine: 5 relay stages and the origin, 2 replicas
each, a third of the stages skipped by every microbatch. On the way processes are killed (SIGKILL): a replica, an
origin, a relay stage with all its replicas, the coordinator, and another. Nothing is downloaded.";

/// Options of `demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Demo {
    /// About how long to train
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// Iterations, in place of --seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(20..))]
    steps: Option<u64>,
    /// Seeds weights, stories, samples and paths
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The run's folder [default: skipstone-demo, or skipstone-demo-2 and so on where there is one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Make links as long as between regions, as `train --wan`
    #[arg(long, value_name = "TABLE")]
    wan: Option<String>,
    /// Plain lines instead of the live view
    #[arg(long)]
    plain: bool,
    /// One JSON document on stdout at the end
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub(crate) fn run(self) -> Outcome {
        let mut config = demo_config();
        config.seed = self.seed;
        config.wan = self.wan;
        config.out = match self.out {
            Some(out) => out,
            None => free_folder()?,
        };
        config.steps = match self.steps {
            Some(steps) => steps,
            None => steps_in(&config, Duration::from_secs(self.seconds))?,
        };
        let kills = kills(config.steps);
        say(&format!(
            "demo: {} processes train {} stages for {} iterations; {} kills are planned; the run is in {}",
            config.nodes() + 1,
            config.stages + 1,
            config.steps,
            kills.len() + usize::from(config.replicas) - 1,
            config.out.display()
        ));
        let options = RunOptions {
            health: None,
            resume: false,
            progress: Progress::choose(self.plain || self.json),
            kills,
            chaos: None,
            port: 0,
            listen: None,
        };
        train(&config, options, self.json)
    }
}

/// The demo's run: 12 nodes, 4 of 6 stages visited.
fn demo_config() -> RunConfig {
    RunConfig {
        model: "tiny".to_owned(),
        layers: Some(6),
        origin_layers: 1,
        stages: 5,
        replicas: 2,
        skip: 0.33,
        vocab_size: 1024,
        story_bytes: 6_000_000,
        context: Some(128),
        batch: 2,
        microbatches: 8,
        lr: 3e-3,
        threads: Some(1),
        ..RunConfig::default()
    }
}

/// Kills spread over the run, early enough for the last to be recovered from.
fn kills(steps: u64) -> KillScript {
    let at =
        |share: f64, target| Kill::new(When::Iteration(Iteration((share * steps as f64) as u64)), target);
    vec![
        at(0.15, Target::Stage(StageId(2))),
        at(0.28, Target::Stage(StageId::ORIGIN)),
        at(0.42, Target::WholeStage(StageId(3))),
        at(0.58, Target::Coordinator),
        at(0.72, Target::AnyNode),
    ]
}

/// An iteration's time over that of its computing shared out among the cores: messages between processes, synced
/// records, waiting for the slowest.
const OVERHEAD: f64 = 1.3;

/// Iterations that tell how long one takes over long links.
const TRIAL_STEPS: u64 = 5;
/// Over long links fewer must do: what is shown is how the swarm goes on.
const WAN_STEPS_MIN: u64 = 40;

/// Fewer iterations would not learn enough to show.
const STEPS_MIN: u64 = 400;
/// More would show nothing new.
const STEPS_MAX: u64 = 5000;

/// Iterations that fit the time on this machine, from how long one of its stages takes.
fn steps_in(config: &RunConfig, time: Duration) -> Outcome<u64> {
    let shape = config.shape(config.vocab_size)?;
    let model = &shape.model;
    let bench = bench_stage(&BenchShape {
        width: model.hidden_size,
        layers: shape.relay_layers,
        heads: model.num_attention_heads,
        kv_heads: model.num_key_value_heads,
        ffn: model.intermediate_size,
        context: shape.batches.context,
        batch: shape.batches.batch,
        threads: 1,
        repeats: 9,
    })?;
    let visits = f64::from(config.settings()?.layers_visited());
    // The head costs about as much as a layer; replicas each take their own optimiser step.
    let computing = (bench.forward_ms + bench.backward_ms) * (visits + 1.0) * f64::from(config.microbatches)
        + bench.optimizer_ms * config.nodes() as f64;
    let iteration_s = computing / 1e3 / threads(None).min(config.nodes()) as f64 * OVERHEAD;
    if config.wan.is_some() {
        // Links are what takes the time, or else the machine's cores are.
        let trial = RunConfig { pace: Some(bench.forward_ms / 1e3), steps: TRIAL_STEPS, ..config.clone() };
        let told = simulate(CostModel::of_run(&trial).map_err(Failure::input)?, &mut |_| {});
        let linked_s = told.map_err(Failure::failed)?.iteration.mean_s;
        let steps = (time.as_secs_f64() / iteration_s.max(linked_s)) as u64;
        return Ok(steps.clamp(WAN_STEPS_MIN, STEPS_MAX));
    }
    Ok(((time.as_secs_f64() / iteration_s) as u64).clamp(STEPS_MIN, STEPS_MAX))
}

/// The first folder of the usual name that is not there.
fn free_folder() -> Outcome<PathBuf> {
    std::iter::once("skipstone-demo".to_owned())
        .chain((2..1000).map(|n| format!("skipstone-demo-{n}")))
        .map(PathBuf::from)
        .find(|dir| !dir.exists())
        .ok_or_else(|| Failure::input("skipstone-demo-2 to -999 are all there; pass --out DIR"))
}
