//! `skipstone replay`.

use std::path::PathBuf;

use clap::Args;
use skipstone_worlds::audit::read_journal;
use skipstone_worlds::config::RunConfig;
use skipstone_worlds::live::folder::read_facts;
use skipstone_worlds::live::publish::read_state;
use skipstone_worlds::live::store::EngineSetup;
use skipstone_worlds::replay::{ReplayError, ReplayReport, ReplaySource, replay};

use crate::failure::{Failure, Outcome};
use crate::output::{Progress, print, print_json, threads};

const EXAMPLES: &str = "\
Examples:
  skipstone replay skipstone-run
  skipstone replay skipstone-run --json

Computes a run again from its own commit records, in this process: the paths that were taken, sums in the order in which
nodes added them, rebuilt stages by their recipes. Every digest of a gradient and of a state that the records hold is
checked. Needs the run's journal/, run.toml and data/. Exit code 1: something differs; the first place is named.";

/// Options of `replay`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Replay {
    /// The run's folder
    dir: PathBuf,
    /// Compute threads [default: the machine's cores]; the bits don't depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// As one JSON document
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(crate) fn run(self) -> Outcome {
        let report = replay_run(&self.dir, threads(self.threads.map(usize::from)))?;
        match report {
            Ok(report) if self.json => {
                let mut json = serde_json::to_value(&report).map_err(Failure::failed)?;
                json["agrees"] = true.into();
                print_json(&json)
            }
            Ok(report) => print(&text(&report)),
            Err(error) => {
                if self.json {
                    let place = error.place();
                    print_json(&serde_json::json!({
                        "agrees": false,
                        "iteration": place.map(|(iteration, _)| iteration.0),
                        "stage": place.map(|(_, stage)| stage.0),
                        "why": error.to_string(),
                    }))?;
                }
                Err(Failure::failed(error))
            }
        }
    }
}

/// Replays the run in `dir`: what it found, or the first difference.
///
/// # Errors
/// A folder that is not a run's, or that can't be read.
pub(crate) fn replay_run(
    dir: &std::path::Path,
    threads: usize,
) -> Outcome<Result<ReplayReport, ReplayError>> {
    let entries = read_journal(dir).map_err(Failure::input)?;
    let config = RunConfig::read(&dir.join("run.toml"))?;
    let facts = read_facts(dir)?;
    let setup = EngineSetup { threads, ..EngineSetup::of(&config, dir, facts.vocabulary)? };
    let saved = read_state(dir).ok();
    let source = ReplaySource { entries: &entries, saved: saved.as_ref(), setup, feed: None };
    let mut progress = Progress::new("replaying");
    Ok(replay(&source, &mut |done, total| progress.update(done, total, " records")))
}

fn text(report: &ReplayReport) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "the same bits: {} records computed again up to {}; {} gradients and {} states agree ({} rebuilds, {} rollbacks, \
         {} terms of the coordinator)\n",
        report.records,
        report.iteration,
        report.gradients,
        report.states,
        report.rebuilds,
        report.rollbacks,
        report.terms
    );
    for stage in &report.stages {
        let _ = writeln!(text, "  {:<9} lineage {}  {}", stage.stage.to_string(), stage.lineage, stage.state);
    }
    text += if report.saved_state_checked {
        "state/ holds the same bits\n"
    } else {
        "nothing in state/ lies on the way: it was not compared\n"
    };
    text
}
