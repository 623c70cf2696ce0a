//! The strategies at hand. Those that make a stage from others refuse the origin, unless a copy of it is kept: another must be alive.

use crate::matching::{self, MatchingOptions};
use crate::neighbours::{Neighbour, nearest};
use crate::partners::Partners;
use crate::redundant::Redundant;
use crate::snapshots::Snapshots;
use crate::spec::{Spec, SpecError};
use crate::{Decision, LossView, Moments, Recipe, Source, StateFormat};
use skipstone_types::{EdgeSwaps, StageId};
use std::num::NonZeroU64;

/// A way to make a lost stage again.
pub trait Strategy: Send + Sync {
    /// The name given to `--recovery`, without options.
    fn name(&self) -> &'static str;

    /// What to do about the loss in `view`.
    fn on_loss(&self, view: &LossView<'_>) -> Decision;

    /// The name of the strategy whose way `recipe` makes the stage `lost` again: another one's, where what this one goes by was not
    /// at hand (no copy, nothing to learn from).
    fn made_by(&self, lost: StageId, recipe: &Recipe) -> &'static str {
        _ = (lost, recipe);
        self.name()
    }

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

    /// In what numbers copies travel and are kept: one that rounds gives a stage back a little otherwise than it was.
    fn copy_format(&self) -> StateFormat {
        StateFormat::F32
    }

    /// Iterations between two checkpoints of the whole model; none: it goes back to none.
    fn saves_every(&self) -> Option<NonZeroU64> {
        None
    }

    /// Iterations within which what a recipe has added to a stage's learning rate goes down to 1/e of it; none: it stays.
    fn rate_decay(&self) -> Option<NonZeroU64> {
        None
    }

    /// Committed iterations of which every node keeps boundary tensors for whoever makes a lost stage again; 0: none. The activations
    /// that it was sent and those that it made; or, where stages are retraced, the activations and the gradients that it made.
    fn iterations_kept(&self) -> u64 {
        0
    }

    /// Whether a stage that is restored from a copy takes the steps again that it had taken since.
    fn retraces(&self) -> bool {
        false
    }

    /// Whether it takes for granted what only a simulation has: a lost stage as it was when it was lost.
    fn is_oracle(&self) -> bool {
        false
    }

    /// Whether each node also keeps the next stage and computes its forward of every microbatch: a forward more for each, the next
    /// stage's state in memory, and each stage's gradient on the wire once more an iteration.
    fn runs_the_next_stage(&self) -> bool {
        false
    }
}

/// The names that [`strategy`] knows.
pub const STRATEGY_NAMES: [&str; 10] = [
    "checkfree",
    "checkfree+",
    "match",
    "uniform",
    "copy",
    "random",
    "neighbour-snapshot",
    "checkpoint",
    "redundant",
    "oracle",
];

/// What a run does where nothing is said: what the lab shows best on loss for at most a few per cent more bytes.
pub const DEFAULT_STRATEGY: &str = "neighbour-snapshot:every=auto,dtype=int8";

/// Added to a norm, so that stages without gradient still weigh something (the authors' code).
const NORM_FLOOR: f64 = 1e-4;

/// CheckFree's λ ← 1.1·λ.
const CHECKFREE_LEARNING_RATE_FACTOR: f64 = 1.1;

/// Iterations between checkpoints, where nothing is said (CheckFree's evaluation: 40 to 100).
const CHECKPOINT_ITERATIONS: u64 = 50;

/// Factors that a learning rate may be multiplied with.
const RATE_FACTORS: std::ops::RangeInclusive<f64> = 0.01..=10.0;

/// Most iterations that a raise of the learning rate may last.
const RATE_DECAY_ITERATIONS_MAX: u64 = 1_000_000;

