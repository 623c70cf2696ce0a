//! How fast nodes are, and nodes that get nothing done.

use super::*;

#[test]
fn a_clock_that_jumps_ends_nobodys_patience() {
    let (mut bench, nodes) = Bench::started(&settings(1, 2));
    run_iteration(&mut bench, &nodes);
    lose(&mut bench, nodes[0]);
    bench.now_us += 3_600_000_000;
    bench.input(CoordinatorInput::Tick);
    bench.now_us -= 1_800_000_000;
    bench.input(CoordinatorInput::Tick);
    assert!(!bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. })), "it may return");
    bench.wait(10_000_000);
    assert!(
        bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. })),
        "time passes again"
    );
}

#[test]
fn a_clock_that_jumps_again_and_again_ends_nobodys_patience_either() {
    let (mut bench, nodes) = Bench::started(&settings(1, 2));
    run_iteration(&mut bench, &nodes);
    lose(&mut bench, nodes[0]);
    let saves =
        |bench: &Bench| bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. }));
    for _ in 0..30 {
        bench.now_us += 60_000_000;
        bench.input(CoordinatorInput::Tick);
    }
    bench.wait(7_000_000);
    assert!(!saves(&bench), "the origin has been away for 7 s of a running clock: it may return");
    for _ in 0..100 {
        bench.now_us += 60_000_000;
        bench.input(CoordinatorInput::Tick);
    }
    assert!(saves(&bench), "on a machine that is always late waits end too");
}

