//! States on the disk and on their way.

use super::swarm::{VOCABULARY, engine_setup, feed, small};
use skipstone_model::StageLayout;
use skipstone_protocol::{Handle, Outcome, Task, TaskId};
use skipstone_recovery::StateFormat::{self, F32};
use skipstone_recovery::{Lesson, Matching, Moments, Recipe, Retraced, Retracing, Source};
use skipstone_types::{Iteration, Microbatch, StageId};
use skipstone_worlds::live::store::{
    CHUNK_VALUES, Engine, Flat, StageState, StateWriter, Tensor, TensorStore, WriteJob, stage_path,
};
use std::path::Path;

struct Bench {
    store: TensorStore,
    engine: Engine,
    writer: StateWriter,
    tasks: u64,
}

impl Bench {
    fn new(state: &Path) -> Self {
        let config = small(2, 1, 1);
        let shape = config.shape(VOCABULARY).unwrap();
        let setup = engine_setup(&config, &shape, state.to_owned());
        Self {
            store: TensorStore::default(),
            writer: StateWriter::new(&setup, None),
            engine: Engine::new(setup, Some(feed(&config))).unwrap(),
            tasks: 0,
        }
    }

    fn job(&self, stage: StageId, iteration: Iteration, state: u64) -> WriteJob {
        let state = self.store.state(Handle(state)).unwrap();
        WriteJob { id: TaskId(99), stage, iteration, digest: state.digest(), state }
    }

    fn run(&mut self, task: Task, inputs: &[u64], outputs: &[u64]) -> Outcome {
        self.tasks += 1;
        let handles = |numbers: &[u64]| numbers.iter().map(|number| Handle(*number)).collect::<Vec<_>>();
        let job = self.store.begin(TaskId(self.tasks), task, &handles(inputs), handles(outputs)).unwrap();
        let done = self.engine.run(job);
        self.store.finish(done)
    }
}

#[test]
fn what_is_saved_is_loaded_bit_for_bit_and_damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path());
    let (stage, iteration) = (StageId(1), Iteration(7));
    let made = bench.run(Task::Initialise { stage }, &[], &[0]);
    let Outcome::State { digest: state } = made else { panic!("{made:?}") };
    assert_eq!(bench.writer.write(&bench.job(stage, iteration, 0)), Ok(()));
    assert_eq!(bench.run(Task::Load { stage, iteration, state }, &[], &[1]), made);
    let path = stage_path(dir.path(), iteration, stage, &state);
    let bytes = std::fs::read(&path).unwrap();
    for at in [9, 700, bytes.len() / 2, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        std::fs::write(&path, damaged).unwrap();
        assert!(
            matches!(bench.run(Task::Load { stage, iteration, state }, &[], &[2]), Outcome::Failed { .. }),
            "{at}"
        );
    }
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    assert!(matches!(bench.run(Task::Load { stage, iteration, state }, &[], &[2]), Outcome::Failed { .. }));
    let Outcome::Failed { why } = bench.run(Task::Load { stage, iteration: Iteration(8), state }, &[], &[2])
    else {
        panic!("there is no such state");
    };
    assert!(why.contains("stage-1-") && why.contains("check the path"), "{why}");
}

#[test]
fn a_save_that_fails_leaves_nothing_and_is_no_crash() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("7"), "in the way").unwrap();
    let mut bench = Bench::new(dir.path());
    bench.run(Task::Initialise { stage: StageId(0) }, &[], &[0]);
    let why = bench.writer.write(&bench.job(StageId(0), Iteration(7), 0)).unwrap_err();
    assert!(why.contains("check the path"), "{why}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// While a state is on its way to the disk training steps on, and what is written is what the state was.
#[test]
fn a_step_goes_on_while_the_state_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path());
    let (stage, iteration) = (StageId(1), Iteration(7));
    let made = bench.run(Task::Initialise { stage }, &[], &[0]);
    let Outcome::State { digest: state } = made else { panic!("{made:?}") };
    bench.run(Task::NewSum, &[0], &[1]);
    let job = bench.job(stage, iteration, 0);
    let step = Task::Step { iteration, learning_rate: 0.5, clip_factor: 1.0 };
    assert_ne!(bench.run(step, &[0, 1], &[2]), made);
    assert_eq!(bench.writer.write(&job), Ok(()));
    assert_eq!(bench.run(Task::Load { stage, iteration, state }, &[], &[3]), made);
}

