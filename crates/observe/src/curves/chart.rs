//! Curves over one axis, with the range that each stands for.

use super::clip::{area_below, line_below, range, stretches};
use super::drawing::{Anchor, Drawing, Mark, Place};
use super::font;
use super::painter::{PictureError, png};
use super::palette::{Look, Role, style_of_file};
use crate::report::svg::{escape, ticks};

/// All lengths are in units of a drawing.
const WIDTH: f64 = 1000.0;
/// Between the edge of the paper and what is on it.
const MARGIN: f64 = 20.0;
const PLOT_HEIGHT: f64 = 340.0;
/// Room for half of the last number below the axis.
const RIGHT: f64 = 30.0;
/// From the baseline of a line of text to that of the next.
const LINE: f64 = 19.0;
/// Of a line in the legend.
const SWATCH: f64 = 24.0;
/// Between a mark and what is said of it.
const GAP: f64 = 8.0;
/// Between columns of the legend.
const COLUMN_GAP: f64 = 28.0;
/// How much wider than the painter's letters a browser's may be: it takes those that its system has.
const BROWSER_WIDTHS: f64 = 1.18;
/// More names than these are counted, and not shown.
const NAMES_MAX: usize = 120;
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
    /// What is measured, in which unit.
    pub y_name: String,
    /// What has to be known to read it.
    pub note: String,
    /// The curves; the first is drawn in ink. There are ten colours and three dashes.
    pub curves: Vec<Curve>,
}

/// The part of the plane that is drawn, and where.
struct Plot {
    x_high: f64,
    low: f64,
    high: f64,
    left: f64,
    top: f64,
}

impl Plot {
    const RIGHT: f64 = WIDTH - RIGHT;

    fn bottom(&self) -> f64 {
        self.top + PLOT_HEIGHT
    }

    fn x(&self, x: f64) -> f64 {
        self.left + (x / self.x_high).clamp(0.0, 1.0) * (Self::RIGHT - self.left)
    }

    fn y(&self, y: f64) -> f64 {
        self.top + ((self.high - y) / (self.high - self.low)).clamp(0.0, 1.0) * PLOT_HEIGHT
    }

    fn places(&self, points: &[Place]) -> Vec<Place> {
        points.iter().map(|(x, y)| (self.x(*x), self.y(*y))).collect()
    }
}

impl CurveChart {
    /// A drawing in a file of its own, with title, legend and note, in light and in dark.
    pub fn file(&self) -> String {
        self.whole().svg_file(&style_of_file())
    }

    /// The same drawing as a PNG file, in light, of 2000 pixels from left to right. Equal charts give equal bytes.
    ///
    /// # Errors
    /// A picture that does not fit in memory.
    pub fn png(&self) -> Result<Vec<u8>, PictureError> {
        png(&self.whole())
    }

    /// The drawing for a page that has title, legend and note.
    pub(super) fn draw(&self) -> String {
        let mut drawing = self.paper();
        drawing.height = self.draw_plot(&mut drawing, 0.0);
        drawing.svg()
    }

    pub(super) fn legend(&self) -> String {
        let entries: String = self
            .curves
            .iter()
            .enumerate()
            .map(|(index, curve)| {
                let (name, look) = (escape(&curve.name), Look(index));
                let (colour, dash) = (look.colour(), look.dash_class());
                format!("<span><b class=\"swatch {dash}\" style=\"border-color: var(--c{colour})\"></b>{name}</span>")
            })
            .collect();
        format!("<p class=\"legend\">{entries}</p>\n")
    }

    fn paper(&self) -> Drawing {
        Drawing { width: WIDTH, height: 0.0, label: self.title.clone(), marks: Vec::new() }
    }

