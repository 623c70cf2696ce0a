//! The live view: what goes where.

use super::chart::{Chart, Reference};
use super::table;
use super::text::{Line, Style};
use crate::{RunState, words};

/// Lines that are always there: title, progress, numbers, loss.
const FIXED: usize = 4;
/// Below this a curve shows nothing.
const CHART_MIN: usize = 7;
const CHART_MAX: usize = 16;
const EVENTS_MAX: usize = 6;

/// The live view of a run in at most `width` columns and `height` lines: title, progress, loss curve, a row per
/// stage, and the last incidents. Where room is short the curve goes first, then rows of stages that are well.
pub fn frame(state: &RunState, width: usize, height: usize) -> Vec<Line> {
    let width = width.clamp(20, 200);
    let rest = height.saturating_sub(FIXED);
    let stages = state.stages().count();
    // A blank line and the table's heading come with the rows; a blank line with each other part.
    let events = match rest {
        0..=5 => 0,
        6..=11 => 1,
        12..=15 => 3,
        16..=23 => 4,
        _ => EVENTS_MAX.min(rest / 6),
    };
    let events_lines = if events > 0 { events + 1 } else { 0 };
    let table_room = rest.saturating_sub(events_lines);
    let wants_chart = state.loss().points().len() > 1;
    let rows_max = table_room.saturating_sub(2).min(if stages + 2 + CHART_MIN > table_room && stages > 8 {
        (table_room / 2).max(8)
    } else {
        usize::MAX
    });
    let rows = table::rows(state, width, rows_max);
    let table_lines = if rows.is_empty() { 0 } else { rows.len() + 1 };
    let chart_room = table_room.saturating_sub(table_lines + 1);
    let mut lines = vec![title(state, width), progress(state, width)];
    if wants_chart && chart_room >= CHART_MIN {
        lines.push(Line::default());
        lines.push(loss(state, width));
        lines.extend(chart(state, width, chart_room.min(CHART_MAX)));
    } else {
        lines.push(loss(state, width));
    }
    lines.push(numbers(state, width));
    if !rows.is_empty() {
        lines.push(Line::default());
        lines.extend(rows);
    }
    if events > 0 {
        lines.push(Line::default());
        lines.extend(incidents(state, events, width));
    }
    lines.truncate(height);
    lines.into_iter().map(|line| line.cut(width)).collect()
}

fn title(state: &RunState, width: usize) -> Line {
    let info = &state.info;
    let mut line = Line::of(Style::Bold, "skipstone");
    let mut parts = Vec::new();
    if !info.model.is_empty() {
        parts.push(words::clean(&info.model, 40));
    }
    if info.parameters > 0 {
        parts.push(format!("{} parameters", words::count(info.parameters as f64)));
    }
    if info.relay_stages > 0 {
        let stages = words::plural(u64::from(info.relay_stages) + 1, "stage");
        parts.push(format!("{stages} × {}", words::plural(u64::from(info.replicas.max(1)), "replica")));
    }
    if info.skip_realised > 0.0 {
        parts.push(format!("skips {}", words::percent(info.skip_realised)));
    }
    let mut right = Line::of(Style::Plain, "iteration ");
    right.push(Style::Bold, state.steps().to_string());
    if let Some(steps) = state.steps_aimed_at() {
        right.push(Style::Plain, format!("/{steps}"));
    }
    for part in parts {
        let more = format!("{}{part}", if line.width() == 9 { "  " } else { " · " });
        if line.width() + more.chars().count() + 2 + right.width() <= width {
            line.push(Style::Plain, more);
        }
    }
    line.push_right(right, width);
    line
}

fn progress(state: &RunState, width: usize) -> Line {
    let elapsed = words::clock(state.now_ms() / 1000);
    let mut right = Line::default();
    if let Some(steps) = state.steps_aimed_at() {
        right.push(Style::Plain, format!("{:>5}", words::percent(state.steps() as f64 / steps as f64)));
    }
    right.push(Style::Dim, format!("  {elapsed} elapsed"));
    match (state.finished(), state.remaining_s()) {
        (Some(why), _) => right.push(Style::Bold, format!("  {}", words::clean(why, 20))),
        (None, Some(seconds)) => right.push(Style::Dim, format!("  {} left", words::duration(seconds))),
        _ => {}
    }
    let columns = width.saturating_sub(right.width() + 1);
    let fraction = state.steps_aimed_at().map_or(0.0, |steps| state.steps() as f64 / steps as f64);
    let done = (columns as f64 * fraction).round() as usize;
    let mut line = Line::of(Style::Good, "━".repeat(done));
    line.push(Style::Dim, "┄".repeat(columns.saturating_sub(done)));
    line.push_right(right, width);
    line
}