#[test]
fn the_thread_that_writes_says_how_each_write_ended_and_keeps_no_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path());
    let config = small(2, 1, 1);
    let setup = engine_setup(&config, &config.shape(VOCABULARY).unwrap(), dir.path().to_owned());
    bench.run(Task::Initialise { stage: StageId(1) }, &[], &[0]);
    let (told, ends) = std::sync::mpsc::channel();
    let jobs = StateWriter::new(&setup, None).start(move |id, how| told.send((id, how)).is_ok()).unwrap();
    let first = bench.job(StageId(1), Iteration(7), 0);
    let (path, state) =
        (stage_path(dir.path(), Iteration(7), StageId(1), &first.digest), first.state.clone());
    jobs.send(first).unwrap();
    assert_eq!(ends.recv().unwrap(), (TaskId(99), Ok(())));
    assert!(path.exists());
    // The store and this hold the state, the thread does not any more.
    assert_eq!(std::sync::Arc::strong_count(&state), 2);
    std::fs::write(dir.path().join("8"), "in the way").unwrap();
    jobs.send(bench.job(StageId(1), Iteration(8), 0)).unwrap();
    assert!(ends.recv().unwrap().1.unwrap_err().contains("check the path"));
}

#[test]
fn a_state_travels_in_chunks_and_a_frozen_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path());
    let stage = StageId(0);
    let made = bench.run(Task::Initialise { stage }, &[], &[0]);
    let frozen = bench.run(Task::Freeze { format: F32 }, &[0], &[1]);
    assert!(
        matches!(frozen, Outcome::Frozen { chunks: 1, bytes, rounded: None } if bytes > 0 && bytes % 4 == 0),
        "{frozen:?}"
    );
    bench.run(Task::NewSum, &[0], &[2]);
    let step = Task::Step { iteration: Iteration(0), learning_rate: 0.5, clip_factor: 1.0 };
    let stepped = bench.run(step, &[0, 2], &[3]);
    assert_ne!(stepped, made, "the step is counted");
    bench.run(Task::Chunk { index: 0 }, &[1], &[4]);
    assert_eq!(bench.run(Task::Join { stage, format: F32 }, &[4], &[5]), made);
    bench.run(Task::Chunk { index: 0 }, &[1], &[4]);
    let other = Task::Join { stage: StageId(1), format: F32 };
    assert!(matches!(bench.run(other, &[4], &[6]), Outcome::Failed { .. }));
}

#[test]
fn a_rounded_copy_travels_in_fewer_bytes_and_gives_what_was_said_of_it() {
    let dir = tempfile::tempdir().unwrap();
    for format in [StateFormat::Bf16, StateFormat::Int8] {
        let mut bench = Bench::new(dir.path());
        let stage = StageId(0);
        let made = bench.run(Task::Initialise { stage }, &[], &[0]);
        let whole = bench.store.state(Handle(0)).unwrap().chunk_bytes();
        let Outcome::Frozen { chunks: 1, bytes, rounded: Some(digest) } =
            bench.run(Task::Freeze { format }, &[0], &[1])
        else {
            panic!("{format:?}")
        };
        assert_eq!((bytes as f64 / whole as f64 * 100.0).round(), (100.0 * format.share()).round());
        let given = Outcome::State { digest };
        assert_ne!(given, made);
        bench.run(Task::Chunk { index: 0 }, &[1], &[2]);
        assert_eq!(bench.run(Task::Join { stage, format }, &[2], &[3]), given);
        // The keeper gives what it has.
        let frozen = Outcome::Frozen { chunks: 1, bytes, rounded: None };
        assert_eq!(bench.run(Task::Freeze { format }, &[3], &[4]), frozen);
        bench.run(Task::Chunk { index: 0 }, &[4], &[5]);
        assert_eq!(bench.run(Task::Join { stage, format }, &[5], &[6]), given);
        let recipe = Recipe::restore(stage, format);
        assert_eq!(bench.run(Task::Rebuild { stage, recipe: recipe.clone() }, &[6], &[7]), given);
        assert_eq!(
            bench.run(Task::Rebuild { stage, recipe: recipe.clone() }, &[0], &[8]),
            given,
            "as a replay has it"
        );
        let elsewhere = Task::Rebuild { stage: StageId(1), recipe: Recipe::restore(StageId(1), format) };
        assert!(matches!(bench.run(elsewhere, &[6], &[9]), Outcome::Failed { .. }));
    }
}