    fn whole(&self) -> Drawing {
        let mut drawing = self.paper();
        let full = WIDTH - 2.0 * MARGIN;
        let title = fit(&self.title, Role::Title, full);
        drawing.text(Role::Title, Anchor::Start, (MARGIN, 36.0), title);
        let mut y = self.draw_plot(&mut drawing, 50.0);
        y = self.draw_legend(&mut drawing, y + LINE);
        if !self.note.is_empty() {
            y += LINE + GAP;
            drawing.text(Role::Label, Anchor::Start, (MARGIN, y), fit(&self.note, Role::Label, full));
        }
        drawing.height = (y + MARGIN).ceil();
        drawing
    }

    /// Adds the names of the curves, from the baseline `y` on; gives the last one.
    fn draw_legend(&self, drawing: &mut Drawing, y: f64) -> f64 {
        let full = WIDTH - 2.0 * MARGIN;
        let before_name = SWATCH + GAP;
        let names: Vec<String> = self
            .curves
            .iter()
            .take(NAMES_MAX)
            .map(|curve| fit(&curve.name, Role::Name, full - before_name))
            .collect();
        let widest = names.iter().map(|name| width(name, Role::Name)).fold(0.0, f64::max);
        let column_width = before_name + widest + COLUMN_GAP;
        let columns = (((full + COLUMN_GAP) / column_width) as usize).max(1);
        // Columns are read from top to bottom, and as short as may be.
        let rows = names.len().div_ceil(columns).max(1);
        for (index, name) in names.into_iter().enumerate() {
            let x = MARGIN + (index / rows) as f64 * column_width;
            let y = y + (index % rows) as f64 * LINE;
            let points = vec![(x + 1.0, y - 4.0), (x + SWATCH - 1.0, y - 4.0)];
            drawing.marks.push(Mark::Curve {
                look: Look(index),
                points,
                name: self.curves[index].name.clone(),
            });
            drawing.text(Role::Name, Anchor::Start, (x + before_name, y), name);
        }
        let last = y + (rows - 1) as f64 * LINE;
        match self.curves.len().saturating_sub(NAMES_MAX) {
            0 => last,
            more => {
                let text = format!("and {more} more");
                drawing.text(Role::Label, Anchor::Start, (MARGIN, last + LINE), text);
                last + LINE
            }
        }
    }

    /// Adds axes and curves below `top`; gives where it ends.
    fn draw_plot(&self, drawing: &mut Drawing, top: f64) -> f64 {
        let y_name = fit(&self.y_name, Role::Label, WIDTH - 2.0 * MARGIN);
        drawing.text(Role::Label, Anchor::Start, (MARGIN, top + 14.0), y_name);
        let top = top + 28.0;
        let Some((x_high, low, high)) = self.ranges() else {
            let middle = (WIDTH / 2.0, top + PLOT_HEIGHT / 2.0);
            drawing.text(Role::Label, Anchor::Middle, middle, "nothing to show yet");
            return top + PLOT_HEIGHT;
        };
        let rows = numbers(&ticks(low, high, 6));
        let widest = rows.iter().map(|(_, text)| width(text, Role::Label)).fold(0.0, f64::max);
        let plot = Plot { x_high, low, high, left: (MARGIN + widest + GAP).ceil(), top };
        let bottom = plot.bottom();
        for (tick, text) in rows {
            let y = crisp(plot.y(tick));
            drawing.marks.push(Mark::Rule { from: (plot.left, y), to: (Plot::RIGHT, y) });
            drawing.text(Role::Label, Anchor::End, (plot.left - GAP, y + 4.0), text);
        }
        for (tick, text) in numbers(&ticks(0.0, x_high, 8)) {
            let x = crisp(plot.x(tick));
            drawing.marks.push(Mark::Rule { from: (x, bottom), to: (x, bottom + 5.0) });
            drawing.text(Role::Label, Anchor::Middle, (x, bottom + LINE), text);
        }
        let axis = crisp(bottom);
        drawing.marks.push(Mark::Rule { from: (plot.left, axis), to: (Plot::RIGHT, axis) });
        let below = bottom + 2.0 * LINE;
        let x_name = fit(&self.x_name, Role::Label, Plot::RIGHT - plot.left);
        drawing.text(Role::Label, Anchor::Middle, (f64::midpoint(plot.left, Plot::RIGHT), below), x_name);
        self.draw_curves(drawing, &plot);
        below + GAP
    }

