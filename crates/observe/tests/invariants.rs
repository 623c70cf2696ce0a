//! The fold under random events: every node-microsecond in exactly one account, bounded memory, no panic.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use skipstone_observe::{History, RunInfo, RunState, Story, Summary, Timeline, explain, frame, report};
use skipstone_types::{
    Attempt, CommittedStage, Digest, EVENT_SCHEMA, Event, EventRecord, Iteration, NodeId, StageId, Term,
};

fn node() -> impl Strategy<Value = NodeId> {
    (0_u32..12).prop_map(NodeId)
}

fn stage() -> impl Strategy<Value = StageId> {
    (0_u16..5).prop_map(StageId)
}

fn iteration() -> impl Strategy<Value = Iteration> {
    prop_oneof![9 => (0_u64..40).prop_map(Iteration), 1 => any::<u64>().prop_map(Iteration)]
}

/// Words of all kinds, but for the one that the report must never show in place of a number.
fn text() -> impl Strategy<Value = String> {
    let words = prop_oneof![
        "connection|silence|hash|left|copy|rebuild|initialise|return|node|coordinator",
        ".{0,40}"
    ];
    words.prop_filter("no number", |text| !text.contains("NaN"))
}

/// Microseconds that fit, and ones that no honest worker reports.
fn us() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..2_000_000, 1 => any::<u64>()]
}

fn event() -> impl Strategy<Value = Event> {
    let committed = (
        iteration(),
        any::<f64>(),
        any::<u64>(),
        (us(), us(), us(), us()),
        prop::collection::vec(node(), 0..9),
    )
        .prop_map(|(iteration, loss, tokens, (busy_us, replay_us, memory_wait_us, link_us), nodes)| {
            let stages = vec![CommittedStage {
                stage: StageId(1),
                microbatches: 3,
                nodes,
                gradient_norm: loss,
                pace: None,
            }];
            let record = Digest::of(&tokens.to_le_bytes());
            let (attempt, learning_rate, took_ms) = (Attempt(0), loss, busy_us);
            Event::Committed {
                iteration,
                attempt,
                loss,
                tokens,
                learning_rate,
                stages,
                busy_us,
                replay_us,
                memory_wait_us,
                link_us,
                took_ms,
                record,
            }
        });
    prop_oneof![
        1 => (0_usize..5).prop_map(|cores| Event::SwarmStarted { cores }),
        1 => (0_u64..4, iteration())
            .prop_map(|(term, iteration)| Event::CoordinatorStarted { term: Term(term), iteration }),
        6 => (node(), prop::option::of(node()))
            .prop_map(|(node, was)| Event::NodeJoined { node, process: 0, was }),
        2 => (node(), stage()).prop_map(|(node, stage)| Event::NodeEmptied { node, stage }),
        4 => (node(), stage(), text()).prop_map(|(node, stage, how)| Event::NodeAssigned { node, stage, how }),
        6 => (node(), stage(), iteration(), any::<u64>()).prop_map(|(node, stage, iteration, took_ms)| {
            Event::NodeEntered { node, stage, iteration, took_ms }
        }),
        3 => (node(), prop::option::of(stage()), text(), us())
            .prop_map(|(node, stage, why, wasted_us)| Event::NodeLost { node, stage, why, wasted_us }),
        2 => (stage(), node(), any::<u32>())
            .prop_map(|(stage, lost, microbatches)| Event::Repaired { stage, lost, microbatches }),
        2 => (node(), stage(), any::<u32>(), any::<u64>()).prop_map(|(node, stage, chunks, bytes)| {
            let (chunks_total, bytes_total, donors) = (chunks, bytes, 2);
            Event::StateArriving { node, stage, chunks, chunks_total, bytes, bytes_total, donors }
        }),
        1 => (iteration(), stage(), node(), any::<u32>()).prop_map(|(iteration, stage, node, microbatches)| {
            let (attempt, takers) = (Attempt(0), vec![node]);
            Event::Hedged { iteration, attempt, stage, node, microbatches, takers, waited_ms: 2.0, limit_ms: 1.0 }
        }),
        1 => (stage(), iteration()).prop_map(|(stage, iteration)| Event::StageLost { stage, iteration }),
        1 => (stage(), node()).prop_map(|(stage, node)| {
            Event::RebuildStarted { stage, node, sources: vec![(StageId(0), 0.5)], lessons: 2 }
        }),
        1 => (stage(), text(), any::<u64>()).prop_map(|(stage, kind, took_ms)| {
            Event::StageRebuilt { stage, kind, sources: vec![], took_ms, iteration: Iteration(1) }
        }),
        1 => (stage(), text()).prop_map(|(stage, why)| Event::RebuildRefused { stage, why }),
        6 => (iteration(), prop::collection::vec(stage(), 0..3)).prop_map(|(iteration, holes)| {
            Event::AttemptStarted { iteration, attempt: Attempt(0), holes, expected_ms: None }
        }),
        2 => iteration().prop_map(|iteration| {
            Event::AttemptAborted { iteration, attempt: Attempt(0), ran_ms: 1 }
        }),
        6 => committed,
        3 => (text(), prop::option::of(node()), prop::option::of(stage()))
            .prop_map(|(target, node, stage)| Event::Killed { target, node, stage }),
        1 => text().prop_map(|target| Event::Respawned { target }),
        1 => (iteration(), any::<f64>()).prop_map(|(iteration, loss)| Event::Validated { iteration, loss }),
        1 => (iteration(), iteration())
            .prop_map(|(iteration, writing)| Event::SaveSkipped { iteration, writing }),
        1 => (any::<u64>(), prop::collection::vec(text(), 0..4))
            .prop_map(|(for_ms, what)| Event::EndWaits { for_ms, what }),
        1 => text().prop_map(|why| Event::SaveFailed { why }),
        1 => (iteration(), any::<u64>(), any::<u64>())
            .prop_map(|(iteration, bytes, took_ms)| Event::StateStored { iteration, bytes, took_ms }),
        1 => (iteration(), text()).prop_map(|(iteration, why)| Event::StoreFailed { iteration, why }),
        1 => (iteration(), text()).prop_map(|(iteration, why)| Event::Finished { iteration, why }),
    ]
}

