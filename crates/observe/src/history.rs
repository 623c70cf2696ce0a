//! A series of numbers by iteration in bounded memory.

/// The mean of a few neighbouring values of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The first iteration that it stands for.
    pub iteration: u64,
    /// The mean of its values.
    pub value: f64,
    /// How many values it stands for.
    pub count: u64,
}

/// A series of numbers by iteration. At [`History::CAPACITY`] points neighbours are merged in pairs, so that a
/// week of training takes no more memory than a minute; every value goes on counting in a mean.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    points: Vec<Point>,
    /// Values to a point; doubles with every merge.
    stride: u64,
}

/// The part of a series that may be all descent: one in so many.
const DESCENT: u64 = 20;
/// Series of fewer points are drawn whole.
const DRAWN_WHOLE: usize = 60;

impl History {
    /// The most points that are kept.
    pub const CAPACITY: usize = 2048;

    /// Adds a value. Values at this iteration or later are forgotten: the run has been rolled back. A value that
    /// is not finite is left out, and one beyond ±10⁹ is cut there: a loss that has diverged so far needs no digits.
    pub fn push(&mut self, iteration: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        let value = value.clamp(-1e9, 1e9);
        while self.points.last().is_some_and(|last| last.iteration >= iteration) {
            self.points.pop();
        }
        let stride = self.stride.max(1);
        match self.points.last_mut() {
            Some(last) if last.count < stride => {
                last.count += 1;
                last.value += (value - last.value) / last.count as f64;
            }
            _ => self.points.push(Point { iteration, value, count: 1 }),
        }
        if self.points.len() >= Self::CAPACITY {
            self.halve();
        }
    }

    /// The points in order of iteration.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The mean of about the last `values` values.
    pub fn recent(&self, values: u64) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0);
        for point in self.points.iter().rev() {
            sum += point.value * point.count as f64;
            count += point.count;
            if count >= values {
                break;
            }
        }
        (count > 0).then(|| sum / count as f64)
    }

    /// The points of a drawing that shows how the series goes on: without the first, steep descent where it would take
    /// most of the room. They begin with the last point above all that follow after the first twentieth.
    pub(crate) fn after_descent(&self) -> &[Point] {
        let last = self.points.last().map_or(0, |point| point.iteration);
        let start = self.points.partition_point(|point| point.iteration <= last / DESCENT);
        if self.points.len() < DRAWN_WHOLE {
            return &self.points;
        }
        let top = self.points[start..].iter().map(|point| point.value).fold(f64::MIN, f64::max);
        let first = self.points[..start].iter().rposition(|point| point.value > top).unwrap_or(0);
        &self.points[first..]
    }

    fn halve(&mut self) {
        self.stride = self.stride.max(1) * 2;
        self.points = self
            .points
            .chunks(2)
            .map(|pair| {
                let count = pair.iter().map(|point| point.count).sum::<u64>();
                let sum = pair.iter().map(|point| point.value * point.count as f64).sum::<f64>();
                Point { iteration: pair[0].iteration, value: sum / count as f64, count }
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_mean_is_kept() {
        let mut history = History::default();
        let n = 100_000_u64;
        (0..n).for_each(|t| history.push(t, t as f64));
        assert!(history.points().len() < History::CAPACITY);
        assert_eq!(history.points().iter().map(|point| point.count).sum::<u64>(), n);
        let mean = history.recent(n).unwrap();
        assert!((mean - (n - 1) as f64 / 2.0).abs() < 1e-3, "{mean}");
        assert!(history.points().windows(2).all(|pair| pair[0].iteration < pair[1].iteration));
        let last = history.recent(1).unwrap();
        assert!(last > (n - 200) as f64, "the end of the series is still resolved: {last}");
    }

    #[test]
    fn a_rollback_forgets_what_came_after() {
        let mut history = History::default();
        (0..10).for_each(|t| history.push(t, 5.0));
        history.push(4, 1.0);
        assert_eq!(history.points().len(), 5);
        assert_eq!(history.points()[4], Point { iteration: 4, value: 1.0, count: 1 });
        history.push(5, f64::NAN);
        assert_eq!(history.points().len(), 5);
    }

    #[test]
    fn the_first_descent_is_not_drawn_but_a_later_rise_is() {
        let mut history = History::default();
        (0..50).for_each(|t| history.push(t, 7.0 - t as f64 * 0.1));
        assert_eq!(history.after_descent().len(), 50, "short runs are drawn whole");
        (50..1000).for_each(|t| history.push(t, 2.0));
        let drawn = history.after_descent();
        assert_eq!(drawn[0].iteration, 49, "the last point above what follows it");
        (1000..1100).for_each(|t| history.push(t, 9.0));
        assert_eq!(history.after_descent()[0].iteration, 0, "nothing lies above");
        assert_eq!(History::default().after_descent(), []);
    }
}