    /// Adds the curves, over all bands.
    fn draw_curves(&self, drawing: &mut Drawing, plot: &Plot) {
        let curves = || self.curves.iter().enumerate().map(|(index, curve)| (Look(index), curve));
        for (look, curve) in curves() {
            for stretch in stretches(&curve.points).filter(|stretch| stretch.iter().any(is_wide)) {
                let above = stretch.iter().map(|point| (point.x, range(point).1));
                let below = stretch.iter().rev().map(|point| (point.x, range(point).0));
                let outline = plot.places(&area_below(&above.chain(below).collect::<Vec<_>>(), plot.high));
                if !outline.is_empty() {
                    drawing.marks.push(Mark::Band { look, outline });
                }
            }
        }
        for (look, curve) in curves() {
            for stretch in stretches(&curve.points) {
                let line: Vec<Place> = stretch.iter().map(|point| (point.x, point.y)).collect();
                for part in line_below(&line, plot.high) {
                    let mut points = plot.places(&part);
                    if let [(x, y)] = points[..] {
                        points.push((x - 0.1, y)); // a dot, for the pen is round
                    }
                    drawing.marks.push(Mark::Curve { look, points, name: curve.name.clone() });
                }
            }
        }
    }

    /// The largest x, and the least and the largest y that are shown, if there is anything.
    fn ranges(&self) -> Option<(f64, f64, f64)> {
        let points = || self.curves.iter().flat_map(|curve| stretches(&curve.points)).flatten();
        let mut values: Vec<f64> = points().map(|point| point.y).collect();
        values.sort_by(f64::total_cmp);
        let kept = *values.get((values.len().saturating_sub(1) as f64 * KEPT_SHARE) as usize)?;
        // No curve is cut off as a whole.
        let least = |curve: &Curve| {
            let values = stretches(&curve.points).flatten().map(|point| point.y);
            values.fold(f64::INFINITY, f64::min)
        };
        let high = self.curves.iter().map(least).filter(|least| least.is_finite()).fold(kept, f64::max);
        let low = points().map(|point| range(point).0).fold(high, f64::min);
        let room = ((high - low) * 0.08).max(0.005 + high.abs() * 1e-6);
        let x_high = points().map(|point| point.x).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        Some((x_high, low - room, high + room))
    }
}

fn is_wide(point: &CurvePoint) -> bool {
    let (low, high) = range(point);
    low < high
}

/// Round numbers with their words: as many digits as tell one from the next.
fn numbers(ticks: &[f64]) -> Vec<(f64, String)> {
    let step = if let [first, second, ..] = ticks { second - first } else { 1.0 };
    let digits = (0..8).find(|digits| {
        let scaled = step * 10_f64.powi(*digits);
        (scaled - scaled.round()).abs() < 1e-6 * scaled
    });
    let word = |tick: f64| match digits {
        Some(digits) if tick.abs() < 1e7 => format!("{:.*}", digits as usize, tick + 0.0),
        _ => format!("{tick:.2e}"),
    };
    ticks.iter().map(|tick| (*tick, word(*tick))).collect()
}

/// Where a line of width 1 is as sharp as can be.
fn crisp(at: f64) -> f64 {
    at.floor() + 0.5
}

/// How wide a text may become, whoever draws it.
fn width(text: &str, role: Role) -> f64 {
    font::width(text, role.size()) * BROWSER_WIDTHS
}

