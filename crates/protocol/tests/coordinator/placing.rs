//! Which node gets which stage, where the driver is asked.

use super::*;

fn placed(replicas: u16, relay_stages: u16) -> Settings {
    Settings { places: true, steps: 200, ..settings(replicas, relay_stages) }
}

fn assignments(bench: &Bench) -> Vec<(NodeId, StageId)> {
    let assigned = bench.sent.iter().filter_map(|(node, message)| match message {
        ToWorker::Assign { stage, .. } => Some((*node, *stage)),
        _ => None,
    });
    assigned.collect()
}

fn answer(epoch: u64, places: &[(NodeId, u16)]) -> PlaceAnswer {
    PlaceAnswer {
        epoch,
        places: places.iter().map(|(node, stage)| (*node, StageId(*stage))).collect(),
        expected_us: Some(5_000),
        ..PlaceAnswer::default()
    }
}

impl Bench {
    fn answers(&mut self, answer: PlaceAnswer) {
        self.input(CoordinatorInput::Placed { answer });
    }

    fn placings(&self) -> Vec<(String, Vec<(NodeId, StageId)>)> {
        let told = self.events.iter().filter_map(|event| match event {
            Event::Placed { by, places, .. } => Some((by.clone(), places.clone())),
            _ => None,
        });
        told.collect()
    }
}

/// Two replicas of an origin and one relay, placed crosswise: the first node and the third are origins.
fn crosswise() -> (Bench, Vec<NodeId>) {
    let mut bench = Bench::open(&placed(2, 1), &[]);
    let nodes: Vec<_> = (0..4).map(|_| bench.hello(None)).collect();
    bench.answers(answer(1, &[(nodes[0], 0), (nodes[1], 1), (nodes[2], 0), (nodes[3], 1)]));
    (bench, nodes)
}

fn trains() -> (Bench, Vec<NodeId>) {
    let (mut bench, nodes) = crosswise();
    nodes.iter().for_each(|node| bench.holds(*node));
    (bench, vec![nodes[0], nodes[2], nodes[1], nodes[3]])
}

#[test]
fn nobody_gets_a_stage_before_all_are_there_and_the_driver_has_answered() {
    let mut bench = Bench::open(&placed(2, 1), &[]);
    let nodes: Vec<_> = (0..3).map(|_| bench.hello(None)).collect();
    bench.wait(1_000_000);
    assert!(bench.questions.is_empty(), "one is missing");
    let last = bench.hello(None);
    let [question] = bench.questions.as_slice() else { panic!("{:?}", bench.questions) };
    assert_eq!(question.free, [nodes.as_slice(), &[last]].concat());
    assert_eq!((question.open.as_slice(), question.swap_within), ([2, 2].as_slice(), 0));
    assert!(question.nodes.iter().all(Vec::is_empty));
    bench.wait(1_000_000);
    assert_eq!((assignments(&bench), bench.questions.len()), (vec![], 1));
    let places = [(nodes[0], 0), (nodes[1], 1), (nodes[2], 0), (last, 1)];
    let other = answer(7, &places);
    bench.answers(other);
    assert_eq!(assignments(&bench), [], "the answer to another question");
    bench.answers(answer(1, &places));
    let expected: Vec<_> = places.iter().map(|(node, stage)| (*node, StageId(*stage))).collect();
    assert_eq!(assignments(&bench), expected);
    assert_eq!(bench.placings(), [("search".to_owned(), expected)]);
    bench.answers(answer(1, &places));
    assert_eq!(assignments(&bench).len(), 4, "it is answered already");
}

#[test]
fn an_answer_that_does_not_fit_counts_as_far_as_it_does() {
    let mut bench = Bench::open(&placed(2, 1), &[]);
    let nodes: Vec<_> = (0..4).map(|_| bench.hello(None)).collect();
    lose(&mut bench, nodes[1]);
    // A node that is gone, one that never was, a stage that is not, and one node too many of stage 0.
    let (n, gone, unknown) = (&nodes, nodes[1], NodeId(99));
    bench.answers(answer(1, &[(gone, 0), (unknown, 0), (n[0], 7), (n[3], 0), (n[2], 0), (n[0], 0)]));
    let stages = |node| bench.last_assignment(node).1;
    assert_eq!((stages(n[3]), stages(n[2]), stages(n[0])), (StageId(0), StageId(0), StageId(1)));
    let told = vec![(n[3], StageId(0)), (n[2], StageId(0))];
    assert_eq!(bench.placings(), [("search".to_owned(), told)]);
    let late = bench.hello(None);
    assert_eq!(bench.last_assignment(late).1, StageId(1), "as they come, where most is missing");
    assert_eq!(bench.questions.len(), 1);
}

