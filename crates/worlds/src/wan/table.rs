//! The table of `--wan`: regions, the links between them, and who is where.

use super::{LinkChance, REGIONS_MAX, RegionView};
use crate::text::{FILE_BYTES_MAX, from_json};
use serde::Deserialize;
use serde::de::IgnoredAny;
use skipstone_planner::{Link, Regions, Way};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use thiserror::Error;

/// The tables that come with the program: name and text.
pub const BUILT_IN: [(&str, &str); 1] = [("gcp12", include_str!("../../data/gcp12.json"))];

/// The longest latency, in seconds: handshakes are to end in time.
const LATENCY_S_MAX: f64 = 10.0;

/// The region of a table that names none.
const ANYWHERE: &str = "anywhere";

/// What is wrong with a table, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WanError {
    /// It can't be read.
    #[error(
        "there is no table of this name, and no such file ({0}); pass gcp12, or a JSON file {{\"regions\", \"node_regions\"}}"
    )]
    Read(#[source] io::Error),
    /// It is no table.
    #[error(
        "{0}; write {{\"regions\": {{\"intra\", \"links\"}}, \"node_regions\"}} with the fields of an instance"
    )]
    Parse(String),
    /// A number out of its range.
    #[error("`{field}` is {value}; it must be {must}")]
    Number {
        /// The field.
        field: String,
        /// Its value.
        value: f64,
        /// What is allowed.
        must: &'static str,
    },
    /// Two links of one pair differ.
    #[error(
        "{a} and {b} have two links that differ; keep one, and say what is different the other way in its `back`"
    )]
    LinkTwice {
        /// One region.
        a: String,
        /// The other.
        b: String,
    },
    /// A pair without a link.
    #[error("there is no link between {a} and {b}; add it to `regions.links`")]
    MissingLink {
        /// One region.
        a: String,
        /// The other.
        b: String,
    },
    /// A region that no link names.
    #[error("`{field}` names {region}, which no link leads to; the regions are {known}")]
    UnknownRegion {
        /// The field.
        field: &'static str,
        /// The name.
        region: String,
        /// Those that there are.
        known: String,
    },
    /// Too many regions.
    #[error("the table has {0} regions; at most 1000 are possible")]
    TooManyRegions(usize),
    /// Nodes without a region where others have one.
    #[error("`nodes` gives {what} to some nodes only; give one to all, or to none")]
    SomeNodes {
        /// What.
        what: &'static str,
    },
}

/// A table as it is written. A planner's instance is one too: what is of no concern here is passed over, and anything
/// else is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "fields of an instance that say nothing about links and speeds")]
struct Written {
    regions: Regions,
    #[serde(default)]
    node_regions: Vec<String>,
    #[serde(default)]
    nodes: Vec<WrittenNode>,
    coordinator_region: Option<String>,
    #[serde(default)]
    link_overhead_s: f64,
    #[serde(default)]
    link_serial: bool,
    #[serde(default)]
    task_gap_s: f64,
    backward_ratio: Option<f64>,
    loss_ratio: Option<f64>,
    schema: Option<IgnoredAny>,
    name: Option<IgnoredAny>,
    note: Option<IgnoredAny>,
    n_stages: Option<IgnoredAny>,
    stage_sizes: Option<IgnoredAny>,
    layers_per_stage: Option<IgnoredAny>,
    origin_layers: Option<IgnoredAny>,
    path_len: Option<IgnoredAny>,
    skip_ratio: Option<IgnoredAny>,
    samples_per_mb: Option<IgnoredAny>,
    activation_bytes_per_sample: Option<IgnoredAny>,
    param_bytes_per_stage: Option<IgnoredAny>,
    microbatches_per_origin: Option<IgnoredAny>,
    total_microbatches: Option<IgnoredAny>,
    waves: Option<IgnoredAny>,
    edge_swaps: Option<IgnoredAny>,
    stage_visits_max: Option<IgnoredAny>,
    dp_allreduce_max_s: Option<IgnoredAny>,
    swap: Option<IgnoredAny>,
    max_jump: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "fields of an instance that say nothing about links and speeds")]
struct WrittenNode {
    id: Option<IgnoredAny>,
    region: Option<String>,
    compute_s_per_layer_sample: Option<f64>,
    memory: Option<IgnoredAny>,
}

