//! States that a node hands over, gets, or keeps a copy of.

use super::*;
use skipstone_recovery::StateFormat::F32;

fn holding(commands: &[WorkerCommand]) -> Option<Box<Holding>> {
    commands.iter().find_map(|command| match command {
        WorkerCommand::SendCoordinator { message: ToCoordinator::Hello { holding, .. } } => holding.clone(),
        _ => None,
    })
}

#[test]
fn a_state_that_no_attempt_began_with_counts_for_nobody() {
    let mut bench = Bench::holding(STAGE);
    assert_eq!(holding(&bench.on(WorkerInput::CoordinatorUp)), None);
    bench.told(ToWorker::Begin { iteration: T, attempt: A, duties: vec![], addresses: vec![] });
    assert!(holding(&bench.on(WorkerInput::CoordinatorUp)).is_some());
}

#[test]
fn under_a_new_id_nothing_is_kept_for_transfers_of_the_old_one() {
    let mut bench = Bench::serving();
    let transfer = TransferId { term: Term(1), number: 2 };
    let commands =
        bench.told(ToWorker::Donate { transfer, stage: STAGE, iteration: T, to: AFTER, format: F32 });
    assert_eq!(commands, [compute(1, Task::Freeze { format: F32 }, &[0], &[1])]);
    bench.done(1, Outcome::Frozen { chunks: 3, bytes: 9, rounded: None });
    let message = ToWorker::Welcome { node: NodeId(9), settings: settings(), empty: false };
    let commands = bench.on(WorkerInput::Coordinator { term: Term(2), message });
    assert_eq!(commands, [WorkerCommand::Drop { handles: vec![Handle(1)] }]);

    // The same in the same term: the node was set aside, and came back.
    let mut bench = Bench::serving();
    bench.told(ToWorker::Donate { transfer, stage: STAGE, iteration: T, to: AFTER, format: F32 });
    bench.done(1, Outcome::Frozen { chunks: 3, bytes: 9, rounded: None });
    let commands = bench.told(ToWorker::Welcome { node: NodeId(9), settings: settings(), empty: false });
    assert_eq!(commands, [WorkerCommand::Drop { handles: vec![Handle(1)] }]);
}

fn asks(to: NodeId, transfer: TransferId, index: u32) -> WorkerCommand {
    let message = ToPeer::ChunkRequest { transfer, index };
    WorkerCommand::SendPeer { to, message, payload: None }
}

#[test]
fn a_joiner_goes_on_with_the_chunks_that_are_missing_when_a_donor_is_lost() {
    let mut bench = Bench::new();
    bench.on(WorkerInput::CoordinatorUp);
    bench.told(ToWorker::Welcome { node: ME, settings: settings(), empty: true });
    let transfer = TransferId { term: Term(1), number: 1 };
    let method = Method::Copy { donors: vec![BEFORE, AFTER] };
    let assign = ToWorker::Assign { transfer, stage: STAGE, iteration: T, method, addresses: vec![] };
    assert_eq!(bench.told(assign), [asks(BEFORE, transfer, 0)], "how many there are is not known yet");
    let mut next = Handle::RECEIVED;
    let mut chunk = |bench: &mut Bench, from, index| {
        let message = ToPeer::Chunk { transfer, index, count: 4, bytes: 400 };
        next += 1;
        bench.on(WorkerInput::Peer { from, message, payload: Some(Handle(next)), began_us: 0 })
    };
    let obtained = |chunks, donors| {
        report(ToCoordinator::Obtained { transfer, chunks, chunks_total: 4, bytes_total: 400, donors })
    };
    let commands = chunk(&mut bench, BEFORE, 0);
    let others = [asks(AFTER, transfer, 1), asks(BEFORE, transfer, 2), asks(AFTER, transfer, 3)];
    assert_eq!(commands, [vec![obtained(1, 2)], others.to_vec()].concat());
    assert_eq!(chunk(&mut bench, AFTER, 1), [obtained(2, 2)]);
    // The first donor is lost: only what is missing is asked for, and of the second.
    let commands = bench.told(ToWorker::Fence { nodes: vec![BEFORE] });
    let again = [asks(AFTER, transfer, 2), asks(AFTER, transfer, 3)];
    assert_eq!(commands[..2], again);
    // What was under way before comes all the same, and once is enough.
    assert_eq!(chunk(&mut bench, AFTER, 3), [obtained(3, 1)]);
    assert!(matches!(chunk(&mut bench, AFTER, 3)[..], [WorkerCommand::Drop { .. }]));
    let commands = chunk(&mut bench, AFTER, 2);
    let inputs: Vec<_> = [1, 2, 5, 3].iter().map(|nth| Handle::RECEIVED + nth).collect();
    assert_eq!(
        commands,
        [obtained(4, 1), compute(0, Task::Join { stage: STAGE, format: F32 }, &inputs, &[0])]
    );
    // Without any donor it waits for what the coordinator decides.
    assert_eq!(bench.told(ToWorker::Fence { nodes: vec![AFTER] }).len(), 1);
}

