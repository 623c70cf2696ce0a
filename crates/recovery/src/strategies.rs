//! The strategies at hand. All refuse the origin, unless a copy of it is kept: another origin must be alive.

use crate::neighbours::{Neighbour, nearest};
use crate::partners::Partners;
use crate::snapshots::Snapshots;
use crate::spec::{Spec, SpecError};
use crate::{Decision, LossView, Moments, Recipe, Source};
use skipstone_types::{EdgeSwaps, StageId};
use std::num::NonZeroU64;

/// A way to make a lost stage again.
pub trait Strategy: Send + Sync {
    /// The name given to `--recovery`, without options.
    fn name(&self) -> &'static str;

    /// What to do about the loss in `view`.
    fn on_loss(&self, view: &LossView<'_>) -> Decision;

    /// The swaps of stages, in calm times, that make the strategy what it is.
    fn edge_swaps(&self) -> EdgeSwaps {
        EdgeSwaps::Off
    }

    /// Iterations between two copies of a stage's state (weights and moments) that a node of another stage keeps; none: none are
    /// kept. Each copy is the stage's state on the wire once, and once in the keeper's memory.
    fn copies_every(&self, stage: StageId) -> Option<NonZeroU64> {
        _ = stage;
        None
    }

    /// Iterations between two checkpoints of the whole model; none: it goes back to none.
    fn saves_every(&self) -> Option<NonZeroU64> {
        None
    }
}

/// The names that [`strategy`] knows.
pub const STRATEGY_NAMES: [&str; 7] =
    ["checkfree", "checkfree+", "uniform", "copy", "random", "neighbour-snapshot", "checkpoint"];

/// What a run does where nothing is said: what the lab shows best on loss for at most a few per cent more bytes.
pub const DEFAULT_STRATEGY: &str = "neighbour-snapshot";

/// Added to a norm, so that stages without gradient still weigh something (the authors' code).
const NORM_FLOOR: f64 = 1e-4;

/// CheckFree's λ ← 1.1·λ.
const CHECKFREE_LEARNING_RATE_FACTOR: f64 = 1.1;

/// Iterations between checkpoints, where nothing is said (CheckFree's evaluation: 40 to 100).
const CHECKPOINT_ITERATIONS: u64 = 50;

/// Factors that a learning rate may be multiplied with.
const RATE_FACTORS: std::ops::RangeInclusive<f64> = 0.01..=10.0;

/// The strategy that `text` describes: a name, and options after a colon, as in `checkfree:norm=l2-squared,moments=mix`.
///
/// | name | what a lost stage becomes | options (default first) |
/// |---|---|---|
/// | `checkfree` | CheckFree (arXiv 2506.15461): the average of its neighbours, weighted with the norms of their last gradients; at an edge the only neighbour's copy | `norm=l2`, `l2-squared`; `clip=none` or the norm that gradients are clipped to before they are compared (the authors' code: 1); `moments`; `rate_factor=1.1` |
/// | `checkfree+` | CheckFree+ (the same paper): the first and the last relay stage are copies of their swap partners, the second and the one before the last; the others, and those whose partner is lost too, are made as by `checkfree`. Odd microbatches visit partners swapped, so that they have learned each other's place ([`Strategy::edge_swaps`]). A neighbour keeps a copy of the origin, with embedding and head | `origin_every=1` iterations between copies of the origin, 0 for none; `partners=average`, or `copy`: partners are copies of the first and the last stage too, as in the authors' code; those of `checkfree` |
/// | `uniform` | the plain average of its neighbours | `moments`; `rate_factor=1` |
/// | `copy` | its nearest neighbour, the one below if there are two | `moments`; `rate_factor=1` |
/// | `random` | what it was at the start | |
/// | `neighbour-snapshot` | what it was when a node of another stage was last sent a copy of it, moments included; the origin too. Without such a copy, as `checkfree` | `every=25` iterations between copies; `origin=yes`, `no`; those of `checkfree` |
/// | `checkpoint` | what it was at the last checkpoint, as every other stage too: the run goes back to it, and trains again what it had trained since. Before there is one, as `checkfree` | `every=50` iterations between checkpoints; those of `checkfree` |
///
/// `moments=zero` starts Adam's moments anew, `mix` mixes them as the weights; `rate_factor` multiplies the stage's learning rate
/// from then on. Across several lost neighbours the nearest living stages are used; under `checkfree` a stage counts for less the farther
/// it is.
///
/// # Errors
/// A name, option or value that is not known; the nearest that is known is named.
pub fn strategy(text: &str) -> Result<Box<dyn Strategy>, SpecError> {
    let mut spec = Spec::parse(text)?;
    let name = spec.one_of(&STRATEGY_NAMES)?;
    let snapshots = match name {
        "neighbour-snapshot" => Some(Snapshots::of(&mut spec)?),
        "checkfree+" => Some(Snapshots::of_origin(&mut spec)?),
        _ => None,
    };
    let saves = (name == "checkpoint").then(|| spec.whole("every", CHECKPOINT_ITERATIONS, &(1..=1_000_000)));
    let saves_every = saves.transpose()?.and_then(NonZeroU64::new);
    let weighting = match name {
        "checkfree" | "checkfree+" | "neighbour-snapshot" | "checkpoint" => {
            let squared = spec.choice("norm", &["l2", "l2-squared"])? == "l2-squared";
            Weighting::GradientNorm { squared, clip: spec.number_or_none("clip", &(1e-9..=1e9))? }
        }
        "uniform" => Weighting::Uniform,
        "copy" => Weighting::Nearest,
        _ => Weighting::Fresh,
    };
    let swapped = (name == "checkfree+").then(|| Partners::of(&mut spec)).transpose()?;
    let (moments, learning_rate_factor) = if weighting == Weighting::Fresh {
        (Moments::Zero, 1.0)
    } else {
        let mix = spec.choice("moments", &["zero", "mix"])? == "mix";
        let averages = matches!(weighting, Weighting::GradientNorm { .. });
        let usual = if averages { CHECKFREE_LEARNING_RATE_FACTOR } else { 1.0 };
        let factor = spec.number("rate_factor", usual, &RATE_FACTORS)?;
        (if mix { Moments::Mix } else { Moments::Zero }, factor)
    };
    spec.finish()?;
    Ok(Box::new(Neighbours {
        name,
        weighting,
        swapped,
        moments,
        learning_rate_factor,
        snapshots,
        saves_every,
    }))
}

/// What [`strategy`] gives for `checkfree`, which can't fail.
pub fn checkfree() -> Box<dyn Strategy> {
    Box::new(Neighbours {
        name: "checkfree",
        weighting: Weighting::GradientNorm { squared: false, clip: None },
        swapped: None,
        moments: Moments::Zero,
        learning_rate_factor: CHECKFREE_LEARNING_RATE_FACTOR,
        snapshots: None,
        saves_every: None,
    })
}

/// How much each neighbour counts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Weighting {
    /// As the norm of its last gradient, by its distance.
    GradientNorm { squared: bool, clip: Option<f64> },
    /// All the same.
    Uniform,
    /// The nearest alone.
    Nearest,
    /// None: fresh weights.
    Fresh,
}

