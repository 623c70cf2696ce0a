//! Nodes get a stage's state, and are let in.

use super::*;

#[test]
fn a_copy_that_steps_before_it_is_let_in_votes_with_what_it_holds_then() {
    let (mut wide, pairs) = Bench::started(&settings(2, 1));
    // One of two replicas is lost; its heir copies, and follows the iteration. It reports the gradient and its step
    // when the next attempt has begun already; that one is aborted, as the last replica is lost.
    let (kept, lost) = (pairs[2], pairs[3]);
    lose(&mut wide, lost);
    let heir = wide.hello(None);
    wide.holds(heir);
    for (node, origin) in [(pairs[0], true), (pairs[1], true), (kept, false)] {
        for microbatch in 0..2 {
            wide.share(node, microbatch, origin);
        }
    }
    let followed = ToCoordinator::Reduced {
        iteration: Iteration(0),
        attempt: Attempt(0),
        reduce: wide.reduces[&heir],
        digest: Digest([8; 32]),
        norm: 2.0,
        spent: Spent::default(),
    };
    for (node, digest) in [(pairs[0], 7), (pairs[1], 7), (kept, 8)] {
        wide.reduced(node, digest);
    }
    wide.wait(10_000_000);
    assert_eq!(wide.current().0, Iteration(1), "it was waited for, but not for long");
    wide.says(heir, followed);
    stepped(&mut wide, heir, 1, 1, 22);
    lose(&mut wide, kept);
    for node in [pairs[0], pairs[1]] {
        stepped(&mut wide, node, 0, 1, 21);
    }
    for (node, origin) in [(pairs[0], true), (pairs[1], true), (heir, false)] {
        for microbatch in 0..2 {
            wide.share(node, microbatch, origin);
        }
    }
    for (node, digest) in [(pairs[0], 5), (pairs[1], 5), (heir, 6)] {
        wide.reduced(node, digest);
    }
    assert_eq!(wide.commits()[1].stages[1].state, Some(Digest([22; 32])));
}

#[test]
fn a_copy_that_is_complete_when_its_donor_dies_is_not_thrown_away() {
    let (mut bench, nodes) = Bench::started(&settings(2, 1));
    lose(&mut bench, nodes[1]);
    let heir = bench.hello(None);
    let (transfer, stage, method) = bench.last_assignment(heir);
    assert_eq!((stage, method), (StageId(0), Method::Copy { donors: vec![nodes[0]] }));
    // The last origin is declared lost while the heir's word is on its way.
    lose(&mut bench, nodes[0]);
    let holds = ToCoordinator::Holds {
        transfer: Some(transfer),
        stage,
        iteration: Iteration(0),
        digest: Digest([1; 32]),
    };
    bench.says(heir, holds);
    let (transfer, stage, method) = bench.last_assignment(heir);
    assert_eq!((stage, method), (StageId(0), Method::Keep));
    let holds = ToCoordinator::Holds {
        transfer: Some(transfer),
        stage,
        iteration: Iteration(0),
        digest: Digest([1; 32]),
    };
    bench.says(heir, holds);
    assert!(!bench.duties(heir).is_empty(), "it serves");
}

#[test]
fn before_the_start_a_doubled_stage_gives_a_node_to_an_empty_one() {
    let mut settings = settings(2, 1);
    settings.respawn = false;
    let mut bench = Bench::open(&settings, &[]);
    let nodes: Vec<_> = (0..4).map(|_| bench.hello(None)).collect();
    let relays: Vec<_> =
        nodes.iter().filter(|node| bench.last_assignment(**node).1 == StageId(1)).copied().collect();
    for node in &relays {
        lose(&mut bench, *node);
    }
    let stages: Vec<_> = nodes
        .iter()
        .filter(|node| !relays.contains(node))
        .map(|node| bench.last_assignment(*node).1)
        .collect();
    assert_eq!(stages, [StageId(0), StageId(1)]);
}

/// Two origins and one of two relays add their shares; the other relay is being copied.
fn add_all_shares(bench: &mut Bench, nodes: &[NodeId]) {
    for (node, origin) in [(nodes[0], true), (nodes[1], true), (nodes[2], false)] {
        for microbatch in 0..2 {
            bench.share(node, microbatch, origin);
        }
    }
}

