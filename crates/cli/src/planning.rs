//! Searching for a plan with any method, for `plan` and `bench plan`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::Serialize;
use skipstone_planner::{
    AsPublished, CompiledInstance, Instance, MICROSECONDS, Method, MethodError, MethodOptions, Objective,
    PipelinePlan, SearchOptions, exact, plan_with, search, search_placed,
};

use crate::failure::{Failure, Outcome};
use crate::output::{Progress, threads};

/// Largest file read.
const BYTES_MAX: u64 = 256 << 20;
/// Seconds of search where nothing is asked for.
const SECONDS: f64 = 10.0;
/// The share of an exact search that anneals first.
const ANNEALED_SHARE: f64 = 0.1;

/// What is made small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goal {
    /// Makespan and all-reduce.
    Iteration,
    /// The makespan alone, as the papers do.
    Makespan,
}

/// Who plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Planner {
    /// Placement, paths and starts together, annealed.
    Skipstone,
    /// The same, then branch and bound: how far from the optimum the plan is (up to 8 nodes).
    Exact,
    /// SkipPipe: genetic placement, conflict-based search over time-space A*.
    Skippipe,
    /// SkipPipe without its collision constraint.
    NoTc2,
    /// Genetic placement, stages skipped at random.
    Random,
    /// Genetic placement, full pipelines by matching (DT-FM).
    Full,
}

impl Planner {
    /// The planners that take instances of any size.
    pub(crate) const ALL_SIZES: [Self; 5] =
        [Self::Skipstone, Self::Skippipe, Self::NoTc2, Self::Random, Self::Full];

    /// The published method; none: our own.
    fn published(self) -> Option<Method> {
        match self {
            Self::Skipstone | Self::Exact => None,
            Self::Skippipe => Some(Method::SkipPipe),
            Self::NoTc2 => Some(Method::NoCollisions),
            Self::Random => Some(Method::Random),
            Self::Full => Some(Method::Full),
        }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        let own = if self == Self::Exact { "exact" } else { "skipstone" };
        self.published().map_or(own, Method::name)
    }
}

/// An error of SkipPipe's released code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PublishedError {
    /// The NL–London link at 0.000237 GB/s.
    NlLondon,
    /// The inverse permutation in the matching of stages.
    Matching,
    /// 27 microbatches counted instead of 30.
    Microbatches,
    /// All of them.
    All,
}

/// How to search.
#[derive(Debug, Clone, Args)]
pub(crate) struct SearchFlags {
    /// What is made small
    #[arg(long, value_enum, default_value = "iteration")]
    pub(crate) objective: Goal,
    /// Seconds of search [default: 10, where --work is not given]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    time_limit: Option<f64>,
    /// Candidates to try
    #[arg(long, value_name = "N", conflicts_with = "time_limit")]
    work: Option<u64>,
    /// Where chance begins
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Seconds of an iteration to give for each stage that one region could take away, and again for each two adjacent ones
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    domain_price: Option<f64>,
    /// Threads of the search [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Keep errors of SkipPipe's released code in full, random, no-tc2 and skippipe [without a value: all]
    #[arg(long, value_name = "ERRORS", value_enum, num_args = 0..=1, require_equals = true, value_delimiter = ',',
          default_missing_value = "all")]
    as_published: Vec<PublishedError>,
}

/// A plan and what it took.
#[derive(Debug)]
pub(crate) struct Searched {
    pub(crate) plan: PipelinePlan,
    pub(crate) work: u64,
    pub(crate) search_s: f64,
    /// What is worth knowing, in sentences.
    pub(crate) notes: Vec<String>,
    /// The makespan that the reference would report, where it leaves microbatches out.
    pub(crate) published_makespan_us: Option<u64>,
    /// What the exact method proves.
    pub(crate) proof: Option<Proof>,
}

/// What the exact method proves, for the objective.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Proof {
    pub(crate) objective_s: f64,
    pub(crate) lower_bound_s: f64,
    /// Whether the search has come to its end: no plan is better.
    pub(crate) complete: bool,
}

impl SearchFlags {
    /// Plans an instance that was read from `path`; on these stages, if there are any.
    pub(crate) fn search(
        &self,
        path: &Path,
        compiled: &CompiledInstance,
        planner: Planner,
        stages: Option<&[Vec<u32>]>,
    ) -> Outcome<Searched> {
        let started = Instant::now();
        let mut progress = self.budget();
        let mut searched = match planner.published() {
            None => self.anneal(path, compiled, planner == Planner::Exact, stages, &mut progress)?,
            Some(method) => self.publish(path, compiled, method, stages, &mut progress)?,
        };
        searched.search_s = started.elapsed().as_secs_f64();
        Ok(searched)
    }

