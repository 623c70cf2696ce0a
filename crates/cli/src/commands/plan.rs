//! `skipstone plan`.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::Serialize;
use skipstone_planner::{
    CompiledInstance, Instance, LowerBounds, MICROSECONDS, Objective, PipelinePlan, SearchOptions, evaluate,
    exact, search,
};

use crate::failure::{Failure, Outcome};
use crate::output::{Progress, print, print_json, say, threads};

const EXAMPLES: &str = "\
Examples:
  skipstone plan INSTANCE.json --time-limit 10 --out PLAN.json
  skipstone plan INSTANCE.json --objective makespan --work 200000 --seed 1 --json
  skipstone plan INSTANCE.json --evaluate PLAN.json

The same seed and --work give the same plan, on any number of threads. Exit code 2: the instance or the plan breaks a
rule, which is named.";

/// Largest file read.
const BYTES_MAX: u64 = 256 << 20;

/// The share of an exact search that anneals first.
const ANNEALED_SHARE: f64 = 0.1;

/// What is made small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Goal {
    /// Makespan and all-reduce.
    Iteration,
    /// The makespan alone, as the papers do.
    Makespan,
}

/// Who plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Placement, paths and starts together, annealed.
    Skipstone,
    /// The same, then branch and bound: how far from the optimum the plan is (up to 8 nodes).
    Exact,
}

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Plan {
    /// The problem: nodes, links, stages, path rules
    #[arg(value_name = "INSTANCE")]
    instance: PathBuf,
    /// Who plans
    #[arg(long, value_enum, default_value = "skipstone")]
    method: Method,
    /// What is made small
    #[arg(long, value_enum, default_value = "iteration")]
    objective: Goal,
    /// Seconds of search [default: 10, where --work is not given]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    time_limit: Option<f64>,
    /// Candidates to try
    #[arg(long, value_name = "N", conflicts_with = "time_limit")]
    work: Option<u64>,
    /// Where chance begins
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Threads of the search [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Write the plan to this file
    #[arg(long, value_name = "PLAN")]
    out: Option<PathBuf>,
    /// Check this plan and print its figures
    #[arg(long, value_name = "PLAN", conflicts_with_all = ["method", "time_limit", "work", "seed", "threads", "out"])]
    evaluate: Option<PathBuf>,
    /// One JSON document on stdout: the plan and its figures
    #[arg(long)]
    json: bool,
}

/// What `--json` adds to a plan.
#[derive(Debug, Serialize)]
struct Figures {
    makespan_s: f64,
    allreduce_s: f64,
    iteration_s: f64,
    lower_bound_s: f64,
    gap: f64,
    lower_bounds_s: Bounds,
    #[serde(flatten)]
    search: Option<Effort>,
}

/// What a search took.
#[derive(Debug, Serialize)]
struct Effort {
    seed: u64,
    work: u64,
    search_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Proof>,
}

/// What the exact method proves, for the objective.
#[derive(Debug, Serialize)]
struct Proof {
    objective_s: f64,
    lower_bound_s: f64,
    complete: bool,
}

/// The lower bounds one by one, seconds.
#[derive(Debug, Serialize)]
struct Bounds {
    critical_path: f64,
    node: f64,
    memory: f64,
    slots: f64,
    instance_latency: f64,
    instance_work: f64,
}

impl Bounds {
    fn new(bounds: &LowerBounds) -> Self {
        let seconds = |us: u64| us as f64 / MICROSECONDS;
        Self {
            critical_path: seconds(bounds.paths.critical_path_us),
            node: seconds(bounds.paths.node_us),
            memory: seconds(bounds.paths.memory_us),
            slots: seconds(bounds.placement.slots_us),
            instance_latency: seconds(bounds.instance.map_or(0, |instance| instance.latency_us)),
            instance_work: seconds(bounds.instance.map_or(0, |instance| instance.work_us)),
        }
    }
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    plan: &'a PipelinePlan,
    #[serde(flatten)]
    figures: Figures,
}

impl Plan {
    pub(crate) fn run(self) -> Outcome {
        let compiled = read_instance(&self.instance)?;
        let (plan, effort) = match &self.evaluate {
            Some(path) => {
                (PipelinePlan::from_json(&read(path)?).map_err(|error| refused(path, &error))?, None)
            }
            None => self.search(&compiled)?,
        };
        let figures = figures(&compiled, &plan, effort).map_err(|broken| {
            broken.iter().skip(1).take(19).for_each(|rule| say(rule));
            let why = broken.first().map_or("it can't be evaluated", String::as_str);
            refused(self.evaluate.as_ref().unwrap_or(&self.instance), &why)
        })?;
        let document = Document { plan: &plan, figures };
        if let Some(path) = &self.out {
            let unwritable = |error: &dyn std::fmt::Display| {
                Failure::failed(format!("{}: can't be written ({error}); check the folder", path.display()))
            };
            let text = serde_json::to_string(&document).map_err(|error| unwritable(&error))?;
            fs::write(path, text + "\n").map_err(|error| unwritable(&error))?;
        }
        if self.json { print_json(&document) } else { print(&text(&document)) }
    }

    /// Searches for a plan.
    fn search(&self, compiled: &CompiledInstance) -> Outcome<(PipelinePlan, Option<Effort>)> {
        let objective = match self.objective {
            Goal::Iteration => Objective::Iteration,
            Goal::Makespan => Objective::Makespan,
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads(self.threads.map(usize::from)))
            .build()
            .map_err(|error| {
                Failure::failed(format!("can't start threads ({error}); ask for fewer with --threads"))
            })?;
        let started = Instant::now();
        let mut shown = Progress::new("percent of the search");
        let limit_s = self.time_limit.unwrap_or(10.0);
        let mut progress = |work: u64| {
            let done = match self.work {
                Some(budget) => work as f64 / budget as f64,
                None => started.elapsed().as_secs_f64() / limit_s,
            };
            shown.update((100.0 * done.min(1.0)) as u64, 100, &format!(", {work} candidates"));
            done
        };
        let options = SearchOptions { objective, seed: self.seed };
        let refused = |error| refused(&self.instance, &error);
        let (found, proof) = match self.method {
            Method::Skipstone => {
                (pool.install(|| search(compiled, &options, &mut progress)).map_err(refused)?, None)
            }
            Method::Exact => {
                let mut first = |work: u64| progress(work) / ANNEALED_SHARE;
                let start = pool.install(|| search(compiled, &options, &mut first)).map_err(refused)?;
                let mut rest = |work: u64| progress(start.work + work);
                let exact = exact(compiled, &options, &start.plan, &mut rest).map_err(refused)?;
                let proof = Proof {
                    objective_s: exact.objective_us as f64 / MICROSECONDS,
                    lower_bound_s: exact.bound_us as f64 / MICROSECONDS,
                    complete: exact.complete,
                };
                (exact.found, Some(proof))
            }
        };
        let search_s = started.elapsed().as_secs_f64();
        Ok((found.plan, Some(Effort { seed: self.seed, work: found.work, search_s, proof })))
    }
}

/// Seconds above 0.
pub(super) fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "write seconds, as 10 or 0.5".to_owned())?;
    if seconds.is_finite() && seconds > 0.0 { Ok(seconds) } else { Err("it must be above 0".to_owned()) }
}

