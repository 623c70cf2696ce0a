//! The exact commands of a worker, step by step.

mod checking;
mod giving_up;
mod lessons;
mod saving;
mod slots;
mod transfers;

use skipstone_protocol::*;
use skipstone_types::*;

fn settings() -> Box<Settings> {
    Box::new(Settings {
        run: RunId(7),
        seed: 1,
        relay_stages: 2,
        origin_like_relay: false,
        origin_has_layers: false,
        replicas: 1,
        spares: 0,
        microbatches: 2,
        steps: 10,
        skip: 0.0,
        full_every: 0,
        full_last: 0,
        slots: 1,
        while_lost: WhileLost::Skip,
        recovery: "checkfree".to_owned(),
        clip_norm_max: 1.0,
        learning_rate: LearningRate {
            peak: 1e-3,
            floor: 0.0,
            warmup_iterations: 0,
            total_iterations: 10,
            shape: RateShape::Constant,
        },
        save_every_iterations: 0,
        deterministic: false,
        respawn: true,
        stage_replicas: Vec::new(),
        places: false,
        edge_swaps: skipstone_types::EdgeSwaps::Off,
        spot_checks: skipstone_types::SpotChecks::OFF,
    })
}

const ME: NodeId = NodeId(5);
const BEFORE: NodeId = NodeId(1);
const AFTER: NodeId = NodeId(3);
const STAGE: StageId = StageId(1);
const T: Iteration = Iteration(0);
const A: Attempt = Attempt(0);

struct Bench {
    worker: Worker,
    now_us: u64,
    next_received: u64,
}

impl Bench {
    /// A worker that has made the first state of a stage.
    fn holding(stage: StageId) -> Self {
        let mut bench = Self::new();
        bench.told(ToWorker::Welcome { node: ME, settings: settings(), empty: true });
        bench.told(ToWorker::Assign {
            transfer: TransferId { term: Term(1), number: 1 },
            stage,
            iteration: T,
            method: Method::Initialise,
            addresses: vec![],
        });
        bench.done(0, Outcome::State { digest: Digest([1; 32]) });
        bench
    }

    fn new() -> Self {
        Self {
            worker: Worker::new(RunId(7), "here:1".to_owned(), 0),
            now_us: 0,
            next_received: Handle::RECEIVED,
        }
    }

    fn on(&mut self, input: WorkerInput) -> Vec<WorkerCommand> {
        self.now_us += 10;
        self.worker.on(input, self.now_us)
    }

    fn told(&mut self, message: ToWorker) -> Vec<WorkerCommand> {
        self.on(WorkerInput::Coordinator { term: Term(1), message })
    }

    fn boundary(
        &mut self,
        from: NodeId,
        microbatch: u32,
        direction: Direction,
    ) -> (Handle, Vec<WorkerCommand>) {
        let payload = Handle(self.next_received);
        self.next_received += 1;
        let message = ToPeer::Boundary {
            iteration: T,
            attempt: A,
            microbatch: Microbatch(microbatch),
            stage: STAGE,
            direction,
        };
        let began_us = self.now_us;
        (payload, self.on(WorkerInput::Peer { from, message, payload: Some(payload), began_us }))
    }

    fn done(&mut self, id: u64, outcome: Outcome) -> Vec<WorkerCommand> {
        self.on(WorkerInput::Computed { id: TaskId(id), outcome })
    }

    /// A worker that serves stage 1 with two microbatches to do.
    fn serving() -> Self {
        Self::serving_with(settings())
    }

    fn serving_with(settings: Box<Settings>) -> Self {
        let mut bench = Self::new();
        bench.on(WorkerInput::CoordinatorUp);
        bench.told(ToWorker::Welcome { node: ME, settings, empty: true });
        let transfer = TransferId { term: Term(1), number: 1 };
        let commands = bench.told(ToWorker::Assign {
            transfer,
            stage: STAGE,
            iteration: T,
            method: Method::Initialise,
            addresses: vec![],
        });
        assert_eq!(commands, [compute(0, Task::Initialise { stage: STAGE }, &[], &[0])]);
        let commands = bench.done(0, Outcome::State { digest: Digest([1; 32]) });
        assert_eq!(
            commands,
            [report(ToCoordinator::Holds {
                transfer: Some(transfer),
                stage: STAGE,
                iteration: T,
                digest: Digest([1; 32])
            })]
        );
        let commands = bench.told(ToWorker::Begin {
            iteration: T,
            attempt: A,
            duties: vec![duty(0, AFTER), duty(1, AFTER)],
            addresses: vec![(AFTER, "there:3".to_owned())],
        });
        assert_eq!(commands, [WorkerCommand::Know { addresses: vec![(AFTER, "there:3".to_owned())] }]);
        bench
    }
}

