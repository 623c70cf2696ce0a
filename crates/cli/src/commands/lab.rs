//! `skipstone lab`: recovery strategies side by side.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use skipstone_worlds::lab::{
    ArmResult, Experiment, Group, LabError, figures, markdown, run_experiment, stop_on_interrupt, write_pages,
};

use crate::failure::{Failure, Outcome};
use crate::output::{Progress, print, print_json, say, threads};

const EXAMPLES: &str = "\
Examples:
  skipstone lab experiments/quick.toml --out lab            two minutes: four strategies at one rate
  skipstone lab experiments/pilot.toml --out lab            strategies that keep no copies; the same command goes on after Ctrl-C
  skipstone lab experiments/quick.toml --out lab --json

An experiment is a TOML file:
  name = \"how stages come back\"
  seeds = [1, 2]                                  # paired: the same weights, samples and losses for every strategy
  strategies = [\"checkfree\", \"oracle\"]            # as for train --recovery; oracle: stages come back as they were; redundant:
                                                  # Bamboo's, with what it costs in time and bytes.
                                                  # checkfree+ swaps stages in its own arms
  loss_rates = [0.002, [0, 0.01, 0, 0, 0, 0]]     # chance that a relay stage is lost in an iteration; a list has one for each
  region_loss_rates = [0.001]                     # chance that a region is lost in an iteration, with all its nodes
  # traces = [\"p3-trace.csv\", \"losses.jsonl\"]     # what a file says, as for train --churn; a line may name an iteration in place
                                                  # of t_s, and \"lose\" a whole stage
  skips = [0.0, 0.33]                             # in place of the run's
  paths = [\"planned\", \"drawn:swaps=2,jump=3\"]     # planned: as train has them, searched for over links; balanced: all stages equally
                                                  # often in every iteration, whatever the links; drawn: at random for each microbatch, with
                                                  # swaps=0 times that a path goes back, by distance=1 stages at most behind the highest;
                                                  # jump=4, the longest way from there to the next stage; together=0 adjacent stages left
                                                  # out at one place at least; visits=3/2/2/2/2/2, how often each relay stage is visited
                                                  # beside the others. docs/skipping.md has what came of it
  eval_every = 50                                 # iterations between two validations
  eval_tokens = 16384
  eval_skips = [0.25, 0.5]                        # and what is the trained model worth with this share of its stages left out?
  deterministic = false                           # nodes take microbatches as they come, as `train` does by itself; left out,
                                                  # in their order, as under `train --deterministic`, which gives the same bits
  [run]                                           # as in a run.toml; `skipstone config` prints one
  layers = 6
  stages = 6
  # edge_swaps = \"odd\"                          # or \"off\": in all arms; left out, as the strategy has it
  pace = 0.5                                      # seconds of a relay stage's forward: time is modelled
  wan = \"gcp12\"                                 # links, if they are to be modelled

Every combination is trained by the code that trains live; only time is modelled. The folder gets results.jsonl (a line for each, the
same on any number of threads), table.md, report.html, and each chart as SVG (light and dark) and as PNG. What is done is not done
again: change the experiment and run it again.";

/// Options of `lab`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Lab {
    /// What is to be tried
    #[arg(value_name = "EXPERIMENT.toml")]
    experiment: PathBuf,
    /// The folder of the results
    #[arg(long, value_name = "DIR", default_value = "skipstone-lab")]
    out: PathBuf,
    /// Runs at once [default: the machine's cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    name: &'a str,
    groups: &'a [Group],
    results: &'a [ArmResult],
    files: Vec<PathBuf>,
}

impl Lab {
    pub(crate) fn run(self) -> Outcome {
        let experiment = Experiment::read(&self.experiment)?;
        let stop =
            stop_on_interrupt().map_err(|why| Failure::failed(format!("can't listen for Ctrl-C: {why}")))?;
        let progress = Mutex::new(Progress::new("iterations"));
        let started = Instant::now();
        let outcome = run_experiment(&experiment, &self.out, threads(self.threads), &stop, &|now| {
            if let Ok(mut progress) = progress.lock() {
                let spent_s = started.elapsed().as_secs_f64();
                let left_s = spent_s * (now.iterations as f64 / now.iterations_done.max(1) as f64 - 1.0);
                let more =
                    format!(", {} of {} runs done, about {} left", now.arms_done, now.arms, minutes(left_s));
                progress.update(now.iterations_done, now.iterations, &more);
            }
        });
        drop(progress);
        let (results, others) = outcome?;
        let groups = figures(&results);
        let files = write_pages(&experiment, &groups, &self.out)?;
        if others > 0 {
            say(&format!(
                "{} also holds {others} results that this experiment does not ask for; they are kept, and not shown",
                self.out.join(skipstone_worlds::lab::ResultsFile::NAME).display()
            ));
        }
        if self.json {
            let name = &experiment.name;
            return print_json(&Document { name, groups: &groups, results: &results, files });
        }
        print(&markdown(&experiment, &groups))?;
        say(&format!("written: {}", self.out.join("report.html").display()));
        Ok(())
    }
}

fn minutes(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5400.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        match error {
            LabError::Write { .. }
            | LabError::Picture { .. }
            | LabError::Arm { .. }
            | LabError::Interrupted => Self::failed(error),
            _ => Self::input(error),
        }
    }
}
