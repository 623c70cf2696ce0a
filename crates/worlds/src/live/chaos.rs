//! What a chaos run is judged by: its event log, its journal, and its weights computed again.

use super::liars::counted_liar;
use super::{ChaosTrace, Ended, MemorySample};
use crate::audit::AuditReport;
use crate::replay::{DecisionsReport, OtherDecision, ReplayError, ReplayReport};
use serde::Serialize;
use skipstone_protocol::Entry;
use skipstone_types::{Digest, Event, EventRecord, Iteration, NodeId, StageId};
use std::collections::BTreeMap;

/// Memory is compared with what it was after this time.
const SETTLED_MS: u64 = 5 * 60_000;

/// Samples that are averaged on either side.
const WINDOW_MS: u64 = 60_000;

/// A node that is set aside so soon after a fault is set aside because of it.
const AFTERMATH_MS: u64 = 10_000;

/// The growth of memory that is let pass.
const GROWTH_MAX: f64 = 0.02;

/// What there is to judge by.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// How the run ended.
    pub ended: &'a Ended,
    /// What the parent saw besides.
    pub trace: &'a ChaosTrace,
    /// The event log.
    pub events: &'a [EventRecord],
    /// The journal.
    pub entries: &'a [Entry],
    /// The ledger.
    pub audit: &'a AuditReport,
    /// The weights, computed again.
    pub replay: &'a Result<ReplayReport, ReplayError>,
    /// The journal, decided again from the coordinators' recorded inputs.
    pub decisions: &'a Result<DecisionsReport, OtherDecision>,
    /// Share of node time that ended in commits.
    pub goodput: f64,
}

/// A promise, and whether it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The promise.
    pub name: &'static str,
    /// Whether it was kept.
    pub pass: bool,
    /// In numbers; what broke it and where, if it was not.
    pub detail: String,
}

/// Times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// The median.
    pub median_ms: u64,
    /// 99 of 100 are at most this.
    pub p99_ms: u64,
    /// The longest.
    pub worst_ms: u64,
}

impl Times {
    fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Self { count: times.len() as u64, median_ms: at(0.5), p99_ms: at(0.99), worst_ms: at(1.0) }
    }
}

/// Growth of resident memory from the sixth minute to the last.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Growth {
    /// The parent's mean in the sixth minute and in the last, in bytes.
    pub parent: (u64, u64),
    /// The coordinator's.
    pub coordinator: (u64, u64),
    /// A node's.
    pub node: (u64, u64),
}

/// What came out of a chaos run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChaosReport {
    /// Whether every promise was kept.
    pub pass: bool,
    /// Seconds of the run.
    pub wall_s: f64,
    /// Iterations committed.
    pub iterations: u64,
    /// Processes killed.
    pub kills: u64,
    /// Faults by kind; `kill` counts nodes.
    pub faults: BTreeMap<String, u64>,
    /// Stages that lost their last replica.
    pub stages_lost: u64,
    /// From each kill to the next commit.
    pub to_next_commit: Times,
    /// From each kill of a serving node until its stage has a node more.
    pub to_replaced: Times,
    /// From each SIGSTOP until the node was set aside, where it stood still long enough for that.
    pub to_noticed: Times,
    /// Nodes set aside as silent or stuck to which nothing had been done.
    pub false_alarms: u64,
    /// The longest time between two commits, in milliseconds.
    pub longest_gap_ms: u64,
    /// Share of node time that ended in commits.
    pub goodput: f64,
    /// Memory, where the run was long enough.
    pub memory: Option<Growth>,
    /// The promises.
    pub checks: Vec<Check>,
}

/// Judges a run.
pub fn judge(evidence: &Evidence<'_>) -> ChaosReport {
    let events = evidence.events;
    let count = |wanted: &dyn Fn(&Event) -> bool| events.iter().filter(|at| wanted(&at.event)).count() as u64;
    let mut faults = BTreeMap::new();
    for record in events {
        let name = match &record.event {
            Event::Killed { target, .. } if target == "coordinator" => "coordinator",
            Event::Killed { .. } => "kill",
            Event::Injected { fault, .. } => fault.as_str(),
            _ => continue,
        };
        *faults.entry(name.to_owned()).or_default() += 1;
    }
    let memory = growth(&evidence.trace.memory);
    let mut checks = vec![
        ended(evidence),
        no_hang(evidence),
        counted_once(evidence.audit),
        equal_replicas(events),
        never_changed(events, evidence.entries),
        same_weights(evidence),
        same_decisions(evidence.decisions),
    ];
    checks.extend(memory.as_ref().map(steady_memory));
    ChaosReport {
        pass: checks.iter().all(|check| check.pass),
        wall_s: events.last().map_or(0.0, |last| last.time_ms as f64 / 1000.0),
        iterations: evidence.audit.iterations,
        kills: count(&|event| matches!(event, Event::Killed { .. })),
        faults,
        stages_lost: count(&|event| matches!(event, Event::StageLost { .. })),
        to_next_commit: Times::of(to_next_commit(events)),
        to_replaced: Times::of(to_replaced(events)),
        to_noticed: Times::of(to_noticed(events)),
        false_alarms: false_alarms(events),
        longest_gap_ms: longest_gap(events),
        goodput: evidence.goodput,
        memory,
        checks,
    }
}

