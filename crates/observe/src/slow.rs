//! Why an iteration took longer than usual: a node, a link, a wait, or a repair.
//!
//! Everything is compared with the median of the iterations before. What is said is only what the log shows: a node that
//! computed for longer is named; where a stage was late although its last node computed no more than usual, a tensor
//! was waited for, and the log can't tell whether a link or a node that was stopped held it up.

use crate::words;
use skipstone_types::{Event, EventRecord, Iteration, StageId, StagePace};
use std::collections::BTreeMap;

/// Iterations before that are compared with.
const COMPARED: usize = 20;

/// Less than this is no reason, in milliseconds.
const LEAST_MS: u64 = 5;

/// How one iteration went.
#[derive(Debug, Clone, Default)]
struct Course {
    /// From the commit before to this one.
    wall_ms: u64,
    /// In attempts that were given up.
    aborted_ms: u64,
    aborts: u64,
    /// Nothing ran: before the attempt that succeeded, without the attempts given up.
    wait_ms: u64,
    took_ms: u64,
    memory_wait_ms: u64,
    replay_ms: u64,
    paces: BTreeMap<StageId, StagePace>,
    /// Lost nodes whose shares were replayed, with their microbatches.
    repairs: Vec<String>,
    coordinator_came: bool,
}

/// The reasons, the weightiest first; empty if it took no longer than usual or can't be compared.
pub(crate) fn reasons(events: &[EventRecord], iteration: Iteration) -> Vec<String> {
    let mut courses = courses(events, iteration);
    let Some(course) = courses.pop().filter(|(of, _)| *of == iteration).map(|(_, course)| course) else {
        return Vec::new();
    };
    let before: Vec<_> = courses.into_iter().rev().take(COMPARED).map(|(_, course)| course).collect();
    if before.is_empty() {
        return Vec::new();
    }
    let usual = |of: &dyn Fn(&Course) -> u64| median(before.iter().map(of).collect());
    let usual_wall = usual(&|course| course.wall_ms);
    if course.wall_ms < usual_wall + LEAST_MS.max(usual_wall / 4) {
        return Vec::new();
    }
    let mut reasons: Vec<(u64, String)> = Vec::new();
    if course.aborts > 0 {
        let text = format!(
            "repair: {} given up after {} in all, because a stage lost its last replica",
            words::plural(course.aborts, "attempt"),
            words::delay(course.aborted_ms)
        );
        reasons.push((course.aborted_ms, text));
    }
    let wait = course.wait_ms.saturating_sub(usual(&|course| course.wait_ms));
    if wait >= LEAST_MS {
        let whom = if course.coordinator_came {
            "the coordinator was away, and nodes came back to the new one"
        } else {
            "for an origin, a rebuilt stage or a node about to join"
        };
        reasons.push((
            wait,
            format!("wait: {} passed before its attempt began: {whom}", words::delay(course.wait_ms)),
        ));
    }
    reasons.extend(late_shares(&course, &before));
    reasons.extend(slow_sum(&course, &before));
    let memory = course.memory_wait_ms.saturating_sub(usual(&|course| course.memory_wait_ms));
    // Node time: how much of it was on the way of the iteration can't be said.
    if memory >= course.took_ms / 4 + LEAST_MS {
        let text = format!(
            "wait: nodes waited {} in all for a free slot (--slots)",
            words::delay(course.memory_wait_ms)
        );
        reasons.push((memory / 4, text));
    }
    reasons.sort_by_key(|(ms, _)| std::cmp::Reverse(*ms));
    reasons.into_iter().map(|(_, text)| text).collect()
}

/// Shares that were complete later than usual: what the nodes computed, or what they waited for.
fn late_shares(course: &Course, before: &[Course]) -> Option<(u64, String)> {
    let usual_of = |stage: StageId, of: &dyn Fn(&StagePace) -> u64| {
        median(before.iter().filter_map(|course| course.paces.get(&stage)).map(of).collect())
    };
    let lateness = |stage: StageId, pace: &StagePace| {
        pace.shares_ms.saturating_sub(usual_of(stage, &|pace| pace.shares_ms))
    };
    let late = course.paces.iter().map(|(stage, pace)| lateness(*stage, pace)).max()?;
    if late < LEAST_MS {
        return None;
    }
    if !course.repairs.is_empty() {
        let replayed = words::delay(course.replay_ms);
        let text = format!("repair: {} ({replayed} of work done again)", course.repairs.join("; "));
        return Some((late, text));
    }
    let (stage, pace, more, usual) = course
        .paces
        .iter()
        .map(|(stage, pace)| {
            let usual = usual_of(*stage, &|pace| pace.last_busy_ms);
            (*stage, pace, pace.last_busy_ms.saturating_sub(usual), usual)
        })
        .max_by_key(|(_, _, more, _)| *more)?;
    if 2 * more >= late {
        let text = format!(
            "node: {} ({}) computed {}, usually {}",
            pace.last,
            words::stage(stage),
            words::delay(pace.last_busy_ms),
            words::delay(usual)
        );
        return Some((late, text));
    }
    // Backward runs from the highest stage to the origin: the highest that was late was late first.
    let (stage, pace) =
        course.paces.iter().rev().find(|(stage, pace)| 2 * lateness(**stage, pace) >= late)?;
    let text = format!(
        "link: {} had its shares {} later than usual; the last, of {}, was not computed for longer: a tensor came late \
         (a link, or a neighbour that stood still)",
        words::stage(*stage),
        words::delay(lateness(*stage, pace)),
        pace.last
    );
    Some((late, text))
}

