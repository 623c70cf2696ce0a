//! A scripted run with every kind of loss, told by all views.

#[path = "../examples/preview/script.rs"]
mod script;

use skipstone_observe::{
    Observer, PlainView, Progress, RunState, SpanKind, Summary, TerminalView, explain, frame, read_events,
};
use skipstone_types::{Attempt, Digest, EVENT_SCHEMA, Event, EventRecord, Iteration, NodeId, StageId};
use std::time::Duration;

const STEPS: u64 = 600;

fn folded() -> RunState {
    let mut state = RunState::new(script::info(STEPS));
    for record in script::events(STEPS) {
        state.apply(&record);
    }
    state
}

fn told(state: &RunState) -> Vec<String> {
    state.stories().map(skipstone_observe::Story::text).collect()
}

#[test]
fn incidents_are_told_as_one() {
    let texts = told(&folded());
    for expected in [
        "node 4 (stage 2) killed → its 3 microbatches replayed by node 5 → replaced by node 14 (ready in 0.6 s)",
        "stage 3 lost both replicas (nodes 6 and 7) → routed around → rebuilt from stages 2 and 4 in 1.5 s",
        "stage 3 has 2 replicas again with node 16",
        "coordinator killed → back with term 2 in 0.2 s → training again after 0.3 s",
        "node 25 (stage 5) fell silent → its 3 microbatches replayed by node 24 → replaced by node 31 (ready in 0.6 s)",
        "done: 600 iterations",
    ] {
        assert!(texts.iter().any(|text| text == expected), "{expected}\nis not in\n{}", texts.join("\n"));
    }
}

/// A state after these events, each at its time in seconds.
fn after(events: &[(u64, Event)]) -> RunState {
    let mut state = RunState::new(skipstone_observe::RunInfo {
        relay_stages: 2,
        replicas: 1,
        steps: 9,
        ..skipstone_observe::RunInfo::default()
    });
    for (s, event) in events {
        state.apply(&EventRecord { schema: EVENT_SCHEMA, time_ms: s * 1000, event: event.clone() });
    }
    state
}

fn begins(iteration: u64) -> Event {
    Event::AttemptStarted {
        iteration: Iteration(iteration),
        attempt: Attempt(0),
        holes: Vec::new(),
        expected_ms: None,
    }
}

fn committed(iteration: u8) -> Event {
    Event::Committed {
        iteration: Iteration(iteration.into()),
        attempt: Attempt(0),
        loss: 1.0,
        tokens: 1,
        learning_rate: 1.0,
        stages: Vec::new(),
        busy_us: 1,
        replay_us: 0,
        memory_wait_us: 0,
        link_us: 0,
        took_ms: 1,
        record: Digest([iteration; 32]),
    }
}

fn serves(node: u32) -> Event {
    Event::NodeEntered { node: NodeId(node), stage: StageId(1), iteration: Iteration(0), took_ms: 1 }
}

fn lost(node: u32) -> Event {
    let why = "connection".to_owned();
    Event::NodeLost { node: NodeId(node), stage: Some(StageId(1)), why, wasted_us: 0 }
}

#[test]
fn a_stage_that_had_more_nodes_than_it_should_have_loses_all_of_them() {
    let hole = Event::StageLost { stage: StageId(1), iteration: Iteration(0) };
    let one = after(&[(0, serves(11)), (1, begins(0)), (2, lost(11)), (2, hole.clone())]);
    assert_eq!(told(&one).last().unwrap(), "stage 1 lost its only replica (node 11)");
    let two = [(0, serves(11)), (0, serves(12)), (1, begins(0)), (2, lost(12)), (2, lost(11)), (2, hole)];
    assert_eq!(told(&after(&two)).last().unwrap(), "stage 1 lost all its nodes (nodes 11 and 12)");
}

#[test]
fn what_happened_around_an_iteration_is_told_in_the_order_in_which_it_began() {
    let events: Vec<EventRecord> = [
        (0, serves(11)),
        (0, serves(12)),
        (1, begins(0)),
        (2, lost(11)),
        (3, Event::StateSaved { iteration: Iteration(0) }),
        (4, Event::Repaired { stage: StageId(1), lost: NodeId(11), microbatches: 2 }),
        (5, committed(0)),
    ]
    .into_iter()
    .map(|(s, event)| EventRecord { schema: EVENT_SCHEMA, time_ms: s * 1000, event })
    .collect();
    let text = explain(&script::info(STEPS), &events, Iteration(0));
    let (lost, saved) = (text.find("node 11").unwrap(), text.find("saved after").unwrap());
    assert!(lost < saved && text.contains("replayed by node 12"), "{text}");
}