fn ended(evidence: &Evidence<'_>) -> Check {
    let detail = match evidence.ended {
        Ended::Done => "all iterations are done".to_owned(),
        Ended::Stopped => "stopped when the time was over, and saved".to_owned(),
        Ended::Failed(why) => why.clone(),
    };
    let pass = !matches!(evidence.ended, Ended::Failed(_));
    Check { name: "the run ended by itself", pass, detail }
}

fn no_hang(evidence: &Evidence<'_>) -> Check {
    let detail = format!("the longest time between two commits was {} ms", longest_gap(evidence.events));
    Check { name: "nothing hung", pass: !evidence.trace.hung, detail }
}

fn counted_once(audit: &AuditReport) -> Check {
    let detail = match audit.complaints.first() {
        None => format!(
            "{} microbatches in {} visits, {} samples in the order of the data",
            audit.microbatches, audit.visits, audit.samples
        ),
        Some(first) => format!("{} violations; the first: {first}", audit.violations),
    };
    Check { name: "all data counted exactly once", pass: audit.is_sound(), detail }
}

fn equal_replicas(events: &[EventRecord]) -> Check {
    let odd = events.iter().find_map(|record| match &record.event {
        Event::NodeLost { node, stage, why, .. } if why == "hash" => Some((record.time_ms, *node, *stage)),
        _ => None,
    });
    let detail = match odd {
        None => "no node was set aside for its digest".to_owned(),
        Some((at, node, stage)) => {
            let stage = stage.map_or(String::new(), |stage| format!(" ({stage})"));
            format!("{node}{stage} held other bits at {at} ms")
        }
    };
    Check { name: "replicas hold the same bits", pass: odd.is_none(), detail }
}

/// What was told of each commit is what the journal holds, and no iteration was told twice.
fn never_changed(events: &[EventRecord], entries: &[Entry]) -> Check {
    let mut journal: BTreeMap<Iteration, Digest> = BTreeMap::new();
    let mut twice = None;
    for entry in entries {
        if let Entry::Committed(record) = entry
            && let Some(earlier) = journal.insert(record.iteration, record.digest())
            && earlier != record.digest()
        {
            twice = Some(record.iteration);
        }
    }
    let mut told: BTreeMap<Iteration, Digest> = BTreeMap::new();
    let mut wrong = twice.map(|iteration| format!("{iteration} is in the journal twice, differently"));
    for record in events {
        let Event::Committed { iteration, record: digest, .. } = &record.event else { continue };
        if told.insert(*iteration, *digest).is_some_and(|earlier| earlier != *digest) {
            wrong.get_or_insert(format!("{iteration} was told twice, differently"));
        }
        if journal.get(iteration) != Some(digest) {
            wrong.get_or_insert(format!("the journal holds another {iteration} than was told"));
        }
    }
    let pass = wrong.is_none();
    let detail =
        wrong.unwrap_or_else(|| format!("{} commits told, {} in the journal", told.len(), journal.len()));
    Check { name: "committed iterations never changed", pass, detail }
}

fn same_weights(evidence: &Evidence<'_>) -> Check {
    // What a liar made counted until it was found, and is not what a sound node makes.
    let liar = match evidence.replay {
        Err(ReplayError::Differs { iteration, stage, .. }) => {
            let node = counted_liar(evidence.events, evidence.entries, *iteration, *stage);
            node.map(|node| {
                format!("until {iteration}, where {stage} has sums of {node}, which was made to lie")
            })
        }
        _ => None,
    };
    let (pass, detail) = match evidence.replay {
        Ok(report) if report.saved_state_checked => (
            true,
            format!(
                "{} records computed again, {} gradients and {} states agree, state/ among them",
                report.records, report.gradients, report.states
            ),
        ),
        Ok(_) => (false, "the saved state was never reached by the replay".to_owned()),
        Err(error) => match liar {
            Some(until) => (true, until),
            None => (false, error.to_string()),
        },
    };
    Check { name: "the weights come out again by replay", pass, detail }
}

