//! How good, how quick and how even the plans of a swarm in training are.
//!
//! `cargo run --release -p skipstone-planner --example bench_chooser -- INSTANCE.json [ITERATIONS] [SEED]` places the instance's
//! nodes, plans as many iterations as a coordinator would, then loses each relay in turn, and prints a table.

// A measurement reads files and the clock, which the planner itself does not.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use skipstone_planner::{
    CompiledInstance, Instance, PathChooser, SearchOptions, SwarmChooser, SwarmDescription, evaluate, search,
    search_placed,
};
use skipstone_types::{Attempt, Iteration, NodeId, PathRules, Plan, PlanEpoch, PlanProblem};
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

/// Candidates of the searches that chosen paths are compared with.
const WORK: u64 = 200_000;
/// Iterations after each loss that are planned.
const AFTER: u64 = 30;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("name an instance file")?;
    let iterations: u64 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let seed: u64 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let mut instance = Instance::from_json(&std::fs::read_to_string(path)?)?;
    // The trainer's paths ascend.
    instance.swap.max_distance = 0;
    let compiled = CompiledInstance::new(&instance)?;
    let found = search(&compiled, &SearchOptions::default(), &mut |work| work as f64 / WORK as f64)?;
    let mut chooser = SwarmChooser::new(SwarmDescription::of_instance(&instance))?;
    let mut nodes: Vec<Vec<NodeId>> = found.plan.stages.iter().map(|stage| ids(stage)).collect();
    println!("{}: {} nodes", instance.name, instance.nodes.len());
    let (stages, whole) = (found.plan.stages.clone(), iterations);
    let best = best_iteration_s(&instance, &stages)?;
    report(&instance, &mut chooser, seed, &nodes, 0..whole, best)?;
    losses(&instance, &chooser, seed, &nodes, whole)?;
    let (stage, lost) = (1, nodes[1][0]);
    nodes[stage].remove(0);
    println!("{lost} of stage {stage} lost");
    let best = best_without(&instance, &nodes)?;
    report(&instance, &mut chooser, seed, &nodes, whole..whole + 1, best)?;
    report(&instance, &mut chooser, seed, &nodes, whole + 1..whole + 20, best)
}

/// Loses each relay that has a replica, one at a time, and prints what the first plan without it is like, and what comes after it.
fn losses(
    instance: &Instance,
    chooser: &SwarmChooser,
    seed: u64,
    nodes: &[Vec<NodeId>],
    iteration: u64,
) -> Result<(), Box<dyn Error>> {
    let (mut gaps, mut slowest_ms, mut most_ms) = (Vec::new(), 0.0_f64, 0.0_f64);
    let mut after_s = Vec::new();
    for stage in 1..nodes.len() {
        for place in 0..nodes[stage].len() {
            let mut left = nodes.to_vec();
            left[stage].remove(place);
            if left[stage].is_empty() {
                continue;
            }
            let mut chooser = chooser.clone();
            let (began, worked) = (Instant::now(), processor_ms());
            let plan = chooser.choose(&problem(instance, seed, &left, iteration))?;
            slowest_ms = slowest_ms.max(began.elapsed().as_secs_f64() * 1e3);
            if let (Some(before), Some(after)) = (worked, processor_ms()) {
                most_ms = most_ms.max(after - before);
            }
            let first_s = plan.expected_us.ok_or("no estimate")? as f64 / 1e6;
            gaps.push(100.0 * (first_s / best_without(instance, &left)? - 1.0));
            after_s.push(first_s);
            for later in iteration + 1..iteration + AFTER {
                let plan = chooser.choose(&problem(instance, seed, &left, later))?;
                after_s.push(plan.expected_us.ok_or("no estimate")? as f64 / 1e6);
            }
        }
    }
    let list: Vec<String> = gaps.iter().map(|gap| format!("{gap:+.1}")).collect();
    println!(
        "  first plan after a loss, against a long search anew: mean {:+.1} %, worst {:+.1} %, slowest {slowest_ms:.0} ms ({most_ms:.0} ms of a processor); of each relay {} %",
        gaps.iter().sum::<f64>() / gaps.len().max(1) as f64,
        gaps.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        list.join(" ")
    );
    let mean_s = after_s.iter().sum::<f64>() / after_s.len().max(1) as f64;
    println!("  the {AFTER} iterations after each loss: mean {mean_s:.2} s");
    Ok(())
}

/// Milliseconds for which this thread had a processor, where Linux says: a busy machine makes them last longer, not more.
fn processor_ms() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e6)
}

