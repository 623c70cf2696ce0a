//! A state is written beside the work.

use super::*;

const DIGEST: Digest = Digest([1; 32]);

fn write(id: u64) -> WorkerCommand {
    WorkerCommand::Write { id: TaskId(id), stage: STAGE, iteration: T, digest: DIGEST, state: Handle(0) }
}

fn written(bench: &mut Bench, id: u64) -> Vec<WorkerCommand> {
    bench.on(WorkerInput::Written { id: TaskId(id), written: Ok(()) })
}

fn saved(iteration: Iteration, digest: Digest) -> WorkerCommand {
    report(ToCoordinator::Saved { stage: STAGE, iteration, digest })
}

#[test]
fn tasks_go_on_while_a_state_is_written() {
    let mut bench = Bench::serving();
    let commands = bench.told(ToWorker::Save { iteration: T });
    assert_eq!(commands, [write(1)]);
    assert_eq!(bench.told(ToWorker::Save { iteration: T }), [], "it is under way");
    let (_, commands) = bench.boundary(BEFORE, 0, Direction::Forward);
    let begins = |command: &WorkerCommand| {
        matches!(command, WorkerCommand::Compute { task: Task::Forward { .. }, .. })
    };
    assert!(commands.iter().any(begins), "the disk holds nothing up: {commands:?}");
    assert_eq!(written(&mut bench, 1), [saved(T, DIGEST)]);
    assert_eq!(written(&mut bench, 1), [], "once");
}

#[test]
fn a_write_that_fails_is_told_and_the_next_may_begin() {
    let mut bench = Bench::holding(STAGE);
    assert_eq!(bench.told(ToWorker::Save { iteration: T }), [write(1)]);
    let why = "no space left on the disk".to_owned();
    let failed = report(ToCoordinator::SaveFailed { stage: STAGE, iteration: T, why: why.clone() });
    assert_eq!(bench.on(WorkerInput::Written { id: TaskId(1), written: Err(why) }), [failed]);
    assert_eq!(bench.told(ToWorker::Save { iteration: T }), [write(2)]);
}

#[test]
fn nobody_hears_of_a_write_from_before_everything_was_forgotten_and_the_next_waits_for_it() {
    let mut bench = Bench::holding(STAGE);
    assert_eq!(bench.told(ToWorker::Save { iteration: T }), [write(1)]);
    bench.told(ToWorker::Welcome { node: NodeId(8), settings: settings(), empty: true });
    let transfer = TransferId { term: Term(1), number: 2 };
    let method = Method::Initialise;
    bench.told(ToWorker::Assign { transfer, stage: STAGE, iteration: T, method, addresses: vec![] });
    bench.done(2, Outcome::State { digest: DIGEST });
    assert_eq!(bench.told(ToWorker::Save { iteration: T }), [], "one write at a time");
    let [WorkerCommand::Write { id: TaskId(3), state, .. }] = written(&mut bench, 1)[..] else {
        panic!("the next begins, and the former is not told of")
    };
    assert_eq!(state, Handle(1), "the state that is held now");
    assert_eq!(written(&mut bench, 3), [saved(T, DIGEST)]);
}