#[test]
fn a_driver_that_never_answers_is_waited_for_until_nodes_are_placed_as_they_came() {
    let mut bench = Bench::open(&placed(2, 1), &[]);
    let nodes: Vec<_> = (0..4).map(|_| bench.hello(None)).collect();
    bench.wait(9_500_000);
    assert_eq!(assignments(&bench), []);
    bench.wait(1_000_000);
    let stages: Vec<_> = nodes.iter().map(|node| bench.last_assignment(*node).1.0).collect();
    assert_eq!(stages, [0, 1, 0, 1]);
    assert_eq!(bench.placings(), [("order".to_owned(), vec![])]);
}

#[test]
fn a_deterministic_run_waits_for_the_answer_however_long_it_takes() {
    let mut bench = Bench::open(&Settings { deterministic: true, ..placed(1, 1) }, &[]);
    let nodes: Vec<_> = (0..2).map(|_| bench.hello(None)).collect();
    bench.wait(60_000_000);
    assert_eq!(assignments(&bench), []);
    bench.answers(answer(1, &[(nodes[0], 1), (nodes[1], 0)]));
    assert_eq!(assignments(&bench), [(nodes[0], StageId(1)), (nodes[1], StageId(0))]);
}

#[test]
fn when_not_all_come_those_who_did_are_placed_on_all_stages() {
    let mut bench = Bench::open(&placed(2, 1), &[]);
    let nodes: Vec<_> = (0..3).map(|_| bench.hello(None)).collect();
    bench.wait(10_500_000);
    let [question] = bench.questions.as_slice() else { panic!("{:?}", bench.questions) };
    assert_eq!((&question.free, question.open.iter().sum::<u16>()), (&nodes, 3));
    assert!(question.open.iter().all(|open| *open > 0));
}

#[test]
fn stages_may_want_different_numbers_of_nodes() {
    let mut bench = Bench::open(&Settings { stage_replicas: vec![1, 3], places: false, ..placed(2, 1) }, &[]);
    let nodes: Vec<_> = (0..4).map(|_| bench.hello(None)).collect();
    let mut stages: Vec<_> = nodes.iter().map(|node| bench.last_assignment(*node).1.0).collect();
    stages.sort_unstable();
    assert_eq!(stages, [0, 1, 1, 1]);
    nodes[..3].iter().for_each(|node| bench.holds(*node));
    assert_eq!(bench.problems.len(), 0, "one is missing");
    bench.holds(nodes[3]);
    assert_eq!(bench.problems.len(), 1);
}

#[test]
fn the_driver_is_asked_where_a_spare_goes_only_if_there_is_a_choice() {
    let (mut bench, nodes) = trains();
    lose(&mut bench, nodes[3]);
    let heir = bench.hello(None);
    assert_eq!((bench.last_assignment(heir).1, bench.questions.len()), (StageId(1), 1), "one for one");
    lose(&mut bench, heir);
    lose(&mut bench, nodes[1]);
    let heir = bench.hello(None);
    let question = bench.questions.last().expect("a question").clone();
    assert_eq!((question.free, question.open), (vec![heir], vec![1, 1]));
    assert_eq!(question.nodes, [vec![nodes[0]], vec![nodes[2]]]);
    bench.answers(answer(question.epoch, &[(heir, 1)]));
    assert_eq!(
        bench.last_assignment(heir),
        (bench.last_assignment(heir).0, StageId(1), Method::Copy { donors: vec![nodes[2]] })
    );
}

#[test]
fn a_spare_is_placed_as_it_comes_when_the_answer_is_late_or_empty() {
    for empty in [true, false] {
        let (mut bench, nodes) = trains();
        lose(&mut bench, nodes[1]);
        lose(&mut bench, nodes[3]);
        let heir = bench.hello(None);
        assert_eq!((assignments(&bench).len(), bench.questions.len()), (4, 2));
        if empty {
            bench.answers(PlaceAnswer { epoch: 2, ..PlaceAnswer::default() });
        } else {
            bench.wait(1_100_000);
        }
        assert_eq!(bench.last_assignment(heir).1, StageId(0), "{empty}");
        assert_eq!(bench.placings().last(), Some(&("order".to_owned(), vec![])));
    }
}

