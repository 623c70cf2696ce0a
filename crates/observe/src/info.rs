//! What is known of a run before its first event.

use serde::{Deserialize, Serialize};
use skipstone_types::Settings;
use std::path::PathBuf;

/// What is known of a run before its first event; the rest comes from the events.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunInfo {
    /// Name of the model, as in `--model`.
    pub model: String,
    /// Parameters of the whole model; 0 if unknown.
    pub parameters: u64,
    /// Iterations that the run is to make; 0 if unknown.
    pub steps: u64,
    /// Relay stages; the origin is not counted.
    pub relay_stages: u16,
    /// Replicas of every stage.
    pub replicas: u16,
    /// Nodes that the run starts with, spares included.
    pub nodes: usize,
    /// Microbatches of an iteration.
    pub microbatches: u32,
    /// The skip ratio that was asked for.
    pub skip: f64,
    /// The skip ratio that whole stages realise.
    pub skip_realised: f64,
    /// Name of the recovery strategy.
    pub recovery: String,
    /// Validation loss of the best bigram model of the same data, a line to beat.
    pub bigram_val_loss: Option<f64>,
    /// The entropy of the data's source where it is known: no model gets below.
    pub entropy_floor_loss: Option<f64>,
    /// What a node costs an hour, in any currency; none: nobody said.
    pub price_per_hour: Option<f64>,
    /// What 10⁹ bytes cost that a node sends to others, in the same currency; none: nobody said.
    pub price_per_gb: Option<f64>,
    /// The run's folder.
    pub out: PathBuf,
    /// Name and value of settings for the report, in the order in which to show them.
    pub settings: Vec<(String, String)>,
}

impl RunInfo {
    /// What the protocol's settings tell; model, data and folder are filled in by the caller.
    pub fn from_settings(settings: &Settings) -> Self {
        Self {
            steps: settings.steps,
            relay_stages: settings.relay_stages,
            replicas: settings.replicas,
            nodes: settings.nodes(),
            microbatches: settings.microbatches,
            skip: settings.skip,
            skip_realised: settings.skip_realised(),
            recovery: settings.recovery.clone(),
            ..Self::default()
        }
    }
}
