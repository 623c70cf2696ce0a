//! Which stages are lost when: the same for every strategy.

use super::LabError;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use skipstone_types::{Iteration, StageId};

/// The chance that a relay stage is lost in an iteration. (CheckFree's evaluation states 0.0009, 0.002, 0.004, 0.01 for 5, 10, 16,
/// 33 % an hour with its 500M model.)
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LossRate(pub f64);

impl LossRate {
    pub(super) fn check(self) -> Result<(), LabError> {
        if (0.0..=0.5).contains(&self.0) {
            return Ok(());
        }
        let why = format!("{} is not a chance from 0 to 0.5 per stage and iteration", self.0);
        Err(LabError::Field { field: "loss_rates", why })
    }
}

/// The stages lost in a run: each relay stage in each iteration but the first with this chance, on its own.
///
/// A higher rate loses what a lower one loses, and more: rates are paired too.
pub(super) fn losses(seed: u64, rate: f64, relay_stages: u16, iterations: u64) -> Vec<(Iteration, StageId)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x6c6f_7373_6573);
    let mut losses = Vec::new();
    for iteration in 1..iterations {
        for stage in 1..=relay_stages {
            if random.random::<f64>() < rate {
                losses.push((Iteration(iteration), StageId(stage)));
            }
        }
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_rate_loses_what_a_lower_one_does_and_as_often_as_it_says() {
        let (low, high) = (losses(3, 0.01, 6, 5000), losses(3, 0.05, 6, 5000));
        assert!(low.iter().all(|loss| high.contains(loss)));
        assert!((250..=350).contains(&low.len()) && (1350..=1650).contains(&high.len()), "{}", low.len());
        assert!(losses(3, 0.0, 6, 5000).is_empty());
        assert_ne!(losses(4, 0.01, 6, 5000), low);
    }
}
