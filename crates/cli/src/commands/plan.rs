//! `skipstone plan`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use skipstone_planner::{CompiledInstance, Instance, LowerBounds, MICROSECONDS, PipelinePlan, evaluate};

use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json, say};

const EXAMPLES: &str = "\
Examples:
  skipstone plan INSTANCE.json --time-limit 10 --out PLAN.json
  skipstone plan INSTANCE.json --objective makespan --work 200000 --seed 1 --json
  skipstone plan INSTANCE.json --evaluate PLAN.json

The same seed and --work give the same plan, on any number of threads. Exit code 2: the instance or the plan breaks a
rule, which is named.";

/// Largest file read.
const BYTES_MAX: u64 = 256 << 20;

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Plan {
    /// The problem: nodes, links, stages, path rules
    #[arg(value_name = "INSTANCE")]
    instance: PathBuf,
    /// Check this plan and print its figures
    #[arg(long, value_name = "PLAN")]
    evaluate: PathBuf,
    /// One JSON document on stdout
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
        let instance =
            Instance::from_json(&read(&self.instance)?).map_err(|error| refused(&self.instance, &error))?;
        let compiled = CompiledInstance::new(&instance).map_err(|error| refused(&self.instance, &error))?;
        let plan = PipelinePlan::from_json(&read(&self.evaluate)?)
            .map_err(|error| refused(&self.evaluate, &error))?;
        let figures = figures(&compiled, &plan).map_err(|broken| {
            broken.iter().skip(1).take(19).for_each(|rule| say(rule));
            refused(&self.evaluate, &broken.first().map_or("it can't be evaluated", String::as_str))
        })?;
        if self.json {
            return print_json(&Document { plan: &plan, figures });
        }
        print(&text(&plan, &figures))
    }
}

/// The figures of a plan, or the rules that it breaks.
fn figures(compiled: &CompiledInstance, plan: &PipelinePlan) -> Result<Figures, Vec<String>> {
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
    })
}

fn text(plan: &PipelinePlan, figures: &Figures) -> String {
    format!(
        "{} ({}): makespan {:.3} s + all-reduce {:.3} s = {:.3} s an iteration\n\
         no plan with this placement has a makespan below {:.3} s: this one is {:.1} % above\n",
        plan.instance,
        plan.method,
        figures.makespan_s,
        figures.allreduce_s,
        figures.iteration_s,
        figures.lower_bound_s,
        100.0 * figures.gap
    )
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