fn duty(microbatch: u32, next: NodeId) -> Duty {
    Duty {
        microbatch: Microbatch(microbatch),
        counted: true,
        replay: false,
        goes_back: false,
        previous: BEFORE,
        next,
    }
}

fn compute(id: u64, task: Task, inputs: &[u64], outputs: &[u64]) -> WorkerCommand {
    WorkerCommand::Compute {
        id: TaskId(id),
        task,
        inputs: inputs.iter().copied().map(Handle).collect(),
        outputs: outputs.iter().copied().map(Handle).collect(),
    }
}

fn report(message: ToCoordinator) -> WorkerCommand {
    WorkerCommand::SendCoordinator { message }
}

fn send(to: NodeId, microbatch: u32, direction: Direction, payload: u64) -> WorkerCommand {
    let message = ToPeer::Boundary {
        iteration: T,
        attempt: A,
        microbatch: Microbatch(microbatch),
        stage: STAGE,
        direction,
    };
    WorkerCommand::SendPeer { to, message, payload: Some(Handle(payload)) }
}

const X: u64 = Handle::RECEIVED;

#[test]
fn a_microbatch_goes_through_and_its_share_is_reported() {
    let mut bench = Bench::serving();
    let forward = Task::Forward { microbatch: Microbatch(0) };
    assert_eq!(bench.boundary(BEFORE, 0, Direction::Forward).1, [compute(1, forward, &[0, X], &[1, 2])]);
    // The activation is passed on; what it was made from is dropped.
    assert_eq!(
        bench.done(1, Outcome::Done),
        [send(AFTER, 0, Direction::Forward, 1), WorkerCommand::Drop { handles: vec![Handle(X)] }]
    );
    // One slot: the second microbatch has to wait, until the first has gone back.
    assert_eq!(bench.boundary(BEFORE, 1, Direction::Forward).1, []);
    // The first backward needs a sum to add to.
    assert_eq!(bench.boundary(AFTER, 0, Direction::Backward).1, [compute(2, Task::NewSum, &[0], &[3])]);
    let backward = Task::Backward { microbatch: Microbatch(0) };
    assert_eq!(bench.done(2, Outcome::Done), [compute(3, backward, &[0, 2, X + 2, 3], &[4])]);
    let second = Task::Forward { microbatch: Microbatch(1) };
    assert_eq!(
        bench.done(3, Outcome::Done),
        [
            send(BEFORE, 0, Direction::Backward, 4),
            report(ToCoordinator::ShareDone {
                iteration: T,
                attempt: A,
                microbatch: Microbatch(0),
                loss: None
            }),
            WorkerCommand::Drop { handles: vec![Handle(X + 2)] },
            compute(4, second, &[0, X + 1], &[5, 6]),
        ]
    );
}

#[test]
fn second_copies_and_old_attempts_count_for_nothing() {
    let mut bench = Bench::serving();
    bench.boundary(BEFORE, 0, Direction::Forward);
    bench.done(1, Outcome::Done);
    let (copy, commands) = bench.boundary(BEFORE, 0, Direction::Forward);
    assert_eq!(commands, [WorkerCommand::Drop { handles: vec![copy] }]);
    let commands = bench.told(ToWorker::Abort { iteration: T, attempt: A });
    assert_eq!(commands, [WorkerCommand::Drop { handles: vec![Handle(1), Handle(2)] }]);
    let (old, commands) = bench.boundary(BEFORE, 1, Direction::Forward);
    assert_eq!(commands, [WorkerCommand::Drop { handles: vec![old] }]);
}

