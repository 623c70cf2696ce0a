//! Stages over regions: who serves what where, and what flows between.

use std::collections::BTreeMap;
use std::f64::consts::{PI, TAU};

use skipstone_planner::Way;

use super::ring::ring_order;
use super::{PlannedIteration, STYLE, short, stage_name};
use crate::report::svg::Svg;

const WIDTH: f64 = 1240.0;
const HEIGHT: f64 = 820.0;
const CENTRE: (f64, f64) = (430.0, 440.0);
const RADIUS: f64 = 268.0;
/// Size of a node's chip.
const CHIP: f64 = 26.0;
/// Links listed beside the map.
const LISTED: usize = 18;
/// Colours of stages; further stages take them again, and their numbers tell them apart.
const COLOURS: [&str; 10] = [
    "#4e79a7", "#e15759", "#59a14f", "#f28e2b", "#9c6ade", "#17a2a2", "#d37295", "#8c6d31", "#6b7a8f",
    "#3f51b5",
];

/// What flows between two regions in an iteration, both ways.
#[derive(Debug, Clone, Copy)]
struct Flow {
    a: usize,
    b: usize,
    transfers: u32,
    bytes: f64,
    /// The slower of both ways.
    link: Way,
}

/// Regions with their nodes, and the flows between them.
struct Regions<'a> {
    names: Vec<&'a str>,
    /// Nodes of each region, as (stage, node).
    nodes: Vec<Vec<(usize, u32)>>,
    flows: Vec<Flow>,
}

impl<'a> Regions<'a> {
    fn new(iteration: &PlannedIteration<'a>) -> Self {
        let instance = iteration.compiled.instance();
        let mut names: Vec<&str> = instance.nodes.iter().map(|node| node.region.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let place = |name: &str| names.binary_search(&name).unwrap_or(0);
        let mut nodes = vec![Vec::new(); names.len()];
        for (stage, members) in iteration.plan.stages.iter().enumerate() {
            for node in members {
                if let Some(known) = instance.nodes.get(*node as usize) {
                    nodes[place(&known.region)].push((stage, *node));
                }
            }
        }
        nodes.iter_mut().for_each(|nodes| nodes.sort_unstable());
        let mut counts: BTreeMap<(usize, usize), u32> = BTreeMap::new();
        for transfer in &iteration.evaluation.trace.transfers {
            let ends = [transfer.from, transfer.to]
                .map(|node| instance.nodes.get(node as usize).map_or(0, |node| place(&node.region)));
            *counts.entry((ends[0].min(ends[1]), ends[0].max(ends[1]))).or_default() += 1;
        }
        let bytes = instance.activation_bytes_per_sample * f64::from(instance.samples_per_mb);
        let intra = instance.regions.intra.way(&instance.regions.intra);
        let link = |a: usize, b: usize| {
            let way = |from: usize, to: usize| instance.regions.way(names[from], names[to]).unwrap_or(intra);
            let (there, back) = (way(a, b), way(b, a));
            if back.bandwidth_bytes_per_s < there.bandwidth_bytes_per_s { back } else { there }
        };
        let mut flows: Vec<Flow> = counts
            .into_iter()
            .map(|((a, b), transfers)| Flow {
                a,
                b,
                transfers,
                bytes: f64::from(transfers) * bytes,
                link: link(a, b),
            })
            .collect();
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.transfers));
        Self { names, nodes, flows }
    }

    /// Bytes over the busiest link between regions.
    fn most(&self) -> f64 {
        self.flows.iter().filter(|flow| flow.a != flow.b).map(|flow| flow.bytes).fold(1.0, f64::max)
    }

    /// Where each region stands: angle, in order of the names.
    fn angles(&self) -> Vec<f64> {
        let regions = self.names.len();
        let mut weights = vec![0.0; regions * regions];
        for flow in &self.flows {
            weights[flow.a * regions + flow.b] = f64::from(flow.transfers);
            weights[flow.b * regions + flow.a] = f64::from(flow.transfers);
        }
        let mut angles = vec![0.0; regions];
        for (place, region) in ring_order(&weights, regions).into_iter().enumerate() {
            angles[region] = -PI / 2.0 + TAU * place as f64 / regions as f64;
        }
        angles
    }
}

