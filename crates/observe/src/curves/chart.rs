//! Curves over one axis, with the range that each stands for.

use crate::report::svg::{Svg, escape, ticks};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 92.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 36.0;

pub(super) const STYLE: &str = include_str!("style.css");

/// Colours that there are.
const COLOURS: usize = 10;

/// What is above this share of a chart's values is the descent from the first weights: it is cut off.
const KEPT_SHARE: f64 = 0.85;

/// A point of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// Where.
    pub x: f64,
    /// How high.
    pub y: f64,
    /// The least that it stands for.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

/// A curve.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Its points, by `x`.
    pub points: Vec<CurvePoint>,
}

/// Curves over one axis.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CurveChart {
    /// What it shows.
    pub title: String,
    /// What the axis counts.
    pub x_name: String,
    /// The curves; the first is drawn in ink.
    pub curves: Vec<Curve>,
}

/// The part of the plane that is drawn.
struct Frame {
    x_high: f64,
    low: f64,
    high: f64,
}

impl Frame {
    fn x(&self, x: f64) -> f64 {
        LEFT + (x / self.x_high).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        TOP + ((self.high - y) / (self.high - self.low)).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }
}

impl CurveChart {
    /// A drawing that is a file of its own.
    pub fn file(&self) -> String {
        let mut svg = Svg::file(WIDTH, HEIGHT, &self.title, STYLE);
        self.draw_into(&mut svg);
        svg.finish()
    }

    pub(super) fn draw(&self) -> String {
        let mut svg = Svg::new(WIDTH, HEIGHT, &self.title);
        self.draw_into(&mut svg);
        svg.finish()
    }

    pub(super) fn legend(&self) -> String {
        let entries: String = self
            .curves
            .iter()
            .enumerate()
            .map(|(index, curve)| {
                let name = escape(&curve.name);
                let colour = index % COLOURS;
                format!("<span><b class=\"swatch\" style=\"background: var(--c{colour})\"></b>{name}</span>")
            })
            .collect();
        format!("<p class=\"legend\">{entries}</p>\n")
    }

    fn frame(&self) -> Option<Frame> {
        let points =
            || self.curves.iter().flat_map(|curve| &curve.points).filter(|point| point.y.is_finite());
        let mut values: Vec<f64> = points().map(|point| point.y).collect();
        values.sort_by(f64::total_cmp);
        let low = *values.first()?;
        let high = values[((values.len() - 1) as f64 * KEPT_SHARE) as usize];
        let room = ((high - low) * 0.08).max(0.005 + high.abs() * 1e-6);
        let x_high = points().map(|point| point.x).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        Some(Frame { x_high, low: low - room, high: high + room })
    }

    fn draw_into(&self, svg: &mut Svg) {
        let Some(frame) = self.frame() else {
            svg.text("middle", (WIDTH / 2.0, HEIGHT / 2.0), "nothing to show yet");
            return;
        };
        for tick in ticks(frame.low, frame.high, 6) {
            let y = frame.y(tick);
            svg.line("grid", (LEFT, y), (WIDTH - RIGHT, y));
            svg.text("end", (LEFT - 8.0, y + 4.0), &format!("{tick:.2}"));
        }
        for tick in ticks(0.0, frame.x_high, 8) {
            let text = format!("{tick:.4}");
            let text = text.trim_end_matches('0').trim_end_matches('.');
            svg.text("middle", (frame.x(tick), HEIGHT - 12.0), text);
        }
        svg.text("start", (WIDTH - RIGHT + 24.0, HEIGHT - 12.0), &self.x_name);
        for (index, curve) in self.curves.iter().enumerate() {
            let colour = index % COLOURS;
            let visible: Vec<&CurvePoint> =
                curve.points.iter().filter(|point| point.y <= frame.high).collect();
            if visible.iter().any(|point| point.low < point.high) {
                let edge = |point: &&CurvePoint, y: f64| format!("{:.1},{:.1}", frame.x(point.x), frame.y(y));
                let above = visible.iter().map(|point| edge(point, point.high));
                let below = visible.iter().rev().map(|point| edge(point, point.low));
                let around: Vec<String> = above.chain(below).collect();
                svg.raw(&format!("<polygon class=\"band b{colour}\" points=\"{}\"/>", around.join(" ")));
            }
            let points = visible.iter().map(|point| (frame.x(point.x), frame.y(point.y)));
            svg.polyline(&format!("curve c{colour}"), points);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> CurveChart {
        let point = |x: f64, y: f64| CurvePoint { x, y, low: y - 0.1, high: y + 0.1 };
        let curve = |name: &str, floor: f64| Curve {
            name: name.to_owned(),
            points: (0..20).map(|n| point(f64::from(n), floor + 3.0 / f64::from(n + 1))).collect(),
        };
        CurveChart {
            title: "a < b".to_owned(),
            x_name: "iteration".to_owned(),
            curves: vec![curve("one", 1.0), curve("<two>", 1.5)],
        }
    }

    #[test]
    fn every_curve_has_a_line_a_band_and_a_name() {
        let svg = chart().file();
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<polygon").count()), (2, 2));
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"), "{}", &svg[svg.len() - 40..]);
        assert!(chart().legend().contains("&lt;two&gt;"));
    }

    #[test]
    fn numbers_stay_in_the_frame() {
        let mut chart = chart();
        chart.curves[0].points.push(CurvePoint { x: 20.0, y: f64::NAN, low: f64::NAN, high: f64::NAN });
        let svg = chart.file();
        assert!(!svg.contains("NaN"), "{svg}");
        assert!(CurveChart::default().file().contains("nothing to show"));
    }
}
