//! The instance file, `skippipe-instance-1`.

use super::Regions;
use serde::{Deserialize, Serialize};

/// The `schema` that an instance names.
pub const INSTANCE_SCHEMA: &str = "skippipe-instance-1";

/// A planning problem as it is written down: nodes, links, stages, and the rules that paths obey.
///
/// Read one with [`Instance::from_json`], which checks everything; build one by hand and call
/// [`Instance::check`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Always [`INSTANCE_SCHEMA`].
    pub schema: String,
    /// A name for people.
    pub name: String,
    /// A remark for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Stages, the origin's included.
    pub n_stages: u32,
    /// Nodes of each stage, origin first; none: the planner chooses.
    #[serde(default)]
    pub stage_sizes: Option<Vec<u32>>,
    /// Layers of a stage.
    pub layers_per_stage: u32,
    /// Layers of stage 0 where they are not `layers_per_stage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_layers: Option<u32>,
    /// Nodes on a path, the origin included.
    pub path_len: u32,
    /// Share of the stages that a path leaves out; informative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_ratio: Option<f64>,
    /// Samples of a microbatch.
    pub samples_per_mb: u32,
    /// Bytes of one sample's activation between stages.
    pub activation_bytes_per_sample: f64,
    /// Bytes of a stage's gradient, as the all-reduce moves them.
    pub param_bytes_per_stage: f64,
    /// Time of a backward as a multiple of a forward.
    pub backward_ratio: f64,
    /// Time of the loss as a multiple of a forward.
    pub loss_ratio: f64,
    /// Seconds that every transfer takes beyond latency and bytes.
    #[serde(default)]
    pub link_overhead_s: f64,
    /// Seconds that every task takes beyond its compute.
    #[serde(default)]
    pub task_gap_s: f64,
    /// Whether a directed pair of nodes sends one message at a time.
    #[serde(default)]
    pub link_serial: bool,
    /// Microbatches that each origin sends.
    pub microbatches_per_origin: Quota,
    /// Microbatches of an iteration.
    pub total_microbatches: u32,
    /// Memory × waves = microbatches per origin; informative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<f64>,
    /// CheckFree+'s swaps, if they are part of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge_swaps: Option<EdgeSwaps>,
    /// Most visits of a relay stage in an iteration; none: no limit.
    #[serde(default)]
    pub stage_visits_max: Option<u32>,
    /// Longest all-reduce that a placement may have, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dp_allreduce_max_s: Option<f64>,
    /// How far a path may turn back.
    pub swap: SwapRules,
    /// Largest |next − frontier| of a path.
    pub max_jump: u32,
    /// Latency and bandwidth between regions.
    pub regions: Regions,
    /// The nodes; a node's id is its place in this list.
    pub nodes: Vec<InstanceNode>,
}

/// How many microbatches each origin sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quota {
    /// Every origin as many.
    Each(u32),
    /// In the order of the plan's stage 0.
    List(Vec<u32>),
}

/// Which microbatches visit edge stages in swapped order (CheckFree+, arXiv 2506.15461).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeSwaps {
    /// Odd ids visit relay 2 before 1, and the last relay before the one before it, where they visit both.
    Odd,
}

/// How far a path may turn back behind its frontier (SkipPipe, arXiv 2502.19913; the limits are its code's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapRules {
    /// Largest distance of one swap.
    pub max_distance: u32,
    /// Most swaps of a path.
    pub max_count: u32,
    /// Largest sum of distances of a path.
    pub max_total_distance: u32,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceNode {
    /// Its place in the list.
    pub id: u32,
    /// Its region.
    pub region: String,
    /// Forward time of one layer and sample, seconds.
    pub compute_s_per_layer_sample: f64,
    /// Microbatches that it can hold between forward and backward.
    pub memory: u32,
}

impl Instance {
    /// Layers of stage 0.
    pub fn layers_of_origin(&self) -> u32 {
        self.origin_layers.unwrap_or(self.layers_per_stage)
    }

    /// Nodes of stage 0, as sizes or quotas say; the fields are checked to agree.
    pub fn origins(&self) -> usize {
        match (&self.stage_sizes, &self.microbatches_per_origin) {
            (Some(sizes), _) => sizes.first().map_or(0, |size| *size as usize),
            (None, Quota::List(list)) => list.len(),
            (None, Quota::Each(each)) => (self.total_microbatches / (*each).max(1)) as usize,
        }
    }

    /// Microbatches of the origin at `place` in stage 0.
    pub fn quota(&self, place: usize) -> u32 {
        match &self.microbatches_per_origin {
            Quota::Each(each) => *each,
            Quota::List(list) => list.get(place).copied().unwrap_or(0),
        }
    }

    /// Nodes on a path of a full pipeline or of a partial one.
    pub fn path_length(&self, full: bool) -> usize {
        if full { self.n_stages as usize } else { self.path_len as usize }
    }
}
