//! Traces of spot markets: machines that come and go.

use crate::text::from_json;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Machines that a trace may have at once.
const MACHINES_MAX: u32 = 10_000;

/// Machines that may come, over the whole of a trace.
const ARRIVALS_MAX: u32 = 1_000_000;

/// What a trace says of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    /// From the trace's start.
    at: Duration,
    /// Whether machines come; else they go.
    comes: bool,
    /// The first of them, counted by first appearance.
    first: u32,
    /// How many; the others are the next ones.
    count: u32,
}

/// Machines that come and go, as somebody saw it on a spot market.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpotTrace {
    /// In order of time; a machine comes before it goes, and at least one comes.
    changes: Vec<Change>,
}

/// What becomes of a swarm's places at a moment of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacesChange {
    /// From the moment at which the swarm's places were first all taken.
    pub at: Duration,
    /// Nodes whose machine is taken away.
    pub taken: u32,
    /// Places without a machine from now on.
    pub away: u32,
}

/// The format of SkyPilot's traces: how many instances there were, tick by tick.
#[derive(Deserialize)]
struct Availability {
    metadata: AvailabilityMetadata,
    data: Vec<u32>,
}

#[derive(Deserialize)]
struct AvailabilityMetadata {
    gap_seconds: f64,
}

impl SpotTrace {
    /// Whether a file's text is of one of the two formats.
    pub(super) fn is_one(text: &str) -> bool {
        let start = text.trim_start();
        !start.is_empty() && (!start.starts_with('{') || text.contains("\"gap_seconds\""))
    }

    /// Reads a trace of either format: lines `MILLISECONDS,add,MACHINE` and `MILLISECONDS,remove,MACHINE`, as Bamboo's and Oobleck's
    /// (<https://github.com/SymbioticLab/Oobleck>, `tools/simulator/traces`), or a JSON document
    /// `{"metadata": {"gap_seconds": 300}, "data": [4, 4, 3, …]}`, as SkyPilot's (<https://github.com/skypilot-org/spot-traces>).
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let changes =
            if text.trim_start().starts_with('{') { Self::availability(text)? } else { Self::lines(text)? };
        if changes.is_empty() {
            return Err("no machine ever comes".to_owned());
        }
        Ok(Self { changes })
    }

    fn lines(text: &str) -> Result<Vec<Change>, String> {
        let mut changes: Vec<Change> = Vec::new();
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        let mut present: BTreeSet<u32> = BTreeSet::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |why: String| format!("line {}: {why}", index + 1);
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let [at, what, name] = cells[..] else {
                return Err(wrong(
                    "write MILLISECONDS,add,MACHINE or MILLISECONDS,remove,MACHINE".to_owned(),
                ));
            };
            let at = at.parse().map(Duration::from_millis);
            let at = at.map_err(|_| wrong(format!("'{}' is not a number of milliseconds", cells[0])))?;
            if changes.last().is_some_and(|last| last.at > at) {
                return Err(wrong("it is earlier than the line before".to_owned()));
            }
            if name.is_empty() {
                return Err(wrong("the machine has no name".to_owned()));
            }
            let next = numbers.len() as u32;
            let machine = *numbers.entry(name).or_insert(next);
            let comes = match what {
                "add" => true,
                "remove" => false,
                other => return Err(wrong(format!("'{other}' is neither add nor remove"))),
            };
            if comes && !present.insert(machine) {
                return Err(wrong(format!("{name} is there already")));
            }
            if !comes && !present.remove(&machine) {
                return Err(wrong(format!("{name} is not there")));
            }
            if present.len() > MACHINES_MAX as usize {
                return Err(wrong(format!("more than {MACHINES_MAX} machines at once")));
            }
            changes.push(Change { at, comes, first: machine, count: 1 });
        }
        Ok(changes)
    }

    /// Counts say nothing about which machine goes: it is the one that has been there longest.
    fn availability(text: &str) -> Result<Vec<Change>, String> {
        let Availability { metadata: AvailabilityMetadata { gap_seconds }, data } = from_json(text)?;
        if !(gap_seconds.is_finite() && gap_seconds > 0.0) {
            return Err(format!("metadata.gap_seconds: {gap_seconds} is not above 0"));
        }
        let mut changes = Vec::new();
        let (mut oldest, mut next) = (0, 0);
        for (tick, count) in data.into_iter().enumerate() {
            if count > MACHINES_MAX {
                return Err(format!("data[{tick}]: {count} is more than {MACHINES_MAX} machines"));
            }
            let at = Duration::try_from_secs_f64(tick as f64 * gap_seconds)
                .map_err(|why| format!("data[{tick}]: {why}"))?;
            let present = next - oldest;
            if count < present {
                changes.push(Change { at, comes: false, first: oldest, count: present - count });
                oldest += present - count;
            } else if count > present {
                changes.push(Change { at, comes: true, first: next, count: count - present });
                next += count - present;
            }
            if next > ARRIVALS_MAX {
                return Err(format!("data[{tick}]: more than {ARRIVALS_MAX} machines have come"));
            }
        }
        Ok(changes)
    }

    /// The same trace, so many times as fast.
    #[must_use]
    pub fn sped_up(mut self, speed: f64) -> Self {
        for change in &mut self.changes {
            change.at = sped_up(change.at, speed);
        }
        self
    }

    /// What becomes of a swarm of `places` nodes on these machines, in order of time, from the moment at which its places were first
    /// all taken.
    ///
    /// A place is given the first machine that is free, and the next one when that is taken away; only if there is none it stays
    /// empty. A trace that never has so many machines at once lends each to as many places as that takes.
    pub fn on(&self, places: u32) -> Vec<PlacesChange> {
        let (mut present, mut most) = (0, 0);
        for change in &self.changes {
            present = if change.comes { present + change.count } else { present - change.count };
            most = most.max(present);
        }
        let slots = places.min(most).max(1);
        let size = |slot: u32| (slot + 1) * places / slots - slot * places / slots;
        let mut holders: Vec<Option<u32>> = vec![None; slots as usize];
        let mut free: VecDeque<u32> = VecDeque::new();
        let mut began: Option<Duration> = None;
        let mut places_changes = Vec::new();
        for together in self.changes.chunk_by(|a, b| a.at == b.at) {
            let mut taken = 0;
            for change in together {
                let machines = change.first..change.first + change.count;
                if change.comes {
                    free.extend(machines);
                    continue;
                }
                free.retain(|machine| !machines.contains(machine));
                for (slot, holder) in holders.iter_mut().enumerate() {
                    if holder.is_some_and(|machine| machines.contains(&machine)) {
                        *holder = None;
                        taken += size(slot as u32);
                    }
                }
            }
            for holder in holders.iter_mut().filter(|holder| holder.is_none()) {
                *holder = free.pop_front();
            }
            let at = together[0].at;
            let away: u32 = (0..slots).filter(|slot| holders[*slot as usize].is_none()).map(size).sum();
            match began {
                None if away == 0 => began = Some(at),
                Some(began) => {
                    places_changes.push(PlacesChange { at: at.saturating_sub(began), taken, away });
                }
                None => {}
            }
        }
        places_changes
    }
}