#[test]
fn a_new_neighbour_is_sent_what_the_old_one_had() {
    let mut bench = Bench::serving();
    bench.boundary(BEFORE, 0, Direction::Forward);
    bench.done(1, Outcome::Done);
    let heir = NodeId(9);
    let reroute = ToWorker::Reroute { iteration: T, attempt: A, duties: vec![duty(0, heir)] };
    assert_eq!(bench.told(reroute), [send(heir, 0, Direction::Forward, 1)]);
    // And again after its connection broke.
    assert_eq!(bench.on(WorkerInput::PeerUp { peer: heir }), [send(heir, 0, Direction::Forward, 1)]);
    assert_eq!(bench.on(WorkerInput::PeerUp { peer: AFTER }), []);
}

#[test]
fn frames_that_come_before_their_attempt_are_kept_for_it() {
    let mut bench = Bench::serving();
    let message = ToPeer::Boundary {
        iteration: T,
        attempt: Attempt(1),
        microbatch: Microbatch(0),
        stage: StageId(0),
        direction: Direction::Forward,
    };
    let early = WorkerInput::Peer { from: BEFORE, message, payload: Some(Handle(X)), began_us: 0 };
    assert_eq!(bench.on(early), []);
    let begin = ToWorker::Begin {
        iteration: T,
        attempt: Attempt(1),
        duties: vec![duty(0, AFTER)],
        addresses: vec![],
    };
    let forward = Task::Forward { microbatch: Microbatch(0) };
    assert_eq!(bench.told(begin), [compute(1, forward, &[0, X], &[1, 2])]);
}

#[test]
fn lower_terms_and_fenced_nodes_are_not_heard() {
    let mut bench = Bench::serving();
    bench.on(WorkerInput::Coordinator { term: Term(2), message: ToWorker::Fence { nodes: vec![BEFORE] } });
    let (frame, commands) = bench.boundary(BEFORE, 0, Direction::Forward);
    assert_eq!(commands, [WorkerCommand::Drop { handles: vec![frame] }]);
    assert_eq!(bench.told(ToWorker::Finish), [], "term 1 is over");
    let finish = WorkerInput::Coordinator { term: Term(2), message: ToWorker::Finish };
    assert!(matches!(bench.on(finish)[..], [WorkerCommand::Exit { success: true, .. }]));
}

#[test]
fn the_loss_needs_no_slot() {
    // An origin that replays another's share: activations may come before its own embedding has a slot.
    let mut bench = Bench::holding(StageId::ORIGIN);
    let duties = vec![duty(0, AFTER), duty(1, AFTER)];
    let commands = bench.told(ToWorker::Begin { iteration: T, attempt: A, duties, addresses: vec![] });
    let embed = Task::Embed { iteration: T, microbatch: Microbatch(0) };
    assert_eq!(commands, [compute(1, embed, &[0], &[1, 2])]);
    let commands = bench.done(1, Outcome::Done);
    assert_eq!(commands.len(), 1, "the only slot is taken: {commands:?}");
    let (payload, commands) = bench.boundary(BEFORE, 1, Direction::Forward);
    assert_eq!(commands, [compute(2, Task::NewSum, &[0], &[3])]);
    let commands = bench.done(2, Outcome::Done);
    let loss = Task::Loss { iteration: T, microbatch: Microbatch(1) };
    assert_eq!(commands, [compute(3, loss, &[0, payload.0, 3], &[4])]);
}

/// Takes the serving worker's first microbatch through, and its gradient through the reduction.
fn reduced(bench: &mut Bench) -> Vec<WorkerCommand> {
    bench.boundary(BEFORE, 0, Direction::Forward);
    bench.done(1, Outcome::Done);
    bench.boundary(AFTER, 0, Direction::Backward);
    bench.done(2, Outcome::Done);
    bench.done(3, Outcome::Done);
    bench.told(ToWorker::Seal {
        iteration: T,
        attempt: A,
        reduce: ReduceId { term: Term(1), number: 1 },
        members: vec![ME],
        contributors: vec![ME],
        listeners: vec![],
        microbatches: 1,
    });
    bench.done(4, Outcome::Done);
    bench.done(5, Outcome::Done);
    bench.done(6, Outcome::Gradient { digest: GRADIENT, norm: 1.0 })
}

