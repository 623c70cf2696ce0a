//! Which stages are lost when: the same for every strategy.

use super::LabError;
use crate::config::{Kill, RunConfig, Target, When};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use skipstone_types::{Iteration, StageId};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// The chance that a relay stage is lost in an iteration. (CheckFree's evaluation states 0.0009, 0.002, 0.004, 0.01 for 5, 10, 16,
/// 33 % an hour with its 500M model.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LossRate {
    /// The same for each.
    Each(f64),
    /// One for each relay stage, in order.
    Stages(Vec<f64>),
}

impl LossRate {
    pub(super) fn check(&self, relay_stages: u16) -> Result<(), LabError> {
        let wrong = |why| Err(LabError::Field { field: "loss_rates", why });
        let rates = match self {
            Self::Each(rate) => std::slice::from_ref(rate),
            Self::Stages(rates) if rates.len() == usize::from(relay_stages) => rates,
            Self::Stages(rates) => {
                return wrong(format!("{} chances for {relay_stages} relay stages", rates.len()));
            }
        };
        match rates.iter().find(|rate| !(0.0..=0.5).contains(*rate)) {
            Some(rate) => wrong(format!("{rate} is not a chance from 0 to 0.5 per stage and iteration")),
            None => Ok(()),
        }
    }
}

/// What fails in an arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Failures {
    /// Nothing.
    None,
    /// Relay stages, each on its own.
    Stages(LossRate),
    /// Regions with all their nodes, each on its own: the chance in an iteration.
    Regions(f64),
    /// What a file says, as for `--churn`.
    Trace(PathBuf),
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("0"),
            Self::Stages(LossRate::Each(rate)) => rate.fmt(f),
            Self::Stages(LossRate::Stages(rates)) => {
                let rates: Vec<String> = rates.iter().map(f64::to_string).collect();
                f.write_str(&rates.join(" "))
            }
            Self::Regions(rate) => write!(f, "regions {rate}"),
            Self::Trace(path) => match path.file_name() {
                Some(name) => name.display().fmt(f),
                None => path.display().fmt(f),
            },
        }
    }
}

/// Something lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Lost {
    /// All nodes of a stage.
    Stage(StageId),
    /// All nodes of a region but the last origin.
    Region {
        /// Its number in the run's table.
        region: u16,
    },
}

impl Lost {
    pub(super) fn kill(self, iteration: Iteration) -> Kill {
        let target = match self {
            Self::Stage(stage) => Target::WholeStage(stage),
            Self::Region { region } => Target::Region(region),
        };
        Kill::new(When::Iteration(iteration), target)
    }
}

impl Failures {
    /// What is lost in a run, in order of time: each stage or region in each iteration but the first with its chance, on its own. What
    /// a trace says is left to it.
    ///
    /// A higher rate loses what a lower one loses, and more: rates are paired too.
    pub(super) fn losses(&self, seed: u64, config: &RunConfig) -> Result<Vec<(Iteration, Lost)>, LabError> {
        let stages = |rate: &dyn Fn(u16) -> f64| -> Vec<(Lost, f64)> {
            (1..=config.stages).map(|stage| (Lost::Stage(StageId(stage)), rate(stage))).collect()
        };
        let chances = match self {
            Self::None | Self::Trace(_) => return Ok(Vec::new()),
            Self::Stages(LossRate::Each(rate)) => stages(&|_| *rate),
            Self::Stages(LossRate::Stages(rates)) => {
                stages(&|stage| rates.get(usize::from(stage) - 1).copied().unwrap_or(0.0))
            }
            Self::Regions(rate) => {
                let Some(table) = config.wan_table()? else { return Ok(Vec::new()) };
                let regions: BTreeSet<u16> =
                    (0..config.nodes()).map(|place| table.region_of(place)).collect();
                regions.into_iter().map(|region| (Lost::Region { region }, *rate)).collect()
            }
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x6c6f_7373_6573);
        let mut losses = Vec::new();
        for iteration in 1..config.steps {
            for (lost, rate) in &chances {
                if random.random::<f64>() < *rate {
                    losses.push((Iteration(iteration), *lost));
                }
            }
        }
        Ok(losses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(seed: u64, rate: LossRate) -> Vec<(Iteration, Lost)> {
        let config = RunConfig { stages: 6, steps: 5000, ..RunConfig::default() };
        Failures::Stages(rate).losses(seed, &config).unwrap()
    }

    #[test]
    fn a_higher_rate_loses_what_a_lower_one_does_and_as_often_as_it_says() {
        let (low, high) = (losses(3, LossRate::Each(0.01)), losses(3, LossRate::Each(0.05)));
        assert!(low.iter().all(|loss| high.contains(loss)));
        assert!((250..=350).contains(&low.len()) && (1350..=1650).contains(&high.len()), "{}", low.len());
        assert!(losses(3, LossRate::Each(0.0)).is_empty());
        assert_ne!(losses(4, LossRate::Each(0.01)), low);
        // Stages with a chance of their own lose what they would lose if all had it.
        let one = losses(3, LossRate::Stages(vec![0.0, 0.05, 0.0, 0.0, 0.0, 0.0]));
        let of_high: Vec<_> = high.into_iter().filter(|(_, lost)| *lost == Lost::Stage(StageId(2))).collect();
        assert_eq!(one, of_high);
    }

    #[test]
    fn regions_are_lost_where_nodes_are() {
        let config = RunConfig {
            stages: 2,
            replicas: 2,
            steps: 1000,
            wan: Some("gcp12".to_owned()),
            ..RunConfig::default()
        };
        let losses = Failures::Regions(0.02).losses(1, &config).unwrap();
        let regions: BTreeSet<_> = losses
            .iter()
            .map(|(_, lost)| match lost {
                Lost::Region { region } => *region,
                Lost::Stage(_) => panic!("{lost:?}"),
            })
            .collect();
        assert_eq!(regions, (0..6).collect(), "six nodes in six of twelve regions");
        assert!((80..=160).contains(&losses.len()), "{}", losses.len());
    }
}
