//! `events.jsonl` of a run, and all that is made from it (`skipstone-observe`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, scratch, within};
use skipstone_observe::{RunInfo, RunState, Summary, explain, read_events, report};
use skipstone_types::{
    Attempt, CommittedStage, Digest, EVENT_SCHEMA, Event, EventRecord, Iteration, NodeId, StageId, Term,
};

/// A line, its tree of JSON values, of which a small one takes 32 bytes for 2 of text while its list grows, and the events.
fn memory_max(input: usize) -> usize {
    (256 << 10) + 128 * input
}

pub(crate) const READER: Reader = Reader {
    name: "events",
    what: "events.jsonl of a run, with its summary and report",
    text: true,
    memory_max,
    read,
    mend: None,
    seeds,
};

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let path = scratch::file("events.jsonl", bytes)?;
    let events = match within(memory_max(bytes.len()), bytes, || read_events(&path))? {
        Ok(events) => events,
        Err(why) => return refused(why),
    };
    let again = read_events(&scratch::file("again.jsonl", &lines(&events).map_err(lost)?)?).map_err(lost)?;
    same(&events, &again)?;
    // What is shown of a log has to cope with whatever reads as one.
    let info = RunInfo { relay_stages: 2, replicas: 2, nodes: 6, steps: 10, ..RunInfo::default() };
    let mut state = RunState::new(info.clone());
    events.iter().for_each(|event| state.apply(event));
    let texts = [report(&state), Summary::of(&state).render(80), explain(&info, &events, Iteration(1))];
    if texts.iter().any(String::is_empty) { Err(lost("nothing to show")) } else { Ok(Verdict::Taken) }
}

fn lines(events: &[EventRecord]) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    for event in events {
        serde_json::to_writer(&mut out, event)?;
        out.push(b'\n');
    }
    Ok(out)
}

/// Every kind of event once.
fn every_kind() -> Vec<Event> {
    let (node, iteration, attempt) = (NodeId(1), Iteration(1), Attempt(0));
    let stage = StageId(1);
    let committed = |stage| CommittedStage {
        stage: StageId(stage),
        microbatches: 8,
        nodes: vec![NodeId(u32::from(stage))],
        gradient_norm: 0.5,
        pace: None,
    };
    vec![
        Event::SwarmStarted { cores: 2 },
        Event::CoordinatorStarted { term: Term(1), iteration: Iteration(0) },
        Event::NodeJoined { node, process: 77, was: None },
        Event::NodeAssigned { node, stage, how: "initialise".to_owned() },
        Event::NodeEntered { node, stage, iteration: Iteration(0), took_ms: 5 },
        Event::AttemptStarted { iteration, attempt, holes: vec![StageId(2)], expected_ms: None },
        Event::Committed {
            iteration,
            attempt,
            loss: 5.25,
            tokens: 2048,
            learning_rate: 1e-3,
            stages: vec![committed(0), committed(1)],
            busy_us: 1000,
            replay_us: 10,
            memory_wait_us: 3,
            link_us: 2,
            took_ms: 40,
            record: Digest::of(b"record"),
        },
        Event::Killed { target: "node".to_owned(), node: Some(node), stage: Some(stage) },
        Event::NodeLost { node, stage: Some(stage), why: "connection".to_owned(), wasted_us: 9 },
        Event::StageLost { stage, iteration },
        Event::AttemptAborted { iteration, attempt, ran_ms: 30 },
        Event::Respawned { target: "node".to_owned() },
        Event::NodeJoined { node: NodeId(9), process: 78, was: Some(node) },
        Event::NodeEmptied { node: NodeId(9), stage },
        Event::CopyKept { stage, iteration, node },
        Event::RolledBack { stage, from: Iteration(9), iteration, generation: 1 },
        Event::RebuildStarted {
            stage,
            node: NodeId(9),
            sources: vec![(StageId(0), 0.5), (StageId(2), 0.5)],
            lessons: 3,
        },
        Event::StageRebuilt {
            stage,
            kind: "checkfree".to_owned(),
            sources: vec![StageId(0), StageId(2)],
            took_ms: 90,
            iteration,
        },
        Event::RebuildRefused { stage, why: "no neighbour".to_owned() },
        Event::Repaired { stage, lost: node, microbatches: 3 },
        Event::StateArriving {
            node,
            stage,
            chunks: 3,
            chunks_total: 10,
            bytes: 3 << 20,
            bytes_total: 10 << 20,
            donors: 2,
        },
        Event::Hedged {
            iteration,
            attempt: skipstone_types::Attempt(0),
            stage,
            node,
            microbatches: 2,
            takers: vec![NodeId(9)],
            waited_ms: 700.5,
            limit_ms: 400.0,
        },
        Event::Injected { fault: "partition".to_owned(), node, peer: Some(NodeId(0)), for_ms: 500 },
        Event::StateSaved { iteration },
        Event::SaveSkipped { iteration, writing: iteration },
        Event::EndWaits { for_ms: 5000, what: vec!["shares of a gradient from node 4".to_owned()] },
        Event::SaveFailed { why: "the disk is full".to_owned() },
        Event::StateStored { iteration, bytes: 5 << 20, took_ms: 900 },
        Event::StoreFailed { iteration, why: "s3://bucket/run: no answer".to_owned() },
        Event::Refused { node: None, why: "another run".to_owned() },
        Event::Managed { ticket: 2, order: "revoke".to_owned(), of: Some(3) },
        Event::Validated { iteration, loss: 5.0 },
        Event::Finished { iteration, why: "done".to_owned() },
    ]
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let record = |(index, event)| EventRecord { schema: EVENT_SCHEMA, time_ms: 10 * index as u64, event };
    let all: Vec<EventRecord> = every_kind().into_iter().enumerate().map(record).collect();
    let mut torn = lines(&all[..6])?;
    torn.truncate(torn.len() - 7);
    let mut seeds = vec![("every-kind".to_owned(), lines(&all)?), ("torn".to_owned(), torn)];
    for (index, event) in all.iter().enumerate() {
        seeds.push((format!("event-{index:02}"), lines(std::slice::from_ref(event))?));
    }
    Ok(seeds)
}
