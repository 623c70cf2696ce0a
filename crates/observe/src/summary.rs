//! What is left to say when a run has ended.

use crate::account::Badput;
use crate::cost::Cost;
use crate::info::RunInfo;
use crate::state::{CoordinatorRestart, Recovery, RunState};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Whether the machine kept up with the modelled times of a paced run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PaceTruth {
    /// Tasks that had a modelled time.
    pub tasks: u64,
    /// Those that took longer, by more than 2 ms and 2 %: for them the pace isn't true.
    pub late: u64,
    /// By how many seconds together.
    pub late_s: f64,
    /// Modelled seconds of all tasks.
    pub modelled_s: f64,
}

/// What is left to say when a run has ended: the JSON document of `train` and `demo`, whose keys are part of the
/// command line's contract.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Iterations committed.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds from the start of the run to its end.
    pub wall_s: f64,
    /// `tokens / wall_s`.
    pub tokens_per_s: f64,
    /// Mean training loss of the last iterations (a twentieth of them, at most 20), in nats per token.
    pub train_loss: Option<f64>,
    /// Validation loss of the model that comes out, in nats per token.
    pub val_loss: Option<f64>,
    /// e to the validation loss.
    pub val_perplexity: Option<f64>,
    /// Loss of the best bigram model of the same validation text (`demo`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bigram_val_loss: Option<f64>,
    /// Entropy of the corpus's source: no model gets below (`demo`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy_floor_loss: Option<f64>,
    /// Node-seconds of work that ended in a commit over node-seconds alive.
    pub goodput: f64,
    /// The other node-seconds, by cause.
    pub badput: Badput,
    /// Node-seconds alive: goodput and badput together.
    pub node_seconds: f64,
    /// What that cost, where it was said what a node costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// Processor cores that all nodes share; 0 if they don't run on one machine, or if it isn't known.
    #[serde(default)]
    pub cores: usize,
    /// How true the pace of a paced run (`--pace`) was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<PaceTruth>,
    /// Processes that skipstone killed.
    pub kills: u64,
    /// Nodes that were lost, killed or not.
    pub losses: u64,
    /// Stages and replicas that were lost and serve again.
    pub recoveries: Vec<Recovery>,
    /// Coordinators that came back.
    pub coordinator_restarts: Vec<CoordinatorRestart>,
    /// Nodes of the run, or the most that were there at once, if it never had all.
    pub nodes: usize,
    /// Relay stages.
    pub stages: u16,
    /// The skip ratio asked for.
    pub skip: f64,
    /// The skip ratio that whole stages realise.
    pub skip_realised: f64,
    /// The run's folder.
    pub out: PathBuf,
    /// Name of the model.
    pub model: String,
    /// Its parameters.
    pub parameters: u64,
    /// Name of the recovery strategy.
    pub recovery: String,
    /// Why the run ended: `done`, `stopped`, or an error.
    pub ended: Option<String>,
    /// A text that the model wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
}

impl Summary {
    /// What the events tell; a validation loss and a sample made later are filled in by the caller
    /// ([`Summary::set_val_loss`]).
    pub fn of(state: &RunState) -> Self {
        let info = &state.info;
        let mut summary = Self {
            steps: state.steps(),
            tokens: state.tokens(),
            wall_s: state.now_ms() as f64 / 1000.0,
            tokens_per_s: state.tokens_per_s(),
            train_loss: state.final_train_loss(),
            bigram_val_loss: info.bigram_val_loss,
            entropy_floor_loss: info.entropy_floor_loss,
            goodput: state.time().goodput(),
            badput: state.time().badput(),
            node_seconds: state.time().alive_seconds(),
            cost: info.price_per_hour.map(|price| {
                Cost::of(price, state.time().alive_seconds(), &state.time().badput(), state.tokens())
            }),
            cores: state.cores(),
            kills: state.kills(),
            losses: state.losses(),
            recoveries: state.recoveries().cloned().collect(),
            coordinator_restarts: state.restarts().cloned().collect(),
            nodes: if state.nodes_most == 0 { info.nodes } else { info.nodes.min(state.nodes_most) },
            stages: info.relay_stages,
            skip: info.skip,
            skip_realised: info.skip_realised,
            out: info.out.clone(),
            model: info.model.clone(),
            parameters: info.parameters,
            recovery: info.recovery.clone(),
            ended: state.finished().map(str::to_owned),
            ..Self::default()
        };
        if let Some(last) = state.validation().points().last() {
            summary.set_val_loss(last.value);
        }
        summary
    }

    /// Adds what it cost that nodes sent so many bytes, if the run's info says what bytes cost.
    pub fn set_traffic(&mut self, info: &RunInfo, sent_bytes: u64) {
        let Some(price) = info.price_per_gb else { return };
        let time =
            self.cost.unwrap_or_else(|| Cost::of(0.0, self.node_seconds, &Badput::default(), self.tokens));
        self.cost = Some(time.with_traffic(price, sent_bytes, self.tokens));
    }

    /// Sets the validation loss and its perplexity.
    pub fn set_val_loss(&mut self, loss: f64) {
        self.val_loss = Some(loss);
        self.val_perplexity = Some(loss.exp());
    }
}
