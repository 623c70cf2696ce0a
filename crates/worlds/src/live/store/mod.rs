//! A node's tensors, and the tasks on them: what a worker's handles stand for.
//!
//! The core's thread owns the [`TensorStore`]; the [`Engine`] computes on a thread of its own. A task takes along
//! what it needs as a [`Job`] and comes back as a [`Done`], so nothing is shared but immutable tensors.

mod boundary;
mod engine;
mod feed;
mod files;
mod inputs;
mod learn;
mod packed;
mod recycle;
mod retrace;
mod run_files;
mod setup;
mod state;
mod tensor;
mod writer;

pub use engine::Engine;
pub use feed::Feed;
pub use files::{StateFile, StateFileError, iteration_dir, stage_path};
pub use packed::PackedState;
pub use run_files::RunFiles;
pub use setup::{EngineSetup, OptimizerSetup};
pub use state::{CHUNK_VALUES, StageState};
pub use tensor::{Flat, Tensor};
pub use writer::{StateWriter, WriteJob};

use recycle::Recycler;
use skipstone_net::Payload;
use skipstone_protocol::{Handle, Outcome, Task, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A task with its tensors, on the way to the engine.
#[derive(Debug)]
pub struct Job {
    /// The task.
    pub id: TaskId,
    /// What to do.
    pub task: Task,
    inputs: Vec<Tensor>,
    /// Buffers that nobody needs any more, for reuse.
    recycled: Vec<Vec<f32>>,
    outputs: Vec<Handle>,
    /// Where the gradient sum goes back to.
    sum: Option<Handle>,
}

/// A task that has ended.
#[derive(Debug)]
pub struct Done {
    /// The task.
    pub id: TaskId,
    /// How it ended.
    pub outcome: Outcome,
    made: Vec<(Handle, Tensor)>,
}

impl Done {
    /// The state that was made, if it is one.
    pub fn state(&self) -> Option<&Arc<StageState>> {
        self.made.iter().find_map(|(_, tensor)| match tensor {
            Tensor::State(state) => Some(state),
            Tensor::Flat(_) | Tensor::Packed(_) | Tensor::Saved(_) => None,
        })
    }

    /// A state that was there already, under these names.
    pub fn of_state(id: TaskId, outputs: &[Handle], state: &Arc<StageState>) -> Self {
        let made = outputs.iter().map(|handle| (*handle, Tensor::State(state.clone()))).collect();
        Self { id, outcome: Outcome::State { digest: state.digest() }, made }
    }
}

/// A node's tensors, by handle.
#[derive(Debug, Default)]
pub struct TensorStore {
    tensors: BTreeMap<Handle, Tensor>,
    received: u64,
    recycler: Recycler,
}

impl TensorStore {
    /// Puts a frame's payload into the store; none if it carries no numbers.
    pub fn receive(&mut self, payload: Payload) -> Option<Handle> {
        let values = match payload {
            Payload::F32(values) => values,
            Payload::Bytes(packed) => Arc::new(boundary::unpack(&packed)?),
            Payload::Empty => return None,
        };
        let handle = self.new_received();
        self.tensors.insert(handle, Tensor::Flat(Flat::received(values)));
        Some(handle)
    }

    /// Puts a state into the store.
    pub fn adopt(&mut self, state: Arc<StageState>) -> Handle {
        let handle = self.new_received();
        self.tensors.insert(handle, Tensor::State(state));
        handle
    }

    fn new_received(&mut self) -> Handle {
        let handle = Handle(Handle::RECEIVED + self.received);
        self.received += 1;
        handle
    }

    /// The payload that carries a tensor, in fewer bytes if nothing is lost by it; none if there is no such tensor, or not one that travels.
    pub fn payload(&self, handle: Handle) -> Option<Payload> {
        match self.tensors.get(&handle)? {
            Tensor::Flat(flat) => {
                let values = flat.whole();
                let packed = boundary::pack(&values).map(|packed| Payload::Bytes(packed.into()));
                Some(packed.unwrap_or(Payload::F32(values)))
            }
            Tensor::State(_) | Tensor::Packed(_) | Tensor::Saved(_) => None,
        }
    }

    /// Gathers what a task needs.
    ///
    /// # Errors
    /// The handle that names nothing: then the task has failed.
    pub fn begin(
        &mut self,
        id: TaskId,
        task: Task,
        inputs: &[Handle],
        outputs: Vec<Handle>,
    ) -> Result<Job, Handle> {
        let taken = consumed(&task);
        // Else the state and its chunks would be there at once.
        let takes_all = matches!(task, Task::Join { .. });
        let sum = sum_position(&task).and_then(|position| inputs.get(position)).copied();
        let mut tensors = Vec::with_capacity(inputs.len());
        for (position, handle) in inputs.iter().enumerate() {
            let takes = takes_all || taken == Some(position) || sum == Some(*handle);
            let tensor = if takes {
                self.tensors.remove(handle)
            } else {
                self.tensors.get(handle).and_then(Tensor::share)
            };
            tensors.push(tensor.ok_or(*handle)?);
        }
        let recycled = self.recycler.take();
        Ok(Job { id, task, inputs: tensors, recycled, outputs, sum })
    }

    /// Takes in what a task has made.
    pub fn finish(&mut self, done: Done) -> Outcome {
        self.tensors.extend(done.made);
        done.outcome
    }

    /// Forgets tensors; their buffers are used again once nobody reads them.
    pub fn drop_handles(&mut self, handles: &[Handle]) {
        for handle in handles {
            if let Some(tensor) = self.tensors.remove(handle) {
                self.recycler.give(tensor);
            }
        }
    }

    /// Number of tensors held.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The flat values of a tensor (a gradient, an activation): for tests and inspection.
    pub fn values(&self, handle: Handle) -> Option<Arc<Vec<f32>>> {
        match self.tensors.get(&handle)? {
            Tensor::Flat(flat) => Some(flat.whole()),
            Tensor::State(state) => Some(Arc::new(state.parameters.clone())),
            Tensor::Packed(_) | Tensor::Saved(_) => None,
        }
    }

    /// The state behind a handle.
    pub fn state(&self, handle: Handle) -> Option<Arc<StageState>> {
        match self.tensors.get(&handle)? {
            Tensor::State(state) => Some(state.clone()),
            Tensor::Flat(_) | Tensor::Packed(_) | Tensor::Saved(_) => None,
        }
    }
}

/// The input that a task uses up.
fn consumed(task: &Task) -> Option<usize> {
    match task {
        Task::Step { .. } => Some(0),
        Task::Backward { .. } | Task::EmbedBackward { .. } => Some(1),
        _ => None,
    }
}

/// Where a counted task has the sum that it adds to.
fn sum_position(task: &Task) -> Option<usize> {
    match task {
        Task::Loss { .. } => Some(2),
        Task::Backward { .. } | Task::EmbedBackward { .. } => Some(3),
        _ => None,
    }
}
