//! Shares that a replica computes again.

use super::*;

/// Every iteration has checks.
fn checked(replicas: u16) -> Settings {
    Settings { spot_checks: SpotChecks { every: 1, salt: 5 }, steps: 100, ..settings(replicas, 1) }
}

/// All nodes of both stages have computed their shares: in each stage two nodes have one each.
fn shared(settings: &Settings) -> (Bench, Vec<NodeId>) {
    let (mut bench, nodes) = Bench::started(settings);
    share_all(&mut bench, &nodes, usize::from(settings.replicas));
    (bench, nodes)
}

fn share_all(bench: &mut Bench, nodes: &[NodeId], replicas: usize) {
    for stage in 0..2 {
        for microbatch in 0..2 {
            bench.share(nodes[stage * replicas + microbatch], microbatch as u32, stage == 0);
        }
    }
}

/// Who was told to compute whose share, with what in which order.
fn asked(bench: &Bench, of_stage: &[NodeId]) -> Vec<(NodeId, NodeId, Vec<Addition>)> {
    bench
        .sent
        .iter()
        .filter_map(|(to, message)| match message {
            ToWorker::Check { of, additions, .. } if of_stage.contains(to) => {
                Some((*to, *of, additions.clone()))
            }
            _ => None,
        })
        .collect()
}

fn answer(bench: &mut Bench, from: NodeId, of: NodeId, digests: ShareDigests) {
    let (iteration, attempt) = bench.current();
    bench.says(from, ToCoordinator::Checked { iteration, attempt, of, digests });
}

fn sum(byte: u8) -> ShareDigests {
    ShareDigests { sum: Digest([byte; 32]), ..ShareDigests::default() }
}

/// The origins' check agrees.
fn pass_origins(bench: &mut Bench, origins: &[NodeId]) {
    let (by, of, _) = asked(bench, origins).pop().expect("a check");
    answer(bench, by, of, ShareDigests::default());
}

fn rulings(bench: &Bench) -> Vec<(Ruling, Difference, Option<NodeId>)> {
    bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Disputed { then, differ, wrong, .. } => Some((*then, *differ, *wrong)),
            _ => None,
        })
        .collect()
}

fn dropped(bench: &Bench) -> Vec<&str> {
    bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::SpotCheckDropped { why, .. } => Some(why.as_str()),
            _ => None,
        })
        .collect()
}

fn is_lost(bench: &Bench, node: NodeId) -> bool {
    bench.events.iter().any(
        |event| matches!(event, Event::NodeLost { node: lost, why, .. } if *lost == node && why == "check"),
    )
}

#[test]
fn a_stage_is_sealed_once_a_replica_has_got_the_same() {
    let (mut bench, nodes) = shared(&checked(2));
    let (origins, relays) = (&nodes[..2], &nodes[2..]);
    let (by, of, additions) = asked(&bench, relays).pop().unwrap();
    let microbatch = Microbatch(u32::from(of == relays[1]));
    assert!(by != of && additions == [Addition::Backward(microbatch)]);
    // An origin adds a gradient for the loss, too.
    let (_, of_origin, additions) = asked(&bench, origins).pop().unwrap();
    let own = Microbatch(u32::from(of_origin == origins[1]));
    assert_eq!(additions, [Addition::Loss(own), Addition::Backward(own)]);
    // Who was before and after it on the path sends what it sent to the checked one.
    let (iteration, attempt) = bench.current();
    let origin = origins[microbatch.0 as usize];
    let boundaries = vec![(microbatch, Direction::Forward), (microbatch, Direction::Backward)];
    let resend = ToWorker::Resend { iteration, attempt, to: by, boundaries };
    assert!(bench.sent.contains(&(origin, resend)), "{:?}", bench.sent);
    // What somebody else says, or of somebody else, is no answer.
    answer(&mut bench, of, of, ShareDigests::default());
    answer(&mut bench, by, by, ShareDigests::default());
    assert!(!bench.reduces.contains_key(&by), "not sealed before the answer");
    answer(&mut bench, by, of, ShareDigests::default());
    assert!(bench.reduces.contains_key(&by));
    let event = bench.events.iter().any(
        |event| matches!(event, Event::SpotChecked { node, by: checker, microbatches: 1, stage: StageId(1), .. } if (*node, *checker) == (of, by)),
    );
    assert!(event, "{:?}", bench.events);
    pass_origins(&mut bench, origins);
    nodes.iter().for_each(|node| bench.reduced(*node, 40));
    let record = bench.commits().pop().unwrap();
    assert_eq!(record.stages[1].microbatches(), 2, "the second sum counts for nothing");
}

