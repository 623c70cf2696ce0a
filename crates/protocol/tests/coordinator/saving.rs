//! `state/` is saved and published.

use super::*;

#[test]
fn a_last_save_that_fails_is_tried_again() {
    let (mut bench, nodes) = Bench::started(&settings(1, 1));
    bench.input(CoordinatorInput::Stop);
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    let iteration = Iteration(1);
    let why = "no space left".to_owned();
    bench.says(nodes[0], ToCoordinator::SaveFailed { stage: StageId(0), iteration, why });
    assert_eq!(bench.end, None);
    bench.sent.clear();
    bench.wait(2_000_000);
    let asked = bench.sent.iter().filter(|(_, message)| matches!(message, ToWorker::Save { .. })).count();
    assert_eq!(asked, 2);
    for stage in 0..2 {
        let digest = Digest([100 + stage as u8; 32]);
        bench.says(nodes[stage as usize], ToCoordinator::Saved { stage: StageId(stage), iteration, digest });
    }
    assert_eq!(bench.end, Some(End::Stopped));
}

#[test]
fn a_state_that_its_replicas_do_not_hold_is_not_published() {
    let mut settings = settings(1, 1);
    settings.save_every_iterations = 1;
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    let iteration = Iteration(1);
    for (stage, digest) in [(0, 100), (1, 66)] {
        let saved = ToCoordinator::Saved { stage: StageId(stage), iteration, digest: Digest([digest; 32]) };
        bench.says(nodes[usize::from(stage)], saved);
    }
    assert!(
        !bench.events.iter().any(|event| matches!(event, Event::StateSaved { .. })),
        "{:?}",
        bench.events
    );
}

/// Nodes told to save, since the last look.
fn savers(bench: &mut Bench) -> Vec<NodeId> {
    let saves = bench.sent.iter().filter(|(_, message)| matches!(message, ToWorker::Save { .. }));
    let savers = saves.map(|(node, _)| *node).collect();
    bench.sent.clear();
    savers
}

#[test]
fn a_last_save_that_fails_is_tried_again_until_the_disk_takes_it() {
    let settings = Settings { steps: 1, ..settings(1, 2) };
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    let mut pauses_us = Vec::new();
    for _ in 0..4 {
        assert_eq!(savers(&mut bench), nodes);
        let why = "No space left on device".to_owned();
        let failed = ToCoordinator::SaveFailed { stage: StageId(1), iteration: Iteration(1), why };
        let failed_us = bench.now_us;
        bench.says(nodes[1], failed);
        let saves =
            |bench: &Bench| bench.sent.iter().any(|(_, message)| matches!(message, ToWorker::Save { .. }));
        while !saves(&bench) {
            bench.now_us += 50_000;
            bench.input(CoordinatorInput::Tick);
            assert_eq!(bench.end, None, "what was trained must not be lost to a full disk");
        }
        pauses_us.push(bench.now_us - failed_us);
    }
    assert!(pauses_us.windows(2).all(|pair| pair[1] > pair[0]), "patience grows: {pauses_us:?}");
    all_step(&mut bench, &nodes);
    for (stage, node) in nodes.iter().enumerate() {
        let (stage, digest) = (StageId(stage as u16), Digest([100 + stage as u8; 32]));
        bench.says(*node, ToCoordinator::Saved { stage, iteration: Iteration(1), digest });
    }
    assert_eq!(bench.end, Some(End::Done));
}

