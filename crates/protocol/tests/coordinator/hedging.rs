//! A late node's microbatches move to a replica that is idle.

use super::*;

const STAGE: StageId = StageId(1);

/// Stage 1 is served by the third and the fourth, who have two microbatches each; the first is through, at 0 ms.
fn one_is_late(deterministic: bool) -> (Bench, Vec<NodeId>) {
    let settings = Settings { steps: 30, microbatches: 4, deterministic, ..settings(2, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    paced_iteration(&mut bench, &nodes, &|_| 10_000);
    bench.share(nodes[2], 0, false);
    bench.share(nodes[2], 2, false);
    (bench, nodes)
}

fn asked(sent: &[(NodeId, ToWorker)]) -> Vec<(NodeId, u32)> {
    sent.iter()
        .filter_map(|(node, message)| match message {
            ToWorker::GiveUp { microbatches_max, .. } => Some((*node, *microbatches_max)),
            _ => None,
        })
        .collect()
}

fn gives_up(bench: &mut Bench, node: NodeId, microbatches: &[u32]) {
    let (iteration, attempt) = bench.current();
    let microbatches = microbatches.iter().copied().map(Microbatch).collect();
    bench.says(node, ToCoordinator::GaveUp { iteration, attempt, microbatches });
}

fn aborted(bench: &Bench) -> bool {
    bench.events.iter().any(|event| matches!(event, Event::AttemptAborted { .. }))
}

#[test]
fn what_a_late_node_gives_up_moves_to_the_idle_replica() {
    let (mut bench, nodes) = one_is_late(false);
    let (origin, heir, late) = (nodes[1], nodes[2], nodes[3]);
    // The heir needs 10 ms for a microbatch, 40 with three deviations more.
    assert_eq!(asked(&bench.sent), []);
    let sent = pass_ms(&mut bench, 50);
    assert_eq!(asked(&sent), [(late, 2)], "as much as the heir can hold");
    let sent = pass_ms(&mut bench, 500);
    assert_eq!(asked(&sent), [], "it has not answered");
    gives_up(&mut bench, late, &[3]);
    let (iteration, attempt) = bench.current();
    let hedged = bench.events.iter().find(|event| matches!(event, Event::Hedged { .. })).cloned();
    let numbers = Event::Hedged {
        iteration,
        attempt,
        stage: STAGE,
        node: late,
        microbatches: 1,
        takers: vec![heir],
        waited_ms: 51.0,
        limit_ms: 40.0,
    };
    assert_eq!(hedged, Some(numbers));
    let replay = Duty {
        goes_back: false,
        microbatch: Microbatch(3),
        counted: true,
        replay: true,
        previous: origin,
        next: origin,
    };
    assert_eq!(bench.duties(heir).last(), Some(&replay));
    assert_eq!(bench.duties(origin).last().map(|duty| (duty.previous, duty.next)), Some((heir, heir)));

    // What it said it gave up does not count for it, whatever it says later.
    bench.share(late, 3, false);
    bench.share(late, 1, false);
    bench.measured(late, 1, 1.2345);
    bench.reduces.clear();
    bench.share(heir, 3, false);
    assert!(bench.reduces.contains_key(&heir), "sealed: all four are there once");
    for origin in [nodes[0], nodes[1]] {
        for duty in begun(&bench, origin) {
            bench.share(origin, duty.microbatch.0, true);
        }
    }
    for node in &nodes {
        bench.reduced(*node, 9);
    }
    let record = (*bench.commits().last().expect("a commit")).clone();
    let shares = &record.stages[1].shares;
    let counted: Vec<_> = shares.iter().map(|share| (share.node, share.microbatches.clone())).collect();
    let expected = [(heir, vec![Microbatch(0), Microbatch(2), Microbatch(3)]), (late, vec![Microbatch(1)])];
    assert_eq!(counted, expected);
    assert_eq!(record.paths[3].0[1].node, heir);
}

#[test]
fn a_node_that_has_nothing_to_give_is_asked_again_only_when_it_is_late_again() {
    let (mut bench, nodes) = one_is_late(false);
    assert_eq!(asked(&pass_ms(&mut bench, 50)), [(nodes[3], 2)]);
    gives_up(&mut bench, nodes[3], &[]);
    assert_eq!(bench.events.iter().filter(|event| matches!(event, Event::Hedged { .. })).count(), 0);
    assert_eq!(asked(&pass_ms(&mut bench, 50)), [(nodes[3], 2)]);
    gives_up(&mut bench, nodes[3], &[]);
    bench.share(nodes[3], 1, false);
    bench.share(nodes[3], 3, false);
    assert_eq!(asked(&pass_ms(&mut bench, 1000)), []);
}

#[test]
fn a_deterministic_run_never_hedges() {
    let (mut bench, _) = one_is_late(true);
    assert_eq!(asked(&pass_ms(&mut bench, 5000)), []);
}

#[test]
fn a_replica_that_dies_with_what_it_took_over_gives_it_back() {
    let (mut bench, nodes) = one_is_late(false);
    let (heir, late) = (nodes[2], nodes[3]);
    pass_ms(&mut bench, 50);
    gives_up(&mut bench, late, &[1, 3]);
    bench.input(CoordinatorInput::Lost { node: heir, why: "connection".to_owned() });
    let back: Vec<_> =
        bench.duties(late).into_iter().filter(|duty| duty.replay).map(|duty| duty.microbatch.0).collect();
    assert_eq!(back, [0, 1, 2, 3]);
    assert!(!aborted(&bench));
}

#[test]
fn a_late_node_that_dies_is_repaired_whether_it_had_answered_or_not() {
    for answers in [false, true] {
        let (mut bench, nodes) = one_is_late(false);
        let (heir, late) = (nodes[2], nodes[3]);
        pass_ms(&mut bench, 50);
        if answers {
            gives_up(&mut bench, late, &[3]);
        }
        bench.input(CoordinatorInput::Lost { node: late, why: "connection".to_owned() });
        let replays = bench.duties(heir).into_iter().filter(|duty| duty.replay);
        let mut replays: Vec<_> = replays.map(|duty| duty.microbatch.0).collect();
        replays.sort_unstable();
        assert_eq!(replays, [1, 3], "answers: {answers}");
        // Too late.
        gives_up(&mut bench, late, &[1, 3]);
        assert!(!aborted(&bench));
    }
}

#[test]
fn what_nobody_can_take_any_more_costs_the_attempt() {
    let (mut bench, nodes) = one_is_late(false);
    pass_ms(&mut bench, 50);
    bench.input(CoordinatorInput::Lost { node: nodes[2], why: "connection".to_owned() });
    gives_up(&mut bench, nodes[3], &[1]);
    assert!(aborted(&bench), "node and coordinator agree that nobody has it");
}

#[test]
fn an_answer_from_an_earlier_attempt_counts_for_nothing() {
    let (mut bench, nodes) = one_is_late(false);
    pass_ms(&mut bench, 50);
    let (iteration, attempt) = bench.current();
    // Both origins die: the attempt is given up.
    for origin in [nodes[0], nodes[1]] {
        bench.input(CoordinatorInput::Lost { node: origin, why: "connection".to_owned() });
    }
    assert!(aborted(&bench));
    let message = ToCoordinator::GaveUp { iteration, attempt, microbatches: vec![Microbatch(1)] };
    bench.says(nodes[3], message);
    assert!(!bench.events.iter().any(|event| matches!(event, Event::Hedged { .. })));
}

#[test]
fn a_node_that_gave_all_up_is_known_to_be_slow() {
    let (mut bench, nodes) = one_is_late(false);
    let late = nodes[3];
    pass_ms(&mut bench, 100);
    gives_up(&mut bench, late, &[1, 3]);
    bench.share(nodes[2], 1, false);
    bench.share(nodes[2], 3, false);
    for origin in [nodes[0], nodes[1]] {
        for duty in begun(&bench, origin) {
            bench.share(origin, duty.microbatch.0, true);
        }
    }
    for node in &nodes {
        bench.reduced(*node, 9);
    }
    let problem = |bench: &mut Bench| {
        all_step(bench, &nodes);
        bench.problems.last().expect("a problem").clone()
    };
    let paces = problem(&mut bench).paces;
    let pace = paces.iter().find(|pace| pace.node == late).map(|pace| pace.microbatch_us);
    assert_eq!(pace, Some(30_500), "between 10 ms before and 51 ms now: {paces:?}");
}