#[test]
fn plain_lines_of_a_run_elsewhere_name_its_nodes_and_only_when_others_are_there() {
    let joined = |node| Event::NodeJoined { node: NodeId(node), process: 0, was: None };
    let commit = |s: u64, state: &mut RunState, view: &mut PlainView<&mut Vec<u8>>, iteration| {
        let event = committed(iteration);
        state.apply(&EventRecord { schema: EVENT_SCHEMA, time_ms: s * 1000, event });
        view.tick(state);
    };
    let mut out = Vec::new();
    let mut view = PlainView::new(&mut out).every(Duration::ZERO);
    view.name_nodes();
    let mut state = after(&[(0, joined(4)), (0, serves(11)), (0, serves(12)), (1, begins(0))]);
    commit(1, &mut state, &mut view, 0);
    commit(2, &mut state, &mut view, 1);
    state.apply(&EventRecord { schema: EVENT_SCHEMA, time_ms: 3000, event: lost(12) });
    commit(3, &mut state, &mut view, 2);
    let text = String::from_utf8(out).unwrap();
    let nodes: Vec<&str> =
        text.lines().filter_map(|line| line.split_once("nodes by stage  ")).map(|(_, nodes)| nodes).collect();
    assert_eq!(
        nodes,
        [
            "origin: nobody; stage 1: 11 and 12; stage 2: nobody; without a stage: 4",
            "origin: nobody; stage 1: 11; stage 2: nobody; without a stage: 4",
        ],
        "{text}"
    );
}

#[test]
fn the_summary_counts_what_happened() {
    let state = folded();
    let summary = Summary::of(&state);
    assert_eq!((summary.steps, summary.tokens), (600, 600 * 24 * 4 * 128));
    assert_eq!((summary.kills, summary.losses), (7, 7));
    let rebuilt: Vec<_> = summary.recoveries.iter().filter(|r| r.kind == "checkfree+").collect();
    assert_eq!(rebuilt.iter().map(|r| r.stage).collect::<Vec<_>>(), [StageId(3), StageId(6)]);
    assert_eq!(summary.recoveries.len(), 7);
    assert_eq!(summary.coordinator_restarts.len(), 1);
    assert!((summary.coordinator_restarts[0].seconds.unwrap() - 0.21).abs() < 1e-9);
    let sum = summary.badput.total() + summary.goodput * summary.node_seconds;
    assert!((sum - summary.node_seconds).abs() < 1e-6, "{sum} of {}", summary.node_seconds);
    // 14 nodes for the whole run, but for starts and the seconds until the dead are replaced.
    assert!(summary.node_seconds < 14.0 * summary.wall_s && summary.node_seconds > 13.5 * summary.wall_s);
    assert!(summary.badput.aborted > 0.0 && summary.badput.detection > 0.0 && summary.badput.replay > 0.0);

    let json = serde_json::to_value(&summary).unwrap();
    for key in [
        "steps",
        "tokens",
        "wall_s",
        "tokens_per_s",
        "train_loss",
        "val_loss",
        "val_perplexity",
        "goodput",
        "badput",
        "kills",
        "recoveries",
        "nodes",
        "stages",
        "skip",
        "skip_realised",
        "out",
        "bigram_val_loss",
        "entropy_floor_loss",
    ] {
        assert!(!json[key].is_null(), "{key} is part of the contract");
    }
    let causes: Vec<&str> = json["badput"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut contract =
        ["startup", "bubble", "link", "memory_wait", "detection", "recovery", "replay", "aborted", "idle"];
    contract.sort_unstable();
    assert_eq!(causes, contract);
    assert_eq!(json["recoveries"][0]["stage"], 2);
    let text = summary.render(100);
    assert!(text.contains("2 stages rebuilt by checkfree+ in 1.5 s on average"), "{text}");
    let text = summary.render(60);
    assert!(
        text.lines().take_while(|line| *line != "Next:").all(|line| line.chars().count() <= 60),
        "{text}"
    );
}

#[test]
fn a_hole_shows_while_it_lasts() {
    let mut state = RunState::new(script::info(STEPS));
    for record in script::events(STEPS) {
        if state.steps() == 153 {
            break;
        }
        state.apply(&record);
    }
    assert!(state.stage(StageId(3)).unwrap().is_hole());
    assert_eq!(state.living(), 13);
    let text: Vec<String> = frame(&state, 100, 40).iter().map(skipstone_observe::Line::text).collect();
    assert!(text.iter().any(|line| line.starts_with("3 ") && line.contains("HOLE for 1.1 s")), "{text:#?}");
    let kinds: Vec<SpanKind> =
        folded().timeline().lanes()[&StageId(3)].iter().map(|span| span.kind).collect();
    use SpanKind::{Hole, Rebuilding, Served, Starting, Thin};
    assert_eq!(kinds, [Starting, Thin, Served, Thin, Hole, Rebuilding, Thin, Served]);
}

#[test]
fn frames_fit_at_every_moment_and_size() {
    let mut state = RunState::new(script::info(STEPS));
    for (index, record) in script::events(STEPS).iter().enumerate() {
        state.apply(record);
        if index % 97 != 0 && matches!(record.event, Event::Committed { .. }) {
            continue;
        }
        for (width, height) in [(60, 24), (60, 10), (80, 24), (100, 40), (200, 60), (33, 5)] {
            let lines = frame(&state, width, height);
            assert!(lines.len() <= height, "{} lines of {height}", lines.len());
            for line in &lines {
                assert!(line.width() <= width, "{width}: {}", line.text());
            }
        }
    }
}

#[test]
fn without_colour_no_code_but_cursor_moves_and_the_frame_is_drawn_over() {
    let state = folded();
    let mut bytes = Vec::new();
    let mut view = TerminalView::new(&mut bytes, false, (100, 40));
    view.draw(&state);
    view.draw(&state);
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains("\x1b[0m"), "no piece of a line has a style");
    let lines = frame(&state, 100, 39).len();
    assert!(text.contains(&format!("\r\x1b[{lines}A")), "the second frame starts where the first did");
    assert!(text.ends_with("\x1b[J\x1b[?2026l"));
}

