//! The loss curve.

use super::svg::{Svg, ticks};
use crate::{Point, RunState};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 128.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// The loss curve, with validation, reference lines and deaths; nothing before the first iteration.
pub(super) fn draw(state: &RunState) -> Option<String> {
    let points = state.loss().after_descent();
    let last = state.steps().saturating_sub(1).max(1);
    let info = &state.info;
    let references = [("bigram", info.bigram_val_loss), ("entropy floor", info.entropy_floor_loss)];
    let references: Vec<(&str, f64)> = references
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|v| v.is_finite())?)))
        .collect();
    let values = points.iter().chain(state.validation().points()).map(|point| point.value);
    let values = values.chain(references.iter().map(|(_, value)| *value));
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    if points.is_empty() {
        return None;
    }
    let room = ((high - low) * 0.05).max(0.01 + high.abs() * 1e-6);
    let (low, high) = ((low - room).max(0.0), high + room);
    let x = |iteration: f64| LEFT + (iteration / last as f64).min(1.0) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = Svg::new(WIDTH, HEIGHT, "Loss by iteration");
    for tick in ticks(low, high, 6) {
        svg.line("grid", (LEFT, y(tick)), (WIDTH - RIGHT, y(tick)));
        svg.text("end", (LEFT - 8.0, y(tick) + 4.0), &format!("{tick:.1}"));
    }
    for tick in ticks(0.0, last as f64, 8) {
        svg.text("middle", (x(tick), HEIGHT - 12.0), &format!("{tick}"));
    }
    svg.text("start", (WIDTH - RIGHT + 10.0, HEIGHT - 12.0), "iteration");
    for mark in state.timeline().marks() {
        let at = x(mark.iteration as f64);
        svg.line("death", (at, TOP), (at, HEIGHT - BOTTOM));
        let tip = super::timeline::mark_tip(mark);
        svg.cross("cross", (at, HEIGHT - BOTTOM), 3.5, &tip);
    }
    let mut labels = Vec::new();
    for (name, value) in references {
        svg.line("reference", (LEFT, y(value)), (WIDTH - RIGHT, y(value)));
        labels.push((y(value), "reference-label", format!("{name} {value:.2}")));
    }
    let noisy: Vec<(f64, f64)> =
        points.iter().map(|point| (x(point.iteration as f64), y(point.value))).collect();
    svg.polyline("noisy", noisy.into_iter());
    let smooth = smoothed(points);
    svg.polyline("smooth", smooth.iter().map(|(iteration, value)| (x(*iteration), y(*value))));
    if let (Some((_, value)), Some(mean)) = (smooth.last(), state.final_train_loss()) {
        labels.push((y(*value), "train-label", format!("training {mean:.2}")));
    }
    for point in state.validation().points() {
        let tip = format!("validation {:.3} after iteration {}", point.value, point.iteration);
        svg.dot("validation", (x(point.iteration as f64), y(point.value)), 3.2, &tip);
    }
    if let Some(point) = state.validation().points().last() {
        labels.push((y(point.value), "validation-label", format!("validation {:.2}", point.value)));
    }
    for (at, class, text) in spread(labels) {
        svg.text(class, (WIDTH - RIGHT + 10.0, at + 4.0), &text);
    }
    Some(svg.finish())
}

/// A moving mean that looks ahead and back by a fiftieth of the run.
fn smoothed(points: &[Point]) -> Vec<(f64, f64)> {
    let reach = points.len() / 100;
    (0..points.len())
        .map(|index| {
            // At the start, which is steep, only as far ahead as back; at the end there is nothing ahead.
            let reach = reach.min(index);
            let window = &points[index - reach..(index + reach + 1).min(points.len())];
            let count: u64 = window.iter().map(|point| point.count).sum();
            let sum: f64 = window.iter().map(|point| point.value * point.count as f64).sum();
            (points[index].iteration as f64, sum / count as f64)
        })
        .collect()
}

/// Moves labels apart that would overlap.
fn spread(mut labels: Vec<(f64, &'static str, String)>) -> Vec<(f64, &'static str, String)> {
    const APART: f64 = 16.0;
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    for index in 1..labels.len() {
        labels[index].0 = labels[index].0.max(labels[index - 1].0 + APART);
    }
    let mut limit = HEIGHT - BOTTOM + 2.0;
    for label in labels.iter_mut().rev() {
        label.0 = label.0.min(limit);
        limit = label.0 - APART;
    }
    labels
}
