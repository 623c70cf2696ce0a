//! What the protocol needs to know of a run. The command line's options map onto it in `worlds`.

use crate::{EdgeSwaps, Iteration, LearningRate, RunId, SpotChecks, StageId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What happens while a stage has no replica (`--while-lost`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhileLost {
    /// Microbatches are routed around the hole.
    #[default]
    Skip,
    /// Training waits until the stage is rebuilt.
    Wait,
    /// Training waits for a small part of an iteration; then microbatches are routed around the hole.
    Briefly,
}

/// A run as the protocol sees it: counts and rules, no tensors, no files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Names the run; frames of another run are refused.
    pub run: RunId,
    /// Seeds the weights, the order of samples and the choice of paths.
    pub seed: u64,
    /// Relay stages (S); the origin is not counted.
    pub relay_stages: u16,
    /// Whether the origin holds as many transformer layers as a relay stage: it then counts among the stages
    /// that a path may visit, and can be a source when its neighbour is rebuilt.
    pub origin_like_relay: bool,
    /// Whether the origin holds any transformer layer (then it counts in the path length).
    pub origin_has_layers: bool,
    /// Replicas of every stage, the origin included.
    pub replicas: u16,
    /// Replicas of each stage, origin first, where stages differ; empty: `replicas` of all.
    #[serde(default)]
    pub stage_replicas: Vec<u16>,
    /// Nodes beyond those.
    pub spares: u16,
    /// Microbatches of a whole iteration.
    pub microbatches: u32,
    /// Iterations of the run.
    pub steps: u64,
    /// Fraction of the stages with layers that a path leaves out, 0 ≤ r < 1.
    pub skip: f64,
    /// Every n-th iteration visits every stage; 0 = never.
    pub full_every: u64,
    /// So many iterations at the end visit every stage.
    pub full_last: u64,
    /// Microbatches that a node holds between forward and backward.
    pub slots: u32,
    /// What happens while a stage has no replica.
    pub while_lost: WhileLost,
    /// Name of the recovery strategy (see `skipstone-recovery`).
    pub recovery: String,
    /// Largest norm of a stage's gradient before the step; 0 = no clipping.
    pub clip_norm_max: f64,
    /// The learning rate as a function of the iteration.
    pub learning_rate: LearningRate,
    /// Iterations between saves of `state/`; 0 = only at the end. (The driver also asks for saves by time.)
    pub save_every_iterations: u64,
    /// Whether nodes take microbatches in ascending order, so that sums are added in the same order whenever the run
    /// is not disturbed.
    #[serde(default)]
    pub deterministic: bool,
    /// Whether lost nodes are replaced from outside; if not, surplus replicas are moved to lost stages.
    pub respawn: bool,
    /// Whether the driver is asked which node should serve which stage, because it knows of links; if not, they are given
    /// stages as they come.
    #[serde(default)]
    pub places: bool,
    /// Which microbatches visit the first two and the last two relay stages in swapped order.
    #[serde(default)]
    pub edge_swaps: EdgeSwaps,
    /// How often shares are computed a second time.
    #[serde(default)]
    pub spot_checks: SpotChecks,
}

/// A setting that can't work, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No relay stage.
    #[error("--stages is 0: a pipeline needs at least one relay stage; pass --stages 1 or more")]
    NoStages,
    /// More stages than ids.
    #[error("--stages {0} is too many: at most 1000")]
    TooManyStages(u16),
    /// No replica.
    #[error("--replicas must be between 1 and 64, not {0}")]
    Replicas(u16),
    /// Not a number of replicas for each stage.
    #[error("replicas are given for {found} stages of {stages}: give a number for each, or one for all")]
    StageReplicas {
        /// How many numbers there are.
        found: usize,
        /// How many stages, the origin's included.
        stages: usize,
    },
    /// No microbatch.
    #[error("--microbatches must be between 1 and 4096, not {0}")]
    Microbatches(u32),
    /// A skip ratio out of range.
    #[error(
        "--skip {0} is not a ratio: pass a number from 0 up to, not including, 1 (0.33 skips a third of the stages)"
    )]
    Skip(String),
    /// No path of the asked length obeys the path rules.
    #[error(
        "--skip {skip} leaves {length} of {stages} stages to a path, which no path can meet (a jump passes at most {jump} stages); pass a smaller ratio or fewer stages"
    )]
    NoPath {
        /// The ratio asked.
        skip: String,
        /// The length that it asks for.
        length: u16,
        /// Stages with layers.
        stages: u16,
        /// The longest jump.
        jump: u16,
    },
    /// No slot.
    #[error("--slots must be at least 1")]
    Slots,
    /// Too few slots for swapped paths.
    #[error(
        "--slots 1 is too few for --edge-swaps odd (which --recovery checkfree+ asks for): a node keeps its last slot from paths that go back a stage; pass --slots 2 or more, or --edge-swaps off"
    )]
    SwapSlots,
}

