//! Activations that are kept of committed iterations, and stages that are learned from them.

use super::*;
use skipstone_recovery::{Lesson, Matching, Moments, Recipe, Source, StateFormat};

const TRANSFER: TransferId = TransferId { term: Term(1), number: 7 };

fn lesson(iteration: u64, microbatch: u32) -> Lesson {
    Lesson { iteration: Iteration(iteration), microbatch: Microbatch(microbatch) }
}

fn asked(bench: &mut Bench, lesson: Lesson, which: Activation) -> Vec<WorkerCommand> {
    let message = ToPeer::LessonRequest { transfer: TRANSFER, lesson, which };
    bench.on(WorkerInput::Peer { from: AFTER, message, payload: None, began_us: 0 })
}

fn answer(lesson: Lesson, which: Activation, payload: Option<u64>) -> Vec<WorkerCommand> {
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
    let (came, made) = (Activation::Came, Activation::Made);
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
    };
    let teachers = vec![(BEFORE, AFTER), (BEFORE, AFTER)];
    let method = Method::Rebuild { recipe: recipe.clone(), donors: vec![AFTER], teachers };
    let (stage, iteration) = (STAGE, Iteration(1));
    let assign = ToWorker::Assign { transfer: TRANSFER, stage, iteration, method, addresses: vec![] };
    let commands = bench.told(assign);
    (bench, recipe, commands)
}

fn request(to: NodeId, microbatch: u32, which: Activation) -> WorkerCommand {
    let message = ToPeer::LessonRequest { transfer: TRANSFER, lesson: lesson(0, microbatch), which };
    WorkerCommand::SendPeer { to, message, payload: None }
}

fn taught(
    bench: &mut Bench,
    from: NodeId,
    microbatch: u32,
    which: Activation,
    tensor: Option<u64>,
) -> Vec<WorkerCommand> {
    let message = ToPeer::Lesson { transfer: TRANSFER, lesson: lesson(0, microbatch), which };
    bench.on(WorkerInput::Peer { from, message, payload: tensor.map(Handle), began_us: 0 })
}

#[test]
fn who_makes_a_stage_again_asks_those_before_and_after_it_on_the_path() {
    let (mut bench, recipe, commands) = learning();
    let requests = [
        request(BEFORE, 0, Activation::Made),
        request(AFTER, 0, Activation::Came),
        request(BEFORE, 1, Activation::Made),
        request(AFTER, 1, Activation::Came),
    ];
    assert_eq!(commands[1..], requests, "after the first chunk: {commands:?}");
    // They may come in any order, and once is enough.
    assert_eq!(taught(&mut bench, AFTER, 1, Activation::Came, Some(X + 4)), []);
    let second = taught(&mut bench, AFTER, 1, Activation::Came, Some(X + 5));
    assert_eq!(second, [WorkerCommand::Drop { handles: vec![Handle(X + 5)] }]);
    // After a broken connection what is open is asked for again.
    let again = bench.on(WorkerInput::PeerUp { peer: BEFORE });
    assert_eq!(again, [requests[0].clone(), requests[2].clone()]);
    taught(&mut bench, BEFORE, 0, Activation::Made, Some(X + 1));
    taught(&mut bench, AFTER, 0, Activation::Came, Some(X + 2));
    taught(&mut bench, BEFORE, 1, Activation::Made, Some(X + 3));
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
    taught(&mut bench, BEFORE, 0, Activation::Made, Some(X + 1));
    assert_eq!(taught(&mut bench, NodeId(8), 0, Activation::Came, None), [], "it was not asked");
    let commands = taught(&mut bench, AFTER, 0, Activation::Came, None);
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
