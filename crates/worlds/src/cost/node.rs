//! A node's process: a worker core, symbolic tensors, and what its tasks and messages cost.

use super::tensors::{Begun, Freight, StateToWrite, Tensors};
use super::wires::{Pid, Sent, Way};
use super::world::{Event, World};
use super::{SimulateError, Tempo};
use crate::fault::value::Value;
use crate::wan::TaskTimes;
use skipstone_protocol::{
    Handle, Task, TaskId, ToCoordinator, ToPeer, ToWorker, Worker, WorkerCommand, WorkerInput,
};
use skipstone_types::{Attempt, Iteration, NodeId, StageId};

/// A task under way.
#[derive(Debug)]
struct Running {
    id: TaskId,
    begun: Begun,
}

/// A state on its way to the disk.
#[derive(Debug)]
struct Writing {
    id: TaskId,
    of: (Iteration, StageId),
    state: StateToWrite,
}

/// A process.
#[derive(Debug)]
pub(super) struct Node {
    /// Its place in the swarm, which it takes over from the one that it replaces.
    pub(super) place: usize,
    pub(super) region: u16,
    pub(super) alive: bool,
    /// Whether its successor was started when it said that it leaves.
    pub(super) succeeded: bool,
    pub(super) worker: Worker,
    /// The node that the coordinator knows it as.
    pub(super) bound: Option<NodeId>,
    times: TaskTimes,
    tensors: Tensors,
    running: Option<Running>,
    writing: Option<Writing>,
    stage: StageId,
    attempt: (Iteration, Attempt),
}

impl Node {
    pub(super) fn new(place: usize, region: u16, worker: Worker, times: TaskTimes, tensors: Tensors) -> Self {
        Self {
            place,
            region,
            alive: true,
            succeeded: false,
            worker,
            bound: None,
            times,
            tensors,
            running: None,
            writing: None,
            stage: StageId::ORIGIN,
            attempt: (Iteration(0), Attempt(0)),
        }
    }

    /// Stage and weights that it serves with; none of symbols.
    pub(super) fn weights(&self) -> Option<(StageId, Vec<f32>)> {
        let (stage, state) = self.worker.state()?;
        Some((stage, self.tensors.weights(state)?))
    }

    /// Forgets what it holds, at its death.
    pub(super) fn die(&mut self) {
        self.alive = false;
        self.tensors.clear();
        self.running = None;
        self.writing = None;
    }
}

impl World {
    /// The coordinator says something.
    pub(super) fn hear_hub(&mut self, pid: Pid, message: ToWorker) -> Result<(), SimulateError> {
        let node = &mut self.nodes[pid];
        match &message {
            ToWorker::Begin { iteration, attempt, .. } => {
                node.attempt = node.attempt.max((*iteration, *attempt));
            }
            ToWorker::Assign { stage, .. } => node.stage = *stage,
            _ => {}
        }
        let term = self.hub.term();
        self.tell(pid, WorkerInput::Coordinator { term, message })
    }

    /// A peer says something.
    pub(super) fn hear_peer(
        &mut self,
        pid: Pid,
        from: NodeId,
        message: ToPeer,
        payload: Option<Freight>,
        began_us: u64,
    ) -> Result<(), SimulateError> {
        let node = &mut self.nodes[pid];
        let birth = node.attempt;
        let received = payload.map(|freight| node.tensors.receive(freight, birth)).transpose();
        let payload = received.map_err(SimulateError::Bug)?;
        self.tell(pid, WorkerInput::Peer { from, message, payload, began_us })
    }

