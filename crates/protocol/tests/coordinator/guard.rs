//! Shares that their norm gives away.

use super::*;

/// Iterations that teach what is usual: the guard knows 8 shares of each stage then.
fn run_until_known(bench: &mut Bench, nodes: &[NodeId], origins: usize) {
    for _ in 0..8 {
        for (index, node) in nodes.iter().enumerate() {
            bench.share(*node, (index % 2) as u32, index < origins);
        }
        nodes.iter().for_each(|node| bench.reduced(*node, 40));
        all_step(bench, nodes);
    }
}

fn refusals(bench: &Bench) -> Vec<(NodeId, Refusal, Remedy)> {
    bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ShareRefused { node, why, then, .. } => Some((*node, *why, *then)),
            _ => None,
        })
        .collect()
}

/// Replicas of two stages, an iteration's microbatches one each; the shares known.
fn guarded() -> (Bench, Vec<NodeId>) {
    let (mut bench, nodes) = Bench::started(&Settings { steps: 100, ..settings(2, 1) });
    run_until_known(&mut bench, &nodes, 2);
    assert_eq!(bench.commits().len(), 8);
    (bench, nodes)
}

/// The node reports this norm where it would have reported a usual one.
fn bad_share(bench: &mut Bench, node: NodeId, microbatch: u32, norm: f64) {
    let (iteration, attempt) = bench.current();
    let microbatch = Microbatch(microbatch);
    bench.says(node, ToCoordinator::ShareDone { iteration, attempt, microbatch, loss: None });
    bench.measured(node, 1, norm);
}

#[test]
fn a_poisoned_share_is_made_again_by_a_replica_and_counts_for_nothing() {
    for (norm, why) in [(f64::NAN, Refusal::NotFinite), (1e4, Refusal::Outlying), (1e-4, Refusal::Outlying)] {
        let (mut bench, nodes) = guarded();
        let (liar, heir) = (nodes[3], nodes[2]);
        bench.share(nodes[0], 0, true);
        bench.share(nodes[1], 1, true);
        bench.share(heir, 0, false);
        bench.reduces.remove(&heir);
        bench.sent.clear();
        bad_share(&mut bench, liar, 1, norm);
        assert_eq!(refusals(&bench), [(liar, why, Remedy::Replica)]);
        assert!(!bench.reduces.contains_key(&heir), "not sealed");
        let duty = bench.duties(heir)[0];
        assert_eq!((duty.microbatch, duty.counted, duty.replay), (Microbatch(1), true, true));
        // What the liar says of it later counts no more.
        bench.measured(liar, 1, 1.0);
        assert!(!bench.reduces.contains_key(&heir));
        bench.share(heir, 1, false);
        nodes.iter().for_each(|node| bench.reduced(*node, 40));
        let record = bench.commits().pop().unwrap().clone();
        let shares = &record.stages[1].shares;
        assert_eq!((shares.len(), shares[0].node, shares[0].microbatches.len()), (1, heir, 2));
        let struck = bench.events.iter().any(
            |event| matches!(event, Event::Struck { node, strikes: 1, strikes_max: 3, .. } if *node == liar),
        );
        assert!(struck, "{:?}", bench.events.last());
    }
}

#[test]
fn three_strikes_set_a_node_aside() {
    let (mut bench, nodes) = guarded();
    let (liar, heir) = (nodes[3], nodes[2]);
    for strike in 1..=3 {
        bench.share(nodes[0], 0, true);
        bench.share(nodes[1], 1, true);
        bench.share(heir, 0, false);
        bad_share(&mut bench, liar, 1, f64::INFINITY);
        bench.share(heir, 1, false);
        nodes.iter().for_each(|node| bench.reduced(*node, 40));
        let aside = bench.events.iter().any(
            |event| matches!(event, Event::NodeLost { node, why, .. } if *node == liar && why == "numbers"),
        );
        assert_eq!(aside, strike == 3, "after {strike}");
        all_step(&mut bench, &nodes);
    }
    assert_eq!(bench.commits().len(), 11);
}

#[test]
fn a_share_that_counted_before_is_refused() {
    let (mut bench, nodes) = guarded();
    let old = bench.commits()[5].stages[1].shares[0].norm;
    bad_share(&mut bench, nodes[3], 1, old);
    assert_eq!(refusals(&bench), [(nodes[3], Refusal::Repeated, Remedy::Replica)]);
}

