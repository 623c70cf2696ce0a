//! The learning rate as a pure function of the iteration.
//!
//! Every node computes it for itself, so it uses only +, −, × and ÷ in a fixed order (no libm): the same bits on
//! every machine.

use crate::Iteration;
use serde::{Deserialize, Serialize};

/// What the rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateShape {
    /// Half a cosine from the peak down to the floor.
    #[default]
    Cosine,
    /// The peak, for ever.
    Constant,
}

/// Warm-up, then a shape.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LearningRate {
    /// The highest rate.
    pub peak: f64,
    /// The rate at the end of a cosine.
    pub floor: f64,
    /// Iterations of linear warm-up from peak / warmup.
    pub warmup_iterations: u64,
    /// Iterations until the floor is reached.
    pub total_iterations: u64,
    /// What happens after the warm-up.
    pub shape: RateShape,
}

impl LearningRate {
    /// The rate at iteration `t`.
    pub fn at(&self, t: Iteration) -> f64 {
        if t.0 < self.warmup_iterations {
            return self.peak * (t.0 + 1) as f64 / self.warmup_iterations as f64;
        }
        match self.shape {
            RateShape::Constant => self.peak,
            RateShape::Cosine => {
                let span = self.total_iterations.saturating_sub(self.warmup_iterations).max(1);
                let done = (t.0 - self.warmup_iterations).min(span) as f64 / span as f64;
                self.floor + (self.peak - self.floor) * 0.5 * (1.0 + cosine_of_half_turns(done))
            }
        }
    }
}

/// cos(π·x) for 0 ≤ x ≤ 1 by its Taylor series about a quarter turn; error below 1e-12.
fn cosine_of_half_turns(x: f64) -> f64 {
    // cos(πx) = sin(π(½ − x)), and |π(½ − x)| ≤ π/2, where nine odd terms suffice.
    let angle = std::f64::consts::PI * (0.5 - x);
    let square = angle * angle;
    let (mut term, mut sum) = (angle, angle);
    for n in 1..=9_u32 {
        term = -term * square / f64::from(2 * n * (2 * n + 1));
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_is_accurate() {
        for step in 0..=1000 {
            let x = f64::from(step) / 1000.0;
            assert!((cosine_of_half_turns(x) - (std::f64::consts::PI * x).cos()).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn warm_up_then_cosine_to_the_floor() {
        let rate = LearningRate {
            peak: 1e-3,
            floor: 1e-4,
            warmup_iterations: 10,
            total_iterations: 110,
            shape: RateShape::Cosine,
        };
        assert!((rate.at(Iteration(0)) - 1e-4).abs() < 1e-15);
        assert!((rate.at(Iteration(9)) - 1e-3).abs() < 1e-15);
        assert!((rate.at(Iteration(60)) - 5.5e-4).abs() < 1e-12);
        assert!((rate.at(Iteration(500)) - 1e-4).abs() < 1e-12);
    }
}
