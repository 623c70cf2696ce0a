//! A state is written beside the work.

use super::*;
use skipstone_recovery::Recipe;
use skipstone_recovery::StateFormat::F32;

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

const LOST: StageId = StageId(2);
const COPIED: Digest = Digest([5; 32]);
const NOW: Iteration = Iteration(9);

/// A worker that serves its stage and keeps a copy of [`LOST`] before iteration 0, under handle 1.
fn keeper() -> Bench {
    let mut bench = Bench::serving();
    let transfer = TransferId { term: Term(1), number: 2 };
    let addresses = vec![];
    bench.told(ToWorker::KeepCopy {
        transfer,
        stage: LOST,
        iteration: T,
        format: F32,
        donor: AFTER,
        addresses,
    });
    let message = ToPeer::Chunk { transfer, index: 0, count: 1, bytes: 8 };
    let payload = Some(Handle(Handle::RECEIVED + 100));
    bench.on(WorkerInput::Peer { from: AFTER, message, payload, began_us: 0 });
    bench.done(1, Outcome::State { digest: COPIED });
    bench
}

fn save_copy(copied: Iteration) -> ToWorker {
    ToWorker::SaveCopy { stage: LOST, iteration: NOW, copied, recipe: Recipe::restore(LOST, F32) }
}

fn unusable(why: &str) -> WorkerCommand {
    report(ToCoordinator::CopyUnusable { stage: LOST, iteration: T, why: why.to_owned() })
}

#[test]
fn what_a_copy_gives_is_written_for_the_lost_stage_once_the_disk_is_free() {
    let mut bench = keeper();
    let task = || Task::Rebuild { stage: LOST, recipe: Recipe::restore(LOST, F32) };
    assert_eq!(bench.told(ToWorker::Save { iteration: T }), [write(2)]);
    assert_eq!(bench.told(save_copy(T)), [compute(3, task(), &[1], &[2])]);
    assert_eq!(bench.told(save_copy(T)), [], "it is under way");
    assert_eq!(bench.done(3, Outcome::State { digest: COPIED }), [], "one write at a time");
    let own = saved(T, DIGEST);
    let of_copy =
        WorkerCommand::Write { id: TaskId(4), stage: LOST, iteration: NOW, digest: COPIED, state: Handle(2) };
    let dropped = WorkerCommand::Drop { handles: vec![Handle(2)] };
    assert_eq!(written(&mut bench, 2), [own, of_copy, dropped]);
    let told = report(ToCoordinator::Saved { stage: LOST, iteration: NOW, digest: COPIED });
    assert_eq!(written(&mut bench, 4), [told]);
    // It is still kept.
    assert_eq!(bench.told(save_copy(T)), [compute(5, task(), &[1], &[3])]);
}

#[test]
fn a_copy_that_is_not_there_can_not_be_saved_and_that_is_said() {
    let mut bench = keeper();
    let other = report(ToCoordinator::CopyUnusable {
        stage: LOST,
        iteration: Iteration(4),
        why: "no copy of stage 2 before iteration 4 is kept".to_owned(),
    });
    assert_eq!(bench.told(save_copy(Iteration(4))), [other]);

    // It is dropped before, or while, it is made into a state.
    bench.told(save_copy(T));
    let commands = bench.told(ToWorker::DropCopy { stage: LOST });
    assert_eq!(commands, [unusable("the copy is kept no longer")], "the task still reads the copy");
    let dropped = WorkerCommand::Drop { handles: vec![Handle(1), Handle(2)] };
    assert_eq!(bench.done(2, Outcome::State { digest: COPIED }), [dropped]);

    let mut bench = keeper();
    bench.told(save_copy(T));
    let commands = bench.done(2, Outcome::Failed { why: "it is broken".to_owned() });
    assert_eq!(commands, [unusable("it is broken")], "and the node goes on");
}