/// One iteration, of all who serve.
fn iterate(bench: &mut Bench) {
    let stages = bench.problems.last().expect("a plan").nodes.clone();
    iterate_with(bench, &stages);
}

fn iterate_with(bench: &mut Bench, stages: &[Vec<NodeId>]) {
    for (stage, nodes) in stages.iter().enumerate() {
        for (place, node) in nodes.iter().enumerate() {
            for microbatch in (0..2).filter(|microbatch| microbatch % nodes.len() == place) {
                bench.share(*node, microbatch as u32, stage == 0);
            }
        }
    }
    let before = bench.coordinator.iteration();
    for node in stages.concat() {
        bench.reduced(node, 40);
    }
    assert_eq!(bench.coordinator.iteration(), before.next());
    all_step(bench, &stages.concat());
}

/// Iterations until the driver is asked whether nodes should change places.
fn until_asked(bench: &mut Bench) -> PlaceProblem {
    while bench.questions.len() < 2 {
        assert!(bench.coordinator.iteration() < Iteration(20), "nobody asks");
        iterate(bench);
    }
    bench.questions[1].clone()
}

fn swap(epoch: u64, a: NodeId, b: NodeId) -> PlaceAnswer {
    let swap = Swap { a, b, before_us: 9_000, after_us: 5_000, copies_us: 3_000 };
    PlaceAnswer { swap: Some(swap), ..answer(epoch, &[]) }
}

#[test]
fn two_nodes_change_places_between_attempts_and_copy_from_who_stays() {
    let (mut bench, nodes) = trains();
    let question = until_asked(&mut bench);
    assert_eq!((question.free.len(), question.swap_within), (0, 100));
    assert_eq!(question.nodes, [vec![nodes[0], nodes[1]], vec![nodes[2], nodes[3]]]);
    let before = assignments(&bench).len();
    bench.answers(swap(question.epoch, nodes[1], nodes[2]));
    assert_eq!(assignments(&bench).len(), before, "not in the middle of an iteration");
    iterate(&mut bench);
    assert_eq!(assignments(&bench)[before..], [(nodes[1], StageId(1)), (nodes[2], StageId(0))]);
    let donors = |node| bench.last_assignment(node).2;
    assert_eq!(donors(nodes[1]), Method::Copy { donors: vec![nodes[3]] });
    assert_eq!(donors(nodes[2]), Method::Copy { donors: vec![nodes[0]] });
    let served = &bench.problems.last().expect("the next plan").nodes;
    assert_eq!(served, &[vec![nodes[0]], vec![nodes[3]]], "training goes on without them");
    let told = vec![(nodes[1], StageId(1)), (nodes[2], StageId(0))];
    assert_eq!(bench.placings().last(), Some(&("search".to_owned(), told)));
}

#[test]
fn nobody_leaves_a_stage_that_has_lost_its_other_replica() {
    let (mut bench, nodes) = trains();
    let question = until_asked(&mut bench);
    let before = assignments(&bench).len();
    bench.answers(swap(question.epoch, nodes[1], nodes[2]));
    lose(&mut bench, nodes[3]);
    iterate_with(&mut bench, &[nodes[..2].to_vec(), vec![nodes[2]]]);
    iterate(&mut bench);
    iterate(&mut bench);
    assert_eq!(assignments(&bench).len(), before);
}

#[test]
fn nobody_is_moved_in_a_deterministic_run() {
    let settings = Settings { deterministic: true, ..placed(2, 1) };
    let mut bench = Bench::open(&settings, &[]);
    let nodes: Vec<_> = (0..4).map(|_| bench.hello(None)).collect();
    bench.answers(answer(1, &[(nodes[0], 0), (nodes[1], 0), (nodes[2], 1), (nodes[3], 1)]));
    nodes.iter().for_each(|node| bench.holds(*node));
    for _ in 0..30 {
        iterate(&mut bench);
    }
    assert_eq!(bench.questions.len(), 1);
}