#[test]
fn without_a_replica_the_iteration_runs_again_and_what_comes_out_twice_counts() {
    let (mut bench, nodes) = Bench::started(&Settings { steps: 100, ..settings(1, 1) });
    for _ in 0..8 {
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
    }
    for attempt in 0..2 {
        assert_eq!(bench.current(), (Iteration(8), Attempt(attempt)));
        for microbatch in 0..2 {
            bench.share(nodes[0], microbatch, true);
        }
        bad_share(&mut bench, nodes[1], 0, 1.0);
        let (iteration, number) = bench.current();
        let microbatch = Microbatch(1);
        let done = ToCoordinator::ShareDone { iteration, attempt: number, microbatch, loss: None };
        bench.says(nodes[1], done);
        bench.measured(nodes[1], 2, 1e6);
    }
    let outlying = |then| (nodes[1], Refusal::Outlying, then);
    assert_eq!(refusals(&bench), [outlying(Remedy::Retry), outlying(Remedy::Counts)]);
    nodes.iter().for_each(|node| bench.reduced(*node, 40));
    assert_eq!(bench.commits().len(), 9);
    assert!(!bench.events.iter().any(|event| matches!(event, Event::Struck { .. })));
}

#[test]
fn a_restarted_coordinator_knows_what_is_usual() {
    let (bench, nodes) = guarded();
    let settings = Settings { steps: 100, ..settings(2, 1) };
    let record = bench.commits().pop().unwrap().clone();
    let mut second = Bench::open(&settings, &bench.journal);
    let mut returned = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let mut holding = holding(*node, (index / 2) as u16, 8, 100 + (index / 2) as u8);
        holding.record = Some(Box::new(record.clone()));
        returned.push(second.hello(Some(Box::new(holding))));
    }
    assert_eq!(second.current().0, Iteration(8));
    bad_share(&mut second, returned[3], 1, 1e4);
    assert_eq!(refusals(&second), [(returned[3], Refusal::Outlying, Remedy::Replica)]);
}

/// Replicas of stage 1 take an iteration in which the last one's share is poisoned.
fn poisoned_iteration(bench: &mut Bench, nodes: &[NodeId]) {
    bench.share(nodes[0], 0, true);
    bench.share(nodes[1], 1, true);
    bench.share(nodes[2], 0, false);
    bad_share(bench, nodes[3], 1, f64::INFINITY);
    bench.share(nodes[2], 1, false);
    nodes.iter().for_each(|node| bench.reduced(*node, 40));
}

fn is_set_aside(bench: &Bench, node: NodeId) -> bool {
    bench.events.iter().any(
        |event| matches!(event, Event::NodeLost { node: lost, why, .. } if *lost == node && why == "numbers"),
    )
}

#[test]
fn strikes_outlive_the_coordinator_and_a_nodes_name() {
    let settings = Settings { steps: 100, ..settings(2, 1) };
    let (mut bench, mut nodes) = guarded();
    for _ in 0..2 {
        poisoned_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
    }
    let record = bench.commits().pop().unwrap().clone();
    let mut second = Bench::open(&settings, &bench.journal);
    for (index, node) in nodes.iter_mut().enumerate() {
        let mut holding = holding(*node, (index / 2) as u16, 10, 100 + (index / 2) as u8);
        holding.record = Some(Box::new(record.clone()));
        *node = second.hello(Some(Box::new(holding)));
    }
    poisoned_iteration(&mut second, &nodes);
    assert!(is_set_aside(&second, nodes[3]), "{:?}", second.events.last());
}

#[test]
fn a_node_that_is_given_another_stage_meanwhile_is_set_aside_too() {
    let (mut bench, nodes) = Bench::started(&Settings { steps: 100, respawn: false, ..settings(2, 2) });
    run_until_known(&mut bench, &nodes, 2);
    for strike in 1..=3 {
        for node in [0, 1] {
            bench.share(nodes[node], node as u32, true);
        }
        bench.share(nodes[2], 0, false);
        bad_share(&mut bench, nodes[3], 1, f64::INFINITY);
        if strike < 3 {
            bench.share(nodes[2], 1, false);
            bench.share(nodes[4], 0, false);
            bench.share(nodes[5], 1, false);
            nodes.iter().for_each(|node| bench.reduced(*node, 40));
            all_step(&mut bench, &nodes);
        }
    }
    // The other stage is lost, and nobody comes: the node that was refused is to rebuild it, and has no share of the next attempt.
    lose(&mut bench, nodes[4]);
    lose(&mut bench, nodes[5]);
    assert_eq!(bench.last_assignment(nodes[3]).1, StageId(2));
    for node in [0, 1] {
        bench.share(nodes[node], node as u32, true);
    }
    (0..2).for_each(|microbatch| bench.share(nodes[2], microbatch, false));
    nodes[..3].iter().for_each(|node| bench.reduced(*node, 40));
    assert_eq!(bench.commits().len(), 11);
    assert!(is_set_aside(&bench, nodes[3]), "{:?}", bench.events.last());
}