/// The figures of a plan, or the rules that it breaks.
fn figures(
    compiled: &CompiledInstance,
    plan: &PipelinePlan,
    search: Option<Effort>,
) -> Result<Figures, Vec<String>> {
    let evaluation = evaluate(compiled, plan)
        .map_err(|violations| violations.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let bounds = LowerBounds::of_plan(compiled, plan);
    let bound_us = bounds.placement_us();
    Ok(Figures {
        makespan_s: evaluation.makespan_s(),
        allreduce_s: evaluation.allreduce_s,
        iteration_s: evaluation.iteration_s(),
        lower_bound_s: bound_us as f64 / MICROSECONDS,
        gap: evaluation.makespan_us as f64 / (bound_us as f64).max(1.0) - 1.0,
        lower_bounds_s: Bounds::new(&bounds),
        search,
    })
}

fn text(document: &Document) -> String {
    let Document { plan, figures } = document;
    let effort = figures.search.as_ref().map_or(String::new(), |effort| {
        let proof = effort.proof.as_ref().map_or(String::new(), |proof| {
            let rest = if proof.complete { "" } else { "; more --work or time may raise that" };
            format!(
                "objective {:.3} s; no plan of any placement is below {:.3} s{rest}\n",
                proof.objective_s, proof.lower_bound_s
            )
        });
        format!("{proof}{} candidates in {:.1} s, seed {}\n", effort.work, effort.search_s, effort.seed)
    });
    format!(
        "{} ({}): makespan {:.3} s + all-reduce {:.3} s = {:.3} s an iteration\n\
         no plan with this placement has a makespan below {:.3} s: this one is {:.1} % above\n{effort}",
        plan.instance,
        plan.method,
        figures.makespan_s,
        figures.allreduce_s,
        figures.iteration_s,
        figures.lower_bound_s,
        100.0 * figures.gap
    )
}

/// Reads, checks and compiles an instance.
pub(super) fn read_instance(path: &Path) -> Outcome<CompiledInstance> {
    let instance = Instance::from_json(&read(path)?).map_err(|error| refused(path, &error))?;
    CompiledInstance::new(&instance).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::input(format!("{}: {why}", path.display()))
}

/// A file's text, if it is not too large.
fn read(path: &Path) -> Outcome<String> {
    let unreadable =
        |error| refused(path, &format!("can't be read ({error}); check the path and its permissions"));
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    let length = file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)? as u64;
    if length > BYTES_MAX {
        return Err(refused(path, &format!("it is larger than {} MiB; make it smaller", BYTES_MAX >> 20)));
    }
    Ok(text)
}
