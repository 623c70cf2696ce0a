//! The nodes that a run could have: where each is, how fast, and what it can hold. `docs/node-list.md` is for people.

use crate::text::{FILE_BYTES_MAX, from_json};
use crate::wan::{WanError, WanTable};
use serde::Deserialize;
use serde::de::IgnoredAny;
use skipstone_planner::{Link, RegionLink, Regions};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use thiserror::Error;

/// Most nodes of a list: a run has no more.
const NODES_MAX: usize = 1024;
/// Longest name of a node or region, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// What is wrong with a list of nodes, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeListError {
    /// It can't be read.
    #[error("can't be read ({0}); check the path and its permissions")]
    Read(#[source] io::Error),
    /// It is no such list.
    #[error(
        "{0}; write {{\"nodes\": [{{\"region\", \"flop_per_s\", \"memory_bytes\"}}], \"regions\"}}, see docs/node-list.md"
    )]
    Parse(String),
    /// How many nodes there are.
    #[error("`nodes` has {found} entries; it must have 1 to {NODES_MAX}")]
    Count {
        /// Its length.
        found: usize,
    },
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
    /// Not exactly one of the fields that say the same.
    #[error("`nodes[{place}]` has {found}; give exactly one of flop_per_s and compute_s_per_layer_sample")]
    Speed {
        /// The node's place in the list.
        place: usize,
        /// What it has.
        found: &'static str,
    },
    /// No memory.
    #[error(
        "`nodes[{place}]` doesn't say its memory; give memory_bytes, or memory (microbatches between forward and backward), or both"
    )]
    NoMemory {
        /// The node's place in the list.
        place: usize,
    },
    /// Two nodes of one id.
    #[error(
        "`nodes[{place}].id` is {id}, as that of nodes[{first}]; give each node an id of its own, or none to all"
    )]
    IdTwice {
        /// The node's place in the list.
        place: usize,
        /// The other's.
        first: usize,
        /// The id.
        id: String,
    },
    /// A name that is none.
    #[error("`{field}` is empty or longer than {NAME_BYTES_MAX} bytes; give it a short name")]
    Name {
        /// The field.
        field: String,
    },
    /// No links.
    #[error("there is no `regions`; add it, or pass --wan TABLE (gcp12, or a file with `regions`)")]
    NoRegions,
    /// A pair without a link.
    #[error("there is no link between {a} and {b}; add it to `regions.links`, or to the table of --wan")]
    MissingLink {
        /// One region.
        a: String,
        /// The other.
        b: String,
    },
    /// Two links of one pair differ.
    #[error("`regions.links` has two links of {a} and {b} that differ; keep one")]
    LinkTwice {
        /// One region.
        a: String,
        /// The other.
        b: String,
    },
    /// `--wan` is no table.
    #[error("--wan {name}: {why}")]
    Wan {
        /// What was given.
        name: String,
        /// What is wrong, and what to do.
        why: WanError,
    },
}

/// The list as it is written. A planner's instance is one too: what is of no concern here is passed over, anything else is
/// refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "fields of an instance that say nothing about nodes and links")]
struct Written {
    nodes: Vec<WrittenNode>,
    regions: Option<Regions>,
    #[serde(default)]
    link_overhead_s: f64,
    backward_ratio: Option<f64>,
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
    loss_ratio: Option<IgnoredAny>,
    link_serial: Option<IgnoredAny>,
    task_gap_s: Option<IgnoredAny>,
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
struct WrittenNode {
    id: Option<WrittenId>,
    region: String,
    flop_per_s: Option<f64>,
    compute_s_per_layer_sample: Option<f64>,
    memory_bytes: Option<f64>,
    memory: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum WrittenId {
    Number(u64),
    Name(String),
}

/// How fast a node computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NodeSpeed {
    /// Floating-point operations a second, as it reaches them in training.
    FlopPerS(f64),
    /// Seconds of a forward of one layer of the model over one sequence.
    LayerSampleS(f64),
}

/// A node that a run could have.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedNode {
    /// What it is called: as the list says, or its place.
    pub name: String,
    /// Its region.
    pub region: String,
    /// How fast it computes.
    pub speed: NodeSpeed,
    /// Bytes that it has for a stage; none = enough.
    pub memory_bytes: Option<u64>,
    /// Microbatches that it can hold between forward and backward; none = as many as fit its bytes.
    pub slots: Option<u32>,
}