#[test]
fn a_follower_whose_report_is_just_behind_every_commit_gets_in() {
    let (mut bench, nodes) = Bench::started(&settings(2, 1));
    lose(&mut bench, nodes[3]);
    let heir = bench.hello(None);
    bench.holds(heir);
    add_all_shares(&mut bench, &nodes);
    let followed = ToCoordinator::Reduced {
        iteration: Iteration(0),
        attempt: Attempt(0),
        reduce: bench.reduces[&heir],
        digest: Digest([8; 32]),
        norm: 2.0,
        spent: Spent::default(),
    };
    for (node, digest) in [(nodes[0], 7), (nodes[1], 7), (nodes[2], 8)] {
        bench.reduced(node, digest);
    }
    assert_eq!(bench.coordinator.iteration(), Iteration(1));
    assert_eq!(bench.current().0, Iteration(0), "the next attempt waits a little");
    bench.says(heir, followed);
    assert_eq!(bench.current().0, Iteration(1));
    assert!(!bench.duties(heir).is_empty(), "with the follower");
}

#[test]
fn after_a_very_long_iteration_a_follower_is_not_waited_for_as_long() {
    let (mut bench, nodes) = Bench::started(&settings(2, 1));
    lose(&mut bench, nodes[3]);
    let heir = bench.hello(None);
    bench.holds(heir);
    // The iteration takes two minutes.
    bench.wait(120_000_000);
    add_all_shares(&mut bench, &nodes);
    for (node, digest) in [(nodes[0], 7), (nodes[1], 7), (nodes[2], 8)] {
        bench.reduced(node, digest);
    }
    assert_eq!((bench.coordinator.iteration(), bench.current().0), (Iteration(1), Iteration(0)));
    bench.wait(6_000_000);
    assert_eq!(bench.current().0, Iteration(1), "the next begins without it");
}

#[test]
fn a_copy_that_nobody_can_vouch_for_any_more_is_let_in() {
    let settings = settings(2, 1);
    let (mut bench, nodes) = Bench::started(&settings);
    lose(&mut bench, nodes[0]);
    lose(&mut bench, nodes[2]);
    run_iteration(&mut bench, &[nodes[1], nodes[3]]);
    // Nobody has told what it holds after the step, when all but a complete copy is lost.
    let heir = bench.hello(None);
    assert_eq!(bench.last_assignment(heir).1, StageId(0));
    bench.holds(heir);
    lose(&mut bench, nodes[1]);
    assert_eq!(bench.current(), (Iteration(1), Attempt(1)));
    assert!(!bench.duties(heir).is_empty());
}

#[test]
fn a_copy_that_comes_up_with_its_lost_donor_takes_its_place() {
    let (mut bench, nodes) = Bench::started(&settings(2, 1));
    lose(&mut bench, nodes[1]);
    let heir = bench.hello(None);
    assert_eq!(bench.last_assignment(heir).1, StageId(0));
    bench.holds(heir);
    // It is behind with its step when the only origin is lost.
    run_iteration(&mut bench, &[nodes[0], nodes[2], nodes[3]]);
    bench.wait(6_000_000);
    all_step(&mut bench, &nodes);
    lose(&mut bench, nodes[0]);
    let lost = |event: &&Event| matches!(event, Event::StageLost { stage: StageId(0), .. });
    assert_eq!(bench.events.iter().filter(lost).count(), 1);
    stepped(&mut bench, heir, 0, 0, 1);
    assert!(bench.duties(heir).is_empty(), "that is what the origin was before its step");
    stepped(&mut bench, heir, 0, 1, 100);
    let (transfer, stage, method) = bench.last_assignment(heir);
    assert_eq!((stage, method), (StageId(0), Method::Keep));
    let (iteration, digest) = (Iteration(1), Digest([100; 32]));
    bench.says(heir, ToCoordinator::Holds { transfer: Some(transfer), stage, iteration, digest });
    assert!(!bench.duties(heir).is_empty(), "the run goes on with it");
}

