//! The strategies at hand. All refuse the origin: another origin must be alive.

use crate::neighbours::{Neighbour, nearest};
use crate::{Decision, LossView, Moments, Recipe, Source};
use thiserror::Error;

/// A way to make a lost stage again.
pub trait Strategy: Send + Sync {
    /// The name given to `--recovery`.
    fn name(&self) -> &'static str;

    /// What to do about the loss in `view`.
    fn on_loss(&self, view: &LossView<'_>) -> Decision;
}

/// The names that [`strategy`] knows.
pub const STRATEGY_NAMES: [&str; 4] = ["checkfree", "uniform", "copy", "random"];

/// No strategy has this name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("--recovery {0} is not known; pass one of: checkfree, uniform, copy, random")]
pub struct UnknownStrategy(pub String);

/// The strategy called `name`.
///
/// # Errors
/// [`UnknownStrategy`] if there is none.
pub fn strategy(name: &str) -> Result<Box<dyn Strategy>, UnknownStrategy> {
    match name {
        "checkfree" => Ok(Box::new(CheckFree)),
        "uniform" => Ok(Box::new(Uniform)),
        "copy" => Ok(Box::new(Copy)),
        "random" => Ok(Box::new(Random)),
        other => Err(UnknownStrategy(other.to_owned())),
    }
}

/// CheckFree (arXiv 2506.15461): the average of the neighbours, weighted with the norms of their last gradients.
///
/// Across several lost neighbours the nearest living stages are used, and a stage counts for less the farther it
/// is. A stage with a neighbour on one side only (the first, the last) is that neighbour's copy, as in CheckFree+.
/// The moments start at zero, and the stage's learning rate is raised by a tenth.
struct CheckFree;

/// Added to a norm, so that stages without gradient still weigh something (the authors' code).
const NORM_FLOOR: f64 = 1e-4;

/// CheckFree's λ ← 1.1·λ.
const CHECKFREE_LEARNING_RATE_FACTOR: f64 = 1.1;

impl Strategy for CheckFree {
    fn name(&self) -> &'static str {
        "checkfree"
    }

    fn on_loss(&self, view: &LossView<'_>) -> Decision {
        rebuild(view, CHECKFREE_LEARNING_RATE_FACTOR, |neighbour| {
            (neighbour.gradient_norm + NORM_FLOOR) / f64::from(neighbour.distance)
        })
    }
}

/// The plain average of the nearest living neighbours.
struct Uniform;

impl Strategy for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn on_loss(&self, view: &LossView<'_>) -> Decision {
        rebuild(view, 1.0, |_| 1.0)
    }
}

/// A copy of the nearest living neighbour, the one below if there are two.
struct Copy;

impl Strategy for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn on_loss(&self, view: &LossView<'_>) -> Decision {
        let nearest_distance = nearest(view).iter().map(|neighbour| neighbour.distance).min().unwrap_or(0);
        let mut taken = false;
        rebuild(view, 1.0, |neighbour| {
            let take = neighbour.distance == nearest_distance && !taken;
            taken |= take;
            f64::from(u8::from(take))
        })
    }
}

/// Fresh weights from the run's seed.
struct Random;

impl Strategy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn on_loss(&self, view: &LossView<'_>) -> Decision {
        if view.lost.is_origin() { refuse_origin() } else { Decision::Rebuild(fresh()) }
    }
}

fn refuse_origin() -> Decision {
    Decision::Refuse(
        "the last origin is lost, and with it the embedding and the head; run with --replicas 2 or more"
            .to_owned(),
    )
}

fn fresh() -> Recipe {
    Recipe { sources: Vec::new(), moments: Moments::Zero, learning_rate_factor: 1.0 }
}

/// A recipe over the nearest living neighbours, `weight` normalised; fresh weights if no neighbour lives.
fn rebuild(view: &LossView<'_>, factor: f64, mut weight: impl FnMut(&Neighbour) -> f64) -> Decision {
    if view.lost.is_origin() {
        return refuse_origin();
    }
    let weighed: Vec<_> =
        nearest(view).into_iter().map(|neighbour| (neighbour.stage, weight(&neighbour))).collect();
    let total: f64 = weighed.iter().map(|(_, weight)| weight).sum();
    if weighed.is_empty() || !total.is_finite() || total <= 0.0 {
        return Decision::Rebuild(fresh());
    }
    let sources = weighed
        .into_iter()
        .filter(|(_, weight)| *weight > 0.0)
        .map(|(stage, weight)| Source { stage, coefficient: weight / total })
        .collect();
    Decision::Rebuild(Recipe { sources, moments: Moments::Zero, learning_rate_factor: factor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StageView;
    use skipstone_types::StageId;

    fn stages(living: &[bool], norms: &[f64]) -> Vec<StageView> {
        living
            .iter()
            .zip(norms)
            .enumerate()
            .map(|(index, (living, norm))| StageView {
                living: *living,
                gradient_norm: *norm,
                like_relay: index > 0,
            })
            .collect()
    }

    fn sources(name: &str, lost: u16, stages: &[StageView]) -> Vec<(u16, f64)> {
        match strategy(name).unwrap().on_loss(&LossView { lost: StageId(lost), stages }) {
            Decision::Rebuild(recipe) => {
                recipe.sources.iter().map(|source| (source.stage.0, source.coefficient)).collect()
            }
            Decision::Refuse(why) => panic!("refused: {why}"),
        }
    }

    #[test]
    fn checkfree_weighs_with_gradient_norms() {
        let stages = stages(&[true, true, false, true], &[9.0, 1.0, 5.0, 3.0]);
        let got = sources("checkfree", 2, &stages);
        assert_eq!((got[0].0, got[1].0), (1, 3));
        assert!((got[0].1 - 0.25).abs() < 1e-4 && (got[1].1 - 0.75).abs() < 1e-4, "{got:?}");
    }

    #[test]
    fn two_adjacent_losses_reach_across_and_weigh_with_distance() {
        let stages = stages(&[true, true, false, false, true], &[0.0, 1.0, 1.0, 1.0, 1.0]);
        let got = sources("checkfree", 2, &stages);
        assert_eq!((got[0].0, got[1].0), (1, 4));
        assert!((got[0].1 - 2.0 / 3.0).abs() < 1e-9, "{got:?}");
    }

    #[test]
    fn edges_are_copied_and_an_origin_with_layers_is_a_neighbour() {
        let mut stages = stages(&[true, false, true], &[1.0; 3]);
        assert_eq!(sources("checkfree", 1, &stages), [(2, 1.0)]);
        stages[0].like_relay = true;
        assert_eq!(sources("uniform", 1, &stages), [(0, 0.5), (2, 0.5)]);
        assert_eq!(sources("copy", 1, &stages), [(0, 1.0)]);
    }

    #[test]
    fn without_relays_weights_are_fresh_and_the_origin_is_refused() {
        let stages = stages(&[true, false, false], &[1.0; 3]);
        for name in STRATEGY_NAMES {
            assert!(sources(name, 1, &stages).is_empty());
            let view = LossView { lost: StageId(0), stages: &stages };
            assert!(matches!(strategy(name).unwrap().on_loss(&view), Decision::Refuse(_)));
        }
        assert!(strategy("hope").is_err());
    }
}
