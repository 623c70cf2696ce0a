//! What replicas say that they hold, and what becomes of the work of those who held something else.

use super::*;

/// Two relay replicas in their second iteration, of which nobody has said yet what it holds after the first.
fn second_iteration() -> (Bench, Vec<NodeId>) {
    let (mut bench, nodes) = Bench::started(&settings(2, 1));
    for (index, node) in nodes.iter().enumerate() {
        bench.share(*node, index as u32 % 2, index < 2);
    }
    nodes.iter().for_each(|node| bench.reduced(*node, 40));
    assert_eq!(bench.current(), (Iteration(1), Attempt(0)));
    (bench, nodes)
}

fn aborts(bench: &Bench) -> usize {
    bench.events.iter().filter(|event| matches!(event, Event::AttemptAborted { .. })).count()
}

#[test]
fn work_of_a_lost_replica_that_held_other_bits_is_not_used() {
    let (mut bench, nodes) = second_iteration();
    stepped(&mut bench, nodes[3], 1, 1, 66);
    lose(&mut bench, nodes[3]);
    assert_eq!(aborts(&bench), 0, "nobody can say yet who is right");
    stepped(&mut bench, nodes[2], 1, 1, 101);
    assert_eq!(aborts(&bench), 1, "others may hold what it computed with those");
    assert_eq!(bench.current(), (Iteration(1), Attempt(1)));
}

#[test]
fn work_of_a_lost_replica_that_held_the_same_goes_on() {
    for lost_first in [true, false] {
        let (mut bench, nodes) = second_iteration();
        stepped(&mut bench, nodes[3], 1, 1, 101);
        if lost_first {
            lose(&mut bench, nodes[3]);
        }
        stepped(&mut bench, nodes[2], 1, 1, 101);
        if !lost_first {
            lose(&mut bench, nodes[3]);
        }
        assert_eq!(aborts(&bench), 0);
    }
}

#[test]
fn what_was_made_of_other_bits_for_a_lost_stage_is_made_again() {
    for enters in [false, true] {
        let (mut bench, nodes) = Bench::started(&settings(3, 3));
        for (index, node) in nodes.iter().enumerate() {
            if index % 3 < 2 {
                bench.share(*node, index as u32 % 3, index < 3);
            }
        }
        nodes.iter().enumerate().for_each(|(index, node)| bench.reduced(*node, 40 + index as u8 / 3));
        assert_eq!(bench.current(), (Iteration(1), Attempt(0)));
        // A stage is lost, and its heir is made of states of which nobody has said what they are.
        nodes[6..9].iter().for_each(|node| lose(&mut bench, *node));
        let heir = bench.hello(None);
        let (transfer, stage, method) = bench.last_assignment(heir);
        let Method::Rebuild { donors, .. } = method else { panic!("{method:?}") };
        assert_eq!((stage, donors[0]), (StageId(2), nodes[3]));
        bench.holds(heir);
        if enters {
            nodes[9..12].iter().for_each(|node| lose(&mut bench, *node));
            assert!(!bench.duties(heir).is_empty());
        }
        for (node, state) in [(nodes[3], 66), (nodes[4], 101), (nodes[5], 101)] {
            stepped(&mut bench, node, 1, 1, state);
        }
        let lost = |node, why: &str| {
            bench.events.iter().any(|event| {
                matches!(event, Event::NodeLost { node: lost, why: of, .. } if *lost == node && of == why)
            })
        };
        assert!(lost(nodes[3], "hash"));
        assert_eq!(lost(heir, "hash"), enters);
        if !enters {
            assert_ne!(bench.last_assignment(heir).0, transfer, "it is made again");
        }
    }
}
