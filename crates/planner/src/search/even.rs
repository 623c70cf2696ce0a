//! The search for a placement, where paths change from iteration to iteration.

use super::anneal::{Cooling, anneal};
use super::draft::Draft;
use super::moves::Moves;
use super::objective::Guide;
use super::{CHAINS, Found, SearchError, SearchOptions, construct, finish, groups, search};
use crate::compiled::CompiledInstance;
use crate::random::Random;

/// Searches for the best placement under paths that visit all stages alike, and start as soon as they can: what a trainer
/// carries out. Large instances are searched as by [`search`].
///
/// # Errors
/// See [`SearchError`].
pub(crate) fn search_even(
    compiled: &CompiledInstance,
    options: &SearchOptions,
    progress: &mut dyn FnMut(u64) -> f64,
) -> Result<Found, SearchError> {
    let movable = compiled.nodes() > 1 && compiled.stages() > 1;
    if groups::group_count(compiled) > 1 || !movable {
        return search(compiled, options, progress);
    }
    let guide = Guide::new(compiled, options.objective).with_domains(options.domain_price_s);
    let drafts: Option<Vec<Draft>> = (0..CHAINS)
        .map(|chain| construct::first_draft(compiled, &guide, &mut Random::new(&[options.seed, chain, 1])))
        .collect();
    let drafts = drafts.ok_or_else(|| SearchError::no_paths(compiled))?;
    let moves = Moves::of_even_places();
    finish(compiled, anneal(compiled, &guide, &moves, drafts, Cooling::ANEW, options.seed, progress))
}