fn loss(state: &RunState, width: usize) -> Line {
    let Some(loss) = state.loss().recent(1) else {
        return Line::of(Style::Dim, waiting(state));
    };
    let mut parts = vec![Line::of(Style::Plain, "loss ").with(Style::Curve, format!("{loss:.3}"))];
    if let Some(last) = state.validation().points().last() {
        let part = Line::of(Style::Plain, "   validation ").with(Style::Bold, format!("{:.3}", last.value));
        parts.push(part);
        parts.push(Line::of(Style::Dim, format!(" (perplexity {:.2})", last.value.exp())));
    }
    parts.push(Line::of(Style::Dim, format!("   learning rate {:.1e}", state.learning_rate())));
    Line::default().fitting(parts, width)
}

/// What the run waits for before its first iteration.
fn waiting(state: &RunState) -> String {
    let all = state.stages().count();
    let ready = state.stages().filter(|stage| stage.served).count();
    match (state.living(), ready) {
        (0, _) => "waiting for nodes".to_owned(),
        (nodes, ready) if ready < all => {
            format!(
                "{}: {ready} of {} ready",
                words::plural(nodes as u64, "node"),
                words::plural(all as u64, "stage")
            )
        }
        _ => "the first iteration runs".to_owned(),
    }
}

fn chart(state: &RunState, width: usize, height: usize) -> Vec<Line> {
    let info = &state.info;
    let mut references = Vec::new();
    references.extend(info.bigram_val_loss.map(|value| Reference { value, name: "bigram" }));
    references.extend(info.entropy_floor_loss.map(|value| Reference { value, name: "entropy floor" }));
    Chart {
        points: state.loss().after_descent(),
        marks: state.timeline().marks().iter().map(|mark| mark.iteration).collect(),
        references,
        last: state.steps().saturating_sub(1).max(1),
        width,
        height,
    }
    .lines()
}

fn numbers(state: &RunState, width: usize) -> Line {
    let mut parts = vec![
        Line::of(Style::Bold, words::count(state.recent_tokens_per_s())).with(Style::Plain, " tokens/s"),
        Line::of(Style::Plain, "   goodput ").with(Style::Bold, words::percent(state.time().goodput())),
    ];
    if state.finished().is_none() {
        parts.push(Line::of(Style::Plain, format!("   {}", words::plural(state.living() as u64, "node"))));
    }
    if state.spares() > 0 {
        parts.push(Line::of(Style::Dim, format!(" ({} spare)", state.spares())));
    }
    if state.kills() > 0 {
        parts.push(Line::of(Style::Plain, format!("   {}", words::plural(state.kills(), "kill"))));
    }
    let unplanned = state.losses().saturating_sub(state.kills());
    if unplanned > 0 {
        parts.push(Line::of(Style::Plain, format!("   {} lost", words::plural(unplanned, "other node"))));
    }
    let back = state.recoveries_total() + state.restarts().len() as u64;
    if back > 0 {
        parts.push(Line::of(Style::Plain, format!("   {}", words::plural(back, "recovery"))));
    }
    Line::default().fitting(parts, width)
}

/// The last incidents that fit, each wrapped to as many lines as it takes.
fn incidents(state: &RunState, most: usize, width: usize) -> Vec<Line> {
    const INDENT: usize = 9;
    let mut blocks: Vec<Vec<Line>> = Vec::new();
    let mut used = 0;
    for story in state.stories().rev() {
        let mut line = Line::of(Style::Dim, format!("{:>7}  ", words::clock(story.at_ms / 1000)));
        for (index, clause) in story.text().split(" → ").enumerate() {
            if index > 0 {
                line.push(Style::Dim, " → ");
            }
            line.push(table::clause_style(clause), clause);
        }
        let mut block = line.wrap(width, INDENT);
        if used + block.len() > most {
            if used > 0 {
                break;
            }
            block.drain(..block.len() - most); // how it goes on matters more than how it began
        }
        used += block.len();
        blocks.push(block);
    }
    let mut lines: Vec<Line> = blocks.into_iter().rev().flatten().collect();
    lines.resize(most, Line::default());
    lines
}