/// Nodes and the links between them.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeList {
    /// The nodes.
    pub nodes: Vec<ListedNode>,
    /// The links between their regions.
    pub regions: Regions,
    /// Seconds of a tensor's way beside latency and bytes.
    pub link_overhead_s: f64,
    /// A backward over a forward.
    pub backward_ratio: f64,
}

impl NodeList {
    /// The list in a file; its links, or where it has none those of the table `wan`.
    ///
    /// # Errors
    /// See [`NodeListError`].
    pub fn load(path: &Path, wan: Option<&str>) -> Result<Self, NodeListError> {
        let text = skipstone_files::read_text(path, FILE_BYTES_MAX).map_err(NodeListError::Read)?;
        Self::from_json(&text, wan)
    }

    /// The list in a JSON text; a table in `wan` goes before its links.
    ///
    /// # Errors
    /// See [`NodeListError`].
    pub fn from_json(text: &str, wan: Option<&str>) -> Result<Self, NodeListError> {
        let written: Written = from_json(text).map_err(NodeListError::Parse)?;
        let count = written.nodes.len();
        if !(1..=NODES_MAX).contains(&count) {
            return Err(NodeListError::Count { found: count });
        }
        let mut overhead_s = written.link_overhead_s;
        let regions = match (wan, written.regions) {
            (Some(name), _) => {
                let why = |why| NodeListError::Wan { name: name.to_owned(), why };
                let table = WanTable::load(name).map_err(why)?;
                overhead_s = table.overhead_s;
                of_table(&table)
            }
            (None, Some(regions)) => regions,
            (None, None) => return Err(NodeListError::NoRegions),
        };
        number("link_overhead_s", overhead_s, 0.0, 10.0, "between 0 and 10 seconds")?;
        let backward_ratio = written.backward_ratio.unwrap_or(WanTable::BACKWARD_RATIO);
        number("backward_ratio", backward_ratio, 0.0, 100.0, "between 0 and 100")?;
        let mut nodes = Vec::with_capacity(count);
        let mut ids = BTreeMap::new();
        for (place, node) in written.nodes.into_iter().enumerate() {
            let node = listed(place, node)?;
            if let Some(first) = ids.insert(node.name.clone(), place) {
                return Err(NodeListError::IdTwice { place, first, id: node.name });
            }
            nodes.push(node);
        }
        let list = Self { nodes, regions, link_overhead_s: overhead_s, backward_ratio };
        list.check_links()?;
        Ok(list)
    }

