//! Messages between coordinator, workers and peers (`skipstone-protocol`, `wire`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, journal, lost, refused, same, within};
use skipstone_protocol::{
    Addition, Direction, Duty, Envelope, Holding, KeptCopy, KeptTensor, LossShare, Message, Method, ReduceId,
    ShareDigests, Spent, ToCoordinator, ToPeer, ToWorker, TransferId, WIRE_VERSION, decode, encode,
};
use skipstone_recovery::{Lesson, Matching, Moments, Recipe, Retraced, Retracing, Source, StateFormat};
use skipstone_types::{
    Attempt, Digest, Iteration, LearningRate, Microbatch, NodeId, RateShape, RunId, Settings, StageId, Term,
    WhileLost,
};
use std::fmt::Debug;

/// The run that messages belong to.
const RUN: RunId = RunId(7);

/// A list takes 1 MiB at most before its elements have been seen, and lists nest three deep; an element takes at most
/// 64 times its bytes.
fn memory_max(input: usize) -> usize {
    (4 << 20) + 64 * input
}

pub(crate) const TO_WORKER: Reader =
    reader("to_worker", "messages of the coordinator", read::<ToWorker>, to_worker);
pub(crate) const TO_COORDINATOR: Reader =
    reader("to_coordinator", "messages of a worker", read::<ToCoordinator>, to_coordinator);
pub(crate) const TO_PEER: Reader = reader("to_peer", "messages of a peer", read::<ToPeer>, to_peer);

const fn reader(
    name: &'static str,
    what: &'static str,
    read: fn(&[u8]) -> Result<Verdict, Broken>,
    seeds: fn() -> Result<Vec<Seed>, SeedError>,
) -> Reader {
    Reader { name, what, text: false, memory_max, read, mend: None, seeds }
}

fn read<M: Message + Debug>(bytes: &[u8]) -> Result<Verdict, Broken> {
    let envelope = match within(memory_max(bytes.len()), bytes, || decode::<M>(bytes, RUN))? {
        Ok(envelope) => envelope,
        Err(why) => return refused(why),
    };
    // Bytes are compared, not values: a NaN is not equal to itself.
    let once = encode(&envelope).map_err(lost)?;
    let again = encode(&decode::<M>(&once, RUN).map_err(lost)?).map_err(lost)?;
    same(&once, &again)
}

fn all<M: Message>(messages: Vec<(&str, M)>) -> Result<Vec<Seed>, SeedError> {
    let envelope =
        |message| Envelope { version: WIRE_VERSION, run: RUN, term: Term(2), sender: NodeId(3), message };
    messages.into_iter().map(|(name, message)| Ok((name.to_owned(), encode(&envelope(message))?))).collect()
}

fn transfer() -> TransferId {
    TransferId { term: Term(2), number: 5 }
}

fn reduce() -> ReduceId {
    ReduceId { term: Term(2), number: 9 }
}

pub(crate) fn recipe() -> Recipe {
    let source = |stage, coefficient| Source { stage: StageId(stage), coefficient };
    Recipe {
        sources: vec![source(1, 0.5), source(3, 0.5)],
        moments: Moments::Mix,
        learning_rate_factor: 1.1,
        format: StateFormat::F32,
        matching: Some(Matching { steps: 40, rate: 5e-3, lessons: vec![lesson(), lesson()] }),
        retracing: Some(Retracing {
            copy: Digest([7; 32]),
            iterations: vec![Retraced {
                iteration: Iteration(3),
                lineage: 1,
                shares: vec![vec![Microbatch(1), Microbatch(0)], vec![Microbatch(2)]],
                learning_rate: 1e-3,
                clip_factor: 0.5,
            }],
        }),
    }
}

fn lesson() -> Lesson {
    Lesson { iteration: Iteration(3), microbatch: Microbatch(1) }
}