#[test]
fn plain_lines_tell_incidents_and_progress() {
    let mut out = Vec::new();
    let mut view = PlainView::new(&mut out).every(Duration::ZERO);
    let mut state = RunState::new(script::info(STEPS));
    for record in script::events(STEPS) {
        state.apply(&record);
        view.tick(&state);
    }
    view.close(&state);
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains('\x1b'));
    assert_eq!(text.lines().filter(|line| line.contains("iteration 153/600")).count(), 1);
    assert!(text.lines().any(|line| line.contains("iteration 153/600") && line.contains("without stage 3")));
    // Each incident is one line, told when it is over.
    for (begins, ends) in [
        ("node 4 (stage 2) killed", "replaced by node 14 (ready in 0.6 s)"),
        ("stage 3 lost both replicas (nodes 6 and 7)", "rebuilt from stages 2 and 4 in 1.5 s"),
        ("coordinator killed", "training again after 0.3 s"),
    ] {
        let told: Vec<&str> = text.lines().filter(|line| line.contains(begins)).collect();
        assert!(matches!(told[..], [line] if line.ends_with(ends)), "{told:#?}");
    }
    let killed = text.lines().find(|line| line.contains("node 4 (stage 2) killed at 0:2")).unwrap();
    assert!(killed.starts_with("   0:2"), "the line has the time of its end: {killed}");
}

