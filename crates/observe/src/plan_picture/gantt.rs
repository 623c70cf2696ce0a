//! A lane for every node: what it does, and when.

use std::collections::BTreeMap;

use skipstone_planner::{MICROSECONDS, TaskKind};

use super::legend::legend;
use super::{PlannedIteration, STYLE, short, stage_name};
use crate::report::svg::{Svg, ticks};

const WIDTH: f64 = 1400.0;
const LEFT: f64 = 168.0;
const RIGHT: f64 = 72.0;
const TOP: f64 = 98.0;
const BOTTOM: f64 = 34.0;
/// Space between stages.
const GAP: f64 = 9.0;
/// Transfers are drawn as lines up to so many; beyond they would be a fog.
const TRANSFERS_MAX: usize = 1_500;
/// Width that a digit of a number in a bar needs.
const DIGIT: f64 = 6.2;

/// Where things are.
struct Layout {
    /// Top of each node's lane.
    lane: BTreeMap<u32, f64>,
    step: f64,
    height: f64,
    end_us: u64,
}

impl Layout {
    fn new(iteration: &PlannedIteration) -> Self {
        let nodes = iteration.compiled.nodes();
        let step = match nodes {
            0..=24 => 21.0,
            25..=48 => 17.0,
            49..=120 => 12.0,
            _ => 7.0,
        };
        let mut lane = BTreeMap::new();
        let mut y = TOP;
        for members in &iteration.plan.stages {
            let mut members = members.clone();
            members.sort_unstable();
            for node in members {
                lane.insert(node, y);
                y += step;
            }
            y += GAP;
        }
        let end_us = iteration.evaluation.makespan_us.max(iteration.bound_us).max(1);
        Self { lane, step, height: y - GAP + BOTTOM, end_us }
    }

    fn x(&self, us: u64) -> f64 {
        LEFT + us as f64 / self.end_us as f64 * (WIDTH - LEFT - RIGHT)
    }

    fn bar(&self) -> f64 {
        (self.step * 0.82).floor()
    }

    /// The middle of a node's lane.
    fn middle(&self, node: u32) -> f64 {
        self.lane.get(&node).copied().unwrap_or(TOP) + self.bar() / 2.0
    }

    fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }
}

/// The iteration as an SVG file: lanes grouped by stage and labelled with region; forwards, losses, backwards, waits for
/// memory; transfers as thin lines; time axis, makespan and bound. Hovering tells what, where and when.
pub fn gantt(iteration: &PlannedIteration) -> String {
    let layout = Layout::new(iteration);
    let title = iteration.title();
    let mut svg = Svg::file(WIDTH, layout.height, &format!("Who computes what, and when: {title}"), STYLE);
    svg.raw(
        "<defs><pattern id=\"hatch\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" style=\"fill:var(--memory);opacity:.14\"/>\
         <rect width=\"1.5\" height=\"5\" style=\"fill:var(--memory);opacity:.7\"/></pattern></defs>",
    );
    svg.text("title", (16.0, 27.0), &title);
    svg.text("soft", (16.0, 46.0), &iteration.figures());
    let shows_transfers = iteration.evaluation.trace.transfers.len() <= TRANSFERS_MAX;
    let mut entries = vec![
        ("task forward", "forward (number: microbatch)", false),
        ("task loss", "loss", false),
        ("task backward", "backward", false),
        ("memory", "waits for memory", false),
        ("lane", "idle", false),
    ];
    if shows_transfers {
        entries.push(("transfer sample", "activation on its way", true));
        entries.push(("transfer back sample", "gradient on its way", true));
    }
    legend(&mut svg, (16.0, 68.0), &entries);
    draw_axis(&mut svg, &layout);
    draw_lanes(&mut svg, iteration, &layout);
    if shows_transfers {
        draw_transfers(&mut svg, iteration, &layout);
    }
    draw_ends(&mut svg, iteration, &layout);
    // Over everything else, so that no line hides a number.
    draw_work(&mut svg, iteration, &layout);
    svg.finish()
}

fn seconds(us: u64) -> f64 {
    us as f64 / MICROSECONDS
}

fn draw_axis(svg: &mut Svg, layout: &Layout) {
    for tick in ticks(0.0, seconds(layout.end_us), 10) {
        let at = layout.x((tick * MICROSECONDS) as u64);
        svg.line("grid", (at, TOP - 4.0), (at, layout.bottom() + 3.0));
        svg.text("soft middle", (at, layout.bottom() + 17.0), &format!("{tick} s"));
    }
}

