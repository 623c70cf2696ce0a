//! A stage that is learned from what its neighbours have kept.

use super::*;
use skipstone_recovery::Lesson;

fn matching(replicas: u16) -> Settings {
    Settings { recovery: "match:kept=2".to_owned(), ..settings(replicas, 3) }
}

fn lesson(iteration: u64, microbatch: u32) -> Lesson {
    Lesson { iteration: Iteration(iteration), microbatch: Microbatch(microbatch) }
}

/// What the node is told to learn, and from whom.
fn lessons(bench: &Bench, node: NodeId) -> (Vec<Lesson>, Vec<(NodeId, NodeId)>) {
    let (_, stage, method) = bench.last_assignment(node);
    let Method::Rebuild { recipe, teachers, .. } = method else { panic!("{method:?}") };
    assert_eq!(stage, StageId(2));
    (recipe.lessons(), teachers)
}

#[test]
fn a_rebuilt_stage_learns_from_the_last_iterations_of_those_before_and_after_it() {
    let (mut bench, nodes) = Bench::started(&matching(1));
    for _ in 0..3 {
        run_iteration(&mut bench, &nodes);
        all_step(&mut bench, &nodes);
    }
    bench.input(CoordinatorInput::Lost { node: nodes[2], why: "connection".to_owned() });
    let heir = bench.hello(None);
    let (found, teachers) = lessons(&bench, heir);
    assert_eq!(found, [lesson(1, 0), lesson(1, 1), lesson(2, 0), lesson(2, 1)], "two iterations are kept");
    assert_eq!(teachers, [(nodes[1], nodes[3]); 4]);
    let told = bench.events.iter().any(|event| matches!(event, Event::RebuildStarted { lessons: 4, .. }));
    assert!(told, "{:?}", bench.events);
    // Somebody has kept nothing: the next try does without.
    let (transfer, ..) = bench.last_assignment(heir);
    let why = "nothing is kept".to_owned();
    bench.says(heir, ToCoordinator::TransferFailed { transfer, why });
    assert_eq!(lessons(&bench, heir), (vec![], vec![]));
    assert_ne!(bench.last_assignment(heir).0, transfer);
}

#[test]
fn whoever_is_lost_teaches_nothing() {
    let (mut bench, nodes) = Bench::started(&matching(1));
    run_iteration(&mut bench, &nodes);
    all_step(&mut bench, &nodes);
    bench.input(CoordinatorInput::Lost { node: nodes[2], why: "connection".to_owned() });
    let heir = bench.hello(None);
    assert_eq!(lessons(&bench, heir).0.len(), 2);
    let (transfer, ..) = bench.last_assignment(heir);
    // Its neighbour above is lost as well, while it learns: it begins anew, with what is left.
    bench.input(CoordinatorInput::Lost { node: nodes[3], why: "connection".to_owned() });
    assert_ne!(bench.last_assignment(heir).0, transfer);
    assert_eq!(lessons(&bench, heir), (vec![], vec![]));
}
