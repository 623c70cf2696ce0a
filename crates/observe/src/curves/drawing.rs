//! What is drawn, whoever draws it: a list of marks, which becomes an SVG here and pixels in the painter.

use super::palette::{Look, Role};
use crate::report::svg::{Svg, escape};

/// A place: to the right, and down from the top.
pub(super) type Place = (f64, f64);

/// Which part of a text is at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    /// The share of a text's width that is left of its place.
    pub(super) fn share(self) -> f64 {
        match self {
            Self::Start => 0.0,
            Self::Middle => 0.5,
            Self::End => 1.0,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A mark.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mark {
    /// A line of the grid.
    Rule { from: Place, to: Place },
    /// The range that a curve stands for.
    Band { look: Look, outline: Vec<Place> },
    /// A line of a curve, or its pattern in the legend.
    Curve { look: Look, points: Vec<Place>, name: String },
    /// A line of text; `at` is on its baseline.
    Text { role: Role, anchor: Anchor, at: Place, text: String },
}

/// Marks on paper, in the order in which they are drawn. A unit is a pixel, where nothing asks for another size.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Drawing {
    pub(super) width: f64,
    pub(super) height: f64,
    /// For who can't see it.
    pub(super) label: String,
    pub(super) marks: Vec<Mark>,
}

impl Drawing {
    pub(super) fn text(&mut self, role: Role, anchor: Anchor, at: Place, text: impl Into<String>) {
        self.marks.push(Mark::Text { role, anchor, at, text: text.into() });
    }

    /// As a part of a page that has the style.
    pub(super) fn svg(&self) -> String {
        let mut svg = Svg::new(self.width, self.height, &self.label);
        self.draw_into(&mut svg);
        svg.finish()
    }

    /// As a file of its own.
    pub(super) fn svg_file(&self, style: &str) -> String {
        let mut svg = Svg::file(self.width, self.height, &self.label, style);
        svg.raw("<rect class=\"paper\" width=\"100%\" height=\"100%\"/>");
        self.draw_into(&mut svg);
        svg.finish()
    }

    fn draw_into(&self, svg: &mut Svg) {
        let list = |points: &[Place]| {
            points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
        };
        for mark in &self.marks {
            match mark {
                Mark::Rule { from, to } => svg.line("grid", *from, *to),
                Mark::Band { look, outline } => svg.raw(&format!(
                    "<polygon class=\"band b{}\" points=\"{}\"/>",
                    look.colour(),
                    list(outline)
                )),
                Mark::Curve { look, points, name } => svg.raw(&format!(
                    "<polyline class=\"curve c{} {}\" points=\"{}\"><title>{}</title></polyline>",
                    look.colour(),
                    look.dash_class(),
                    list(points),
                    escape(name)
                )),
                Mark::Text { role, anchor, at, text } => {
                    svg.text(&format!("{} {}", role.class(), anchor.class()), *at, text);
                }
            }
        }
    }
}