/// A lost stage from its living neighbours.
struct Neighbours {
    name: &'static str,
    weighting: Weighting,
    /// Whether edges are swapped and copied, and what their partners become.
    swapped: Option<Partners>,
    moments: Moments,
    learning_rate_factor: f64,
    snapshots: Option<Snapshots>,
    saves_every: Option<NonZeroU64>,
}

impl Strategy for Neighbours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn on_loss(&self, view: &LossView<'_>) -> Decision {
        if view.copy_age.is_some() && self.copies_every(view.lost).is_some() {
            return Decision::Rebuild(Recipe::restore(view.lost));
        }
        if view.checkpoint_age.is_some() && self.saves_every.is_some() {
            return Decision::Rollback;
        }
        if view.lost.is_origin() {
            return refuse_origin();
        }
        let (moments, learning_rate_factor) = (self.moments, self.learning_rate_factor);
        if let Some(stage) = self.swapped.and_then(|partners| partners.copied(view)) {
            let sources = vec![Source { stage, coefficient: 1.0 }];
            return Decision::Rebuild(Recipe { sources, moments, learning_rate_factor });
        }
        let neighbours = nearest(view);
        let weights = self.weights(&neighbours);
        let total: f64 = weights.iter().sum();
        if weights.is_empty() || !total.is_finite() || total <= 0.0 {
            return Decision::Rebuild(fresh());
        }
        let sources = neighbours
            .iter()
            .zip(weights)
            .filter(|(_, weight)| *weight > 0.0)
            .map(|(neighbour, weight)| Source { stage: neighbour.stage, coefficient: weight / total })
            .collect();
        Decision::Rebuild(Recipe { sources, moments, learning_rate_factor })
    }

    fn edge_swaps(&self) -> EdgeSwaps {
        if self.swapped.is_some() { EdgeSwaps::Odd } else { EdgeSwaps::Off }
    }

    fn copies_every(&self, stage: StageId) -> Option<NonZeroU64> {
        self.snapshots.as_ref().and_then(|snapshots| snapshots.every(stage))
    }

    fn saves_every(&self) -> Option<NonZeroU64> {
        self.saves_every
    }
}

