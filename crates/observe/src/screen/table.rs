//! A row per stage.

use super::text::{Line, Style};
use crate::{NodePhase, RunState, StageState, words};

/// Columns of the stage's name.
const NAME: usize = 8;

/// The heading and at most `most - 1` rows. Where not all fit, stages in trouble come first and the others are
/// counted.
pub(super) fn rows(state: &RunState, width: usize, most: usize) -> Vec<Line> {
    let all: Vec<&StageState> = state.stages().collect();
    if all.is_empty() || most < 2 {
        return Vec::new();
    }
    let mut shown: Vec<&StageState> = all.clone();
    let mut hidden = 0;
    if all.len() + 1 > most {
        let room = most.saturating_sub(2);
        shown.sort_by_key(|stage| (is_well(stage, state), stage.stage));
        hidden = shown.len().saturating_sub(room);
        shown.truncate(room);
        shown.sort_by_key(|stage| stage.stage);
    }
    let nodes_max = shown.iter().map(|stage| nodes(stage, state, usize::MAX).width()).max().unwrap_or(0);
    let nodes_width = nodes_max.clamp(12, (width / 3).max(12));
    let bar_width = match width {
        0..=69 => 8,
        70..=99 => 14,
        _ => 24,
    };
    let mut heading = Line::of(Style::Dim, "stage");
    heading.pad_to(NAME);
    heading.push(Style::Dim, "nodes");
    heading.pad_to(NAME + nodes_width + 2);
    heading.push(Style::Dim, "microbatches");
    heading.pad_to(NAME + nodes_width + 2 + bar_width + 7);
    heading.push(Style::Dim, "gradient norm");
    let mut lines = vec![heading];
    lines.extend(shown.iter().map(|stage| row(stage, state, nodes_width, bar_width)));
    if hidden > 0 {
        let well = all.iter().filter(|stage| is_well(stage, state)).count();
        let well = if well >= hidden { ", all well" } else { "" };
        lines.push(Line::of(
            Style::Dim,
            format!("… {} not shown{well}", words::plural(hidden as u64, "stage")),
        ));
    }
    lines
}

fn is_well(stage: &StageState, state: &RunState) -> bool {
    stage.serving().count() >= state.replicas() && stage.nodes.len() == stage.serving().count()
}

fn row(stage: &StageState, state: &RunState, nodes_width: usize, bar_width: usize) -> Line {
    let name = if stage.stage.is_origin() { "origin".to_owned() } else { stage.stage.0.to_string() };
    let mut line = Line::of(Style::Bold, name);
    line.pad_to(NAME);
    line.append(nodes(stage, state, nodes_width).cut(nodes_width));
    line.pad_to(NAME + nodes_width + 2);
    let trouble = trouble(stage, state);
    if stage.is_hole() || !stage.served {
        line.append(trouble);
        return line;
    }
    let total = state.info.microbatches.max(stage.microbatches);
    let share = if total == 0 { 0.0 } else { f64::from(stage.microbatches) / f64::from(total) };
    line.append(bar(share, bar_width));
    line.push(Style::Plain, format!(" {:>4}", stage.microbatches));
    line.pad_to(NAME + nodes_width + 2 + bar_width + 7);
    if stage.microbatches > 0 {
        line.push(Style::Plain, format!("{:<8.3}", stage.gradient_norm));
    } else {
        line.push(Style::Dim, "–       ");
    }
    line.push(Style::Plain, " ");
    line.append(trouble);
    line
}

/// `●` serves, `◐` joins, `×` was killed, `○` is missing; with ids where they fit.
fn nodes(stage: &StageState, state: &RunState, room: usize) -> Line {
    let missing = if stage.served { state.replicas().saturating_sub(stage.nodes.len()) } else { 0 };
    let long: usize =
        stage.nodes.keys().map(|node| node.0.to_string().len() + 2).sum::<usize>() + missing * 2;
    let ids = long <= room && stage.nodes.len() <= 8;
    let mut line = Line::default();
    for (node, phase) in &stage.nodes {
        let (style, dot) = match phase {
            NodePhase::Serving => (Style::Good, "●"),
            NodePhase::Joining { .. } => (Style::Busy, "◐"),
            NodePhase::Dead => (Style::Bad, "×"),
        };
        line.push(style, dot);
        if ids {
            line.push(Style::Plain, format!("{} ", node.0));
        }
    }
    for _ in 0..missing {
        line.push(Style::Bad, if ids { "○ " } else { "○" });
    }
    line
}

fn trouble(stage: &StageState, state: &RunState) -> Line {
    let joining = stage.nodes.values().filter(|phase| matches!(phase, NodePhase::Joining { .. })).count();
    if stage.is_hole() {
        let since_ms = stage.lost_since_ms.unwrap_or(state.now_ms());
        let lost = words::duration(state.now_ms().saturating_sub(since_ms) as f64 / 1000.0);
        let doing = if stage.rebuilding { "being rebuilt" } else { "routed around" };
        return Line::of(Style::Bad, format!("HOLE for {lost}")).with(Style::Busy, format!(", {doing}"));
    }
    if !stage.served {
        let text = if joining > 0 { "loading" } else { "waiting for a node" };
        return Line::of(Style::Busy, text);
    }
    let dead = stage.nodes.values().filter(|phase| **phase == NodePhase::Dead).count();
    let mut line = Line::default();
    if dead > 0 {
        line.push(Style::Bad, format!("{dead} dead "));
    }
    if joining > 0 {
        line.push(Style::Busy, format!("{joining} joining"));
    }
    line
}

fn bar(share: f64, width: usize) -> Line {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut line = Line::of(Style::Curve, "█".repeat(eighths / 8));
    line.push(Style::Curve, EIGHTHS[eighths % 8]);
    let used = eighths.div_ceil(8);
    line.push(Style::Dim, "·".repeat(width.saturating_sub(used)));
    line
}

/// Losses stand out, and so does what ended well.
pub(super) fn clause_style(clause: &str) -> Style {
    let says = |words: &[&str]| words.iter().any(|word| clause.contains(word));
    if says(&["killed", " lost", "fell silent", "fenced", "can't"]) {
        Style::Bad
    } else if says(&["rebuilt", "replayed by", "replaced by", "back with", "done"]) {
        Style::Good
    } else {
        Style::Plain
    }
}