#[test]
fn chunks_cut_anywhere_join_to_the_same_state() {
    let config = small(1, 0, 1);
    let shape = config.shape(VOCABULARY).unwrap();
    let layout = StageLayout::of(&shape.model, &shape.stage_spec(StageId(0)));
    let mut state = StageState::fresh(StageId(0), vec![1.5; layout.len()], 1.21);
    state.optimizer_step = 0x000b_cdef_0123_4567;
    state.first_moments[3] = f32::from_bits(0x7f80_0001);
    let whole = state.chunk(0);
    assert_eq!(state.chunks(), 1);
    assert!(whole.len() < CHUNK_VALUES);
    for cut in [0, 1, layout.len(), layout.len() + 1, whole.len() - 1] {
        let (a, b) = whole.split_at(cut);
        let chunks = [a, b].map(|chunk| Flat::new(chunk.to_vec())).to_vec();
        assert_eq!(StageState::join(StageId(0), &layout, chunks).unwrap().digest(), state.digest());
    }
    let short = vec![Flat::new(whole[1..].to_vec())];
    assert!(StageState::join(StageId(0), &layout, short).is_err());
}

#[test]
fn a_large_state_takes_several_chunks() {
    let state = StageState::fresh(StageId(1), (0..CHUNK_VALUES).map(|at| at as f32).collect(), 1.0);
    assert_eq!(state.chunks(), 4);
    let chunks: Vec<_> = (0..5).map(|index| state.chunk(index)).collect();
    assert_eq!(
        chunks.iter().map(Vec::len).collect::<Vec<_>>(),
        [CHUNK_VALUES, CHUNK_VALUES, CHUNK_VALUES, 4, 0]
    );
    assert_eq!(chunks[0], state.parameters);
}

#[test]
fn a_stage_is_rebuilt_from_neighbours_and_from_the_origin_s_layers() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path());
    for stage in 0..=2 {
        bench.run(Task::Initialise { stage: StageId(stage) }, &[], &[u64::from(stage)]);
    }
    let source = |stage, coefficient| Source { stage: StageId(stage), coefficient };
    let recipe = Recipe {
        sources: vec![source(0, 0.25), source(2, 0.75)],
        moments: Moments::Zero,
        learning_rate_factor: 1.1,
        format: F32,
        matching: None,
        retracing: None,
    };
    bench.run(Task::Rebuild { stage: StageId(1), recipe }, &[0, 2], &[9]);
    let [origin, above, rebuilt] = [0, 2, 9].map(|handle| bench.store.state(Handle(handle)).unwrap());
    let config = small(2, 1, 1);
    let shape = config.shape(VOCABULARY).unwrap();
    let range = StageLayout::of(&shape.model, &shape.stage_spec(StageId(0))).layer_range(0);
    for (index, value) in rebuilt.parameters.iter().enumerate() {
        let want = 0.25 * f64::from(origin.parameters[range.start + index])
            + 0.75 * f64::from(above.parameters[index]);
        assert_eq!(*value, want as f32);
    }
    assert_eq!((rebuilt.optimizer_step, rebuilt.learning_rate_factor), (0, 1.1));
    assert!(rebuilt.first_moments.iter().all(|value| *value == 0.0));
}

#[test]
fn parts_cover_a_sum_without_overlap() {
    for length in [10, 640, 700] {
        let sum = Flat::new((0..length).map(|value| value as f32).collect());
        let parts: Vec<Flat> = (0..3).map(|index| sum.part(index, 3)).collect();
        let all: Vec<f32> = parts.iter().flat_map(|part| part.as_slice().to_vec()).collect();
        assert_eq!(all, sum.as_slice());
        assert!(parts.iter().all(|part| !part.as_slice().is_empty()));
        // Blocks that are rounded together stay together, where there are enough.
        assert!(length < 192 || parts[..2].iter().all(|part| part.as_slice().len() % 64 == 0));
    }
    let sum = Flat::new(vec![0.0]);
    assert!(matches!(Tensor::Flat(sum), Tensor::Flat(_)));
}