/// Regions, the links between them, where nodes are, and how fast they compute.
#[derive(Debug, Clone, PartialEq)]
pub struct WanTable {
    names: Vec<String>,
    /// The link of each directed pair, by `from × regions + to`.
    links: Vec<Link>,
    node_regions: Vec<u16>,
    coordinator: u16,
    /// Seconds of a tensor's way beside latency and bytes.
    pub overhead_s: f64,
    /// Whether tensors between two nodes wait for each other.
    pub serial: bool,
    /// Seconds that every task takes beside its compute.
    pub task_gap_s: f64,
    /// A backward over a forward.
    pub backward_ratio: f64,
    /// Head and loss over a relay's forward.
    pub loss_ratio: f64,
    /// Seconds of a forward of one layer and sample, by node; empty if the table doesn't say.
    pub node_speeds: Vec<f64>,
}

impl WanTable {
    /// A backward over a forward, where no table says.
    pub const BACKWARD_RATIO: f64 = 2.0;
    /// Head and loss over a relay's forward, where no table says.
    pub const LOSS_RATIO: f64 = 0.25;

    /// The table of this name, or in the file of this name.
    ///
    /// # Errors
    /// See [`WanError`].
    pub fn load(name: &str) -> Result<Self, WanError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::from_json(text);
        }
        let text = skipstone_files::read_text(Path::new(name), FILE_BYTES_MAX).map_err(WanError::Read)?;
        Self::from_json(&text)
    }

    /// The table in a JSON text.
    ///
    /// # Errors
    /// See [`WanError`].
    pub fn from_json(text: &str) -> Result<Self, WanError> {
        let written: Written = from_json(text).map_err(WanError::Parse)?;
        let names = region_names(&written);
        if names.len() > REGIONS_MAX {
            return Err(WanError::TooManyRegions(names.len()));
        }
        let placed = if written.node_regions.is_empty() {
            all_or_none("a region", written.nodes.iter().map(|node| node.region.clone()))?
        } else {
            written.node_regions.clone()
        };
        let of = |field, region: &str| {
            let found = names.iter().position(|name| name == region);
            found.map(|place| place as u16).ok_or_else(|| WanError::UnknownRegion {
                field,
                region: region.to_owned(),
                known: names.join(", "),
            })
        };
        let node_regions = if placed.is_empty() {
            (0..names.len() as u16).collect()
        } else {
            placed.iter().map(|name| of("node_regions", name)).collect::<Result<Vec<_>, _>>()?
        };
        let coordinator = match &written.coordinator_region {
            Some(name) => of("coordinator_region", name)?,
            None => 0,
        };
        let links = links(&written.regions, &names, &node_regions, coordinator)?;
        let table = Self {
            links,
            node_regions,
            coordinator,
            overhead_s: written.link_overhead_s,
            serial: written.link_serial,
            task_gap_s: written.task_gap_s,
            backward_ratio: written.backward_ratio.unwrap_or(Self::BACKWARD_RATIO),
            loss_ratio: written.loss_ratio.unwrap_or(Self::LOSS_RATIO),
            node_speeds: all_or_none(
                "compute_s_per_layer_sample",
                written.nodes.iter().map(|node| node.compute_s_per_layer_sample),
            )?,
            names,
        };
        table.check_numbers()?;
        Ok(table)
    }

    fn check_numbers(&self) -> Result<(), WanError> {
        for (field, value, most) in [
            ("link_overhead_s", self.overhead_s, LATENCY_S_MAX),
            ("task_gap_s", self.task_gap_s, 1e6),
            ("backward_ratio", self.backward_ratio, 1e6),
            ("loss_ratio", self.loss_ratio, 1e6),
        ] {
            if !(0.0..=most).contains(&value) {
                let field = field.to_owned();
                return Err(WanError::Number {
                    field,
                    value,
                    must: "a number from 0 up, and not beyond all use",
                });
            }
        }
        for (place, value) in self.node_speeds.iter().copied().enumerate() {
            if !(value > 0.0 && value <= 1e6) {
                let field = format!("nodes[{place}].compute_s_per_layer_sample");
                return Err(WanError::Number { field, value, must: "above 0 and at most 1e6" });
            }
        }
        Ok(())
    }

    /// Names of the regions.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The region of this name.
    pub fn region(&self, name: &str) -> Option<u16> {
        self.names.iter().position(|known| known == name).map(|place| place as u16)
    }

    /// The region of the node at this place in the swarm, and of each that takes its place: as the table says, and round
    /// again past its end.
    pub fn region_of(&self, place: usize) -> u16 {
        self.node_regions[place % self.node_regions.len()]
    }

    /// The coordinator's region.
    pub fn coordinator(&self) -> u16 {
        self.coordinator
    }

    /// The link between two regions.
    pub fn link(&self, a: u16, b: u16) -> Link {
        self.links[usize::from(a) * self.names.len() + usize::from(b)]
    }

    /// What the link between two regions comes to in the mean.
    pub fn way(&self, a: u16, b: u16) -> Way {
        self.link(a, b).way(&self.link(b, a))
    }

    /// What chance does on the link between two regions; none: nothing.
    pub fn chance(&self, a: u16, b: u16) -> Option<LinkChance> {
        let (link, way) = (self.link(a, b), self.way(a, b));
        (link.jitter_s > 0.0 || link.loss > 0.0).then(|| LinkChance {
            jitter_s: link.jitter_s,
            loss: link.loss,
            round_trip_s: way.round_trip_s,
            packets_max: way.packets_at_risk(f64::INFINITY),
        })
    }

    /// The links of a process in `region`, of a run with this seed.
    pub fn view(&self, region: u16, seed: u64) -> RegionView {
        let regions = || 0..self.names.len() as u16;
        let figures = |to| (self.link(region, to).latency_s, self.way(region, to).bandwidth_bytes_per_s);
        RegionView {
            region,
            coordinator: self.coordinator,
            links: regions().map(figures).collect(),
            back_s: regions().map(|from| self.link(from, region).latency_s).collect(),
            chances: regions().map(|to| self.chance(region, to)).collect(),
            overhead_s: self.overhead_s,
            serial: self.serial,
            seed,
        }
    }
}

