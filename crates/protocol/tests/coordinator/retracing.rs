//! A stage that is restored from a copy takes the steps again that it had taken since.

use super::*;
use skipstone_recovery::{Lesson, Retraced};

fn retracing() -> Settings {
    let recovery = "neighbour-snapshot:every=2,retrace=8".to_owned();
    Settings { recovery, steps: 20, while_lost: WhileLost::Wait, ..settings(1, 3) }
}

/// One iteration, in which every stage holds the digest 100 + stage and the copies that are asked for arrive, if `copies`.
fn go_on(bench: &mut Bench, nodes: &[NodeId], copies: bool) {
    run_iteration(bench, nodes);
    all_step(bench, nodes);
    let asked = bench.take_asked_copies();
    for (keeper, transfer, stage, iteration) in asked.into_iter().filter(|_| copies) {
        let digest = Digest([100 + stage.0 as u8; 32]);
        bench.says(keeper, ToCoordinator::CopyKept { transfer, stage, iteration, digest });
    }
}

fn lesson(iteration: u64, microbatch: u32) -> Lesson {
    Lesson { iteration: Iteration(iteration), microbatch: Microbatch(microbatch) }
}

/// What the node is told to take again, of which copy, and from whom.
fn told(bench: &Bench, node: NodeId) -> (Vec<Retraced>, Option<Digest>, Vec<(NodeId, NodeId)>) {
    let (_, stage, method) = bench.last_assignment(node);
    let Method::Rebuild { recipe, teachers, .. } = method else { panic!("{method:?}") };
    assert!(recipe.restores(stage));
    let copy = recipe.retracing.as_ref().map(|retracing| retracing.copy);
    (recipe.retracing.map(|retracing| retracing.iterations).unwrap_or_default(), copy, teachers)
}

fn iterations(retraced: &[Retraced]) -> Vec<(u64, u32)> {
    retraced.iter().map(|retraced| (retraced.iteration.0, retraced.lineage)).collect()
}

/// The heir holds what `digest` says.
fn holds(bench: &mut Bench, heir: NodeId, digest: u8) {
    let (transfer, stage, _) = bench.last_assignment(heir);
    let iteration = bench.coordinator.iteration();
    let digest = Digest([digest; 32]);
    bench.says(heir, ToCoordinator::Holds { transfer: Some(transfer), stage, iteration, digest });
}

#[test]
fn a_restored_stage_takes_again_what_came_after_its_copy_and_goes_on_from_there_when_it_is_lost_again() {
    let (mut bench, mut nodes) = Bench::started(&retracing());
    for _ in 0..3 {
        go_on(&mut bench, &nodes, true);
    }
    for _ in 0..2 {
        go_on(&mut bench, &nodes, false);
    }
    lose(&mut bench, nodes[2]);
    let heir = bench.hello(None);
    let (retraced, copy, teachers) = told(&bench, heir);
    assert_eq!(copy, Some(Digest([102; 32])));
    let first = retraced.first().expect("there is something to take again").iteration.0;
    assert!(first > 0 && first < 5, "{retraced:?}");
    assert_eq!(iterations(&retraced), (first..5).map(|iteration| (iteration, 0)).collect::<Vec<_>>());
    assert_eq!(retraced[0].shares, [[Microbatch(0), Microbatch(1)]]);
    let record = bench.commits().pop().expect("a commit").clone();
    let last = retraced.last().expect("as above");
    assert_eq!((last.learning_rate, last.clip_factor), (record.learning_rate, record.stages[2].clip_factor));
    assert_eq!(teachers, vec![(nodes[1], nodes[3]); 2 * retraced.len()]);
    let count = teachers.len() as u32;
    let logged = bench
        .events
        .iter()
        .any(|event| matches!(event, Event::RebuildStarted { lessons, .. } if *lessons == count));
    assert!(logged, "{:?}", bench.events);
    holds(&mut bench, heir, 102);
    let Some(Entry::Rebuilt(rebuild)) = bench.journal.last() else { panic!("{:?}", bench.journal.last()) };
    assert_eq!(rebuild.goes_on_from(), Some((0, Iteration(5))));
    assert_eq!(rebuild.recipe.lessons().first(), Some(&lesson(first, 0)));

    // It takes another step, and is lost before there is a newer copy: it becomes what it was after that.
    nodes[2] = heir;
    go_on(&mut bench, &nodes, false);
    lose(&mut bench, heir);
    let next = bench.hello(None);
    let (retraced, ..) = told(&bench, next);
    let expected: Vec<_> = (first..5).map(|iteration| (iteration, 0)).chain([(5, 1)]).collect();
    assert_eq!(iterations(&retraced), expected);
    holds(&mut bench, next, 102);
    let Some(Entry::Rebuilt(rebuild)) = bench.journal.last() else { panic!("{:?}", bench.journal.last()) };
    assert_eq!(rebuild.goes_on_from(), Some((1, Iteration(6))));
}

