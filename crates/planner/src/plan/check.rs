//! Whether a plan keeps to the rules of its instance.

use std::collections::{BTreeMap, BTreeSet};

use skipstone_types::StageId;

use super::{PipelinePlan, PlanViolation as Violation, TaskKind};
use crate::compiled::CompiledInstance;

/// Latest start of a microbatch, seconds.
const RELEASE_S_MAX: f64 = 4.0e6;

/// Every rule that `plan` breaks; empty: it may be evaluated and run. Deadlocks show in the evaluation only.
pub fn check_plan(compiled: &CompiledInstance, plan: &PipelinePlan) -> Vec<Violation> {
    let mut violations = Vec::new();
    let stage_of = check_stages(compiled, &plan.stages, &mut violations);
    check_microbatches(compiled, plan, &stage_of, &mut violations);
    if violations.is_empty() {
        check_counts(compiled, plan, &stage_of, &mut violations);
        check_node_order(plan, compiled.nodes(), &mut violations);
    }
    if let Some(most) = compiled.instance().dp_allreduce_max_s
        && most > 0.0
        && violations.is_empty()
    {
        let found = compiled.allreduce_s(&plan.stages);
        if found > most {
            violations.push(Violation::AllReduce { found, most });
        }
    }
    violations
}

/// Every rule that a placement breaks: nodes of each stage, the origin's first. Empty: paths may be planned on it.
pub(crate) fn check_placement(compiled: &CompiledInstance, stages: &[Vec<u32>]) -> Vec<Violation> {
    let mut violations = Vec::new();
    check_stages(compiled, stages, &mut violations);
    violations
}

/// The stage of each node.
fn check_stages(
    compiled: &CompiledInstance,
    stages: &[Vec<u32>],
    violations: &mut Vec<Violation>,
) -> Vec<Option<usize>> {
    let mut stage_of = vec![None; compiled.nodes()];
    for (stage, members) in stages.iter().enumerate() {
        for node in members {
            match stage_of.get_mut(*node as usize) {
                None => {
                    violations
                        .push(Violation::UnknownNode { place: format!("stages[{stage}]"), node: *node });
                }
                Some(Some(_)) => violations.push(Violation::NodeTwice(*node)),
                Some(place) => *place = Some(stage),
            }
        }
    }
    let idle = stage_of.iter().enumerate().filter(|(_, stage)| stage.is_none());
    violations.extend(idle.map(|(node, _)| Violation::NodeIdle(node as u32)));
    if stages.len() != compiled.stages() {
        violations.push(Violation::StageCount { found: stages.len(), wanted: compiled.stages() });
    }
    if let Some(wanted) = &compiled.instance().stage_sizes {
        let found: Vec<usize> = stages.iter().map(Vec::len).collect();
        if !found.iter().zip(wanted).all(|(found, wanted)| *found == *wanted as usize) {
            violations.push(Violation::StageSizes { found, wanted: wanted.clone() });
        }
    }
    stage_of
}

fn check_microbatches(
    compiled: &CompiledInstance,
    plan: &PipelinePlan,
    stage_of: &[Option<usize>],
    violations: &mut Vec<Violation>,
) {
    let wanted = compiled.instance().total_microbatches;
    if plan.microbatches.len() != wanted as usize {
        violations.push(Violation::MicrobatchCount { found: plan.microbatches.len(), wanted });
    }
    let mut ids = BTreeSet::new();
    for microbatch in &plan.microbatches {
        let id = microbatch.id;
        if !ids.insert(id) {
            violations.push(Violation::DuplicateMicrobatch(id));
        }
        for (field, found, least) in
            [("release", microbatch.release, 0.0), ("priority", microbatch.priority, f64::MIN)]
        {
            if !found.is_finite() || found < least || (field == "release" && found > RELEASE_S_MAX) {
                violations.push(Violation::BadNumber { microbatch: id, field, found });
            }
        }
        let path = &microbatch.path;
        if path.is_empty() {
            violations.push(Violation::EmptyPath(id));
            continue;
        }
        let stages: Option<Vec<usize>> =
            path.iter().map(|node| stage_of.get(*node as usize).copied().flatten()).collect();
        let Some(stages) = stages else {
            let known = |node: &&u32| stage_of.get(**node as usize).copied().flatten().is_some();
            let node = path.iter().find(|node| !known(node)).copied().unwrap_or(u32::MAX);
            violations.push(Violation::UnknownNode { place: format!("microbatch {id}: path"), node });
            continue;
        };
        if path.iter().collect::<BTreeSet<_>>().len() != path.len() {
            violations.push(Violation::VisitedTwice(id));
        }
        check_path(compiled, plan.is_full(), id, stages, violations);
    }
    for microbatch in &plan.microbatches {
        if let Some(after) = microbatch.after
            && !ids.contains(&after)
        {
            violations.push(Violation::UnknownAfter { microbatch: microbatch.id, after });
        }
    }
}