/// Regions in the order in which the table names them.
fn region_names(written: &Written) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for name in written.regions.links.iter().flat_map(|link| [&link.a, &link.b]) {
        if known.insert(name) {
            names.push(name.clone());
        }
    }
    if names.is_empty() {
        // A single region has no links.
        let nodes = written.nodes.iter().filter_map(|node| node.region.as_ref());
        names.push(
            written.node_regions.iter().chain(nodes).next().map_or(ANYWHERE, String::as_str).to_owned(),
        );
    }
    names
}

/// All of them, or nothing if none is there.
fn all_or_none<T>(what: &'static str, items: impl Iterator<Item = Option<T>>) -> Result<Vec<T>, WanError> {
    let (some, none): (Vec<_>, Vec<_>) = items.partition(Option::is_some);
    if !some.is_empty() && !none.is_empty() {
        return Err(WanError::SomeNodes { what });
    }
    Ok(some.into_iter().flatten().collect())
}

/// The matrix of links. Pairs of regions in which anybody is must have one.
fn links(
    regions: &Regions,
    names: &[String],
    node_regions: &[u16],
    coordinator: u16,
) -> Result<Vec<Link>, WanError> {
    check_link("regions.intra", &regions.intra)?;
    let place: BTreeMap<&str, usize> =
        names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let mut cells: Vec<Option<Link>> = vec![None; names.len() * names.len()];
    for (index, entry) in regions.links.iter().enumerate() {
        check_link(&format!("regions.links[{index}] ({}–{})", entry.a, entry.b), &entry.link)?;
        check_link(&format!("regions.links[{index}].back ({}–{})", entry.b, entry.a), &entry.back())?;
        let (a, b) = (place[entry.a.as_str()], place[entry.b.as_str()]);
        for (cell, link) in [(a * names.len() + b, entry.link), (b * names.len() + a, entry.back())] {
            if cells[cell].replace(link).is_some_and(|other| other != link) {
                return Err(WanError::LinkTwice { a: entry.a.clone(), b: entry.b.clone() });
            }
        }
    }
    let mut used: Vec<u16> = node_regions.iter().copied().chain([coordinator]).collect();
    used.sort_unstable();
    used.dedup();
    for (index, a) in used.iter().enumerate() {
        for b in &used[index + 1..] {
            if cells[usize::from(*a) * names.len() + usize::from(*b)].is_none() {
                let name = |region: u16| names[usize::from(region)].clone();
                return Err(WanError::MissingLink { a: name(*a), b: name(*b) });
            }
        }
    }
    // Nobody is where no link leads; the diagonal is the link within a region.
    Ok(cells.into_iter().map(|cell| cell.unwrap_or(regions.intra)).collect())
}

