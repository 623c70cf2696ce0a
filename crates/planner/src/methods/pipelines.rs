//! Full pipelines: successive stages are matched, and each pipeline takes its share of the microbatches.

use std::collections::BTreeMap;

use super::placement::{Matching, Placement, match_rows};
use super::{AsPublished, Found, MethodError};
use crate::compiled::{CompiledInstance, MICROSECONDS};
use crate::plan::{DispatchPolicy, PipelinePlan, PlanMode, PlannedMicrobatch};
use crate::simulate::{CostWeights, Schedule, Simulator, Verdict};

/// The full-pipeline plan of a placement: as many pipelines as the largest relay stage has nodes, microbatches dealt in
/// turn. A node of a smaller stage serves several pipelines; origins too many stay without one.
pub(super) fn full(
    believed: &CompiledInstance,
    compiled: &CompiledInstance,
    placement: &Placement,
    as_published: AsPublished,
) -> Result<Found, MethodError> {
    let best = quickest(believed, compiled, placement, as_published);
    let stages = &best;
    if let Some(stage) = stages.iter().position(Vec::is_empty) {
        return Err(MethodError::EmptyStage { stage });
    }
    let matching = if as_published.matching { Matching::AsPublished } else { Matching::Bottleneck };
    let pipelines = pipelines(believed, stages, matching);
    let total = compiled.instance().total_microbatches;
    let plan = dealt(compiled, stages, &pipelines);
    let mut notes = vec![format!("{} pipelines for {total} microbatches", pipelines.len())];
    let counted = whole_waves(compiled, &plan, pipelines.len() as u32);
    let published_makespan_us = if as_published.microbatches && counted > 0 && counted < total {
        let mut shorter = plan.clone();
        shorter.microbatches.truncate(counted as usize);
        let makespan_us = makespan_us(compiled, &shorter);
        notes.extend(makespan_us.map(|us| {
            format!(
                "as published, only the {counted} microbatches of whole waves count: {:.3} s",
                us as f64 / MICROSECONDS
            )
        }));
        makespan_us
    } else {
        None
    };
    Ok(Found { plan, notes, published_makespan_us })
}

/// The placement whose full pipelines end first. The score of the genetic search knows nothing of which nodes make up
/// one pipeline, and its best placement is up to a tenth slower than others that it met: a baseline should not hang on
/// that chance. As published, the best score decides.
fn quickest(
    believed: &CompiledInstance,
    compiled: &CompiledInstance,
    placement: &Placement,
    as_published: AsPublished,
) -> Vec<Vec<u32>> {
    if as_published.matching {
        return placement.stages.clone();
    }
    let candidates = std::iter::once(&placement.stages).chain(&placement.others);
    let ends = |stages: &&Vec<Vec<u32>>| {
        if stages.iter().any(Vec::is_empty) {
            return u64::MAX;
        }
        let plan = dealt(compiled, stages, &pipelines(believed, stages, Matching::Bottleneck));
        makespan_us(compiled, &plan).unwrap_or(u64::MAX)
    };
    candidates.min_by_key(ends).unwrap_or(&placement.stages).clone()
}

/// The plan in which microbatches are dealt to pipelines in turn.
fn dealt(compiled: &CompiledInstance, stages: &[Vec<u32>], pipelines: &[Vec<u32>]) -> PipelinePlan {
    let microbatch = |id: u32| PlannedMicrobatch {
        id,
        path: pipelines[id as usize % pipelines.len()].clone(),
        after: None,
        release: 0.0,
        priority: 0.0,
    };
    PipelinePlan {
        instance: compiled.instance().name.clone(),
        method: "full".to_owned(),
        mode: PlanMode::Full,
        policy: DispatchPolicy::default(),
        stages: stages.to_vec(),
        microbatches: (0..compiled.instance().total_microbatches).map(microbatch).collect(),
        node_order: BTreeMap::new(),
    }
}

/// The node of each stage, for each pipeline.
fn pipelines(compiled: &CompiledInstance, stages: &[Vec<u32>], matching: Matching) -> Vec<Vec<u32>> {
    let count = stages[1..].iter().map(Vec::len).max().unwrap_or(stages[0].len());
    let sharing = |members: &[u32]| count.div_ceil(members.len());
    // Whoever may begin a pipeline: origins, as often as they have to serve.
    let mut lines: Vec<Vec<u32>> =
        stages[0].iter().flat_map(|node| std::iter::repeat_n(vec![*node], sharing(&stages[0]))).collect();
    for (before, members) in stages[1..].iter().enumerate() {
        let seats: Vec<u32> =
            members.iter().flat_map(|node| std::iter::repeat_n(*node, sharing(members))).collect();
        let cost = |row: usize, column: usize| {
            let node = lines[row].last().map_or(0, |node| *node as usize);
            let forward = if before == 0 { compiled.origin_forward[node] } else { compiled.forward[node] };
            compiled.transfer_us(node, seats[column] as usize) + forward
        };
        let columns = match_rows(lines.len(), seats.len(), matching, cost);
        let seated: Vec<(usize, u32)> = (0..lines.len())
            .filter_map(|row| seats.get(columns[row]).map(|node| (row, *node)))
            .take(count)
            .collect();
        lines = seated
            .into_iter()
            .enumerate()
            .map(|(place, (row, node))| {
                // The released code joins the n-th node that found a seat to the n-th line, whoever it was matched with.
                let before = if matching == Matching::AsPublished { place } else { row };
                let mut line = lines[before].clone();
                line.push(node);
                line
            })
            .collect();
    }
    lines.truncate(count);
    lines
}

/// Microbatches that fill the origins' memory a whole number of times in every pipeline.
fn whole_waves(compiled: &CompiledInstance, plan: &PipelinePlan, pipelines: u32) -> u32 {
    let memory =
        plan.microbatches.iter().map(|m| compiled.memory[m.path[0] as usize]).min().unwrap_or(1).max(1);
    let each = plan.microbatches.len() as u32 / pipelines.max(1);
    each / memory * memory * pipelines
}

/// The exact makespan of a plan, if it ends.
pub(super) fn makespan_us(compiled: &CompiledInstance, plan: &PipelinePlan) -> Option<u64> {
    let schedule = Schedule::of_plan(compiled, plan);
    match Simulator::default().run(compiled, &schedule, CostWeights::MAKESPAN, u64::MAX, &mut ()) {
        Verdict::Done { makespan_us, .. } => Some(makespan_us),
        Verdict::Over | Verdict::Deadlock { .. } => None,
    }
}
