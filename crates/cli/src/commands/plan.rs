//! `skipstone plan`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use skipstone_observe::{PlannedIteration, gantt, map};
use skipstone_planner::{CompiledInstance, Evaluation, LowerBounds, MICROSECONDS, PipelinePlan, evaluate};

use super::plan_auto::AutoFlags;
use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json, say};
use crate::planning::{Planner, Proof, SearchFlags, Searched, read, read_instance, refused};

const EXAMPLES: &str = "\
Examples:
  skipstone plan INSTANCE.json --time-limit 10 --out PLAN.json
  skipstone plan INSTANCE.json --objective makespan --work 200000 --seed 1 --json
  skipstone plan INSTANCE.json --as-trained --out PLAN.json      for `train --plan` and `simulate --plan`
  skipstone plan INSTANCE.json --evaluate PLAN.json --gantt LANES.svg --map MAP.svg
  skipstone plan INSTANCE.json --method skippipe --time-limit 60 --seed 5
  skipstone plan INSTANCE.json --method full --as-published=matching,microbatches
  skipstone plan INSTANCE.json --method skippipe --stages-from PLAN.json
  skipstone plan --auto --model 500m --node-list NODES.json --sequences 64
  skipstone plan --auto --model 124m --node-list NODES.json --wan gcp12 --skips 0,0.33 --batches 1,2,4 --json

The same seed and --work give the same plan, on any number of threads. Exit code 1: the method found no plan. Exit
code 2: the instance or the plan breaks a rule, which is named.

--auto tries ways to run a model over the nodes of a list, predicts what an iteration takes, and prints the options of
`skipstone train`. NODES.json is {\"nodes\": [{\"region\", \"flop_per_s\", \"memory_bytes\"}], \"regions\"}; docs/node-list.md
explains every field. --time-limit or --work is for all searches together; the best five are then simulated, with the state
machines that train, and put in order by that.";

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Plan {
    /// The problem: nodes, links, stages, path rules
    #[arg(value_name = "INSTANCE", required_unless_present = "auto", conflicts_with = "auto")]
    instance: Option<PathBuf>,
    #[command(flatten)]
    auto: AutoFlags,
    /// Who plans
    #[arg(long, value_enum, default_value = "skipstone")]
    method: Planner,
    #[command(flatten)]
    search: SearchFlags,
    /// Search only among plans that nodes carry out to the letter: paths ascend, and no microbatch goes before others
    #[arg(long, conflicts_with = "auto")]
    as_trained: bool,
    /// Leave nodes where this plan has them, and plan only paths [not with exact]
    #[arg(long, value_name = "PLAN")]
    stages_from: Option<PathBuf>,
    /// Write the plan to this file
    #[arg(long, value_name = "PLAN")]
    out: Option<PathBuf>,
    /// Check this plan and print its figures
    #[arg(long, value_name = "PLAN",
          conflicts_with_all = ["method", "time_limit", "work", "seed", "threads", "as_published", "out", "stages_from"])]
    evaluate: Option<PathBuf>,
    /// Draw who computes what, and when
    #[arg(long, value_name = "F.svg")]
    gantt: Option<PathBuf>,
    /// Draw which stage is served where, and what flows between regions
    #[arg(long, value_name = "F.svg")]
    map: Option<PathBuf>,
    /// One JSON document on stdout: the plan and its figures
    #[arg(long)]
    json: bool,
}

/// What `--json` adds to a plan.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) makespan_s: f64,
    pub(super) allreduce_s: f64,
    pub(super) iteration_s: f64,
    pub(super) lower_bound_s: f64,
    pub(super) gap: f64,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_published_makespan_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Proof>,
}

impl Effort {
    fn new(seed: u64, searched: &Searched) -> Self {
        Self {
            seed,
            work: searched.work,
            search_s: searched.search_s,
            notes: searched.notes.clone(),
            as_published_makespan_s: searched.published_makespan_us.map(|us| us as f64 / MICROSECONDS),
            proof: searched.proof,
        }
    }
}

