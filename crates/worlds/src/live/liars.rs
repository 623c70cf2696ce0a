//! Nodes that were made to lie in a chaos run, and what of theirs was counted.

use skipstone_protocol::Entry;
use skipstone_types::{Event, EventRecord, Iteration, NodeId, StageId};
use std::collections::BTreeMap;

/// A node whose process had been made to lie when the iteration was committed, and whose share of the stage counts in it: until it
/// is found its sums are added like any other's.
pub(super) fn counted_liar(
    events: &[EventRecord],
    entries: &[Entry],
    iteration: Iteration,
    stage: StageId,
) -> Option<NodeId> {
    let mut processes: BTreeMap<NodeId, u32> = BTreeMap::new();
    // A process that is set aside comes again under another number, and goes on lying.
    let mut lies_since: BTreeMap<u32, u64> = BTreeMap::new();
    let mut committed_ms = None;
    for EventRecord { time_ms, event, .. } in events {
        match event {
            Event::NodeJoined { node, process, .. } => drop(processes.insert(*node, *process)),
            Event::Injected { fault, node, .. } if fault == "lie" => {
                if let Some(process) = processes.get(node) {
                    lies_since.entry(*process).or_insert(*time_ms);
                }
            }
            Event::Committed { iteration: of, .. } if *of == iteration => committed_ms = Some(*time_ms),
            _ => {}
        }
    }
    let record = entries.iter().rev().find_map(|entry| match entry {
        Entry::Committed(record) if record.iteration == iteration => Some(record),
        _ => None,
    })?;
    let lied = |node: &NodeId| {
        let since_ms = processes.get(node).and_then(|process| lies_since.get(process));
        since_ms.is_some_and(|since_ms| committed_ms.is_some_and(|at_ms| *since_ms <= at_ms))
    };
    record.stage(stage)?.shares.iter().map(|share| share.node).find(lied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_protocol::{CommitRecord, Share, StageRecord};
    use skipstone_types::{Attempt, Digest, EVENT_SCHEMA, Microbatch, PlanEpoch, RunId, Term};

    /// The first iteration, in which these nodes have shares of stage 1.
    fn record(nodes: &[u32]) -> Entry {
        let share = |node: &u32| {
            let (node, microbatches) = (NodeId(*node), vec![Microbatch(0)]);
            Share { node, microbatches, losses: Vec::new(), norm: 1.0 }
        };
        let part = |stage, nodes: &[u32]| StageRecord {
            stage: StageId(stage),
            members: nodes.iter().copied().map(NodeId).collect(),
            shares: nodes.iter().map(share).collect(),
            gradient: Digest::default(),
            gradient_norm: 1.0,
            clip_factor: 1.0,
            step: true,
            state: None,
            lineage: 0,
        };
        Entry::Committed(Box::new(CommitRecord {
            run: RunId(1),
            term: Term(1),
            generation: 0,
            iteration: Iteration(0),
            attempt: Attempt(0),
            plan_epoch: PlanEpoch(1),
            paths: Vec::new(),
            stages: vec![part(0, &[7]), part(1, nodes), part(2, &[8])],
            loss_sum: 1.0,
            tokens: 1,
            learning_rate: 1e-3,
            previous: Digest::default(),
        }))
    }

    /// Node 3 lies from `lies_ms` on; its process, set aside, comes again as node 9. The iteration is committed after 100 ms.
    fn events(lies_ms: u64) -> Vec<EventRecord> {
        let joined = |node, process| Event::NodeJoined { node: NodeId(node), process, was: None };
        let lie = Event::Injected { fault: "lie".to_owned(), node: NodeId(3), peer: None, for_ms: 0 };
        let committed = Event::Committed {
            iteration: Iteration(0),
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
            record: Digest::default(),
        };
        let told =
            [(0, joined(3, 33)), (0, joined(4, 44)), (lies_ms, lie), (60, joined(9, 33)), (100, committed)];
        let mut events = told.map(|(time_ms, event)| EventRecord { schema: EVENT_SCHEMA, time_ms, event });
        events.sort_by_key(|record| record.time_ms);
        events.to_vec()
    }

    #[test]
    fn a_difference_is_laid_to_a_liar_only_where_one_was_counted() {
        let counted = |lies_ms, nodes: &[u32], stage| {
            counted_liar(&events(lies_ms), &[record(nodes)], Iteration(0), StageId(stage))
        };
        assert_eq!(counted(50, &[3, 4], 1), Some(NodeId(3)));
        assert_eq!(counted(50, &[9], 1), Some(NodeId(9)), "the same process");
        assert_eq!(counted(50, &[4], 1), None, "a sound node");
        assert_eq!(counted(200, &[3, 4], 1), None, "it was not lying yet");
        assert_eq!(counted(50, &[3], 2), None, "another stage");
    }
}
