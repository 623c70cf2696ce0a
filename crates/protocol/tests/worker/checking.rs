//! Computing another node's share again, and sending what others need for that.

use super::*;

const OTHER: NodeId = NodeId(8);

fn read_and_made(read: u8, made: u8) -> Outcome {
    Outcome::Passed(Passed { read: Some(Digest([read; 32])), made: Some(Digest([made; 32])) })
}

fn measured(sum: u8) -> Outcome {
    Outcome::Measured { norm: 2.0, digest: Some(Digest([sum; 32])) }
}

fn with_checks() -> Box<Settings> {
    Box::new(Settings { spot_checks: SpotChecks { every: 1, salt: 0 }, ..*settings() })
}

/// A worker of stage 1 that has nothing of its own to do in the attempt.
fn idle() -> Bench {
    let mut bench = Bench::serving_with(with_checks());
    bench.told(ToWorker::Abort { iteration: T, attempt: Attempt(0) });
    bench
}

/// The commands after a microbatch of one's own, or of another's, was computed: what was sent, and what was said at the end.
fn digests_of_own_share() -> ShareDigests {
    let mut bench = Bench::serving_with(with_checks());
    bench.boundary(BEFORE, 0, Direction::Forward);
    bench.done(1, read_and_made(1, 2));
    bench.boundary(AFTER, 0, Direction::Backward);
    bench.done(2, Outcome::Done);
    bench.boundary(BEFORE, 1, Direction::Forward);
    bench.done(3, read_and_made(5, 6));
    bench.done(4, read_and_made(3, 4));
    bench.boundary(AFTER, 1, Direction::Backward);
    bench.done(5, read_and_made(7, 8));
    let commands = bench.done(6, measured(9));
    let said = commands.iter().find_map(|command| match command {
        WorkerCommand::SendCoordinator {
            message: ToCoordinator::Measured { digests, microbatches: 2, .. },
        } => *digests,
        _ => None,
    });
    said.unwrap_or_else(|| panic!("{commands:?}"))
}

#[test]
fn a_share_that_is_computed_again_has_the_digests_of_the_first() {
    let said = digests_of_own_share();
    assert_eq!(said.sum, Digest([9; 32]));
    let mut bench = idle();
    let attempt = Attempt(1);
    let begin = ToWorker::Begin { iteration: T, attempt, duties: vec![], addresses: vec![] };
    assert_eq!(bench.told(begin), []);
    // The second microbatch's tensors come before the order to check; its gradient even before its activation.
    let arrive = |bench: &mut Bench, from, microbatch, direction| {
        let payload = Handle(bench.next_received);
        bench.next_received += 1;
        let (iteration, microbatch) = (T, Microbatch(microbatch));
        let message = ToPeer::Boundary { iteration, attempt, microbatch, stage: STAGE, direction };
        let began_us = bench.now_us;
        (payload.0, bench.on(WorkerInput::Peer { from, message, payload: Some(payload), began_us }))
    };
    let (_, commands) = arrive(&mut bench, AFTER, 1, Direction::Backward);
    assert_eq!(commands, []);
    let (there1, _) = arrive(&mut bench, BEFORE, 1, Direction::Forward);
    let additions = vec![Addition::Backward(Microbatch(0)), Addition::Backward(Microbatch(1))];
    let check = ToWorker::Check { iteration: T, attempt, of: OTHER, additions };
    assert_eq!(bench.told(check.clone()), [], "it goes in the other's order");
    let (there0, commands) = arrive(&mut bench, BEFORE, 0, Direction::Forward);
    assert_eq!(commands, [], "nothing is begun that would hold a slot and wait");
    let (back0, commands) = arrive(&mut bench, AFTER, 0, Direction::Backward);
    assert_eq!(commands, [compute(1, Task::Forward { microbatch: Microbatch(0) }, &[0, there0], &[1, 2])]);
    assert_eq!(bench.told(check), [], "one check in an attempt");
    let drop =
        |handles: &[u64]| WorkerCommand::Drop { handles: handles.iter().copied().map(Handle).collect() };
    // What would be passed on is passed to nobody.
    assert_eq!(bench.done(1, read_and_made(1, 2)), [drop(&[1]), compute(2, Task::NewSum, &[0], &[3])]);
    let backward = |id, microbatch, inputs: &[u64], made| {
        compute(id, Task::Backward { microbatch: Microbatch(microbatch) }, inputs, &[made])
    };
    assert_eq!(bench.done(2, Outcome::Done), [backward(3, 0, &[0, 2, back0, 3], 4)]);
    let forward = compute(4, Task::Forward { microbatch: Microbatch(1) }, &[0, there1], &[5, 6]);
    assert_eq!(bench.done(3, read_and_made(5, 6)), [drop(&[4]), forward]);
    bench.done(4, read_and_made(3, 4));
    let commands = bench.done(5, read_and_made(7, 8));
    assert!(commands.contains(&compute(6, Task::Measure, &[3], &[])), "{commands:?}");
    let checked = ToCoordinator::Checked { iteration: T, attempt, of: OTHER, digests: said };
    let commands = bench.done(6, measured(9));
    assert!(commands.contains(&report(checked)), "{commands:?}");
    assert!(commands.contains(&drop(&[3])), "the sum is of no use any more: {commands:?}");
}