fn same_decisions(decisions: &Result<DecisionsReport, OtherDecision>) -> Check {
    let (pass, detail) = match decisions {
        Ok(report) => (
            report.entries > 0,
            format!(
                "{} journal entries made again from {} inputs of {} terms, {} entries without recorded inputs",
                report.entries, report.inputs, report.terms, report.entries_without_inputs
            ),
        ),
        Err(error) => (false, error.to_string()),
    };
    Check { name: "the coordinator decides the same again", pass, detail }
}

fn steady_memory(growth: &Growth) -> Check {
    let share = |(then, now): (u64, u64)| now as f64 / then.max(1) as f64 - 1.0;
    let parts = [("parent", growth.parent), ("coordinator", growth.coordinator), ("node", growth.node)];
    let detail = parts.map(|(name, pair)| format!("{name} {:+.1} %", 100.0 * share(pair))).join(", ");
    let pass = parts.iter().all(|(_, pair)| share(*pair) <= GROWTH_MAX);
    Check { name: "memory does not grow", pass, detail }
}

/// From each kill to the commit after it.
fn to_next_commit(events: &[EventRecord]) -> Vec<u64> {
    let (mut open, mut times) = (Vec::new(), Vec::new());
    for record in events {
        match &record.event {
            Event::Killed { .. } => open.push(record.time_ms),
            Event::Committed { .. } => times.extend(open.drain(..).map(|at: u64| record.time_ms - at)),
            _ => {}
        }
    }
    times
}

/// From each kill of a serving node until a node enters its stage.
fn to_replaced(events: &[EventRecord]) -> Vec<u64> {
    let (mut open, mut times): (BTreeMap<StageId, Vec<u64>>, Vec<u64>) = (BTreeMap::new(), Vec::new());
    for record in events {
        match &record.event {
            Event::Killed { stage: Some(stage), .. } => open.entry(*stage).or_default().push(record.time_ms),
            Event::NodeEntered { stage, .. } => {
                let waiting = open.entry(*stage).or_default();
                if !waiting.is_empty() {
                    times.push(record.time_ms - waiting.remove(0));
                }
            }
            _ => {}
        }
    }
    times
}

/// From each SIGSTOP until the coordinator set the node aside, if it did while the node stood still.
fn to_noticed(events: &[EventRecord]) -> Vec<u64> {
    let (mut stopped, mut times): (BTreeMap<NodeId, (u64, u64)>, Vec<u64>) = (BTreeMap::new(), Vec::new());
    for record in events {
        match &record.event {
            Event::Injected { fault, node, for_ms, .. } if fault == "stop" => {
                stopped.insert(*node, (record.time_ms, record.time_ms + for_ms));
            }
            Event::NodeLost { node, .. } => {
                if let Some((since, until)) = stopped.remove(node)
                    && record.time_ms <= until
                {
                    times.push(record.time_ms - since);
                }
            }
            _ => {}
        }
    }
    times
}

/// Nodes taken for dead or stuck while nothing was wrong with them, nor had been just before.
fn false_alarms(events: &[EventRecord]) -> u64 {
    let mut afflicted: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut alarms = 0;
    for record in events {
        match &record.event {
            Event::Injected { node, peer, for_ms, .. } => {
                for node in std::iter::once(*node).chain(*peer) {
                    let until = afflicted.entry(node).or_default();
                    *until = (*until).max(record.time_ms + for_ms + AFTERMATH_MS);
                }
            }
            Event::NodeLost { node, why, .. }
                if (why == "silence" || why == "stuck")
                    && afflicted.get(node).is_none_or(|until| *until < record.time_ms) =>
            {
                alarms += 1;
            }
            _ => {}
        }
    }
    alarms
}