/// A stage is made of another one's weights, and learns from what a third, which is the lost one, made of two activations.
#[test]
fn a_rebuilt_stage_learns_to_answer_as_the_lost_one_did() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path());
    let config = small(2, 1, 1);
    let shape = config.shape(VOCABULARY).unwrap();
    let (lost, other) = (StageId(1), StageId(2));
    bench.run(Task::Initialise { stage: lost }, &[], &[0]);
    bench.run(Task::Initialise { stage: other }, &[], &[1]);
    let values = shape.tokens() * shape.model.hidden_size;
    for microbatch in 0..2_u32 {
        let came: Vec<f32> =
            (0..values).map(|at| ((at as f32 + 91.0 * microbatch as f32) * 0.37).sin()).collect();
        let handle = bench.store.receive(skipstone_net::Payload::F32(came.into())).unwrap();
        assert_eq!(handle.0, Handle::RECEIVED + u64::from(microbatch));
        let forward = Task::Forward { microbatch: Microbatch(microbatch) };
        let made = 10 + u64::from(microbatch);
        bench.run(forward, &[0, handle.0], &[made, 20 + made]);
    }
    let lessons = |count: u32| {
        (0..count)
            .map(|microbatch| Lesson { iteration: Iteration(3), microbatch: Microbatch(microbatch) })
            .collect()
    };
    let recipe = |steps, rate, count| Recipe {
        sources: vec![Source { stage: other, coefficient: 1.0 }],
        moments: Moments::Zero,
        learning_rate_factor: 1.0,
        format: F32,
        matching: Some(Matching { steps, rate, lessons: lessons(count) }),
        retracing: None,
    };
    let activations = [Handle::RECEIVED, 10, Handle::RECEIVED + 1, 11];
    let mut rebuild = |to: u64, recipe: Recipe| {
        let given = 2 * recipe.lessons().len();
        let inputs: Vec<u64> = std::iter::once(1).chain(activations[..given].iter().copied()).collect();
        let made = bench.run(Task::Rebuild { stage: lost, recipe }, &inputs, &[to]);
        assert!(matches!(made, Outcome::State { .. }), "{made:?}");
        // How far its answer to the first activation is from the lost stage's.
        bench.run(Task::Forward { microbatch: Microbatch(0) }, &[to, Handle::RECEIVED], &[to + 1, to + 2]);
        let [answer, wanted] = [to + 1, 10].map(|handle| bench.store.values(Handle(handle)).unwrap());
        let distance: f32 = answer.iter().zip(wanted.iter()).map(|(a, b)| (a - b).powi(2)).sum();
        (made, distance)
    };
    let (untaught, far) = rebuild(100, recipe(60, 1e-2, 0));
    let (taught, near) = rebuild(200, recipe(60, 1e-2, 2));
    assert!(near < far / 20.0, "{far} {near}");
    assert_ne!(taught, untaught);
    assert_eq!(rebuild(300, recipe(60, 1e-2, 2)), (taught, near), "the same bits again");
    // What gets it no nearer is not taken.
    assert_eq!(rebuild(400, recipe(60, 1e30, 2)).0, untaught);
    // A neighbour that sends something else spoils the transfer, not the process.
    let short = bench.store.receive(skipstone_net::Payload::F32(vec![1.0; values - 1].into())).unwrap();
    let recipe = recipe(3, 1e-3, 1);
    let made = bench.run(Task::Rebuild { stage: lost, recipe }, &[1, Handle::RECEIVED, short.0], &[500]);
    assert!(matches!(&made, Outcome::Failed { why } if why.contains("no activation")), "{made:?}");
}