fn colour(stage: usize) -> &'static str {
    COLOURS[stage % COLOURS.len()]
}

/// Where a region stands.
fn stand(angle: f64, radius: f64) -> (f64, f64) {
    (CENTRE.0 + radius * angle.cos(), CENTRE.1 + radius * angle.sin())
}

/// The plan's placement and traffic as an SVG file: regions on a ring, a chip for each node in its stage's colour, links as
/// wide as their traffic and as red as they are slow, the busiest listed with bandwidth, latency and bytes.
pub fn map(iteration: &PlannedIteration) -> String {
    let regions = Regions::new(iteration);
    let angles = regions.angles();
    let title = iteration.title();
    let mut svg = Svg::file(WIDTH, HEIGHT, &format!("Stages over regions: {title}"), STYLE);
    svg.text("title", (16.0, 27.0), &title);
    svg.text("soft", (16.0, 46.0), &iteration.figures());
    draw_stages(&mut svg, iteration);
    draw_links(&mut svg, &regions, &angles);
    draw_regions(&mut svg, iteration, &regions, &angles);
    draw_list(&mut svg, &regions);
    svg.finish()
}

fn draw_stages(svg: &mut Svg, iteration: &PlannedIteration) {
    let mut x = 16.0;
    for (stage, members) in iteration.plan.stages.iter().enumerate().take(COLOURS.len() + 2) {
        let nodes = if members.len() == 1 { "node" } else { "nodes" };
        let text = format!("{} ({} {nodes})", stage_name(stage), members.len());
        svg.path("", &format!("fill:{}", colour(stage)), &format!("M{x:.1} 57h14v12h-14z"), &text);
        svg.text("soft", (x + 19.0, 67.0), &text);
        x += 34.0 + 5.9 * text.chars().count() as f64;
    }
}

/// From red for the slowest link over amber to blue for the fastest, by the logarithm of the bandwidth.
fn hue(bytes_per_s: f64, range: (f64, f64)) -> String {
    const RED: [f64; 3] = [186.0, 38.0, 44.0];
    const AMBER: [f64; 3] = [238.0, 172.0, 66.0];
    const BLUE: [f64; 3] = [38.0, 112.0, 190.0];
    let (low, high) = range;
    let share = if high > low { (bytes_per_s.log10() - low) / (high - low) } else { 1.0 };
    let (from, to, part) =
        if share < 0.5 { (RED, AMBER, 2.0 * share) } else { (AMBER, BLUE, 2.0 * share - 1.0) };
    let mixed = [0, 1, 2].map(|channel| from[channel] + part * (to[channel] - from[channel]));
    format!("rgb({:.0} {:.0} {:.0})", mixed[0], mixed[1], mixed[2])
}

/// Width of a link with a share of the busiest link's traffic.
fn width(share: f64) -> f64 {
    1.2 + 13.0 * share
}

/// Logarithms of the slowest and the fastest bandwidth in use between regions.
fn bandwidths(regions: &Regions) -> (f64, f64) {
    let used = regions.flows.iter().filter(|flow| flow.a != flow.b);
    let logs = used.map(|flow| flow.link.bandwidth_bytes_per_s.log10());
    logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| (low.min(log), high.max(log)))
}

fn tip(regions: &Regions, flow: &Flow) -> String {
    format!(
        "{} – {}: {} transfers, {} an iteration; {}, {:.0} ms",
        regions.names[flow.a],
        regions.names[flow.b],
        flow.transfers,
        bytes(flow.bytes),
        bandwidth(flow.link.bandwidth_bytes_per_s),
        1000.0 * flow.link.latency_s
    )
}