/// The background of each node, its name, and how busy it is; a bracket for each stage.
fn draw_lanes(svg: &mut Svg, iteration: &PlannedIteration, layout: &Layout) {
    let makespan = (iteration.evaluation.makespan_us as f64).max(1.0);
    svg.text("soft end small", (WIDTH - 16.0, TOP - 8.0), "busy");
    for (stage, members) in iteration.plan.stages.iter().enumerate() {
        for node in members {
            let Some(y) = layout.lane.get(node).copied() else { continue };
            let width = layout.x(layout.end_us) - LEFT;
            let region = iteration.region(*node);
            let busy = iteration.evaluation.busy_us.get(*node as usize).map_or(0.0, |busy| *busy as f64);
            let tip = format!(
                "node {node} in {region}, {}: busy {:.0} %, at most {} microbatches in flight",
                stage_name(stage),
                100.0 * busy / makespan,
                iteration.evaluation.in_flight_max.get(*node as usize).copied().unwrap_or(0),
            );
            svg.rect("lane", (LEFT, y), (width, layout.bar()), &tip);
            if layout.step >= 10.0 {
                let line = y + layout.bar() / 2.0 + 4.0;
                svg.text("end", (LEFT - 30.0, line), &short(region, 13));
                svg.text("end soft", (LEFT - 7.0, line), &node.to_string());
                svg.text(
                    "end soft small",
                    (WIDTH - 16.0, line),
                    &format!("{:.0} %", 100.0 * busy / makespan),
                );
            }
        }
        let lanes: Vec<f64> = members.iter().filter_map(|node| layout.lane.get(node).copied()).collect();
        let (Some(first), Some(last)) =
            (lanes.iter().copied().reduce(f64::min), lanes.iter().copied().reduce(f64::max))
        else {
            continue;
        };
        let last = last + layout.bar();
        svg.line("bracket", (59.0, first), (59.0, last));
        svg.text("strong end", (52.0, f64::midpoint(first, last) + 4.0), &stage_name(stage));
    }
}

fn draw_transfers(svg: &mut Svg, iteration: &PlannedIteration, layout: &Layout) {
    // A gradient goes to a backward, and from the loss; everything else is an activation.
    for transfer in &iteration.evaluation.trace.transfers {
        let is_gradient = transfer.kind == TaskKind::Backward;
        let class = if is_gradient { "transfer back" } else { "transfer" };
        let (from, to) = (layout.x(transfer.start_us), layout.x(transfer.end_us));
        let d = format!(
            "M{from:.1} {:.1}L{to:.1} {:.1}",
            layout.middle(transfer.from),
            layout.middle(transfer.to)
        );
        let tip = format!(
            "{} of microbatch {}: node {} ({}) → node {} ({}), {:.3} – {:.3} s, {:.3} s",
            if is_gradient { "gradient" } else { "activation" },
            transfer.microbatch,
            transfer.from,
            iteration.region(transfer.from),
            transfer.to,
            iteration.region(transfer.to),
            seconds(transfer.start_us),
            seconds(transfer.end_us),
            seconds(transfer.end_us - transfer.start_us),
        );
        svg.path(class, "", &d, &tip);
    }
}

fn draw_work(svg: &mut Svg, iteration: &PlannedIteration, layout: &Layout) {
    let bar = layout.bar();
    for wait in &iteration.evaluation.trace.memory_waits {
        let Some(y) = layout.lane.get(&wait.node).copied() else { continue };
        let (from, to) = (layout.x(wait.start_us), layout.x(wait.end_us));
        let tip = format!(
            "node {} waits for memory, {:.3} – {:.3} s: a forward is ready, all slots are taken",
            wait.node,
            seconds(wait.start_us),
            seconds(wait.end_us)
        );
        svg.rect("memory", (from, y), (to - from, bar), &tip);
    }
    for task in &iteration.evaluation.trace.tasks {
        let Some(y) = layout.lane.get(&task.node).copied() else { continue };
        let (class, name) = match task.kind {
            TaskKind::Forward => ("task forward", "forward"),
            TaskKind::Loss => ("task loss", "loss"),
            TaskKind::Backward => ("task backward", "backward"),
        };
        let (from, to) = (layout.x(task.start_us), layout.x(task.end_us));
        let tip = format!(
            "{name} of microbatch {} on node {} ({}), {:.3} – {:.3} s",
            task.microbatch,
            task.node,
            iteration.region(task.node),
            seconds(task.start_us),
            seconds(task.end_us)
        );
        svg.rect(class, (from, y), (to - from, bar), &tip);
        let number = task.microbatch.to_string();
        if bar >= 10.0 && to - from >= DIGIT * number.len() as f64 + 2.0 {
            svg.text("number small", (f64::midpoint(from, to), y + bar / 2.0 + 3.6), &number);
        }
    }
}

/// The makespan and the bound, each with its name above the lanes.
fn draw_ends(svg: &mut Svg, iteration: &PlannedIteration, layout: &Layout) {
    let (bound, makespan) = (layout.x(iteration.bound_us), layout.x(iteration.evaluation.makespan_us));
    let bottom = layout.bottom() + 4.0;
    svg.line("bound", (bound, TOP - 6.0), (bound, bottom));
    svg.line("makespan", (makespan, TOP - 6.0), (makespan, bottom));
    let text = format!("bound {:.2} s", seconds(iteration.bound_us));
    let name = format!("makespan {:.2} s", iteration.evaluation.makespan_s());
    // The names stand on both sides of the gap between the lines.
    svg.text("bound-text strong end halo", (bound - 4.0, TOP - 9.0), &text);
    let (class, at) = if makespan - bound > 110.0 { ("strong end halo", -4.0) } else { ("strong halo", 4.0) };
    let at = if makespan + 110.0 > WIDTH && at > 0.0 {
        (makespan + 4.0).min(WIDTH - 112.0)
    } else {
        makespan + at
    };
    svg.text(class, (at, TOP - 9.0), &name);
}