const GRADIENT: Digest = Digest([7; 32]);

/// The commit of what [`reduced`] made.
fn record() -> CommitRecord {
    let part = |stage, gradient| StageRecord {
        stage: StageId(stage),
        members: vec![ME],
        shares: vec![],
        gradient,
        gradient_norm: 1.0,
        clip_factor: 1.0,
        step: true,
        state: None,
        lineage: 0,
    };
    CommitRecord {
        run: RunId(7),
        term: Term(1),
        generation: 0,
        iteration: T,
        attempt: A,
        plan_epoch: PlanEpoch(1),
        paths: vec![],
        stages: vec![part(0, Digest::default()), part(1, GRADIENT)],
        loss_sum: 0.0,
        tokens: 0,
        learning_rate: 0.5,
        previous: Digest::default(),
    }
}

fn spent(commands: &[WorkerCommand]) -> Option<Spent> {
    commands.iter().find_map(|command| match command {
        WorkerCommand::SendCoordinator { message: ToCoordinator::Reduced { spent, .. } } => Some(*spent),
        _ => None,
    })
}

#[test]
fn work_and_waits_are_reported_with_the_gradient_and_the_step_with_the_next() {
    let mut bench = Bench::serving();
    // Two tensors were on the wire for 10 µs each while it was idle; six tasks of 10 µs each, two of them
    // a microbatch's.
    let first = Spent { busy_us: 60, replay_us: 0, fixed_us: 40, memory_wait_us: 0, link_us: 20 };
    assert_eq!(spent(&reduced(&mut bench)), Some(first));
    bench.told(ToWorker::Commit { record: std::sync::Arc::new(record()) });
    let next =
        ToWorker::Begin { iteration: T.next(), attempt: A, duties: vec![duty(0, AFTER)], addresses: vec![] };
    bench.told(next);
    // Its step took from the commit until now, 20 µs; then nothing is left but to follow a reduction without a share.
    bench.done(7, Outcome::State { digest: Digest([2; 32]) });
    let reduce = ReduceId { term: Term(1), number: 2 };
    bench.told(ToWorker::Seal {
        iteration: T.next(),
        attempt: A,
        reduce,
        members: vec![ME, AFTER],
        contributors: vec![AFTER],
        listeners: vec![],
        microbatches: 1,
    });
    let part = ToPeer::Part { iteration: T.next(), attempt: A, reduce, index: 0 };
    let payload = Some(Handle(X + 10));
    // It was on the wire before the wait began: only the wait counts, from the step's end to the tensor, 20 µs.
    bench.on(WorkerInput::Peer { from: AFTER, message: part, payload, began_us: 0 });
    let whole = ToPeer::Reduced { iteration: T.next(), attempt: A, reduce, index: 1, count: 2 };
    // Its sum runs while the other part is on its way: it does not wait.
    bench.on(WorkerInput::Peer { from: AFTER, message: whole, payload: Some(Handle(X + 11)), began_us: 0 });
    bench.done(8, Outcome::Done);
    let commands = bench.done(9, Outcome::Gradient { digest: GRADIENT, norm: 1.0 });
    let second = Spent { busy_us: 20 + 20 + 10, replay_us: 0, fixed_us: 50, memory_wait_us: 0, link_us: 20 };
    assert_eq!(spent(&commands), Some(second));
}

#[test]
fn a_node_that_returns_steps_first_and_then_confirms_what_it_holds() {
    let mut bench = Bench::serving();
    reduced(&mut bench);
    let record = record();
    // It was fenced before it heard of the commit, and comes back under a new id.
    bench.told(ToWorker::Welcome { node: NodeId(9), settings: settings(), empty: false });
    bench.told(ToWorker::Commit { record: std::sync::Arc::new(record.clone()) });
    let transfer = TransferId { term: Term(1), number: 9 };
    let (stage, iteration) = (STAGE, Iteration(4));
    let commands =
        bench.told(ToWorker::Assign { transfer, stage, iteration, method: Method::Keep, addresses: vec![] });
    assert_eq!(commands, [], "its last step is under way");
    let digest = Digest([2; 32]);
    let commands = bench.done(7, Outcome::State { digest });
    let confirmed = ToCoordinator::Holds { transfer: Some(transfer), stage, iteration, digest };
    assert!(commands.contains(&report(confirmed)), "{commands:?}");
    // A coordinator that did not hear of the step tells of the commit again.
    let commands = bench.told(ToWorker::Commit { record: std::sync::Arc::new(record) });
    let again = ToCoordinator::Holds { transfer: None, stage, iteration, digest };
    assert_eq!(commands, [report(again)]);
}

