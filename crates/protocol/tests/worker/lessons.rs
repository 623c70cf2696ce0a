//! Boundary tensors that are kept of committed iterations, and stages that are learned or retraced with them.

use super::*;
use skipstone_recovery::{Lesson, Matching, Moments, Recipe, Retraced, Retracing, Source, StateFormat};

const TRANSFER: TransferId = TransferId { term: Term(1), number: 7 };

fn lesson(iteration: u64, microbatch: u32) -> Lesson {
    Lesson { iteration: Iteration(iteration), microbatch: Microbatch(microbatch) }
}

fn asked(bench: &mut Bench, lesson: Lesson, which: KeptTensor) -> Vec<WorkerCommand> {
    let message = ToPeer::LessonRequest { transfer: TRANSFER, lesson, which };
    bench.on(WorkerInput::Peer { from: AFTER, message, payload: None, began_us: 0 })
}

fn answer(lesson: Lesson, which: KeptTensor, payload: Option<u64>) -> Vec<WorkerCommand> {
    let message = ToPeer::Lesson { transfer: TRANSFER, lesson, which };
    vec![WorkerCommand::SendPeer { to: AFTER, message, payload: payload.map(Handle) }]
}

/// The record of an iteration that this node took no step in, which is all that it needs to go on.
fn commit(iteration: u64) -> ToWorker {
    ToWorker::Commit {
        record: CommitRecord {
            run: RunId(7),
            term: Term(1),
            generation: 0,
            iteration: Iteration(iteration),
            attempt: A,
            plan_epoch: PlanEpoch(0),
            paths: Vec::new(),
            stages: Vec::new(),
            loss_sum: 0.0,
            tokens: 0,
            learning_rate: 0.0,
            previous: Digest::default(),
        }
        .into(),
    }
}

fn keeps(iterations: u64) -> Box<Settings> {
    Box::new(Settings { recovery: format!("match:kept={iterations}"), ..*settings() })
}

#[test]
fn what_passed_in_a_committed_iteration_is_kept_for_so_many_iterations() {
    let mut bench = Bench::serving_with(keeps(1));
    bench.boundary(BEFORE, 0, Direction::Forward);
    // What came is not dropped, as it is where nobody is to learn from it.
    assert_eq!(bench.done(1, Outcome::Done), [send(AFTER, 0, Direction::Forward, 1)]);
    let (came, made) = (KeptTensor::Came, KeptTensor::Made);
    assert_eq!(asked(&mut bench, lesson(0, 0), came), answer(lesson(0, 0), came, None), "not committed yet");
    let commands = bench.told(commit(0));
    assert!(commands.contains(&WorkerCommand::Drop { handles: vec![Handle(2)] }), "{commands:?}");
    assert_eq!(asked(&mut bench, lesson(0, 0), came), answer(lesson(0, 0), came, Some(X)));
    assert_eq!(asked(&mut bench, lesson(0, 0), made), answer(lesson(0, 0), made, Some(1)));
    assert_eq!(asked(&mut bench, lesson(0, 1), came), answer(lesson(0, 1), came, None), "it never came");
    // The next iteration takes its place.
    let (iteration, duties) = (Iteration(1), vec![duty(0, AFTER)]);
    bench.told(ToWorker::Begin { iteration, attempt: A, duties, addresses: vec![] });
    let commands = bench.told(commit(1));
    assert!(commands.contains(&WorkerCommand::Drop { handles: vec![Handle(X), Handle(1)] }), "{commands:?}");
    assert_eq!(asked(&mut bench, lesson(0, 0), came), answer(lesson(0, 0), came, None));
}

/// A node that is to make stage 1 of stage 2, and to learn it from two microbatches.
fn learning() -> (Bench, Recipe, Vec<WorkerCommand>) {
    let mut bench = Bench::new();
    bench.on(WorkerInput::CoordinatorUp);
    bench.told(ToWorker::Welcome { node: ME, settings: keeps(2), empty: true });
    let recipe = Recipe {
        sources: vec![Source { stage: StageId(2), coefficient: 1.0 }],
        moments: Moments::Mix,
        learning_rate_factor: 1.0,
        format: StateFormat::F32,
        matching: Some(Matching { steps: 4, rate: 1e-3, lessons: vec![lesson(0, 0), lesson(0, 1)] }),
        retracing: None,
    };
    let teachers = vec![(BEFORE, AFTER), (BEFORE, AFTER)];
    let method = Method::Rebuild { recipe: recipe.clone(), donors: vec![AFTER], teachers };
    let (stage, iteration) = (STAGE, Iteration(1));
    let assign = ToWorker::Assign { transfer: TRANSFER, stage, iteration, method, addresses: vec![] };
    let commands = bench.told(assign);
    (bench, recipe, commands)
}

