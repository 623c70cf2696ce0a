//! `skipstone generate`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use skipstone_data::Tokenizer;
use skipstone_model::{GenerateOptions, generate};

use crate::failure::{Failure, Outcome};
use crate::model_folder::ModelFolder;
use crate::output::{print, print_json, threads};

const EXAMPLES: &str = "\
Examples:
  skipstone generate skipstone-run --prompt \"Once\"
  skipstone generate skipstone-run/model --prompt \"Once\" --skip 0.33 --seed 7
  skipstone generate llama-folder --prompt \"The sea\" --temperature 0 --max-tokens 50

The same model, prompt, options and seed give the same text on one machine. With --skip, one random subset of relay
stages is left out for the whole text. Texts longer than the model's context forget their older half.";

/// Options of `generate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Generate {
    /// A model's folder, or a run's
    model: PathBuf,
    /// The text to go on with; empty begins a new document
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Share of the stages to leave out
    #[arg(long, value_name = "RATIO", default_value_t = 0.0)]
    skip: f64,
    /// Seeds the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Most tokens to write
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_tokens: usize,
    /// Divides the logits; 0 takes the likeliest token
    #[arg(long, value_name = "X", default_value_t = 0.8)]
    temperature: f64,
    /// Only the N likeliest tokens; 0 = all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// Only the likeliest tokens that together have this probability; 1 = all
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    top_p: f64,
    /// Relay stages to cut the model into [default: as it was trained]
    #[arg(long, value_name = "S")]
    stages: Option<usize>,
    /// Layers that stay with the origin [default: as it was trained, or 0 with --stages]
    #[arg(long, value_name = "N")]
    origin_layers: Option<usize>,
    /// `bytes` or a tokenizer.json, in place of the model's
    #[arg(long, value_name = "bytes|FILE")]
    tokenizer: Option<String>,
    /// Compute threads [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

impl Generate {
    pub(crate) fn run(self) -> Outcome {
        let folder = ModelFolder::read(&self.model, self.tokenizer.as_deref())?;
        let folder = folder.recut(self.stages, self.origin_layers)?;
        let (imported, tokenizer) = (&folder.imported, &folder.tokenizer);
        let mut stop = imported.eos.clone();
        if stop.is_empty() {
            stop.push(tokenizer.eos_id());
        }
        let begin = imported.bos.or_else(|| self.prompt.is_empty().then(|| stop[0]));
        let mut prompt: Vec<u32> = begin.into_iter().collect();
        prompt.extend(tokenizer.encode(&self.prompt).map_err(Failure::input)?);
        let options = GenerateOptions {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
            stop,
            skip: self.skip,
            threads: threads(self.threads.map(usize::from)),
        };
        if self.json {
            let made = generate(&imported.model, &prompt, &options, |_| {})?;
            let text = tokenizer.decode(&made.tokens).map_err(Failure::failed)?;
            return print_json(&json!({
                "model": self.model,
                "prompt": self.prompt,
                "text": text,
                "tokens": made.tokens.len(),
                "stopped": made.stopped,
                "skip": self.skip,
                "visited": made.visited,
                "seed": self.seed,
            }));
        }
        let mut writer =
            Writer { tokenizer, prompt: Some(&self.prompt), tokens: Vec::new(), written: 0, failed: None };
        generate(&imported.model, &prompt, &options, |token| writer.push(token))?;
        writer.begin();
        writer.failed.map_or(Ok(()), Err)?;
        print("\n")
    }
}

/// Writes text as its tokens come, never half a character.
struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    /// The prompt, until it is written: not before it is sure that text follows.
    prompt: Option<&'a str>,
    /// Tokens made so far.
    tokens: Vec<u32>,
    /// Bytes of their text that are written.
    written: usize,
    failed: Option<Failure>,
}

impl Writer<'_> {
    fn begin(&mut self) {
        if let Some(Err(failure)) = self.prompt.take().map(print) {
            self.failed = Some(failure);
        }
    }

    fn push(&mut self, token: u32) {
        self.begin();
        self.tokens.push(token);
        if self.failed.is_some() {
            return;
        }
        let result = self.tokenizer.decode(&self.tokens).map_err(Failure::failed).and_then(|text| {
            // Bytes that are no character yet show as U+FFFD at the end.
            let whole = text.trim_end_matches('\u{fffd}');
            if let Some(new) = whole.get(self.written..) {
                print(new)?;
                self.written = self.written.max(whole.len());
            }
            Ok(())
        });
        self.failed = result.err();
    }
}
