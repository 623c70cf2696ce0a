//! What a simulated node holds: names of tensors, or, in the lab, the tensors themselves.

use crate::fault::compute::{Context, Effects, run};
use crate::fault::folder::Folder;
use crate::fault::provenance::Origin;
use crate::fault::store::Store;
use crate::fault::value::Value;
use crate::live::store::{Done, Engine, EngineSetup, Feed, Job, StageState, TensorStore};
use skipstone_model::ComputePool;
use skipstone_net::Payload;
use skipstone_protocol::{Handle, Outcome, SavedStage, Task, TaskId};
use skipstone_types::{Attempt, Iteration, StageId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What every node of a run computes with, where tensors are real.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// Model, batches, optimiser.
    pub setup: EngineSetup,
    /// The training split and its order.
    pub feed: Feed,
}

/// What a message carries.
#[derive(Debug)]
pub(super) enum Freight {
    Symbol(Value),
    Numbers(Payload),
}

/// A task that has begun: what comes of it when it ends.
#[derive(Debug)]
pub(super) enum Begun {
    Symbols {
        outputs: Vec<Handle>,
        effects: Box<Effects>,
        /// Whether the stage is from then on what comes of it.
        lasts: bool,
    },
    Numbers {
        done: Done,
        lasts: bool,
    },
}

/// A state that is to be written.
#[derive(Debug)]
pub(super) enum StateToWrite {
    Symbol(Origin),
    Numbers(Arc<StageState>),
}

/// What a stage last was.
#[derive(Debug)]
enum Last {
    Symbol(Origin),
    Numbers(Arc<StageState>),
}

/// `state/`, where tensors are real: nothing touches the disk. For an oracle, also what every stage last was.
#[derive(Debug, Default)]
pub(super) struct Files {
    symbols: Folder,
    states: BTreeMap<(Iteration, StageId), Arc<StageState>>,
    remembers: bool,
    last: BTreeMap<StageId, Last>,
}

impl Files {
    /// Of a run under this strategy.
    pub(super) fn of(recovery: &str) -> Self {
        let remembers = skipstone_recovery::strategy(recovery).is_ok_and(|strategy| strategy.is_oracle());
        Self { remembers, ..Self::default() }
    }

    /// A state is on the disk.
    pub(super) fn write(&mut self, of: (Iteration, StageId), state: StateToWrite) {
        match state {
            StateToWrite::Symbol(origin) => self.symbols.write(of.0, of.1, origin),
            StateToWrite::Numbers(state) => _ = self.states.insert(of, state),
        }
    }

    /// What was saved for other iterations is deleted.
    pub(super) fn publish(&mut self, iteration: Iteration, stages: Vec<SavedStage>) {
        self.symbols.publish(iteration, stages);
        self.states.retain(|(of, _), _| *of == iteration);
    }
}

/// The tensors of a node.
#[derive(Debug)]
pub(super) enum Tensors {
    Symbols(Store),
    Numbers(Box<(TensorStore, Engine)>),
}

impl Tensors {
    pub(super) fn new(numbers: Option<&Numbers>) -> Self {
        let Some(Numbers { setup, feed }) = numbers else { return Self::Symbols(Store::default()) };
        // Simulated nodes compute in turn: on the caller's threads, where none waits for another to wake.
        let engine = Engine::with_pool(setup.clone(), Some(feed.clone()), ComputePool::ambient());
        Self::Numbers(Box::new((TensorStore::default(), engine)))
    }

    /// The node is dead: nothing is held any more, nor the buffers that its engine kept for reuse.
    pub(super) fn clear(&mut self) {
        *self = Self::Symbols(Store::default());
    }

    pub(super) fn receive(
        &mut self,
        freight: Freight,
        birth: (Iteration, Attempt),
    ) -> Result<Handle, String> {
        match (self, freight) {
            (Self::Symbols(store), Freight::Symbol(value)) => store.receive(value, birth),
            (Self::Numbers(held), Freight::Numbers(payload)) => {
                held.0.receive(payload).ok_or_else(|| "a payload without numbers".to_owned())
            }
            _ => Err("symbols and numbers are mixed".to_owned()),
        }
    }

    pub(super) fn freight(&self, handle: Handle) -> Result<Freight, String> {
        match self {
            Self::Symbols(store) => store.get(handle).map(Freight::Symbol),
            Self::Numbers(held) => {
                let payload = held.0.payload(handle).map(Freight::Numbers);
                payload.ok_or_else(|| format!("{handle:?} names nothing that travels"))
            }
        }
    }