fn request(to: NodeId, microbatch: u32, which: KeptTensor) -> WorkerCommand {
    let message = ToPeer::LessonRequest { transfer: TRANSFER, lesson: lesson(0, microbatch), which };
    WorkerCommand::SendPeer { to, message, payload: None }
}

fn taught(
    bench: &mut Bench,
    from: NodeId,
    microbatch: u32,
    which: KeptTensor,
    tensor: Option<u64>,
) -> Vec<WorkerCommand> {
    let message = ToPeer::Lesson { transfer: TRANSFER, lesson: lesson(0, microbatch), which };
    bench.on(WorkerInput::Peer { from, message, payload: tensor.map(Handle), began_us: 0 })
}

#[test]
fn who_makes_a_stage_again_asks_those_before_and_after_it_on_the_path() {
    let (mut bench, recipe, commands) = learning();
    let requests = [
        request(BEFORE, 0, KeptTensor::Made),
        request(AFTER, 0, KeptTensor::Came),
        request(BEFORE, 1, KeptTensor::Made),
        request(AFTER, 1, KeptTensor::Came),
    ];
    assert_eq!(commands[1..], requests, "after the first chunk: {commands:?}");
    // They may come in any order, and once is enough.
    assert_eq!(taught(&mut bench, AFTER, 1, KeptTensor::Came, Some(X + 4)), []);
    let second = taught(&mut bench, AFTER, 1, KeptTensor::Came, Some(X + 5));
    assert_eq!(second, [WorkerCommand::Drop { handles: vec![Handle(X + 5)] }]);
    // After a broken connection what is open is asked for again.
    let again = bench.on(WorkerInput::PeerUp { peer: BEFORE });
    assert_eq!(again, [requests[0].clone(), requests[2].clone()]);
    taught(&mut bench, BEFORE, 0, KeptTensor::Made, Some(X + 1));
    taught(&mut bench, AFTER, 0, KeptTensor::Came, Some(X + 2));
    taught(&mut bench, BEFORE, 1, KeptTensor::Made, Some(X + 3));
    // The stage is made once its source's weights are there too: of each lesson what came to it, then what it made.
    let message = ToPeer::Chunk { transfer: TRANSFER, index: 0, count: 1, bytes: 9 };
    bench.on(WorkerInput::Peer { from: AFTER, message, payload: Some(Handle(X + 9)), began_us: 0 });
    let commands = bench.done(0, Outcome::State { digest: Digest([2; 32]) });
    let rebuild = Task::Rebuild { stage: STAGE, recipe };
    assert!(commands.contains(&compute(1, rebuild, &[0, X + 1, X + 2, X + 3, X + 4], &[1])), "{commands:?}");
}

#[test]
fn what_nobody_has_kept_ends_the_transfer_and_not_the_node() {
    let (mut bench, _, _) = learning();
    taught(&mut bench, BEFORE, 0, KeptTensor::Made, Some(X + 1));
    assert_eq!(taught(&mut bench, NodeId(8), 0, KeptTensor::Came, None), [], "it was not asked");
    let commands = taught(&mut bench, AFTER, 0, KeptTensor::Came, None);
    let failed = |command: &WorkerCommand| {
        matches!(
            command,
            WorkerCommand::SendCoordinator {
                message: ToCoordinator::TransferFailed { transfer: TRANSFER, .. }
            }
        )
    };
    assert!(commands.iter().any(failed), "{commands:?}");
    assert!(commands.contains(&WorkerCommand::Drop { handles: vec![Handle(X + 1)] }), "{commands:?}");
}

