//! A stage as it stands.

use crate::SpanKind;
use skipstone_types::{NodeId, StageId};
use std::collections::{BTreeMap, VecDeque};

/// What a node of a stage is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePhase {
    /// It gets its weights, since this time.
    Joining {
        /// Milliseconds of the run.
        since_ms: u64,
    },
    /// It serves.
    Serving,
    /// It was killed, and isn't known to be lost yet.
    Dead,
}

/// A stage as it stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StageState {
    /// The stage.
    pub stage: StageId,
    /// Its nodes.
    pub nodes: BTreeMap<NodeId, NodePhase>,
    /// Since when it has no living replica, in milliseconds of the run.
    pub lost_since_ms: Option<u64>,
    /// Whether it is being rebuilt.
    pub rebuilding: bool,
    /// Microbatches that reached it in the last committed iteration.
    pub microbatches: u32,
    /// L2 norm of its last gradient, before clipping.
    pub gradient_norm: f64,
    /// Whether any node has ever served it.
    pub served: bool,
    /// When replicas were lost that nobody has replaced yet.
    pub(crate) unreplaced_ms: VecDeque<u64>,
}

/// The most losses of one stage that wait for a replacement; beyond it the oldest are forgotten.
const UNREPLACED_MAX: usize = 256;

impl StageState {
    pub(crate) fn new(stage: StageId) -> Self {
        Self { stage, ..Self::default() }
    }

    /// The nodes that serve it.
    pub fn serving(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().filter(|(_, phase)| **phase == NodePhase::Serving).map(|(node, _)| *node)
    }

    /// Whether nobody serves it although somebody has.
    pub fn is_hole(&self) -> bool {
        self.served && self.serving().next().is_none()
    }

    pub(crate) fn lost_replica(&mut self, now_ms: u64) {
        self.unreplaced_ms.push_back(now_ms);
        if self.unreplaced_ms.len() > UNREPLACED_MAX {
            self.unreplaced_ms.pop_front();
        }
    }

    /// How it appears in the timeline, where `replicas` are wanted.
    pub(crate) fn kind(&self, replicas: usize) -> SpanKind {
        match self.serving().count() {
            0 if !self.served => SpanKind::Starting,
            0 if self.rebuilding => SpanKind::Rebuilding,
            0 => SpanKind::Hole,
            n if n < replicas => SpanKind::Thin,
            _ => SpanKind::Served,
        }
    }
}