#[test]
fn a_deterministic_run_keeps_the_order_until_a_node_is_lost() {
    let mut settings = settings();
    settings.deterministic = true;
    settings.slots = 2;
    let mut bench = Bench::serving_with(settings.clone());
    let (later, commands) = bench.boundary(BEFORE, 1, Direction::Forward);
    assert_eq!(commands, [], "microbatch 0 is first");
    let (_, commands) = bench.boundary(BEFORE, 0, Direction::Forward);
    assert!(
        matches!(&commands[..], [WorkerCommand::Compute { task: Task::Forward { microbatch }, .. }]
            if microbatch.0 == 0),
        "{commands:?}"
    );
    let commands = bench.done(1, Outcome::Done);
    assert!(commands.iter().any(|command| matches!(command,
        WorkerCommand::Compute { task: Task::Forward { microbatch }, inputs, .. }
            if microbatch.0 == 1 && inputs[1] == later)));
    bench.done(2, Outcome::Done);
    let (_, commands) = bench.boundary(AFTER, 1, Direction::Backward);
    assert_eq!(commands, [], "its gradient is added second");
    let commands = bench.told(ToWorker::Fence { nodes: vec![NodeId(9)] });
    let starts =
        |command: &WorkerCommand| matches!(command, WorkerCommand::Compute { task: Task::NewSum, .. });
    assert!(commands.iter().any(starts), "no order is kept any more: {commands:?}");
}

#[test]
fn a_worker_says_what_it_is_at() {
    let mut bench = Bench::serving();
    let answer =
        |task, duty| [WorkerCommand::SendCoordinator { message: ToCoordinator::Computing { task, duty } }];
    assert_eq!(bench.told(ToWorker::Poll), answer(None, false));
    bench.boundary(BEFORE, 0, Direction::Forward);
    assert_eq!(bench.told(ToWorker::Poll), answer(Some(1), true));
    assert_eq!(bench.told(ToWorker::Poll), answer(Some(1), true), "asking changes nothing");
    bench.done(1, Outcome::Done);
    bench.told(ToWorker::Save { iteration: T });
    assert_eq!(bench.told(ToWorker::Poll), answer(None, false), "a write is no task");
}

#[test]
fn a_task_that_does_not_end_holds_up_no_drops_but_those_of_what_it_reads() {
    let mut bench = Bench::serving();
    let (first, _) = bench.boundary(BEFORE, 0, Direction::Forward);
    let (second, commands) = bench.boundary(BEFORE, 1, Direction::Forward);
    assert_eq!(commands, [], "the first is under way");
    let commands = bench.told(ToWorker::Abort { iteration: T, attempt: A });
    assert_eq!(commands, [WorkerCommand::Drop { handles: vec![second] }]);
    let commands = bench.done(1, Outcome::Done);
    let Some(WorkerCommand::Drop { handles }) = commands.first() else { panic!("{commands:?}") };
    assert!(handles.contains(&first), "{commands:?}");
}