fn settings() -> Settings {
    Settings {
        run: RUN,
        seed: 1,
        relay_stages: 4,
        origin_like_relay: false,
        origin_has_layers: false,
        replicas: 2,
        spares: 1,
        microbatches: 8,
        steps: 100,
        skip: 0.25,
        full_every: 10,
        full_last: 20,
        slots: 4,
        while_lost: WhileLost::Skip,
        recovery: "checkfree".to_owned(),
        clip_norm_max: 1.0,
        learning_rate: LearningRate {
            peak: 1e-3,
            floor: 1e-4,
            warmup_iterations: 5,
            total_iterations: 100,
            shape: RateShape::Cosine,
        },
        save_every_iterations: 0,
        deterministic: true,
        respawn: true,
        stage_replicas: Vec::new(),
        places: false,
        edge_swaps: skipstone_types::EdgeSwaps::Odd,
        spot_checks: skipstone_types::SpotChecks { every: 100, salt: 7 },
    }
}

fn to_worker() -> Result<Vec<Seed>, SeedError> {
    let (iteration, attempt) = (Iteration(4), Attempt(1));
    let addresses =
        vec![(NodeId(3), "7f@127.0.0.1:4001".to_owned()), (NodeId(4), "80@127.0.0.1:4002".to_owned())];
    let duty = |microbatch| Duty {
        microbatch: Microbatch(microbatch),
        counted: true,
        replay: false,
        goes_back: microbatch == 1,
        previous: NodeId(3),
        next: NodeId(4),
    };
    let assign = |method| ToWorker::Assign {
        transfer: transfer(),
        stage: StageId(2),
        iteration,
        method,
        addresses: addresses.clone(),
    };
    let teachers = vec![(NodeId(3), NodeId(4)), (NodeId(3), NodeId(5))];
    let rebuild = Method::Rebuild { recipe: recipe(), donors: vec![NodeId(3), NodeId(4)], teachers };
    all(vec![
        ("welcome", ToWorker::Welcome { node: NodeId(5), settings: Box::new(settings()), empty: false }),
        ("refuse", ToWorker::Refuse { why: "another run".to_owned() }),
        ("initialise", assign(Method::Initialise)),
        ("copy", assign(Method::Copy { donors: vec![NodeId(3)] })),
        ("rebuild", assign(rebuild)),
        (
            "donate",
            ToWorker::Donate {
                transfer: transfer(),
                stage: StageId(2),
                iteration,
                to: NodeId(9),
                format: StateFormat::Bf16,
            },
        ),
        (
            "keep-copy",
            ToWorker::KeepCopy {
                transfer: transfer(),
                stage: StageId(2),
                iteration,
                format: StateFormat::Int8,
                donor: NodeId(3),
                addresses: addresses.clone(),
            },
        ),
        ("drop-copy", ToWorker::DropCopy { stage: StageId(2) }),
        ("begin", ToWorker::Begin { iteration, attempt, duties: vec![duty(0), duty(3)], addresses }),
        ("reroute", ToWorker::Reroute { iteration, attempt, duties: vec![duty(1)] }),
        ("fence", ToWorker::Fence { nodes: vec![NodeId(3)] }),
        (
            "seal",
            ToWorker::Seal {
                iteration,
                attempt,
                reduce: reduce(),
                members: vec![NodeId(3), NodeId(4)],
                contributors: vec![NodeId(4)],
                listeners: vec![NodeId(9)],
                microbatches: 8,
            },
        ),
        ("commit", ToWorker::Commit { record: std::sync::Arc::new(journal::record()) }),
        (
            "check",
            ToWorker::Check {
                iteration,
                attempt,
                of: NodeId(3),
                additions: vec![Addition::Loss(Microbatch(1)), Addition::Backward(Microbatch(1))],
            },
        ),
        (
            "resend",
            ToWorker::Resend {
                iteration,
                attempt,
                to: NodeId(4),
                boundaries: vec![(Microbatch(1), Direction::Forward), (Microbatch(2), Direction::Backward)],
            },
        ),
        (
            "save-copy",
            ToWorker::SaveCopy { stage: StageId(1), iteration, copied: Iteration(2), recipe: recipe() },
        ),
        ("know", ToWorker::Know { addresses: vec![(NodeId(9), "1.2.3.4:5".to_owned())] }),
        ("give-up", ToWorker::GiveUp { iteration, attempt, microbatches_max: 2 }),
        ("finish", ToWorker::Finish),
    ])
}