    fn check_links(&self) -> Result<(), NodeListError> {
        let check = |field: String, link: Link| {
            let seconds = "between 0 and 10 seconds";
            number(&format!("{field}.latency_s"), link.latency_s, 0.0, 10.0, seconds)?;
            number(&format!("{field}.jitter_s"), link.jitter_s, 0.0, 10.0, seconds)?;
            let must = "a share between 0 and 0.5";
            number(&format!("{field}.loss"), link.loss, 0.0, Link::LOSS_MAX, must)?;
            let must = "at least 1 byte per second, and at most 1e15";
            number(&format!("{field}.bandwidth_Bps"), link.bandwidth_bytes_per_s, 1.0, 1e15, must)
        };
        check("regions.intra".to_owned(), self.regions.intra)?;
        let mut links = BTreeMap::new();
        for (place, entry) in self.regions.links.iter().enumerate() {
            check(format!("regions.links[{place}]"), entry.link)?;
            check(format!("regions.links[{place}].back"), entry.back())?;
            for (a, b, link) in [(&entry.a, &entry.b, entry.link), (&entry.b, &entry.a, entry.back())] {
                if links.insert((a.as_str(), b.as_str()), link).is_some_and(|other| other != link) {
                    return Err(NodeListError::LinkTwice { a: entry.a.clone(), b: entry.b.clone() });
                }
            }
        }
        let mut used: Vec<&str> = self.nodes.iter().map(|node| node.region.as_str()).collect();
        used.sort_unstable();
        used.dedup();
        for (index, a) in used.iter().enumerate() {
            for b in &used[index + 1..] {
                if !links.contains_key(&(*a, *b)) {
                    return Err(NodeListError::MissingLink { a: (*a).to_owned(), b: (*b).to_owned() });
                }
            }
        }
        Ok(())
    }
}

fn listed(place: usize, node: WrittenNode) -> Result<ListedNode, NodeListError> {
    let field = |name: &str| format!("nodes[{place}].{name}");
    let name = match node.id {
        None => place.to_string(),
        Some(WrittenId::Number(number)) => number.to_string(),
        Some(WrittenId::Name(name)) => name,
    };
    for (what, text) in [("id", &name), ("region", &node.region)] {
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            return Err(NodeListError::Name { field: field(what) });
        }
    }
    let speed = match (node.flop_per_s, node.compute_s_per_layer_sample) {
        (Some(flop), None) => {
            let must = "between 1e6 and 1e18 operations a second";
            number(&field("flop_per_s"), flop, 1e6, 1e18, must)?;
            NodeSpeed::FlopPerS(flop)
        }
        (None, Some(seconds)) => {
            let must = "between 1e-9 and 1e4 seconds";
            number(&field("compute_s_per_layer_sample"), seconds, 1e-9, 1e4, must)?;
            NodeSpeed::LayerSampleS(seconds)
        }
        (Some(_), Some(_)) => return Err(NodeListError::Speed { place, found: "both speeds" }),
        (None, None) => return Err(NodeListError::Speed { place, found: "no speed" }),
    };
    if node.memory_bytes.is_none() && node.memory.is_none() {
        return Err(NodeListError::NoMemory { place });
    }
    if let Some(bytes) = node.memory_bytes {
        number(&field("memory_bytes"), bytes, 1.0, 1e15, "between 1 and 1e15 bytes")?;
    }
    if node.memory == Some(0) {
        let must = "at least 1 microbatch";
        return Err(NodeListError::Number { field: field("memory"), value: 0.0, must });
    }
    let memory_bytes = node.memory_bytes.map(|bytes| bytes as u64);
    Ok(ListedNode { name, region: node.region, speed, memory_bytes, slots: node.memory })
}

fn of_table(table: &WanTable) -> Regions {
    let names = table.names();
    let mut links = Vec::with_capacity(names.len() * names.len() / 2);
    for a in 0..names.len() as u16 {
        for b in 0..a {
            let name = |region: u16| names[usize::from(region)].clone();
            links.push(RegionLink::both(name(a), name(b), table.link(a, b), table.link(b, a)));
        }
    }
    Regions { intra: table.link(0, 0), links }
}

