//! Pauses between tries.

use crate::secret;
use std::time::Duration;

/// Doubling pauses, each drawn between half of its length and the whole.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), next: min }
    }

    /// Begins anew with the shortest pause.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        let fraction = f64::from(u32::from_le_bytes(secret::random())) / f64::from(u32::MAX);
        whole.mul_f64(0.5 + 0.5 * fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_limit_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(25), Duration::from_secs(1));
        let pauses: Vec<_> = (0..8).map(|_| backoff.pause().as_secs_f64()).collect();
        for (i, pause) in pauses.iter().enumerate() {
            let whole = (0.025 * f64::from(1 << i)).min(1.0);
            assert!((0.5 * whole..=whole).contains(pause), "{pauses:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(25));
    }
}