/// The lower bounds one by one, seconds.
#[derive(Debug, Serialize)]
struct Bounds {
    critical_path: f64,
    node: f64,
    memory: f64,
    slots: f64,
    shared: f64,
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
            shared: seconds(bounds.placement.shared_us),
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
        let Some(instance) = &self.instance else { return self.auto.run(&self.search, self.json) };
        let compiled = read_instance(instance, self.as_trained)?;
        let (plan, effort) = if let Some(path) = &self.evaluate {
            (PipelinePlan::from_json(&read(path)?).map_err(|error| refused(path, &error))?, None)
        } else {
            let stages = self.stages()?;
            let searched = self.search.search(instance, &compiled, self.method, stages.as_deref())?;
            let effort = Effort::new(self.search.seed, &searched);
            (searched.plan, Some(effort))
        };
        let (evaluation, figures) = judge(&compiled, &plan).map_err(|broken| {
            broken.iter().skip(1).take(19).for_each(|rule| say(rule));
            let why = broken.first().map_or("it can't be evaluated", String::as_str);
            refused(self.evaluate.as_ref().unwrap_or(instance), &why)
        })?;
        let iteration = PlannedIteration {
            compiled: &compiled,
            plan: &plan,
            evaluation: &evaluation,
            bound_us: (figures.lower_bound_s * MICROSECONDS).round() as u64,
        };
        if let Some(path) = &self.gantt {
            write(path, &gantt(&iteration))?;
        }
        if let Some(path) = &self.map {
            write(path, &map(&iteration))?;
        }
        let document = Document { plan: &plan, figures: Figures { search: effort, ..figures } };
        if let Some(path) = &self.out {
            let text = serde_json::to_string(&document).map_err(|error| unwritable(path, &error))?;
            write(path, &(text + "\n"))?;
        }
        if self.json { print_json(&document) } else { print(&text(&document)) }
    }
}

impl Plan {
    /// The placement asked for.
    fn stages(&self) -> Outcome<Option<Vec<Vec<u32>>>> {
        let Some(path) = &self.stages_from else { return Ok(None) };
        if self.method == Planner::Exact {
            return Err(Failure::input(
                "--method exact tries every placement; leave --stages-from out".to_owned(),
            ));
        }
        let plan = PipelinePlan::from_json(&read(path)?).map_err(|error| refused(path, &error))?;
        Ok(Some(plan.stages))
    }
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("{}: can't be written ({error}); check the folder", path.display()))
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| unwritable(path, &error))
}

/// The evaluation and figures of a plan, or the rules that it breaks.
pub(super) fn judge(
    compiled: &CompiledInstance,
    plan: &PipelinePlan,
) -> Result<(Evaluation, Figures), Vec<String>> {
    let evaluation = evaluate(compiled, plan)
        .map_err(|violations| violations.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let bounds = LowerBounds::of_plan(compiled, plan);
    let bound_us = bounds.placement_us();
    let figures = Figures {
        makespan_s: evaluation.makespan_s(),
        allreduce_s: evaluation.allreduce_s,
        iteration_s: evaluation.iteration_s(),
        lower_bound_s: bound_us as f64 / MICROSECONDS,
        gap: evaluation.makespan_us as f64 / (bound_us as f64).max(1.0) - 1.0,
        lower_bounds_s: Bounds::new(&bounds),
        search: None,
    };
    Ok((evaluation, figures))
}

fn text(document: &Document) -> String {
    let Document { plan, figures } = document;
    let effort = figures.search.as_ref().map_or(String::new(), |effort| {
        let mut text = effort.proof.as_ref().map_or(String::new(), |proof| {
            let rest = if proof.complete { "" } else { "; more --work or time may raise that" };
            format!(
                "objective {:.3} s; no plan of any placement is below {:.3} s{rest}\n",
                proof.objective_s, proof.lower_bound_s
            )
        });
        text += &format!("{} candidates in {:.1} s, seed {}\n", effort.work, effort.search_s, effort.seed);
        effort.notes.iter().for_each(|note| text += &format!("{note}\n"));
        text
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