fn info() -> RunInfo {
    RunInfo { steps: 40, relay_stages: 3, replicas: 2, microbatches: 8, ..RunInfo::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_node_second_is_in_one_account(
        events in prop::collection::vec((event(), 0_u64..5000, prop::bool::weighted(0.05)), 1..150),
        (width, height) in (0_usize..220, 0_usize..60),
    ) {
        let mut state = RunState::new(info());
        let (mut time_ms, mut now_ms, mut alive_ms) = (0_u64, 0_u64, 0_u128);
        let mut records = Vec::new();
        for (event, passed, backwards) in events {
            time_ms = if backwards { time_ms.saturating_sub(passed) } else { time_ms + passed };
            // Node time by definition: living nodes times the time that passes.
            alive_ms += u128::from(time_ms.saturating_sub(now_ms)) * state.living() as u128;
            now_ms = now_ms.max(time_ms);
            let record = EventRecord { schema: EVENT_SCHEMA, time_ms, event };
            state.apply(&record);
            let time = state.time();
            let alive = alive_ms as f64 / 1000.0;
            let sum = time.good_seconds() + time.badput().total() + time.open_seconds();
            prop_assert!((sum - alive).abs() < 1e-6 * (1.0 + alive), "{} of {}: {:?}", sum, alive, record);
            prop_assert!((time.alive_seconds() - alive).abs() < 1e-6 * (1.0 + alive));
            prop_assert!(time.badput().causes().iter().all(|(_, seconds)| *seconds >= 0.0));
            prop_assert!((0.0..=1.0).contains(&time.goodput()));
            if state.finished().is_some() {
                prop_assert_eq!(time.open_seconds(), 0.0);
            }
            for text in state.stories().map(Story::text) {
                prop_assert!(!text.is_empty() && !text.chars().any(char::is_control), "{:?}", text);
            }
            records.push(record);
        }
        for line in frame(&state, width, height) {
            prop_assert!(line.width() <= width.clamp(20, 200));
        }
        let page = report(&state);
        prop_assert!(page.ends_with("</html>\n") && !page.contains("NaN"));
        let _ = Summary::of(&state).render(width);
        let _ = explain(&info(), &records, Iteration(7));
    }
}

#[test]
fn memory_stays_bounded_over_a_long_run() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut state = RunState::new(info());
    let strategy = event();
    let mut largest = 0;
    for step in 0..60_000_u64 {
        let mut event = strategy.new_tree(&mut runner).unwrap().current();
        if let Event::Committed { iteration, loss, .. } = &mut event {
            (*iteration, *loss) = (Iteration(step), 1.0);
        }
        state.apply(&EventRecord { schema: EVENT_SCHEMA, time_ms: step * 7, event });
        if step % 10_000 == 9_999 {
            let size = format!("{state:?}").len();
            assert!(largest == 0 || size < largest + largest / 2, "{size} bytes after {largest}");
            largest = largest.max(size).max(1_000_000);
        }
    }
    assert!(state.loss().points().len() < History::CAPACITY && state.loss().points().len() > 500);
    assert!(state.timeline().marks().len() <= Timeline::MARKS_MAX);
    assert!(state.timeline().lanes().values().all(|lane| lane.len() <= Timeline::SPANS_MAX));
    assert!(state.recoveries().len() <= RunState::LIST_MAX && state.stories().count() <= 64);
}
