//! A planner's instance and plan, as a run whose plan is given.

use super::model::{CostModel, StageBytes, Tempo};
use super::{SimulateError, Simulated, simulate};
use crate::fixed_plan::FixedPlan;
use crate::wan::{TaskTimes, WanTable};
use serde::Serialize;
use skipstone_planner::{CompiledInstance, Evaluation, Instance, PipelinePlan, evaluate};
use skipstone_types::{LearningRate, RateShape, RunId, Settings, WhileLost};
use std::collections::BTreeMap;

/// An instance's plan, simulated by the state machines that train, beside what the planner says of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimulatedPlan {
    /// What was simulated.
    #[serde(flatten)]
    pub simulated: Simulated,
    /// Seconds from an iteration's start until the last microbatch is back, in the mean.
    pub makespan_s: f64,
    /// The same by the planner's evaluation of the plan as nodes carry it out: each takes what is ready, backwards first, and
    /// no microbatch waits for another.
    pub planned_makespan_s: f64,
    /// The same of the plan as it is written.
    pub written_makespan_s: f64,
    /// Seconds of the all-reduce by the planner's formula, a ring. Nodes exchange parts directly, which is as quick for two
    /// replicas, and quicker for more.
    pub planned_allreduce_s: f64,
}

/// Simulates `iterations` of an instance's plan. The coordinator is beside every node: the planner's instances have none.
///
/// # Errors
/// A plan that breaks a rule of its instance, or that nodes can't carry out.
pub fn simulate_plan(
    instance: &Instance,
    table: &WanTable,
    plan: &PipelinePlan,
    iterations: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<SimulatedPlan, SimulateError> {
    let compiled = CompiledInstance::new(instance).map_err(|why| SimulateError::Plan(why.to_string()))?;
    let judge = |plan: &PipelinePlan| -> Result<Evaluation, SimulateError> {
        evaluate(&compiled, plan).map_err(|broken| {
            SimulateError::Plan(broken.first().map_or("it never ends".to_owned(), ToString::to_string))
        })
    };
    let written = judge(plan)?;
    let planned = judge(&as_carried_out(plan))?;
    let model = model_of(instance, table, plan, iterations)?;
    let simulated = simulate(model, progress)?;
    Ok(SimulatedPlan {
        makespan_s: simulated.iteration.shares_s,
        planned_makespan_s: planned.makespan_s(),
        written_makespan_s: written.makespan_s(),
        planned_allreduce_s: planned.allreduce_s,
        simulated,
    })
}

/// Without starts, priorities and orders, of which nodes know nothing.
fn as_carried_out(plan: &PipelinePlan) -> PipelinePlan {
    let mut plan = PipelinePlan { node_order: BTreeMap::new(), ..plan.clone() };
    plan.policy = skipstone_planner::DispatchPolicy::default();
    for microbatch in &mut plan.microbatches {
        (microbatch.after, microbatch.release, microbatch.priority) = (None, 0.0, 0.0);
    }
    plan
}

fn model_of(
    instance: &Instance,
    table: &WanTable,
    plan: &PipelinePlan,
    iterations: u64,
) -> Result<CostModel, SimulateError> {
    let stage_replicas = plan.stages.iter().map(|nodes| nodes.len() as u16).collect::<Vec<_>>();
    let serving: usize = stage_replicas.iter().copied().map(usize::from).sum();
    let settings = Settings {
        run: RunId::default(),
        seed: 0,
        relay_stages: (plan.stages.len() as u16).saturating_sub(1),
        origin_like_relay: instance.layers_of_origin() == instance.layers_per_stage,
        origin_has_layers: instance.layers_of_origin() > 0,
        replicas: stage_replicas.first().copied().unwrap_or(1),
        stage_replicas,
        spares: instance.nodes.len().saturating_sub(serving) as u16,
        microbatches: plan.microbatches.len() as u32,
        steps: iterations,
        skip: 0.0,
        full_every: 0,
        full_last: 0,
        slots: instance.nodes.iter().map(|node| node.memory).max().unwrap_or(1),
        while_lost: WhileLost::Skip,
        recovery: "checkfree".to_owned(),
        clip_norm_max: 0.0,
        learning_rate: LearningRate {
            peak: 1e-3,
            floor: 1e-3,
            warmup_iterations: 0,
            total_iterations: iterations,
            shape: RateShape::Constant,
        },
        save_every_iterations: 0,
        // Whatever a microbatch's number: nodes take what is ready first.
        deterministic: false,
        respawn: false,
        places: true,
        edge_swaps: skipstone_types::EdgeSwaps::Off,
        spot_checks: skipstone_types::SpotChecks::OFF,
    };
    settings.check().map_err(|why| SimulateError::Plan(why.to_string()))?;
    let place_of: BTreeMap<u32, u32> =
        (0..).zip(&instance.nodes).map(|(place, node)| (node.id, place)).collect();
    let fixed = FixedPlan::new(plan, |node| place_of.get(&node).copied());
    let fixed = fixed.map_err(|why| SimulateError::Plan(why.to_string()))?;
    let layers = |count: u32| f64::from(count) * f64::from(instance.samples_per_mb);
    let origin = f64::from(instance.layers_of_origin()) / f64::from(instance.layers_per_stage.max(1));
    let times = instance.nodes.iter().map(|node| {
        let forward_s = node.compute_s_per_layer_sample * layers(instance.layers_per_stage);
        TaskTimes::new(forward_s, origin, Some(table))
    });
    let bytes = StageBytes::of(instance.param_bytes_per_stage / 4.0);
    Ok(CostModel {
        tokens: u64::from(instance.samples_per_mb),
        network: table.clone(),
        times: times.collect(),
        slots: instance.nodes.iter().map(|node| node.memory).collect(),
        activation_bytes: instance.activation_bytes_per_sample * f64::from(instance.samples_per_mb),
        reduce_share: 1.0,
        price_per_hour: None,
        price_per_gb: None,
        origin: bytes,
        relay: bytes,
        churn: None,
        calm_bytes: 0.0,
        save_every_s: 0.0,
        swarm: None,
        domain_price_s: None,
        fixed: Some(fixed),
        paths: super::Paths::Planned,
        coordinator_beside: true,
        tempo: Tempo::OF_INSTANCES,
        script: Vec::new(),
        numbers: None,
        weights_every: 0,
        settings,
    })
}
