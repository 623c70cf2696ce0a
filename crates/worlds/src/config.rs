//! What a run is: the options of `skipstone train` as they lie in `run.toml`, and what follows from them.

mod check;
mod churn;
mod copies;
mod error;
mod memory;
mod recovery;
mod shape;
mod spot;

pub use crate::wire_format::WireFormat;
pub use churn::{Churn, Kill, Target, When};
pub use error::ConfigError;
pub(crate) use memory::bytes_in_units;
pub use memory::{MemoryPlan, NodeMemory};
pub use shape::RunShape;
pub use spot::{PlacesChange, SpotTrace};

use crate::fixed_plan::FixedPlan;
use crate::text::{self, FILE_BYTES_MAX};
use crate::wan::WanTable;
use serde::{Deserialize, Serialize};
use skipstone_data::{BatchShape, DataRequest, Limits, TokenizerSource};
use skipstone_model::LlamaConfig;
use skipstone_planner::PipelinePlan;
use skipstone_types::{EdgeSwaps, LearningRate, RateShape, RunId, Settings, SpotChecks, StageId, WhileLost};
use std::path::{Path, PathBuf};

/// What becomes of a dead node's share while a replica lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// A replica replays it: the gradient is as without the death.
    #[default]
    Exact,
    /// It is left out (not in this version).
    Drop,
}

/// `run.toml`: every option of `skipstone train`, each with a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// A text file or a folder of them; none = the embedded stories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// `bytes`, `bpe` (trained on the data), or the path of a `tokenizer.json`.
    pub tokenizer: String,
    /// Tokens of a trained vocabulary.
    pub vocab_size: usize,
    /// Bytes of embedded stories to train on.
    pub story_bytes: usize,
    /// A preset (`tiny`, `124m`, `500m`, `1.5b`, `8b`) or the path of a Hugging Face `config.json`.
    pub model: String,
    /// Layers, in place of the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,
    /// Width, in place of the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Query heads, in place of the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// Key and value heads, in place of the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Width of the MLP, in place of the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ffn: Option<usize>,
    /// Relay stages; the origin is not counted.
    pub stages: u16,
    /// Layers that the origin holds.
    pub origin_layers: usize,
    /// Replicas of every stage, the origin included.
    pub replicas: u16,
    /// Nodes of each stage, the origin first, where stages differ; empty = `replicas` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stage_sizes: Vec<u16>,
    /// Nodes beyond those.
    pub spares: u16,
    /// Fraction of the stages with layers that a microbatch leaves out.
    pub skip: f64,
    /// Every n-th iteration visits every stage; 0 = never.
    pub full_every: u64,
    /// So many iterations at the end visit every stage; none = 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_last: Option<u64>,
    /// How a stage without a living replica is made again.
    pub recovery: String,
    /// Which microbatches visit the first two and the last two relay stages swapped; none = as the strategy asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_swaps: Option<EdgeSwaps>,
    /// A replica computes shares again in one iteration of so many; 0 = in none, and so if it is left out and the run does not listen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot_check_every: Option<u64>,
    /// What happens meanwhile.
    pub while_lost: WhileLost,
    /// What becomes of a dead node's share.
    pub repair: Repair,
    /// In which numbers activations and their gradients travel.
    pub wire: WireFormat,
    /// In which numbers replicas add up a stage's gradient.
    #[serde(skip_serializing_if = "WireFormat::is_f32")]
    pub reduce: WireFormat,
    /// Tokens of a sequence; none = the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Sequences of a microbatch.
    pub batch: usize,
    /// Microbatches of an iteration.
    pub microbatches: u32,
    /// The highest learning rate.
    pub lr: f64,
    /// The rate at the end of a cosine; none = a tenth of `lr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f64>,
    /// Iterations of warm-up; none = a twentieth of `steps`, at most 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<u64>,
    /// What the rate does after the warm-up.
    pub schedule: RateShape,
    /// Adam's decay of the first moment.
    pub beta1: f32,
    /// Adam's decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay of matrices; 0 = plain Adam.
    pub weight_decay: f32,
    /// Largest norm of a stage's gradient; 0 = no clipping.
    pub clip: f64,
    /// Iterations.
    pub steps: u64,
    /// Seeds weights, stories, samples and paths.
    pub seed: u64,
    /// Whether nodes work in the plan's order, so that an undisturbed run gives the same bits again.
    pub deterministic: bool,
    /// Whether dead processes are replaced.
    pub respawn: bool,
    /// Seconds between saves of `state/`; 0 = only at the end.
    pub save_every_s: f64,
    /// Where saves of `state/` go as well: a folder or a URL; none = nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_to: Option<String>,
    /// Microbatches that a node holds between forward and backward; none = enough to keep every stage busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Kills: a rate per node and hour (`16%/h`), `every 20s`, or a trace file; none = no kills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churn: Option<String>,
    /// How many times as fast the time of a trace goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churn_speed: Option<f64>,
    /// Links as long as between these regions: a built-in table (`gcp12`) or a JSON file; none = as fast as they can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wan: Option<String>,
    /// Links between machines as they are, a table as for `wan`: nodes are placed and paths searched by it, and nothing is held
    /// back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<String>,
    /// A plan as of `skipstone plan`, whose stages and paths are taken as long as its nodes live; none = they are searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Seconds of an iteration that placement gives for each stage that a region of `wan` could take away, and again for each
    /// two adjacent ones; none = 2 % of an iteration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_price: Option<f64>,
    /// Seconds that a relay stage's forward takes, with the other tasks in proportion; 0 = as the table of `wan` says;
    /// none = as fast as it can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<f64>,
    /// What a node costs an hour, in any currency, for the summary; none = nobody asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<f64>,
    /// What 10⁹ bytes cost that a node sends to others, in the same currency; none = nobody asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_per_gb: Option<f64>,
    /// A shell command that is run for each node, and ends with 0 when the node's machine is about to be taken away; none =
    /// nobody tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice_command: Option<String>,
    /// `cpu`.
    pub device: String,
    /// Compute threads of a node; none = the machine's cores shared out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The run's folder.
    pub out: PathBuf,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            data: None,
            tokenizer: "bpe".to_owned(),
            vocab_size: 2048,
            story_bytes: 8 << 20,
            model: "tiny".to_owned(),
            layers: None,
            width: None,
            heads: None,
            kv_heads: None,
            ffn: None,
            stages: 4,
            origin_layers: 0,
            replicas: 1,
            stage_sizes: Vec::new(),
            spares: 0,
            skip: 0.0,
            full_every: 0,
            full_last: None,
            recovery: skipstone_recovery::DEFAULT_STRATEGY.to_owned(),
            edge_swaps: None,
            spot_check_every: None,
            while_lost: WhileLost::Briefly,
            repair: Repair::Exact,
            wire: WireFormat::F32,
            reduce: WireFormat::F32,
            context: None,
            batch: 4,
            microbatches: 8,
            lr: 1e-3,
            min_lr: None,
            warmup: None,
            schedule: RateShape::Cosine,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip: 1.0,
            steps: 1000,
            seed: 0,
            deterministic: false,
            respawn: true,
            save_every_s: 600.0,
            checkpoint_to: None,
            slots: None,
            churn: None,
            churn_speed: None,
            wan: None,
            links: None,
            plan: None,
            domain_price: None,
            pace: None,
            price_per_hour: None,
            price_per_gb: None,
            notice_command: None,
            device: "cpu".to_owned(),
            threads: None,
            out: PathBuf::from("skipstone-run"),
        }
    }
}

