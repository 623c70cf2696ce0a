//! A plan in flat arrays, as the simulator reads it.

use std::collections::BTreeMap;

use crate::compiled::{CompiledInstance, MICROSECONDS};
use crate::plan::{DispatchPolicy, PipelinePlan, TaskKind};

/// No microbatch.
pub(crate) const NONE: u32 = u32::MAX;

/// Paths, starts and ranks of all microbatches; microbatch here means the place in the plan's list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schedule {
    /// Where each microbatch's path begins in `nodes`; one more at the end.
    pub(crate) offsets: Vec<u32>,
    /// The paths, one after the other.
    pub(crate) nodes: Vec<u32>,
    /// Earliest start, microseconds.
    pub(crate) release: Vec<u64>,
    /// The microbatch that must have finished, or [`NONE`].
    pub(crate) after: Vec<u32>,
    /// Rank of the priority: equal priorities have equal ranks.
    pub(crate) rank: Vec<u32>,
    /// Rank of the id, for ties; none: the place in the list.
    pub(crate) id_rank: Vec<u32>,
    /// How idle nodes choose.
    pub(crate) policy: DispatchPolicy,
    /// Strict orders, by node; empty: none has one.
    pub(crate) order: Vec<Option<Vec<(u32, TaskKind)>>>,
    /// Stage of each node, where stages are visited in the order of a swarm that trains with swaps; else empty.
    pub(crate) stage_of: Vec<u32>,
}

impl Schedule {
    /// The schedule of a plan without violations.
    pub(crate) fn of_plan(compiled: &CompiledInstance, plan: &PipelinePlan) -> Self {
        let microbatches = &plan.microbatches;
        let place: BTreeMap<u32, u32> = microbatches
            .iter()
            .enumerate()
            .map(|(place, microbatch)| (microbatch.id, place as u32))
            .collect();
        let mut offsets = vec![0];
        let mut nodes = Vec::new();
        for microbatch in microbatches {
            nodes.extend_from_slice(&microbatch.path);
            offsets.push(nodes.len() as u32);
        }
        let mut priorities: Vec<f64> =
            microbatches.iter().map(|microbatch| microbatch.priority + 0.0).collect();
        priorities.sort_unstable_by(f64::total_cmp);
        priorities.dedup();
        let rank = |priority: f64| priorities.partition_point(|other| *other < priority) as u32;
        let mut order = Vec::new();
        if !plan.node_order.is_empty() {
            order.resize(compiled.nodes(), None);
            for (node, tasks) in &plan.node_order {
                let known = tasks.iter().filter_map(|(id, kind)| place.get(id).map(|place| (*place, *kind)));
                order[*node as usize] = Some(known.collect());
            }
        }
        Self {
            offsets,
            nodes,
            release: microbatches
                .iter()
                .map(|m| (MICROSECONDS * m.release).round_ties_even() as u64)
                .collect(),
            after: microbatches
                .iter()
                .map(|m| m.after.and_then(|after| place.get(&after).copied()).unwrap_or(NONE))
                .collect(),
            rank: microbatches.iter().map(|m| rank(m.priority)).collect(),
            id_rank: {
                let ranks: BTreeMap<u32, u32> =
                    place.keys().enumerate().map(|(rank, id)| (*id, rank as u32)).collect();
                microbatches.iter().filter_map(|m| ranks.get(&m.id).copied()).collect()
            },
            policy: plan.policy,
            order,
            stage_of: Vec::new(),
        }
    }

    /// Whether a path goes on from node `from` to one of a lower relay stage.
    pub(crate) fn goes_back(&self, from: u32, to: u32) -> bool {
        match (self.stage_of.get(from as usize), self.stage_of.get(to as usize)) {
            (Some(from), Some(to)) => *to > 0 && to < from,
            _ => false,
        }
    }

    /// Number of microbatches.
    pub(crate) fn len(&self) -> usize {
        self.release.len()
    }

    /// The path of `microbatch`.
    pub(crate) fn path(&self, microbatch: usize) -> &[u32] {
        &self.nodes[self.offsets[microbatch] as usize..self.offsets[microbatch + 1] as usize]
    }
}