fn check_path(
    compiled: &CompiledInstance,
    full: bool,
    id: u32,
    stages: Vec<usize>,
    violations: &mut Vec<Violation>,
) {
    if full {
        if !stages.iter().copied().eq(0..compiled.stages()) {
            violations.push(Violation::NotFull { microbatch: id, stages });
        }
        return;
    }
    let wanted = compiled.path_length();
    if stages.len() != wanted {
        violations.push(Violation::PathLength { microbatch: id, found: stages.len(), wanted });
    }
    let visits: Vec<StageId> = stages.iter().map(|stage| StageId(*stage as u16)).collect();
    if let Err(rule) = compiled.rules.check(&visits) {
        violations.push(Violation::PathRule { microbatch: id, rule, stages });
        return;
    }
    if compiled.swaps_edges(id) {
        for (first, second) in compiled.edge_pairs() {
            let place = |wanted: usize| stages.iter().position(|stage| *stage == wanted);
            if let (Some(one), Some(other)) = (place(first), place(second))
                && one > other
            {
                violations.push(Violation::EdgeSwap { microbatch: id, first: second, second: first });
            }
        }
    }
}

/// Quotas of origins and visits of stages; every node of the plan is known here.
fn check_counts(
    compiled: &CompiledInstance,
    plan: &PipelinePlan,
    stage_of: &[Option<usize>],
    violations: &mut Vec<Violation>,
) {
    if plan.is_full() {
        return;
    }
    let instance = compiled.instance();
    let mut sent = vec![0_u32; compiled.nodes()];
    let mut visits = vec![0_u32; compiled.stages()];
    for microbatch in &plan.microbatches {
        sent[microbatch.path[0] as usize] += 1;
        for stage in microbatch.path.iter().filter_map(|node| stage_of[*node as usize]) {
            visits[stage] += 1;
        }
    }
    let origins = &plan.stages[0];
    if let crate::instance::Quota::List(list) = &instance.microbatches_per_origin
        && list.len() != origins.len()
    {
        violations.push(Violation::OriginCount { found: origins.len(), wanted: list.len() });
        return;
    }
    for (place, node) in origins.iter().enumerate() {
        let (found, wanted) = (sent[*node as usize], instance.quota(place));
        if found != wanted {
            violations.push(Violation::OriginQuota { node: *node, found, wanted });
        }
    }
    if let Some(most) = instance.stage_visits_max {
        for (stage, found) in visits.iter().enumerate().skip(1) {
            if *found > most {
                violations.push(Violation::StageVisits { stage, found: *found, most });
            }
        }
    }
}

fn check_node_order(plan: &PipelinePlan, nodes: usize, violations: &mut Vec<Violation>) {
    if plan.node_order.is_empty() {
        return;
    }
    let mut tasks: BTreeMap<u32, Vec<(u32, TaskKind)>> = BTreeMap::new();
    for microbatch in &plan.microbatches {
        for (place, node) in microbatch.path.iter().enumerate() {
            let own = tasks.entry(*node).or_default();
            own.extend([(microbatch.id, TaskKind::Forward), (microbatch.id, TaskKind::Backward)]);
            if place == 0 {
                own.push((microbatch.id, TaskKind::Loss));
            }
        }
    }
    for (node, order) in &plan.node_order {
        if *node as usize >= nodes {
            violations.push(Violation::UnknownNode { place: "node_order".to_owned(), node: *node });
            continue;
        }
        let mut wanted = tasks.remove(node).unwrap_or_default();
        let mut found = order.clone();
        wanted.sort_unstable();
        found.sort_unstable();
        if wanted != found {
            let differs = wanted.iter().zip(&found).find(|(a, b)| a != b);
            let task = differs.map(|(a, b)| *a.min(b)).or_else(|| {
                let (longer, shorter) =
                    if wanted.len() > found.len() { (&wanted, &found) } else { (&found, &wanted) };
                longer.get(shorter.len()).copied()
            });
            violations.push(Violation::NodeOrder { node: *node, task });
        }
    }
}
