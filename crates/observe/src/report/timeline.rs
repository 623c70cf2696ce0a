//! A lane per stage: when it was served, and what died when.

use super::svg::{Svg, time_ticks};
use crate::{Mark, RunState, SpanKind, words};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 16.0;
const BOTTOM: f64 = 26.0;
/// Lanes that are drawn; of more stages, those with the most trouble.
const LANES_MAX: usize = 120;

/// The kinds, as the legend names them.
pub(super) const KINDS: [(SpanKind, &str, &str); 5] = [
    (SpanKind::Starting, "starting", "starting"),
    (SpanKind::Served, "served", "all replicas serve"),
    (SpanKind::Thin, "thin", "a replica is missing"),
    (SpanKind::Hole, "hole", "hole: routed around"),
    (SpanKind::Rebuilding, "rebuilding", "being rebuilt"),
];

/// The lanes of all stages, and how many there was no room for.
pub(super) fn draw(state: &RunState) -> (String, usize) {
    let timeline = state.timeline();
    let end_ms = state.now_ms().max(1);
    let mut lanes: Vec<_> = timeline.lanes().iter().collect();
    let hidden = lanes.len().saturating_sub(LANES_MAX);
    if hidden > 0 {
        lanes.sort_by_key(|(_, lane)| std::cmp::Reverse(lane.len()));
        lanes.truncate(LANES_MAX);
        lanes.sort_by_key(|(stage, _)| **stage);
    }
    // Deaths are marked above their lane, so that they don't hide the hole that they make.
    let (step, bar) = if lanes.len() <= 24 { (30.0, 15.0) } else { (18.0, 8.0) };
    let top = 24.0; // the coordinator's own lane
    let height = top + lanes.len() as f64 * step + BOTTOM;
    let x = |ms: u64| LEFT + ms.min(end_ms) as f64 / end_ms as f64 * (WIDTH - LEFT - RIGHT);
    let mut svg = Svg::new(WIDTH, height, "When each stage was served");
    for tick in time_ticks(end_ms as f64 / 1000.0, 8) {
        let at = x((tick * 1000.0) as u64);
        svg.line("grid", (at, 4.0), (at, height - BOTTOM + 4.0));
        svg.text("middle", (at, height - 8.0), &words::clock(tick as u64));
    }
    svg.text("end", (LEFT - 10.0, top - 8.0), "coordinator");
    svg.line("coordinator", (LEFT, top - 12.0), (WIDTH - RIGHT, top - 12.0));
    for (index, (stage, lane)) in lanes.iter().enumerate() {
        let y = top + index as f64 * step;
        svg.text("end", (LEFT - 10.0, y + step - bar / 2.0 + 2.0), &words::stage(**stage));
        let mut spans: Vec<_> = lane.iter().enumerate().collect();
        spans.sort_by_key(|(_, span)| matches!(span.kind, SpanKind::Hole | SpanKind::Rebuilding));
        for (index, span) in spans {
            let to_ms = lane.get(index + 1).map_or(end_ms, |next| next.from_ms);
            let Some((_, class, name)) = KINDS.iter().find(|(kind, ..)| *kind == span.kind) else { continue };
            let seconds = to_ms.saturating_sub(span.from_ms) as f64 / 1000.0;
            let tip = format!(
                "{}: {name} from {} for {}",
                words::stage(**stage),
                words::clock(span.from_ms / 1000),
                words::duration(seconds)
            );
            let least = if matches!(span.kind, SpanKind::Hole | SpanKind::Rebuilding) { 2.5 } else { 0.8 };
            let width = (x(to_ms) - x(span.from_ms)).max(least);
            svg.rect(class, (x(span.from_ms), y + step - bar - 2.0), (width, bar), &tip);
        }
    }
    for mark in timeline.marks() {
        let y = if mark.coordinator {
            top - 12.0
        } else {
            let lane = mark.stage.and_then(|stage| lanes.iter().position(|(of, _)| **of == stage));
            let Some(lane) = lane else { continue };
            top + lane as f64 * step + (step - bar - 2.0) / 2.0
        };
        svg.cross("cross halo", (x(mark.at_ms), y), 3.5, "");
        svg.cross("cross", (x(mark.at_ms), y), 3.5, &mark_tip(mark));
    }
    (svg.finish(), hidden)
}

/// What a cross stands for.
pub(super) fn mark_tip(mark: &Mark) -> String {
    let who = match (mark.coordinator, mark.stage) {
        (true, _) => "coordinator".to_owned(),
        (false, Some(stage)) => format!("a node of {}", words::the_stage(stage)),
        (false, None) => "a node without a stage".to_owned(),
    };
    let how = if mark.killed { "killed" } else { "lost" };
    format!("{who} {how} at {} (iteration {})", words::clock(mark.at_ms / 1000), mark.iteration)
}
