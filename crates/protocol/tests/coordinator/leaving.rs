//! Nodes that leave with notice.

use super::*;

fn has_left(bench: &Bench, node: NodeId) -> bool {
    let lost = bench.events.iter().any(
        |event| matches!(event, Event::NodeLost { node: lost, why, .. } if *lost == node && why == "left"),
    );
    assert_eq!(lost, is_told(bench, node, &ToWorker::Leave));
    lost
}

#[test]
fn a_node_with_a_replica_leaves_at_the_next_boundary_with_its_share_done() {
    let settings = Settings { steps: 30, ..settings(2, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    let (leaver, stays) = (nodes[2], nodes[3]);
    bench.says(leaver, ToCoordinator::Leaving);
    bench.says(leaver, ToCoordinator::Leaving);
    let leaving = Event::Leaving { node: leaver, stage: Some(StageId(1)) };
    assert_eq!(bench.events.iter().filter(|event| **event == leaving).count(), 1);
    assert!(!has_left(&bench, leaver), "it owns a microbatch of this iteration");
    paced_iteration(&mut bench, &nodes, &|_| 1000);
    assert_eq!(bench.commits()[0].stages[1].shares.len(), 2, "its share counts");
    assert!(has_left(&bench, leaver));
    assert!(!bench.events.iter().any(|event| matches!(event, Event::Repaired { .. })));
    assert_eq!(begun(&bench, stays).len(), 2, "the other one takes both microbatches");
    assert_eq!(bench.problems.last().unwrap().nodes[1], [stays]);
}

/// A follower of stage 1 has the reduced gradient of an iteration.
fn follows(bench: &mut Bench, node: NodeId, iteration: Iteration) {
    let (reduce, digest, spent) = (bench.reduces[&node], Digest([1; 32]), Spent::default());
    let message = ToCoordinator::Reduced { iteration, attempt: Attempt(0), reduce, digest, norm: 1.0, spent };
    bench.says(node, message);
}

#[test]
fn a_spare_takes_the_place_before_the_node_goes() {
    let settings = Settings { steps: 30, spares: 1, ..settings(2, 1) };
    let mut bench = Bench::open(&settings, &[]);
    let mut nodes: Vec<_> = (0..4).map(|_| bench.hello(None)).collect();
    let spare = bench.hello(None);
    for node in &nodes {
        bench.holds(*node);
    }
    nodes.sort_by_key(|node| bench.last_assignment(*node).1);
    let leaver = nodes[2];
    bench.says(leaver, ToCoordinator::Leaving);
    let (transfer, stage, method) = bench.last_assignment(spare);
    assert_eq!((stage, method), (StageId(1), Method::Copy { donors: nodes[2..].to_vec() }));
    assert!(is_told(
        &bench,
        leaver,
        &ToWorker::Donate {
            transfer,
            stage,
            iteration: Iteration(0),
            to: spare,
            format: skipstone_recovery::StateFormat::F32
        }
    ));
    paced_iteration(&mut bench, &nodes, &|_| 1000);
    assert!(!has_left(&bench, leaver), "it still donates");
    assert_eq!(begun(&bench, leaver), [], "but it works no more");
    bench.says(
        spare,
        ToCoordinator::Holds {
            transfer: Some(transfer),
            stage,
            iteration: Iteration(0),
            digest: Digest([2; 32]),
        },
    );
    // The spare follows the gradients of the iterations that it missed, and enters.
    follows(&mut bench, spare, Iteration(0));
    for node in &nodes[..2] {
        for duty in begun(&bench, *node) {
            bench.share(*node, duty.microbatch.0, true);
        }
    }
    for duty in begun(&bench, nodes[3]) {
        bench.share(nodes[3], duty.microbatch.0, false);
    }
    follows(&mut bench, spare, Iteration(1));
    for (node, digest) in [(nodes[0], 0), (nodes[1], 0), (nodes[2], 1), (nodes[3], 1)] {
        bench.reduced(node, digest);
    }
    assert!(bench.events.iter().any(
        |event| matches!(event, Event::NodeEntered { node, iteration: Iteration(2), .. } if *node == spare)
    ));
    assert!(has_left(&bench, leaver));
    assert!(
        !bench.events.iter().any(|event| matches!(event, Event::StageLost { .. } | Event::Repaired { .. }))
    );
}

#[test]
fn the_last_of_a_stage_works_on_until_someone_comes() {
    let settings = Settings { steps: 30, ..settings(1, 1) };
    let (mut bench, nodes) = Bench::started(&settings);
    bench.says(nodes[1], ToCoordinator::Leaving);
    for _ in 0..3 {
        paced_iteration(&mut bench, &nodes, &|_| 1000);
    }
    assert!(!has_left(&bench, nodes[1]));
    let comes = bench.hello(None);
    let (_, stage, method) = bench.last_assignment(comes);
    assert_eq!((stage, method), (StageId(1), Method::Copy { donors: vec![nodes[1]] }));
    assert!(!has_left(&bench, nodes[1]), "it is a donor now");
}

#[test]
fn a_spare_and_a_joiner_may_go_at_once() {
    let settings = Settings { steps: 30, spares: 1, ..settings(1, 1) };
    let mut bench = Bench::open(&settings, &[]);
    let nodes: Vec<_> = (0..3).map(|_| bench.hello(None)).collect();
    for node in &nodes[..2] {
        bench.holds(*node);
    }
    bench.says(nodes[2], ToCoordinator::Leaving);
    assert!(has_left(&bench, nodes[2]));
    bench.input(CoordinatorInput::Lost { node: nodes[1], why: "connection".to_owned() });
    let rebuilds = bench.hello(None);
    assert!(matches!(bench.last_assignment(rebuilds).2, Method::Rebuild { .. }));
    bench.says(rebuilds, ToCoordinator::Leaving);
    assert!(has_left(&bench, rebuilds));
}
