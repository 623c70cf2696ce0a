//! What can be wrong with a run's configuration. Every message ends in what to do.

use crate::wan::WanError;
use skipstone_recovery::SpecError;
use skipstone_types::SettingsError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// An option that can't work, with its remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Links that are to be as a table says, and links that are.
    #[error("--wan makes links as long as its table says, and --links tells how long they are: choose one")]
    TwoTables,
    /// `run.toml` or a model's `config.json` can't be read.
    #[error("can't read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `run.toml` doesn't parse.
    #[error("{} is not a run.toml: {why}; `skipstone train --help` lists the options, with the same names; a text to train on goes to --data", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// `run.toml` can't be written.
    #[error("the configuration can't be written as run.toml: {why}; use paths in UTF-8")]
    Write {
        /// What is wrong.
        why: String,
    },
    /// A model's `config.json` doesn't parse.
    #[error("{} is not a model's config.json: {why}; give a LLaMA config.json of Hugging Face, or a preset: tiny, 124m, 500m, 1.5b, 8b", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The model can't be built.
    #[error("--model: {0}")]
    Model(#[from] skipstone_model::ConfigError),
    /// A stage can't be built.
    #[error("--model: {0}")]
    Stage(#[from] skipstone_model::ModelError),
    /// Checkpoints can't go there.
    #[error("--checkpoint-to {0}")]
    Store(#[from] skipstone_store::StoreError),
    /// The protocol refuses.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Only a simulation remembers what a lost stage was.
    #[error(
        "--recovery {0} gives a lost stage back as it was, which only `lab` and `simulate` can do, as they remember it; pass neighbour-snapshot, which keeps copies"
    )]
    Oracle(&'static str),
    /// No such recovery strategy.
    #[error(transparent)]
    Recovery(#[from] SpecError),
    /// The layers can't be shared out equally.
    #[error(
        "{layers} layers, {origin} of them at the origin, can't be cut into {stages} equal relay stages; pass {remedy}"
    )]
    Cut {
        /// Layers of the model.
        layers: usize,
        /// The origin's.
        origin: usize,
        /// Relay stages.
        stages: u16,
        /// The nearest values that work.
        remedy: String,
    },
    /// The tokenizer has more tokens than the model.
    #[error(
        "the tokenizer has {tokens} tokens, but the model's vocab_size is {vocab}; use a tokenizer of at most {vocab} tokens, or raise vocab_size in the config.json"
    )]
    Vocabulary {
        /// The tokenizer's.
        tokens: usize,
        /// The model's.
        vocab: usize,
    },
    /// Longer sequences than the model was made for.
    #[error(
        "--context {context} is longer than the model's max_position_embeddings, {max}; pass --context {max} or less"
    )]
    Context {
        /// What was asked.
        context: usize,
        /// The most.
        max: usize,
    },
    /// A number out of its range.
    #[error("--{option} is {value}, but must be {range}")]
    Range {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
    /// A device that this version can't use.
    #[error("--device {0} is not supported by this version; pass --device cpu")]
    Device(String),
    /// Head and embedding share a gradient, to which two kinds of tasks add.
    #[error(
        "--deterministic needs a model whose head is not the embedding; set tie_word_embeddings to false, or leave it out"
    )]
    DeterministicTied,
    /// `repair = "drop"`.
    #[error(
        "repair = \"drop\" is not in this version; leave it out: \"exact\" loses nothing and costs only memory"
    )]
    RepairDrop,
    /// `--wan` or `--links` is no table.
    #[error("{name}: {why}")]
    Wan {
        /// The flag, and what was given.
        name: String,
        /// What is wrong, and what to do.
        why: WanError,
    },
    /// As many sizes of stages as stages are needed.
    #[error(
        "--stage-sizes names {found} stages, but there are {stages}, the origin first; change it or --stages"
    )]
    StageSizes {
        /// How many it names.
        found: usize,
        /// How many there are.
        stages: usize,
    },
    /// `--plan` can't be carried out.
    #[error("--plan {name}: {why}")]
    Plan {
        /// What was given.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// `--pace` without a number, and no table that has any.
    #[error(
        "--pace without a number needs a --wan table whose nodes have compute_s_per_layer_sample; pass the seconds of a forward, as --pace 0.5"
    )]
    PaceUnknown,
    /// `--notice-command` is empty.
    #[error(
        "--notice-command is empty, which would be notice for every node at once; leave it out, or pass a command that ends with 0 when a node is to go"
    )]
    NoticeCommand,
    /// `--churn` is neither a rate nor a trace.
    #[error(
        "--churn {text}: {why}; pass a rate per node and hour (16%/h), an interval (every 20s), or a trace: JSON lines {{\"t_s\": 12.5, \"stage\": 3, \"event\": \"kill\"}}, or a spot market's (`skipstone train --help`)"
    )]
    Churn {
        /// What was given.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// `--churn-speed` can't work.
    #[error("--churn-speed: {0}")]
    ChurnSpeed(String),
}