    /// Gives the worker an input, and carries its commands out.
    pub(super) fn tell(&mut self, pid: Pid, input: WorkerInput) -> Result<(), SimulateError> {
        let commands = self.nodes[pid].worker.on(input, self.now_us);
        for command in commands {
            match command {
                WorkerCommand::Compute { id, task, inputs, outputs } => {
                    self.compute(pid, id, &task, &inputs, outputs)?;
                }
                WorkerCommand::Write { id, stage, iteration, state, .. } => {
                    self.write(pid, id, (iteration, stage), state)?;
                }
                WorkerCommand::Drop { handles } => {
                    self.nodes[pid].tensors.forget(&handles).map_err(SimulateError::Bug)?;
                }
                WorkerCommand::SendCoordinator { message } => self.report_to_hub(pid, message),
                WorkerCommand::SendPeer { to, message, payload } => {
                    let tensors = &self.nodes[pid].tensors;
                    let payload = payload.map(|handle| tensors.freight(handle)).transpose();
                    self.send_to_peer(pid, to, message, payload.map_err(SimulateError::Bug)?);
                }
                // Everybody is reached under the name by which the coordinator knows it.
                WorkerCommand::Know { .. } | WorkerCommand::Forget { .. } => {}
                WorkerCommand::Exit { .. } => self.end_process(pid),
            }
        }
        Ok(())
    }

    fn report_to_hub(&mut self, pid: Pid, message: ToCoordinator) {
        let way = self.way_of_hub(pid, true);
        let sender = self.nodes[pid].worker.node();
        let at_us = self.wires.with_hub(pid, true, self.now_us, &way);
        self.queue.push(at_us + self.model.tempo.driver_us, Event::ToHub { pid, sender, message });
    }

    fn send_to_peer(&mut self, pid: Pid, to: NodeId, message: ToPeer, payload: Option<Freight>) {
        let Some(target) = self.pids.get(&to).copied().filter(|target| self.nodes[*target].alive) else {
            return;
        };
        let bytes = payload.as_ref().map(|freight| match freight {
            Freight::Symbol(value) => self.payload_bytes(self.nodes[pid].stage, value),
            Freight::Numbers(payload) => payload.len() as f64,
        });
        self.sent_bytes += bytes.unwrap_or(0.0);
        let way = self.model.way(self.nodes[pid].region, self.nodes[target].region);
        let from = self.nodes[pid].worker.node();
        match self.wires.send((pid, target), self.now_us, bytes, &way, self.model.tempo.connect_us) {
            Sent::Arrives { at_us, began_us } => {
                let event = Event::ToPeer { pid: target, from, message, payload, began_us };
                self.queue.push(at_us + self.model.tempo.driver_us, event);
            }
            Sent::Dialled { stands_us } => {
                self.queue.push(stands_us, Event::PeerUp { pid, peer: target });
                self.queue.push(stands_us, Event::PeerUp { pid: target, peer: pid });
            }
            Sent::Lost => {}
        }
    }

    /// The link from a node to the coordinator, or back.
    pub(super) fn way_of_hub(&self, pid: Pid, to_hub: bool) -> Way {
        let (node, hub) = (self.nodes[pid].region, self.model.network.coordinator());
        let way = if to_hub { self.model.way(node, hub) } else { self.model.way(hub, node) };
        if self.model.coordinator_beside {
            Way { latency_us: 0, round_trip_us: 0, unsteady: None, ..way }
        } else {
            way
        }
    }

    /// Bytes of what a node of this stage sends.
    fn payload_bytes(&self, serves: StageId, value: &Value) -> f64 {
        let gradient = self.model.stage(serves).gradient;
        match value {
            Value::Activation { .. } | Value::Gradient { .. } | Value::Saved { .. } => {
                self.model.activation_bytes
            }
            Value::Chunk { stage, count, format, .. } => {
                format.share() * self.model.stage(*stage).state / f64::from((*count).max(1))
            }
            Value::Frozen { stage, format, .. } => format.share() * self.model.stage(*stage).state,
            Value::State { stage, .. } => self.model.stage(*stage).state,
            Value::Part { parts, .. } | Value::ReducedPart { parts, .. } => {
                self.model.reduce_share * gradient / f64::from((*parts).max(1))
            }
            Value::Sum { .. } | Value::Reduced { .. } => gradient,
        }
    }