#[test]
fn where_stages_are_retraced_what_was_made_on_either_way_is_kept() {
    let recovery = "neighbour-snapshot:retrace=2".to_owned();
    let mut bench = Bench::serving_with(Box::new(Settings { recovery, ..*settings() }));
    bench.boundary(BEFORE, 0, Direction::Forward);
    let commands = bench.done(1, Outcome::Done);
    assert!(commands.contains(&WorkerCommand::Drop { handles: vec![Handle(X)] }), "what came: {commands:?}");
    bench.boundary(AFTER, 0, Direction::Backward);
    // A sum to add to comes before the backward.
    bench.done(2, Outcome::Done);
    let commands = bench.done(3, Outcome::Done);
    assert!(commands.contains(&send(BEFORE, 0, Direction::Backward, 4)), "{commands:?}");
    bench.told(commit(0));
    let (made, returned) = (KeptTensor::Made, KeptTensor::Returned);
    assert_eq!(asked(&mut bench, lesson(0, 0), made), answer(lesson(0, 0), made, Some(1)));
    let gradient = answer(lesson(0, 0), returned, Some(4));
    assert_eq!(asked(&mut bench, lesson(0, 0), returned), gradient);
    let came = KeptTensor::Came;
    assert_eq!(asked(&mut bench, lesson(0, 0), came), answer(lesson(0, 0), came, None));
}

/// A node that is to restore stage 1 from what `AFTER` keeps of it, and to take one step of it again.
fn retracing() -> (Bench, Recipe, Vec<WorkerCommand>) {
    let mut bench = Bench::new();
    bench.on(WorkerInput::CoordinatorUp);
    let recovery = "neighbour-snapshot:retrace=2".to_owned();
    let settings = Box::new(Settings { recovery, ..*settings() });
    bench.told(ToWorker::Welcome { node: ME, settings, empty: true });
    let shares = vec![vec![Microbatch(1)]];
    let (iteration, learning_rate, clip_factor) = (Iteration(0), 1e-3, 1.0);
    let iterations = vec![Retraced { iteration, lineage: 0, shares, learning_rate, clip_factor }];
    let recipe = Recipe {
        retracing: Some(Retracing { copy: Digest([2; 32]), iterations }),
        ..Recipe::restore(STAGE, StateFormat::F32)
    };
    let teachers = vec![(BEFORE, AFTER)];
    let method = Method::Rebuild { recipe: recipe.clone(), donors: vec![AFTER], teachers };
    let (stage, iteration) = (STAGE, Iteration(1));
    let assign = ToWorker::Assign { transfer: TRANSFER, stage, iteration, method, addresses: vec![] };
    let commands = bench.told(assign);
    taught(&mut bench, BEFORE, 1, KeptTensor::Made, Some(X + 1));
    taught(&mut bench, AFTER, 1, KeptTensor::Returned, Some(X + 2));
    let message = ToPeer::Chunk { transfer: TRANSFER, index: 0, count: 1, bytes: 9 };
    bench.on(WorkerInput::Peer { from: AFTER, message, payload: Some(Handle(X + 9)), began_us: 0 });
    (bench, recipe, commands)
}

#[test]
fn who_takes_steps_again_asks_for_what_the_stage_was_sent_and_the_gradients_that_came_back() {
    let (mut bench, recipe, commands) = retracing();
    let requests = [request(BEFORE, 1, KeptTensor::Made), request(AFTER, 1, KeptTensor::Returned)];
    assert_eq!(commands[1..], requests, "{commands:?}");
    let commands = bench.done(0, Outcome::State { digest: Digest([2; 32]) });
    let rebuild = Task::Rebuild { stage: STAGE, recipe };
    assert!(commands.contains(&compute(1, rebuild, &[0, X + 1, X + 2], &[1, 2, 3])), "{commands:?}");
    // What it makes again it has as whoever made it before had it.
    bench.done(1, Outcome::State { digest: Digest([4; 32]) });
    for (which, handle) in [(KeptTensor::Made, 2), (KeptTensor::Returned, 3)] {
        assert_eq!(asked(&mut bench, lesson(0, 1), which), answer(lesson(0, 1), which, Some(handle)));
    }
}

#[test]
fn steps_are_not_taken_again_from_a_copy_with_other_bits() {
    let (mut bench, ..) = retracing();
    let commands = bench.done(0, Outcome::State { digest: Digest([3; 32]) });
    let failed = |command: &WorkerCommand| {
        matches!(
            command,
            WorkerCommand::SendCoordinator {
                message: ToCoordinator::TransferFailed { transfer: TRANSFER, why }
            } if why.contains("other bits")
        )
    };
    assert!(commands.iter().any(failed), "{commands:?}");
    let computes = |command: &WorkerCommand| matches!(command, WorkerCommand::Compute { .. });
    assert!(!commands.iter().any(computes), "{commands:?}");
}
