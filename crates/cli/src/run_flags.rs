//! The options of `train`: flags over RUN.toml over defaults.

use std::path::PathBuf;

use clap::Args;
use skipstone_types::{EdgeSwaps, RateShape, WhileLost};
use skipstone_worlds::config::{RunConfig, WireFormat};
use skipstone_worlds::live::folder::read_options;

use crate::failure::Outcome;

/// Options of a run. Each has the name of its key in `run.toml`.
#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    /// A file with options, as written into every run's folder; flags override it
    #[arg(value_name = "RUN.toml")]
    pub(crate) file: Option<PathBuf>,
    /// Text file, .jsonl file or folder to train on [default: embedded stories]
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    data: Option<PathBuf>,
    /// `bytes`, `bpe` (trained on the data) or a tokenizer.json [default: bpe]
    #[arg(long, value_name = "bytes|bpe|FILE", help_heading = "Data")]
    tokenizer: Option<String>,
    /// Tokens of a trained tokenizer [default: 2048]
    #[arg(long, value_name = "N", help_heading = "Data")]
    vocab_size: Option<usize>,
    /// Bytes of embedded stories [default: 8388608]
    #[arg(long, value_name = "BYTES", help_heading = "Data")]
    story_bytes: Option<usize>,
    /// Preset or a Hugging Face config.json [default: tiny]
    #[arg(long, value_name = "tiny|124m|500m|1.5b|8b|CONFIG.json", help_heading = "Model")]
    model: Option<String>,
    /// Layers, in place of the model's
    #[arg(long, value_name = "N", help_heading = "Model")]
    layers: Option<usize>,
    /// Width, in place of the model's
    #[arg(long, value_name = "D", help_heading = "Model")]
    width: Option<usize>,
    /// Query heads, in place of the model's
    #[arg(long, value_name = "N", help_heading = "Model")]
    heads: Option<usize>,
    /// Key and value heads, in place of the model's
    #[arg(long, value_name = "N", help_heading = "Model")]
    kv_heads: Option<usize>,
    /// Width of the MLP, in place of the model's
    #[arg(long, value_name = "F", help_heading = "Model")]
    ffn: Option<usize>,
    /// Relay stages; the origin (stage 0) is not counted [default: 4]
    #[arg(long, value_name = "S", help_heading = "Swarm")]
    stages: Option<u16>,
    /// Layers that the origin holds [default: 0]
    #[arg(long, value_name = "N", help_heading = "Swarm")]
    origin_layers: Option<usize>,
    /// Replicas of every stage, the origin included [default: 1]
    #[arg(long, value_name = "R", help_heading = "Swarm")]
    replicas: Option<u16>,
    /// Nodes of each stage, the origin first, in place of --replicas, where stages differ
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        conflicts_with = "replicas",
        help_heading = "Swarm"
    )]
    stage_sizes: Option<Vec<u16>>,
    /// Nodes beyond those, which take a lost node's place [default: 0]
    #[arg(long, value_name = "N", help_heading = "Swarm")]
    spares: Option<u16>,
    /// Share of the stages that each microbatch leaves out [default: 0]
    #[arg(long, value_name = "RATIO", help_heading = "Swarm")]
    skip: Option<f64>,
    /// Every N-th iteration visits every stage; 0 = never [default: 0]
    #[arg(long, value_name = "N", help_heading = "Swarm")]
    full_every: Option<u64>,
    /// So many iterations at the end visit every stage: most of what skipping costs the whole model comes back [default: 0]
    #[arg(long, value_name = "N", help_heading = "Swarm")]
    full_last: Option<u64>,
    /// Microbatches that a node holds between forward and backward [default: two for each stage]
    #[arg(long, value_name = "N", help_heading = "Swarm")]
    slots: Option<u32>,
    /// Compute threads of a node [default: the cores shared out]
    #[arg(long, value_name = "N", help_heading = "Swarm")]
    threads: Option<usize>,
    /// Where to compute; this version: cpu
    #[arg(long, value_name = "cpu", help_heading = "Swarm")]
    device: Option<String>,
    /// How a stage without a living replica is made again: neighbour-snapshot (from a copy that nodes of other stages keep, the
    /// origin too, for a few per cent more bytes; with retrace it then computes again what it had computed since, from what its neighbours kept), checkfree (from its neighbours; no
    /// bytes in calm times), match (the same, and then it learns from what its neighbours kept), checkfree+, uniform, copy, random or
    /// checkpoint, with options as in neighbour-snapshot:every=10 or
    /// checkfree:norm=l2-squared,moments=mix [default: neighbour-snapshot:every=auto,dtype=int8]
    #[arg(long, value_name = "NAME", help_heading = "Recovery")]
    recovery: Option<String>,
    /// Let odd microbatches visit relay 2 before 1, and the last relay before the one before it, so that these learn each
    /// other's place; needs --slots 2 or more [default: odd with --recovery checkfree+, else off]
    #[arg(long, value_name = "odd|off", value_parser = parse_edge_swaps, help_heading = "Recovery")]
    edge_swaps: Option<EdgeSwaps>,
    /// In one iteration of N, drawn by lot, a replica computes a node's share again before it counts, in every stage with two
    /// nodes or more; 0 = never [default: 100 with --listen, else 0]
    #[arg(long, value_name = "N", help_heading = "Recovery")]
    spot_check_every: Option<u64>,
    /// Meanwhile: skip trains around the hole; wait waits; briefly waits for a quarter of an iteration, 5 s at most (for a stage that
    /// learns or computes again, eight iterations' time), and then goes around it [default: briefly]
    #[arg(long, value_name = "briefly|skip|wait", value_parser = parse_while_lost, help_heading = "Recovery")]
    while_lost: Option<WhileLost>,
    /// Kill nodes: a rate per node and hour (16%/h), an interval (every 20s), or a trace: JSON lines, or a spot market's
    /// (`skipstone train --help`)
    #[arg(long, value_name = "RATE|TRACE", help_heading = "Recovery")]
    churn: Option<String>,
    /// The trace's time goes so many times as fast: with 60, an hour of it is a minute [default: 1]
    #[arg(long, value_name = "X", help_heading = "Recovery")]
    churn_speed: Option<f64>,
    /// In which numbers activations and their gradients travel between stages: f32, bf16 (half the bytes) or int8 (a quarter)
    /// [default: f32]
    #[arg(long, value_name = "f32|bf16|int8", help_heading = "Network and speed")]
    wire: Option<WireFormat>,
    /// In which numbers replicas add up a stage's gradient, of which each sends and gets one an iteration: f32, bf16 (half
    /// the bytes) or int8 (a quarter) [default: f32]
    #[arg(long, value_name = "f32|bf16|int8", help_heading = "Network and speed")]
    reduce: Option<WireFormat>,
    /// Make links as long as between regions: gcp12, or a JSON file of regions, links and node_regions (`skipstone train --help`)
    #[arg(long, value_name = "TABLE", help_heading = "Network and speed")]
    wan: Option<String>,
    /// What is known of the links between machines, a table as for --wan: nodes are placed and paths searched by it, and
    /// nothing is held back. Each machine says where it is (`join --region`), this one is in the table's coordinator_region
    #[arg(long, value_name = "TABLE", help_heading = "Other machines")]
    links: Option<String>,
    /// With --wan: take stages and paths from a plan of `skipstone plan`, whose node n is the table's n-th, as long as its nodes
    /// live; then they are searched for again. What it says of starts, priorities and orders has no bearing
    #[arg(long, value_name = "PLAN.json", help_heading = "Network and speed")]
    plan: Option<String>,
    /// With --wan or --links: seconds of an iteration that placement gives for each stage that one region could take away, and again for
    /// each two adjacent ones; 0: it thinks of speed alone [default: 2 % of an iteration]
    #[arg(long, value_name = "SECONDS", help_heading = "Network and speed")]
    domain_price: Option<f64>,
    /// Make a relay stage's forward take so many seconds, and the other tasks their multiples of it; without a number:
    /// the speeds of the --wan table's nodes
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "0", help_heading = "Network and speed")]
    pace: Option<f64>,
    /// What a node costs an hour, in any currency: the summary says what the run cost, a million tokens, and what was wasted
    #[arg(long, value_name = "PRICE", help_heading = "Running")]
    price_per_hour: Option<f64>,
    /// What 10⁹ bytes of tensors cost that a node sends to another, in the same currency: what clouds ask for egress. Of
    /// nodes on other machines `join` says how much they sent
    #[arg(long, value_name = "PRICE", help_heading = "Running")]
    price_per_gb: Option<f64>,
    /// Command that runs beside each node and ends with 0 when the node's machine is about to be taken away: the node hands
    /// its work over and leaves, as by SIGTERM. Another exit code means not now: it runs again 5 s later. It finds the
    /// node's number in SKIPSTONE_SLOT (0, 1, …) and its process in SKIPSTONE_PROCESS. When all nodes have notice, the run is
    /// saved and ends
    #[arg(long, value_name = "CMD", help_heading = "Recovery")]
    notice_command: Option<String>,
    /// Do not replace dead processes
    #[arg(long, help_heading = "Recovery")]
    no_respawn: bool,
    /// Tokens of a sequence [default: the model's]
    #[arg(long, value_name = "T", help_heading = "Training")]
    context: Option<usize>,
    /// Sequences of a microbatch [default: 4]
    #[arg(long, value_name = "B", help_heading = "Training")]
    batch: Option<usize>,
    /// Microbatches of the whole iteration [default: 8]
    #[arg(long, value_name = "M", help_heading = "Training")]
    microbatches: Option<u32>,
    /// Highest learning rate [default: 0.001]
    #[arg(long, value_name = "X", help_heading = "Training")]
    lr: Option<f64>,
    /// Learning rate at the end of a cosine [default: a tenth of --lr]
    #[arg(long, value_name = "X", help_heading = "Training")]
    min_lr: Option<f64>,
    /// Iterations of warm-up [default: a twentieth of --steps, at most 200]
    #[arg(long, value_name = "N", help_heading = "Training")]
    warmup: Option<u64>,
    /// The learning rate after the warm-up [default: cosine]
    #[arg(long, value_name = "cosine|constant", value_parser = parse_schedule, help_heading = "Training")]
    schedule: Option<RateShape>,
    /// Decoupled weight decay of matrices [default: 0]
    #[arg(long, value_name = "X", help_heading = "Training")]
    weight_decay: Option<f32>,
    /// Largest norm of a stage's gradient; 0 = no clipping [default: 1]
    #[arg(long, value_name = "X", help_heading = "Training")]
    clip: Option<f64>,
    /// Iterations [default: 1000]
    #[arg(long, value_name = "N", help_heading = "Training")]
    steps: Option<u64>,
    /// Seeds weights, stories, samples and paths [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    seed: Option<u64>,
    /// Work in the plan's order, so that an undisturbed run gives the same bits again
    #[arg(long, help_heading = "Training")]
    deterministic: bool,
    /// Time between saves of state/, as 90s, 10m or 1h; 0 = only at the end [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, help_heading = "Training")]
    save_every: Option<f64>,
    /// Send what is saved somewhere else as well, with all that it takes to go on when this machine is gone: a folder,
    /// file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX (`skipstone train --help`)
    #[arg(long, value_name = "URL", help_heading = "Training")]
    pub(crate) checkpoint_to: Option<String>,
    /// The run's folder [default: skipstone-run]
    #[arg(long, value_name = "DIR", help_heading = "Training")]
    out: Option<PathBuf>,
}

