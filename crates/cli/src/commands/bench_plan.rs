//! `skipstone bench plan`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use skipstone_planner::{CompiledInstance, LowerBounds, Objective, SearchOptions, evaluate, search};

use super::plan::{parse_seconds, read_instance};
use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json, threads};

/// Options of `bench plan`.
#[derive(Debug, Args)]
pub(crate) struct BenchPlan {
    /// The instances
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<PathBuf>,
    /// Seconds of search for each instance and objective
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    time_limit: f64,
    /// Where chance begins
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Threads of the search [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// One search.
#[derive(Debug, Serialize)]
struct Row {
    instance: String,
    objective: &'static str,
    makespan_s: f64,
    allreduce_s: f64,
    iteration_s: f64,
    lower_bound_s: f64,
    gap: f64,
    search_s: f64,
    candidates_per_s: f64,
}

impl BenchPlan {
    pub(crate) fn run(self) -> Outcome {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads(self.threads.map(usize::from)))
            .build()
            .map_err(|error| {
                Failure::failed(format!("can't start threads ({error}); ask for fewer with --threads"))
            })?;
        let mut rows = Vec::new();
        for path in &self.instances {
            let compiled = read_instance(path)?;
            for objective in [Objective::Makespan, Objective::Iteration] {
                rows.push(pool.install(|| self.row(&compiled, objective))?);
            }
        }
        if self.json {
            return print_json(&rows);
        }
        let mut text = format!(
            "{:<28} {:<9} {:>10} {:>10} {:>10} {:>10} {:>7} {:>9} {:>12}\n",
            "instance",
            "objective",
            "makespan",
            "all-reduce",
            "iteration",
            "bound",
            "gap",
            "search",
            "candidates/s"
        );
        for row in &rows {
            text += &format!(
                "{:<28} {:<9} {:>8.2} s {:>8.2} s {:>8.2} s {:>8.2} s {:>5.1} % {:>7.2} s {:>12.0}\n",
                row.instance,
                row.objective,
                row.makespan_s,
                row.allreduce_s,
                row.iteration_s,
                row.lower_bound_s,
                100.0 * row.gap,
                row.search_s,
                row.candidates_per_s
            );
        }
        print(&text)
    }

    fn row(&self, compiled: &CompiledInstance, objective: Objective) -> Outcome<Row> {
        let started = Instant::now();
        let options = SearchOptions { objective, seed: self.seed };
        let mut progress = |_| started.elapsed().as_secs_f64() / self.time_limit;
        let found = search(compiled, &options, &mut progress).map_err(Failure::input)?;
        let search_s = started.elapsed().as_secs_f64();
        let evaluation = evaluate(compiled, &found.plan).map_err(|broken| {
            Failure::failed(
                broken.first().map_or("the plan can't be evaluated".to_owned(), ToString::to_string),
            )
        })?;
        let bounds = LowerBounds::of_plan(compiled, &found.plan);
        Ok(Row {
            instance: found.plan.instance,
            objective: match objective {
                Objective::Makespan => "makespan",
                Objective::Iteration => "iteration",
            },
            makespan_s: evaluation.makespan_s(),
            allreduce_s: evaluation.allreduce_s,
            iteration_s: evaluation.iteration_s(),
            lower_bound_s: bounds.placement_us() as f64 / 1e6,
            gap: evaluation.makespan_us as f64 / (bounds.placement_us() as f64).max(1.0) - 1.0,
            search_s,
            candidates_per_s: found.work as f64 / search_s,
        })
    }
}
