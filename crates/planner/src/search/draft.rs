//! A plan while it is searched for.

use std::collections::BTreeMap;

use skipstone_types::StageId;

use crate::compiled::{CompiledInstance, MICROSECONDS};
use crate::plan::{PipelinePlan, PlanMode, PlannedMicrobatch};
use crate::simulate::{NONE, Schedule};

/// Placement and schedule of a partial pipeline that keeps every rule but, perhaps, the limit of the all-reduce.
///
/// Microbatches have consecutive ids; those of the first origin come first.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Nodes of each stage.
    pub(crate) stages: Vec<Vec<u32>>,
    /// Stage and place in it, by node; (0, 0) of a spare, whose seat it is not.
    pub(crate) seat: Vec<(u32, u32)>,
    /// Paths, starts, ranks.
    pub(crate) schedule: Schedule,
    /// Visits of each stage.
    pub(crate) visits: Vec<u32>,
    /// All-reduce of each stage, microseconds; where a coordinator orders it, [`CompiledInstance::closing_us`].
    pub(crate) allreduce_us: Vec<u64>,
}

impl Clone for Draft {
    fn clone(&self) -> Self {
        Self {
            stages: self.stages.clone(),
            seat: self.seat.clone(),
            schedule: self.schedule.clone(),
            visits: self.visits.clone(),
            allreduce_us: self.allreduce_us.clone(),
        }
    }

    /// Copies without allocating, where the sizes are the same.
    fn clone_from(&mut self, other: &Self) {
        self.stages.clone_from(&other.stages);
        self.seat.clone_from(&other.seat);
        self.schedule.clone_from(&other.schedule);
        self.visits.clone_from(&other.visits);
        self.allreduce_us.clone_from(&other.allreduce_us);
    }
}

impl Draft {
    /// Becomes `other`, a draft from which steps lead here: copies what they change.
    pub(crate) fn step_back(&mut self, other: &Self) {
        for (own, others) in self.stages.iter_mut().zip(&other.stages) {
            own.clone_from(others);
        }
        self.seat.clone_from(&other.seat);
        self.visits.clone_from(&other.visits);
        self.allreduce_us.clone_from(&other.allreduce_us);
        self.schedule.nodes.clone_from(&other.schedule.nodes);
        self.schedule.after.clone_from(&other.schedule.after);
        self.schedule.rank.clone_from(&other.schedule.rank);
        self.schedule.stage_of.clone_from(&other.schedule.stage_of);
    }

    /// A draft of these stages and paths (node ids, origins in the order of stage 0), all starting at once.
    pub(crate) fn new(compiled: &CompiledInstance, stages: Vec<Vec<u32>>, nodes: Vec<u32>) -> Self {
        let length = compiled.path_length();
        let count = nodes.len() / length;
        let mut draft = Self {
            stages,
            seat: Vec::new(),
            schedule: Schedule {
                offsets: (0..=count).map(|index| (index * length) as u32).collect(),
                nodes,
                release: vec![0; count],
                after: vec![NONE; count],
                rank: vec![0; count],
                id_rank: (0..count as u32).collect(),
                ..Schedule::default()
            },
            visits: Vec::new(),
            allreduce_us: Vec::new(),
        };
        draft.refresh(compiled);
        draft
    }

    /// Computes anew what follows from stages and paths.
    pub(crate) fn refresh(&mut self, compiled: &CompiledInstance) {
        self.seat.clear();
        self.seat.resize(compiled.nodes(), (0, 0));
        for (stage, members) in self.stages.iter().enumerate() {
            for (place, node) in members.iter().enumerate() {
                self.seat[*node as usize] = (stage as u32, place as u32);
            }
        }
        self.schedule.stage_of.clear();
        if compiled.has_trained_order() {
            self.schedule.stage_of.extend(self.seat.iter().map(|(stage, _)| *stage));
        }
        self.visits.clear();
        self.visits.resize(self.stages.len(), 0);
        for node in &self.schedule.nodes {
            self.visits[self.seat[*node as usize].0 as usize] += 1;
        }
        self.allreduce_us.clear();
        self.allreduce_us.resize(self.stages.len(), 0);
        (0..self.stages.len()).for_each(|stage| self.refresh_allreduce(compiled, stage));
    }

    /// Computes the all-reduce of one stage anew.
    pub(crate) fn refresh_allreduce(&mut self, compiled: &CompiledInstance, stage: usize) {
        self.allreduce_us[stage] = if compiled.has_coordinator() {
            compiled.closing_us(stage, &self.stages[stage])
        } else {
            let seconds = compiled.allreduce_with_outside_s(stage, &self.stages[stage]);
            let own = self.stages[stage].iter().map(|node| compiled.own_closing_us(stage, *node)).max();
            (seconds * MICROSECONDS).ceil() as u64 + own.unwrap_or(0)
        };
    }

