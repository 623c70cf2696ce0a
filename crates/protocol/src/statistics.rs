//! Mean, deviation and longest of the last durations: what is usual, and what is not.

use std::collections::VecDeque;

/// The deviation is at least this part of the longest duration remembered: real durations have longer tails than the
/// normal distribution.
const LONGEST_PART: f64 = 0.25;

/// The last durations, in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Durations {
    capacity: usize,
    last_us: VecDeque<u64>,
    /// Of the durations and of their squares: integers, so that nothing is left of what drops out.
    sum: u128,
    squares: u128,
}

/// What is usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usual {
    pub(crate) mean_us: f64,
    /// At least the mean, and at least a quarter of the longest.
    pub(crate) deviation_us: f64,
}

impl Durations {
    /// None yet; so many will be remembered.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), last_us: VecDeque::new(), sum: 0, squares: 0 }
    }

    pub(crate) fn add(&mut self, duration_us: u64) {
        if self.last_us.len() == self.capacity
            && let Some(oldest) = self.last_us.pop_front().map(u128::from)
        {
            self.sum -= oldest;
            self.squares -= oldest * oldest;
        }
        self.last_us.push_back(duration_us);
        let duration = u128::from(duration_us);
        self.sum += duration;
        self.squares += duration * duration;
    }

    pub(crate) fn len(&self) -> usize {
        self.last_us.len()
    }

    /// What is usual, where an expectation counts as much as `weight` durations: its mean, and the mean of its squares.
    pub(crate) fn usual(&self, weight: f64, mean_us: f64, square: f64) -> Usual {
        let count = (self.last_us.len() as f64 + weight).max(1.0);
        let mean_us = (self.sum as f64 + weight * mean_us) / count;
        let square = (self.squares as f64 + weight * square) / count;
        let measured = (square - mean_us * mean_us).max(0.0).sqrt();
        let longest = self.last_us.iter().max().map_or(0.0, |longest| *longest as f64);
        Usual { mean_us, deviation_us: measured.max(mean_us).max(longest * LONGEST_PART) }
    }
}
