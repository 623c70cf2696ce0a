//! `skipstone eval`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use skipstone_data::{Corpus, Limits, TokenDataset};
use skipstone_model::{EvalOptions, Evaluation, evaluate};
use skipstone_worlds::live::folder::tokens_path;

use crate::failure::{Failure, Outcome};
use crate::model_folder::ModelFolder;
use crate::output::{Progress, print, print_json, threads};

const EXAMPLES: &str = "\
Examples:
  skipstone eval skipstone-run                                  on the run's own validation split
  skipstone eval skipstone-run/model --data book.txt --skip 0,0.25,0.33,0.5
  skipstone eval llama-folder --data book.txt --skip 0.5 --stages 5 --origin-layers 2

For each ratio a random subset of relay stages is visited, drawn anew for each batch; the origin (stage 0) always is,
and the activation passes the others unchanged. A folder that does not say how it was cut counts each layer as a
stage, the first as the origin's; --stages and --origin-layers cut it otherwise. `ratio` is the perplexity over that
of the full model.";

/// Options of `eval`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Eval {
    /// A model's folder, or a run's
    model: PathBuf,
    /// Text file, .jsonl file or folder [default: the run's validation split]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Skip ratios
    #[arg(long, value_name = "R,…", value_delimiter = ',', default_value = "0")]
    skip: Vec<f64>,
    /// Relay stages to cut the model into [default: as it was trained]
    #[arg(long, value_name = "S")]
    stages: Option<usize>,
    /// Layers that stay with the origin [default: as it was trained, or 0 with --stages]
    #[arg(long, value_name = "N")]
    origin_layers: Option<usize>,
    /// `bytes` or a tokenizer.json, in place of the model's
    #[arg(long, value_name = "bytes|FILE")]
    tokenizer: Option<String>,
    /// Tokens of a window [default: the model's context, at most 4096]
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// Windows of a batch, which share a subset of stages
    #[arg(long, value_name = "B", default_value_t = 8)]
    batch: usize,
    /// Look at this many tokens at most
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Seeds the choice of stages
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Compute threads [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub(crate) fn run(self) -> Outcome {
        let folder = ModelFolder::read(&self.model, self.tokenizer.as_deref())?;
        let folder = folder.recut(self.stages, self.origin_layers)?;
        let mut tokens = self.tokens(&folder)?;
        tokens.truncate(self.max_tokens.map_or(usize::MAX, |n| n.saturating_add(1)));
        let model = &folder.imported.model;
        let longest = model.config().max_position_embeddings;
        let context = self.context.unwrap_or(longest.min(4096));
        if context == 0 || context > longest {
            return Err(Failure::input(format!(
                "--context {context} does not fit the model, which was made for up to {longest} tokens; pass 1 to {longest}"
            )));
        }
        if tokens.len() <= context.min(2) {
            return Err(Failure::input(format!(
                "{} tokens are too few to predict any; give more text to --data, or a larger --max-tokens",
                tokens.len()
            )));
        }
        let options = EvalOptions {
            context,
            batch: self.batch,
            skips: self.skip.clone(),
            seed: self.seed,
            threads: threads(self.threads.map(usize::from)),
        };
        let mut progress = Progress::new("evaluating");
        let found = evaluate(model, &tokens, &options, |done, of| {
            progress.update(done as u64, of as u64, " batches");
        })?;
        drop(progress);
        if self.json {
            return print_json(&json!({
                "model": self.model,
                "tokens": found.tokens,
                "stages": model.relay_stages(),
                "origin_layers": model.origin_layers(),
                "context": context,
                "seed": self.seed,
                "results": found.results,
            }));
        }
        print(&table(&found, model.relay_stages()))
    }

    fn tokens(&self, folder: &ModelFolder) -> Outcome<Vec<u32>> {
        if let Some(path) = &self.data {
            let corpus = Corpus::load(path, Limits::default()).map_err(Failure::input)?;
            return folder.tokenizer.encode_corpus(&corpus).map_err(Failure::input);
        }
        let Some(run) = folder.run_dir() else {
            return Err(Failure::input(format!(
                "{} is not part of a run with a validation split of its own; pass --data PATH",
                self.model.display()
            )));
        };
        let data = TokenDataset::read(&tokens_path(&run)).map_err(Failure::input)?;
        Ok(data.validation().to_vec())
    }
}

fn table(found: &Evaluation, stages: usize) -> String {
    let mut text = format!(
        "{} tokens, {stages} relay stages\n{:>7} {:>9} {:>8} {:>8} {:>11} {:>7}\n",
        found.tokens, "skip", "realised", "visited", "loss", "perplexity", "ratio"
    );
    for r in &found.results {
        text += &format!(
            "{:>7} {:>9.3} {:>8} {:>8.4} {:>11.3} {:>6.3}×\n",
            r.skip, r.skip_realised, r.relays_visited, r.loss, r.perplexity, r.ratio
        );
    }
    text
}
