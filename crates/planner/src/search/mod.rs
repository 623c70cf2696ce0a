//! The search for a plan.

mod anneal;
mod chain;
mod construct;
mod domains;
mod draft;
mod error;
mod estimate;
mod even;
mod exact;
mod groups;
mod moves;
mod objective;
mod outline;
mod placement;
mod replan;
mod reroute;
mod routes;

use crate::compiled::CompiledInstance;
use crate::plan::{PipelinePlan, check_placement};
use crate::random::Random;
pub(crate) use anneal::Cooling;
use anneal::{Annealed, anneal};
pub(crate) use chain::FAR_OFF;
pub(crate) use construct::stage_sizes;
pub use domains::lost_with_a_region;
pub(crate) use draft::Draft;
pub use error::SearchError;
pub(crate) use estimate::Estimate;
pub(crate) use even::{is_cut, search_even};
pub use exact::{EXACT_NODES_MAX, Exact, exact};
pub(crate) use moves::Moves;
pub use objective::Objective;
pub(crate) use objective::{Guide, Score};
pub(crate) use outline::ESTIMATES;
use outline::outline;
pub use replan::replan;

/// What to search for.
#[derive(Debug, Clone, Copy, Default)]
pub struct SearchOptions {
    /// What is made small.
    pub objective: Objective,
    /// Where chance begins.
    pub seed: u64,
    /// Seconds of an iteration that are given for each stage that a single region can take away, and again for each pair of
    /// adjacent ones that it takes together; 0: failures are not thought of. Up to 128 nodes.
    pub domain_price_s: f64,
}

/// A plan found. It keeps every rule of its instance.
#[derive(Debug, Clone)]
pub struct Found {
    /// The plan.
    pub plan: PipelinePlan,
    /// Candidates tried.
    pub work: u64,
}

/// Chains that run side by side, whatever the number of threads.
const CHAINS: u64 = 2;

/// Up to so many nodes an instance is searched as a whole; larger ones are cut into groups.
const WHOLE_NODES_MAX: usize = 128;
/// Outlines that are drawn; chains begin at the best of them.
const OUTLINES: u64 = 4;
/// The share of a search that goes to outlines.
const OUTLINES_SHARE: f64 = 0.25;

/// Searches for the best plan.
///
/// `progress` is asked at marks, with the number of candidates tried so far, how much of the search lies behind: from
/// 0 to 1, where it ends. Work over budget gives a result that depends on instance, options and budget alone; time
/// over limit keeps to a time. The search runs on the threads of the current rayon pool.
///
/// # Errors
/// See [`SearchError`].
pub fn search(
    compiled: &CompiledInstance,
    options: &SearchOptions,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<Found, SearchError> {
    let guide = Guide::new(compiled, options.objective).with_domains(options.domain_price_s);
    let groups = groups::group_count(compiled);
    if groups > 1 && compiled.nodes() > WHOLE_NODES_MAX {
        return finish(compiled, groups::anneal_groups(compiled, &guide, groups, options.seed, progress));
    }
    let drafts: Option<Vec<Draft>> = (0..OUTLINES)
        .map(|chain| construct::first_draft(compiled, &guide, &mut Random::new(&[options.seed, chain, 1])))
        .collect();
    let drafts = drafts.ok_or_else(|| SearchError::no_paths(compiled))?;
    let moves = Moves::new(compiled);
    let mut first = |work: u64| progress(work) / OUTLINES_SHARE;
    let (mut drafts, before) = outline(compiled, &guide, &moves, drafts, options.seed, &mut first);
    drafts.truncate(CHAINS as usize);
    let mut rest = |work: u64| (progress(before + work) - OUTLINES_SHARE) / (1.0 - OUTLINES_SHARE);
    // Small instances leave the time to find other placements than the outline's.
    let (cooling, moves) =
        if groups > 1 { (Cooling::OUTLINED, moves.with_reroutes(compiled)) } else { (Cooling::WARM, moves) };
    let annealed = anneal(compiled, &guide, &moves, drafts, cooling, options.seed, &mut rest);
    finish(compiled, annealed.map(|annealed| Annealed { work: before + annealed.work, ..annealed }))
}

/// Searches for the best paths on a given placement: nodes of each stage, the origin's first. Nodes stay where they are,
/// and large instances are not cut into groups.
///
/// # Errors
/// See [`SearchError`].
pub fn search_placed(
    compiled: &CompiledInstance,
    stages: &[Vec<u32>],
    options: &SearchOptions,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<Found, SearchError> {
    if let Some(violation) = check_placement(compiled, stages).into_iter().next() {
        return Err(SearchError::Placement(violation));
    }
    let guide = Guide::new(compiled, options.objective).with_domains(options.domain_price_s);
    let draft = |chain| {
        let random = &mut Random::new(&[options.seed, chain, 0x706c_6163_6564]);
        construct::with_stages(compiled, &guide, stages.to_vec(), random)
    };
    let drafts: Option<Vec<Draft>> = (0..CHAINS).map(draft).collect();
    let drafts = drafts.ok_or_else(|| SearchError::no_paths(compiled))?;
    let moves = Moves::of_paths(compiled).with_reroutes(compiled);
    finish(compiled, anneal(compiled, &guide, &moves, drafts, Cooling::ANEW, options.seed, progress))
}

/// The plan of a search's outcome, if it may be handed out.
fn finish(compiled: &CompiledInstance, annealed: Option<Annealed>) -> Result<Found, SearchError> {
    let Some(Annealed { draft, score, work }) = annealed else { return Err(SearchError::no_paths(compiled)) };
    if !score.allowed {
        return Err(SearchError::allreduce(compiled, &draft));
    }
    Ok(Found { plan: draft.to_plan(compiled, "skipstone"), work })
}