    /// All-reduce of the slowest stage, microseconds.
    pub(crate) fn slowest_allreduce_us(&self) -> u64 {
        self.allreduce_us.iter().copied().max().unwrap_or(0)
    }

    /// Number of microbatches.
    pub(crate) fn len(&self) -> usize {
        self.schedule.len()
    }

    /// The stage of a node.
    #[inline]
    pub(crate) fn stage_of(&self, node: u32) -> usize {
        self.seat[node as usize].0 as usize
    }

    /// Whether a node has a seat; a spare has none.
    #[inline]
    pub(crate) fn has_seat(&self, node: u32) -> bool {
        let (stage, place) = self.seat[node as usize];
        self.stages[stage as usize].get(place as usize) == Some(&node)
    }

    /// The path of a microbatch.
    #[inline]
    pub(crate) fn path(&self, microbatch: usize) -> &[u32] {
        self.schedule.path(microbatch)
    }

    /// The path of a microbatch, to change.
    #[inline]
    pub(crate) fn path_mut(&mut self, microbatch: usize) -> &mut [u32] {
        let range =
            self.schedule.offsets[microbatch] as usize..self.schedule.offsets[microbatch + 1] as usize;
        &mut self.schedule.nodes[range]
    }

    /// Whether the order of stages of a path is legal.
    pub(crate) fn is_legal(&self, compiled: &CompiledInstance, microbatch: usize) -> bool {
        let mut stages = [StageId::ORIGIN; 64];
        let path = self.path(microbatch);
        if path.len() > stages.len() {
            let stages: Vec<StageId> = path.iter().map(|node| StageId(self.stage_of(*node) as u16)).collect();
            return is_legal(compiled, microbatch, &stages);
        }
        for (stage, node) in stages.iter_mut().zip(path) {
            *stage = StageId(self.stage_of(*node) as u16);
        }
        is_legal(compiled, microbatch, &stages[..path.len()])
    }

    /// Trades the seats of two nodes, at least one of which has one; paths go through the other one of them then.
    pub(crate) fn trade_seats(&mut self, compiled: &CompiledInstance, a: u32, b: u32) {
        let (seat_a, seat_b) = (self.seat[a as usize], self.seat[b as usize]);
        let (has_a, has_b) = (self.has_seat(a), self.has_seat(b));
        if has_a {
            self.stages[seat_a.0 as usize][seat_a.1 as usize] = b;
        }
        if has_b {
            self.stages[seat_b.0 as usize][seat_b.1 as usize] = a;
        }
        self.seat.swap(a as usize, b as usize);
        if !self.schedule.stage_of.is_empty() {
            self.schedule.stage_of.swap(a as usize, b as usize);
        }
        for node in &mut self.schedule.nodes {
            if *node == a {
                *node = b;
            } else if *node == b {
                *node = a;
            }
        }
        for (_, seat) in [(has_a, seat_a), (has_b, seat_b)].into_iter().filter(|(has, _)| *has) {
            self.refresh_allreduce(compiled, seat.0 as usize);
        }
    }

    /// The plan as it is written down.
    pub(crate) fn to_plan(&self, compiled: &CompiledInstance, method: &str) -> PipelinePlan {
        let microbatches = (0..self.len()).map(|index| {
            let after = self.schedule.after[index];
            PlannedMicrobatch {
                id: index as u32,
                path: self.path(index).to_vec(),
                after: (after != NONE).then_some(after),
                release: self.schedule.release[index] as f64 / MICROSECONDS,
                priority: f64::from(self.schedule.rank[index]),
            }
        });
        PipelinePlan {
            instance: compiled.instance().name.clone(),
            method: method.to_owned(),
            mode: PlanMode::Partial,
            policy: self.schedule.policy,
            stages: self.stages.clone(),
            microbatches: microbatches.collect(),
            node_order: BTreeMap::new(),
        }
    }
}

/// Whether a microbatch may visit these stages in this order.
pub(crate) fn is_legal(compiled: &CompiledInstance, microbatch: usize, stages: &[StageId]) -> bool {
    if compiled.has_trained_order() {
        return compiled.is_ordered_as_trained(microbatch, stages);
    }
    if compiled.rules.check(stages).is_err() {
        return false;
    }
    if !compiled.swaps_edges(microbatch as u32) {
        return true;
    }
    let place = |wanted: usize| stages.iter().position(|stage| usize::from(stage.0) == wanted);
    compiled.edge_pairs().into_iter().all(|(first, second)| match (place(first), place(second)) {
        (Some(one), Some(other)) => one < other,
        _ => true,
    })
}
