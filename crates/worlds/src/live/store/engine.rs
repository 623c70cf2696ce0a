//! Carries tasks out, one at a time, on the threads of a pool.

use super::boundary;
use super::files::{StateFile, stage_path};
use super::inputs::{flat, state, sum_of, take_flats, take_saved};
use super::learn::learn;
use super::tensor::{Flat, Tensor};
use super::{Done, EngineSetup, Feed, Job, PackedState, RunFiles, StageState};
use skipstone_data::{SampleOrder, TokenDataset};
use skipstone_model::{
    ComputePool, CpuBackend, ModelError, OptimizerStep, StageBackend, StageLayout, grad_norm, hash_f32,
    initial_parameters, weighted_sum_into,
};
use skipstone_protocol::{Handle, Outcome, Passed, Task};
use skipstone_recovery::{Moments, Recipe, StateFormat};
use skipstone_types::{Digest, Iteration, Microbatch, StageId};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Buffers kept for reuse beside those of the backend: a sum, a reduced gradient, a reduced part.
const SPARE_MAX: usize = 3;

/// What is wrong with every number of a sum of a node that lies: little beside gradients that are summed over tokens.
const LIE: f32 = 1e-3;

/// Computes tasks for one node.
pub struct Engine {
    pub(super) setup: EngineSetup,
    digest: String,
    pool: ComputePool,
    /// The stage computed last, with its buffers.
    backend: Option<(StageId, CpuBackend)>,
    spare: Vec<Vec<f32>>,
    feed: Option<Feed>,
    files: Option<Arc<dyn RunFiles>>,
    lies: Option<Arc<AtomicBool>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("setup", &self.setup).finish_non_exhaustive()
    }
}

/// What a task makes: its outcome and its outputs, in order.
pub(super) type Made = Result<(Outcome, Vec<Tensor>), String>;

impl Engine {
    /// An engine with `setup.threads` threads of its own. Without a `feed` the token file is read when it is needed.
    ///
    /// # Errors
    /// Threads that can't be started.
    pub fn new(setup: EngineSetup, feed: Option<Feed>) -> Result<Self, ModelError> {
        let pool = ComputePool::new(setup.threads)?;
        Ok(Self::with_pool(setup, feed, pool))
    }

    /// An engine that computes on these threads, whatever `setup.threads` says.
    pub fn with_pool(setup: EngineSetup, feed: Option<Feed>, pool: ComputePool) -> Self {
        Self {
            digest: setup.shape.digest(),
            setup,
            pool,
            backend: None,
            spare: Vec::new(),
            feed,
            files: None,
            lies: None,
        }
    }

    /// An engine on a machine without the run's folder, which is reached through `files`.
    #[must_use]
    pub fn with_files(self, files: Arc<dyn RunFiles>) -> Self {
        Self { files: Some(files), ..self }
    }

    /// An engine that computes wrong sums of gradients, of the usual size, once this is set.
    #[must_use]
    pub fn with_lies(self, lies: Arc<AtomicBool>) -> Self {
        Self { lies: Some(lies), ..self }
    }

    /// What a new sum begins with.
    fn zero(&self) -> f32 {
        let lies = self.lies.as_ref().is_some_and(|lies| lies.load(Ordering::Relaxed));
        if lies { LIE } else { 0.0 }
    }

    /// Has a file of the run's folder here.
    fn fetch(&self, path: &Path) -> Result<(), String> {
        self.files.as_ref().map_or(Ok(()), |files| files.fetch(path)).map_err(|error| error.to_string())
    }

