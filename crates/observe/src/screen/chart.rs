//! A curve in braille characters: two by four dots to a character.

use super::text::{Line, Style};
use crate::Point;

/// A horizontal line to compare with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reference {
    pub(super) value: f64,
    pub(super) name: &'static str,
}

/// A curve by iteration, with axis numbers, reference lines and marks.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    pub(super) points: &'a [Point],
    /// Iterations at which something died: marked on the axis.
    pub(super) marks: Vec<u64>,
    pub(super) references: Vec<Reference>,
    /// The iteration at the right end.
    pub(super) last: u64,
    /// Columns, axis numbers included.
    pub(super) width: usize,
    /// Lines, the axis and its numbers (two lines) included.
    pub(super) height: usize,
}

/// Columns of the axis numbers and the axis.
const MARGIN: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    dots: u8,
    /// Index of the reference line that passes.
    reference: Option<usize>,
}

impl Chart<'_> {
    /// The lines, from the top.
    pub(super) fn lines(&self) -> Vec<Line> {
        let (columns, rows) = (self.width.saturating_sub(MARGIN + 1), self.height.saturating_sub(2));
        if columns < 8 || rows < 2 {
            return Vec::new();
        }
        let (low, high) = self.range();
        let row_of = |value: f64, rows: usize| {
            let from_top = (high - value) / (high - low) * (rows - 1) as f64;
            (from_top.round().max(0.0) as usize).min(rows - 1)
        };
        let mut cells = vec![vec![Cell::default(); columns]; rows];
        for (index, reference) in self.references.iter().enumerate() {
            cells[row_of(reference.value, rows)].iter_mut().for_each(|cell| cell.reference = Some(index));
        }
        self.draw_curve(&mut cells, |value| row_of(value, rows * 4));
        let mut lines: Vec<Line> = (0..rows)
            .map(|row| {
                let value = high - (high - low) * row as f64 / (rows - 1) as f64;
                let number =
                    if row % 2 == 0 || row == rows - 1 { format!("{value:.2}") } else { String::new() };
                let mut line = Line::of(Style::Dim, format!("{number:>6} │"));
                self.draw_row(&cells[row], &mut line);
                line
            })
            .collect();
        lines.push(self.axis(columns));
        lines.push(self.numbers(columns));
        lines
    }

    fn range(&self) -> (f64, f64) {
        let values = self.points.iter().map(|point| point.value);
        let values = values.chain(self.references.iter().map(|reference| reference.value));
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return (0.0, 1.0);
        }
        (low, high.max(low + 0.01 + low.abs() * 1e-6))
    }

    /// The mean of each column of dots, joined by upright strokes.
    fn draw_curve(&self, cells: &mut [Vec<Cell>], row_of: impl Fn(f64) -> usize) {
        let dots = cells[0].len() * 2;
        let mut columns = vec![(0.0, 0_u64); dots];
        for point in self.points {
            let x = point.iteration.min(self.last) as f64 / self.last.max(1) as f64 * (dots - 1) as f64;
            let (sum, count) = &mut columns[(x.round() as usize).min(dots - 1)];
            *sum += point.value * point.count as f64;
            *count += point.count;
        }
        let known: Vec<(usize, f64)> = columns
            .iter()
            .enumerate()
            .filter(|(_, (_, count))| *count > 0)
            .map(|(x, (sum, count))| (x, sum / *count as f64))
            .collect();
        let mut dot = |x: usize, y: usize| {
            const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
            cells[y / 4][x / 2].dots |= BITS[x % 2][y % 4];
        };
        if let [(x, value)] = known[..] {
            dot(x, row_of(value));
        }
        for pair in known.windows(2) {
            let ((x0, v0), (x1, v1)) = (pair[0], pair[1]);
            let mut before = row_of(v0);
            for x in x0..=x1 {
                let y = row_of(v0 + (v1 - v0) * (x - x0) as f64 / (x1 - x0) as f64);
                // From the row of the column before, without it: a stroke of one dot's width.
                let from = if y > before { before + 1 } else { (before.max(1)) - usize::from(y < before) };
                let (from, to) = if y == before { (y, y) } else { (from.min(y), from.max(y)) };
                (from..=to).for_each(|y| dot(x, y));
                before = y;
            }
        }
    }

    fn draw_row(&self, row: &[Cell], line: &mut Line) {
        // A reference line carries its name at its right end, as far as the curve leaves room for it.
        let label = row[0].reference.map(|index| {
            let reference = self.references[index];
            format!(" {} {:.2}", reference.name, reference.value)
        });
        let label: Vec<char> = label.unwrap_or_default().chars().collect();
        let from = row.len().saturating_sub(label.len());
        let free = row[from..].iter().all(|cell| cell.dots == 0);
        for (column, cell) in row.iter().enumerate() {
            match (cell.dots, cell.reference) {
                (0, Some(_)) if free && column >= from => {
                    line.push(Style::Reference, label[column - from]);
                }
                (0, Some(_)) => line.push(Style::Reference, "╌"),
                (0, None) => line.push(Style::Plain, " "),
                (dots, _) => {
                    line.push(Style::Curve, char::from_u32(0x2800 + u32::from(dots)).unwrap_or('*'));
                }
            }
        }
    }

    fn axis(&self, columns: usize) -> Line {
        let mut marked = vec![false; columns];
        for mark in self.marks.iter().filter(|mark| **mark <= self.last) {
            let x = *mark as f64 / self.last.max(1) as f64 * (columns - 1) as f64;
            marked[(x.round() as usize).min(columns - 1)] = true;
        }
        let mut line = Line::of(Style::Dim, format!("{:>6} └", ""));
        for mark in marked {
            if mark { line.push(Style::Bad, "×") } else { line.push(Style::Dim, "─") }
        }
        line
    }

    fn numbers(&self, columns: usize) -> Line {
        let mut line = Line::of(Style::Dim, format!("{:>7} 0", ""));
        let parts: u128 = if columns >= 60 { 4 } else { 2 };
        for part in 1..=parts {
            let mut number = (u128::from(self.last) * part / parts).to_string();
            let end = MARGIN + columns * part as usize / parts as usize;
            if part == parts && !self.marks.is_empty() {
                let legend = format!("× a process died   {number}");
                number = if end > line.width() + legend.len() { legend } else { number };
            }
            let length = number.chars().count();
            let start = if part == parts { end.saturating_sub(length) } else { end - length / 2 };
            if start > line.width() + 1 {
                line.pad_to(start);
                line.push(Style::Dim, number);
            }
        }
        line
    }
}