    fn compute(
        &mut self,
        pid: Pid,
        id: TaskId,
        task: &Task,
        inputs: &[Handle],
        outputs: Vec<Handle>,
    ) -> Result<(), SimulateError> {
        let node = &mut self.nodes[pid];
        let chunks = self.model.stage(node.stage).chunks;
        let context = (self.model.settings.seed, chunks, &self.files);
        let begun = node.tensors.begin(id, task, inputs, outputs, context).map_err(SimulateError::Bug)?;
        let node = &self.nodes[pid];
        let took_us = match node.times.of(task) {
            Some(modelled) => modelled.as_micros() as u64,
            None => self.moving_us(node.stage, task, inputs.len()),
        };
        self.nodes[pid].running = Some(Running { id, begun });
        self.queue.push(self.now_us + took_us + self.model.tempo.driver_us, Event::Computed { pid, id });
        Ok(())
    }

    /// How long a task takes that only moves bytes.
    fn moving_us(&self, stage: StageId, task: &Task, inputs: usize) -> u64 {
        let bytes = self.model.stage(stage);
        let moved = match task {
            // A sum takes a part of each contributor: about a gradient in all.
            Task::NewSum | Task::Measure | Task::Sum { .. } => bytes.gradient,
            // In and out, of the part.
            Task::Part { count, .. } => 2.0 * bytes.gradient / f64::from((*count).max(1)),
            Task::Assemble => 2.0 * bytes.gradient,
            Task::Step { .. } => bytes.gradient + 2.0 * bytes.state,
            Task::Initialise { .. } | Task::Load { .. } | Task::Join { .. } => 2.0 * bytes.state,
            // What is rounded is read, written, and read again for its digest.
            Task::Freeze { format } if format.rounds() => (1.0 + 2.0 * format.share()) * bytes.state,
            Task::Rebuild { .. } => bytes.state * (1 + inputs) as f64,
            Task::Chunk { .. } => 2.0 * bytes.state / f64::from(bytes.chunks),
            _ => 0.0,
        };
        self.time_of(moved)
    }

    /// How long it takes to move so many bytes.
    fn time_of(&self, moved: f64) -> u64 {
        let Tempo { task_us, moved_bytes_per_us, .. } = self.model.tempo;
        task_us + if moved_bytes_per_us == 0 { 0 } else { (moved / moved_bytes_per_us as f64) as u64 }
    }

    /// A node begins to write its state, beside its tasks.
    fn write(
        &mut self,
        pid: Pid,
        id: TaskId,
        of: (Iteration, StageId),
        state: Handle,
    ) -> Result<(), SimulateError> {
        let state = self.nodes[pid].tensors.state(state).map_err(SimulateError::Bug)?;
        self.nodes[pid].writing = Some(Writing { id, of, state });
        let took_us = self.time_of(2.0 * self.model.stage(of.1).state);
        self.queue.push(self.now_us + took_us + self.model.tempo.driver_us, Event::NodeWritten { pid, id });
        Ok(())
    }

    /// A state is on the disk.
    pub(super) fn node_written(&mut self, pid: Pid, id: TaskId) -> Result<(), SimulateError> {
        let Some(writing) = self.nodes[pid].writing.take_if(|writing| writing.id == id) else {
            return Ok(());
        };
        self.files.write(writing.of, writing.state);
        self.tell(pid, WorkerInput::Written { id, written: Ok(()) })
    }

    /// A task is over.
    pub(super) fn computed(&mut self, pid: Pid, id: TaskId) -> Result<(), SimulateError> {
        let node = &mut self.nodes[pid];
        let Some(Running { begun, .. }) = node.running.take_if(|task| task.id == id) else {
            return Ok(());
        };
        let outcome =
            node.tensors.finish(begun, node.attempt, &mut self.files).map_err(SimulateError::Bug)?;
        self.tell(pid, WorkerInput::Computed { id, outcome })
    }
}
