//! The learning rate as a pure function of the iteration, with the same bits on every machine.

use serde::{Deserialize, Serialize};

use crate::math::cos_sin_turns;

/// How the rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It stays.
    Constant,
    /// Half a cosine down to `final_fraction` of the peak.
    Cosine,
}

/// Linear warm-up, then [`Decay`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Highest rate.
    pub peak: f64,
    /// Iterations of warm-up; 0 for none.
    pub warmup: u64,
    /// Iteration at which the cosine has come down.
    pub total: u64,
    /// Rate at the end over the peak.
    pub final_fraction: f64,
    /// What follows the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// A constant rate from the start.
    pub fn constant(rate: f64) -> Self {
        Self { peak: rate, warmup: 0, total: 0, final_fraction: 1.0, decay: Decay::Constant }
    }

    /// The rate of `iteration` (0 is the first): peak·(i+1)/warmup while warming up, then constant or
    /// peak·(f + (1−f)·(1+cos πx)/2) with x the progress from the warm-up's end to `total`.
    ///
    /// Cosine by [`crate::math::cos_sin_turns`] (error below 4e-16), rounded to `f32` once.
    pub fn rate(&self, iteration: u64) -> f32 {
        let rate = if iteration < self.warmup {
            self.peak * (iteration + 1) as f64 / self.warmup as f64
        } else {
            match self.decay {
                Decay::Constant => self.peak,
                Decay::Cosine => {
                    let span = self.total.saturating_sub(self.warmup).max(1);
                    let progress = ((iteration - self.warmup) as f64 / span as f64).min(1.0);
                    let half = (1.0 + cos_sin_turns(progress * 0.5).0) * 0.5;
                    self.peak * (self.final_fraction + (1.0 - self.final_fraction) * half)
                }
            }
        };
        rate as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_comes_down() {
        let s = Schedule { peak: 1e-3, warmup: 10, total: 110, final_fraction: 0.1, decay: Decay::Cosine };
        assert_eq!(s.rate(0), 1e-4);
        assert_eq!(s.rate(9), 1e-3);
        assert_eq!(s.rate(10), 1e-3);
        assert!((s.rate(60) - 5.5e-4).abs() < 1e-9);
        assert_eq!(s.rate(110), 1e-4);
        assert_eq!(s.rate(u64::MAX), 1e-4);
        assert!((10..110).all(|i| s.rate(i + 1) <= s.rate(i)));
        for i in 0..100 {
            let want = 1e-3 * (0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * i as f64 / 100.0).cos()));
            assert!((f64::from(s.rate(10 + i)) - want).abs() < 1e-10);
        }
        assert_eq!(Schedule::constant(6e-4).rate(12_345), 6e-4);
    }
}