#[test]
fn two_that_agree_set_the_third_aside_and_the_iteration_runs_again() {
    for checker_lies in [false, true] {
        let (mut bench, nodes) = Bench::started(&checked(3));
        let relays = nodes[3..].to_vec();
        if !checker_lies {
            relays.iter().for_each(|node| _ = bench.lies.insert(*node, sum(9)));
        }
        share_all(&mut bench, &nodes, 3);
        pass_origins(&mut bench, &nodes[..3]);
        let (first, of, _) = asked(&bench, &relays).pop().unwrap();
        answer(&mut bench, first, of, if checker_lies { sum(9) } else { sum(0) });
        assert_eq!(rulings(&bench), [(Ruling::Asks, Difference::Sum, None)]);
        let (second, _, _) = asked(&bench, &relays).pop().unwrap();
        assert!(second != first && second != of);
        let liar = if checker_lies { first } else { of };
        answer(&mut bench, second, of, sum(0));
        assert_eq!(rulings(&bench)[1..], [(Ruling::SetAside, Difference::Sum, Some(liar))]);
        assert!(is_lost(&bench, liar));
        assert_eq!(bench.current(), (Iteration(0), Attempt(1)), "others may have computed with what it sent");
        assert!(bench.commits().is_empty());
    }
}

#[test]
fn three_that_all_differ_decide_nothing() {
    let (mut bench, nodes) = shared(&checked(3));
    pass_origins(&mut bench, &nodes[..3]);
    let relays = &nodes[3..];
    for byte in [8, 9] {
        let (by, of, _) = asked(&bench, relays).pop().unwrap();
        answer(&mut bench, by, of, sum(byte));
    }
    assert_eq!(rulings(&bench)[1..], [(Ruling::Undecided, Difference::Sum, None)]);
    nodes.iter().for_each(|node| bench.reduced(*node, 40));
    assert_eq!(bench.commits().len(), 1);
}

#[test]
fn of_two_nobody_can_tell_who_is_wrong_and_the_share_counts() {
    let (mut bench, nodes) = shared(&checked(2));
    pass_origins(&mut bench, &nodes[..2]);
    let (by, of, _) = asked(&bench, &nodes[2..]).pop().unwrap();
    answer(&mut bench, by, of, sum(9));
    assert_eq!(rulings(&bench), [(Ruling::Undecided, Difference::Sum, None)]);
    nodes.iter().for_each(|node| bench.reduced(*node, 40));
    assert_eq!(bench.commits().len(), 1, "the run goes on");
    assert!(!bench.events.iter().any(|event| matches!(event, Event::NodeLost { .. })));
}

#[test]
fn nobody_is_to_blame_who_was_sent_something_else() {
    let (mut bench, nodes) = shared(&checked(3));
    pass_origins(&mut bench, &nodes[..3]);
    let (by, of, _) = asked(&bench, &nodes[3..]).pop().unwrap();
    let other = ShareDigests { inputs: Digest([1; 32]), outputs: Digest([2; 32]), sum: Digest([3; 32]) };
    answer(&mut bench, by, of, other);
    assert_eq!(rulings(&bench), [(Ruling::Undecided, Difference::Inputs, None)]);
    assert!(bench.reduces.contains_key(&nodes[3]));
    // Nor if it is the third who was: a neighbour could have whom it likes thrown out.
    let (mut bench, nodes) = shared(&checked(3));
    pass_origins(&mut bench, &nodes[..3]);
    let (first, of, _) = asked(&bench, &nodes[3..]).pop().unwrap();
    answer(&mut bench, first, of, sum(9));
    let (second, _, _) = asked(&bench, &nodes[3..]).pop().unwrap();
    answer(&mut bench, second, of, other);
    assert_eq!(rulings(&bench)[1..], [(Ruling::Undecided, Difference::Sum, None)]);
    assert!(!bench.events.iter().any(|event| matches!(event, Event::NodeLost { .. })));
}