/// A relay stage takes two steps; from a copy of what it was before them, and what passed through it, it takes them again.
#[test]
fn a_restored_stage_takes_its_steps_again_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path());
    let shape = small(2, 1, 1).shape(VOCABULARY).unwrap();
    let stage = StageId(1);
    let Outcome::State { digest: copied } = bench.run(Task::Initialise { stage }, &[], &[1]) else {
        panic!("a state is made")
    };
    // A copy of it, and itself, which steps.
    bench.run(Task::Freeze { format: F32 }, &[1], &[0]);
    let values = shape.tokens() * shape.model.hidden_size;
    let (learning_rate, clip_factor) = (1e-2, 0.5);
    let (mut tensors, mut iterations, mut state, mut stepped) = (Vec::new(), Vec::new(), 1, Vec::new());
    let mut made = Vec::new();
    for iteration in 0..2_u64 {
        let base = 100 * (iteration + 1);
        bench.run(Task::NewSum, &[state], &[base]);
        // The order in which they were added.
        let microbatches = [1_u32, 0].map(Microbatch);
        for microbatch in microbatches {
            let of = |phase: f32| -> Vec<f32> {
                let shift = phase + 17.0 * microbatch.0 as f32 + 5.0 * iteration as f32;
                (0..values).map(|at| ((at as f32 + shift) * 0.37).sin()).collect()
            };
            let mut receive =
                |values: Vec<f32>| bench.store.receive(skipstone_net::Payload::F32(values.into())).unwrap().0;
            let (came, back) = (receive(of(0.0)), receive(of(0.5)));
            let at = base + 10 * u64::from(microbatch.0) + 1;
            bench.run(Task::Forward { microbatch }, &[state, came], &[at, at + 1]);
            bench.run(Task::Backward { microbatch }, &[state, at + 1, back, base], &[at + 2]);
            tensors.extend([came, back]);
            made.extend([at, at + 2]);
        }
        bench.run(Task::Part { index: 0, count: 1 }, &[base], &[base + 50]);
        bench.run(Task::Sum { microbatches: 2 }, &[base + 50], &[base + 51]);
        bench.run(Task::Assemble, &[base + 51], &[base + 52]);
        let iteration = Iteration(iteration);
        let step = Task::Step { iteration, learning_rate, clip_factor };
        stepped.push(bench.run(step, &[state, base + 52], &[base + 60]));
        state = base + 60;
        let shares = vec![microbatches.to_vec()];
        iterations.push(Retraced { iteration, lineage: 0, shares, learning_rate, clip_factor });
    }
    let recipe = |iterations: &[Retraced]| Recipe {
        retracing: Some(Retracing { copy: copied, iterations: iterations.to_vec() }),
        ..Recipe::restore(stage, F32)
    };
    let inputs: Vec<u64> = std::iter::once(0).chain(tensors).collect();
    let mut retrace =
        |recipe: Recipe, inputs: &[u64], to: u64| bench.run(Task::Rebuild { stage, recipe }, inputs, &[to]);
    assert_eq!(retrace(recipe(&iterations[..1]), &inputs[..5], 900), stepped[0], "one of the steps");
    assert_eq!(retrace(recipe(&iterations), &inputs, 901), stepped[1]);
    // And what it makes of what came to it, both ways, as it was sent.
    let again: Vec<u64> = (0..made.len() as u64).map(|at| 1001 + at).collect();
    let outputs: Vec<u64> = [1000].into_iter().chain(again.iter().copied()).collect();
    let rebuild = Task::Rebuild { stage, recipe: recipe(&iterations) };
    assert_eq!(bench.run(rebuild, &inputs, &outputs), stepped[1]);
    for (again, made) in again.into_iter().zip(made) {
        let [again, made] = [again, made].map(|handle| bench.store.values(Handle(handle)).unwrap());
        assert_eq!(again, made);
    }
    let mut retrace =
        |recipe: Recipe, inputs: &[u64], to: u64| bench.run(Task::Rebuild { stage, recipe }, inputs, &[to]);
    let mut other = iterations.clone();
    other[1].shares[0].reverse();
    assert!(matches!(retrace(recipe(&other), &inputs, 902), Outcome::State { .. }));
    // What does not fit spoils the transfer, not the process.
    let short = retrace(recipe(&iterations), &inputs[..7], 903);
    assert!(matches!(&short, Outcome::Failed { why } if why.contains("computed again")), "{short:?}");
}
