//! The figures of a plan.

use super::schedule::Schedule;
use super::simulator::{CostWeights, Simulator, Verdict};
use super::trace::{Recorder, Trace};
use crate::compiled::{CompiledInstance, MICROSECONDS};
use crate::plan::{PipelinePlan, PlanViolation, TaskKind, check_plan};

/// One iteration under a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// End of the last backward, microseconds.
    pub makespan_us: u64,
    /// All-reduce of the slowest stage, seconds.
    pub allreduce_s: f64,
    /// End of each microbatch, microseconds, in the plan's order.
    pub finish_us: Vec<u64>,
    /// Work of each node, microseconds.
    pub busy_us: Vec<u64>,
    /// Most microbatches in flight on each node.
    pub in_flight_max: Vec<u32>,
    /// Who does what, and when.
    pub trace: Trace,
}

impl Evaluation {
    /// Seconds until the last backward has ended.
    pub fn makespan_s(&self) -> f64 {
        self.makespan_us as f64 / MICROSECONDS
    }

    /// Seconds of the iteration: makespan and all-reduce.
    pub fn iteration_s(&self) -> f64 {
        self.makespan_s() + self.allreduce_s
    }

    /// Share of the nodes' time in which they do not work, from 0 to 1.
    pub fn idle_share(&self) -> f64 {
        let busy: u64 = self.busy_us.iter().sum();
        1.0 - busy as f64 / (self.busy_us.len() as f64 * self.makespan_us as f64).max(1.0)
    }
}

/// Validates a plan and simulates one iteration exactly.
///
/// # Errors
/// Every rule that the plan breaks, a deadlock included.
pub fn evaluate(compiled: &CompiledInstance, plan: &PipelinePlan) -> Result<Evaluation, Vec<PlanViolation>> {
    let violations = check_plan(compiled, plan);
    if !violations.is_empty() {
        return Err(violations);
    }
    let schedule = Schedule::of_plan(compiled, plan);
    let mut recorder = Recorder::default();
    let verdict =
        Simulator::default().run(compiled, &schedule, CostWeights::MAKESPAN, u64::MAX, &mut recorder);
    let makespan_us = match verdict {
        Verdict::Done { makespan_us, .. } => makespan_us,
        Verdict::Deadlock { left } => return Err(vec![PlanViolation::Deadlock { left }]),
        // No cost is above the limit given.
        Verdict::Over => return Err(Vec::new()),
    };
    let ids: Vec<u32> = plan.microbatches.iter().map(|microbatch| microbatch.id).collect();
    let trace = recorder.into_trace(compiled, &ids);
    let mut busy_us = vec![0; compiled.nodes()];
    for task in &trace.tasks {
        busy_us[task.node as usize] += task.end_us - task.start_us;
    }
    Ok(Evaluation {
        makespan_us,
        allreduce_s: compiled.allreduce_s(&plan.stages),
        finish_us: finishes(plan, &trace),
        busy_us,
        in_flight_max: in_flight_max(compiled, &trace),
        trace,
    })
}

/// The end of each microbatch's last backward, in the plan's order.
fn finishes(plan: &PipelinePlan, trace: &Trace) -> Vec<u64> {
    let mut ends: std::collections::BTreeMap<u32, u64> = std::collections::BTreeMap::new();
    for task in &trace.tasks {
        let end = ends.entry(task.microbatch).or_default();
        *end = task.end_us.max(*end);
    }
    plan.microbatches.iter().map(|microbatch| ends.get(&microbatch.id).copied().unwrap_or(0)).collect()
}

fn in_flight_max(compiled: &CompiledInstance, trace: &Trace) -> Vec<u32> {
    let mut changes: Vec<(u32, u64, i64)> = trace
        .tasks
        .iter()
        .filter_map(|task| match task.kind {
            TaskKind::Forward => Some((task.node, task.start_us, 1)),
            TaskKind::Backward => Some((task.node, task.end_us, -1)),
            TaskKind::Loss => None,
        })
        .collect();
    // At one time slots are freed before they are taken.
    changes.sort_unstable();
    let mut most = vec![0; compiled.nodes()];
    let (mut node, mut taken) = (u32::MAX, 0_i64);
    for (of, _, change) in changes {
        if of != node {
            (node, taken) = (of, 0);
        }
        taken += change;
        let most = &mut most[of as usize];
        *most = taken.max(i64::from(*most)) as u32;
    }
    most
}