#[test]
fn a_check_whose_nodes_die_comes_to_nothing_and_the_next_iteration_has_another() {
    // Only every millionth iteration has checks; with this salt the first is one of them.
    let every = |salt| Settings { spot_checks: SpotChecks { every: 50, salt }, ..checked(2) };
    let salt = (0..1000)
        .find(|salt| {
            let (bench, nodes) = shared(&every(*salt));
            !asked(&bench, &nodes).is_empty()
        })
        .unwrap();
    for victim in 0..3 {
        let (mut bench, nodes) = shared(&every(salt));
        pass_origins(&mut bench, &nodes[..2]);
        let (by, of, _) = asked(&bench, &nodes[2..]).pop().unwrap();
        // The checker, the checked one, or the origin that both get their tensors from.
        let origin = nodes[usize::from(of == nodes[3])];
        let lost = [by, of, origin][victim];
        lose(&mut bench, lost);
        assert_eq!(dropped(&bench).len(), 1, "{victim}: {:?}", dropped(&bench));
        let heir = |stage: &[NodeId]| stage.iter().copied().find(|node| *node != lost).unwrap();
        let (origin, relay) = (heir(&nodes[..2]), heir(&nodes[2..]));
        for microbatch in 0..2 {
            let missing = |node: NodeId| {
                bench.duties(node).iter().any(|duty| duty.replay && duty.microbatch.0 == microbatch)
            };
            let (at_origin, at_relay) = (missing(origin), missing(relay));
            if at_origin && victim == 2 {
                bench.share(origin, microbatch, true);
            }
            if at_relay && victim < 2 {
                bench.share(relay, microbatch, false);
            }
        }
        let living: Vec<_> = nodes.iter().copied().filter(|node| *node != lost).collect();
        living.iter().for_each(|node| bench.reduced(*node, 40));
        assert_eq!(bench.commits().len(), 1, "{victim}");
        all_step(&mut bench, &living);
        bench.sent.clear();
        assert_eq!(bench.current().0, Iteration(1));
        // The stage that still has two nodes is checked, although it is not its turn.
        let pair = if victim == 2 { &nodes[2..] } else { &nodes[..2] };
        for (microbatch, node) in pair.iter().enumerate() {
            bench.share(*node, microbatch as u32, victim != 2);
        }
        let single = if victim == 2 { origin } else { relay };
        (0..2).for_each(|microbatch| bench.share(single, microbatch, victim == 2));
        assert_eq!(asked(&bench, pair).len(), 1, "{victim}");
    }
}

#[test]
fn a_slow_checker_does_not_hold_up_everyone() {
    let (mut bench, nodes) = shared(&checked(2));
    bench.wait(900_000);
    assert_eq!(dropped(&bench), [""; 0]);
    bench.wait(1_000_000);
    assert_eq!(dropped(&bench), ["slow"; 2]);
    nodes.iter().for_each(|node| bench.reduced(*node, 40));
    assert_eq!(bench.commits().len(), 1);
}

#[test]
fn who_keeps_back_what_it_computed_is_set_aside() {
    let (mut bench, nodes) = Bench::started(&checked(2));
    bench.checks = false;
    bench.share(nodes[3], 1, false);
    assert!(is_lost(&bench, nodes[3]));
}

/// How often nodes were welcomed; none of them may be told more than how often there are checks.
fn welcomes(bench: &Bench) -> usize {
    let settings = bench.sent.iter().filter_map(|(_, message)| {
        if let ToWorker::Welcome { settings, .. } = message { Some(settings) } else { None }
    });
    settings.inspect(|settings| assert_eq!(settings.spot_checks, SpotChecks { every: 1, salt: 0 })).count()
}

#[test]
fn nodes_that_return_to_a_new_coordinator_are_not_told_what_checks_follow_from() {
    let settings = checked(1);
    let (mut bench, nodes) = Bench::started(&settings);
    run_iteration(&mut bench, &nodes);
    let mut second = Bench::open(&settings, &bench.journal);
    let origin = second.hello(Some(Box::new(holding(nodes[0], 0, 1, 9))));
    // This one lacks the gradient for its last step: what it holds is of no use, and it is welcomed once more.
    let behind = second.hello(Some(Box::new(holding(nodes[1], 1, 0, 9))));
    assert!(second.events.contains(&Event::NodeEmptied { node: behind, stage: StageId(1) }));
    assert!(starts_empty(&second, behind) && !starts_empty(&second, origin));
    assert_eq!(welcomes(&second), 3);
}

#[test]
fn nodes_are_not_told_what_checks_follow_from() {
    let (bench, nodes) = Bench::started(&checked(2));
    assert_eq!(welcomes(&bench), nodes.len());
    // Which iterations are checked differs with it.
    let checks = |salt| {
        let settings = Settings { spot_checks: SpotChecks { every: 4, salt }, ..checked(1) };
        let settings = Settings { stage_replicas: vec![1, 2], ..settings };
        let (mut bench, nodes) = Bench::started(&settings);
        (0..16)
            .map(|_| {
                bench.sent.clear();
                (0..2).for_each(|microbatch| bench.share(nodes[0], microbatch, true));
                bench.share(nodes[1], 0, false);
                bench.share(nodes[2], 1, false);
                let asked = asked(&bench, &nodes[1..]);
                if let Some((by, of, _)) = asked.last() {
                    answer(&mut bench, *by, *of, ShareDigests::default());
                }
                nodes.iter().for_each(|node| bench.reduced(*node, 40));
                all_step(&mut bench, &nodes);
                !asked.is_empty()
            })
            .collect::<Vec<_>>()
    };
    let (one, other) = (checks(1), checks(2));
    assert!(one.contains(&true) && one.contains(&false), "{one:?}");
    assert_ne!(one, other);
    assert_eq!(one, checks(1));
}