#[test]
fn a_plain_incident_that_takes_long_is_told_twice_at_most() {
    let event = |time_ms, event| EventRecord { schema: EVENT_SCHEMA, time_ms, event };
    let (node, stage) = (NodeId(2), Some(StageId(1)));
    let mut state = RunState::new(script::info(STEPS));
    let mut out = Vec::new();
    let mut view = PlainView::new(&mut out).every(Duration::MAX);
    let mut take = |record: EventRecord| {
        state.apply(&record);
        view.tick(&state);
    };
    take(event(0, Event::NodeJoined { node, process: 1, was: None }));
    let entered = |node| Event::NodeEntered { node, stage: StageId(1), iteration: Iteration(0), took_ms: 30 };
    take(event(0, entered(node)));
    take(event(
        10,
        Event::AttemptStarted {
            iteration: Iteration(0),
            attempt: Attempt(0),
            holes: vec![],
            expected_ms: None,
        },
    ));
    take(event(1000, Event::Killed { target: "node".into(), node: Some(node), stage }));
    take(event(1100, Event::NodeLost { node, stage, why: "connection".into(), wasted_us: 0 }));
    // Nothing follows for long: it is said once, whatever the ticks.
    for time_ms in (2000..60_000).step_by(100) {
        take(event(time_ms, Event::StateSaved { iteration: Iteration(0) }));
    }
    take(event(60_000, Event::NodeJoined { node: NodeId(3), process: 2, was: None }));
    take(event(60_100, entered(NodeId(3))));
    let text = String::from_utf8(out).unwrap();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("killed")).collect();
    assert_eq!(
        told,
        [
            "   0:06  node 2 (stage 1) killed at 0:01",
            "   1:00  node 2 (stage 1) killed at 0:01 → replaced by node 3 (ready in 30 ms)"
        ]
    );
}

/// A swarm of two nodes a stage, whose coordinator dies and comes back under a new term.
#[test]
fn a_restart_renames_nodes_and_kills_none() {
    let mut state = RunState::new(script::info(STEPS));
    let mut before = None;
    for record in script::events(STEPS) {
        if matches!(record.event, Event::Killed { ref target, .. } if target == "coordinator") {
            before = Some((
                state.losses(),
                state.recoveries().len(),
                state.living(),
                state.timeline().marks().len(),
            ));
        }
        state.apply(&record);
        if state.steps() == 241 {
            break;
        }
    }
    let (losses, recoveries, living, marks) = before.unwrap();
    assert_eq!((state.losses(), state.recoveries().len(), state.living()), (losses, recoveries, living));
    assert_eq!(state.timeline().marks().len(), marks + 1, "the coordinator's own death is marked");
    // Nobody left a lane, and nodes are called by their new names.
    for stage in state.stages() {
        assert_eq!(stage.serving().count(), 2);
        assert!(stage.nodes.keys().all(|node| node.0 >= 14), "{stage:?}");
    }
    let last = state.timeline().lanes()[&StageId(5)].last().unwrap();
    assert_eq!(last.kind, SpanKind::Served);
    assert!(last.from_ms < 1500, "served since the start");
    let slowest = Summary::of(&folded()).recoveries.iter().map(|r| r.seconds).fold(0.0, f64::max);
    assert!(slowest < 5.0, "{slowest}");
}

#[test]
fn a_node_that_comes_back_out_of_date_is_no_replica_and_not_dead() {
    let event = |time_ms, event| EventRecord { schema: EVENT_SCHEMA, time_ms, event };
    let mut state = RunState::new(script::info(STEPS));
    let mut take = |time_ms, what| state.apply(&event(time_ms, what));
    let stage = StageId(1);
    for node in [NodeId(1), NodeId(2), NodeId(3)] {
        take(0, Event::NodeJoined { node, process: node.0, was: None });
    }
    for node in [NodeId(1), NodeId(2)] {
        take(0, Event::NodeEntered { node, stage, iteration: Iteration(0), took_ms: 0 });
    }
    take(0, Event::NodeAssigned { node: NodeId(3), stage, how: "copy".into() });
    take(
        5,
        Event::AttemptStarted {
            iteration: Iteration(0),
            attempt: Attempt(0),
            holes: vec![],
            expected_ms: None,
        },
    );
    take(10, Event::Killed { target: "coordinator".into(), node: None, stage: None });
    take(90, Event::CoordinatorStarted { term: skipstone_types::Term(2), iteration: Iteration(0) });
    for (was, node) in [(1, 65), (2, 66), (3, 67)] {
        take(100, Event::NodeJoined { node: NodeId(node), process: was, was: Some(NodeId(was)) });
    }
    take(110, Event::NodeEntered { node: NodeId(65), stage, iteration: Iteration(0), took_ms: 0 });
    take(110, Event::NodeEmptied { node: NodeId(66), stage });
    take(
        120,
        Event::AttemptStarted {
            iteration: Iteration(0),
            attempt: Attempt(1),
            holes: vec![],
            expected_ms: None,
        },
    );
    take(130, Event::NodeAssigned { node: NodeId(66), stage, how: "copy".into() });
    take(400, Event::NodeEntered { node: NodeId(66), stage, iteration: Iteration(1), took_ms: 270 });
    assert_eq!((state.living(), state.spares(), state.losses()), (3, 1, 0), "the joiner begins anew");
    assert_eq!(state.stage(stage).unwrap().serving().collect::<Vec<_>>(), [NodeId(65), NodeId(66)]);
    let recoveries: Vec<_> = state.recoveries().map(|recovery| recovery.seconds).collect();
    assert_eq!(recoveries, [0.29], "from when it was known to be out of date");
    let texts = told(&state);
    assert!(
        texts.iter().any(|text| text == "node 66 (stage 1) came back out of date and starts empty"),
        "{texts:?}"
    );
}

