//! A table of what was measured.

use super::LinksError;
use super::word::{Load, Member, RoundTrips};
use crate::wan::WanTable;
use serde::Serialize;
use skipstone_net::PeerId;
use skipstone_planner::{Link, RegionLink, Regions};
use std::collections::BTreeMap;

/// Jitter below this is what machines that are busy add, and no link's.
const JITTER_S_MIN: f64 = 0.002;

/// What was measured, by (from, to).
#[derive(Debug, Default)]
pub(super) struct Measured {
    trips: BTreeMap<(u64, u64), RoundTrips>,
    loads: BTreeMap<(u64, u64), Load>,
}

impl Measured {
    /// A machine's round trips to the others.
    pub(super) fn hear(&mut self, by: PeerId, heard: &[(u64, RoundTrips)]) {
        self.trips.extend(heard.iter().map(|(to, trips)| ((by.0, *to), *trips)));
    }

    /// A load from one machine to another.
    pub(super) fn load(&mut self, from: PeerId, to: PeerId, load: Load) {
        self.loads.insert((from.0, to.0), load);
    }

    /// The link from one machine to another; none if it was not measured.
    fn link(&self, from: u64, to: u64) -> Option<Link> {
        let trips: Vec<_> =
            [(from, to), (to, from)].iter().filter_map(|pair| self.trips.get(pair)).copied().collect();
        let least_s = trips.iter().map(|trips| trips.least_s).reduce(f64::min)?;
        let mean_s = trips.iter().map(|trips| trips.mean_s).sum::<f64>() / trips.len() as f64;
        // Of jitter between 0 and j each way, the mean of both is j.
        let jitter_s = round(mean_s - least_s, 1e4);
        let usable = jitter_s >= JITTER_S_MIN && jitter_s.is_finite();
        Some(Link {
            jitter_s: if usable { jitter_s } else { 0.0 },
            ..Link::steady(
                round(least_s / 2.0, 1e6),
                self.loads.get(&(from, to))?.bytes_per_s().round().max(1.0),
            )
        })
    }
}

fn round(value: f64, per_unit: f64) -> f64 {
    (value * per_unit).round() / per_unit
}

#[derive(Serialize)]
struct Written {
    note: String,
    regions: Regions,
    node_regions: Vec<String>,
    coordinator_region: String,
}

/// The table's text: of links between the same regions, the figures in the middle. The first member is the host, and the
/// second is on its machine.
pub(super) fn table(members: &[Member], measured: &Measured) -> Result<String, LinksError> {
    let mut names: Vec<&str> = members.iter().map(|member| member.region.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let between = |a: &str, b: &str| -> Option<Link> {
        let of = |region: &str| -> Vec<u64> {
            members.iter().filter(|member| member.region == region).map(|member| member.peer).collect()
        };
        let (from, to) = (of(a), of(b));
        let links: Vec<Link> = from
            .iter()
            .flat_map(|from| to.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from != to)
            .filter_map(|(from, to)| measured.link(from, to))
            .collect();
        let middle = |figure: fn(&Link) -> f64| {
            let mut figures: Vec<f64> = links.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied()
        };
        Some(Link {
            latency_s: middle(|link| link.latency_s)?,
            bandwidth_bytes_per_s: middle(|link| link.bandwidth_bytes_per_s)?,
            jitter_s: middle(|link| link.jitter_s)?,
            loss: 0.0,
        })
    };
    let missing = |a: &str, b: &str| LinksError::Table(format!("nothing was measured between {a} and {b}"));
    let host = &members[0].region;
    let intra = between(host, host).ok_or_else(|| missing(host, host))?;
    let mut links = Vec::new();
    for (place, a) in names.iter().enumerate() {
        for b in &names[place + 1..] {
            let there = between(a, b).ok_or_else(|| missing(a, b))?;
            let back = between(b, a).ok_or_else(|| missing(a, b))?;
            links.push(RegionLink::both((*a).to_owned(), (*b).to_owned(), there, back));
        }
    }
    let written = Written {
        note: format!(
            "Measured by skipstone doctor --links between {} machines; latency is half of the shortest round trip, bandwidth that \
             of one stream, loss included.",
            members.len() - 1
        ),
        regions: Regions { intra, links },
        node_regions: members
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != 1)
            .map(|(_, member)| member.region.clone())
            .collect(),
        coordinator_region: host.clone(),
    };
    let text = serde_json::to_string_pretty(&written).map_err(|why| LinksError::Table(why.to_string()))?;
    WanTable::from_json(&text).map_err(|why| LinksError::Table(why.to_string()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(peer: u64, region: &str) -> Member {
        Member { peer, address: String::new(), region: region.to_owned() }
    }

    #[test]
    fn each_way_between_regions_is_told_and_regions_of_several_machines_by_the_middle() {
        let members =
            [member(1, "home"), member(2, "home"), member(3, "far"), member(4, "far"), member(5, "far")];
        let mut measured = Measured::default();
        for from in &members {
            let apart = |to: &Member| if to.region == from.region { 0.001 } else { 0.05 * to.peer as f64 };
            let heard = members
                .iter()
                .filter(|to| to.peer != from.peer)
                .map(|to| (to.peer, RoundTrips { count: 9, least_s: apart(to), mean_s: apart(to) + 0.01 }));
            measured.hear(from.id(), &heard.collect::<Vec<_>>());
            for to in members.iter().filter(|to| to.peer != from.peer) {
                let bytes = if from.region == "home" { 2_000_000 } else { 20_000_000 };
                measured.load(from.id(), to.id(), Load { bytes, seconds: 1.0 });
            }
        }
        let text = table(&members, &measured).unwrap();
        let table = WanTable::from_json(&text).unwrap();
        let (home, far) = (table.region("home").unwrap(), table.region("far").unwrap());
        assert_eq!(table.link(home, far).bandwidth_bytes_per_s, 2e6);
        assert_eq!(table.link(far, home).bandwidth_bytes_per_s, 2e7);
        assert_eq!(table.link(home, home), Link { jitter_s: 0.01, ..Link::steady(0.0005, 2e6) });
        // The second end at home is no place for a node.
        assert_eq!((table.coordinator(), table.region_of(0), table.region_of(1)), (home, home, far));
        measured.loads.remove(&(3, 1));
        measured.loads.remove(&(3, 2));
        assert!(super::table(&members, &measured).is_ok(), "other machines in far stand in");
        measured.loads.retain(|(from, _), _| *from < 3);
        let why = super::table(&members, &measured).unwrap_err().to_string();
        assert!(why.contains("nothing was measured between far and home"), "{why}");
    }
}