#[test]
fn what_a_lost_neighbour_had_is_not_taken_again_nor_what_could_not_be_had_once() {
    let (mut bench, nodes) = Bench::started(&retracing());
    for _ in 0..4 {
        go_on(&mut bench, &nodes, true);
    }
    go_on(&mut bench, &nodes, false);
    let (mut second, others) = Bench::started(&retracing());
    for _ in 0..4 {
        go_on(&mut second, &others, true);
    }
    go_on(&mut second, &others, false);

    lose(&mut bench, nodes[2]);
    let heir = bench.hello(None);
    assert!(!told(&bench, heir).0.is_empty());
    let (transfer, ..) = bench.last_assignment(heir);
    let why = "nothing is kept".to_owned();
    bench.says(heir, ToCoordinator::TransferFailed { transfer, why });
    assert_eq!(told(&bench, heir), (vec![], None, vec![]), "the copy as it is");

    // Its neighbour below is lost with it: nobody knows what it was sent.
    lose(&mut second, others[1]);
    lose(&mut second, others[2]);
    let heirs = [second.hello(None), second.hello(None)];
    let of_two = heirs.into_iter().find(|heir| second.last_assignment(*heir).1 == StageId(2));
    assert_eq!(told(&second, of_two.expect("one gets it")), (vec![], None, vec![]));
}

#[test]
fn what_comes_of_a_copy_that_is_not_rounded_must_be_what_the_stage_was() {
    let (mut bench, nodes) = Bench::started(&retracing());
    for _ in 0..3 {
        go_on(&mut bench, &nodes, true);
    }
    go_on(&mut bench, &nodes, false);
    lose(&mut bench, nodes[2]);
    let heir = bench.hello(None);
    assert!(!told(&bench, heir).0.is_empty());
    holds(&mut bench, heir, 55);
    assert!(!matches!(bench.journal.last(), Some(Entry::Rebuilt(_))), "its replicas had agreed on another");
    let refused = bench.events.iter().any(|event| matches!(event, Event::Refused { .. }));
    assert!(refused, "{:?}", bench.events);
    // The copy is as good as before.
    assert_eq!(told(&bench, heir), (vec![], None, vec![]));
    holds(&mut bench, heir, 102);
    assert!(matches!(bench.journal.last(), Some(Entry::Rebuilt(_))), "{:?}", bench.journal.last());
}

#[test]
fn what_a_restored_neighbour_has_made_again_is_taken_again_if_it_has_all_bits() {
    for (dtype, of_new_neighbour) in [("f32", true), ("int8", false)] {
        let recovery = format!("neighbour-snapshot:every=2,retrace=8,dtype={dtype}");
        let (mut bench, mut nodes) = Bench::started(&Settings { recovery, ..retracing() });
        for iteration in 0..5 {
            run_iteration(&mut bench, &nodes);
            all_step(&mut bench, &nodes);
            let asked = bench.take_asked_copies();
            for (keeper, transfer, stage, iteration) in asked.into_iter().filter(|_| iteration < 3) {
                let digest = Digest([100 + stage.0 as u8; 32]);
                let frozen = ToCoordinator::CopyFrozen { transfer, digest, rounded: digest };
                bench.says(nodes[usize::from(stage.0)], frozen);
                bench.says(keeper, ToCoordinator::CopyKept { transfer, stage, iteration, digest });
            }
        }
        lose(&mut bench, nodes[2]);
        let heir = bench.hello(None);
        let again = iterations(&told(&bench, heir).0);
        assert!(again.len() > 1, "{again:?}");
        holds(&mut bench, heir, 102);
        nodes[2] = heir;
        go_on(&mut bench, &nodes, false);
        lose(&mut bench, nodes[3]);
        let next = bench.hello(None);
        let (retraced, _, teachers) = told(&bench, next);
        if of_new_neighbour {
            let last = (5, 0);
            assert_eq!(iterations(&retraced), again.iter().copied().chain([last]).collect::<Vec<_>>());
            assert_eq!(teachers, vec![(heir, nodes[0]); 2 * retraced.len()]);
        } else {
            assert_eq!((retraced, teachers), (vec![], vec![]), "nobody knows what it was sent");
        }
    }
}

#[test]
fn a_node_whose_transfer_has_failed_before_takes_the_steps_of_another_stage_again() {
    let (mut bench, mut nodes) = Bench::started(&retracing());
    for iteration in 0..5 {
        go_on(&mut bench, &nodes, iteration < 4);
    }
    lose(&mut bench, nodes[2]);
    let heir = bench.hello(None);
    let (transfer, ..) = bench.last_assignment(heir);
    let why = "nothing is kept".to_owned();
    bench.says(heir, ToCoordinator::TransferFailed { transfer, why });
    // Whoever comes in its place is not told to ask for it either.
    lose(&mut bench, heir);
    let second = bench.hello(None);
    assert_eq!(told(&bench, second), (vec![], None, vec![]));
    holds(&mut bench, second, 102);
    nodes[2] = second;
    // Once the stage is back it is asked for again, when it is lost again.
    for iteration in 0..4 {
        go_on(&mut bench, &nodes, iteration < 3);
    }
    lose(&mut bench, second);
    let third = bench.hello(None);
    assert!(!told(&bench, third).0.is_empty());
}