#[test]
fn the_account_of_an_iteration_names_its_causes() {
    let (info, events) = (script::info(STEPS), script::events(STEPS));
    let text = explain(&info, &events, Iteration(150));
    assert!(text.contains("in 2 attempts"), "{text}");
    assert!(text.contains("stage 3   nobody: paths went around it"), "{text}");
    assert!(text.contains("rebuilt from stages 2 and 4"), "how it went on belongs to it: {text}");
    assert!(text.contains("aborted"), "{text}");
    let quiet = explain(&info, &events, Iteration(301));
    assert!(quiet.contains("Nothing: no node came, went or failed."), "{quiet}");
    assert!(explain(&info, &events, Iteration(9999)).contains("iterations 0 to 599"));
    assert!(explain(&info, &[], Iteration(0)).contains("no iteration"));
    let cut: Vec<_> = events
        .iter()
        .take_while(|record| !matches!(record.event, Event::Committed { iteration: Iteration(150), .. }))
        .cloned()
        .collect();
    let begun = explain(&info, &cut, Iteration(150));
    assert!(begun.contains("begun 2 times but never committed") && begun.contains("stage 3 lost"), "{begun}");
}

#[test]
fn an_observed_run_reads_back_the_same_and_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let mut observer = Observer::start(dir.path(), script::info(STEPS), Progress::Quiet).unwrap();
    for record in script::events(100) {
        observer.record(record.time_ms, record.event);
    }
    let live = observer.state().clone();
    let outcome = observer.finish();
    let events = read_events(&dir.path().join("events.jsonl")).unwrap();
    assert!(events == script::events(100), "the log reads back bit for bit");
    let mut again = RunState::new(script::info(STEPS));
    for record in &events {
        again.apply(record);
    }
    assert!(again == live, "the fold of the log is the live one");
    let page = std::fs::read_to_string(outcome.report.unwrap()).unwrap();
    assert!(page.contains("</html>") && !page.contains("<script"));

    // A resumed run goes on in time, and its old nodes don't count as alive.
    let mut observer = Observer::start(dir.path(), script::info(STEPS), Progress::Quiet).unwrap();
    assert_eq!(observer.state().living(), 0);
    let ended_ms = observer.state().now_ms();
    observer.record(10, Event::NodeJoined { node: skipstone_types::NodeId(90), process: 1, was: None });
    assert_eq!((observer.state().now_ms(), observer.state().living()), (ended_ms + 10, 1));
    assert_eq!(observer.state().steps(), 100);
    let scalars = std::fs::read_dir(dir.path().join("tensorboard")).unwrap().count();
    assert!(scalars >= 1);
}

