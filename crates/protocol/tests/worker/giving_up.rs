//! Microbatches that a replica takes over.

use super::*;

fn give_up(bench: &mut Bench, most: u32) -> Vec<WorkerCommand> {
    bench.told(ToWorker::GiveUp { iteration: T, attempt: A, microbatches_max: most })
}

fn gave_up(microbatches: &[u32]) -> WorkerCommand {
    let microbatches = microbatches.iter().copied().map(Microbatch).collect();
    report(ToCoordinator::GaveUp { iteration: T, attempt: A, microbatches })
}

#[test]
fn only_what_waits_here_and_is_not_in_the_sum_is_given_up() {
    let mut bench = Bench::serving();
    assert_eq!(give_up(&mut bench, 9), [gave_up(&[])], "both wait for their activations");
    bench.boundary(BEFORE, 0, Direction::Forward);
    bench.done(1, Outcome::Done);
    let (second, _) = bench.boundary(BEFORE, 1, Direction::Forward);
    // The first waits for its gradient, the second for the slot.
    let dropped = WorkerCommand::Drop { handles: vec![second] };
    assert_eq!(give_up(&mut bench, 9), [gave_up(&[1]), dropped]);
    // Once its backward has begun, the first is not to be had.
    bench.boundary(AFTER, 0, Direction::Backward);
    bench.done(2, Outcome::Done);
    assert_eq!(give_up(&mut bench, 9), [gave_up(&[])]);
    // The share is complete without the second, and measured as such.
    let commands = bench.done(3, Outcome::Done);
    let measure = compute(4, Task::Measure, &[3], &[]);
    assert!(commands.contains(&measure), "{commands:?}");
    let measured =
        ToCoordinator::Measured { iteration: T, attempt: A, microbatches: 1, norm: 2.0, digests: None };
    assert_eq!(bench.done(4, Outcome::Measured { norm: 2.0, digest: None }), [report(measured)]);
}

#[test]
fn a_forward_under_way_is_given_up_and_comes_to_nothing() {
    let mut bench = Bench::serving();
    bench.boundary(BEFORE, 0, Direction::Forward);
    assert_eq!(give_up(&mut bench, 9), [gave_up(&[0])]);
    // Its input is dropped when the task no longer reads it, and its outputs at once.
    let commands = bench.done(1, Outcome::Done);
    assert_eq!(commands, [WorkerCommand::Drop { handles: vec![Handle(X), Handle(1), Handle(2)] }]);
    // What still comes is kept until the attempt ends: the duty may come back.
    let (late, commands) = bench.boundary(AFTER, 0, Direction::Backward);
    assert_eq!(commands, []);
    let commands = bench.told(ToWorker::Abort { iteration: T, attempt: A });
    let dropped = |command: &WorkerCommand| matches!(command, WorkerCommand::Drop { handles } if handles.contains(&late));
    assert!(commands.iter().any(dropped), "{commands:?}");
}

#[test]
fn what_was_given_up_comes_back_only_as_a_replay() {
    let mut bench = Bench::serving();
    bench.boundary(BEFORE, 0, Direction::Forward);
    assert_eq!(give_up(&mut bench, 1), [gave_up(&[0])]);
    bench.done(1, Outcome::Done);
    // Sent before the coordinator heard of it.
    let crossing = ToWorker::Reroute { iteration: T, attempt: A, duties: vec![duty(0, NodeId(9))] };
    assert_eq!(bench.told(crossing), []);
    // The heir is lost. What the neighbour sends again may be faster than the order, and is not sent a third time.
    let (input, commands) = bench.boundary(BEFORE, 0, Direction::Forward);
    assert_eq!(commands, []);
    let anew = Duty { replay: true, ..duty(0, NodeId(9)) };
    let commands = bench.told(ToWorker::Reroute { iteration: T, attempt: A, duties: vec![anew] });
    let forward = Task::Forward { microbatch: Microbatch(0) };
    assert_eq!(commands, [compute(2, forward, &[0, input.0], &[3, 4])]);
    // A replay has moved once, and stays.
    assert_eq!(give_up(&mut bench, 9), [gave_up(&[])]);
}