#[test]
fn plans_are_asked_for_with_the_paces_of_the_last_iterations() {
    let settings = Settings { steps: 30, ..settings(2, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    let slow = nodes[3];
    assert_eq!(bench.problems.last().unwrap().paces, [], "nothing is known yet");
    for _ in 0..6 {
        paced_iteration(&mut bench, &nodes, &|node| if node == slow { 9000 } else { 1000 });
    }
    let paces = &bench.problems.last().unwrap().paces;
    let pace =
        |node| paces.iter().find(|pace| pace.node == node).map(|pace| (pace.microbatch_us, pace.probe));
    assert_eq!(pace(nodes[0]), Some((1000, false)));
    assert_eq!(pace(slow), Some((9000, false)));
    // It recovers: after four iterations that is all that counts.
    for _ in 0..4 {
        paced_iteration(&mut bench, &nodes, &|_| 1000);
    }
    let recovered = bench.problems.last().unwrap().paces.iter().all(|pace| pace.microbatch_us == 1000);
    assert!(recovered, "{:?}", bench.problems.last());

    // Without a share for four iterations it is to get one, so that a recovery shows.
    bench.idle = Some(slow);
    let probes: Vec<_> = (0..6)
        .map(|_| {
            paced_iteration(&mut bench, &nodes, &|_| 1000);
            bench.problems.last().unwrap().paces.iter().any(|pace| pace.node == slow && pace.probe)
        })
        .collect();
    assert_eq!(probes, [false, false, false, true, true, true]);
}

#[test]
fn what_a_node_computes_once_an_iteration_is_not_a_microbatchs() {
    let (mut bench, nodes) = Bench::started(&settings(2, 1));
    // 1 ms a microbatch, and 7 ms whatever their number.
    spent_iteration(&mut bench, &nodes, &|_, microbatches| Spent {
        busy_us: 1000 * microbatches + 7000,
        fixed_us: 7000,
        ..Spent::default()
    });
    let paces = &bench.problems.last().unwrap().paces;
    assert_eq!(paces.len(), nodes.len());
    assert!(paces.iter().all(|pace| (pace.microbatch_us, pace.fixed_us) == (1000, 7000)), "{paces:?}");
}

#[test]
fn a_deterministic_run_plans_without_speeds() {
    let settings = Settings { steps: 30, deterministic: true, ..settings(2, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    for _ in 0..6 {
        paced_iteration(&mut bench, &nodes, &|node| u64::from(node.0) * 1000);
    }
    assert!(bench.problems.len() > 6 && bench.problems.iter().all(|problem| problem.paces.is_empty()));
}

/// Four nodes, the origins' first; one iteration took 1 ms a microbatch.
fn known_paces() -> (Bench, Vec<NodeId>) {
    let settings = Settings { steps: 30, ..settings(2, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    paced_iteration(&mut bench, &nodes, &|_| 1000);
    (bench, nodes)
}

fn answer(bench: &mut Bench, node: NodeId, task: Option<u64>, duty: bool) {
    bench.says(node, ToCoordinator::Computing { task, duty });
}

#[test]
fn a_node_whose_task_never_ends_is_set_aside_and_its_share_replayed() {
    let (mut bench, nodes) = known_paces();
    let asked = pass_ms(&mut bench, 1000);
    assert_eq!(asked.len(), 4, "everyone is quiet: {asked:?}");
    assert!(asked.iter().all(|(_, message)| *message == ToWorker::Poll));
    answer(&mut bench, nodes[2], Some(7), true);
    for second in 1..=10 {
        assert_eq!(bench.events.iter().filter(|event| matches!(event, Event::NodeLost { .. })).count(), 0);
        let asked = pass_ms(&mut bench, 1000);
        assert!(asked.contains(&(nodes[2], ToWorker::Poll)), "second {second}: {asked:?}");
        answer(&mut bench, nodes[2], Some(7), true);
    }
    let stuck = bench.events.iter().find(|event| matches!(event, Event::Stuck { .. })).cloned();
    let numbers = Event::Stuck { node: nodes[2], waited_ms: 10_000.0, late_ms: 8.0, limit_ms: 10_000.0 };
    assert_eq!(stuck, Some(numbers));
    assert!(bench.events.iter().any(
        |event| matches!(event, Event::NodeLost { node, why, .. } if *node == nodes[2] && why == "stuck")
    ));
    assert!(
        bench
            .events
            .iter()
            .any(|event| matches!(event, Event::Repaired { lost, microbatches: 1, .. } if *lost == nodes[2]))
    );
}

#[test]
fn a_node_that_works_on_is_never_set_aside() {
    let (mut bench, nodes) = known_paces();
    for second in 0..100 {
        pass_ms(&mut bench, 1000);
        // One finishes a task a second, one is idle now and then, one saves, and one says nothing (its heartbeats are
        // another's business).
        answer(&mut bench, nodes[0], Some(second), true);
        answer(&mut bench, nodes[1], (second % 9 > 0).then_some(7), true);
        if second < 39 {
            answer(&mut bench, nodes[2], Some(3), false);
        }
    }
    assert!(!bench.events.iter().any(|event| matches!(event, Event::Stuck { .. })), "{:?}", bench.events);
}

#[test]
fn the_last_of_a_stage_is_given_more_time_and_the_last_origin_all_of_it() {
    let settings = Settings { steps: 30, ..settings(1, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    paced_iteration(&mut bench, &nodes, &|_| 1000);
    let mut lost_after = [None, None];
    for second in 0..100 {
        pass_ms(&mut bench, 1000);
        for (index, node) in nodes.iter().enumerate() {
            answer(&mut bench, *node, Some(7), true);
            let lost = bench
                .events
                .iter()
                .any(|event| matches!(event, Event::NodeLost { node: lost, .. } if lost == node));
            lost_after[index] = lost_after[index].or(lost.then_some(second));
        }
    }
    assert_eq!(lost_after, [None, Some(40)]);
}

#[test]
fn while_the_coordinator_stood_still_nobody_was_quiet() {
    let (mut bench, nodes) = known_paces();
    for node in &nodes {
        answer(&mut bench, *node, Some(7), true);
    }
    let sent = bench.sent.len();
    bench.now_us += 60_000_000;
    bench.input(CoordinatorInput::Tick);
    assert_eq!(bench.sent.len(), sent, "a minute of standing still is a fifth of a second");
}

#[test]
fn a_joiner_that_is_stuck_makes_room_for_another_which_gets_twice_the_time() {
    let settings = Settings { steps: 30, ..settings(1, 3) };
    let (mut bench, nodes) = Bench::started(&settings);
    paced_iteration(&mut bench, &nodes, &|_| 1000);
    lose(&mut bench, nodes[2]);
    let mut heir = NodeId(0);
    let mut took_s = Vec::new();
    for _ in 0..2 {
        heir = bench.hello(None);
        assert_eq!(bench.last_assignment(heir).1, StageId(2));
        let is_lost = |bench: &Bench| {
            bench.events.iter().any(
                |event| matches!(event, Event::NodeLost { node, why, .. } if *node == heir && why == "stuck"),
            )
        };
        let mut seconds = 0;
        while !is_lost(&bench) && seconds < 100 {
            pass_ms(&mut bench, 1000);
            answer(&mut bench, heir, Some(7), false);
            seconds += 1;
        }
        took_s.push(seconds);
    }
    assert_eq!(took_s, [11, 21]);
    assert!(bench.events.iter().any(|event| matches!(event, Event::Stuck { node, .. } if *node == heir)));
}
