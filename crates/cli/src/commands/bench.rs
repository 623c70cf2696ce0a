//! `skipstone bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use skipstone_data::bench_data;
use skipstone_model::{BenchShape, bench_stage};
use skipstone_net as net;
use skipstone_worlds::lab::{Experiment, bench_lab};

use super::bench_plan::BenchPlan;
use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json, threads};

const EXAMPLES: &str = "\
Examples:
  skipstone bench stage --width 512 --layers 3 --heads 8 --ffn 1408 --context 512 --batch 4 --threads 1
  skipstone bench data
  skipstone bench net --json
  skipstone bench plan --instances DIR --time-limit 10
  skipstone bench lab experiments/pilot.toml";

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Forward, backward and optimiser of one stage
    #[command(after_help = EXAMPLES)]
    Stage(Stage),
    /// Stories, tokenizer, encoding, batches
    #[command(after_help = EXAMPLES)]
    Data(Data),
    /// Frames over loopback, against plain TCP
    #[command(after_help = EXAMPLES)]
    Net(Net),
    /// Every planner on every instance of a folder: makespan, all-reduce, gap, search time
    Plan(BenchPlan),
    /// An iteration in the lab, against its computation alone: the same kernels in a plain loop
    #[command(after_help = EXAMPLES)]
    Lab(BenchLab),
}

#[derive(Debug, Args)]
struct Stage {
    /// Width of the model
    #[arg(long, value_name = "D", default_value_t = 512)]
    width: usize,
    /// Layers of the stage
    #[arg(long, value_name = "N", default_value_t = 3)]
    layers: usize,
    /// Query heads
    #[arg(long, value_name = "N", default_value_t = 8)]
    heads: usize,
    /// Key and value heads [default: as many as query heads]
    #[arg(long, value_name = "N")]
    kv_heads: Option<usize>,
    /// Width of the MLP [default: 8/3 of the width, rounded up to 64]
    #[arg(long, value_name = "F")]
    ffn: Option<usize>,
    /// Tokens of a sequence
    #[arg(long, value_name = "T", default_value_t = 512)]
    context: usize,
    /// Sequences of a microbatch
    #[arg(long, value_name = "B", default_value_t = 4)]
    batch: usize,
    /// Compute threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Measured iterations; the median counts
    #[arg(long, value_name = "N", default_value_t = 7)]
    repeats: usize,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Data {
    /// Bytes of embedded stories
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20)]
    bytes: usize,
    /// Tokens of the trained tokenizer
    #[arg(long, value_name = "N", default_value_t = 2048)]
    vocab_size: usize,
    /// Tokens of a sequence
    #[arg(long, value_name = "T", default_value_t = 512)]
    context: usize,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Net {
    /// Bytes sent for each measurement
    #[arg(long, value_name = "BYTES", default_value_t = 512 << 20)]
    bytes: usize,
    /// Measurements of each kind; the median counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct BenchLab {
    /// Whose run is trained, without failures, skips and validations
    #[arg(value_name = "EXPERIMENT.toml")]
    experiment: PathBuf,
    /// Iterations of a measurement
    #[arg(long, value_name = "N", default_value_t = 20)]
    iterations: u64,
    /// Measurements of each kind, in turn; the median counts
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(crate) fn run(self) -> Outcome {
        match self.what {
            What::Stage(stage) => stage.run(),
            What::Data(data) => data.run(),
            What::Net(net) => net.run(),
            What::Plan(plan) => plan.run(),
            What::Lab(lab) => lab.run(),
        }
    }
}

impl Stage {
    fn run(self) -> Outcome {
        let shape = BenchShape {
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads.unwrap_or(self.heads),
            ffn: self.ffn.unwrap_or_else(|| skipstone_model::config::swiglu_width(self.width)),
            context: self.context,
            batch: self.batch,
            threads: self.threads,
            repeats: self.repeats,
        };
        let bench = bench_stage(&shape)?;
        if self.json {
            return print_json(&bench);
        }
        print(&format!(
            "forward {:.2} ms, backward {:.2} ms, optimiser {:.2} ms, {:.0} tokens/s, at most {:.0} MB\n",
            bench.forward_ms,
            bench.backward_ms,
            bench.optimizer_ms,
            bench.tokens_per_s,
            bench.peak_rss_bytes as f64 / 1e6
        ))
    }
}

impl Data {
    fn run(self) -> Outcome {
        let least = 64 * self.context.max(1) + 4096;
        if self.context == 0 || self.bytes < least {
            return Err(Failure::input(format!(
                "--bytes {} is too little for --context {}; pass a context of at least 1 and --bytes {least} or more",
                self.bytes, self.context
            )));
        }
        let bench = bench_data(self.bytes, self.vocab_size, self.context)?;
        if self.json {
            return print_json(&bench);
        }
        print(&format!(
            "stories {:.0} MB/s, tokenizer of {} trained in {:.1} s, {:.2} M tokens/s encoded ({:.2} bytes a token), \
             {:.0} samples/s of {} tokens\n",
            bench.corpus_mb_per_s,
            bench.vocab_size,
            bench.tokenizer_train_s,
            bench.encode_tokens_per_s / 1e6,
            bench.bytes_per_token,
            bench.fill_samples_per_s,
            bench.context
        ))
    }
}

impl Net {
    fn run(self) -> Outcome {
        let options = net::BenchOptions {
            bytes_per_round: self.bytes,
            rounds: self.rounds,
            ..net::BenchOptions::default()
        };
        let bench = net::bench(&options).map_err(Failure::failed)?;
        if self.json {
            return print_json(&bench);
        }
        let mut text = String::new();
        for payload in &bench.payloads {
            text += &format!(
                "{:.0} MB payloads: {:.0} MB/s, plain TCP {:.0} MB/s ({:.2}×)\n",
                payload.payload_bytes as f64 / 1e6,
                payload.mb_per_s,
                payload.raw_mb_per_s,
                payload.ratio
            );
        }
        let mut trips = vec![
            ("control frame there and back", &bench.round_trip),
            ("… while bulk frames flow", &bench.loaded_round_trip),
            ("plain TCP there and back", &bench.raw_round_trip),
        ];
        if let Some(internet) = &bench.internet {
            text += &format!(
                "between machines (iroh, encrypted), {:.0} MB payloads: {:.0} MB/s, bare iroh {:.0} MB/s ({:.2}×)\n",
                internet.payload_bytes as f64 / 1e6,
                internet.mb_per_s,
                internet.raw_mb_per_s,
                internet.ratio
            );
            trips.push(("between machines, control frame there and back", &internet.round_trip));
            trips.push(("… while bulk frames flow", &internet.loaded_round_trip));
        }
        for (what, trip) in trips {
            text += &format!("{what}: {:.0} µs (median), {:.0} µs (99 %)\n", trip.p50_us, trip.p99_us);
        }
        text += &format!("on a machine of {} cores\n", threads(None));
        print(&text)
    }
}

impl BenchLab {
    fn run(self) -> Outcome {
        let bench = bench_lab(&Experiment::read(&self.experiment)?, self.iterations, self.rounds)?;
        if self.json {
            return print_json(&bench);
        }
        print(&format!(
            "{:.2} M parameters, {} tokens: {:.1} ms an iteration in the lab, {:.1} ms its computation alone ({:.3}×)\n",
            bench.parameters as f64 / 1e6,
            bench.tokens,
            bench.lab_s * 1e3,
            bench.bare_s * 1e3,
            bench.ratio
        ))
    }
}