fn number(field: &str, value: f64, least: f64, most: f64, must: &'static str) -> Result<(), NodeListError> {
    // NaN is in no range.
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(NodeListError::Number { field: field.to_owned(), value, must })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"nodes": [
        {"id": "a", "region": "x", "flop_per_s": 1e12, "memory_bytes": 8e9},
        {"id": "b", "region": "y", "compute_s_per_layer_sample": 0.5, "memory": 3}],
        "regions": {"intra": {"latency_s": 0, "bandwidth_Bps": 1e9}, "links": [
        {"a": "x", "b": "y", "latency_s": 0.1, "bandwidth_Bps": 1e6}]}}"#;

    #[test]
    fn a_list_is_read() {
        let list = NodeList::from_json(GOOD, None).unwrap();
        assert_eq!(list.nodes[0].speed, NodeSpeed::FlopPerS(1e12));
        assert_eq!((list.nodes[0].memory_bytes, list.nodes[0].slots), (Some(8_000_000_000), None));
        assert_eq!((list.nodes[1].memory_bytes, list.nodes[1].slots), (None, Some(3)));
        assert_eq!((list.nodes[1].name.as_str(), list.nodes[1].region.as_str()), ("b", "y"));
    }

    #[test]
    fn a_table_stands_in_for_links() {
        let text = r#"{"nodes": [{"region": "Japan", "flop_per_s": 1e12, "memory_bytes": 8e9},
                                 {"region": "Taiwan", "flop_per_s": 1e12, "memory_bytes": 8e9}]}"#;
        let list = NodeList::from_json(text, Some("gcp12")).unwrap();
        assert_eq!(list.regions.links.len(), 66);
        assert_eq!(list.nodes[1].name, "1");
        assert!(matches!(NodeList::from_json(text, None), Err(NodeListError::NoRegions)));
        let elsewhere = text.replace("Taiwan", "Atlantis");
        let error = NodeList::from_json(&elsewhere, Some("gcp12")).unwrap_err().to_string();
        assert!(error.contains("Atlantis and Japan"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_field() {
        for (bad, good, says) in [
            ("\"flop_per_s\": 0", "\"flop_per_s\": 1e12", "nodes[0].flop_per_s` is 0"),
            ("\"flop_per_s\": -1e12", "\"flop_per_s\": 1e12", "nodes[0].flop_per_s` is -"),
            ("\"flop_per_s\": NaN", "\"flop_per_s\": 1e12", "nodes[0].flop_per_s: "),
            ("\"flop_per_s\": 1e999", "\"flop_per_s\": 1e12", "line 2"),
            ("\"memory_bytes\": 0", "\"memory_bytes\": 8e9", "nodes[0].memory_bytes` is 0"),
            ("\"memory\": 0", "\"memory\": 3", "nodes[1].memory` is 0"),
            ("\"memory\": -1", "\"memory\": 3", "nodes[1].memory: "),
            ("\"id\": \"a\"", "\"id\": \"b\"", "`nodes[1].id` is a, as that of nodes[0]"),
            ("\"region\": \"z\", \"compute", "\"region\": \"y\", \"compute", "no link between x and z"),
            ("\"region\": \"\", \"compute", "\"region\": \"y\", \"compute", "nodes[1].region` is empty"),
            ("\"latency_s\": -1", "\"latency_s\": 0.1", "regions.links[0].latency_s` is -1"),
            ("\"bandwidth_Bps\": 0", "\"bandwidth_Bps\": 1e6", "regions.links[0].bandwidth_Bps` is 0"),
            ("\"speed\": 3", "\"memory\": 3", "unknown field `speed`"),
            (
                "\"memory_bytes\": 8e9, \"compute_s_per_layer_sample\": 1",
                "\"memory_bytes\": 8e9",
                "both speeds",
            ),
            ("\"memory_bytes\": 8e9", "\"flop_per_s\": 1e12, \"memory_bytes\": 8e9", "no speed"),
            (
                "\"flop_per_s\": 1e12",
                "\"flop_per_s\": 1e12, \"memory_bytes\": 8e9",
                "memory_bytes, or memory",
            ),
        ] {
            assert!(GOOD.contains(good), "{good}");
            let error = NodeList::from_json(&GOOD.replace(good, bad), None).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: `{says}` is not in: {error}");
        }
        assert!(matches!(
            NodeList::from_json(r#"{"nodes": []}"#, Some("gcp12")),
            Err(NodeListError::Count { found: 0 })
        ));
    }
}