fn problem(instance: &Instance, seed: u64, nodes: &[Vec<NodeId>], iteration: u64) -> PlanProblem {
    PlanProblem {
        epoch: PlanEpoch(iteration),
        seed,
        iteration: Iteration(iteration),
        attempt: Attempt(0),
        nodes: nodes.to_vec(),
        microbatches: instance.total_microbatches,
        path_length: instance.path_len as u16,
        full: false,
        rules: PathRules { jump_max: instance.max_jump as u16, ..PathRules::default() },
        paces: Vec::new(),
        edge_swaps: skipstone_types::EdgeSwaps::Off,
    }
}

fn ids(stage: &[u32]) -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = stage.iter().map(|node| NodeId(node + 1)).collect();
    ids.sort_unstable();
    ids
}

fn best_iteration_s(instance: &Instance, stages: &[Vec<u32>]) -> Result<f64, Box<dyn Error>> {
    let compiled = CompiledInstance::new(instance)?;
    let options = SearchOptions { seed: 1, ..SearchOptions::default() };
    let found = search_placed(&compiled, stages, &options, &mut |work| work as f64 / WORK as f64)?;
    let figures = evaluate(&compiled, &found.plan).map_err(|_| "a plan against the rules")?;
    Ok(figures.iteration_s())
}

/// The same for an instance with only these nodes.
fn best_without(instance: &Instance, left: &[Vec<NodeId>]) -> Result<f64, Box<dyn Error>> {
    let stages: Vec<Vec<u32>> = left.iter().map(|stage| stage.iter().map(|id| id.0 - 1).collect()).collect();
    let mut part = instance.clone();
    let living: Vec<u32> = stages.iter().flatten().copied().collect();
    part.nodes = living.iter().map(|node| instance.nodes[*node as usize].clone()).collect();
    (0..).zip(&mut part.nodes).for_each(|(id, node)| node.id = id);
    part.stage_sizes = Some(stages.iter().map(|stage| stage.len() as u32).collect());
    let mut next = 0..;
    let places: Vec<Vec<u32>> =
        stages.iter().map(|stage| next.by_ref().take(stage.len()).collect()).collect();
    best_iteration_s(&part, &places)
}

/// Plans iterations and prints what they are like.
fn report(
    instance: &Instance,
    chooser: &mut SwarmChooser,
    seed: u64,
    nodes: &[Vec<NodeId>],
    iterations: std::ops::Range<u64>,
    best_s: f64,
) -> Result<(), Box<dyn Error>> {
    let mut slowest_ms = 0.0_f64;
    let mut seconds = Vec::new();
    let mut sets: BTreeMap<Vec<u16>, u32> = BTreeMap::new();
    let mut visits: BTreeMap<u16, u32> = BTreeMap::new();
    let mut owners: BTreeMap<NodeId, u32> = BTreeMap::new();
    for iteration in iterations {
        let began = Instant::now();
        let Plan { paths, expected_us, .. } = chooser.choose(&problem(instance, seed, nodes, iteration))?;
        slowest_ms = slowest_ms.max(began.elapsed().as_secs_f64() * 1e3);
        seconds.push(expected_us.ok_or("no estimate")? as f64 / 1e6);
        for path in paths {
            *sets.entry(path.0.iter().map(|visit| visit.stage.0).collect()).or_default() += 1;
            for visit in &path.0 {
                *visits.entry(visit.stage.0).or_default() += 1;
                *owners.entry(visit.node).or_default() += 1;
            }
        }
    }
    let count = seconds.len();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let relays = visits.iter().filter(|(stage, _)| **stage > 0).map(|(_, count)| *count);
    let idle = nodes.iter().flatten().filter(|node| !owners.contains_key(node)).count();
    println!("  iterations planned: {count}, slowest {slowest_ms:.0} ms");
    println!(
        "  expected: first {:.2} s, mean {:.2} s, mean of the second half {:.2} s, best {:.2} s; long search {best_s:.2} s ({:+.1} %)",
        seconds[0],
        mean(&seconds),
        mean(&seconds[count / 2..]),
        seconds.iter().copied().fold(f64::INFINITY, f64::min),
        100.0 * (mean(&seconds[count / 2..]) / best_s - 1.0)
    );
    println!(
        "  visits of relay stages {}..{}; sets of stages {}, microbatches of each {}..{}; nodes without any {idle}",
        relays.clone().min().unwrap_or(0),
        relays.max().unwrap_or(0),
        sets.len(),
        sets.values().min().unwrap_or(&0),
        sets.values().max().unwrap_or(&0)
    );
    Ok(())
}
