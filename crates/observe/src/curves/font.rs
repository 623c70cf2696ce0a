//! A font of single strokes, for pictures that are painted: no file of letters comes along, and no system has to have one.
//!
//! A letter lies on a grid of whole numbers, y downwards: capitals reach from 2 to the baseline at 16, small letters from 6, and
//! what hangs below it ends at 20. Each is a line of [`GLYPHS`]: its width, and strokes with commas between them. A point of a stroke
//! is two digits of base 36, x and y. A point after `~` is not passed through: it pulls the line towards it, as in TrueType a
//! point off the curve does, and between two such points lies one of the curve, half-way.

use tiny_skia::PathBuilder;
use unicode_width::UnicodeWidthChar;

/// Of the grid to a font's size.
const EM: f64 = 20.0;
/// The line on which letters stand.
const BASELINE: f64 = 16.0;
/// Between two letters' widths.
const SPACING: f64 = 3.6;

/// A letter on the grid.
#[derive(Debug, Clone, Copy)]
struct Glyph {
    width: f64,
    strokes: &'static str,
}

impl Glyph {
    /// What stands for a character: a box, if the font has none.
    fn of(c: char) -> Self {
        let found = GLYPHS.iter().find(|(characters, ..)| characters.contains(c));
        match found {
            Some((_, width, strokes)) => Self { width: f64::from(*width), strokes },
            None if c.width() == Some(2) => Self { width: 16.0, strokes: "02 g2 gg 0g 02" },
            None => Self { width: 8.0, strokes: "02 82 8g 0g 02" },
        }
    }
}

/// A point of a stroke, and whether the stroke passes through it.
fn points(stroke: &str) -> impl Iterator<Item = (f64, f64, bool)> {
    stroke.split_ascii_whitespace().filter_map(|point| {
        let digits = point.strip_prefix('~').unwrap_or(point);
        let mut digits = digits.chars().map_while(|digit| digit.to_digit(36)).map(f64::from);
        Some((digits.next()?, digits.next()?, !point.starts_with('~')))
    })
}

/// How wide a text is at a size.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let widths = text.chars().map(|c| Glyph::of(c).width + SPACING).sum::<f64>();
    (widths - SPACING).max(0.0) * size / EM
}

/// Adds the strokes of a text whose baseline begins at `at`.
pub(super) fn write(text: &str, at: (f64, f64), size: f64, path: &mut PathBuilder) {
    let unit = size / EM;
    let mut left = at.0;
    for glyph in text.chars().map(Glyph::of) {
        for stroke in glyph.strokes.split(',') {
            let place = |x: f64, y: f64| ((left + x * unit) as f32, (at.1 + (y - BASELINE) * unit) as f32);
            draw(points(stroke).map(|(x, y, on)| (place(x, y), on)), path);
        }
        left += (glyph.width + SPACING) * unit;
    }
}

/// Adds a stroke of points that it passes through, or is pulled towards.
fn draw(points: impl Iterator<Item = ((f32, f32), bool)>, path: &mut PathBuilder) {
    let mut begun = false;
    let mut pull: Option<(f32, f32)> = None;
    for ((x, y), on) in points {
        match (pull, on) {
            _ if !begun => path.move_to(x, y),
            (None, true) => path.line_to(x, y),
            (None, false) => {}
            (Some(pull), true) => path.quad_to(pull.0, pull.1, x, y),
            (Some(pull), false) => {
                path.quad_to(pull.0, pull.1, f32::midpoint(pull.0, x), f32::midpoint(pull.1, y));
            }
        }
        begun = true;
        pull = (!on).then_some((x, y));
    }
}