#[test]
fn a_rollback_is_one_incident_and_nobody_is_lost_but_who_died() {
    let mut state = RunState::new(script::info(20));
    let mut time_ms = 0;
    let mut hear = |event| {
        time_ms += 10;
        state.apply(&EventRecord { schema: EVENT_SCHEMA, time_ms, event });
    };
    let (stages, iteration) = (0..3, |t| Iteration(t));
    let joins = |node: u32, was: u32| {
        let was = (was > 0).then_some(NodeId(was));
        Event::NodeJoined { node: NodeId(node), process: 1, was }
    };
    let gets = |node: u32, stage: u16| Event::NodeAssigned {
        node: NodeId(node),
        stage: StageId(stage),
        how: "load".to_owned(),
    };
    let enters = |node: u32, stage: u16, t: u64| Event::NodeEntered {
        node: NodeId(node),
        stage: StageId(stage),
        iteration: Iteration(t),
        took_ms: 1,
    };
    let lost = |node: u32, stage: u16, why: &str| Event::NodeLost {
        node: NodeId(node),
        stage: Some(StageId(stage)),
        why: why.to_owned(),
        wasted_us: 0,
    };
    let begins = |t: u64| Event::AttemptStarted {
        iteration: Iteration(t),
        attempt: Attempt(0),
        holes: vec![],
        expected_ms: None,
    };
    for stage in stages.clone() {
        let node = u32::from(stage) + 1;
        [joins(node, 0), gets(node, stage), enters(node, stage, 0)].into_iter().for_each(&mut hear);
    }
    for t in [4, 8] {
        hear(begins(t));
        hear(Event::Committed {
            iteration: Iteration(t),
            attempt: Attempt(0),
            loss: 1.0,
            tokens: 100,
            learning_rate: 1e-3,
            stages: vec![],
            busy_us: 1000,
            replay_us: 0,
            memory_wait_us: 0,
            link_us: 0,
            took_ms: 10,
            record: Digest::of(&t.to_le_bytes()),
        });
    }
    hear(begins(9));
    hear(lost(2, 1, "connection"));
    hear(Event::AttemptAborted { iteration: iteration(9), attempt: Attempt(0), ran_ms: 10 });
    hear(Event::StageLost { stage: StageId(1), iteration: iteration(9) });
    hear(Event::RolledBack { stage: StageId(1), from: iteration(9), iteration: iteration(5), generation: 1 });
    hear(lost(1, 0, "rollback"));
    hear(lost(3, 2, "rollback"));
    [joins(11, 1), joins(12, 0), joins(13, 3)].into_iter().for_each(&mut hear);
    for stage in stages {
        [gets(u32::from(stage) + 11, stage), enters(u32::from(stage) + 11, stage, 5)]
            .into_iter()
            .for_each(&mut hear);
    }
    hear(Event::StageRebuilt {
        stage: StageId(1),
        kind: "checkpoint".to_owned(),
        sources: vec![],
        took_ms: 90,
        iteration: iteration(5),
    });
    hear(begins(5));
    assert_eq!((state.living(), state.steps()), (3, 5));
    let summary = Summary::of(&state);
    assert_eq!((summary.losses, summary.tokens), (1, 100), "what was undone was not trained");
    let kinds: Vec<_> = summary.recoveries.iter().map(|of| (of.stage, of.kind.as_str())).collect();
    assert_eq!(kinds, [(StageId(1), "checkpoint")]);
    let texts = told(&state);
    let back = "the run goes back to its checkpoint before iteration 5, 4 iterations to be trained again";
    assert_eq!(texts.iter().filter(|text| text.contains(back)).count(), 1, "{texts:#?}");
    assert!(
        !texts.iter().any(|text| text.contains("again with") || text.contains("starts empty")),
        "{texts:#?}"
    );
}

/// A parent that was killed has told of iterations that were saved nowhere: who goes on from `state/` does not count them.
#[test]
fn a_run_that_goes_on_after_its_parent_was_killed_counts_from_what_was_saved() {
    let mut state = RunState::new(script::info(STEPS));
    let finished = |record: &EventRecord| matches!(record.event, Event::Finished { .. });
    let mut last_ms = 0;
    for record in script::events(100).into_iter().take_while(|record| !finished(record)) {
        last_ms = record.time_ms;
        state.apply(&record);
    }
    let (steps, tokens) = (state.steps(), state.tokens());
    assert!(steps > 40 && state.living() > 0);
    let mut take = |event| state.apply(&EventRecord { schema: 1, time_ms: last_ms + 5, event });
    take(Event::SwarmStarted { cores: 2 });
    take(Event::CoordinatorStarted { term: skipstone_types::Term(9), iteration: Iteration(40) });
    take(Event::Finished { iteration: Iteration(40), why: "stopped".to_owned() });
    assert_eq!((state.steps(), state.living()), (40, 0));
    assert_eq!(state.tokens(), tokens / steps * 40);
    let summary = Summary::of(&state);
    let sum = summary.badput.total() + summary.goodput * summary.node_seconds;
    assert!((sum - summary.node_seconds).abs() < 1e-6, "{sum} of {}", summary.node_seconds);
}
