//! What the arms of an experiment say together.

use super::experiment::NO_LOSSES;
use super::{ArmResult, Point};
use serde::Serialize;

/// The target is the loss that the arm without losses has after this share of its iterations.
const TARGET_SHARE: f64 = 0.8;

/// A mean over seeds, and half the width of its 95 % confidence interval (Student's t); no interval of a single seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// The mean.
    pub mean: f64,
    /// Half the interval's width.
    pub half_width: Option<f64>,
}

impl Figure {
    /// Of values, one a seed; none of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let half_width = (count > 1).then(|| {
            let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
            let freedom = count - 1;
            student_t(freedom) * (squares / freedom as f64 / count as f64).sqrt()
        });
        Some(Self { mean, half_width })
    }
}

/// The 97.5 % quantile of Student's t distribution; of more degrees of freedom than are listed, the largest listed, which is
/// on the safe side.
fn student_t(freedom: usize) -> f64 {
    const QUANTILES: [f64; 20] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    ];
    QUANTILES[freedom.clamp(1, QUANTILES.len()) - 1]
}

/// All arms that differ in their seed only.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// How lost stages came back.
    pub strategy: String,
    /// What failed: the chance that a relay stage is lost in an iteration, or what else, in words.
    pub failures: String,
    /// Share of the stages that a microbatch left out.
    pub skip: f64,
    /// Which paths microbatches took.
    pub paths: String,
    /// Arms.
    pub seeds: usize,
    /// Stages lost.
    pub losses: Figure,
    /// The last validation's loss.
    pub final_loss: Option<Figure>,
    /// The same less that of the arm without losses, seed by seed.
    pub final_loss_more: Option<Figure>,
    /// The same less that of the arm with the experiment's first kind of paths, seed by seed; none for that kind.
    pub more_than_first_paths: Option<Figure>,
    /// Iterations to the target over those of the arm without losses, seed by seed; only if all reach it.
    pub iterations_ratio: Option<Figure>,
    /// Virtual hours to the target; only if all reach it.
    pub hours_to_target: Option<Figure>,
    /// Arms that never came down to the target.
    pub short_of_target: usize,
    /// Virtual seconds from commit to commit.
    pub iteration_s: Figure,
    /// Bytes of tensors that nodes sent, per iteration.
    pub sent_bytes_per_iteration: Figure,
    /// Virtual seconds that a lost stage was away.
    pub away_s: Option<Figure>,
    /// The last validation's loss over that which training on such paths without skips and failures has after the same virtual time,
    /// seed by seed; only if it has trained so long.
    pub over_unskipped: Option<Figure>,
    /// With some of the relay stages left out of the trained model.
    pub left_out: Vec<LeftOut>,
    /// Validation loss by iteration: the mean over seeds, and the least and the largest.
    pub curve: Vec<CurvePoint>,
}

/// A trained model without some of its relay stages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOut {
    /// The share left out.
    pub skip: f64,
    /// Its perplexity.
    pub perplexity: Figure,
    /// That over the whole model's.
    pub ratio: Figure,
}

/// A point of a group's curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurvePoint {
    /// Iterations done.
    pub iteration: u64,
    /// Virtual hours, mean over seeds.
    pub hours: f64,
    /// Mean over seeds, in nats per token.
    pub mean: f64,
    /// The least.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

/// Groups of results, in the order in which they come.
pub fn figures(results: &[ArmResult]) -> Vec<Group> {
    let mut kinds: Vec<(&str, String, f64, &str)> = Vec::new();
    for result in results {
        let kind = (result.strategy.as_str(), result.what_failed(), result.skip, result.paths());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
        .into_iter()
        .filter_map(|(strategy, failures, skip, paths)| {
            let is_one = |result: &&ArmResult| {
                result.strategy == strategy
                    && result.what_failed() == failures
                    && result.skip == skip
                    && result.paths() == paths
            };
            group(&results.iter().filter(is_one).collect::<Vec<_>>(), results)
        })
        .collect()
}

/// The arm without losses of the same seed, skip ratio and paths.
fn calm<'a>(arm: &ArmResult, all: &'a [ArmResult]) -> Option<&'a ArmResult> {
    let mut calm = all.iter().filter(|other| other.strategy == NO_LOSSES && other.paths() == arm.paths());
    calm.find(|other| other.seed == arm.seed && other.skip == arm.skip)
}

/// The arm that differs in its paths only, which are of the first kind; none if the arm's are.
fn with_first_paths<'a>(arm: &ArmResult, all: &'a [ArmResult]) -> Option<&'a ArmResult> {
    let first = all.first().map(ArmResult::paths).filter(|first| *first != arm.paths())?;
    all.iter().find(|other| {
        other.paths() == first
            && other.strategy == arm.strategy
            && other.what_failed() == arm.what_failed()
            && other.skip == arm.skip
            && other.seed == arm.seed
    })
}

