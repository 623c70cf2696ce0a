//! What drawings share.

use std::fmt::Write as _;

/// Text as it may stand in HTML and in attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Round numbers from `low` to `high`, about `count` of them.
pub(crate) fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = high - low;
    if !span.is_finite() || span <= 0.0 {
        return vec![low];
    }
    let rough = span / count.max(1) as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    (first..first + 2 * count as i64 + 2)
        .map(|n| n as f64 * step)
        .take_while(|tick| *tick <= high + step * 1e-9)
        .collect()
}

/// Round times from 0 to `seconds`, about `count` of them.
pub(crate) fn time_ticks(seconds: f64, count: usize) -> Vec<f64> {
    const STEPS: [u32; 14] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
    let rough = seconds / count.max(1) as f64;
    match STEPS.iter().map(|step| f64::from(*step)).find(|step| *step >= rough) {
        Some(step) => (0..=(seconds / step) as u32).map(|n| f64::from(n) * step).collect(),
        None => ticks(0.0, seconds / 3600.0, count).into_iter().map(|hours| hours * 3600.0).collect(),
    }
}

/// An SVG under construction: a drawing of `width` × `height` that scales with the page.
#[derive(Debug)]
pub(crate) struct Svg {
    body: String,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64, label: &str) -> Self {
        let label = escape(label);
        let body = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">\n");
        Self { body }
    }

    /// A drawing that is a file of its own, of this size where nothing asks for another.
    pub(crate) fn file(width: f64, height: f64, label: &str, style: &str) -> Self {
        let label = escape(label);
        let body = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{label}\">\n<style>\n{style}</style>\n"
        );
        Self { body }
    }

    /// Markup as it is.
    pub(crate) fn raw(&mut self, markup: &str) {
        self.body.push_str(markup);
        self.body.push('\n');
    }

    /// A path (`d` of SVG) with a tooltip; `style` is its style attribute.
    pub(crate) fn path(&mut self, class: &str, style: &str, d: &str, tip: &str) {
        let _ = writeln!(
            self.body,
            "<path class=\"{class}\" style=\"{style}\" d=\"{d}\"><title>{}</title></path>",
            escape(tip)
        );
    }

    pub(crate) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    /// A rectangle with a tooltip.
    pub(crate) fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64), tip: &str) {
        let ((x, y), (width, height)) = (at, size);
        let _ = writeln!(
            self.body,
            "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{height:.1}\">\
             <title>{}</title></rect>",
            escape(tip)
        );
    }

    /// Text; `class` says where it is anchored.
    pub(crate) fn text(&mut self, class: &str, at: (f64, f64), text: &str) {
        let (x, y) = at;
        let _ =
            writeln!(self.body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(text));
    }

    pub(crate) fn polyline(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let _ = write!(self.body, "<polyline class=\"{class}\" points=\"");
        points.for_each(|(x, y)| {
            let _ = write!(self.body, "{x:.1},{y:.1} ");
        });
        self.body.push_str("\"/>\n");
    }

    pub(crate) fn dot(&mut self, class: &str, at: (f64, f64), radius: f64, tip: &str) {
        let (x, y) = at;
        let _ = writeln!(
            self.body,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{}</title></circle>",
            escape(tip)
        );
    }

    /// A cross: something died here.
    pub(crate) fn cross(&mut self, class: &str, at: (f64, f64), radius: f64, tip: &str) {
        let ((x, y), r) = (at, radius);
        let _ = writeln!(
            self.body,
            "<path class=\"{class}\" d=\"M{:.1} {:.1}L{:.1} {:.1}M{:.1} {:.1}L{:.1} {:.1}\"><title>{}</title></path>",
            x - r,
            y - r,
            x + r,
            y + r,
            x - r,
            y + r,
            x + r,
            y - r,
            escape(tip)
        );
    }

    pub(crate) fn finish(mut self) -> String {
        self.body.push_str("</svg>\n");
        self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(escape("<a href=\"x\">'&\x1b"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;\u{fffd}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 600.0, 6), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0]);
        assert_eq!(ticks(1.3, 6.1, 5), [2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(ticks(3.0, 3.0, 5), [3.0]);
        assert!(ticks(0.0, f64::INFINITY, 5).len() == 1);
        assert_eq!(time_ticks(224.0, 8), [0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 180.0, 210.0]);
        assert_eq!(time_ticks(0.0, 8), [0.0]);
        assert_eq!(time_ticks(100.0 * 3600.0, 5)[1], 20.0 * 3600.0);
    }
}