impl Neighbours {
    fn weights(&self, neighbours: &[Neighbour]) -> Vec<f64> {
        match self.weighting {
            Weighting::GradientNorm { squared, clip } => neighbours
                .iter()
                .map(|neighbour| {
                    let norm = clip.map_or(neighbour.gradient_norm, |max| neighbour.gradient_norm.min(max));
                    let norm = norm + NORM_FLOOR;
                    (if squared { norm * norm } else { norm }) / f64::from(neighbour.distance)
                })
                .collect(),
            Weighting::Uniform => vec![1.0; neighbours.len()],
            Weighting::Nearest => {
                let nearest = neighbours.iter().map(|neighbour| neighbour.distance).min();
                let taken = neighbours.iter().position(|neighbour| Some(neighbour.distance) == nearest);
                (0..neighbours.len()).map(|index| f64::from(u8::from(Some(index) == taken))).collect()
            }
            Weighting::Fresh => Vec::new(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StageView;

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
        match strategy(name).unwrap().on_loss(&LossView {
            lost: StageId(lost),
            stages,
            copy_age: None,
            checkpoint_age: None,
        }) {
            Decision::Rebuild(recipe) => {
                recipe.sources.iter().map(|source| (source.stage.0, source.coefficient)).collect()
            }
            other => panic!("{other:?}"),
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
    fn checkfree_plus_copies_edges_from_their_swap_partners() {
        let all = |lost: usize, relays: usize| {
            let living: Vec<bool> = (0..=relays).map(|stage| stage != lost).collect();
            let norms: Vec<f64> = (0..=relays).map(|stage| 1.0 + stage as f64).collect();
            let mut stages = stages(&living, &norms);
            stages[0].like_relay = true;
            stages
        };
        for relays in 2..=8 {
            let last = relays as u16;
            for options in ["", ":partners=average", ":partners=copy", ":norm=l2-squared,clip=1"] {
                let name = format!("checkfree+{options}");
                assert_eq!(strategy(&name).unwrap().edge_swaps(), EdgeSwaps::Odd);
                assert_eq!(sources(&name, 1, &all(1, relays)), [(2, 1.0)], "{relays} relays");
                assert_eq!(sources(&name, last, &all(relays, relays)), [(last - 1, 1.0)]);
            }
        }
        for lost in [2, 3, 4, 5] {
            let plain = sources("checkfree", lost, &all(lost.into(), 6));
            assert_eq!(plain.len(), 2);
            assert_eq!(sources("checkfree+", lost, &all(lost.into(), 6)), plain, "inner ones are averages");
        }
        let copied = |lost: usize| sources("checkfree+:partners=copy", lost as u16, &all(lost, 6));
        assert_eq!((copied(2), copied(5)), (vec![(1, 1.0)], vec![(6, 1.0)]));
        assert_eq!((copied(3).len(), copied(4).len()), (2, 2));
        assert_eq!(sources("checkfree+:partners=copy", 2, &all(2, 3)), [(1, 1.0)]);
        assert_eq!(sources("checkfree+", 1, &all(1, 1)), [(0, 1.0)], "there is no partner");
        assert_eq!(strategy("checkfree").unwrap().edge_swaps(), EdgeSwaps::Off);
    }

    #[test]
    fn an_edge_without_its_partner_is_made_as_by_checkfree() {
        let stages = stages(&[true, false, false, true, true], &[1.0; 5]);
        assert_eq!(sources("checkfree+", 1, &stages), [(3, 1.0)]);
        assert_eq!(sources("checkfree+:partners=copy", 2, &stages), sources("checkfree", 2, &stages));
    }

    #[test]
    fn without_relays_weights_are_fresh_and_the_origin_is_refused() {
        let stages = stages(&[true, false, false], &[1.0; 3]);
        for name in STRATEGY_NAMES {
            assert!(sources(name, 1, &stages).is_empty());
            let view = LossView { lost: StageId(0), stages: &stages, copy_age: None, checkpoint_age: None };
            assert!(matches!(strategy(name).unwrap().on_loss(&view), Decision::Refuse(_)));
        }
        assert!(strategy("hope").is_err());
    }

    fn recipe(text: &str, norms: &[f64]) -> Recipe {
        let stages = stages(&[true, true, false, true], norms);
        match strategy(text).unwrap().on_loss(&LossView {
            lost: StageId(2),
            stages: &stages,
            copy_age: None,
            checkpoint_age: None,
        }) {
            Decision::Rebuild(recipe) => recipe,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_say_how_norms_count_and_what_becomes_of_moments_and_rate() {
        let norms = [9.0, 1.0, 5.0, 3.0];
        let first = |text: &str| recipe(text, &norms).sources[0].coefficient;
        assert!((first("checkfree:norm=l2-squared") - 0.1).abs() < 1e-3);
        assert!((first("checkfree:clip=1") - 0.5).abs() < 1e-9, "both are clipped to 1");
        assert!((first("checkfree:clip=2,norm=l2") - 1.0 / 3.0).abs() < 1e-4);
        let usual = recipe("checkfree", &norms);
        assert_eq!((usual.moments, usual.learning_rate_factor), (Moments::Zero, 1.1));
        let mixed = recipe("copy:moments=mix,rate_factor=1.5", &norms);
        assert_eq!((mixed.moments, mixed.learning_rate_factor), (Moments::Mix, 1.5));
        assert_eq!(mixed.sources.len(), 1);
    }

    #[test]
    fn a_copy_of_a_stage_is_taken_as_it_is() {
        let stages = stages(&[true, true, false, true], &[1.0; 4]);
        let decide = |text: &str, lost, copy_age| {
            let strategy = strategy(text).unwrap();
            strategy.on_loss(&LossView {
                lost: StageId(lost),
                stages: &stages,
                copy_age,
                checkpoint_age: None,
            })
        };
        let restored = |lost| Decision::Rebuild(Recipe::restore(StageId(lost)));
        assert_eq!(decide("neighbour-snapshot", 2, Some(3)), restored(2));
        assert_eq!(decide("neighbour-snapshot", 0, Some(3)), restored(0));
        assert_eq!(decide("neighbour-snapshot", 2, None), decide("checkfree", 2, None));
        assert!(matches!(decide("neighbour-snapshot", 0, None), Decision::Refuse(_)));
        assert!(matches!(decide("neighbour-snapshot:origin=no", 0, Some(3)), Decision::Refuse(_)));
        assert_eq!(decide("checkfree", 2, Some(3)), decide("checkfree", 2, None));
        let every =
            |text: &str, stage| strategy(text).unwrap().copies_every(StageId(stage)).map(NonZeroU64::get);
        assert_eq!(every(DEFAULT_STRATEGY, 0), Some(25));
        assert_eq!(every("neighbour-snapshot:every=1,origin=no", 1), Some(1));
        assert_eq!(every("neighbour-snapshot:every=1,origin=no", 0), None);
        assert_eq!(every("checkfree", 1), None);
        assert_eq!((every("checkfree+", 0), every("checkfree+", 1)), (Some(1), None));
        assert_eq!(every("checkfree+:origin_every=0", 0), None);
    }

    #[test]
    fn with_a_checkpoint_the_run_goes_back_whatever_is_lost() {
        let stages = stages(&[false, true, false, true], &[1.0; 4]);
        let decide = |text: &str, lost, checkpoint_age| {
            let view = LossView { lost: StageId(lost), stages: &stages, copy_age: None, checkpoint_age };
            strategy(text).unwrap().on_loss(&view)
        };
        for lost in [0, 2] {
            assert_eq!(decide("checkpoint:every=7", lost, Some(3)), Decision::Rollback);
            assert_eq!(decide("checkpoint", lost, None), decide("checkfree", lost, None));
            assert_eq!(decide("checkfree", lost, Some(3)), decide("checkfree", lost, None));
        }
        let every = |text: &str| strategy(text).unwrap().saves_every().map(NonZeroU64::get);
        assert_eq!((every("checkpoint"), every("checkpoint:every=7")), (Some(50), Some(7)));
        assert_eq!(every("neighbour-snapshot"), None);
    }

    #[test]
    fn checkfree_is_what_its_name_gives() {
        let stages = stages(&[true, true, false, true, true], &[9.0, 1.0, 5.0, 3.0, 2.0]);
        let parsed = strategy("checkfree").unwrap();
        for lost in 0..5 {
            let (copy_age, checkpoint_age) = (Some(1), Some(2));
            let view = LossView { lost: StageId(lost), stages: &stages, copy_age, checkpoint_age };
            assert_eq!(checkfree().on_loss(&view), parsed.on_loss(&view));
        }
        assert_eq!(checkfree().name(), parsed.name());
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_nearest_that_is() {
        for (text, says) in [
            ("checkfee", "checkfree"),
            ("checkfree:nrom=l2", "norm"),
            ("checkfree:norm=l3", "l2"),
            ("checkfree:moments=mixed", "mix"),
            ("uniform:norm=l2", "no option norm"),
            ("checkfree:partners=copy", "no option partners"),
            ("checkfree+:partners=both", "average or copy"),
            ("random:moments=mix", "no option moments"),
            ("copy:rate_factor=nan", "0.01"),
            ("copy:rate_factor=11", "10"),
            ("copy:rate_factor", "rate_factor="),
            ("copy:moments=mix,moments=zero", "twice"),
            ("checkfree:clip=0", "none"),
            ("neighbour-snapshot:every=0", "whole number"),
            ("neighbour-snapshot:every=1.5", "whole number"),
            ("neighbour-snapshot:origin=maybe", "yes"),
            ("", "checkfree"),
        ] {
            let why = strategy(text).map(|_| ()).unwrap_err().to_string();
            assert!(why.contains(says), "{text}: {why}");
        }
    }
}