/// A time of a trace, if it goes so many times as fast.
pub(super) fn sped_up(at: Duration, speed: f64) -> Duration {
    Duration::try_from_secs_f64(at.as_secs_f64() / speed).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(at_s: u64, taken: u32, away: u32) -> PlacesChange {
        PlacesChange { at: Duration::from_secs(at_s), taken, away }
    }

    #[test]
    fn a_place_gets_the_next_machine_or_stays_empty_until_there_is_one() {
        let text = "0,add,a\n0,add,b\n1000,add,c\n3000,remove,a\n5000,remove,b\n\n6000, add, d\n7000,remove,c\n7000,add,a\n";
        let trace = SpotTrace::parse(text).unwrap();
        // Two places: c takes a's place at once, d is what b's place waits for; a is back as c goes.
        assert_eq!(
            trace.on(2),
            [change(1, 0, 0), change(3, 1, 0), change(5, 1, 1), change(6, 0, 0), change(7, 1, 0)]
        );
        // Three places are full only once c is there.
        assert_eq!(trace.on(3)[..3], [change(2, 1, 1), change(4, 1, 2), change(5, 0, 1)]);
        assert_eq!(trace.clone().sped_up(2.0).on(2)[1].at, Duration::from_millis(1500));
    }

    #[test]
    fn counts_are_shared_out_among_more_places() {
        let text = r#"{"metadata": {"gap_seconds": 300, "zone": "z"}, "data": [0, 1, 2, 2, 1, 0, 2]}"#;
        let trace = SpotTrace::parse(text).unwrap();
        // Full at tick 2; each of the two machines stands for two or three of five places.
        assert_eq!(trace.on(5), [change(600, 2, 2), change(900, 3, 5), change(1200, 0, 0)]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, why) in [
            ("0,add,a\n0,add,a\n", "line 2: a is there already"),
            ("0,add,a\n5,remove,b\n", "line 2: b is not there"),
            ("5,add,a\n4,add,b\n", "line 2: it is earlier"),
            ("x,add,a\n", "line 1: 'x' is not a number"),
            ("0,take,a\n", "line 1: 'take' is neither"),
            ("0,add\n", "line 1: write MILLISECONDS"),
            ("0,add,\n", "line 1: the machine has no name"),
            ("\n \n", "no machine ever comes"),
            (r#"{"metadata": {"gap_seconds": 0}, "data": [1]}"#, "gap_seconds: 0 is not above 0"),
            (r#"{"metadata": {"gap_seconds": 1}, "data": [20000]}"#, "data[0]: 20000 is more than"),
            (r#"{"metadata": {"gap_seconds": 1}, "data": [0, 0]}"#, "no machine ever comes"),
        ] {
            let refusal = SpotTrace::parse(text).unwrap_err();
            assert!(refusal.contains(why), "{refusal}");
        }
    }
}
