//! `skipstone simulate`.

use std::io::IsTerminal;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use clap::Args;
use skipstone_planner::{CompiledInstance, Instance, PipelinePlan, SearchOptions, search};
use skipstone_worlds::cost::{CostModel, SimulateError, Simulated, SimulatedPlan, simulate, simulate_plan};
use skipstone_worlds::fault::{Fault, FaultSet, Options, SeedsReport, run_seeds};
use skipstone_worlds::live::folder::read_options;
use skipstone_worlds::wan::WanTable;

use crate::failure::{Failure, Outcome};
use crate::output::{Progress, print, print_json, say, threads};
use crate::planning::{read, refused};

const EXAMPLES: &str = "\
Examples:
  skipstone simulate run.toml --pace 0.5                what a run will take: time, goodput, and what is lost to what
  skipstone simulate run.toml --pace 0.5 --churn 'every 15s' --iterations 200 --json
  skipstone simulate INSTANCE.json --plan PLAN.json     a plan of `skipstone plan` as the nodes would carry it out
  skipstone simulate --faults all --seeds 1..1000
  skipstone simulate --faults kill,journal,partition --seeds 1..1000
  skipstone simulate --faults all --seeds 17..17 --nodes 9 --iterations 100

The same code that trains runs in virtual time, with symbolic tensors. With RUN.toml (a run's folder holds one) compute
takes what --pace says there, and links what --wan says (without it, those of one machine): the result has the keys of
`train --json`, and `iteration`: seconds from commit to commit, and with --wan what its plans expected.
With INSTANCE.json nothing takes time but tasks and transfers, and the coordinator is near: the makespan is compared with
the planner's. Nodes take what is ready, backwards first: a plan's starts, priorities and orders have no bearing, so look for
plans with `skipstone plan --as-trained`.

With --faults nodes and the coordinator die, hang and come
back, links break, disks fail. Each seed is a run of its own; --seeds A..B includes B. Exit code 1: a promise was
broken; the command that shows it again is printed.";

fn explain() -> String {
    let faults: Vec<String> =
        Fault::ALL.iter().map(|fault| format!("  {:12} {}", fault.name(), fault.description())).collect();
    format!("Faults:\n  {:12} all of these\n{}\n\n{EXAMPLES}", "all", faults.join("\n"))
}

/// Options of `simulate`.
#[derive(Debug, Args)]
#[command(after_help = explain())]
pub(crate) struct Simulate {
    /// The run whose time is to be told, or a planner's instance (.json)
    #[arg(value_name = "RUN.toml|INSTANCE.json", conflicts_with = "faults")]
    run: Option<PathBuf>,
    /// The plan of an INSTANCE.json [default: a short search's]
    #[arg(long, value_name = "PLAN", requires = "run")]
    plan: Option<PathBuf>,
    /// Kill nodes, in place of what the run says: a rate per node and hour (16%/h), an interval (every 20s), a trace file
    #[arg(long, value_name = "RATE|TRACE", requires = "run")]
    churn: Option<String>,
    /// A trace's time goes so many times as fast [default: as the run says, else 1]
    #[arg(long, value_name = "X", requires = "run")]
    churn_speed: Option<f64>,
    /// Seconds of a relay stage's forward, in place of what the run says
    #[arg(long, value_name = "SECONDS", requires = "run")]
    pace: Option<f64>,
    /// Links, in place of what the run says
    #[arg(long, value_name = "TABLE", requires = "run")]
    wan: Option<String>,
    /// Which faults happen: all, or names from the list below
    #[arg(long, value_name = "all|NAME,…", requires = "seeds")]
    faults: Option<FaultSet>,
    /// The runs, by seed; B is included
    #[arg(long, value_name = "A..B", value_parser = parse_seeds, requires = "faults")]
    seeds: Option<Seeds>,
    /// Nodes at the start [default: up to 23, as the seed says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=512))]
    nodes: Option<u16>,
    /// Iterations [default: 50 of each seed; else the run's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    iterations: Option<u64>,
    /// Seeds at once [default: the machine's cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// Iterations of an instance's plan, where nobody says: they are all alike.
const INSTANCE_ITERATIONS: u64 = 3;
/// Candidates of a search for a plan, where none is given.
const INSTANCE_CANDIDATES: f64 = 30_000.0;

/// Iterations of each seed, where nobody says.
const FAULT_ITERATIONS: u64 = 50;
/// Faults need some to happen in.
const FAULT_ITERATIONS_MIN: u64 = 8;

#[derive(Debug, Clone)]
struct Seeds(RangeInclusive<u64>);

fn parse_seeds(text: &str) -> Result<Seeds, String> {
    let wrong = || "write a range of seeds as 1..1000 (the last one is included)".to_owned();
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let last = last.strip_prefix('=').unwrap_or(last);
    let (first, last): (u64, u64) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first > last || last == u64::MAX { Err(wrong()) } else { Ok(Seeds(first..=last)) }
}

impl Simulate {
    pub(crate) fn run(self) -> Outcome {
        match (self.run.clone(), self.faults, self.seeds.clone()) {
            (Some(run), ..) => self.cost(&run),
            (None, Some(faults), Some(Seeds(seeds))) => self.try_faults(faults, seeds),
            _ => Err(Failure::input(
                "say what to simulate: a RUN.toml (every run's folder holds one), an INSTANCE.json, or faults, as in \
                 skipstone simulate --faults all --seeds 1..100",
            )),
        }
    }

    /// What a run will take.
    fn cost(self, run: &Path) -> Outcome {
        if run.extension().is_some_and(|extension| extension == "json") {
            return self.instance(run);
        }
        if let Some(plan) = &self.plan {
            return Err(Failure::input(format!(
                "--plan {} goes with an INSTANCE.json: a run plans for itself; leave it out",
                plan.display()
            )));
        }
        let mut config = read_options(run)?;
        if self.churn.is_some() {
            (config.churn, config.churn_speed) = (self.churn, None);
        }
        config.churn_speed = self.churn_speed.or(config.churn_speed);
        config.pace = self.pace.or(config.pace);
        config.wan = self.wan.or(config.wan);
        config.steps = self.iterations.unwrap_or(config.steps);
        let refused = |error: SimulateError| match error {
            SimulateError::Config(_) | SimulateError::NoPace => Failure::input(error),
            _ => Failure::failed(error),
        };
        let model = CostModel::of_run(&config).map_err(refused)?;
        let mut progress = Progress::new("iterations");
        let simulated =
            simulate(model, &mut |done| progress.update(done, config.steps, "")).map_err(refused)?;
        drop(progress);
        if self.json { print_json(&simulated) } else { print(&cost_text(&simulated)) }
    }

    /// What an instance's plan takes the state machines that train.
    fn instance(self, path: &Path) -> Outcome {
        if self.churn.is_some() || self.churn_speed.is_some() || self.pace.is_some() || self.wan.is_some() {
            return Err(Failure::input(
                "an INSTANCE.json says itself how long tasks and links take, and nobody dies in it: leave --churn, --pace \
                 and --wan out, or simulate a RUN.toml",
            ));
        }
        let text = read(path)?;
        let instance = Instance::from_json(&text).map_err(|error| refused(path, &error))?;
        let table = WanTable::from_json(&text).map_err(|error| refused(path, &error))?;
        let plan = if let Some(file) = &self.plan {
            PipelinePlan::from_json(&read(file)?).map_err(|error| refused(file, &error))?
        } else {
            let compiled = CompiledInstance::new(&instance).map_err(|error| refused(path, &error))?;
            let mut progress = |work: u64| work as f64 / INSTANCE_CANDIDATES;
            let found = search(&compiled, &SearchOptions::default(), &mut progress);
            found.map_err(|error| refused(path, &error))?.plan
        };
        let iterations = self.iterations.unwrap_or(INSTANCE_ITERATIONS);
        let mut progress = Progress::new("iterations");
        let told = simulate_plan(&instance, &table, &plan, iterations, &mut |done| {
            progress.update(done, iterations, "");
        });
        drop(progress);
        let told = told.map_err(|error| match error {
            SimulateError::Plan(why) => refused(self.plan.as_deref().unwrap_or(path), &why),
            other => Failure::failed(other),
        })?;
        if self.json { print_json(&told) } else { print(&plan_text(&told)) }
    }

    /// Every fault, by seed.
    fn try_faults(self, faults: FaultSet, seeds: RangeInclusive<u64>) -> Outcome {
        let iterations = self.iterations.unwrap_or(FAULT_ITERATIONS);
        if iterations < FAULT_ITERATIONS_MIN {
            return Err(Failure::input(format!(
                "--iterations must be at least {FAULT_ITERATIONS_MIN} with --faults"
            )));
        }
        let total = seeds.end() - seeds.start() + 1;
        let options =
            Options { nodes: self.nodes.map(usize::from), iterations, faults, ..Options::default() };
        let progress = Mutex::new(Progress::new("seeds"));
        let report = run_seeds(seeds, &options, threads(self.threads), &|done, broken| {
            if let Ok(mut progress) = progress.lock() {
                let more = if broken > 0 { format!(", {broken} broke a promise") } else { String::new() };
                progress.update(done, total, &more);
            }
        });
        drop(progress);
        if self.json {
            print_json(&report)?;
        } else {
            print(&text(&report))?;
        }
        if report.violations.is_empty() {
            return Ok(());
        }
        for violation in report.violations.iter().take(3) {
            say(&violation.to_string());
        }
        if !std::io::stderr().is_terminal() || report.violations.len() > 3 {
            let seeds: Vec<String> = report.violations.iter().map(|v| v.seed.to_string()).collect();
            say(&format!("seeds that broke a promise: {}", seeds.join(" ")));
        }
        Err(Failure::failed(format!(
            "{} of {} seeds broke a promise; run the commands above to see them again",
            report.violations.len(),
            report.seeds
        )))
    }
}

fn plan_text(told: &SimulatedPlan) -> String {
    format!(
        "makespan {:.3} s simulated, {:.3} s by the planner ({:+.1} %)\n\
         the plan as written, with its starts, priorities and orders, which nodes don't know: {:.3} s\n\
         all-reduce by the planner's formula: {:.3} s; an iteration simulated with the exchange that nodes do: {:.3} s\n{}",
        told.makespan_s,
        told.planned_makespan_s,
        100.0 * (told.makespan_s / told.planned_makespan_s.max(1e-9) - 1.0),
        told.written_makespan_s,
        told.planned_allreduce_s,
        told.simulated.iteration.mean_s,
        cost_text(&told.simulated)
    )
}

fn cost_text(simulated: &Simulated) -> String {
    let Simulated { summary, iteration, .. } = simulated;
    let percent = |seconds: f64| 100.0 * seconds / summary.node_seconds.max(1e-9);
    let mut lost: Vec<_> =
        summary.badput.causes().into_iter().filter(|(_, seconds)| percent(*seconds) >= 0.05).collect();
    lost.sort_by(|a, b| b.1.total_cmp(&a.1));
    let lost: Vec<String> = lost
        .into_iter()
        .map(|(cause, seconds)| format!("{} {:.1} %", cause.replace('_', " "), percent(seconds)))
        .collect();
    let expected =
        iteration.expected_s.map_or(String::new(), |seconds| format!("; plans expected {seconds:.3} s"));
    format!(
        "{} iterations in {:.1} virtual seconds on {} nodes: {}\n\
         time per iteration: mean {:.3} s, median {:.3} s, 95 % within {:.3} s, worst {:.3} s{expected}\n\
         goodput {:.1} % of node time; lost: {}\n\
         {} kills, {} stages and replicas came back\n{}",
        summary.steps,
        summary.wall_s,
        summary.nodes,
        summary.ended.as_deref().unwrap_or("not ended"),
        iteration.mean_s,
        iteration.median_s,
        iteration.p95_s,
        iteration.max_s,
        100.0 * summary.goodput,
        lost.join(", "),
        summary.kills,
        summary.recoveries.len(),
        summary.cost.map_or(String::new(), |cost| format!("cost {}\n", cost.render()))
    )
}

fn text(report: &SeedsReport) -> String {
    let faults: Vec<String> = report.faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
    format!(
        "{} {}: {} broke a promise\n\
         {}{} iterations committed, {} attempts given up, {} around a hole\n\
         {} stages lost, {} rebuilt, {} copies kept, {} of them used ({} with steps taken again) and {} saved at the end, {} stages learned from their neighbours, {} shares replayed by replicas, {} late nodes relieved by replicas, {} coordinators, {} times back to a checkpoint, {} times on with --resume\n\
         {} shares refused, {} nodes set aside for them; {} shares computed again and found right, {} liars set aside\n\
         faults: {}\n\
         {:.0} virtual seconds and {} events in {:.1} s\n",
        report.seeds,
        if report.seeds == 1 { "seed" } else { "seeds" },
        report.violations.len(),
        if report.violations.is_empty() { "" } else { "in the others: " },
        report.iterations,
        report.aborted,
        report.around_holes,
        report.stages_lost,
        report.rebuilt,
        report.copies,
        report.restored,
        report.retraced,
        report.saved_copies,
        report.learned,
        report.repaired,
        report.hedged,
        report.terms,
        report.rolled_back,
        report.resumed,
        report.refused,
        report.struck,
        report.checked,
        report.found,
        faults.join(", "),
        report.virtual_s,
        report.events,
        report.wall_s
    )
}

#[cfg(test)]
mod tests {
    use super::parse_seeds;

    #[test]
    fn seeds_include_the_last() {
        assert_eq!(parse_seeds("1..1000").unwrap().0, 1..=1000);
        assert_eq!(parse_seeds("7..=7").unwrap().0, 7..=7);
        for bad in ["", "5", "5..", "..5", "6..5", "a..b", "1...5", "-1..5"] {
            assert!(parse_seeds(bad).is_err(), "{bad}");
        }
    }
}
