//! What a simulated run took.

use serde::Serialize;
use skipstone_observe::Summary;

/// Seconds from one commit to the next.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct IterationTimes {
    /// Iterations that were measured: all but the first.
    pub count: u64,
    /// Their mean.
    pub mean_s: f64,
    /// Half of them took at most so long.
    pub median_s: f64,
    /// 95 % of them took at most so long.
    pub p95_s: f64,
    /// The longest.
    pub max_s: f64,
    /// What their plans expected in the mean, from the attempt's start until all replicas agree; none where links are not
    /// planned for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_s: Option<f64>,
    /// Seconds from an attempt's start until the last share was known to be there, in the mean.
    pub shares_s: f64,
}

impl IterationTimes {
    /// From the times of commits, ascending, in microseconds.
    pub fn of(commits_us: &[u64]) -> Self {
        let mut times: Vec<u64> = commits_us.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        times.sort_unstable();
        let Some(last) = times.len().checked_sub(1) else { return Self::default() };
        let at = |share: f64| times[(share * last as f64).round() as usize] as f64 / 1e6;
        Self {
            count: times.len() as u64,
            mean_s: times.iter().sum::<u64>() as f64 / times.len() as f64 / 1e6,
            median_s: at(0.5),
            p95_s: at(0.95),
            max_s: at(1.0),
            expected_s: None,
            shares_s: 0.0,
        }
    }

    /// The same with what the plans of all iterations but the first expected, and when their shares were there, in
    /// milliseconds.
    #[must_use]
    pub fn with_means(self, expected_ms: &[u64], shares_ms: &[u64]) -> Self {
        let mean_s = |all: &[u64]| {
            let rest = all.get(1..).filter(|rest| !rest.is_empty())?;
            Some(rest.iter().sum::<u64>() as f64 / rest.len() as f64 / 1e3)
        };
        Self { expected_s: mean_s(expected_ms), shares_s: mean_s(shares_ms).unwrap_or(0.0), ..self }
    }
}

/// What a simulated run took: the keys of `train`, and how it came to them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulated {
    /// As of a live run; losses mean nothing, and `wall_s` is virtual time.
    #[serde(flatten)]
    pub summary: Summary,
    /// Time per iteration.
    pub iteration: IterationTimes,
    /// Bytes of tensors that nodes sent each other.
    pub sent_bytes: u64,
    /// Events that happened in virtual time.
    pub events: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_between_commits() {
        let times = IterationTimes::of(&[5_000_000, 6_000_000, 8_000_000, 8_500_000]);
        assert_eq!((times.count, times.median_s, times.max_s), (3, 1.0, 2.0));
        assert!((times.mean_s - 3.5 / 3.0).abs() < 1e-9);
        assert_eq!(IterationTimes::of(&[7]), IterationTimes::default());
    }
}
