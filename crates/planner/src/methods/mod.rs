//! The planners of the papers that Skipstone builds on, so that anyone can compare.
//!
//! | method | placement | paths |
//! |---|---|---|
//! | [`Method::Full`] | genetic | full pipelines, formed by matching successive stages (DT-FM, arXiv 2206.01288) |
//! | [`Method::Random`] | genetic | drawn at random under path rules, visit limits and memory |
//! | [`Method::NoCollisions`] | genetic | SkipPipe without its collision constraint (TC2) |
//! | [`Method::SkipPipe`] | genetic | SkipPipe (arXiv 2502.19913): conflict-based search over time-space A* |
//!
//! They follow the papers and the released code, in our own words and with exact integer times. Three errors of that
//! code are repaired and can be switched back with [`AsPublished`]. Beyond those we differ from it where it would
//! otherwise give up or go wrong without need: plans are judged by the exact evaluation instead of a coarser one, full
//! pipelines take the quickest of the good placements met instead of the best scored, an instance whose limits nothing
//! exceeds is no dead end, placements keep to the limit of the all-reduce, stages may have unequal sizes, and origins
//! unequal quotas.

mod agents;
mod as_published;
mod conflict;
mod error;
mod pipelines;
mod placement;
mod random_paths;

pub use as_published::AsPublished;
pub use error::{MethodError, Tried};

use crate::compiled::CompiledInstance;
use crate::plan::{PipelinePlan, check_placement, check_plan};
use crate::random::Random;
use conflict::Constraints;
use placement::Placement;

/// A published planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Full pipelines.
    Full,
    /// Stages skipped at random.
    Random,
    /// SkipPipe's paths without the collision constraint.
    NoCollisions,
    /// SkipPipe.
    SkipPipe,
}

impl Method {
    /// All of them, from the simplest.
    pub const ALL: [Self; 4] = [Self::Full, Self::Random, Self::NoCollisions, Self::SkipPipe];

    /// The name on the command line and in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Random => "random",
            Self::NoCollisions => "no-tc2",
            Self::SkipPipe => "skippipe",
        }
    }
}

/// What to plan with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodOptions {
    /// The planner.
    pub method: Method,
    /// Where chance begins.
    pub seed: u64,
    /// Which of the reference's errors are kept.
    pub as_published: AsPublished,
    /// Nodes of each stage, where another planner has placed them; none: the genetic search places them.
    pub stages: Option<Vec<Vec<u32>>>,
}

impl MethodOptions {
    /// The repaired method with its own placement.
    pub fn new(method: Method, seed: u64) -> Self {
        Self { method, seed, as_published: AsPublished::NONE, stages: None }
    }
}

/// What a method found.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodPlan {
    /// The plan, valid for the instance.
    pub plan: PipelinePlan,
    /// Candidates tried: placements scored, paths searched, schedules simulated.
    pub work: u64,
    /// How the search ended, and what is worth knowing of the result; sentences for people.
    pub notes: Vec<String>,
    /// The makespan that the reference would report, microseconds, where it leaves microbatches out.
    pub published_makespan_us: Option<u64>,
}

/// Plans with a published method.
///
/// `progress` is told the work done so far and answers how much of the budget is spent, from 0 to 1: work / limit for
/// a result that depends on nothing else, elapsed / limit to keep to a time. The genetic search takes at most half
/// of the budget. Methods end by themselves when they are done.
///
/// # Errors
/// See [`MethodError`].
pub fn plan_with(
    compiled: &CompiledInstance,
    options: &MethodOptions,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<MethodPlan, MethodError> {
    let believed = options.as_published.believed(compiled);
    let mut budget = Budget { work: 0, spent: 0.0, progress };
    let placement = match &options.stages {
        Some(stages) => {
            if let Some(violation) = check_placement(compiled, stages).into_iter().next() {
                return Err(MethodError::Placement(violation));
            }
            Placement::given(stages.clone())
        }
        None => placement::genetic(&believed, Random::new(&[options.seed, 1]), &mut budget)?,
    };
    let found = match options.method {
        Method::Full => pipelines::full(&believed, compiled, &placement, options.as_published)?,
        Method::Random => {
            let random = Random::new(&[options.seed, 2]);
            random_paths::random(&believed, &placement, options.as_published, random)?
        }
        Method::NoCollisions => {
            conflict::plan(&believed, compiled, &placement, Constraints::NoCollisions, &mut budget)?
        }
        Method::SkipPipe => conflict::plan(&believed, compiled, &placement, Constraints::All, &mut budget)?,
    };
    if let Some(violation) = check_plan(compiled, &found.plan).into_iter().next() {
        return Err(MethodError::Invalid { method: options.method.name(), violation });
    }
    let mut notes = placement.notes;
    notes.extend(found.notes);
    Ok(MethodPlan {
        plan: found.plan,
        work: budget.work,
        notes,
        published_makespan_us: found.published_makespan_us,
    })
}

/// The plan of a method before it is checked.
struct Found {
    plan: PipelinePlan,
    notes: Vec<String>,
    published_makespan_us: Option<u64>,
}

/// Work done, and how much of the budget that is.
struct Budget<'a> {
    work: u64,
    spent: f64,
    progress: &'a mut dyn FnMut(u64) -> f64,
}

impl Budget<'_> {
    /// Counts `work` candidates; the share of the budget spent.
    fn count(&mut self, work: u64) -> f64 {
        self.work += work;
        self.spent = (self.progress)(self.work);
        self.spent
    }
}