fn to_coordinator() -> Result<Vec<Seed>, SeedError> {
    let (iteration, attempt) = (Iteration(4), Attempt(1));
    let of = |what: &str| Digest::of(what.as_bytes());
    let digests = ShareDigests { inputs: of("inputs"), outputs: of("outputs"), sum: of("sum") };
    let holding = Holding {
        names: vec![NodeId(3), NodeId(4)],
        run: RUN,
        term: Term(1),
        node: NodeId(3),
        stage: StageId(2),
        iteration,
        newest: (iteration, attempt),
        state: Digest::of(b"state"),
        reduced: Some(Digest::of(b"gradient")),
        record: Some(Box::new(journal::record())),
        copies: vec![KeptCopy { stage: StageId(1), iteration: Iteration(3), digest: Digest::of(b"copy") }],
    };
    let hello = |holding| ToCoordinator::Hello {
        holding,
        address: "7f@127.0.0.1:4001".to_owned(),
        process: 77,
        was: Some(NodeId(2)),
    };
    let spent = Spent { busy_us: 9, replay_us: 8, fixed_us: 4, memory_wait_us: 7, link_us: 6 };
    let loss = Some(LossShare { loss_sum: 12.5, tokens: 64, place: 1 });
    all(vec![
        ("hello", hello(None)),
        ("hello-again", hello(Some(Box::new(holding)))),
        ("share", ToCoordinator::ShareDone { iteration, attempt, microbatch: Microbatch(2), loss }),
        (
            "reduced",
            ToCoordinator::Reduced {
                iteration,
                attempt,
                reduce: reduce(),
                digest: Digest::of(b"gradient"),
                norm: 0.5,
                spent,
            },
        ),
        (
            "holds",
            ToCoordinator::Holds {
                transfer: Some(transfer()),
                stage: StageId(1),
                iteration,
                digest: Digest::of(b"state"),
            },
        ),
        (
            "transfer-failed",
            ToCoordinator::TransferFailed { transfer: transfer(), why: "no donor".to_owned() },
        ),
        (
            "measured",
            ToCoordinator::Measured {
                iteration,
                attempt,
                microbatches: 1,
                norm: 0.75,
                digests: Some(digests),
            },
        ),
        ("checked", ToCoordinator::Checked { iteration, attempt, of: NodeId(3), digests }),
        (
            "obtained",
            ToCoordinator::Obtained {
                transfer: transfer(),
                chunks: 3,
                chunks_total: 10,
                bytes_total: 10 << 20,
                donors: 2,
            },
        ),
        (
            "copy-unusable",
            ToCoordinator::CopyUnusable { stage: StageId(1), iteration, why: "no copy is kept".to_owned() },
        ),
        (
            "copy-frozen",
            ToCoordinator::CopyFrozen {
                transfer: transfer(),
                digest: Digest::of(b"state"),
                rounded: Digest::of(b"copy"),
            },
        ),
        (
            "copy-kept",
            ToCoordinator::CopyKept {
                transfer: transfer(),
                stage: StageId(1),
                iteration,
                digest: Digest::of(b"copy"),
            },
        ),
        ("gave-up", ToCoordinator::GaveUp { iteration, attempt, microbatches: vec![Microbatch(3)] }),
        ("broken", ToCoordinator::Broken { why: "no memory".to_owned() }),
    ])
}

fn to_peer() -> Result<Vec<Seed>, SeedError> {
    let (iteration, attempt, stage) = (Iteration(4), Attempt(1), StageId(2));
    let boundary =
        |direction| ToPeer::Boundary { iteration, attempt, microbatch: Microbatch(3), stage, direction };
    all(vec![
        ("forward", boundary(Direction::Forward)),
        ("backward", boundary(Direction::Backward)),
        ("part", ToPeer::Part { iteration, attempt, reduce: reduce(), index: 1 }),
        ("reduced", ToPeer::Reduced { iteration, attempt, reduce: reduce(), index: 1, count: 2 }),
        ("chunk-request", ToPeer::ChunkRequest { transfer: transfer(), index: 1 }),
        (
            "lesson-request",
            ToPeer::LessonRequest { transfer: transfer(), lesson: lesson(), which: KeptTensor::Made },
        ),
        ("lesson", ToPeer::Lesson { transfer: transfer(), lesson: lesson(), which: KeptTensor::Came }),
        ("chunk", ToPeer::Chunk { transfer: transfer(), index: 1, count: 2, bytes: 9 << 20 }),
    ])
}