/// Characters that look alike, their width, their strokes.
#[rustfmt::skip]
const GLYPHS: [(&str, u8, &str); 104] = [
    (" \u{a0}", 3, ""),
    ("!", 0, "02 0b, 0f 0g"),
    ("\"", 3, "02 05, 32 35"),
    ("#", 9, "32 1g, 82 6g, 07 97, 0c 9c"),
    ("$", 8, "84 ~72 42 ~02 05 ~09 49 ~89 8c ~8g 4g ~1g 0e, 40 4i"),
    ("%", 12, "a2 2g, 32 ~62 ~68 38 ~08 ~02 32, 9a ~ca ~cg 9g ~6g ~6a 9a"),
    ("&", 10, "ag 37 ~15 ~12 42 ~72 75 ~77 49 ~0a 0d ~0g 4g ~8g aa"),
    ("'", 0, "02 05"),
    ("(", 3, "31 ~05 ~0e 3i"),
    (")", 3, "01 ~35 ~3e 0i"),
    ("*", 6, "32 38, 03 67, 63 07"),
    ("+", 8, "46 4e, 0a 8a"),
    (",", 1, "1f 0i"),
    ("-\u{2010}\u{2011}", 5, "0b 5b"),
    (".", 0, "0f 0g"),
    ("/", 6, "61 0h"),
    ("0", 8, "42 ~82 ~8g 4g ~0g ~02 42"),
    ("1", 8, "25 52 5g"),
    ("2", 8, "05 ~02 42 ~82 86 ~89 0g 8g"),
    ("3", 8, "04 ~12 42 ~82 85 ~89 49 29, 49 ~89 8c ~8g 4g ~1g 0e"),
    ("4", 8, "6g 62 0c 8c"),
    ("5", 8, "72 12 08 ~27 47 ~87 8b ~8g 4g ~1g 0e"),
    ("6", 8, "74 ~62 42 ~02 0a 0c, 47 ~87 ~8g 4g ~0g ~07 47"),
    ("7", 8, "02 82 3g"),
    ("8", 8, "42 ~72 ~79 49 ~19 ~12 42, 49 ~89 ~8g 4g ~0g ~09 49"),
    ("9", 8, "42 ~82 ~8b 4b ~0b ~02 42, 86 88 ~8g 4g ~2g 1e"),
    (":", 0, "07 08, 0f 0g"),
    (";", 1, "17 18, 1f 0i"),
    ("<", 7, "75 0a 7f"),
    ("=", 8, "08 88, 0c 8c"),
    (">", 7, "05 7a 0f"),
    ("?", 7, "04 ~12 42 ~72 75 ~78 ~38 3b, 3f 3g"),
    ("@", 14, "77 ~a7 ~ad 7d ~4d ~47 77, a7 ab ~ad cd ~ed e9 ~e3 73 ~03 0a ~0h 7h ~ah cg"),
    ("A", 10, "0g 52 ag, 2b 8b"),
    ("B", 9, "02 0g, 02 42 ~82 85 ~89 49 09, 49 ~99 9c ~9g 4g 0g"),
    ("C", 9, "95 ~82 52 ~02 ~0g 5g ~8g 9d"),
    ("D", 9, "02 0g, 02 42 ~92 ~9g 4g 0g"),
    ("E", 8, "82 02 0g 8g, 09 79"),
    ("F", 7, "72 02 0g, 09 69"),
    ("G", 9, "95 ~82 52 ~02 ~0g 5g ~9g 9a 6a"),
    ("H", 9, "02 0g, 92 9g, 09 99"),
    ("I", 0, "02 0g"),
    ("J", 6, "62 6c ~6g 3g ~0g 0d"),
    ("K", 9, "02 0g, 82 0b, 38 9g"),
    ("L", 7, "02 0g 7g"),
    ("M", 10, "0g 02 5b a2 ag"),
    ("N", 9, "0g 02 9g 92"),
    ("O", 10, "52 ~a2 ~ag 5g ~0g ~02 52"),
    ("P", 8, "0g 02 42 ~82 86 ~8a 4a 0a"),
    ("Q", 10, "52 ~a2 ~ag 5g ~0g ~02 52, 6c ag"),
    ("R", 8, "0g 02 42 ~82 86 ~8a 4a 0a, 4a 8g"),
    ("S", 8, "84 ~72 42 ~02 05 ~09 49 ~89 8c ~8g 4g ~1g 0e"),
    ("T", 8, "02 82, 42 4g"),
    ("U", 9, "02 0b ~0g 4g 5g ~9g 9b 92"),
    ("V", 10, "02 5g a2"),
    ("W", 14, "02 4g 72 ag e2"),
    ("X", 9, "02 9g, 92 0g"),
    ("Y", 10, "02 59 a2, 59 5g"),
    ("Z", 8, "02 82 0g 8g"),
    ("[", 3, "31 01 0i 3i"),
    ("\\", 6, "01 6h"),
    ("]", 3, "01 31 3i 0i"),
    ("^", 8, "07 42 87"),
    ("_", 8, "0i 8i"),
    ("`", 2, "02 24"),
    ("a", 7, "17 ~26 46 ~76 79 7g, 7b 3b ~0b 0d ~0g 3g ~6g 7d"),
    ("b", 8, "02 0g, 46 ~86 ~8g 4g ~0g ~06 46"),
    ("c", 7, "78 ~66 46 ~06 ~0g 4g ~6g 7e"),
    ("d", 8, "82 8g, 46 ~86 ~8g 4g ~0g ~06 46"),
    ("e", 8, "0b 8b ~86 46 ~06 ~0g 4g ~6g 7e"),
    ("f", 5, "52 ~22 25 2g, 06 56"),
    ("g", 8, "46 ~86 ~8g 4g ~0g ~06 46, 86 8h ~8k 4k ~2k 1j"),
    ("h", 7, "02 0g, 0a ~06 46 ~76 7a 7g"),
    ("i", 0, "06 0g, 02 03"),
    ("j", 2, "26 2h ~2k 0k, 22 23"),
    ("k", 7, "02 0g, 66 0c, 2a 7g"),
    ("l", 2, "02 0e ~0g 2g"),
    ("m", 12, "06 0g, 0a ~06 36 ~66 6a 6g, 6a ~66 96 ~c6 ca cg"),
    ("n", 7, "06 0g, 0a ~06 46 ~76 7a 7g"),
    ("o", 8, "46 ~86 ~8g 4g ~0g ~06 46"),
    ("p", 8, "06 0k, 46 ~86 ~8g 4g ~0g ~06 46"),
    ("q", 8, "86 8k, 46 ~86 ~8g 4g ~0g ~06 46"),
    ("r", 4, "06 0g, 0a ~06 46"),
    ("s", 7, "67 ~56 36 ~06 08 ~0b 3b 4b ~7b 7d ~7g 4g ~1g 0e"),
    ("t", 5, "23 2d ~2g 5g, 06 56"),
    ("u", 7, "06 0c ~0g 3g ~7g 7c, 76 7g"),
    ("v", 8, "06 4g 86"),
    ("w", 12, "06 3g 66 9g c6"),
    ("x", 7, "06 7g, 76 0g"),
    ("y", 8, "06 4g, 86 3i ~2k 0k"),
    ("z", 7, "06 76 0g 7g"),
    ("{", 4, "41 ~21 24 27 ~2a 0a ~2a 2d 2f ~2i 4i"),
    ("|", 0, "01 0i"),
    ("}", 4, "01 ~21 24 27 ~2a 4a ~2a 2d 2f ~2i 0i"),
    ("~", 8, "0b ~27 4a ~6d 89"),
    ("±", 8, "44 4c, 08 88, 0g 8g"),
    ("×", 7, "06 7d, 76 0d"),
    ("–", 8, "0b 8b"),
    ("—", 14, "0b eb"),
    ("…", 10, "0f 0g, 5f 5g, af ag"),
    ("µμ", 7, "06 0k, 0c ~0g 3g ~7g 7c, 76 7g"),
    ("−", 8, "0a 8a"),
    ("·", 0, "0a 0b"),
    ("→", 10, "0a aa, 77 aa 7d"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn strokes(text: &str) -> Option<tiny_skia::Path> {
        let mut path = PathBuilder::new();
        write(text, (0.0, 0.0), EM, &mut path);
        path.finish()
    }

    #[test]
    fn every_character_of_ascii_and_of_the_charts_has_strokes_of_its_own() {
        let unknown = strokes("\u{7f}");
        let mut seen = vec![unknown.clone()];
        for c in ('!'..='~').chain("±×–—…µ−·→".chars()) {
            let drawn = strokes(&c.to_string());
            assert!(drawn.is_some() && !seen.contains(&drawn), "{c}");
            seen.push(drawn);
        }
        assert_eq!(strokes(" "), None);
        assert_eq!(strokes("\u{fffd}"), unknown, "a box");
        assert!(width("語", EM) > width("\u{fffd}", EM), "a box as wide as what it stands for");
    }

    #[test]
    fn strokes_are_well_formed_and_as_wide_as_they_say() {
        for (characters, width, strokes) in GLYPHS {
            for stroke in strokes.split(',').filter(|_| !strokes.is_empty()) {
                let said = stroke.split_ascii_whitespace();
                assert!(said.clone().all(|point| point.trim_start_matches('~').len() == 2), "{characters}");
                let points: Vec<_> = points(stroke).collect();
                assert_eq!(points.len(), said.count(), "{characters}");
                assert!(points.len() > 1 && points[0].2 && points[points.len() - 1].2, "{characters}");
                let inside = |(x, y, _): &(f64, f64, bool)| *x <= f64::from(width) && *y <= EM;
                assert!(points.iter().all(inside), "{characters}");
            }
        }
    }

    #[test]
    fn a_text_is_as_wide_as_its_letters_and_what_is_between_them() {
        assert_eq!(width("", 12.0), 0.0);
        assert_eq!(width("o", EM), 8.0);
        assert!((width("oo", EM / 2.0) - (8.0 + SPACING + 8.0) / 2.0).abs() < 1e-9);
        let drawn = strokes("neighbour").unwrap().bounds();
        assert!((f64::from(drawn.width()) - width("neighbour", EM)).abs() < 0.5, "{drawn:?}");
        assert!(drawn.top() >= -14.0 && drawn.bottom() <= 4.0, "{drawn:?}");
    }
}
