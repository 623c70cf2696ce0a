//! `skipstone audit`.

use std::path::{Path, PathBuf};

use clap::Args;
use skipstone_data::SampleOrder;
use skipstone_worlds::audit::{AuditReport, audit, read_journal};
use skipstone_worlds::live::folder::{read_facts, read_options};
use skipstone_worlds::live::publish::read_state;

use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json};

const EXAMPLES: &str = "\
Examples:
  skipstone audit skipstone-run
  skipstone audit skipstone-run --json

Reads the journal: every microbatch of every committed iteration must be counted exactly once in each stage that its
path reached. What rollbacks discarded and rebuilds forgot is reported apart. Exit code 1: a rule is broken.";

/// Options of `audit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Audit {
    /// The run's folder
    dir: PathBuf,
    /// As one JSON document
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(crate) fn run(self) -> Outcome {
        // The state comes first: whatever was published by now is in the journal, even if the run goes on meanwhile.
        let saved = read_state(&self.dir).ok().map(|saved| saved.iteration.0);
        let entries = read_journal(&self.dir).map_err(Failure::input)?;
        let mut report = audit(&entries, order_of(&self.dir)?.as_ref());
        if let Some(saved) = saved {
            report.check_end(saved);
        }
        if self.json {
            let mut json = serde_json::to_value(&report).map_err(Failure::failed)?;
            json["sound"] = report.is_sound().into();
            print_json(&json)?;
        } else {
            print(&text(&report))?;
        }
        if report.is_sound() {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "the ledger of {} is broken in {} places; do not trust this model, and report the run as a bug",
            self.dir.display(),
            report.violations
        )))
    }
}

/// The order of samples of the run in `dir`, where its options and data are still there.
pub(crate) fn order_of(dir: &Path) -> Outcome<Option<SampleOrder>> {
    let options = dir.join("run.toml");
    if !options.is_file() {
        return Ok(None);
    }
    let config = read_options(&options)?;
    let Ok(facts) = read_facts(dir) else { return Ok(None) };
    let order = SampleOrder::new(config.seed, facts.train_tokens, config.batch_shape()?);
    order.map(Some).map_err(Failure::input)
}

fn text(report: &AuditReport) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "{}: {} iterations, {} microbatches, {} visits of stages, {} samples in {}, {} terms of the coordinator\n",
        if report.is_sound() { "sound" } else { "BROKEN" },
        report.iterations,
        report.microbatches,
        report.visits,
        report.samples,
        if report.epochs == 1 { "1 epoch".to_owned() } else { format!("{} epochs", report.epochs) },
        report.terms
    );
    if report.begins > 0 {
        let _ = writeln!(
            text,
            "from iteration {} on: the journal begins there, with a state that was fetched from a store, or that is older than the journal",
            report.begins
        );
    }
    if report.rollbacks > 0 {
        let _ = writeln!(
            text,
            "went on from a saved state (a checkpoint, or --resume) {}, which discarded {} iterations",
            if report.rollbacks == 1 { "once".to_owned() } else { format!("{} times", report.rollbacks) },
            report.discarded_iterations
        );
    }
    if report.rollbacks > 0 || !report.forgotten.is_empty() {
        text += "generation stage lineage   iterations     surviving  forgotten  discarded (microbatches)\n";
        for line in &report.ledger {
            let iterations = format!("{}-{}", line.first.0, line.last.0);
            let _ = writeln!(
                text,
                "{:>10} {:>5} {:>7}   {iterations:<14} {:>9} {:>10} {:>10}",
                line.generation, line.stage.0, line.lineage, line.surviving, line.forgotten, line.discarded
            );
        }
    }
    for forgotten in &report.forgotten {
        let (stage, iteration) = (forgotten.stage, forgotten.iteration);
        let _ = match forgotten.microbatches {
            0 => writeln!(text, "{stage} was rebuilt before {iteration}, and has forgotten nothing"),
            count => writeln!(
                text,
                "{stage} was rebuilt before {iteration}: its weights had learnt from {count} microbatches, which they forgot"
            ),
        };
    }
    for complaint in &report.complaints {
        let _ = writeln!(text, "broken: {complaint}");
    }
    text
}