/// Stage 1 has three replicas, and a fourth node copies from the three.
fn one_copies() -> (Bench, Vec<NodeId>, NodeId) {
    let settings = Settings { steps: 30, microbatches: 6, ..settings(3, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    lose(&mut bench, nodes[5]);
    let joiner = bench.hello(None);
    assert_eq!(bench.last_assignment(joiner).2, Method::Copy { donors: vec![nodes[3], nodes[4]] });
    (bench, nodes, joiner)
}

#[test]
fn a_copy_goes_on_when_one_of_its_donors_is_lost() {
    let (mut bench, nodes, joiner) = one_copies();
    let transfer = bench.last_assignment(joiner).0;
    lose(&mut bench, nodes[3]);
    assert_eq!(bench.last_assignment(joiner).0, transfer, "the same transfer");
    let released = |node| is_told(&bench, node, &ToWorker::Release { transfer });
    assert!(!released(nodes[4]));
    let said = ToCoordinator::Obtained { transfer, chunks: 3, chunks_total: 4, bytes_total: 400, donors: 1 };
    bench.says(joiner, said);
    let told = Event::StateArriving {
        node: joiner,
        stage: StageId(1),
        chunks: 3,
        chunks_total: 4,
        bytes: 300,
        bytes_total: 400,
        donors: 1,
    };
    assert_eq!(bench.events.last(), Some(&told));
    // Without the last donor the stage is lost, and the copy with it.
    lose(&mut bench, nodes[4]);
    assert!(matches!(bench.last_assignment(joiner).2, Method::Rebuild { .. }));
}

#[test]
fn a_node_that_copies_what_others_serve_fills_a_hole_instead() {
    let (mut bench, nodes) = Bench::started(&settings(2, 3));
    // A stage's replica is lost, and its heir copies from the other; then both of another stage are lost, and nobody comes.
    lose(&mut bench, nodes[3]);
    let heir = bench.hello(None);
    assert_eq!(bench.last_assignment(heir).1, StageId(1));
    lose(&mut bench, nodes[4]);
    assert_eq!(bench.last_assignment(heir).1, StageId(1), "the stage has another replica");
    lose(&mut bench, nodes[5]);
    let (_, stage, method) = bench.last_assignment(heir);
    assert_eq!(stage, StageId(2));
    assert!(matches!(method, Method::Rebuild { .. }), "{method:?}");
    // Whoever comes next takes the place that it left.
    let next = bench.hello(None);
    assert_eq!(bench.last_assignment(next).1, StageId(1));
}

#[test]
fn a_replica_too_many_fills_a_hole_that_nobody_else_comes_to_fill() {
    let (mut bench, nodes) = Bench::started(&settings(2, 2));
    for (index, node) in nodes.iter().enumerate() {
        bench.share(*node, (index % 2) as u32, index < 2);
    }
    nodes.iter().enumerate().for_each(|(index, node)| bench.reduced(*node, 40 + index as u8 / 2));
    assert_eq!(bench.commits().len(), 1);
    // Only one replica a stage is wanted from now on; both of stage 1 come back, and none of stage 2.
    let mut second = Bench::open(&settings(1, 2), &bench.journal);
    let mut returned = Vec::new();
    for (node, stage) in [(nodes[0], 0), (nodes[2], 1), (nodes[3], 1)] {
        returned.push(second.hello(Some(Box::new(holding(node, stage, 1, 9 + stage as u8)))));
    }
    second.wait(4_000_000);
    let moved: Vec<_> = second
        .events
        .iter()
        .filter_map(|event| match event {
            Event::NodeAssigned { node, stage, how } => Some((*node, *stage, how.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(moved, [(returned[2], StageId(2), "rebuild")]);
}

#[test]
fn what_a_lost_replica_said_does_not_stand_against_the_living() {
    let (mut bench, nodes) = Bench::started(&settings(3, 1));
    for (node, microbatch) in [(0, 0), (1, 1), (3, 0), (4, 1)] {
        bench.share(nodes[node], microbatch, node < 3);
    }
    nodes.iter().for_each(|node| bench.reduced(*node, 40));
    assert_eq!(bench.commits().len(), 1);
    let (liar, living, silent) = (nodes[3], nodes[4], nodes[5]);
    nodes[..3].iter().for_each(|node| stepped(&mut bench, *node, 0, 1, 100));
    // One says that it holds something else, and is lost before all have spoken; so is the one that said nothing.
    stepped(&mut bench, liar, 1, 1, 66);
    stepped(&mut bench, living, 1, 1, 101);
    lose(&mut bench, liar);
    lose(&mut bench, silent);
    for microbatch in 0..2 {
        bench.share(living, microbatch, false);
    }
    assert!(
        bench.sent.iter().any(|(to, message)| *to == living
            && matches!(message, ToWorker::Seal { iteration: Iteration(1), members, .. } if members[..] == [living])),
        "{:?}",
        bench.sent.last()
    );
}
