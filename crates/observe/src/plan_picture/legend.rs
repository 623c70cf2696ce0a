//! Rows of samples with their meaning.

use crate::report::svg::Svg;

/// Draws samples side by side from `at`; each is drawn by its class as a box, or as a line where `is_line`.
pub(super) fn legend(svg: &mut Svg, at: (f64, f64), entries: &[(&str, &str, bool)]) {
    let (mut x, y) = at;
    for (class, meaning, is_line) in entries {
        if *is_line {
            svg.line(class, (x, y - 4.0), (x + 18.0, y - 4.0));
        } else {
            svg.rect(class, (x, y - 9.0), (18.0, 10.0), meaning);
        }
        svg.text("soft", (x + 23.0, y), meaning);
        x += 23.0 + 6.0 * meaning.chars().count() as f64 + 20.0;
    }
}