    /// What a search asks at marks: how much of it lies behind, after so many candidates.
    pub(crate) fn budget(&self) -> impl FnMut(u64) -> f64 + Send + use<> {
        let started = Instant::now();
        let mut shown = Progress::new("percent of the search");
        let (limit_s, budget) = (self.time_limit.unwrap_or(SECONDS), self.work);
        move |work: u64| {
            let done = match budget {
                Some(budget) => work as f64 / budget as f64,
                None => started.elapsed().as_secs_f64() / limit_s,
            };
            shown.update((100.0 * done.min(1.0)) as u64, 100, &format!(", {work} candidates"));
            done
        }
    }

    /// The threads asked for.
    pub(crate) fn pool(&self) -> Outcome<rayon::ThreadPool> {
        let threads = threads(self.threads.map(usize::from));
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| {
            Failure::failed(format!("can't start threads ({error}); ask for fewer with --threads"))
        })
    }

    /// Our own search.
    fn anneal(
        &self,
        path: &Path,
        compiled: &CompiledInstance,
        proves: bool,
        stages: Option<&[Vec<u32>]>,
        progress: &mut (dyn FnMut(u64) -> f64 + Send),
    ) -> Outcome<Searched> {
        let pool = self.pool()?;
        let objective = match self.objective {
            Goal::Iteration => Objective::Iteration,
            Goal::Makespan => Objective::Makespan,
        };
        let options =
            SearchOptions { objective, seed: self.seed, domain_price_s: self.domain_price.unwrap_or(0.0) };
        let refused = |error| refused(path, &error);
        let share = if proves { ANNEALED_SHARE } else { 1.0 };
        let mut first = |work: u64| progress(work) / share;
        let mut found = pool
            .install(|| match stages {
                Some(stages) => search_placed(compiled, stages, &options, &mut first),
                None => search(compiled, &options, &mut first),
            })
            .map_err(refused)?;
        let mut proof = None;
        if proves {
            let mut rest = |work: u64| progress(found.work + work);
            let exact = exact(compiled, &options, &found.plan, &mut rest).map_err(refused)?;
            proof = Some(Proof {
                objective_s: exact.objective_us as f64 / MICROSECONDS,
                lower_bound_s: exact.bound_us as f64 / MICROSECONDS,
                complete: exact.complete,
            });
            found = exact.found;
        }
        Ok(Searched {
            plan: found.plan,
            work: found.work,
            search_s: 0.0,
            notes: Vec::new(),
            published_makespan_us: None,
            proof,
        })
    }

    /// A published method.
    fn publish(
        &self,
        path: &Path,
        compiled: &CompiledInstance,
        method: Method,
        stages: Option<&[Vec<u32>]>,
        progress: &mut dyn FnMut(u64) -> f64,
    ) -> Outcome<Searched> {
        let keeps = |error: PublishedError| {
            self.as_published.iter().any(|kept| *kept == error || *kept == PublishedError::All)
        };
        let as_published = AsPublished {
            nl_london: keeps(PublishedError::NlLondon),
            matching: keeps(PublishedError::Matching),
            microbatches: keeps(PublishedError::Microbatches),
        };
        let stages = stages.map(<[Vec<u32>]>::to_vec);
        let options = MethodOptions { as_published, stages, ..MethodOptions::new(method, self.seed) };
        let found = plan_with(compiled, &options, progress).map_err(|error| {
            let why = format!("{}: {error}", path.display());
            // A stage without a node or a wrong placement is the input's fault; the rest is the method's.
            if matches!(error, MethodError::EmptyStage { .. } | MethodError::Placement(_)) {
                Failure::input(why)
            } else {
                Failure::failed(why)
            }
        })?;
        Ok(Searched {
            plan: found.plan,
            work: found.work,
            search_s: 0.0,
            notes: found.notes,
            published_makespan_us: found.published_makespan_us,
            proof: None,
        })
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "write seconds, as 10 or 0.5".to_owned())?;
    if seconds.is_finite() && seconds > 0.0 { Ok(seconds) } else { Err("it must be above 0".to_owned()) }
}

/// An instance, checked and compiled.
pub(crate) fn read_instance(path: &Path, as_trained: bool) -> Outcome<CompiledInstance> {
    let instance = Instance::from_json(&read(path)?).map_err(|error| refused(path, &error))?;
    let compiled =
        if as_trained { CompiledInstance::as_trained(&instance) } else { CompiledInstance::new(&instance) };
    compiled.map_err(|error| refused(path, &error))
}

/// Wrong input in a file.
pub(crate) fn refused(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::input(format!("{}: {why}", path.display()))
}

/// A file's text, if it is not too large.
pub(crate) fn read(path: &Path) -> Outcome<String> {
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
