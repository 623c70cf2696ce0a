//! `skipstone bench plan`: every planner on every instance.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use skipstone_planner::{CompiledInstance, MICROSECONDS};

use super::plan::judge;
use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json, say};
use crate::planning::{Planner, SearchFlags, read_instance, refused};

const EXAMPLES: &str = "\
Examples:
  skipstone bench plan --instances DIR --time-limit 10
  skipstone bench plan --instances DIR --placement-of skippipe --objective makespan
  skipstone bench plan --instances DIR --methods skipstone,skippipe --objective makespan --json";

/// Most instances of a folder.
const INSTANCES_MAX: usize = 1_000;

/// Options of `bench plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BenchPlan {
    /// Folder of instances, as INSTANCE.json
    #[arg(long, value_name = "DIR")]
    instances: PathBuf,
    /// Planners to compare [default: all but exact, which is for small instances]
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    methods: Vec<Planner>,
    /// Compare them on the placement that this planner finds, not each on its own
    #[arg(long, value_name = "NAME", value_enum)]
    placement_of: Option<Planner>,
    #[command(flatten)]
    search: SearchFlags,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// One planner on one instance.
#[derive(Debug, Serialize)]
struct Row {
    instance: String,
    nodes: usize,
    method: &'static str,
    /// Whose placement.
    placement: &'static str,
    seed: u64,
    #[serde(flatten)]
    result: Result,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Result {
    Plan {
        makespan_s: f64,
        allreduce_s: f64,
        iteration_s: f64,
        lower_bound_s: f64,
        gap: f64,
        work: u64,
        search_s: f64,
        notes: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        as_published_makespan_s: Option<f64>,
    },
    None {
        error: String,
    },
}

#[derive(Debug, Serialize)]
struct Table {
    rows: Vec<Row>,
}

impl BenchPlan {
    pub(super) fn run(self) -> Outcome {
        let methods =
            if self.methods.is_empty() { Planner::ALL_SIZES.to_vec() } else { self.methods.clone() };
        let mut rows = Vec::new();
        for path in instances(&self.instances)? {
            let compiled = read_instance(&path, false)?;
            // A planner that finds no placement leaves the others without one: each row says so.
            let stages = self.placement_of.map(|planner| {
                let searched = self.search.search(&path, &compiled, planner, None);
                searched.map(|searched| searched.plan.stages).map_err(|failure| failure.to_string())
            });
            for method in &methods {
                let row = self.row(&path, &compiled, *method, stages.as_ref())?;
                if !self.json {
                    say(&format!("{}: {} done", row.instance, row.method));
                }
                rows.push(row);
            }
        }
        if self.json { print_json(&Table { rows }) } else { print(&markdown(&rows)) }
    }

    fn row(
        &self,
        path: &Path,
        compiled: &CompiledInstance,
        method: Planner,
        stages: Option<&std::result::Result<Vec<Vec<u32>>, String>>,
    ) -> Outcome<Row> {
        let searched = match stages {
            Some(Err(why)) => Err(Failure::failed(why)),
            Some(Ok(stages)) => self.search.search(path, compiled, method, Some(stages)),
            None => self.search.search(path, compiled, method, None),
        };
        let result = match searched {
            Ok(searched) => {
                let (_, figures) = judge(compiled, &searched.plan).map_err(|broken| {
                    Failure::failed(format!(
                        "{}: {} made a plan against its rules: {}",
                        path.display(),
                        method.name(),
                        broken.join("; ")
                    ))
                })?;
                Result::Plan {
                    makespan_s: figures.makespan_s,
                    allreduce_s: figures.allreduce_s,
                    iteration_s: figures.iteration_s,
                    lower_bound_s: figures.lower_bound_s,
                    gap: figures.gap,
                    work: searched.work,
                    search_s: searched.search_s,
                    notes: searched.notes,
                    as_published_makespan_s: searched
                        .published_makespan_us
                        .map(|us| us as f64 / MICROSECONDS),
                }
            }
            Err(failure) => Result::None { error: failure.to_string() },
        };
        let instance = compiled.instance().name.clone();
        Ok(Row {
            instance,
            nodes: compiled.nodes(),
            method: method.name(),
            placement: self.placement_of.map_or("own", Planner::name),
            seed: self.search.seed,
            result,
        })
    }
}

/// The instance files of a folder, by name.
fn instances(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let unreadable = |error| refused(folder, &format!("can't be read ({error}); name a folder of instances"));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
        if paths.len() > INSTANCES_MAX {
            return Err(refused(folder, &format!("it has more than {INSTANCES_MAX} instances; split it")));
        }
    }
    if paths.is_empty() {
        return Err(refused(folder, &"it has no instance (*.json); name a folder of instances"));
    }
    paths.sort_unstable();
    Ok(paths)
}

/// The table, an instance after the other, the quickest iteration of each in bold.
fn markdown(rows: &[Row]) -> String {
    let mut text =
        "| instance | method | placement | makespan, s | all-reduce, s | iteration, s | above bound | search, s |\n\
                    |---|---|---|---:|---:|---:|---:|---:|\n"
            .to_owned();
    let iteration = |row: &Row| match row.result {
        Result::Plan { iteration_s, .. } => iteration_s,
        Result::None { .. } => f64::INFINITY,
    };
    let mut reasons = String::new();
    for row in rows {
        let best = rows
            .iter()
            .filter(|other| other.instance == row.instance)
            .map(iteration)
            .fold(f64::INFINITY, f64::min);
        match &row.result {
            Result::Plan { makespan_s, allreduce_s, iteration_s, gap, search_s, .. } => {
                let bold = if *iteration_s <= best { "**" } else { "" };
                text += &format!(
                    "| {} | {} | {} | {makespan_s:.2} | {allreduce_s:.2} | {bold}{iteration_s:.2}{bold} | {:.1} % | {search_s:.1} |\n",
                    row.instance,
                    row.method,
                    row.placement,
                    100.0 * gap
                );
            }
            Result::None { error } => {
                text +=
                    &format!("| {} | {} | {} | no plan | | | | |\n", row.instance, row.method, row.placement);
                reasons += &format!("- {error}\n");
            }
        }
    }
    if reasons.is_empty() { text } else { format!("{text}\n{reasons}") }
}
