//! `skipstone show`.

use std::path::PathBuf;

use clap::Args;
use skipstone_observe::{Summary, explain, write_report};
use skipstone_types::Iteration;

use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json, say};
use crate::run_folder::Run;

const EXAMPLES: &str = "\
Examples:
  skipstone show skipstone-run               the summary, and report.html made anew
  skipstone show skipstone-run --why 120     what happened around iteration 120
  skipstone show skipstone-run --json";

/// Options of `show`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Show {
    /// The run's folder; the run may still be going on
    dir: PathBuf,
    /// What happened around this iteration
    #[arg(long, value_name = "T")]
    why: Option<u64>,
    /// As one JSON document
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) fn run(self) -> Outcome {
        let run = Run::read(&self.dir)?;
        let state = run.state();
        if let Some(iteration) = self.why {
            if iteration > state.steps() {
                return Err(Failure::input(format!(
                    "iteration {iteration} has not begun: {} holds {}; pass --why with one of those",
                    self.dir.display(),
                    state.steps()
                )));
            }
            let text = explain(&run.info, &run.events, Iteration(iteration));
            return if self.json {
                print_json(&serde_json::json!({ "iteration": iteration, "account": text }))
            } else {
                print(&text)
            };
        }
        let summary = Summary::of(&state);
        match write_report(&self.dir, &state) {
            Ok(path) => say(&format!("report: {}", path.display())),
            Err(why) => say(&format!("warning: {why}")),
        }
        if self.json {
            print_json(&summary)
        } else {
            print(&summary.render(skipstone_observe::stdout_width()))
        }
    }
}