impl RunConfig {
    /// Reads and parses a `run.toml`.
    ///
    /// # Errors
    /// A file that can't be read, or that is not a `run.toml`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = skipstone_files::read_text(path, text::FILE_BYTES_MAX)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        text::from_toml(&text).map_err(|why| ConfigError::Parse { path: path.to_owned(), why })
    }

    /// The text of a `run.toml`.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|why| ConfigError::Write { why: why.to_string() })
    }

    /// Checks every bound that doesn't depend on the data. [`RunConfig::shape`] checks the rest.
    ///
    /// # Errors
    /// The first option that can't work, with its remedy.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::check(self)
    }

    /// The model's configuration for a vocabulary of `tokens` tokens.
    ///
    /// # Errors
    /// A model that can't be built.
    pub fn model_config(&self, tokens: usize) -> Result<LlamaConfig, ConfigError> {
        shape::model_config(self, tokens)
    }

    /// Model, stages and batches for a vocabulary of `tokens` tokens, all checked.
    ///
    /// # Errors
    /// A model that can't be built or cut so.
    pub fn shape(&self, tokens: usize) -> Result<RunShape, ConfigError> {
        RunShape::new(self, tokens)
    }

    /// The same before the data is read: for the vocabulary that the options ask for.
    ///
    /// # Errors
    /// A model that can't be built or cut so.
    pub fn shape_expected(&self) -> Result<RunShape, ConfigError> {
        self.shape(if self.tokenizer == "bytes" { shape::BYTES_VOCABULARY } else { self.vocab_size })
    }

    /// Memory that the nodes will take, for a vocabulary of `tokens` tokens.
    ///
    /// # Errors
    /// A model that can't be built or cut so.
    pub fn memory_plan(&self, tokens: usize) -> Result<MemoryPlan, ConfigError> {
        MemoryPlan::new(self, &self.shape(tokens)?)
    }

    /// The same before the data is read: for the vocabulary that the options ask for.
    ///
    /// # Errors
    /// A model that can't be built or cut so.
    pub fn memory_plan_expected(&self) -> Result<MemoryPlan, ConfigError> {
        let tokens = if self.tokenizer == "bytes" { shape::BYTES_VOCABULARY } else { self.vocab_size };
        self.memory_plan(tokens)
    }

    /// What the protocol needs to know; the run's own id is filled in when it starts.
    ///
    /// # Errors
    /// The first option that can't work, with its remedy.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        self.check()?;
        // The vocabulary has no bearing on how the layers are cut.
        let layers = self.model_config(shape::ANY_VOCABULARY)?.num_hidden_layers;
        let per_relay = shape::layers_per_relay(self, layers)?;
        let settings = Settings {
            run: RunId::default(),
            seed: self.seed,
            relay_stages: self.stages,
            origin_like_relay: self.origin_layers == per_relay,
            origin_has_layers: self.origin_layers > 0,
            replicas: self.replicas,
            spares: self.spares,
            microbatches: self.microbatches,
            steps: self.steps,
            skip: self.skip,
            full_every: self.full_every,
            full_last: self.full_last.unwrap_or(0),
            slots: self.slot_count(),
            while_lost: self.while_lost,
            recovery: self.recovery.clone(),
            clip_norm_max: self.clip,
            learning_rate: LearningRate {
                peak: self.lr,
                floor: self.min_lr.unwrap_or(self.lr / 10.0),
                warmup_iterations: self.warmup.unwrap_or_else(|| (self.steps / 20).min(200)),
                total_iterations: self.steps,
                shape: self.schedule,
            },
            save_every_iterations: 0,
            deterministic: self.deterministic,
            respawn: self.respawn,
            stage_replicas: self.stage_sizes.clone(),
            places: self.table_of_links().is_some(),
            edge_swaps: self.edge_swaps(),
            // A live coordinator draws another salt, which nobody else learns.
            spot_checks: SpotChecks { every: self.spot_check_every(), salt: self.seed },
        };
        settings.check()?;
        let recovery = recovery::settled(self, &settings)?;
        Ok(Settings { recovery, ..settings })
    }

    /// What is trained on.
    ///
    /// # Errors
    /// A model that can't be read: its context is needed.
    pub fn data_request(&self) -> Result<DataRequest, ConfigError> {
        let tokenizer = match self.tokenizer.as_str() {
            "bytes" => TokenizerSource::Bytes,
            "bpe" => TokenizerSource::Train { vocab_size: self.vocab_size },
            path => TokenizerSource::File(PathBuf::from(path)),
        };
        Ok(DataRequest {
            data: self.data.clone(),
            tokenizer,
            seed: self.seed,
            story_bytes: self.story_bytes,
            context: self.context_of()?,
            limits: Limits::default(),
        })
    }

    /// Tokens of a sequence.
    ///
    /// # Errors
    /// A model that can't be read.
    pub fn context_of(&self) -> Result<usize, ConfigError> {
        match self.context {
            Some(context) => Ok(context),
            None => Ok(self.model_config(shape::ANY_VOCABULARY)?.max_position_embeddings),
        }
    }

    /// Sizes of the batches.
    ///
    /// # Errors
    /// A model that can't be read.
    pub fn batch_shape(&self) -> Result<BatchShape, ConfigError> {
        Ok(BatchShape {
            context: self.context_of()?,
            batch: self.batch,
            microbatches: self.microbatches as usize,
        })
    }

    /// Microbatches that a node holds: as asked, or two for each stage on the way, which keeps them all busy.
    pub fn slot_count(&self) -> u32 {
        self.slots.unwrap_or_else(|| (2 * (u32::from(self.stages) + 1)).clamp(2, self.microbatches.max(2)))
    }

    /// In one iteration of so many replicas check each other; 0 = in none.
    pub fn spot_check_every(&self) -> u64 {
        self.spot_check_every.unwrap_or(0)
    }

    /// Which microbatches swap stages: as asked, or as the strategy has it.
    pub fn edge_swaps(&self) -> EdgeSwaps {
        let of_strategy =
            || skipstone_recovery::strategy(&self.recovery).map(|strategy| strategy.edge_swaps());
        self.edge_swaps.unwrap_or_else(|| of_strategy().unwrap_or_default())
    }

    /// Whether processes can carry the run out, and not only a simulation.
    ///
    /// # Errors
    /// A strategy that takes for granted what only a simulation has.
    pub fn check_live(&self) -> Result<(), ConfigError> {
        let strategy = skipstone_recovery::strategy(&self.recovery)?;
        if strategy.is_oracle() { Err(ConfigError::Oracle(strategy.name())) } else { Ok(()) }
    }

    /// Nodes that the run starts with.
    pub fn nodes(&self) -> usize {
        let stages = (0..=self.stages).map(|stage| usize::from(self.size_of(StageId(stage))));
        stages.sum::<usize>() + usize::from(self.spares)
    }

    /// Nodes that a stage starts with.
    pub fn size_of(&self, stage: StageId) -> u16 {
        self.stage_sizes.get(usize::from(stage.0)).copied().unwrap_or(self.replicas)
    }

    /// Compute threads of a node: as asked, or its part of the machine's cores.
    pub fn threads_per_node(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(|| (cores / self.nodes().max(1)).max(1))
    }

    /// Layers of each relay stage.
    ///
    /// # Errors
    /// A model that can't be built or cut so.
    pub fn layers_per_relay(&self) -> Result<usize, ConfigError> {
        shape::layers_per_relay(self, self.model_config(shape::ANY_VOCABULARY)?.num_hidden_layers)
    }

    /// The name of the table of `--wan` or `--links`.
    pub fn table_of_links(&self) -> Option<&str> {
        self.wan.as_deref().or(self.links.as_deref())
    }

    /// The table of `--wan` or `--links`.
    ///
    /// # Errors
    /// A table that can't be read.
    pub fn wan_table(&self) -> Result<Option<WanTable>, ConfigError> {
        let flag = if self.wan.is_some() { "--wan" } else { "--links" };
        let load = |name: &str| {
            WanTable::load(name).map_err(|why| ConfigError::Wan { name: format!("{flag} {name}"), why })
        };
        self.table_of_links().map(load).transpose()
    }

    /// The plan of `--plan`, as it can be carried out.
    ///
    /// # Errors
    /// A plan that can't be read, or is not one of this run.
    pub fn fixed_plan(&self) -> Result<Option<FixedPlan>, ConfigError> {
        let Some(name) = &self.plan else { return Ok(None) };
        let refuse = |why: String| ConfigError::Plan { name: name.clone(), why };
        if self.wan.is_none() {
            return Err(refuse("a plan goes with the links that it was made for: add --wan".to_owned()));
        }
        let text = skipstone_files::read_text(Path::new(name), FILE_BYTES_MAX)
            .map_err(|why| refuse(why.to_string()))?;
        let plan = PipelinePlan::from_json(&text).map_err(refuse)?;
        let planned: Vec<String> = plan.stages.iter().map(|nodes| nodes.len().to_string()).collect();
        let own: Vec<String> =
            (0..=self.stages).map(|stage| self.size_of(StageId(stage)).to_string()).collect();
        if planned != own {
            let (relays, planned, own) = (planned.len().saturating_sub(1), planned.join(","), own.join(","));
            return Err(refuse(format!(
                "its stages have {planned} nodes, and the run's {own}; pass --stages {relays} --stage-sizes {planned}"
            )));
        }
        let nodes = self.nodes() as u32;
        let fixed = FixedPlan::new(&plan, |node| (node < nodes).then_some(node))
            .map_err(|why| refuse(why.to_string()))?;
        if fixed.microbatches() != self.microbatches as usize {
            return Err(refuse(format!(
                "it has {} microbatches, and the run {}; pass --microbatches",
                fixed.microbatches(),
                self.microbatches
            )));
        }
        if !fixed.ascends() {
            return Err(refuse("some of its paths go back to a lower stage; plan for an instance whose `swap.max_distance` is 0".to_owned()));
        }
        Ok(Some(fixed))
    }

    /// The kills asked for.
    ///
    /// # Errors
    /// A rate or trace that can't be read.
    pub fn churn_plan(&self) -> Result<Option<Churn>, ConfigError> {
        let table = self.wan_table()?;
        let region = |name: &str| table.as_ref().and_then(|table| table.region(name));
        let churn = self.churn.as_deref().map(|text| Churn::parse(text, &region)).transpose()?;
        let Some(speed) = self.churn_speed else { return Ok(churn) };
        if !(1e-6..=1e6).contains(&speed) {
            return Err(ConfigError::ChurnSpeed(format!("{speed} is not from 0.000001 to 1000000")));
        }
        let sped_up = churn.and_then(|churn| churn.sped_up(speed));
        let why = "only a trace has a time that could go faster; pass a trace with --churn, or leave it out";
        sped_up.map(Some).ok_or_else(|| ConfigError::ChurnSpeed(why.to_owned()))
    }
}

#[cfg(test)]
impl RunConfig {
    /// 500 million weights without replicas, and few tokens for them.
    fn half_a_billion() -> Self {
        Self {
            model: "500m".to_owned(),
            stages: 4,
            replicas: 1,
            microbatches: 16,
            batch: 1,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