/// As much of a text as there is room for.
fn fit(text: &str, role: Role, room: f64) -> String {
    if width(text, role) <= room {
        return text.to_owned();
    }
    let mut kept = String::from("…");
    for c in text.chars() {
        let end = kept.len() - '…'.len_utf8();
        kept.insert(end, c);
        if width(&kept, role) > room {
            kept.remove(end);
            break;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curves::palette::LIGHT;

    const NAME: &str = "neighbour-snapshot:every=10,dtype=int8";

    fn curve(name: &str, floor: f64) -> Curve {
        let point = |x: f64, y: f64| CurvePoint { x, y, low: y - 0.02, high: y + 0.02 };
        let points = (0..20).map(|n| point(f64::from(n), floor + 3.0 / f64::from(n + 1).powi(2)));
        Curve { name: name.to_owned(), points: points.collect() }
    }

    fn chart(curves: usize) -> CurveChart {
        let names = (0..curves).map(|n| match n {
            0 => "<two>".to_owned(),
            n => format!("{NAME},n={n}"),
        });
        CurveChart {
            title: "a < b".to_owned(),
            x_name: "iterations".to_owned(),
            y_name: "validation loss, nats per token".to_owned(),
            note: "a line is the mean over seeds".to_owned(),
            curves: names.zip(0..).map(|(name, n)| curve(&name, f64::from(n))).collect(),
        }
    }

    /// Pixels of a PNG.
    struct Picture {
        width: usize,
        height: usize,
        rgb: Vec<u8>,
    }

    impl Picture {
        fn of(file: &[u8]) -> Self {
            let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
            let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
            let frame = reader.next_frame(&mut rgb).unwrap();
            assert_eq!((frame.color_type, frame.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
            Self { width: frame.width as usize, height: frame.height as usize, rgb }
        }

        /// How many pixels of a colour are between two places of the drawing.
        fn count(&self, colour: u32, from: Place, to: Place) -> usize {
            let pixels = |from: f64, to: f64| (2.0 * from) as usize..(2.0 * to) as usize;
            let is = |at: usize| self.rgb[3 * at..3 * at + 3] == colour.to_be_bytes()[1..];
            pixels(from.1, to.1)
                .flat_map(|y| pixels(from.0, to.0).map(move |x| y * self.width + x))
                .filter(|at| is(*at))
                .count()
        }
    }

    /// Whether all marks are numbers, and on the paper, however wide a browser's letters are.
    fn is_on_paper(drawing: &Drawing) -> bool {
        let on = |&(x, y): &Place| (0.0..=drawing.width).contains(&x) && (0.0..=drawing.height).contains(&y);
        drawing.marks.iter().all(|mark| match mark {
            Mark::Rule { from, to } => on(from) && on(to),
            Mark::Band { outline: points, .. } | Mark::Curve { points, .. } => points.iter().all(on),
            Mark::Text { role, anchor, at: (x, y), text } => {
                let left = x - anchor.share() * width(text, *role);
                on(&(left, y - role.size())) && on(&(left + width(text, *role), y + 4.0))
            }
        })
    }

    #[test]
    fn a_file_of_its_own_says_what_it_shows() {
        let chart = chart(12);
        let svg = chart.file();
        assert!(svg.ends_with("</svg>\n") && svg.contains("prefers-color-scheme: dark"), "{svg}");
        for text in ["a &lt; b", "&lt;two&gt;", "iterations", "validation loss, nats per token", "a line is"]
        {
            assert!(svg.contains(&format!(">{text}")), "{text} is not written in {svg}");
        }
        for curve in &chart.curves[1..] {
            assert!(svg.contains(&format!(">{}</text>", curve.name)), "{}", curve.name);
        }
        // A band and a line for each, and a pattern in the legend.
        assert_eq!((svg.matches("<polygon").count(), svg.matches("<polyline").count()), (12, 24));
        assert_eq!(svg.matches("curve c1 dashed").count(), 2, "the twelfth has the second's colour");
        assert!(is_on_paper(&chart.whole()));
    }

    #[test]
    fn a_page_has_names_and_axes_beside_the_drawing() {
        let chart = chart(12);
        let (svg, legend) = (chart.draw(), chart.legend());
        assert!(svg.contains(">validation loss, nats per token<") && !svg.contains(">a &lt; b<"));
        assert_eq!((svg.matches("<polygon").count(), svg.matches("<polyline").count()), (12, 12));
        assert!(legend.contains("&lt;two&gt;") && legend.contains("dashed") && legend.contains("var(--c1)"));
    }

    #[test]
    fn a_painted_chart_has_every_curve_in_its_colour_and_a_title() {
        let chart = chart(10);
        let drawing = chart.whole();
        let file = chart.png().unwrap();
        assert_eq!(chart.png().unwrap(), file);
        let picture = Picture::of(&file);
        assert_eq!((picture.width, picture.height), (2000, 2 * drawing.height as usize));
        let (plot, legend) = ((60.0, 80.0), (0.0, 80.0 + PLOT_HEIGHT + 2.0 * LINE));
        for colour in LIGHT.curves {
            assert!(picture.count(colour, plot, (WIDTH, 80.0 + PLOT_HEIGHT)) > 500, "{colour:06x}");
            assert!(picture.count(colour, legend, (WIDTH, drawing.height)) > 50, "{colour:06x}");
        }
        let title = picture.count(LIGHT.ink, (MARGIN, 18.0), (200.0, 40.0));
        assert!((100..4000).contains(&title), "{title}");
        let untitled = CurveChart { title: String::new(), ..chart };
        let untitled = Picture::of(&untitled.png().unwrap());
        assert_eq!(untitled.count(LIGHT.paper, (0.0, 0.0), (WIDTH, 50.0)), 4 * 50 * WIDTH as usize);
    }

    #[test]
    fn nothing_is_drawn_beside_the_paper() {
        let mut chart = chart(3);
        for (n, y) in
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300, 1e11].into_iter().enumerate()
        {
            let x = 20.0 + n as f64;
            chart.curves[0].points.push(CurvePoint { x, y, low: y, high: y });
            chart.curves[1].points.push(CurvePoint { x, y: 1.0, low: y, high: y });
            chart.curves[2].points.push(CurvePoint { x: y, y: 1.0, low: 1.0, high: 1.0 });
        }
        assert!(is_on_paper(&chart.whole()), "{:?}", chart.whole());
        let svg = chart.file();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        chart.png().unwrap();
        chart.curves[0].points = vec![CurvePoint { x: 3.0, y: 1.0, low: 1.0, high: 1.0 }];
        chart.curves.truncate(1);
        let dot = Picture::of(&chart.png().unwrap());
        assert!(dot.count(LIGHT.ink, (500.0, 80.0), (WIDTH, 80.0 + PLOT_HEIGHT)) > 4, "a point is a dot");
        let empty = CurveChart::default();
        assert!(empty.file().contains("nothing to show") && is_on_paper(&empty.whole()));
        empty.png().unwrap();
    }

    #[test]
    fn long_names_and_many_of_them_fit() {
        let mut chart = chart(NAMES_MAX + 7);
        chart.curves[1].name = "w".repeat(1000);
        chart.title = "W".repeat(1000);
        let drawing = chart.whole();
        assert!(is_on_paper(&drawing));
        let svg = chart.file();
        assert!(svg.contains("and 7 more") && svg.contains("www…</text>") && svg.contains("WWW…</text>"));
        assert!(svg.contains(&"w".repeat(1000)), "the whole name is told of its line");
        assert_eq!(Picture::of(&chart.png().unwrap()).height, 2 * drawing.height as usize);
    }

    #[test]
    fn numbers_have_the_digits_that_tell_them_apart() {
        let words =
            |low, high| numbers(&ticks(low, high, 4)).into_iter().map(|(_, word)| word).collect::<Vec<_>>();
        assert_eq!(words(0.0, 600.0), ["0", "200", "400", "600"]);
        assert_eq!(words(0.4411, 0.449), ["0.442", "0.444", "0.446", "0.448"]);
        assert_eq!(words(0.0, 1.0), ["0.00", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(words(0.0, 4e11), ["0", "1.00e11", "2.00e11", "3.00e11", "4.00e11"]);
    }
}