#[test]
fn a_follower_that_gives_up_keeps_nothing_of_what_it_followed() {
    let mut bench = Bench::new();
    bench.on(WorkerInput::CoordinatorUp);
    bench.told(ToWorker::Welcome { node: ME, settings: settings(), empty: true });
    let transfer = TransferId { term: Term(1), number: 1 };
    let method = Method::Copy { donors: vec![BEFORE] };
    bench.told(ToWorker::Assign { transfer, stage: STAGE, iteration: T, method, addresses: vec![] });
    let seal = |iteration| ToWorker::Seal {
        iteration,
        attempt: A,
        reduce: ReduceId { term: Term(1), number: iteration.0 },
        members: vec![BEFORE],
        contributors: vec![BEFORE],
        listeners: vec![ME],
        microbatches: 1,
    };
    let kept = |bench: &Bench, what| {
        let queues = bench.worker.queues();
        queues.iter().find(|queue| queue.what == what).map(|queue| queue.length)
    };
    // No chunk comes, but a gradient in every iteration, until that is too much.
    let mut gave_up = None;
    for number in 0..20 {
        let iteration = Iteration(number);
        bench.told(seal(iteration));
        let reduce = ReduceId { term: Term(1), number };
        let message = ToPeer::Reduced { iteration, attempt: A, reduce, index: 0, count: 1 };
        let payload = Some(Handle(Handle::RECEIVED + number));
        bench.on(WorkerInput::Peer { from: BEFORE, message, payload, began_us: 0 });
        if gave_up.is_none() {
            assert_eq!(kept(&bench, "reductions"), Some(number as usize + 1));
            bench.done(number, Outcome::Gradient { digest: GRADIENT, norm: 1.0 });
        }
        let commands = bench
            .told(ToWorker::Commit { record: std::sync::Arc::new(CommitRecord { iteration, ..record() }) });
        let fails = |command: &WorkerCommand| {
            matches!(
                command,
                WorkerCommand::SendCoordinator { message: ToCoordinator::TransferFailed { .. } }
            )
        };
        if commands.iter().any(fails) {
            gave_up = Some(number);
        }
        if gave_up.is_some() {
            assert_eq!(kept(&bench, "reductions"), Some(0), "in {iteration}");
            assert_eq!(kept(&bench, "reduced gradients"), Some(0), "in {iteration}");
        }
        assert!(bench.worker.queues().iter().all(|queue| queue.length <= queue.bound), "in {iteration}");
    }
    assert_eq!(gave_up, Some(8));
}

#[test]
fn a_copy_of_another_stage_is_pulled_kept_and_handed_on() {
    let mut bench = Bench::serving();
    let (transfer, stage) = (TransferId { term: Term(1), number: 2 }, StageId(2));
    let ask =
        ToWorker::KeepCopy { transfer, stage, iteration: T, format: F32, donor: AFTER, addresses: vec![] };
    let request = |index| WorkerCommand::SendPeer {
        to: AFTER,
        message: ToPeer::ChunkRequest { transfer, index },
        payload: None,
    };
    assert_eq!(bench.told(ask), [request(0)]);
    let chunk = |bench: &mut Bench, index| {
        let payload = Handle(Handle::RECEIVED + 100 + u64::from(index));
        let message = ToPeer::Chunk { transfer, index, count: 2, bytes: 8 };
        bench.on(WorkerInput::Peer { from: AFTER, message, payload: Some(payload), began_us: 0 })
    };
    assert_eq!(chunk(&mut bench, 0), [request(1)]);
    let received = |index: u64| Handle::RECEIVED + 100 + index;
    let join = compute(1, Task::Join { stage, format: F32 }, &[received(0), received(1)], &[1]);
    assert_eq!(chunk(&mut bench, 1), [join]);
    let digest = Digest([5; 32]);
    let commands = bench.done(1, Outcome::State { digest });
    let kept = report(ToCoordinator::CopyKept { transfer, stage, iteration: T, digest });
    let dropped = WorkerCommand::Drop { handles: vec![Handle(received(0)), Handle(received(1))] };
    assert_eq!(commands, [kept, dropped]);

    // It is told of after a return, and given to whoever rebuilds the stage.
    let hello = bench.on(WorkerInput::CoordinatorUp);
    let [WorkerCommand::SendCoordinator { message: ToCoordinator::Hello { holding: Some(holding), .. } }] =
        &hello[..]
    else {
        panic!("{hello:?}")
    };
    assert_eq!(holding.copies, [KeptCopy { stage, iteration: T, digest }]);
    let next = TransferId { term: Term(1), number: 3 };
    let donate = |iteration| ToWorker::Donate { transfer: next, stage, iteration, to: BEFORE, format: F32 };
    assert_eq!(bench.told(donate(T)), [compute(2, Task::Freeze { format: F32 }, &[1], &[2])]);
    let commands = bench.told(donate(Iteration(4)));
    assert!(
        matches!(&commands[..], [WorkerCommand::SendCoordinator {
            message: ToCoordinator::TransferFailed { transfer, .. }
        }] if *transfer == next),
        "{commands:?}"
    );
    bench.done(2, Outcome::Frozen { chunks: 2, bytes: 8, rounded: None });
    assert_eq!(bench.told(ToWorker::DropCopy { stage }), [WorkerCommand::Drop { handles: vec![Handle(1)] }]);
}
