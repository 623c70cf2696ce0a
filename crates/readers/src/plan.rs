//! The planner's plan (`skipstone-planner`), read, checked against an instance, and evaluated if it may be.

use crate::{Broken, Reader, Seed, SeedError, Verdict, instance, lost, refused, same, within};
use skipstone_planner::{
    CompiledInstance, DispatchPolicy, PipelinePlan, PlanMode, PlanViolation, PlannedMicrobatch, TaskKind,
    evaluate,
};
use std::collections::BTreeMap;

/// A microbatch of a plan takes less than 32 times its text while a list grows; the small instance is compiled too.
fn memory_max(input: usize) -> usize {
    (256 << 10) + 64 * input
}

pub(crate) const READER: Reader = Reader {
    name: "plan",
    what: "PLAN.json of `skipstone plan` and `simulate`, with its check against an instance",
    text: true,
    memory_max,
    read,
    mend: None,
    seeds,
};

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        // Files are read as text: what is not UTF-8 is refused before the reader.
        return refused("not UTF-8");
    };
    let checked = within(memory_max(bytes.len()), bytes, || {
        let plan = PipelinePlan::from_json(text)?;
        let compiled = CompiledInstance::new(&instance::small()).map_err(|why| why.to_string())?;
        let words =
            |violations: Vec<PlanViolation>| violations.first().map_or_else(String::new, ToString::to_string);
        evaluate(&compiled, &plan).map(drop).map_err(words)
    })?;
    if let Ok(plan) = PipelinePlan::from_json(text) {
        let once = serde_json::to_string(&plan).map_err(lost)?;
        same(&plan, &PipelinePlan::from_json(&once).map_err(lost)?)?;
    }
    match checked {
        Ok(()) => Ok(Verdict::Taken),
        Err(why) => refused(why),
    }
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let microbatch = |id: u32, relay: u32| PlannedMicrobatch {
        id,
        path: vec![id % 2, relay],
        after: None,
        release: 0.0,
        priority: 0.0,
    };
    let plan = PipelinePlan {
        instance: "small".to_owned(),
        method: "by hand".to_owned(),
        mode: PlanMode::Partial,
        policy: DispatchPolicy::BackwardFirst,
        stages: vec![vec![0, 1], vec![2, 3], vec![4, 5]],
        microbatches: vec![microbatch(0, 2), microbatch(1, 3), microbatch(2, 4), microbatch(3, 5)],
        node_order: BTreeMap::new(),
    };
    let mut every_field = plan.clone();
    every_field.policy = DispatchPolicy::FirstInFirstOut;
    every_field.microbatches[1].after = Some(0);
    every_field.microbatches[2].release = 0.5;
    every_field.microbatches[3].priority = -1.5;
    every_field.node_order = BTreeMap::from([(2, vec![(0, TaskKind::Forward), (0, TaskKind::Backward)])]);
    let mut full = plan.clone();
    full.mode = PlanMode::Full;
    for microbatch in &mut full.microbatches {
        microbatch.path = vec![microbatch.id % 2, 2 + microbatch.id % 2, 4 + microbatch.id % 2];
    }
    [("partial", plan), ("every-field", every_field), ("full", full)]
        .into_iter()
        .map(|(name, plan)| Ok((name.to_owned(), serde_json::to_vec_pretty(&plan)?)))
        .collect()
}
