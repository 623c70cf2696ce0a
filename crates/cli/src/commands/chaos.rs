//! `skipstone chaos`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use skipstone_observe::{Progress, Summary};
use skipstone_types::RateShape;
use skipstone_worlds::audit::{audit, read_journal};
use skipstone_worlds::config::RunConfig;
use skipstone_worlds::live::chaos::{ChaosReport, Evidence, Times, judge};
use skipstone_worlds::live::{ChaosPlan, Fault, KillScript, RunOptions, run};

use crate::commands::audit::order_of;
use crate::commands::replay::{decide_again, replay_run};
use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json, say, threads};
use crate::run_flags::parse_seconds;
use crate::run_folder::Run;

const EXAMPLES: &str = "\
Examples:
  skipstone chaos --for 10m --mtbf 3s
  skipstone chaos --for 1m --mtbf 1s --faults kill,coordinator --seed 7
  skipstone chaos --for 30s --stages 3 --replicas 2 --spares 1 --json
  skipstone chaos --for 30s --faults lie --replicas 3   nodes compute wrong sums, and replicas that check find them

Trains a small model with real processes while faults are made at random times: nodes and the coordinator are killed
(SIGKILL) or told to leave, stand still (SIGSTOP) or slow down, links are cut both ways or one, frames are damaged. The run ends by
itself; then the event log, the ledger of the data and the journal are checked, and the weights are computed again from
the journal. The last healthy origin is spared: it comes back only if a copy of it is kept. Exit code 1: a promise was broken.";

/// Options of `chaos`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Chaos {
    /// How long faults are made, as 90s, 10m or 1h
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = parse_seconds)]
    time_s: f64,
    /// Mean time between faults
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_seconds)]
    mtbf: f64,
    /// Kinds of faults: kill, stop, partition, slow, corrupt, drain, coordinator [default: all these]; and lie: a node computes
    /// wrong sums of the usual size, which counts until it is checked, so that from then on weights that are computed again differ
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Relay stages
    #[arg(long, value_name = "S", default_value_t = 5)]
    stages: u16,
    /// Replicas of every stage, the origin included
    #[arg(long, value_name = "R", default_value_t = 2)]
    replicas: u16,
    /// Nodes beyond those
    #[arg(long, value_name = "N", default_value_t = 0)]
    spares: u16,
    /// Share of the stages that each microbatch leaves out
    #[arg(long, value_name = "RATIO", default_value_t = 0.2)]
    skip: f64,
    /// Make links as long as between regions, as `train --wan`
    #[arg(long, value_name = "TABLE")]
    wan: Option<String>,
    /// Make a relay stage's forward take so many seconds, as `train --pace`
    #[arg(long, value_name = "SECONDS")]
    pace: Option<f64>,
    /// Seeds the faults, and the model and data
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// A run that commits nothing for so long hangs
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_seconds)]
    hang: f64,
    /// The run's folder
    #[arg(long, value_name = "DIR", default_value = "skipstone-chaos")]
    out: PathBuf,
    /// Plain lines instead of the live view
    #[arg(long)]
    plain: bool,
    /// One JSON document on stdout at the end
    #[arg(long)]
    json: bool,
}