fn check_link(field: &str, link: &Link) -> Result<(), WanError> {
    if !(0.0..=LATENCY_S_MAX).contains(&link.latency_s) {
        let field = format!("{field}.latency_s");
        return Err(WanError::Number { field, value: link.latency_s, must: "between 0 and 10 seconds" });
    }
    if !(0.0..=LATENCY_S_MAX).contains(&link.jitter_s) {
        let field = format!("{field}.jitter_s");
        return Err(WanError::Number { field, value: link.jitter_s, must: "between 0 and 10 seconds" });
    }
    if !(0.0..=Link::LOSS_MAX).contains(&link.loss) {
        let must = "a share of packets between 0 and 0.5; over links that lose more nothing trains";
        return Err(WanError::Number { field: format!("{field}.loss"), value: link.loss, must });
    }
    if !(link.bandwidth_bytes_per_s >= 1.0 && link.bandwidth_bytes_per_s <= 1e15) {
        let (field, value) = (format!("{field}.bandwidth_Bps"), link.bandwidth_bytes_per_s);
        return Err(WanError::Number { field, value, must: "at least 1 byte per second, and finite" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_table_is_whole_and_mended() {
        let table = WanTable::load("gcp12").unwrap();
        assert_eq!((table.names().len(), table.names()[0].as_str()), (12, "Australia"));
        let link = |a, b| table.link(table.region(a).unwrap(), table.region(b).unwrap());
        assert_eq!(link("NL", "London"), link("London", "NL"));
        assert!((link("NL", "London").bandwidth_bytes_per_s - 25_427_968.0).abs() < 1.0);
        let slowest = (0..12)
            .flat_map(|a| (0..12).map(move |b| (a, b)))
            .map(|(a, b)| table.link(a, b).bandwidth_bytes_per_s)
            .fold(f64::INFINITY, f64::min);
        assert!(slowest > 9e6, "no slip is left: {slowest}");
        assert_eq!((table.region_of(0), table.region_of(13), table.coordinator()), (0, 1, 0));
    }

    const GOOD: &str = r#"{"regions": {"intra": {"latency_s": 0, "bandwidth_Bps": 1e9}, "links": [
        {"a": "x", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 1e6},
        {"a": "z", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 1e6}]},
        "node_regions": ["y", "x", "x"], "coordinator_region": "x"}"#;

    #[test]
    fn nodes_are_where_the_table_says_and_unused_pairs_may_be_missing() {
        let table = WanTable::from_json(GOOD).unwrap();
        let names: Vec<_> =
            (0..4).map(|place| table.names()[usize::from(table.region_of(place))].as_str()).collect();
        assert_eq!(names, ["y", "x", "x", "y"]);
        assert_eq!(table.coordinator(), table.region("x").unwrap());
        let one = r#"{"regions": {"intra": {"latency_s": 0.01, "bandwidth_Bps": 1e9}}}"#;
        let table = WanTable::from_json(one).unwrap();
        assert_eq!((table.names().len(), table.region_of(5)), (1, 0));
    }

    #[test]
    fn each_way_of_a_link_is_as_the_table_says() {
        let text = GOOD.replacen(
            "\"bandwidth_Bps\": 1e6}",
            "\"bandwidth_Bps\": 2.5e6, \"jitter_s\": 0.01, \"back\": {\"bandwidth_Bps\": 2.5e7, \"loss\": 0.02}}",
            1,
        );
        let table = WanTable::from_json(&text).unwrap();
        let (x, y) = (table.region("x").unwrap(), table.region("y").unwrap());
        let there = Link { jitter_s: 0.01, ..Link::steady(0.1, 2.5e6) };
        assert_eq!(table.link(x, y), there);
        assert_eq!(table.link(y, x), Link { loss: 0.02, bandwidth_bytes_per_s: 2.5e7, ..there });
        // What is seen from y: its bandwidth is what loss leaves.
        let view = table.view(y, 3);
        let most = 1200.0 / 0.21 * 1.5_f64.sqrt() / 0.02_f64.sqrt();
        assert!((view.links[usize::from(x)].1 - most).abs() < 1e-6 * most, "{view:?}");
        let chance = view.chances[usize::from(x)].unwrap();
        assert_eq!((chance.jitter_s, chance.loss, chance.packets_max), (0.01, 0.02, 9));
        assert_eq!(table.chance(x, x), None);
        // The same pair said the other way round is the same link.
        let (there, back) =
            ("\"latency_s\": 0.1, \"bandwidth_Bps\": 1e6}", "\"latency_s\": 0.1, \"bandwidth_Bps\": 1e6");
        let twice = |more: &str| {
            let text = GOOD.replacen(there, &format!("{back}, \"back\": {{\"loss\": 0.1}}}}"), 1);
            let z = "{\"a\": \"z\", \"b\": \"y\"";
            WanTable::from_json(&text.replacen(z, &format!("{{\"a\": \"y\", \"b\": \"x\", {more}}}, {z}"), 1))
        };
        let same = "\"latency_s\": 0.1, \"bandwidth_Bps\": 1e6, \"loss\": 0.1, \"back\": {\"loss\": 0}";
        twice(same).unwrap();
        assert!(
            twice("\"latency_s\": 0.1, \"bandwidth_Bps\": 1e6").unwrap_err().to_string().contains("`back`")
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_name() {
        for (bad, good, says) in [
            ("[\"y\", \"q\"", "[\"y\", \"x\"", "q, which no link leads to; the regions are x, y, z"),
            ("[\"z\", \"x\"", "[\"y\", \"x\"", "no link between x and z"),
            ("\"latency_s\": -1", "\"latency_s\": 0,", "intra.latency_s` is -1"),
            ("\"latency_s\": NaN", "\"latency_s\": 0,", "line 1"),
            ("\"bandwidth_Bps\": 0}", "\"bandwidth_Bps\": 1e9}", "bandwidth_Bps` is 0"),
            ("\"bandwidth_Bps\": 1e999}", "\"bandwidth_Bps\": 1e9}", "line 1"),
            ("\"node_region\"", "\"node_regions\"", "unknown field `node_region`"),
            ("\"coordinator_region\": \"w\"", "\"coordinator_region\": \"x\"", "names w"),
            ("{\"a\": \"y\", \"b\": \"x\"", "{\"a\": \"z\", \"b\": \"y\"", ""),
            ("\"loss_ratio\": -2, \"regions\"", "\"regions\"", "loss_ratio` is -2"),
            (
                "\"jitter_s\": -1, \"latency_s\": 0",
                "\"latency_s\": 0,",
                "intra.jitter_s` is -1; it must be between 0",
            ),
            ("\"loss\": 1, \"latency_s\": 0", "\"latency_s\": 0,", "intra.loss` is 1; it must be a share"),
            ("\"loss\": NaN, \"latency_s\": 0", "\"latency_s\": 0,", "line 1"),
            ("\"back\": {\"loss\": 0.9}, \"a\": \"x\"", "\"a\": \"x\"", "links[0].back (y–x).loss` is 0.9"),
            (
                "\"back\": {\"bandwidth_Bps\": 0}, \"a\": \"x\"",
                "\"a\": \"x\"",
                "back (y–x).bandwidth_Bps` is 0",
            ),
            ("\"back\": {\"speed\": 1}, \"a\": \"x\"", "\"a\": \"x\"", "unknown field `speed`"),
        ] {
            let good = good.trim_end_matches(',');
            assert!(GOOD.contains(good), "{good}");
            let text = GOOD.replacen(good, bad, 1);
            match WanTable::from_json(&text) {
                Err(why) => assert!(why.to_string().contains(says), "{why}, not {says}"),
                Ok(_) => assert!(says.is_empty(), "{bad} is taken"),
            }
        }
        assert!(WanTable::load("gcp13").unwrap_err().to_string().contains("gcp12"));
        let twice = GOOD.replace(
            "{\"a\": \"z\", \"b\": \"y\", \"latency_s\": 0.1",
            "{\"a\": \"y\", \"b\": \"x\", \"latency_s\": 0.2",
        );
        assert!(WanTable::from_json(&twice).unwrap_err().to_string().contains("two links"));
    }
}
