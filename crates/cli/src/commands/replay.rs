//! `skipstone replay`.

use std::path::{Path, PathBuf};

use clap::Args;
use skipstone_model::StageLayout;
use skipstone_protocol::decode_inputs;
use skipstone_worlds::audit::{first_iteration, read_journal};
use skipstone_worlds::config::RunShape;
use skipstone_worlds::live::folder::{read_facts, read_options};
use skipstone_worlds::live::inputs_file::{inputs_path, recorded_terms};
use skipstone_worlds::live::publish::{StateManifest, read_state};
use skipstone_worlds::live::store::{EngineSetup, StateFile, stage_path};
use skipstone_worlds::replay::{
    DecisionsReport, OtherDecision, ReplayError, ReplayReport, ReplaySource, replay,
};

use crate::failure::{Failure, Outcome};
use crate::output::{Progress, print, print_json, threads};

const EXAMPLES: &str = "\
Examples:
  skipstone replay skipstone-run
  skipstone replay skipstone-run --json

Computes a run again from its own commit records, in this process: the paths that were taken, sums in the order in which
nodes added them, rebuilt stages by their recipes. Every digest of a gradient and of a state that the records hold is
checked. The coordinator's state machine gets its recorded inputs again, and must write the same journal. Needs the run's journal/, run.toml and data/. Exit code 1: something differs; the first place is named.";

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
        let decisions = match decide_again(&self.dir)? {
            Ok(decisions) => decisions,
            Err(error) => {
                if self.json {
                    print_json(&serde_json::json!({ "agrees": false, "why": error.to_string() }))?;
                }
                return Err(Failure::failed(error));
            }
        };
        let report = replay_run(&self.dir, threads(self.threads.map(usize::from)))?;
        match report {
            Ok(report) if self.json => {
                let mut json = serde_json::to_value(&report).map_err(Failure::failed)?;
                json["agrees"] = true.into();
                json["decisions"] = serde_json::to_value(decisions).map_err(Failure::failed)?;
                print_json(&json)
            }
            Ok(report) => print(&text(&report, &decisions)),
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

/// Feeds the inputs that coordinators got to their state machine again: what came of it, or the first other decision.
///
/// # Errors
/// A folder that is not a run's, or that can't be read.
pub(crate) fn decide_again(dir: &Path) -> Outcome<Result<DecisionsReport, OtherDecision>> {
    let journal = read_journal(dir).map_err(Failure::input)?;
    let mut report = DecisionsReport::default();
    for term in recorded_terms(dir) {
        let path = inputs_path(dir, term);
        let bytes = std::fs::read(&path).map_err(|error| {
            Failure::input(format!("{} can't be read ({error}); check its permissions", path.display()))
        })?;
        let decoded = decode_inputs(&bytes).map_err(|error| {
            Failure::input(format!("{}: {error}; remove it to go on without it", path.display()))
        })?;
        let Some((opening, inputs)) = decoded else { continue };
        if let Err(error) = report.feed(&journal, &opening, inputs) {
            return Ok(Err(error));
        }
    }
    report.entries_without_inputs = journal.len() as u64 - report.entries;
    Ok(Ok(report))
}

/// Replays the run in `dir`: what it found, or the first difference.
///
/// # Errors
/// A folder that is not a run's, or that can't be read.
pub(crate) fn replay_run(dir: &Path, threads: usize) -> Outcome<Result<ReplayReport, ReplayError>> {
    let entries = read_journal(dir).map_err(Failure::input)?;
    let begins = first_iteration(&entries).0;
    if begins > 0 {
        return Err(Failure::input(format!(
            "the journal of {} begins with a state after {begins} iterations (fetched from a store, or its journal from before that is gone): how that came about is not recorded here, so there is nothing to replay it from",
            dir.display()
        )));
    }
    let config = read_options(&dir.join("run.toml"))?;
    let facts = read_facts(dir)?;
    let setup = EngineSetup { threads, ..EngineSetup::of(&config, dir, facts.vocabulary)? };
    let saved = read_state(dir).ok();
    let source = ReplaySource { entries: &entries, saved: saved.as_ref(), setup, feed: None };
    let mut progress = Progress::new("replaying");
    let replayed = replay(&source, &mut |done, total| progress.update(done, total, " records"));
    if replayed.as_ref().is_ok_and(|report| report.saved_state_checked)
        && let Some(saved) = &saved
    {
        let checked = check_files(dir, &config.shape(facts.vocabulary)?, saved);
        return Ok(checked.and(replayed));
    }
    Ok(replayed)
}

/// Whether the files of `state/` hold what its manifest says, which the replay has been compared with.
fn check_files(dir: &Path, shape: &RunShape, saved: &StateManifest) -> Result<(), ReplayError> {
    let digest = shape.digest();
    for part in &saved.stages {
        let path = stage_path(&dir.join("state"), saved.iteration, part.stage, &part.state);
        let file = StateFile { stage: part.stage, iteration: saved.iteration, shape: &digest };
        let (iteration, stage) = (saved.iteration, part.stage);
        let spoiled = |why: String| ReplayError::SavedFile { iteration, stage, why };
        let layout = StageLayout::of(&shape.model, &shape.stage_spec(part.stage));
        let state = file.read(&path, &layout).map_err(|error| spoiled(error.to_string()))?;
        if state.digest() != part.state {
            return Err(spoiled(format!("{} holds others", path.display())));
        }
    }
    Ok(())
}

fn text(report: &ReplayReport, decisions: &DecisionsReport) -> String {
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
    let _ = writeln!(
        text,
        "the coordinator made {} of the journal's {} entries again from {} recorded inputs of {} terms",
        decisions.entries,
        decisions.entries + decisions.entries_without_inputs,
        decisions.inputs,
        decisions.terms
    );
    text += if report.saved_state_checked {
        "state/ holds the same bits\n"
    } else {
        "nothing in state/ lies on the way: it was not compared\n"
    };
    text
}