/// The strategy that `text` describes: a name, and options after a colon, as in `checkfree:norm=l2-squared,moments=mix`.
///
/// | name | what a lost stage becomes | options (default first) |
/// |---|---|---|
/// | `checkfree` | CheckFree (arXiv 2506.15461): the average of its neighbours, weighted with the norms of their last gradients; at an edge the only neighbour's copy | `norm=l2`, `l2-squared`; `clip=none` or the norm that gradients are clipped to before they are compared (the authors' code: 1); `moments`; `rate_factor=1.1` |
/// | `checkfree+` | CheckFree+ (the same paper): the first and the last relay stage are copies of their swap partners, the second and the one before the last; the others, and those whose partner is lost too, are made as by `checkfree`. Odd microbatches visit partners swapped, so that they have learned each other's place ([`Strategy::edge_swaps`]). A neighbour keeps a copy of the origin, with embedding and head | `origin_every=1` iterations between copies of the origin, 0 for none; `partners=average`, or `copy`: partners are copies of the first and the last stage too, as in the authors' code; those of `checkfree` |
/// | `match` | as by `checkfree`; then it takes a few steps of Adam towards what it answered to the last microbatches, of which its neighbours on the paths have kept what it was sent and what came from it ([`Strategy::iterations_kept`]) | `steps=160` such steps, each over a sequence; `kept=4` iterations whose activations are kept; `rate=1.5`, the highest learning rate, as a multiple of the run's peak; those of `checkfree`, but `rate_factor=0.3`, `rate_decay=10` |
/// | `uniform` | the plain average of its neighbours | `moments`; `rate_factor=1` |
/// | `copy` | its nearest neighbour, the one below if there are two | `moments`; `rate_factor=1` |
/// | `random` | what it was at the start | |
/// | `neighbour-snapshot` | what it was when a node of another stage was last sent a copy of it, moments included; the origin too. Without such a copy, as `checkfree` | `every=25` iterations between copies, or `auto`: so many that copies are 4 % of a run's bytes, at least 8 and at most 100; `origin=yes`, `no`; `dtype=f32`, or `bf16` or `int8`: copies in fewer bytes, from which a stage comes back rounded; `retrace=0` iterations of which nodes keep what they made, so that a stage takes the steps again that it had taken since its copy, or `auto`: twice `every`, at most 16, and no more than nodes have memory for; those of `checkfree` |
/// | `checkpoint` | what it was at the last checkpoint, as every other stage too: the run goes back to it, and trains again what it had trained since. Before there is one, as `checkfree` | `every=50` iterations between checkpoints; those of `checkfree` |
/// | `redundant` | what it was: the stage before keeps it and runs its forward (Bamboo), as a simulation models it ([`Strategy::runs_the_next_stage`]); if that is lost too, as `checkfree` | |
/// | `oracle` | what it was when it was lost, as nothing but a simulation can have it ([`Strategy::is_oracle`]): the cost of the hole alone | |
///
/// `moments=zero` starts Adam's moments anew, `mix` mixes them as the weights; `rate_factor` multiplies the stage's learning rate
/// from then on, or, with `rate_decay=N`, for about N iterations: each takes an N-th of what is left of the raise. Across several lost neighbours the nearest living stages are used; under `checkfree` a stage counts for less the farther
/// it is.
///
/// # Errors
/// A name, option or value that is not known; the nearest that is known is named.
pub fn strategy(text: &str) -> Result<Box<dyn Strategy>, SpecError> {
    let mut spec = Spec::parse("--recovery", text)?;
    let name = spec.one_of(&STRATEGY_NAMES)?;
    if name == "oracle" {
        spec.finish()?;
        return Ok(Box::new(Oracle));
    }
    if name == "redundant" {
        spec.finish()?;
        return Ok(Box::new(Redundant));
    }
    let snapshots = match name {
        "neighbour-snapshot" => Some(Snapshots::of(&mut spec)?),
        "checkfree+" => Some(Snapshots::of_origin(&mut spec)?),
        _ => None,
    };
    let saves = (name == "checkpoint").then(|| spec.whole("every", CHECKPOINT_ITERATIONS, &(1..=1_000_000)));
    let saves_every = saves.transpose()?.and_then(NonZeroU64::new);
    let weighting = match name {
        "checkfree" | "checkfree+" | "match" | "neighbour-snapshot" | "checkpoint" => {
            let squared = spec.choice("norm", &["l2", "l2-squared"])? == "l2-squared";
            Weighting::GradientNorm { squared, clip: spec.number_or_none("clip", &(1e-9..=1e9))? }
        }
        "uniform" => Weighting::Uniform,
        "copy" => Weighting::Nearest,
        _ => Weighting::Fresh,
    };
    let matching = (name == "match").then(|| MatchingOptions::of(&mut spec)).transpose()?;
    let swapped = (name == "checkfree+").then(|| Partners::of(&mut spec)).transpose()?;
    let (moments, learning_rate_factor, rate_decay) = if weighting == Weighting::Fresh {
        (Moments::Zero, 1.0, None)
    } else {
        let mix = spec.choice("moments", &["zero", "mix"])? == "mix";
        let averages = matches!(weighting, Weighting::GradientNorm { .. });
        let (usual, usual_decay) = match averages {
            _ if matching.is_some() => (matching::RATE_FACTOR, Some(matching::RATE_DECAY_ITERATIONS)),
            true => (CHECKFREE_LEARNING_RATE_FACTOR, None),
            false => (1.0, None),
        };
        let factor = spec.number("rate_factor", usual, &RATE_FACTORS)?;
        let decay = spec.whole_or_none("rate_decay", usual_decay, &(1..=RATE_DECAY_ITERATIONS_MAX))?;
        (if mix { Moments::Mix } else { Moments::Zero }, factor, decay.and_then(NonZeroU64::new))
    };
    spec.finish()?;
    Ok(Box::new(Neighbours {
        name,
        weighting,
        swapped,
        moments,
        learning_rate_factor,
        rate_decay,
        snapshots,
        saves_every,
        matching,
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
        rate_decay: None,
        snapshots: None,
        saves_every: None,
        matching: None,
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
    rate_decay: Option<NonZeroU64>,
    snapshots: Option<Snapshots>,
    saves_every: Option<NonZeroU64>,
    matching: Option<MatchingOptions>,
}

impl Strategy for Neighbours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn on_loss(&self, view: &LossView<'_>) -> Decision {
        if view.copy_age.is_some() && self.copies_every(view.lost).is_some() {
            return Decision::Rebuild(Recipe::restore(view.lost, self.copy_format()));
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
            return Decision::Rebuild(Recipe {
                sources,
                moments,
                learning_rate_factor,
                format: StateFormat::F32,
                matching: None,
                retracing: None,
            });
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
        let matching = self.matching.map(|options| options.matching(view.learning_rate_peak));
        Decision::Rebuild(Recipe {
            sources,
            moments,
            learning_rate_factor,
            format: StateFormat::F32,
            matching,
            retracing: None,
        })
    }

    fn made_by(&self, lost: StageId, recipe: &Recipe) -> &'static str {
        match self.name {
            _ if recipe.sources.is_empty() => "random",
            "neighbour-snapshot" | "checkpoint" if !recipe.restores(lost) => "checkfree",
            "match" if recipe.lessons().is_empty() => "checkfree",
            name => name,
        }
    }

    fn edge_swaps(&self) -> EdgeSwaps {
        if self.swapped.is_some() { EdgeSwaps::Odd } else { EdgeSwaps::Off }
    }

    fn copies_every(&self, stage: StageId) -> Option<NonZeroU64> {
        self.snapshots.as_ref().and_then(|snapshots| snapshots.every(stage))
    }

    fn copy_format(&self) -> StateFormat {
        self.snapshots.as_ref().map_or(StateFormat::F32, Snapshots::format)
    }

    fn saves_every(&self) -> Option<NonZeroU64> {
        self.saves_every
    }

    fn iterations_kept(&self) -> u64 {
        let retraced = self.snapshots.as_ref().map_or(0, |snapshots| snapshots.retraced);
        self.matching.map_or(retraced, |options| options.kept)
    }

    fn retraces(&self) -> bool {
        self.snapshots.as_ref().is_some_and(|snapshots| snapshots.retraced > 0)
    }

    fn rate_decay(&self) -> Option<NonZeroU64> {
        self.rate_decay
    }
}

/// A lost stage as it was.
struct Oracle;

impl Strategy for Oracle {
    fn name(&self) -> &'static str {
        "oracle"
    }

    fn on_loss(&self, _view: &LossView<'_>) -> Decision {
        Decision::Return
    }

    fn is_oracle(&self) -> bool {
        true
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
    Recipe {
        sources: Vec::new(),
        moments: Moments::Zero,
        learning_rate_factor: 1.0,
        format: StateFormat::F32,
        matching: None,
        retracing: None,
    }
}

#[cfg(test)]
mod tests;
