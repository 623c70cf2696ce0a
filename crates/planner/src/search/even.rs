//! The search for a placement, where paths change from iteration to iteration.

use super::anneal::{Annealed, Cooling, anneal};
use super::draft::Draft;
use super::moves::Moves;
use super::objective::Guide;
use super::{CHAINS, Found, SearchError, SearchOptions, construct, finish, groups, search};
use crate::compiled::CompiledInstance;
use crate::random::Random;

/// The share of a search that goes to finding the best way to begin, where there are several.
const TRIAL_SHARE: f64 = 0.3;

/// Whether so large an instance is cut into groups.
pub(crate) fn is_cut(compiled: &CompiledInstance) -> bool {
    groups::group_count(compiled) > 1
}

/// Searches for the best placement under paths that visit all stages alike, and start as soon as they can: what a trainer
/// carries out. Where there are several ways to begin, each is tried for a while, and the best gone on with. Large instances are searched as by [`search`], and must have no spares.
///
/// # Errors
/// See [`SearchError`].
pub(crate) fn search_even(
    compiled: &CompiledInstance,
    options: &SearchOptions,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<Found, SearchError> {
    let movable = compiled.nodes() > 1 && compiled.stages() > 1;
    if is_cut(compiled) || !movable {
        return search(compiled, options, progress);
    }
    let guide = Guide::new(compiled, options.objective).with_domains(options.domain_price_s);
    let first = |(chain, spares): (u64, &[u32])| {
        construct::draft_without(compiled, &guide, spares, &mut Random::new(&[options.seed, chain, 1]))
    };
    let ways = compiled.spares.len().max(1);
    let starts = (0..CHAINS.max(ways as u64))
        .map(|chain| (chain, compiled.spares.get(chain as usize % ways).map_or(&[][..], Vec::as_slice)));
    let drafts: Option<Vec<Draft>> = starts.map(first).collect();
    let mut drafts = drafts.ok_or_else(|| SearchError::no_paths(compiled))?;
    let moves = Moves::of_even_places();
    let mut before = 0;
    if ways > 1 {
        let mut trial = |work: u64| progress(work) / TRIAL_SHARE;
        let best = anneal(compiled, &guide, &moves, drafts, Cooling::APART, options.seed, &mut trial);
        let Annealed { draft, work, .. } = best.ok_or_else(|| SearchError::no_paths(compiled))?;
        before = work;
        drafts = vec![draft; CHAINS as usize];
    }
    let share = if ways > 1 { TRIAL_SHARE } else { 0.0 };
    let mut rest = |work: u64| (progress(before + work) - share) / (1.0 - share);
    let annealed = anneal(compiled, &guide, &moves, drafts, Cooling::ANEW, options.seed, &mut rest);
    finish(compiled, annealed.map(|annealed| Annealed { work: before + annealed.work, ..annealed }))
}