impl Settings {
    /// Whether all microbatches of an iteration visit every stage, whatever is skipped in others.
    pub fn is_full(&self, iteration: Iteration) -> bool {
        let every = self.full_every;
        let is_due = every > 0 && iteration.0 % every == every - 1;
        is_due || iteration.0.saturating_add(self.full_last) >= self.steps
    }

    /// Stages that hold layers (K).
    pub fn stages_with_layers(&self) -> u16 {
        self.relay_stages + u16::from(self.origin_has_layers)
    }

    /// Stages with layers that a path visits: L = max(1, round((1 − r)·K)), half up.
    pub fn layers_visited(&self) -> u16 {
        let stages = f64::from(self.stages_with_layers());
        (((1.0 - self.skip) * stages + 0.5).floor() as u16).clamp(1, self.stages_with_layers())
    }

    /// Visits of a path, the origin's included.
    pub fn path_length(&self) -> u16 {
        self.layers_visited() + u16::from(!self.origin_has_layers)
    }

    /// The skip ratio that whole stages realise.
    pub fn skip_realised(&self) -> f64 {
        1.0 - f64::from(self.layers_visited()) / f64::from(self.stages_with_layers())
    }

    /// Whether some paths visit stages in swapped order: there are two relay stages to swap.
    pub fn swaps_edges(&self) -> bool {
        self.edge_swaps == EdgeSwaps::Odd && self.relay_stages > 1
    }

    /// Replicas that the stage should have.
    pub fn replicas_of(&self, stage: StageId) -> u16 {
        self.stage_replicas.get(usize::from(stage.0)).copied().unwrap_or(self.replicas)
    }

    /// Nodes that the run starts with.
    pub fn nodes(&self) -> usize {
        let serving: usize =
            (0..=self.relay_stages).map(|stage| usize::from(self.replicas_of(StageId(stage)))).sum();
        serving + usize::from(self.spares)
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// The first setting that can't work.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.relay_stages == 0 {
            return Err(SettingsError::NoStages);
        }
        if self.relay_stages > 1000 {
            return Err(SettingsError::TooManyStages(self.relay_stages));
        }
        let stages = usize::from(self.relay_stages) + 1;
        if !self.stage_replicas.is_empty() && self.stage_replicas.len() != stages {
            return Err(SettingsError::StageReplicas { found: self.stage_replicas.len(), stages });
        }
        for replicas in std::iter::once(self.replicas).chain(self.stage_replicas.iter().copied()) {
            if !(1..=64).contains(&replicas) {
                return Err(SettingsError::Replicas(replicas));
            }
        }
        if !(1..=4096).contains(&self.microbatches) {
            return Err(SettingsError::Microbatches(self.microbatches));
        }
        if !(0.0..1.0).contains(&self.skip) {
            return Err(SettingsError::Skip(self.skip.to_string()));
        }
        if self.slots == 0 {
            return Err(SettingsError::Slots);
        }
        if self.swaps_edges() && self.slots == 1 {
            return Err(SettingsError::SwapSlots);
        }
        // Without swaps a path of n relays reaches at most as far as its jumps carry it, and to train the last
        // stage some path must get there.
        let jump = crate::PathRules::default().jump_max;
        let relays = self.path_length() - 1;
        if u32::from(relays) * u32::from(jump) < u32::from(self.relay_stages) {
            return Err(SettingsError::NoPath {
                skip: self.skip.to_string(),
                length: self.layers_visited(),
                stages: self.stages_with_layers(),
                jump,
            });
        }
        Ok(())
    }
}