#[test]
fn a_save_that_is_due_while_the_one_before_is_still_written_is_left_out_and_told() {
    let mut settings = settings(1, 1);
    settings.save_every_iterations = 1;
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    assert_eq!(savers(&mut bench), nodes);
    let skipped = |bench: &Bench| {
        let of = |event: &Event| match event {
            Event::SaveSkipped { iteration, writing } => Some((iteration.0, writing.0)),
            _ => None,
        };
        bench.events.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(skipped(&bench), []);
    // The disk is slow: the next iteration is over, and training does not wait.
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    assert_eq!((savers(&mut bench), skipped(&bench)), (vec![], vec![(2, 1)]));
    for (stage, node) in nodes.iter().enumerate() {
        let (stage, digest) = (StageId(stage as u16), Digest([100 + stage as u8; 32]));
        bench.says(*node, ToCoordinator::Saved { stage, iteration: Iteration(1), digest });
    }
    let saved = Event::StateSaved { iteration: Iteration(1) };
    assert!(bench.events.contains(&saved), "what was begun counts when it is there: {:?}", bench.events);
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    assert_eq!((savers(&mut bench), skipped(&bench)), (nodes, vec![(2, 1)]));
}

/// All stages of one node each are written as they were before `iteration`.
fn all_save(bench: &mut Bench, nodes: &[NodeId], iteration: u64) {
    for (stage, node) in nodes.iter().enumerate() {
        let state = if iteration == 0 { stage + 1 } else { 100 + stage };
        let (stage, digest) = (StageId(stage as u16), Digest([state as u8; 32]));
        bench.says(*node, ToCoordinator::Saved { stage, iteration: Iteration(iteration), digest });
    }
}

#[test]
fn a_checkpoint_that_takes_many_iterations_to_write_is_gone_back_to() {
    let recovery = "checkpoint:every=2".to_owned();
    let (mut bench, nodes) = Bench::started(&Settings { recovery, steps: 40, ..settings(1, 1) });
    assert_eq!(savers(&mut bench), nodes);
    all_save(&mut bench, &nodes, 0);
    for _ in 0..30 {
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
    }
    assert_eq!(savers(&mut bench), nodes, "the one before is still written");
    all_save(&mut bench, &nodes, 2);
    let second = bench.commits()[1].digest();
    let Some(Entry::Saved { state, previous }) = bench.journal.last() else { panic!("it is not noted") };
    assert_eq!((state.iteration, *previous), (Iteration(2), second));
    lose(&mut bench, nodes[1]);
    let back = bench.journal.iter().find(|entry| matches!(entry, Entry::RolledBack { .. }));
    let Some(Entry::RolledBack { iteration, .. }) = back else { panic!("it did not go back") };
    assert_eq!(*iteration, Iteration(2));
}

#[test]
fn what_is_written_slowly_is_compared_with_what_its_replicas_held_then() {
    let (mut bench, nodes) =
        Bench::started(&Settings { save_every_iterations: 2, steps: 40, ..settings(1, 1) });
    for _ in 0..30 {
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
    }
    for (stage, digest) in [(0, 100), (1, 66)] {
        let (iteration, digest) = (Iteration(2), Digest([digest; 32]));
        bench.says(
            nodes[usize::from(stage)],
            ToCoordinator::Saved { stage: StageId(stage), iteration, digest },
        );
    }
    let saved = bench.events.iter().find(|event| matches!(event, Event::StateSaved { .. }));
    assert_eq!(saved, None, "stage 1 has written something else");
}

#[test]
fn a_run_that_is_to_end_can_say_what_it_waits_for() {
    let told = |bench: &Bench| bench.coordinator.waits_in_words();
    let (mut bench, nodes) = Bench::started(&settings(1, 2));
    assert!(!bench.coordinator.is_to_end());
    bench.input(CoordinatorInput::Stop);
    assert!(bench.coordinator.is_to_end());
    let all = format!("shares of a gradient from {}, {}, {}", nodes[0], nodes[1], nodes[2]);
    assert_eq!(told(&bench), [all]);
    // The stage may be made again, as a node may come.
    lose(&mut bench, nodes[1]);
    assert_eq!(told(&bench), ["a stage to be rebuilt before the end, for 20 s at most"]);
    bench.wait(15_000_000);
    assert_eq!(told(&bench), ["a stage to be rebuilt before the end, for 5 s at most"]);
    bench.wait(6_000_000);
    assert_eq!(told(&bench), [format!("state/ to be written from {}, {}", nodes[0], nodes[2])]);
}