/// A sum over replicas that took longer than usual.
fn slow_sum(course: &Course, before: &[Course]) -> Option<(u64, String)> {
    let (stage, pace, more, usual) = course
        .paces
        .iter()
        .map(|(stage, pace)| {
            let known = before.iter().filter_map(|course| course.paces.get(stage));
            let usual = median(known.map(|pace| pace.reduced_ms).collect());
            (*stage, pace, pace.reduced_ms.saturating_sub(usual), usual)
        })
        .max_by_key(|(_, _, more, _)| *more)?;
    (more >= LEAST_MS).then(|| {
        let text = format!(
            "link: the replicas of {} took {} to add up their sums, usually {}",
            words::stage(stage),
            words::delay(pace.reduced_ms),
            words::delay(usual)
        );
        (more, text)
    })
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// The courses of the committed iterations up to `last`.
fn courses(events: &[EventRecord], last: Iteration) -> Vec<(Iteration, Course)> {
    let mut courses = Vec::new();
    let (mut course, mut commit_ms, mut idle_since_ms) = (Course::default(), None, None);
    for record in events {
        match &record.event {
            Event::AttemptStarted { .. } => {
                if let Some(since) = idle_since_ms.take() {
                    course.wait_ms += record.time_ms.saturating_sub(since);
                }
            }
            Event::AttemptAborted { ran_ms, .. } => {
                course.aborts += 1;
                course.aborted_ms += ran_ms;
                idle_since_ms = Some(record.time_ms);
            }
            Event::CoordinatorStarted { .. } => course.coordinator_came = true,
            Event::Repaired { stage, lost, microbatches } => course.repairs.push(format!(
                "{lost} ({}) was lost, and {} replayed",
                words::stage(*stage),
                words::plural(u64::from(*microbatches), "microbatch")
            )),
            Event::Hedged { stage, node, microbatches, waited_ms, limit_ms, .. } => {
                course.repairs.push(format!(
                    "{node} ({}) was late (nothing added for {}, limit {}), and {} moved to replicas",
                    words::stage(*stage),
                    words::delay(*waited_ms as u64),
                    words::delay(*limit_ms as u64),
                    words::plural(u64::from(*microbatches), "microbatch")
                ));
            }
            Event::Committed { iteration, took_ms, memory_wait_us, replay_us, stages, .. } => {
                let start = commit_ms.unwrap_or(record.time_ms.saturating_sub(*took_ms));
                course.wall_ms = record.time_ms.saturating_sub(start);
                if course.coordinator_came {
                    // The attempt that the old coordinator had begun is over, and nobody said so.
                    course.wait_ms = course.wall_ms.saturating_sub(course.aborted_ms + took_ms);
                }
                course.took_ms = *took_ms;
                course.memory_wait_ms = memory_wait_us / 1000;
                course.replay_ms = replay_us / 1000;
                course.paces = stages.iter().filter_map(|stage| Some((stage.stage, stage.pace?))).collect();
                courses.push((*iteration, std::mem::take(&mut course)));
                commit_ms = Some(record.time_ms);
                idle_since_ms = commit_ms;
                if *iteration == last {
                    break;
                }
            }
            _ => {}
        }
    }
    courses
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_types::{Attempt, CommittedStage, Digest, EVENT_SCHEMA, NodeId};

    type Events = Vec<(u64, Event)>;

    /// Eleven even iterations of 100 ms, the last of which `change` makes another one.
    fn told(change: &dyn Fn(&mut Events, &mut BTreeMap<u16, StagePace>)) -> Vec<String> {
        let mut events = Vec::new();
        for t in 0..11_u64 {
            let start = t * 100;
            let mut paces: BTreeMap<u16, StagePace> = (0..3)
                .map(|stage| {
                    let last = NodeId(10 + u32::from(stage));
                    let shares_ms = 90 - 10 * u64::from(stage);
                    (stage, StagePace { shares_ms, last, last_busy_ms: 30, reduced_ms: 2 })
                })
                .collect();
            let mut extra = Vec::new();
            if t == 10 {
                change(&mut extra, &mut paces);
            }
            let began = extra.iter().map(|(at, _)| *at).max().unwrap_or(0);
            let latest = paces.values().map(|pace| pace.shares_ms + pace.reduced_ms).max().unwrap_or(0);
            let begin = Event::AttemptStarted {
                iteration: Iteration(t),
                attempt: Attempt(0),
                holes: vec![],
                expected_ms: None,
            };
            events.extend(extra.into_iter().map(|(at, event)| (start + at, event)));
            events.push((start + began, begin));
            let commit = Event::Committed {
                iteration: Iteration(t),
                attempt: Attempt(0),
                loss: 1.0,
                tokens: 1,
                learning_rate: 1.0,
                stages: paces
                    .into_iter()
                    .map(|(stage, pace)| CommittedStage {
                        stage: StageId(stage),
                        microbatches: 1,
                        nodes: vec![pace.last],
                        gradient_norm: 1.0,
                        pace: Some(pace),
                    })
                    .collect(),
                busy_us: 0,
                replay_us: 0,
                memory_wait_us: 0,
                link_us: 0,
                took_ms: latest + 8,
                record: Digest::default(),
            };
            events.push((start + began + latest + 8, commit));
        }
        let records: Vec<_> = events
            .into_iter()
            .map(|(time_ms, event)| EventRecord { schema: EVENT_SCHEMA, time_ms, event })
            .collect();
        reasons(&records, Iteration(10))
    }

    #[test]
    fn an_even_iteration_has_no_reason() {
        assert_eq!(told(&|_, _| ()), Vec::<String>::new());
    }

    #[test]
    fn a_slow_node_a_late_tensor_and_a_slow_sum_are_told_apart() {
        let late = |paces: &mut BTreeMap<u16, StagePace>, stages: &[u16]| {
            for stage in stages {
                paces.entry(*stage).and_modify(|pace| pace.shares_ms += 200);
            }
        };
        let node = told(&|_, paces| {
            late(paces, &[0, 1]);
            paces.entry(1).and_modify(|pace| pace.last_busy_ms = 220);
        });
        assert_eq!(node.len(), 1);
        assert!(node[0].starts_with("node: node 11 (stage 1) computed 0.2 s"), "{node:?}");
        let link = told(&|_, paces| late(paces, &[0, 1]));
        assert!(link[0].starts_with("link: stage 1 had its shares"), "{link:?}");
        let sum = told(&|_, paces| _ = paces.entry(2).and_modify(|pace| pace.reduced_ms = 300));
        assert!(sum[0].starts_with("link: the replicas of stage 2 took"), "{sum:?}");
    }

    #[test]
    fn repairs_and_waits_are_told() {
        let aborted = told(&|events, _| {
            events.push((
                300,
                Event::AttemptAborted { iteration: Iteration(10), attempt: Attempt(0), ran_ms: 300 },
            ));
        });
        assert!(aborted[0].starts_with("repair: 1 attempt given up"), "{aborted:?}");
        let repaired = told(&|events, paces| {
            let (stage, lost) = (StageId(1), NodeId(11));
            events.push((0, Event::Repaired { stage, lost, microbatches: 3 }));
            paces.entry(1).and_modify(|pace| pace.shares_ms += 200);
        });
        assert!(
            repaired[0].contains("node 11 (stage 1) was lost, and 3 microbatches replayed"),
            "{repaired:?}"
        );
        let hedged = told(&|events, paces| {
            let event = Event::Hedged {
                iteration: Iteration(10),
                attempt: Attempt(0),
                stage: StageId(1),
                node: NodeId(11),
                microbatches: 2,
                takers: vec![NodeId(12)],
                waited_ms: 700.0,
                limit_ms: 400.0,
            };
            events.push((0, event));
            paces.entry(1).and_modify(|pace| pace.shares_ms += 200);
        });
        assert!(
            hedged[0].contains(
                "node 11 (stage 1) was late (nothing added for 0.7 s, limit 0.4 s), and 2 microbatches moved"
            ),
            "{hedged:?}"
        );
        let away = told(&|events, _| {
            let term = skipstone_types::Term(2);
            events.push((500, Event::CoordinatorStarted { term, iteration: Iteration(10) }));
        });
        assert!(away[0].contains("the coordinator was away"), "{away:?}");
    }
}