fn draw_links(svg: &mut Svg, regions: &Regions, angles: &[f64]) {
    let (most, range) = (regions.most(), bandwidths(regions));
    for flow in regions.flows.iter().filter(|flow| flow.a != flow.b).rev() {
        let (from, to) = (stand(angles[flow.a], RADIUS), stand(angles[flow.b], RADIUS));
        // Chords bend towards the centre, the more the farther apart their ends are.
        let apart = ((angles[flow.a] - angles[flow.b]).cos() - 1.0) / -2.0;
        let pull = 0.25 + 0.45 * apart;
        let mean = (f64::midpoint(from.0, to.0), f64::midpoint(from.1, to.1));
        let bend = (mean.0 + pull * (CENTRE.0 - mean.0), mean.1 + pull * (CENTRE.1 - mean.1));
        let d = format!("M{:.1} {:.1}Q{:.1} {:.1} {:.1} {:.1}", from.0, from.1, bend.0, bend.1, to.0, to.1);
        let (hue, width) = (hue(flow.link.bandwidth_bytes_per_s, range), width(flow.bytes / most));
        let style = format!("stroke:{hue};stroke-width:{width:.1};opacity:.62");
        svg.path("link", &style, &d, &tip(regions, flow));
    }
}

fn draw_regions(svg: &mut Svg, iteration: &PlannedIteration, regions: &Regions, angles: &[f64]) {
    for (region, nodes) in regions.nodes.iter().enumerate() {
        let angle = angles[region];
        let at = stand(angle, RADIUS);
        let inside = regions.flows.iter().find(|flow| flow.a == region && flow.b == region);
        let within = inside.map_or(String::new(), |flow| format!("; inside: {}", tip(regions, flow)));
        svg.dot("hub", at, 7.0, &format!("{}: {} nodes{within}", regions.names[region], nodes.len()));
        // Chips stand outside of the ring, in rows of three; the name beyond them.
        let columns = nodes.len().clamp(1, 3);
        let rows = nodes.len().div_ceil(columns);
        let (width, height) = (columns as f64 * (CHIP + 3.0), rows as f64 * (CHIP + 3.0));
        let (dx, dy) = (angle.cos(), angle.sin());
        let centre = (at.0 + dx * (width / 2.0 + 16.0), at.1 + dy * (height / 2.0 + 18.0));
        for (index, (stage, node)) in nodes.iter().enumerate() {
            let x = centre.0 - width / 2.0 + (index % columns) as f64 * (CHIP + 3.0);
            let y = centre.1 - height / 2.0 + (index / columns) as f64 * (CHIP + 3.0);
            let busy = iteration.evaluation.busy_us.get(*node as usize).copied().unwrap_or(0) as f64;
            let tip = format!(
                "node {node}: {}, busy {:.0} %",
                stage_name(*stage),
                100.0 * busy / (iteration.evaluation.makespan_us as f64).max(1.0)
            );
            let d = format!("M{x:.1} {y:.1}h{CHIP}v{CHIP}h-{CHIP}z");
            svg.path("chip", &format!("fill:{}", colour(*stage)), &d, &tip);
            let sign = if *stage == 0 { "O".to_owned() } else { stage.to_string() };
            svg.raw(&format!(
                "<text class=\"middle strong\" style=\"fill:#fff;pointer-events:none\" x=\"{:.1}\" y=\"{:.1}\">{sign}</text>\
                 <text class=\"middle\" style=\"fill:#fff;font-size:8px;pointer-events:none\" x=\"{:.1}\" y=\"{:.1}\">{node}</text>",
                x + CHIP / 2.0,
                y + 13.0,
                x + CHIP / 2.0,
                y + 22.5
            ));
        }
        let name = short(regions.names[region], 18);
        let below = dy > 0.35;
        let y = if below { centre.1 + height / 2.0 + 12.0 } else { centre.1 - height / 2.0 - 6.0 };
        svg.text("middle strong halo", (centre.0 - 1.5, y), &name);
    }
}

fn bytes(count: f64) -> String {
    match count {
        count if count >= 1e9 => format!("{:.2} GB", count / 1e9),
        count if count >= 1e6 => format!("{:.0} MB", count / 1e6),
        count => format!("{:.0} kB", count / 1e3),
    }
}

