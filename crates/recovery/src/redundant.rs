//! Bamboo's redundant computation.

use crate::strategies::{Strategy, checkfree};
use crate::{Decision, LossView, Recipe};
use skipstone_types::StageId;

/// Each node also keeps the next stage, which it steps with that stage's gradients, and computes its forward of every microbatch
/// (Bamboo, NSDI 2023, section 4; the last stage keeps the first). So a stage is lost with its predecessor only; then it is
/// made as by `checkfree`.
///
/// What a node would compute and send for it is modelled by a simulation ([`Strategy::runs_the_next_stage`]), and nothing else
/// can have it: no node keeps a second stage.
pub(crate) struct Redundant;

impl Strategy for Redundant {
    fn name(&self) -> &'static str {
        "redundant"
    }

    fn on_loss(&self, view: &LossView<'_>) -> Decision {
        let stages = view.stages.len().max(1);
        let keeper = (usize::from(view.lost.0) + stages - 1) % stages;
        let is_kept = view.stages.get(keeper).is_some_and(|stage| stage.living);
        if is_kept { Decision::Return } else { checkfree().on_loss(view) }
    }

    fn made_by(&self, lost: StageId, recipe: &Recipe) -> &'static str {
        if recipe.restores(lost) { self.name() } else { checkfree().name() }
    }

    fn is_oracle(&self) -> bool {
        true
    }

    fn runs_the_next_stage(&self) -> bool {
        true
    }
}
