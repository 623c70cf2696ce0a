//! Results as a Markdown table.

use super::paths::PLANNED;
use super::{Experiment, Figure, Group};
use std::fmt::Write as _;

/// The experiment's groups as a table, with a line that says what the columns are.
pub fn markdown(experiment: &Experiment, groups: &[Group]) -> String {
    let mut text = format!("# {}\n\n", experiment.name);
    if !experiment.about.is_empty() {
        let _ = writeln!(text, "{}\n", experiment.about.trim());
    }
    let kinds = PathsTold::of(groups);
    for note in notes(experiment, &kinds) {
        let _ = writeln!(text, "{note}\n");
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let columns = kinds.columns();
    text.push_str(&line(&columns));
    text.push_str(&format!("|{}\n", "---|".repeat(columns.len())));
    for group in groups {
        text.push_str(&line(&kinds.row(group)));
    }
    let rows: Vec<_> = groups.iter().filter_map(|group| kinds.row_of_left_out(group)).collect();
    if let Some(columns) = kinds.columns_of_left_out(groups).filter(|_| !rows.is_empty()) {
        let _ = writeln!(text, "\n## {LEFT_OUT}\n\n{NOTE_OF_LEFT_OUT}\n");
        text.push_str(&line(&columns));
        text.push_str(&format!("|{}\n", "---|".repeat(columns.len())));
        for row in &rows {
            text.push_str(&line(row));
        }
    }
    text
}

/// What the columns of the first table are, in paragraphs, with names between asterisks.
pub(super) fn notes(experiment: &Experiment, kinds: &PathsTold) -> Vec<String> {
    let seeds = experiment.seeds.len();
    let mut notes = vec![format!(
        "{} iterations, {seeds} {}; ± is half the 95 % confidence interval of the mean. *To the loss without failures*: iterations until \
         the validation loss that the run of the same seed without failures has after 80 % of its iterations, over that run's. *Failures*: the \
         chance that a relay stage is lost in an iteration, or that a region is, or the trace of what was. Time is modelled.",
        experiment.run.steps,
        if seeds == 1 { "seed" } else { "seeds" },
    )];
    if let Some(first) = kinds.first {
        notes.push(format!(
            "*Paths*: the stages that microbatches visit, and in which order (`skipstone lab --help`). *More than with {first}*: the validation \
             loss at the end less that of the run of the same seed with {first} paths."
        ));
    }
    notes
}

/// What the columns of the second table are.
pub(super) const NOTE_OF_LEFT_OUT: &str = "Perplexity of the trained model with this share of its relay stages left out, and that over the whole model's. *Over \
     training without skips*: the validation loss at the end over the loss that training without skips and failures has after the same \
     time.";

/// The title of the second table.
pub(super) const LEFT_OUT: &str = "Without some of the stages";

const COLUMNS: [&str; 11] = [
    "skip",
    "failures",
    "strategy",
    "stages lost",
    "validation loss at the end",
    "more than without failures",
    "to the loss without failures",
    "hours",
    "s per iteration",
    "MB sent per iteration",
    "s that a stage was away",
];

/// Before which column paths are named.
const PATHS_AT: usize = 1;
/// Before which column, of those, is what they make of the loss.
const MORE_AT: usize = 6;

/// Whether tables name paths: where there is more than one kind of them, or another than the planned ones.
pub(super) struct PathsTold<'a> {
    named: bool,
    /// With which others are compared, if there are others.
    first: Option<&'a str>,
}

impl<'a> PathsTold<'a> {
    pub(super) fn of(groups: &'a [Group]) -> Self {
        let first = groups.first().map(|group| group.paths.as_str());
        Self {
            named: groups.iter().any(|group| group.paths != PLANNED),
            first: first.filter(|first| groups.iter().any(|group| group.paths != *first)),
        }
    }

    /// The table's columns.
    pub(super) fn columns(&self) -> Vec<String> {
        let mut columns = COLUMNS.map(str::to_owned).to_vec();
        if self.named {
            columns.insert(PATHS_AT, "paths".to_owned());
        }
        if let Some(first) = self.first {
            columns.insert(MORE_AT, format!("more than with {first}"));
        }
        columns
    }

    /// A group's row of the table.
    pub(super) fn row(&self, group: &Group) -> Vec<String> {
        let mut cells = row(group);
        if self.named {
            cells.insert(PATHS_AT, group.paths.clone());
        }
        if self.first.is_some() {
            let more = group.more_than_first_paths.map_or_else(String::new, |figure| show(figure, 4));
            cells.insert(MORE_AT, more);
        }
        cells
    }

    /// The columns of the table of models with stages left out; none if there are no such models.
    pub(super) fn columns_of_left_out(&self, groups: &[Group]) -> Option<Vec<String>> {
        let group = groups.iter().find(|group| !group.left_out.is_empty())?;
        let mut columns =
            ["skip", "failures", "strategy", "over training without skips"].map(str::to_owned).to_vec();
        if self.named {
            columns.insert(PATHS_AT, "paths".to_owned());
        }
        columns
            .extend(group.left_out.iter().map(|left_out| format!("{:.0} % left out", 100.0 * left_out.skip)));
        Some(columns)
    }

    /// A group's row of that table.
    pub(super) fn row_of_left_out(&self, group: &Group) -> Option<Vec<String>> {
        if group.left_out.is_empty() {
            return None;
        }
        let over = group.over_unskipped.map_or("–".to_owned(), |figure| show(figure, 4));
        let mut cells = vec![group.skip.to_string(), group.failures.clone(), group.strategy.clone(), over];
        if self.named {
            cells.insert(PATHS_AT, group.paths.clone());
        }
        let shares = group.left_out.iter();
        cells.extend(
            shares.map(|left_out| format!("{} ({})", show(left_out.perplexity, 2), show(left_out.ratio, 3))),
        );
        Some(cells)
    }
}

/// A group's cells but for its paths.
fn row(group: &Group) -> Vec<String> {
    let number = |figure: Option<Figure>, digits: usize| figure.map_or("–".to_owned(), |f| show(f, digits));
    let reached = |figure: Option<Figure>, digits: usize| match figure {
        Some(figure) => show(figure, digits),
        None => format!("not reached by {} of {}", group.short_of_target, group.seeds),
    };
    let megabytes = Figure {
        mean: group.sent_bytes_per_iteration.mean / 1e6,
        half_width: group.sent_bytes_per_iteration.half_width.map(|width| width / 1e6),
    };
    vec![
        group.skip.to_string(),
        group.failures.clone(),
        group.strategy.clone(),
        show(group.losses, 1),
        number(group.final_loss, 4),
        if group.is_calm() { String::new() } else { number(group.final_loss_more, 4) },
        reached(group.iterations_ratio, 3),
        reached(group.hours_to_target, 2),
        show(group.iteration_s, 2),
        show(megabytes, 2),
        number(group.away_s, 1),
    ]
}

fn show(figure: Figure, digits: usize) -> String {
    let mean = format!("{:.digits$}", figure.mean);
    match figure.half_width {
        Some(width) => format!("{mean} ± {width:.digits$}"),
        None => mean,
    }
}
