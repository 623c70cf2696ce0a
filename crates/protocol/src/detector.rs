//! Who has fallen silent: the phi accrual failure detector.
//!
//! Hayashibara, Défago, Yared and Katayama, "The φ Accrual Failure Detector" (SRDS 2004), §IV: φ is how surprising a
//! silence is, given how regularly heartbeats came before. φ = −log₁₀ P(a heartbeat takes longer than this), so that
//! φ = 3 is wrong once in a thousand. Nothing has to be tuned: a node whose heartbeats come slowly or irregularly is
//! given more time, of itself.
//!
//! Three things keep a loaded machine from being taken for a dead node. Where heartbeats are very regular, the
//! deviation is still taken to be at least the mean. It is also at least a quarter of the longest interval in memory,
//! because real intervals have longer tails than the normal distribution that φ is computed with. And silence is
//! counted in the time of a [`RunningClock`]: while the detector itself stood still, nobody was silent.

use crate::statistics::{Durations, Usual};

/// Heartbeats remembered for each node: at ten a second, the last 100 s.
const WINDOW: usize = 1000;

/// The expectation that a node starts with counts as much as so many heartbeats.
const PRIOR_WEIGHT: f64 = 10.0;

/// The deviation that a node starts with, in expected intervals.
const PRIOR_DEVIATIONS: f64 = 2.0;

/// How surprising a silence is, and the numbers behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suspicion {
    /// −log₁₀ of the probability that a heartbeat of a living node takes longer.
    pub phi: f64,
    /// The silence, in microseconds.
    pub silence_us: u64,
    /// The mean interval between heartbeats, in microseconds.
    pub interval_us: f64,
    /// Its deviation, in microseconds, as φ was computed with.
    pub deviation_us: f64,
}

impl Suspicion {
    /// From this φ on, a node counts as lost. With a steady heartbeat that is after 8 intervals.
    pub const LOST: f64 = 12.0;

    /// Whether the node counts as lost.
    pub fn is_lost(&self) -> bool {
        self.phi >= Self::LOST
    }
}

/// The detector of one node. Times are microseconds of a [`RunningClock`].
#[derive(Debug, Clone)]
pub struct PhiAccrual {
    expected_us: f64,
    last_us: u64,
    intervals: Durations,
}

impl PhiAccrual {
    /// For a node that was heard now, and whose heartbeats should come at this interval.
    pub fn new(expected_us: u64, now_us: u64) -> Self {
        Self { expected_us: expected_us.max(1) as f64, last_us: now_us, intervals: Durations::new(WINDOW) }
    }

    /// A heartbeat came.
    pub fn heard(&mut self, now_us: u64) {
        self.intervals.add(self.silence_us(now_us));
        self.last_us = self.last_us.max(now_us);
    }

    /// How long ago the last heartbeat came, in microseconds.
    pub fn silence_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.last_us)
    }

    /// How surprising a silence is.
    pub fn suspicion(&self, silence_us: u64) -> Suspicion {
        let square = self.expected_us * self.expected_us * (1.0 + PRIOR_DEVIATIONS * PRIOR_DEVIATIONS);
        let Usual { mean_us: interval_us, deviation_us } =
            self.intervals.usual(PRIOR_WEIGHT, self.expected_us, square);
        let phi = minus_log10_tail((silence_us as f64 - interval_us) / deviation_us);
        Suspicion { phi, silence_us, interval_us, deviation_us }
    }
}

/// −log₁₀ of the normal distribution's upper tail, to 0.3 % of the tail: Börjesson and Sundberg, "Simple
/// approximations of the error function Q(x)" (IEEE Trans. Comm. 27, 1979), eq. 13. In logarithms, so that no silence
/// is too long for it.
fn minus_log10_tail(z: f64) -> f64 {
    let distance = z.abs();
    let spread = (0.661 * distance + 0.339 * (distance * distance + 5.51).sqrt())
        * (2.0 * std::f64::consts::PI).sqrt();
    let minus_ln = distance * distance / 2.0 + spread.ln();
    if z >= 0.0 {
        minus_ln / std::f64::consts::LN_10
    } else {
        -(-(-minus_ln).exp()).ln_1p() / std::f64::consts::LN_10
    }
}

/// The time during which the detector was running, in microseconds: between two readings at most one stride passes.
///
/// A detector that is stopped, swapped out, or busy with its disk hears nobody. When it goes on, what came meanwhile
/// may still wait to be read: without this it would take everyone for dead.
#[derive(Debug, Clone, Copy)]
pub struct RunningClock {
    stride_us: u64,
    /// The time of the last reading.
    read_at: u64,
    running_us: u64,
}

impl RunningClock {
    /// A clock that is read at least once a stride while all is well.
    pub fn new(stride_us: u64, now_us: u64) -> Self {
        Self { stride_us, read_at: now_us, running_us: 0 }
    }

    /// The running time at this time of a monotonic clock.
    pub fn read(&mut self, now_us: u64) -> u64 {
        let passed_us = now_us.saturating_sub(self.read_at);
        self.read_at = self.read_at.max(now_us);
        self.running_us += passed_us.min(self.stride_us);
        self.running_us
    }
}
