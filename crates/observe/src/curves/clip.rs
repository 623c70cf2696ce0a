//! The part of a curve that a chart shows.

use super::chart::CurvePoint;
use super::drawing::Place;

/// What is larger than this can't be told from a run that has blown up: it is not drawn.
const LARGEST: f64 = 1e12;

fn is_drawable(value: f64) -> bool {
    value.abs() <= LARGEST
}

/// Points without a gap between them: where a value is none, or too large, a curve is interrupted.
pub(super) fn stretches(points: &[CurvePoint]) -> impl Iterator<Item = &[CurvePoint]> {
    let stretches = points.split(|point| !is_drawable(point.x) || !is_drawable(point.y));
    stretches.filter(|stretch| !stretch.is_empty())
}

/// The least and the largest that a point stands for: itself, where these are not known.
pub(super) fn range(point: &CurvePoint) -> (f64, f64) {
    let or_itself = |value: f64| if is_drawable(value) { value } else { point.y };
    (or_itself(point.low).min(point.y), or_itself(point.high).max(point.y))
}

/// Where the line between two points, one below and one above, passes `high`.
fn crossing((from_x, from_y): Place, (to_x, to_y): Place, high: f64) -> Place {
    (from_x + (high - from_y) / (to_y - from_y) * (to_x - from_x), high)
}

/// The parts of a line that are not above `high`.
pub(super) fn line_below(line: &[Place], high: f64) -> Vec<Vec<Place>> {
    let mut parts = Vec::new();
    let mut part: Vec<Place> = Vec::new();
    for (index, to) in line.iter().enumerate() {
        let from = index.checked_sub(1).map(|before| line[before]);
        if let Some(from) = from.filter(|from| (from.1 <= high) != (to.1 <= high)) {
            part.push(crossing(from, *to, high));
        }
        if to.1 <= high {
            part.push(*to);
        } else if !part.is_empty() {
            parts.push(std::mem::take(&mut part));
        }
    }
    parts.extend(Some(part).filter(|part| !part.is_empty()));
    parts
}

/// The part of an area that is not above `high`; lines along the edge of nothing may hold it together.
pub(super) fn area_below(outline: &[Place], high: f64) -> Vec<Place> {
    let Some(mut from) = outline.last().copied() else { return Vec::new() };
    let mut part = Vec::new();
    for to in outline {
        if (from.1 <= high) != (to.1 <= high) {
            part.push(crossing(from, *to, high));
        }
        if to.1 <= high {
            part.push(*to);
        }
        from = *to;
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_cut_off_where_it_leaves_and_where_it_comes_back() {
        let line = [(0.0, 0.0), (2.0, 4.0), (4.0, 0.0), (5.0, 2.0)];
        let parts = [vec![(0.0, 0.0), (1.0, 2.0)], vec![(3.0, 2.0), (4.0, 0.0), (5.0, 2.0)]];
        assert_eq!(line_below(&line, 2.0), parts);
        assert_eq!(line_below(&line, -1.0), [[]; 0]);
        assert_eq!(line_below(&line[2..3], 2.0), [[(4.0, 0.0)]]);
        assert_eq!(area_below(&line[..3], 2.0), [(0.0, 0.0), (1.0, 2.0), (3.0, 2.0), (4.0, 0.0)]);
        assert_eq!(area_below(&line, 4.0).len(), 4);
        assert_eq!(area_below(&[], 4.0), []);
    }

    #[test]
    fn a_curve_is_interrupted_where_there_is_no_number() {
        let point = |y: f64| CurvePoint { x: 0.0, y, low: f64::NAN, high: f64::INFINITY };
        let points = [1.0, f64::NAN, 2.0, 3.0, f64::INFINITY, 1e13].map(point);
        let lengths: Vec<usize> = stretches(&points).map(<[_]>::len).collect();
        assert_eq!(lengths, [1, 2]);
        assert_eq!(range(&points[0]), (1.0, 1.0));
    }
}