fn longest_gap(events: &[EventRecord]) -> u64 {
    let commits: Vec<u64> = events
        .iter()
        .filter(|record| matches!(record.event, Event::Committed { .. }))
        .map(|record| record.time_ms)
        .collect();
    commits.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

fn growth(samples: &[MemorySample]) -> Option<Growth> {
    let end = samples.last()?.time_ms;
    if end < SETTLED_MS + 2 * WINDOW_MS {
        return None;
    }
    let mean = |from: u64, of: &dyn Fn(&MemorySample) -> u64| {
        let values: Vec<u64> = samples
            .iter()
            .filter(|sample| (from..from + WINDOW_MS).contains(&sample.time_ms))
            .map(of)
            .filter(|bytes| *bytes > 0)
            .collect();
        values.iter().sum::<u64>() / (values.len() as u64).max(1)
    };
    let both = |of: &dyn Fn(&MemorySample) -> u64| (mean(SETTLED_MS, of), mean(end + 1 - WINDOW_MS, of));
    Some(Growth {
        parent: both(&|sample| sample.parent),
        coordinator: both(&|sample| sample.coordinator),
        node: both(&|sample| sample.nodes / sample.node_count.max(1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_types::{Attempt, EVENT_SCHEMA};

    fn at(time_ms: u64, event: Event) -> EventRecord {
        EventRecord { schema: EVENT_SCHEMA, time_ms, event }
    }

    fn killed(stage: u16) -> Event {
        Event::Killed { target: "node".to_owned(), node: Some(NodeId(1)), stage: Some(StageId(stage)) }
    }

    fn committed(iteration: u64, record: u8) -> Event {
        Event::Committed {
            iteration: Iteration(iteration),
            attempt: Attempt(0),
            loss: 1.0,
            tokens: 1,
            learning_rate: 1.0,
            stages: Vec::new(),
            busy_us: 0,
            replay_us: 0,
            memory_wait_us: 0,
            link_us: 0,
            took_ms: 1,
            record: Digest([record; 32]),
        }
    }

    #[test]
    fn recoveries_are_timed() {
        let entered = |stage| Event::NodeEntered {
            node: NodeId(9),
            stage: StageId(stage),
            iteration: Iteration(1),
            took_ms: 0,
        };
        let events = [
            at(0, committed(0, 0)),
            at(100, killed(1)),
            at(150, killed(2)),
            at(400, committed(1, 1)),
            at(500, entered(2)),
            at(900, entered(1)),
            at(950, entered(1)),
        ];
        assert_eq!(to_next_commit(&events), [300, 250]);
        assert_eq!(to_replaced(&events), [350, 800]);
        assert_eq!(longest_gap(&events), 400);
        let times = Times::of((1..=200).collect());
        assert_eq!((times.median_ms, times.p99_ms, times.worst_ms), (100, 198, 200));
        assert_eq!(Times::of(Vec::new()), Times::default());
    }

    #[test]
    fn silence_is_timed_and_told_from_false_alarms() {
        let stop = |node, for_ms| Event::Injected {
            fault: "stop".to_owned(),
            node: NodeId(node),
            peer: None,
            for_ms,
        };
        let lost = |node, why: &str| Event::NodeLost {
            node: NodeId(node),
            stage: None,
            why: why.to_owned(),
            wasted_us: 0,
        };
        let events = [
            at(0, stop(1, 4000)),
            at(100, stop(2, 200)),
            at(700, lost(1, "silence")),
            at(5000, lost(2, "connection")),
            at(6000, lost(3, "connection")),
            at(60_000, lost(2, "silence")),
            at(60_001, lost(4, "stuck")),
        ];
        assert_eq!(to_noticed(&events), [700], "node 2 went on before anyone could miss it");
        assert_eq!(false_alarms(&events), 2, "node 2, long after, and node 4");
    }

    #[test]
    fn a_commit_that_the_journal_does_not_hold_is_found() {
        let check = never_changed(&[at(0, committed(3, 7))], &[]);
        assert!(!check.pass && check.detail.contains("iteration 3"), "{check:?}");
        let lost = Event::NodeLost {
            node: NodeId(4),
            stage: Some(StageId(2)),
            why: "hash".to_owned(),
            wasted_us: 0,
        };
        let check = equal_replicas(&[at(5, lost)]);
        assert!(!check.pass && check.detail.contains("node 4 (stage 2)"), "{check:?}");
        assert!(equal_replicas(&[at(5, killed(1))]).pass);
    }

    #[test]
    fn growth_needs_time_and_is_seen() {
        let samples = |minutes: u64, node: &dyn Fn(u64) -> u64| -> Vec<MemorySample> {
            (0..minutes * 12)
                .map(|index| MemorySample {
                    time_ms: index * 5000,
                    parent: 100,
                    coordinator: 0,
                    nodes: 2 * node(index),
                    node_count: 2,
                    node_max: 0,
                })
                .collect()
        };
        assert_eq!(growth(&samples(6, &|_| 50)), None);
        assert!(steady_memory(&growth(&samples(10, &|_| 5000)).unwrap_or_default()).pass);
        let grows = growth(&samples(10, &|index| 5000 + 10 * index)).unwrap_or_default();
        let check = steady_memory(&grows);
        assert!(!check.pass && check.detail.contains("node +"), "{check:?}");
    }
}
