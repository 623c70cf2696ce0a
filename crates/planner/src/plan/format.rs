//! The plan file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A plan of one iteration: who serves which stage, and the path and start of every microbatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelinePlan {
    /// Name of the instance that it is for.
    #[serde(default)]
    pub instance: String,
    /// Who made it.
    #[serde(default)]
    pub method: String,
    /// Whether paths visit every stage.
    #[serde(default)]
    pub mode: PlanMode,
    /// How an idle node chooses among ready tasks.
    #[serde(default, skip_serializing_if = "DispatchPolicy::is_default")]
    pub policy: DispatchPolicy,
    /// Nodes of each stage, origin first. The order within stage 0 is the order of a list of quotas.
    pub stages: Vec<Vec<u32>>,
    /// The microbatches.
    pub microbatches: Vec<PlannedMicrobatch>,
    /// Nodes that keep strictly to an order of tasks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_order: BTreeMap<u32, Vec<(u32, TaskKind)>>,
}

/// Which paths a plan may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanMode {
    /// Paths of the instance's `path_len`, under its path rules.
    #[default]
    Partial,
    /// Every path visits all stages in order.
    Full,
}

/// How an idle node chooses among the tasks that are ready; ties by (priority, time ready, id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DispatchPolicy {
    /// Backward before loss before forward.
    #[default]
    #[serde(rename = "bwd")]
    BackwardFirst,
    /// By time ready over all classes.
    #[serde(rename = "fifo")]
    FirstInFirstOut,
    /// Forwards first, where a slot is free.
    #[serde(rename = "fwd")]
    ForwardFirst,
}

impl DispatchPolicy {
    // serde hands over a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A microbatch of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedMicrobatch {
    /// Its id, unique in the plan.
    pub id: u32,
    /// The nodes that it visits, origin first.
    pub path: Vec<u32>,
    /// It may start when this microbatch has finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// It may start at this second.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub release: f64,
    /// Among tasks of one class, lower goes first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: f64,
}

// serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// A kind of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskKind {
    /// Forward through a stage.
    #[serde(rename = "f")]
    Forward,
    /// Loss at the origin.
    #[serde(rename = "l")]
    Loss,
    /// Backward through a stage.
    #[serde(rename = "b")]
    Backward,
}

impl PipelinePlan {
    /// Whether paths visit every stage.
    pub fn is_full(&self) -> bool {
        self.mode == PlanMode::Full
    }

    /// Reads a plan; [`crate::check_plan`] says whether it fits an instance.
    ///
    /// # Errors
    /// A sentence with the field and the reason where the text is not JSON of this shape.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| {
            format!(
                "the plan can't be read near field `{}`, line {}, column {}: {}; docs/instances.md explains every field",
                crate::json::field_before(text, error.line(), error.column()),
                error.line(),
                error.column(),
                crate::json::reason(&error)
            )
        })
    }
}
