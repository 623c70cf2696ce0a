//! The configurations that are tried.

use crate::config::{ConfigError, RunConfig};

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoRequest {
    /// Model, context and vocabulary; the rest is found.
    pub base: RunConfig,
    /// Sequences of an iteration, however they are cut into microbatches.
    pub sequences: u32,
    /// Sequences of a microbatch to try.
    pub batches: Vec<usize>,
    /// Skip ratios to try.
    pub skips: Vec<f64>,
    /// Fewest replicas of a stage.
    pub replicas_min: u16,
    /// How many of the best are simulated, at most 8.
    pub simulate: usize,
}

/// Most replicas of a stage that a run takes.
const REPLICAS_MAX: usize = 64;
/// Most microbatches of an iteration that a run takes.
const MICROBATCHES_MAX: usize = 4096;

impl AutoRequest {
    /// Every run over `nodes` nodes that its own rules allow: all ways to cut the layers into equal relay stages (with an
    /// origin that has none, or as many), as many replicas as there are nodes for and half of that, all sizes of
    /// microbatches, and all skip ratios that differ in whole stages.
    ///
    /// # Errors
    /// A model that can't be built.
    pub(super) fn candidates(&self, nodes: usize) -> Result<Vec<RunConfig>, ConfigError> {
        // The same checks as before a run, on the smallest one.
        let probe = RunConfig { stages: 1, ..self.base.clone() };
        probe.check()?;
        let layers = probe.shape_expected()?.model.num_hidden_layers;
        let replicas_min = usize::from(self.replicas_min.max(1));
        let mut found = Vec::new();
        for stages in 1..=layers.min(nodes / replicas_min).min(1000) {
            let most = (nodes / (stages + 1)).min(REPLICAS_MAX);
            if most < replicas_min {
                break;
            }
            let mut replicas = vec![most];
            if most / 2 >= replicas_min {
                replicas.push(most / 2);
            }
            let mut origins = Vec::new();
            if layers.is_multiple_of(stages) {
                origins.push(0);
            }
            if layers.is_multiple_of(stages + 1) {
                origins.push(layers / (stages + 1));
            }
            for origin_layers in origins {
                for replicas in &replicas {
                    let shape = (stages as u16, origin_layers, *replicas);
                    self.batches_and_skips(shape, nodes, &mut found);
                }
            }
        }
        Ok(found)
    }

    fn batches_and_skips(&self, shape: (u16, usize, usize), nodes: usize, found: &mut Vec<RunConfig>) {
        let (stages, origin_layers, replicas) = shape;
        let spares = nodes - replicas * (usize::from(stages) + 1);
        for batch in &self.batches {
            let microbatches = self.sequences as usize / (*batch).max(1);
            let whole = microbatches * batch == self.sequences as usize;
            if !whole || microbatches < replicas || microbatches > MICROBATCHES_MAX {
                continue;
            }
            let mut lengths = Vec::new();
            for skip in &self.skips {
                let config = RunConfig {
                    stages,
                    origin_layers,
                    replicas: replicas as u16,
                    spares: spares as u16,
                    batch: *batch,
                    microbatches: microbatches as u32,
                    skip: *skip,
                    ..self.base.clone()
                };
                // Without a path of this length there is no such run.
                let Ok(settings) = config.settings() else { continue };
                if !lengths.contains(&settings.path_length()) {
                    lengths.push(settings.path_length());
                    found.push(config);
                }
            }
        }
    }
}