#[test]
fn a_worker_that_is_to_leave_says_so_to_everyone_who_takes_it_in_and_goes_when_it_may() {
    let mut bench = Bench::new();
    assert_eq!(bench.on(WorkerInput::Leave), [], "it is nobody yet");
    let says = WorkerCommand::SendCoordinator { message: ToCoordinator::Leaving };
    let welcome = || ToWorker::Welcome { node: ME, settings: settings(), empty: true };
    assert_eq!(bench.told(welcome()), std::slice::from_ref(&says));
    assert_eq!(bench.on(WorkerInput::Leave), [], "once is enough");
    assert_eq!(bench.told(welcome()), [says]);
    let exit = WorkerCommand::Exit { why: "left".to_owned(), success: true };
    assert_eq!(bench.told(ToWorker::Leave), [exit]);

    let mut bench = Bench::serving();
    let says = WorkerCommand::SendCoordinator { message: ToCoordinator::Leaving };
    assert_eq!(bench.on(WorkerInput::Leave), [says]);
    let (payload, commands) = bench.boundary(BEFORE, 0, Direction::Forward);
    let forward = Task::Forward { microbatch: Microbatch(0) };
    assert_eq!(commands, [compute(1, forward, &[0, payload.0], &[1, 2])], "it works on");
}

#[test]
fn a_complete_share_is_measured_and_once_more_when_it_grows() {
    let mut bench = Bench::holding(STAGE);
    let begin = ToWorker::Begin { iteration: T, attempt: A, duties: vec![duty(0, AFTER)], addresses: vec![] };
    bench.told(begin);
    bench.boundary(BEFORE, 0, Direction::Forward);
    bench.done(1, Outcome::Done);
    bench.boundary(AFTER, 0, Direction::Backward);
    bench.done(2, Outcome::Done);
    let commands = bench.done(3, Outcome::Done);
    assert!(commands.contains(&compute(4, Task::Measure, &[3], &[])), "{commands:?}");
    let measured = |microbatches, norm| {
        report(ToCoordinator::Measured { iteration: T, attempt: A, microbatches, norm, digests: None })
    };
    assert!(bench.done(4, Outcome::Measured { norm: 2.5, digest: None }).contains(&measured(1, 2.5)));
    // A refused node's microbatch comes here.
    let more = Duty { replay: true, ..duty(1, AFTER) };
    bench.told(ToWorker::Reroute { iteration: T, attempt: A, duties: vec![more] });
    bench.boundary(BEFORE, 1, Direction::Forward);
    bench.done(5, Outcome::Done);
    bench.boundary(AFTER, 1, Direction::Backward);
    let commands = bench.done(6, Outcome::Done);
    assert!(commands.contains(&compute(7, Task::Measure, &[3], &[])), "{commands:?}");
    assert!(bench.done(7, Outcome::Measured { norm: 4.5, digest: None }).contains(&measured(2, 4.5)));
}

#[test]
fn what_is_under_way_of_iterations_that_a_returning_node_skips_is_dropped() {
    let mut bench = Bench::serving();
    bench.boundary(BEFORE, 0, Direction::Forward);
    bench.done(1, Outcome::Done);
    bench.boundary(AFTER, 0, Direction::Backward);
    bench.done(2, Outcome::Done);
    bench.done(3, Outcome::Done);
    // Its sum is being cut into two parts as it is lost.
    let commands = bench.told(ToWorker::Seal {
        iteration: T,
        attempt: A,
        reduce: ReduceId { term: Term(1), number: 1 },
        members: vec![ME, AFTER],
        contributors: vec![ME, AFTER],
        listeners: vec![],
        microbatches: 1,
    });
    let part = commands.iter().find_map(|command| match command {
        WorkerCommand::Compute { id, task: Task::Part { index: 0, count: 2 }, .. } => Some(id.0),
        _ => None,
    });
    bench.told(ToWorker::Welcome { node: NodeId(9), settings: settings(), empty: false });
    // Nothing reached its stage in what was decided meanwhile: what it holds is as good for a later iteration.
    let transfer = TransferId { term: Term(1), number: 9 };
    let iteration = T.next().next();
    bench.told(ToWorker::Assign {
        transfer,
        stage: STAGE,
        iteration,
        method: Method::Keep,
        addresses: vec![],
    });
    bench.told(ToWorker::Begin { iteration, attempt: A, duties: vec![duty(0, AFTER)], addresses: vec![] });
    let commands = bench.done(part.expect("a part"), Outcome::Done);
    let goes_on = commands
        .iter()
        .any(|command| matches!(command, WorkerCommand::Compute { .. } | WorkerCommand::SendPeer { .. }));
    assert!(!goes_on, "the sum is gone: {commands:?}");
}