fn target(calm: &ArmResult) -> Option<f64> {
    calm.loss_after(TARGET_SHARE * calm.points.last()?.iteration as f64)
}

fn group(arms: &[&ArmResult], all: &[ArmResult]) -> Option<Group> {
    let first = arms.first()?;
    let each = |value: &dyn Fn(&ArmResult) -> Option<f64>| -> Vec<f64> {
        arms.iter().filter_map(|arm| value(arm)).collect()
    };
    let mean = |value: &dyn Fn(&ArmResult) -> f64| Figure::of(&each(&|arm| Some(value(arm))));
    let reached = |arm: &ArmResult| calm(arm, all).and_then(target).and_then(|target| arm.reached(target));
    let ratio = |arm: &ArmResult| {
        let calm = calm(arm, all)?;
        Some(reached(arm)?.0 / calm.reached(target(calm)?)?.0)
    };
    let (ratios, hours) = (each(&ratio), each(&|arm| Some(reached(arm)?.1 / 3600.0)));
    let if_all = |values: &[f64]| Figure::of(values).filter(|_| values.len() == arms.len());
    let away: Vec<f64> = arms
        .iter()
        .flat_map(|arm| arm.lost.iter().filter_map(|lost| Some(lost.back_s? - lost.at_s)))
        .collect();
    Some(Group {
        strategy: first.strategy.clone(),
        failures: first.what_failed(),
        skip: first.skip,
        paths: first.paths().to_owned(),
        seeds: arms.len(),
        losses: mean(&|arm| arm.lost.len() as f64)?,
        final_loss: Figure::of(&each(&ArmResult::final_loss)),
        final_loss_more: Figure::of(&each(&|arm| Some(arm.final_loss()? - calm(arm, all)?.final_loss()?))),
        more_than_first_paths: Figure::of(&each(&|arm| {
            Some(arm.final_loss()? - with_first_paths(arm, all)?.final_loss()?)
        })),
        iterations_ratio: if_all(&ratios),
        hours_to_target: if_all(&hours),
        short_of_target: arms.len() - ratios.len(),
        iteration_s: mean(&|arm| arm.iteration_s)?,
        sent_bytes_per_iteration: mean(&|arm| arm.sent_bytes as f64 / arm.iterations.max(1) as f64)?,
        away_s: Figure::of(&away),
        over_unskipped: if_all(&each(&|arm| over_unskipped(arm, all))),
        left_out: left_out(arms),
        curve: curve(arms),
    })
}

impl Group {
    /// Whether nothing failed.
    pub fn is_calm(&self) -> bool {
        self.strategy == NO_LOSSES
    }
}

fn over_unskipped(arm: &ArmResult, all: &[ArmResult]) -> Option<f64> {
    let unskipped = all
        .iter()
        .filter(|other| other.strategy == NO_LOSSES && other.paths() == arm.paths())
        .find(|other| other.seed == arm.seed && other.skip == 0.0)?;
    let at_s = arm.points.last()?.at_s;
    // What it would have learned after its end nobody knows.
    (at_s <= unskipped.points.last()?.at_s).then_some(())?;
    Some(arm.final_loss()? / unskipped.loss_at(at_s)?)
}

fn left_out(arms: &[&ArmResult]) -> Vec<LeftOut> {
    let skips = arms.first().into_iter().flat_map(|arm| arm.left_out.iter().map(|result| result.skip));
    skips
        .filter_map(|skip| {
            let results =
                arms.iter().flat_map(|arm| arm.left_out.iter().filter(|result| result.skip == skip));
            let (perplexities, ratios): (Vec<f64>, Vec<f64>) =
                results.map(|result| (result.perplexity, result.ratio)).unzip();
            Some(LeftOut { skip, perplexity: Figure::of(&perplexities)?, ratio: Figure::of(&ratios)? })
        })
        .collect()
}

fn curve(arms: &[&ArmResult]) -> Vec<CurvePoint> {
    let longest = arms.iter().max_by_key(|arm| arm.points.len());
    let iterations = longest.into_iter().flat_map(|arm| arm.points.iter().map(|point| point.iteration));
    iterations
        .filter_map(|iteration| {
            let points: Vec<&Point> = arms
                .iter()
                .filter_map(|arm| arm.points.iter().find(|point| point.iteration == iteration))
                .collect();
            let mean = |value: fn(&Point) -> f64| {
                points.iter().map(|point| value(point)).sum::<f64>() / points.len() as f64
            };
            let losses = points.iter().map(|point| point.validation_loss);
            Some(CurvePoint {
                iteration,
                hours: mean(|point| point.at_s) / 3600.0,
                mean: mean(|point| point.validation_loss),
                low: losses.clone().reduce(f64::min)?,
                high: losses.reduce(f64::max)?,
            })
        })
        .collect()
}
