//! `skipstone simulate`.

use std::io::IsTerminal;
use std::ops::RangeInclusive;
use std::sync::Mutex;

use clap::Args;
use skipstone_worlds::fault::{Fault, FaultSet, Options, SeedsReport, run_seeds};

use crate::failure::{Failure, Outcome};
use crate::output::{Progress, print, print_json, say, threads};

const EXAMPLES: &str = "\
Examples:
  skipstone simulate --faults all --seeds 1..1000
  skipstone simulate --faults kill,journal,partition --seeds 1..1000
  skipstone simulate --faults all --seeds 17..17 --nodes 9 --iterations 100

The same code that trains runs in virtual time, with symbolic tensors; nodes and the coordinator die, hang and come
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
    /// Which faults happen: all, or names from the list below
    #[arg(long, value_name = "all|NAME,…")]
    faults: FaultSet,
    /// The runs, by seed; B is included
    #[arg(long, value_name = "A..B", value_parser = parse_seeds)]
    seeds: Seeds,
    /// Nodes at the start [default: up to 23, as the seed says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=512))]
    nodes: Option<u16>,
    /// Iterations of each run
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(8..=100_000))]
    iterations: u64,
    /// Seeds at once [default: the machine's cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

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
        let Seeds(seeds) = self.seeds;
        let total = seeds.end() - seeds.start() + 1;
        let options = Options {
            nodes: self.nodes.map(usize::from),
            iterations: self.iterations,
            faults: self.faults,
            ..Options::default()
        };
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

fn text(report: &SeedsReport) -> String {
    let faults: Vec<String> = report.faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
    format!(
        "{} {}: {} broke a promise\n\
         {}{} iterations committed, {} attempts given up, {} around a hole\n\
         {} stages lost, {} rebuilt, {} shares replayed by replicas, {} late nodes relieved by replicas, {} coordinators, {} times on with --resume\n\
         {} shares refused, {} nodes set aside for them\n\
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
        report.repaired,
        report.hedged,
        report.terms,
        report.resumed,
        report.refused,
        report.struck,
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