    /// Carries a task out. A panic on the way counts as its failure.
    pub fn run(&mut self, job: Job) -> Done {
        let Job { id, task, inputs, recycled, outputs, sum } = job;
        self.recycle(recycled);
        let mut inputs: Vec<Option<Tensor>> = inputs.into_iter().map(Some).collect();
        let pool = self.pool.clone();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.install(|| self.carry_out(&task, &mut inputs))
        }));
        let result =
            result.unwrap_or_else(|_| Err(format!("the computation of {task:?} broke down; this is a bug")));
        let mut made: Vec<(Handle, Tensor)> = Vec::with_capacity(outputs.len() + 1);
        if let Some((handle, tensor)) = sum.zip(inputs.last_mut().and_then(Option::take)) {
            made.push((handle, tensor));
        }
        // The state must have no reader left when the step wants to write to it.
        drop(inputs);
        let outcome = match result {
            Ok((outcome, tensors)) => {
                made.extend(outputs.into_iter().zip(tensors));
                outcome
            }
            Err(why) => Outcome::Failed { why },
        };
        Done { id, outcome, made }
    }

    fn recycle(&mut self, buffers: Vec<Vec<f32>>) {
        let Some((_, backend)) = &mut self.backend else { return };
        let boundary = self.setup.shape.tokens() * self.setup.shape.model.hidden_size;
        for buffer in buffers {
            if buffer.len() == boundary {
                backend.recycle(buffer);
                continue;
            }
            // The newest lengths are those in use: the number of members, and with it a part's length, changes.
            if self.spare.len() == SPARE_MAX {
                self.spare.remove(0);
            }
            self.spare.push(buffer);
        }
    }

    /// A buffer with arbitrary contents.
    pub(super) fn buffer(&mut self, len: usize) -> Vec<f32> {
        match self.spare.iter().position(|spare| spare.len() == len) {
            Some(index) => self.spare.swap_remove(index),
            None => vec![0.0; len],
        }
    }

    /// Bytes of buffers that wait for reuse.
    pub fn idle_bytes(&self) -> u64 {
        let spare: usize = self.spare.iter().map(|buffer| 4 * buffer.len()).sum();
        spare as u64 + self.backend.as_ref().map_or(0, |(_, backend)| backend.idle_bytes())
    }

    fn layout(&self, stage: StageId) -> StageLayout {
        StageLayout::of(&self.setup.shape.model, &self.setup.shape.stage_spec(stage))
    }

    pub(super) fn backend(&mut self, stage: StageId) -> Result<&mut CpuBackend, String> {
        if self.backend.as_ref().is_none_or(|(served, _)| *served != stage) {
            let spec = self.setup.shape.stage_spec(stage);
            let backend = CpuBackend::with_pool(&self.setup.shape.model, spec, self.pool.clone())
                .map_err(|error| error.to_string())?;
            self.spare.clear();
            self.backend = Some((stage, backend));
        }
        match &mut self.backend {
            Some((_, backend)) => Ok(backend),
            None => Err("no stage".to_owned()),
        }
    }

    fn batch(
        &mut self,
        iteration: Iteration,
        microbatch: Microbatch,
    ) -> Result<(Vec<u32>, Vec<u32>), String> {
        if self.feed.is_none() {
            self.fetch(&self.setup.tokens)?;
            let dataset = TokenDataset::read(&self.setup.tokens).map_err(|error| error.to_string())?;
            let tokens = dataset.train().len();
            let order = SampleOrder::new(self.setup.seed, tokens, self.setup.shape.batches)
                .map_err(|error| error.to_string())?;
            self.feed = Some(Feed::new(Arc::new(dataset), order));
        }
        self.feed.as_ref().ok_or("no data")?.batch(iteration, microbatch)
    }

    fn carry_out(&mut self, task: &Task, inputs: &mut [Option<Tensor>]) -> Made {
        match task {
            Task::Initialise { stage } => Ok(held(self.initial(*stage))),
            Task::Load { stage, iteration, state } => self.load(*stage, *iteration, state),
            Task::Embed { iteration, microbatch } => self.embed(inputs, *iteration, *microbatch),
            Task::Forward { .. } => self.forward(inputs),
            Task::Loss { iteration, microbatch } => self.loss(inputs, *iteration, *microbatch),
            Task::Backward { .. } | Task::EmbedBackward { .. } => self.backward(inputs),
            Task::NewSum => {
                let len = state(inputs, 0)?.parameters.len();
                let mut sum = self.buffer(len);
                sum.fill(self.zero());
                Ok((Outcome::Done, vec![Tensor::Flat(Flat::new(sum))]))
            }
            Task::Measure => {
                let sum = flat(inputs, 0)?.as_slice();
                let digest = self.setup.digests.then(|| Digest(hash_f32(sum)));
                Ok((Outcome::Measured { norm: grad_norm(sum), digest }, Vec::new()))
            }
            Task::Part { index, count } => {
                let part = flat(inputs, 0)?.part(*index, *count);
                Ok((Outcome::Done, vec![Tensor::Flat(self.rounded(part))]))
            }
            Task::Sum { microbatches } => self.sum(inputs, *microbatches),
            Task::Assemble => assemble(inputs),
            Task::Step { learning_rate, clip_factor, .. } => self.step(inputs, *learning_rate, *clip_factor),
            Task::Freeze { format } => freeze(inputs, *format),
            Task::Chunk { index } => {
                let chunk = match inputs.first() {
                    Some(Some(Tensor::Packed(copy))) => copy.chunk(*index),
                    _ => state(inputs, 0)?.chunk(*index),
                };
                Ok((Outcome::Done, vec![Tensor::Flat(Flat::new(chunk))]))
            }
            Task::Join { stage, format } => {
                let (chunks, layout) = (take_flats(inputs)?, self.layout(*stage));
                if !format.rounds() {
                    return Ok(held(StageState::join(*stage, &layout, chunks)?));
                }
                let copy = PackedState::join(*stage, &layout, *format, chunks)?;
                let outcome = Outcome::State { digest: copy.digest() };
                Ok((outcome, vec![Tensor::Packed(Arc::new(copy))]))
            }
            Task::Rebuild { stage, recipe } => self.rebuild(inputs, *stage, recipe),
        }
    }

    fn initial(&self, stage: StageId) -> StageState {
        let parameters = initial_parameters(&self.setup.shape.model, &self.layout(stage), self.setup.seed);
        StageState::fresh(stage, parameters, 1.0)
    }

    fn load(&self, stage: StageId, iteration: Iteration, digest: &Digest) -> Made {
        let path = stage_path(&self.setup.state, iteration, stage, digest);
        let file = StateFile { stage, iteration, shape: &self.digest };
        self.fetch(&path)?;
        file.read(&path, &self.layout(stage)).map(held).map_err(|error| error.to_string())
    }

    fn embed(&mut self, inputs: &[Option<Tensor>], iteration: Iteration, microbatch: Microbatch) -> Made {
        let (tokens, _) = self.batch(iteration, microbatch)?;
        let state = state(inputs, 0)?;
        let (mut activation, saved) = self
            .backend(state.stage)?
            .embed(&state.parameters, &tokens)
            .map_err(|error| error.to_string())?;
        boundary::round(&mut activation, self.setup.wire);
        let outcome = self.passed(None, Some(&activation));
        Ok((outcome, vec![Tensor::Flat(Flat::new(activation)), Tensor::Saved(saved)]))
    }

    /// What a forward or backward read and made, where replicas check each other.
    fn passed(&self, read: Option<&[f32]>, made: Option<&[f32]>) -> Outcome {
        self.digests(read, made).map_or(Outcome::Done, Outcome::Passed)
    }

    fn digests(&self, read: Option<&[f32]>, made: Option<&[f32]>) -> Option<Passed> {
        let digest = |values: &[f32]| Digest(hash_f32(values));
        self.setup.digests.then(|| Passed { read: read.map(digest), made: made.map(digest) })
    }

    fn forward(&mut self, inputs: &[Option<Tensor>]) -> Made {
        let (state, x) = (state(inputs, 0)?, flat(inputs, 1)?.as_slice());
        let (mut activation, saved) =
            self.backend(state.stage)?.forward(&state.parameters, x).map_err(|error| error.to_string())?;
        boundary::round(&mut activation, self.setup.wire);
        let outcome = self.passed(Some(x), Some(&activation));
        Ok((outcome, vec![Tensor::Flat(Flat::new(activation)), Tensor::Saved(saved)]))
    }

    fn loss(&mut self, inputs: &mut [Option<Tensor>], iteration: Iteration, microbatch: Microbatch) -> Made {
        let (_, targets) = self.batch(iteration, microbatch)?;
        let (inputs, sum) = inputs.split_at_mut(2);
        let (state, x) = (state(inputs, 0)?, flat(inputs, 1)?.as_slice());
        let mut out = self
            .backend(state.stage)?
            .loss(&state.parameters, x, &targets, sum_of(sum), 1.0)
            .map_err(|error| error.to_string())?;
        boundary::round(&mut out.dx, self.setup.wire);
        let passed = self.digests(Some(x), Some(&out.dx));
        let outcome = Outcome::Loss { loss_sum: out.loss_sum, tokens: out.tokens as u64, passed };
        Ok((outcome, vec![Tensor::Flat(Flat::new(out.dx))]))
    }

    fn backward(&mut self, inputs: &mut [Option<Tensor>]) -> Made {
        let saved = take_saved(inputs, 1)?;
        let (inputs, sum) = inputs.split_at_mut(3);
        let (state, dy) = (state(inputs, 0)?, flat(inputs, 2)?.as_slice());
        let (origin, wire) = (state.stage.is_origin(), self.setup.wire);
        let backend = self.backend(state.stage)?;
        let made = if origin {
            backend.embed_backward(&state.parameters, saved, dy, sum_of(sum)).map(|()| None)
        } else {
            backend.backward(&state.parameters, saved, dy, sum_of(sum)).map(|mut dx| {
                boundary::round(&mut dx, wire);
                Some(dx)
            })
        };
        let made = made.map_err(|error| error.to_string())?;
        let outcome = self.passed(Some(dy), made.as_deref());
        Ok((outcome, made.into_iter().map(|dx| Tensor::Flat(Flat::new(dx))).collect()))
    }

    /// A part of a sum, as it travels to whoever adds it up.
    pub(super) fn rounded(&mut self, part: Flat) -> Flat {
        if self.setup.reduce.is_f32() {
            return part;
        }
        let mut values = self.buffer(part.as_slice().len());
        values.copy_from_slice(part.as_slice());
        boundary::round(&mut values, self.setup.reduce);
        Flat::new(values)
    }

    /// Adds parts up in their order, in double precision, and divides by the tokens that reached the stage.
    pub(super) fn sum(&mut self, inputs: &[Option<Tensor>], microbatches: u32) -> Made {
        let tokens = f64::from(microbatches) * self.setup.shape.tokens() as f64;
        let parts = (0..inputs.len())
            .map(|index| flat(inputs, index).map(|part| (part.as_slice(), 1.0 / tokens)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut sum = self.buffer(parts.first().map_or(0, |(part, _)| part.len()));
        weighted_sum_into(&mut sum, &parts).map_err(|error| error.to_string())?;
        boundary::round(&mut sum, self.setup.reduce);
        Ok((Outcome::Done, vec![Tensor::Flat(Flat::new(sum))]))
    }

    pub(super) fn step(
        &mut self,
        inputs: &mut [Option<Tensor>],
        learning_rate: f64,
        clip_factor: f64,
    ) -> Made {
        let Some(Tensor::State(mut state)) = inputs.get_mut(0).and_then(Option::take) else {
            return Err("input 0 is not a state".to_owned());
        };
        let gradient = flat(inputs, 1)?.as_slice();
        let optimizer = self.setup.optimizer;
        let step = OptimizerStep {
            step: state.optimizer_step + 1,
            learning_rate: (learning_rate * f64::from(state.learning_rate_factor)) as f32,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            epsilon: optimizer.epsilon,
            weight_decay: optimizer.weight_decay,
            clip_factor: clip_factor as f32,
        };
        let backend = self.backend(state.stage)?;
        // In place, unless a donation still reads the state as it was.
        let new = Arc::make_mut(&mut state);
        backend
            .optimizer_step(
                &mut new.parameters,
                gradient,
                &mut new.first_moments,
                &mut new.second_moments,
                &step,
            )
            .map_err(|error| error.to_string())?;
        new.optimizer_step += 1;
        if optimizer.raise_kept < 1.0 {
            new.learning_rate_factor = 1.0 + (new.learning_rate_factor - 1.0) * optimizer.raise_kept;
        }
        Ok((Outcome::State { digest: state.digest() }, vec![Tensor::State(state)]))
    }

    /// A lost stage from the states of others, layer by layer.
    fn rebuild(&mut self, inputs: &[Option<Tensor>], stage: StageId, recipe: &Recipe) -> Made {
        if recipe.restores(stage) {
            let (outcome, restored) = restore(inputs, stage, recipe.format)?;
            return match (&recipe.retracing, restored.first()) {
                (Some(retracing), Some(Tensor::State(state))) => {
                    let keeps = recipe.made_again().next().is_some();
                    self.retrace(state.clone(), retracing, keeps, &inputs[1..])
                }
                _ => Ok((outcome, restored)),
            };
        }
        let mut new = self.initial(stage);
        let (needed, lessons) = (recipe.sources.len(), recipe.lessons().len());
        if inputs.len() != needed + 2 * lessons {
            return Err(format!("{} tensors for {needed} sources and {lessons} lessons", inputs.len()));
        }
        let sources =
            (0..needed).map(|index| state(inputs, index).map(Arc::as_ref)).collect::<Result<Vec<_>, _>>()?;
        new.learning_rate_factor = recipe.learning_rate_factor as f32;
        if !sources.is_empty() {
            let layout = self.layout(stage);
            let layouts: Vec<_> = sources.iter().map(|source| self.layout(source.stage)).collect();
            if layouts.iter().any(|other| other.layers().len() != layout.layers().len()) {
                return Err("a source holds another number of layers".to_owned());
            }
            let mix = |target: &mut Vec<f32>, buffer: fn(&StageState) -> &Vec<f32>| {
                (0..layout.layers().len()).try_for_each(|layer| {
                    let parts: Vec<_> = sources
                        .iter()
                        .zip(&layouts)
                        .zip(&recipe.sources)
                        .map(|((source, layout), part)| {
                            (&buffer(source)[layout.layer_range(layer)], part.coefficient)
                        })
                        .collect();
                    weighted_sum_into(&mut target[layout.layer_range(layer)], &parts)
                        .map_err(|error| error.to_string())
                })
            };
            mix(&mut new.parameters, |source| &source.parameters)?;
            if recipe.moments == Moments::Mix {
                mix(&mut new.first_moments, |source| &source.first_moments)?;
                mix(&mut new.second_moments, |source| &source.second_moments)?;
                new.optimizer_step = sources.iter().map(|source| source.optimizer_step).min().unwrap_or(0);
            }
        }
        if let Some(matching) = &recipe.matching {
            let values = self.setup.shape.tokens() * self.setup.shape.model.hidden_size;
            let activation = |at: usize| {
                let activation = flat(inputs, at)?.as_slice();
                let fits = activation.len() == values;
                fits.then_some(activation).ok_or_else(|| format!("input {at} is no activation of this run"))
            };
            let lesson = |index: usize| {
                let at = needed + 2 * index;
                Ok((activation(at)?, activation(at + 1)?))
            };
            let lessons = (0..lessons).map(lesson).collect::<Result<Vec<_>, String>>()?;
            let optimizer = self.setup.optimizer;
            learn(self.backend(stage)?, optimizer, &mut new.parameters, matching, &lessons)
                .map_err(|error| error.to_string())?;
        }
        Ok(held(new))
    }
}

/// A state that stays: under a second name, or rounded. A rounded one is one already.
fn freeze(inputs: &[Option<Tensor>], format: StateFormat) -> Made {
    if let Some(Some(Tensor::Packed(copy))) = inputs.first() {
        let (chunks, bytes) = (copy.chunks(), copy.chunk_bytes());
        return Ok((Outcome::Frozen { chunks, bytes, rounded: None }, vec![Tensor::Packed(copy.clone())]));
    }
    let state = state(inputs, 0)?;
    if !format.rounds() {
        let (chunks, bytes) = (state.chunks(), state.chunk_bytes());
        return Ok((Outcome::Frozen { chunks, bytes, rounded: None }, vec![Tensor::State(state.clone())]));
    }
    let copy = PackedState::pack(state, format);
    let (chunks, bytes, rounded) = (copy.chunks(), copy.chunk_bytes(), Some(copy.digest()));
    Ok((Outcome::Frozen { chunks, bytes, rounded }, vec![Tensor::Packed(Arc::new(copy))]))
}

/// A stage from a copy of what it was; or, as the same bits follow, from what it was.
fn restore(inputs: &[Option<Tensor>], stage: StageId, format: StateFormat) -> Made {
    let of = |of: StageId| if of == stage { Ok(()) } else { Err(format!("a copy of {of}, not of {stage}")) };
    if let Some(Some(Tensor::Packed(copy))) = inputs.first() {
        of(copy.stage)?;
        return Ok(held(copy.unpack()));
    }
    let state = state(inputs, 0)?;
    of(state.stage)?;
    if format.rounds() {
        return Ok(held(PackedState::pack(state, format).unpack()));
    }
    Ok((Outcome::State { digest: state.digest() }, vec![Tensor::State(state.clone())]))
}

fn held(state: StageState) -> (Outcome, Vec<Tensor>) {
    (Outcome::State { digest: state.digest() }, vec![Tensor::State(Arc::new(state))])
}

fn assemble(inputs: &[Option<Tensor>]) -> Made {
    let parts = (0..inputs.len()).map(|index| flat(inputs, index)).collect::<Result<Vec<_>, _>>()?;
    let gradient = match parts.as_slice() {
        [whole] => (*whole).clone(),
        parts => Flat::new(parts.iter().flat_map(|part| part.as_slice()).copied().collect()),
    };
    let values = gradient.as_slice();
    let outcome = Outcome::Gradient { digest: Digest(hash_f32(values)), norm: grad_norm(values) };
    Ok((outcome, vec![Tensor::Flat(gradient)]))
}
