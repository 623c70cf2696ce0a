//! Styled text of known width.

use unicode_width::UnicodeWidthChar;

/// How a piece of text looks; without colour all look the same, so meaning never rests on it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// As the terminal has it.
    #[default]
    Plain,
    /// Emphasis.
    Bold,
    /// Less important.
    Dim,
    /// All is well.
    Good,
    /// On its way.
    Busy,
    /// Something is missing.
    Bad,
    /// The loss curve.
    Curve,
    /// A reference line.
    Reference,
}

impl Style {
    /// The sixteen colours follow the terminal's own palette, dark or light.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Busy => "33",
            Self::Bad => "1;31",
            Self::Curve => "36",
            Self::Reference => "35",
        }
    }
}

/// A line of styled pieces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    pieces: Vec<(Style, String)>,
}

impl Line {
    /// A line of one piece.
    pub fn of(style: Style, text: impl Into<String>) -> Self {
        Self::default().with(style, text)
    }

    /// Adds a piece.
    #[must_use]
    pub fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.push(style, text);
        self
    }

    /// Adds a piece.
    pub fn push(&mut self, style: Style, text: impl Into<String>) {
        let text: String = text.into();
        match self.pieces.last_mut() {
            Some((last, piece)) if *last == style => piece.push_str(&text),
            _ => self.pieces.push((style, text)),
        }
    }

    /// Adds spaces up to a column.
    pub fn pad_to(&mut self, column: usize) {
        let missing = column.saturating_sub(self.width());
        if missing > 0 {
            self.push(Style::Plain, " ".repeat(missing));
        }
    }

    /// Adds `other` so that it ends at column `width`; leaves it out where there is no room.
    pub fn push_right(&mut self, other: Line, width: usize) {
        if self.width() + other.width() < width {
            self.pad_to(width - other.width());
            other.pieces.into_iter().for_each(|(style, text)| self.push(style, text));
        }
    }

    /// Adds all pieces of `other`.
    pub fn append(&mut self, other: Line) {
        other.pieces.into_iter().for_each(|(style, text)| self.push(style, text));
    }

    /// Adds the parts that fit, from the first one that doesn't on none.
    #[must_use]
    pub fn fitting(mut self, parts: impl IntoIterator<Item = Line>, width: usize) -> Self {
        for part in parts {
            if self.width() + part.width() > width {
                break;
            }
            self.append(part);
        }
        self
    }

    /// The same, wrapped at spaces to lines of at most `width` columns, all but the first indented.
    #[must_use]
    pub fn wrap(self, width: usize, indent: usize) -> Vec<Self> {
        let mut lines = vec![Self::default()];
        for (style, text) in self.pieces {
            for word in words(&text) {
                let columns = self::width(word.trim_end());
                if let Some(line) = lines.last_mut()
                    && line.width() + columns <= width
                {
                    line.push(style, word);
                } else {
                    let mut line = Self::default();
                    line.pad_to(indent);
                    line.push(style, word.trim_start());
                    lines.push(line);
                }
            }
        }
        for line in &mut lines {
            if let Some((_, last)) = line.pieces.last_mut() {
                last.truncate(last.trim_end().len());
            }
        }
        lines
    }

    /// Columns that it takes.
    pub fn width(&self) -> usize {
        self.pieces.iter().map(|(_, text)| width(text)).sum()
    }

    /// The same, cut to at most `max` columns.
    #[must_use]
    pub fn cut(self, max: usize) -> Self {
        if self.width() <= max {
            return self;
        }
        let mut left = max.saturating_sub(1);
        let mut cut = Self::default();
        'pieces: for (style, text) in self.pieces {
            for c in text.chars() {
                let wide = c.width().unwrap_or(0);
                if wide > left {
                    break 'pieces;
                }
                left -= wide;
                cut.push(style, c);
            }
        }
        if max > 0 {
            cut.push(Style::Dim, "…");
        }
        cut
    }

    /// The text without styles.
    pub fn text(&self) -> String {
        self.pieces.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// Adds the text with the terminal's codes to `out`; ends in plain style.
    pub(super) fn write(&self, out: &mut String, colour: bool) {
        for (style, text) in &self.pieces {
            let code = style.code();
            if colour && !code.is_empty() {
                out.push_str(&format!("\x1b[{code}m{text}\x1b[0m"));
            } else {
                out.push_str(text);
            }
        }
    }
}

/// Words with the spaces after them; a number stays with its unit.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_inclusive(' ') {
        match words.last_mut() {
            Some(last) if matches!(word.trim_end(), "s" | "s)" | "ms" | "ms)" | "%") => last.push_str(word),
            _ => words.push(word.to_owned()),
        }
    }
    words
}

fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_and_cutting_respect_wide_characters_and_units() {
        let line = Line::of(Style::Good, "rebuilt from 2 and 4 in 0.4 s").with(Style::Dim, " → done");
        let lines: Vec<String> = line.wrap(24, 2).iter().map(Line::text).collect();
        assert_eq!(lines, ["rebuilt from 2 and 4 in", "  0.4 s → done"]);
        let wide = Line::of(Style::Plain, "模型模型模型");
        assert_eq!(wide.width(), 12);
        let cut = wide.cut(6);
        assert_eq!(cut.text(), "模型…");
        assert!(cut.width() <= 6);
    }

    #[test]
    fn colour_ends_with_each_piece() {
        let mut out = String::new();
        Line::of(Style::Bad, "HOLE").with(Style::Plain, " x").write(&mut out, true);
        assert_eq!(out, "\x1b[1;31mHOLE\x1b[0m x");
    }
}
