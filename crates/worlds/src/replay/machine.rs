//! One stage in a replay: its state, and the engine that every node of a live run computes with.

use crate::live::store::{Engine, EngineSetup, Feed, StageState, TensorStore};
use skipstone_net::Payload;
use skipstone_protocol::{Handle, Outcome, Task, TaskId};
use skipstone_types::{Digest, StageId};
use std::sync::Arc;

/// A stage's state and what computes with it.
pub(super) struct Machine {
    pub(super) stage: StageId,
    pub(super) lineage: u32,
    engine: Engine,
    store: TensorStore,
    state: Option<(Handle, Digest)>,
    handles: u64,
    tasks: u64,
}

impl Machine {
    pub(super) fn new(stage: StageId, setup: EngineSetup, feed: Option<Feed>) -> Result<Self, String> {
        let engine = Engine::new(setup, feed).map_err(|error| error.to_string())?;
        let store = TensorStore::default();
        Ok(Self { stage, lineage: 0, engine, store, state: None, handles: 0, tasks: 0 })
    }

    /// Carries out a task; answers with its outcome and its `outputs` outputs.
    pub(super) fn run(
        &mut self,
        task: Task,
        inputs: &[Handle],
        outputs: usize,
    ) -> Result<(Outcome, Vec<Handle>), String> {
        let first = self.handles;
        self.handles += outputs as u64;
        self.tasks += 1;
        let outputs: Vec<_> = (first..self.handles).map(Handle).collect();
        let job = self
            .store
            .begin(TaskId(self.tasks), task, inputs, outputs.clone())
            .map_err(|handle| format!("handle {} names nothing; this is a bug", handle.0))?;
        match self.store.finish(self.engine.run(job)) {
            Outcome::Failed { why } => Err(why),
            outcome => Ok((outcome, outputs)),
        }
    }

    /// The handle of the state.
    pub(super) fn state(&self) -> Result<Handle, String> {
        self.state.map(|(handle, _)| handle).ok_or_else(|| "the stage has no weights here".to_owned())
    }

    /// Digest of the state; none while there is none.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.state.map(|(_, digest)| digest)
    }

    /// The state, as another reader may keep it.
    pub(super) fn shared_state(&self) -> Option<Arc<StageState>> {
        self.store.state(self.state?.0)
    }

    /// Replaces the state by what a task makes of `inputs`, which are dropped.
    pub(super) fn make_state(&mut self, task: Task, inputs: &[Handle]) -> Result<Digest, String> {
        let (outcome, outputs) = self.run(task, inputs, 1)?;
        let (Outcome::State { digest }, Some(state)) = (outcome, outputs.first()) else {
            return Err("the task made no state; this is a bug".to_owned());
        };
        self.store.drop_handles(inputs);
        if let Some((old, _)) = self.state.replace((*state, digest)) {
            self.store.drop_handles(&[old]);
        }
        Ok(digest)
    }

    /// The optimiser's step with a gradient, which is dropped.
    pub(super) fn step(&mut self, task: Task, gradient: Handle) -> Result<(), String> {
        let state = self.state()?;
        // The step writes to the state in place, so nobody else may hold it.
        self.state = None;
        self.make_state(task, &[state, gradient]).map(drop)
    }

    /// Replaces the state by one that was kept.
    pub(super) fn restore(&mut self, state: Arc<StageState>) {
        let digest = state.digest();
        let handle = self.store.adopt(state);
        if let Some((old, _)) = self.state.replace((handle, digest)) {
            self.store.drop_handles(&[old]);
        }
    }

    /// Takes in a state as a task's input.
    pub(super) fn adopt(&mut self, state: Arc<StageState>) -> Handle {
        self.store.adopt(state)
    }

    /// A boundary tensor, as a frame would carry it.
    pub(super) fn payload(&self, tensor: Handle) -> Result<Payload, String> {
        self.store.payload(tensor).ok_or_else(|| "a boundary tensor is missing; this is a bug".to_owned())
    }

    /// Takes a boundary tensor in.
    pub(super) fn receive(&mut self, payload: Payload) -> Result<Handle, String> {
        self.store.receive(payload).ok_or_else(|| "a boundary tensor is empty; this is a bug".to_owned())
    }

    pub(super) fn forget(&mut self, handles: &[Handle]) {
        self.store.drop_handles(handles);
    }

    /// Hands a boundary tensor over, as a frame would.
    pub(super) fn hand_over(&mut self, tensor: Handle, to: &mut Self) -> Result<Handle, String> {
        let handed = self.store.payload(tensor).and_then(|payload| to.store.receive(payload));
        self.store.drop_handles(&[tensor]);
        handed.ok_or_else(|| "a boundary tensor is missing; this is a bug".to_owned())
    }
}