#[test]
fn what_a_checker_needs_is_sent_now_or_when_it_is_made_and_again_after_a_cut() {
    let mut bench = Bench::serving();
    bench.boundary(BEFORE, 0, Direction::Forward);
    bench.done(1, Outcome::Done);
    let boundaries = vec![(Microbatch(0), Direction::Forward), (Microbatch(0), Direction::Backward)];
    let resend = ToWorker::Resend { iteration: T, attempt: A, to: OTHER, boundaries };
    assert_eq!(bench.told(resend), [send(OTHER, 0, Direction::Forward, 1)]);
    bench.boundary(AFTER, 0, Direction::Backward);
    bench.done(2, Outcome::Done);
    let commands = bench.done(3, Outcome::Done);
    for to in [OTHER, BEFORE] {
        assert!(commands.contains(&send(to, 0, Direction::Backward, 4)), "{commands:?}");
    }
    let again = [send(OTHER, 0, Direction::Forward, 1), send(OTHER, 0, Direction::Backward, 4)];
    assert_eq!(bench.on(WorkerInput::PeerUp { peer: OTHER }), again);
    bench.told(ToWorker::Abort { iteration: T, attempt: A });
    assert_eq!(bench.on(WorkerInput::PeerUp { peer: OTHER }), []);
}

#[test]
fn who_is_given_what_it_checks_goes_on_with_what_came_for_that() {
    let mut bench = idle();
    let attempt = Attempt(1);
    bench.told(ToWorker::Begin { iteration: T, attempt, duties: vec![], addresses: vec![] });
    let additions = vec![Addition::Backward(Microbatch(0)), Addition::Backward(Microbatch(1))];
    bench.told(ToWorker::Check { iteration: T, attempt, of: OTHER, additions });
    let message = |direction| ToPeer::Boundary {
        iteration: T,
        attempt,
        microbatch: Microbatch(0),
        stage: STAGE,
        direction,
    };
    let arrives = |bench: &mut Bench, direction, payload| {
        let (message, payload) = (message(direction), Some(Handle(payload)));
        bench.on(WorkerInput::Peer { from: BEFORE, message, payload, began_us: 0 })
    };
    arrives(&mut bench, Direction::Forward, X);
    let commands = arrives(&mut bench, Direction::Backward, X + 1);
    let forward =
        |id, outputs: &[u64]| compute(id, Task::Forward { microbatch: Microbatch(0) }, &[0, X], outputs);
    assert_eq!(commands, [forward(1, &[1, 2])]);
    // The checked node has died, and the neighbours have heard of it first.
    let commands = arrives(&mut bench, Direction::Forward, X + 2);
    assert_eq!(commands, [WorkerCommand::Drop { handles: vec![Handle(X + 2)] }]);
    bench.told(ToWorker::Fence { nodes: vec![OTHER] });
    let duties = vec![Duty { replay: true, ..duty(0, AFTER) }];
    assert_eq!(bench.told(ToWorker::Reroute { iteration: T, attempt, duties }), []);
    let commands = bench.done(1, Outcome::Done);
    assert_eq!(commands, [WorkerCommand::Drop { handles: vec![Handle(1), Handle(2)] }, forward(2, &[3, 4])]);
    let mut commands = bench.told(ToWorker::Abort { iteration: T, attempt });
    commands.extend(bench.done(2, Outcome::Done));
    let dropped: Vec<_> = commands
        .iter()
        .flat_map(|command| match command {
            WorkerCommand::Drop { handles } => handles.clone(),
            _ => vec![],
        })
        .collect();
    for handle in [X, X + 1] {
        assert!(dropped.contains(&Handle(handle)), "{commands:?}");
    }
}