/// A duration in seconds from `90s`, `10m`, `1h` or a number of seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1.0),
        Some((at, 'm')) => (&text[..at], 60.0),
        Some((at, 'h')) => (&text[..at], 3600.0),
        _ => (text, 1.0),
    };
    let seconds = digits.trim().parse::<f64>().map(|number| number * unit);
    seconds
        .ok()
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        .ok_or_else(|| "write a time as 90s, 10m or 1h".to_owned())
}

fn parse_while_lost(text: &str) -> Result<WhileLost, String> {
    match text {
        "skip" => Ok(WhileLost::Skip),
        "wait" => Ok(WhileLost::Wait),
        "briefly" => Ok(WhileLost::Briefly),
        _ => Err("choose briefly, skip or wait".to_owned()),
    }
}

fn parse_edge_swaps(text: &str) -> Result<EdgeSwaps, String> {
    match text {
        "odd" => Ok(EdgeSwaps::Odd),
        "off" => Ok(EdgeSwaps::Off),
        _ => Err("choose odd or off".to_owned()),
    }
}

fn parse_schedule(text: &str) -> Result<RateShape, String> {
    match text {
        "cosine" => Ok(RateShape::Cosine),
        "constant" => Ok(RateShape::Constant),
        _ => Err("choose cosine or constant".to_owned()),
    }
}