fn bandwidth(bytes_per_s: f64) -> String {
    match bytes_per_s {
        rate if rate >= 1e9 => format!("{:.1} GB/s", rate / 1e9),
        rate if rate >= 1e7 => format!("{:.0} MB/s", rate / 1e6),
        rate => format!("{:.1} MB/s", rate / 1e6),
    }
}

/// The busiest links as a table, and what width and colour mean.
fn draw_list(svg: &mut Svg, regions: &Regions) {
    let x = 880.0;
    let columns = [x + 202.0, x + 254.0, x + 290.0, x + 346.0];
    let mut y = 118.0;
    let total: f64 = regions.flows.iter().filter(|flow| flow.a != flow.b).map(|flow| flow.bytes).sum();
    let shown = regions.flows.iter().filter(|flow| flow.a != flow.b).count().min(LISTED);
    svg.text("strong", (x, y), &format!("Busiest links (of {} between regions an iteration)", bytes(total)));
    y += 20.0;
    for (at, head) in columns.iter().zip(["bandwidth", "latency", "sent", "traffic"]) {
        svg.text("soft end small", (*at, y), head);
    }
    y += 6.0;
    svg.line("rule", (x, y), (columns[3], y));
    let range = bandwidths(regions);
    for flow in regions.flows.iter().filter(|flow| flow.a != flow.b).take(LISTED) {
        y += 17.0;
        let style = format!("fill:{}", hue(flow.link.bandwidth_bytes_per_s, range));
        svg.path("", &style, &format!("M{x:.1} {:.1}h10v10h-10z", y - 9.0), &tip(regions, flow));
        let names = format!("{} – {}", short(regions.names[flow.a], 10), short(regions.names[flow.b], 10));
        svg.text("", (x + 15.0, y), &names);
        let figures = [
            bandwidth(flow.link.bandwidth_bytes_per_s),
            format!("{:.0} ms", 1000.0 * flow.link.latency_s),
            flow.transfers.to_string(),
            bytes(flow.bytes),
        ];
        for (at, figure) in columns.iter().zip(figures) {
            svg.text("end", (*at, y), &figure);
        }
    }
    y += 8.0;
    svg.line("rule", (x, y), (columns[3], y));
    let inside: f64 = regions.flows.iter().filter(|flow| flow.a == flow.b).map(|flow| flow.bytes).sum();
    let rest: f64 = total
        - regions
            .flows
            .iter()
            .filter(|flow| flow.a != flow.b)
            .take(shown)
            .map(|flow| flow.bytes)
            .sum::<f64>();
    y += 17.0;
    svg.text("soft", (x, y), &format!("{} over other links, {} inside regions", bytes(rest), bytes(inside)));
    y += 34.0;
    svg.text("strong", (x, y), "How to read");
    for line in [
        "O: origin (stage 0); a number: that stage; small: the node.",
        "Links: traffic of an iteration, both ways, by width;",
        "bandwidth (of the slower way) by colour.",
    ] {
        y += 17.0;
        svg.text("soft", (x, y), line);
    }
    if range.0.is_finite() {
        for (place, share) in [0.25, 0.5, 1.0].into_iter().enumerate() {
            let at = x + 70.0 * place as f64;
            let style = format!("stroke:var(--rule);stroke-width:{:.1}", width(share));
            svg.path("link", &style, &format!("M{:.1} {:.1}h42", at + 8.0, y + 20.0), "");
            svg.text("soft small middle", (at + 29.0, y + 42.0), &bytes(share * regions.most()));
        }
        y += 58.0;
        let steps = 20;
        for step in 0..steps {
            let share = (f64::from(step) + 0.5) / f64::from(steps);
            let bytes_per_s = 10_f64.powf(range.0 + share * (range.1 - range.0));
            let d = format!("M{:.1} {y:.1}h10.5v10h-10.5z", x + 10.0 * f64::from(step));
            svg.path("", &format!("fill:{}", hue(bytes_per_s, range)), &d, "");
        }
        svg.text("soft small", (x, y + 22.0), &bandwidth(10_f64.powf(range.0)));
        svg.text("soft small end", (x + 200.0, y + 22.0), &bandwidth(10_f64.powf(range.1)));
    }
}
