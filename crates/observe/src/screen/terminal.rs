//! A live view in place.

use super::text::Line;
use crate::RunState;
use std::io::{self, IsTerminal, Stderr, Write};
use std::time::{Duration, Instant};
use terminal_size::{Height, Width};

const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// A live view, redrawn in place under whatever stands on the terminal.
///
/// It uses neither the alternate screen nor raw mode, hides no cursor and leaves no colour on between writes: there
/// is nothing to restore, however the process ends. A frame is one write; the cursor rests on the line below it.
#[derive(Debug)]
pub struct TerminalView<W> {
    out: W,
    colour: bool,
    /// Columns and rows; asked of the terminal before each frame unless fixed.
    size: Option<(usize, usize)>,
    drawn: Option<Instant>,
    /// Size and number of lines of the frame that stands.
    standing: Option<((usize, usize), usize)>,
}

impl TerminalView<Stderr> {
    /// On stderr, in colour unless `NO_COLOR` is set.
    pub fn stderr() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let out = io::stderr();
        let colour = !no_colour && out.is_terminal();
        Self { out, colour, size: None, drawn: None, standing: None }
    }
}

impl<W: Write> TerminalView<W> {
    /// On anything, at a fixed size (columns, rows).
    pub fn new(out: W, colour: bool, size: (usize, usize)) -> Self {
        Self { out, colour, size: Some(size), drawn: None, standing: None }
    }

    /// Draws, if the last frame is a tenth of a second old.
    pub fn tick(&mut self, state: &RunState) {
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW_EVERY) {
            self.draw(state);
        }
    }

    /// Draws now.
    pub fn draw(&mut self, state: &RunState) {
        let size = self.size();
        let lines = super::frame(state, size.0, size.1.saturating_sub(1));
        self.write(size, "", &lines);
        self.drawn = Some(Instant::now());
    }

    /// Puts a line above the view, where it stays.
    pub fn note(&mut self, text: &str, state: &RunState) {
        let size = self.size();
        let lines = super::frame(state, size.0, size.1.saturating_sub(1));
        self.write(size, text, &lines);
    }

    /// Draws the last frame, which stays.
    pub fn close(&mut self, state: &RunState) {
        self.draw(state);
        self.standing = None;
    }

    fn size(&self) -> (usize, usize) {
        self.size.unwrap_or_else(|| {
            terminal_size::terminal_size_of(io::stderr())
                .map_or((80, 24), |(Width(columns), Height(rows))| (columns.into(), rows.into()))
        })
    }

    /// One frame in one write, so that nobody sees half of it; BEGIN/END SYNC where the terminal knows them.
    fn write(&mut self, size: (usize, usize), above: &str, lines: &[Line]) {
        let mut text = String::from("\x1b[?2026h");
        match self.standing {
            // Another width: the terminal has wrapped the old frame, nobody knows how.
            Some((before, _)) if before != size => text.push_str("\x1b[H\x1b[2J"),
            Some((_, 0)) | None => text.push('\r'),
            Some((_, height)) => text.push_str(&format!("\r\x1b[{height}A")),
        }
        for line in above.lines() {
            text.push_str("\x1b[2K");
            text.push_str(line);
            text.push_str("\r\n");
        }
        for line in lines {
            line.write(&mut text, self.colour);
            text.push_str("\x1b[K\r\n");
        }
        text.push_str("\x1b[J\x1b[?2026l");
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
        self.standing = Some((size, lines.len()));
    }
}