    pub(super) fn forget(&mut self, handles: &[Handle]) -> Result<(), String> {
        match self {
            Self::Symbols(store) => store.forget(handles),
            Self::Numbers(held) => {
                held.0.drop_handles(handles);
                Ok(())
            }
        }
    }

    /// A state, as it is now.
    pub(super) fn state(&self, handle: Handle) -> Result<StateToWrite, String> {
        match self {
            Self::Symbols(store) => match store.get(handle)? {
                Value::State { origin, .. } => Ok(StateToWrite::Symbol(origin)),
                other => Err(format!("a state is written, not {other:?}")),
            },
            Self::Numbers(held) => {
                let state = held.0.state(handle).map(StateToWrite::Numbers);
                state.ok_or_else(|| format!("{handle:?} names no state"))
            }
        }
    }

    /// Begins a task. Numbers are computed at once; in virtual time they are there when the task ends.
    pub(super) fn begin(
        &mut self,
        id: TaskId,
        task: &Task,
        inputs: &[Handle],
        outputs: Vec<Handle>,
        (seed, chunks, files): (u64, u32, &Files),
    ) -> Result<Begun, String> {
        let lasts = files.remembers && matches!(task, Task::Step { .. } | Task::Rebuild { .. });
        let given_back = match task {
            Task::Rebuild { stage, recipe } if recipe.restores(*stage) && inputs.is_empty() => Some(*stage),
            _ => None,
        };
        match self {
            Self::Symbols(store) => {
                let context = Context { seed, chunks, folder: &files.symbols };
                let effects = match given_back.map(|stage| (stage, files.last.get(&stage))) {
                    Some((stage, Some(Last::Symbol(origin)))) => Effects::state(stage, *origin),
                    // It never was anything else.
                    Some((stage, _)) => run(&Task::Initialise { stage }, inputs, store, context)?,
                    None => run(task, inputs, store, context)?,
                };
                Ok(Begun::Symbols { outputs, effects: Box::new(effects), lasts })
            }
            Self::Numbers(held) => {
                let (store, engine) = held.as_mut();
                if let Task::Load { stage, iteration, state } = task {
                    let saved = files.states.get(&(*iteration, *stage));
                    let saved = saved.filter(|saved| saved.digest() == *state);
                    let saved = saved.ok_or_else(|| format!("{stage} of {iteration} was not saved"))?;
                    let done = Done::of_state(id, &outputs, saved);
                    return Ok(Begun::Numbers { done, lasts });
                }
                let task = match given_back.map(|stage| (stage, files.last.get(&stage))) {
                    Some((_, Some(Last::Numbers(state)))) => {
                        let done = Done::of_state(id, &outputs, state);
                        return Ok(Begun::Numbers { done, lasts });
                    }
                    // It never was anything else.
                    Some((stage, _)) => Task::Initialise { stage },
                    None => task.clone(),
                };
                let job: Job = store
                    .begin(id, task, inputs, outputs)
                    .map_err(|handle| format!("{handle:?} names nothing"))?;
                Ok(Begun::Numbers { done: engine.run(job), lasts })
            }
        }
    }

    /// A task ends.
    pub(super) fn finish(
        &mut self,
        begun: Begun,
        birth: (Iteration, Attempt),
        files: &mut Files,
    ) -> Result<Outcome, String> {
        match (self, begun) {
            (Self::Symbols(store), Begun::Symbols { outputs, effects, lasts }) => {
                if let (true, Some(Value::State { stage, origin })) = (lasts, effects.outputs.first()) {
                    files.last.insert(*stage, Last::Symbol(*origin));
                }
                effects.settle(store, &outputs, birth)?;
                Ok(effects.outcome)
            }
            (Self::Numbers(held), Begun::Numbers { done, lasts }) => {
                if let Some(state) = done.state().filter(|_| lasts) {
                    files.last.insert(state.stage, Last::Numbers(state.clone()));
                }
                Ok(held.0.finish(done))
            }
            _ => Err("symbols and numbers are mixed".to_owned()),
        }
    }

    /// The weights of a state; none of a symbol.
    pub(super) fn weights(&self, state: Handle) -> Option<Vec<f32>> {
        match self {
            Self::Symbols(_) => None,
            Self::Numbers(held) => held.0.values(state).map(|values| values.as_ref().clone()),
        }
    }
}