impl Chaos {
    pub(crate) fn run(self) -> Outcome {
        let plan = self.plan()?;
        let config = self.config();
        say(&format!(
            "chaos: {} nodes on {} stages and a coordinator; {} every {:.1} s for {:.0} s; the run is in {}",
            config.nodes(),
            config.stages + 1,
            plan.faults.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", "),
            self.mtbf,
            self.time_s,
            config.out.display()
        ));
        let options = RunOptions {
            health: None,
            resume: false,
            progress: Progress::choose(self.plain || self.json),
            kills: KillScript::new(),
            chaos: Some(plan),
            port: 0,
            listen: None,
        };
        let outcome = run(&config, options)?;
        say("checking the ledger, and computing the weights again");
        let dir = &outcome.folder.dir;
        let entries = read_journal(dir).map_err(Failure::failed)?;
        let audited = audit(&entries, order_of(dir)?.as_ref());
        let replayed = replay_run(dir, threads(None))?;
        let decided = decide_again(dir)?;
        let told = Run::read(dir)?;
        let report = judge(&Evidence {
            ended: &outcome.ended,
            trace: &outcome.chaos,
            events: &told.events,
            entries: &entries,
            audit: &audited,
            replay: &replayed,
            decisions: &decided,
            goodput: Summary::of(&told.state()).goodput,
        });
        let json = serde_json::json!({ "report": &report, "memory": &outcome.chaos.memory });
        let path = dir.join("chaos.json");
        std::fs::write(&path, serde_json::to_vec_pretty(&json).map_err(Failure::failed)?)
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        if self.json {
            print_json(&report)?;
        } else {
            print(&text(&report))?;
        }
        let broken = report.checks.iter().filter(|check| !check.pass).count();
        if broken == 0 {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "{broken} promises were broken; keep {} and report it (seed {})",
            dir.display(),
            self.seed
        )))
    }

    fn plan(&self) -> Outcome<ChaosPlan> {
        for (name, seconds) in [("--for", self.time_s), ("--mtbf", self.mtbf), ("--hang", self.hang)] {
            if !(0.01..=1e7).contains(&seconds) {
                return Err(Failure::input(format!("{name} must be between 10 ms and 115 days")));
            }
        }
        let faults = if self.faults.is_empty() { Fault::ALL.to_vec() } else { self.faults.clone() };
        Ok(ChaosPlan {
            time: Duration::from_secs_f64(self.time_s),
            mean_between: Duration::from_secs_f64(self.mtbf),
            faults,
            seed: self.seed,
            hang: Duration::from_secs_f64(self.hang),
        })
    }

    /// A model so small that a dozen nodes fit two cores.
    fn config(&self) -> RunConfig {
        RunConfig {
            tokenizer: "bytes".to_owned(),
            story_bytes: 400_000,
            layers: Some(usize::from(self.stages)),
            width: Some(32),
            heads: Some(2),
            context: Some(32),
            batch: 2,
            microbatches: 8,
            stages: self.stages,
            replicas: self.replicas,
            spares: self.spares,
            skip: self.skip,
            wan: self.wan.clone(),
            pace: self.pace,
            schedule: RateShape::Constant,
            // The time ends the run.
            steps: 10_000_000,
            seed: self.seed,
            spot_check_every: self.faults.contains(&Fault::Lie).then_some(1),
            threads: Some(1),
            out: self.out.clone(),
            ..RunConfig::default()
        }
    }
}

fn text(report: &ChaosReport) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let faults: Vec<_> = report.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let _ = writeln!(
        text,
        "{} iterations in {:.0} s through {} kills ({}); {} times a stage lost its last replica",
        report.iterations,
        report.wall_s,
        report.kills,
        faults.join(", "),
        report.stages_lost
    );
    let mut times = |name: &str, times: &Times| {
        let _ = writeln!(
            text,
            "{name}: median {} ms, 99 % within {} ms, worst {} ms ({} times)",
            times.median_ms, times.p99_ms, times.worst_ms, times.count
        );
    };
    times("from a kill to the next commit", &report.to_next_commit);
    times("from a kill until the stage has a node more", &report.to_replaced);
    times("from a SIGSTOP until the node is set aside", &report.to_noticed);
    let _ = writeln!(text, "{} nodes set aside without a reason", report.false_alarms);
    let _ = writeln!(text, "goodput {:.0} %", 100.0 * report.goodput);
    for check in &report.checks {
        let verdict = if check.pass { "PASS" } else { "FAIL" };
        let _ = writeln!(text, "{verdict}  {}: {}", check.name, check.detail);
    }
    text
}
