//! A stage whose lineage changes was made by the configured strategy, from states of one committed iteration.

use super::{Invariant, Observation};
use crate::fault::compute::Rebuilt;
use crate::fault::provenance::{self as made, Origin};
use crate::fault::truth::Truth;
use skipstone_protocol::Entry;
use skipstone_recovery::{
    Decision, LESSONS_MAX, Lesson, LossView, Matching, RETRACED_MAX, Recipe, Retraced, StageView,
};
use skipstone_types::{Digest, Iteration, StageId};
use std::collections::{BTreeMap, BTreeSet};

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct RecoveryIsTheConfiguredOne {
    lineages: BTreeMap<StageId, u32>,
    /// Rebuilt states that a record has named.
    adopted: BTreeSet<Digest>,
}

impl Invariant for RecoveryIsTheConfiguredOne {
    fn name(&self) -> &'static str {
        "recovery_is_the_configured_one"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        if let Observation::Written { entry: Entry::RolledBack { .. } } = seen {
            let last = truth.records.last().map(|record| record.stages.as_slice()).unwrap_or_default();
            self.lineages = last.iter().map(|part| (part.stage, part.lineage)).collect();
        }
        let Some(record) = seen.committed() else { return Ok(()) };
        for part in &record.stages {
            let lineage = self.lineages.entry(part.stage).or_default();
            let before = std::mem::replace(lineage, part.lineage);
            // One that was restored from a copy may be what it was before it was lost.
            let mixed = |rebuilt: &Rebuilt| !rebuilt.recipe.restores(rebuilt.stage);
            let made_anew = part.state.filter(|state| truth.rebuilt.get(state).is_some_and(mixed));
            let entered = made_anew.is_some_and(|state| self.adopted.insert(state));
            if part.lineage < before || (entered && part.lineage == before) {
                let (stage, new) = (part.stage, part.lineage);
                return Err(format!(
                    "the lineage of {stage} goes from {before} to {new}; rebuilt: {entered}"
                ));
            }
            // A rebuilt stage that was lost again before it was in any record leaves a number out.
            if part.lineage == before || part.members.is_empty() {
                continue;
            }
            let rebuilt = part.state.and_then(|state| truth.rebuilt.get(&state));
            let rebuilt = rebuilt.filter(|rebuilt| rebuilt.stage == part.stage).ok_or_else(|| {
                format!("{} starts lineage {} with a state that nobody rebuilt", part.stage, part.lineage)
            })?;
            check(rebuilt, truth, record.iteration.0 as usize)?;
        }
        Ok(())
    }
}

fn check(rebuilt: &Rebuilt, truth: &Truth, until: usize) -> Result<(), String> {
    let Rebuilt { stage, recipe, sources, lessons, .. } = rebuilt;
    let retraces = recipe.retracing.is_some();
    let passed = |(lesson, tensors): &(Lesson, &(Origin, Origin))| {
        if retraces {
            truth.has_returned(*stage, *lesson, **tensors)
        } else {
            truth.has_passed(*stage, *lesson, **tensors)
        }
    };
    let mut learned = recipe.lessons().into_iter().zip(lessons);
    if let Some((lesson, _)) = learned.find(|lesson| !passed(lesson)) {
        return Err(format!("{stage} is made from {lesson:?}, which never passed through it so"));
    }
    if lessons.len() > if retraces { RETRACED_MAX } else { LESSONS_MAX } {
        return Err(format!("{stage} is made from {} microbatches", lessons.len()));
    }
    check_retraced(rebuilt, truth)?;
    // States repeat while a stage stands still, so several iterations may fit.
    let fits = |t: &usize| {
        let mut found = recipe.sources.iter().zip(sources);
        found.all(|(source, state)| {
            let state = made::unrounded(*state, recipe.travels_as(*stage));
            truth.served(source.stage, Iteration(*t as u64), made::digest(state))
        })
    };
    let mut of_one_iteration = (0..=until).rev().filter(fits).peekable();
    if of_one_iteration.peek().is_none() {
        return Err(format!("{stage} is rebuilt from states of no one iteration: {rebuilt:?}"));
    }
    if of_one_iteration.any(|t| is_configured(*stage, recipe, truth, &truth.norms[t])) {
        Ok(())
    } else {
        Err(format!("--recovery {} does not rebuild {stage} with {recipe:?}", truth.settings.recovery))
    }
}

/// Who takes steps again takes those that were taken, all up to some iteration; of a copy that is not rounded they make what the stage
/// was then.
fn check_retraced(rebuilt: &Rebuilt, truth: &Truth) -> Result<(), String> {
    let Rebuilt { stage, recipe, state, .. } = rebuilt;
    let Some(retracing) = &recipe.retracing else { return Ok(()) };
    let was_taken = |retraced: &Retraced| {
        let record = truth.records.get(retraced.iteration.0 as usize);
        let part = record.and_then(|record| Some((record.learning_rate, record.stage(*stage)?)));
        part.is_some_and(|(learning_rate, part)| {
            let shares = part.shares.iter().map(|share| &share.microbatches);
            part.step
                && shares.eq(&retraced.shares)
                && (learning_rate, part.clip_factor) == (retraced.learning_rate, retraced.clip_factor)
        })
    };
    if let Some(other) = retracing.iterations.iter().find(|retraced| !was_taken(retraced)) {
        return Err(format!("{stage} takes a step again that it never took: {other:?}"));
    }
    let Some(last) = retracing.iterations.last() else {
        return Err(format!("{stage} is to take no step again"));
    };
    let is_exact = !recipe.format.rounds();
    if is_exact && !truth.served(*stage, last.iteration.next(), made::digest(*state)) {
        return Err(format!("{stage} takes its steps again, up to {last:?}, and is not what it was"));
    }
    Ok(())
}

/// Which lessons there are depends on who lives.
fn without_lessons(recipe: &Recipe) -> Recipe {
    let matching = recipe.matching.as_ref();
    let matching = matching.map(|matching| Matching { lessons: Vec::new(), ..matching.clone() });
    Recipe { matching, retracing: None, ..recipe.clone() }
}

/// Whether the strategy gives this recipe for any set of living stages: only the nearest ones matter.
fn is_configured(stage: StageId, recipe: &Recipe, truth: &Truth, norms: &[f64]) -> bool {
    let Ok(strategy) = skipstone_recovery::strategy(&truth.settings.recovery) else { return false };
    let lost = usize::from(stage.0);
    let below = (0..lost).map(Some).chain([None]);
    below.into_iter().any(|below| {
        (lost + 1..norms.len()).map(Some).chain([None]).any(|above| {
            let views: Vec<_> = norms
                .iter()
                .enumerate()
                .map(|(index, norm)| StageView {
                    living: Some(index) == below || Some(index) == above,
                    gradient_norm: *norm,
                    like_relay: index > 0 || truth.settings.origin_like_relay,
                })
                .collect();
            [None, Some(1)].into_iter().any(|copy_age| {
                let learning_rate_peak = truth.settings.learning_rate.peak;
                let view = LossView {
                    lost: stage,
                    stages: &views,
                    copy_age,
                    checkpoint_age: None,
                    learning_rate_peak,
                };
                strategy.on_loss(&view) == Decision::Rebuild(without_lessons(recipe))
            })
        })
    })
}