impl RunFlags {
    /// The folder of the run that is to go on.
    pub(crate) fn folder(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| RunConfig::default().out)
    }

    /// The run that file and flags ask for. A run that goes on starts from the options in its own folder.
    pub(crate) fn config(self, resume: bool) -> Outcome<RunConfig> {
        let own = self.folder().join("run.toml");
        let mut config = match &self.file {
            Some(file) => read_options(file)?,
            None if resume && own.is_file() => {
                RunConfig { out: RunConfig::default().out, ..read_options(&own)? }
            }
            None => RunConfig::default(),
        };
        self.apply(&mut config);
        Ok(config)
    }

    fn apply(self, config: &mut RunConfig) {
        macro_rules! set {
            ($($name:ident),*) => { $(if let Some(value) = self.$name { config.$name = value; })* };
        }
        macro_rules! set_some {
            ($($name:ident),*) => { $(if self.$name.is_some() { config.$name = self.$name; })* };
        }
        set!(
            wire,
            reduce,
            tokenizer,
            vocab_size,
            story_bytes,
            model,
            stages,
            origin_layers,
            replicas,
            spares,
            skip
        );
        set!(full_every, device, recovery, while_lost, batch, microbatches, lr, schedule, weight_decay);
        set!(clip, steps, seed, out, stage_sizes);
        set_some!(
            full_last,
            data,
            layers,
            width,
            heads,
            kv_heads,
            ffn,
            edge_swaps,
            spot_check_every,
            slots,
            threads,
            churn,
            churn_speed,
            notice_command,
            checkpoint_to,
            price_per_hour,
            price_per_gb,
            wan,
            links,
            plan,
            domain_price,
            pace,
            context,
            min_lr,
            warmup
        );
        if let Some(seconds) = self.save_every {
            config.save_every_s = seconds;
        }
        config.respawn &= !self.no_respawn;
        config.deterministic |= self.deterministic;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: RunFlags,
    }

    fn config(arguments: &[&str]) -> RunConfig {
        let line = Line::parse_from(std::iter::once(&"skipstone").chain(arguments));
        line.flags.config(false).unwrap()
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("run.toml");
        std::fs::write(&file, "stages = 2\nlr = 0.5\nrespawn = false\ncontext = 32\n").unwrap();
        let file = file.to_str().unwrap();
        let got = config(&[file, "--lr", "0.25", "--save-every", "2m", "--schedule", "constant"]);
        let want = RunConfig {
            stages: 2,
            lr: 0.25,
            respawn: false,
            context: Some(32),
            save_every_s: 120.0,
            schedule: RateShape::Constant,
            ..RunConfig::default()
        };
        assert_eq!(got, want);
        assert_eq!(config(&[]), RunConfig::default());
    }

    #[test]
    fn every_key_of_run_toml_that_a_flag_sets_is_set() {
        let flags = [
            ("data", "x"),
            ("tokenizer", "bytes"),
            ("vocab-size", "300"),
            ("story-bytes", "9000"),
            ("model", "124m"),
            ("layers", "3"),
            ("width", "64"),
            ("heads", "2"),
            ("kv-heads", "1"),
            ("ffn", "96"),
            ("stages", "3"),
            ("origin-layers", "1"),
            ("replicas", "2"),
            ("spares", "1"),
            ("skip", "0.25"),
            ("full-every", "7"),
            ("full-last", "6"),
            ("stage-sizes", "1,2,2"),
            ("slots", "5"),
            ("threads", "3"),
            ("device", "tpu"),
            ("recovery", "copy"),
            ("edge-swaps", "odd"),
            ("while-lost", "wait"),
            ("churn", "5%/h"),
            ("churn-speed", "60"),
            ("spot-check-every", "9"),
            ("wire", "bf16"),
            ("reduce", "int8"),
            ("wan", "gcp12"),
            ("links", "gcp12"),
            ("plan", "p.json"),
            ("domain-price", "0.1"),
            ("pace", "0.5"),
            ("notice-command", "false"),
            ("price-per-hour", "0.3"),
            ("price-per-gb", "0.08"),
            ("context", "16"),
            ("batch", "2"),
            ("microbatches", "3"),
            ("lr", "0.1"),
            ("min-lr", "0.01"),
            ("warmup", "4"),
            ("schedule", "constant"),
            ("weight-decay", "0.1"),
            ("clip", "2"),
            ("steps", "9"),
            ("seed", "8"),
            ("save-every", "1h"),
            ("checkpoint-to", "s3://bucket/run"),
            ("out", "y"),
        ];
        for (name, value) in flags {
            assert_ne!(config(&[&format!("--{name}"), value]), RunConfig::default(), "--{name} does nothing");
        }
        let switches = ["deterministic", "no-respawn"];
        for flag in Line::command().get_arguments().filter_map(clap::Arg::get_long) {
            let is_tried = flags.iter().any(|(name, _)| *name == flag) || switches.contains(&flag);
            assert!(is_tried || flag == "help", "--{flag} is not tried here");
        }
        assert!(config(&["--deterministic"]).deterministic && !config(&["--no-respawn"]).respawn);
    }

    #[test]
    fn times() {
        assert_eq!(parse_seconds("90s"), Ok(90.0));
        assert_eq!(parse_seconds("1.5m"), Ok(90.0));
        assert_eq!(parse_seconds("2h"), Ok(7200.0));
        assert_eq!(parse_seconds("0"), Ok(0.0));
        for bad in ["", "s", "-1s", "soon", "1d", "infs", "é"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
