//! What happens when the swarm has ended: the model is exported and evaluated, and the run summed up.

use std::path::Path;

use skipstone_data::{TokenDataset, Tokenizer};
use skipstone_model::{EvalOptions, ExportOptions, GenerateOptions, WholeModel, evaluate, export, generate};
use skipstone_observe::{EventLog, Summary, write_report};
use skipstone_types::{EVENT_SCHEMA, Event, EventRecord};
use skipstone_worlds::live::folder::tokens_path;
use skipstone_worlds::live::{Ended, RunOutcome};

use crate::failure::{Failure, Outcome};
use crate::output::{Progress, say, threads};
use crate::run_folder::{Run, model_from_state};

/// Tokens of the validation split that a run's end looks at, at most; `skipstone eval` looks at all.
const VALIDATION_TOKENS_MAX: usize = 100_000;

/// Parameters times tokens that a run's end spends on validation: seconds on a laptop, whatever the model.
const VALIDATION_WORK_MAX: usize = 500_000_000_000;

/// Tokens of the sample that the summary shows.
const SAMPLE_TOKENS: usize = 80;

/// Exports and evaluates what the run left, and says so in its log and report.
pub(crate) fn finish(outcome: &RunOutcome) -> Outcome<Summary> {
    let dir = &outcome.folder.dir;
    let mut sample = None;
    let mut problem = None;
    match &outcome.state {
        Some(saved) => {
            let shape = &outcome.folder.shape;
            let made = model_from_state(dir, shape, saved, &mut say).and_then(|model| {
                export_model(&model, dir)?;
                if outcome.ended == Ended::Done {
                    let loss = validate(&model, dir, shape.batches.context, shape.batches.batch)?;
                    log_validation(dir, saved.iteration, loss)?;
                    sample = write_sample(&model, dir);
                }
                Ok(())
            });
            problem = made.err();
        }
        None => say("warning: nothing was saved, so there is no model to export"),
    }
    let run = Run::read(dir)?;
    let state = run.state();
    let mut summary = Summary::of(&state);
    summary.sample = sample;
    // Only the parent knows it: it is in no event.
    summary.pace = outcome.observed.summary.pace;
    if let Some(traffic) = outcome.observed.summary.cost.and_then(|cost| cost.traffic) {
        summary.set_traffic(&state.info, traffic.sent_bytes);
    }
    if let Err(why) = write_report(dir, &state) {
        say(&format!("warning: {why}"));
    }
    problem.map_or(Ok(summary), Err)
}

/// Writes DIR/model.
fn export_model(model: &WholeModel, dir: &Path) -> Outcome {
    let tokenizer = tokenizer_of(dir)?;
    let options = ExportOptions {
        eos: Some(tokenizer.eos_id()),
        tokenizer_json: Some(tokenizer.to_json().map_err(Failure::failed)?),
        tokenizer_config_json: Some(tokenizer.config_json()),
        ..ExportOptions::default()
    };
    export(model, &dir.join("model"), &options).map_err(Failure::failed)
}

fn tokenizer_of(dir: &Path) -> Outcome<Tokenizer> {
    Tokenizer::from_file(&dir.join("data").join("tokenizer.json")).map_err(Failure::failed)
}

/// Loss on the validation split, in nats per token.
fn validate(model: &WholeModel, dir: &Path, context: usize, batch: usize) -> Outcome<f64> {
    let data = TokenDataset::read(&tokens_path(dir)).map_err(Failure::failed)?;
    let affordable = VALIDATION_WORK_MAX / model.config().parameters().max(1);
    // At least a batch's worth, even of a large model.
    let wanted = affordable.clamp(2 * context, VALIDATION_TOKENS_MAX);
    let tokens = &data.validation()[..data.validation().len().min(wanted)];
    let options =
        EvalOptions { context, batch: batch.max(8), skips: vec![0.0], seed: 0, threads: threads(None) };
    let mut progress = Progress::new("validating");
    let evaluation =
        evaluate(model, tokens, &options, |done, of| progress.update(done as u64, of as u64, " batches"))
            .map_err(Failure::failed)?;
    Ok(evaluation.results[0].loss)
}

/// Adds the loss to the run's log, so that `show` tells it too.
fn log_validation(dir: &Path, iteration: skipstone_types::Iteration, loss: f64) -> Outcome {
    let mut log = EventLog::open(dir)?;
    let time_ms = log.resumed_ms();
    log.append(&EventRecord { schema: EVENT_SCHEMA, time_ms, event: Event::Validated { iteration, loss } });
    log.flush();
    log.take_warning().map_or(Ok(()), |warning| Err(Failure::failed(warning)))
}

/// A text by the model, from the beginning of a document. A run is no worse for lack of one.
fn write_sample(model: &WholeModel, dir: &Path) -> Option<String> {
    let tokenizer = tokenizer_of(dir).ok()?;
    let eos = tokenizer.eos_id();
    let options = GenerateOptions {
        max_tokens: SAMPLE_TOKENS,
        stop: vec![eos],
        threads: threads(None),
        ..GenerateOptions::default()
    };
    let written = generate(model, &[eos], &options, |_| {}).ok()?;
    tokenizer.decode(&written.tokens).ok()
}
