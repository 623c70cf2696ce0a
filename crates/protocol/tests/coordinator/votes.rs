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
