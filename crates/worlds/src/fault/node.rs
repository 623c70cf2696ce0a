//! A node's process: a worker core, its handle store, and the driver that carries out its commands.

use super::compute::{Context, Effects, run};
use super::invariants::Observation;
use super::lies::{Lies, added};
use super::provenance::{self as made, Origin};
use super::slow::Haste;
use super::store::Store;
use super::value::{Kind, Poison, Value};
use super::world::{Broken, Checked, Event, World};
use skipstone_protocol::{
    Handle, Outcome, Task, TaskId, ToPeer, ToWorker, Worker, WorkerCommand, WorkerInput,
};
use skipstone_types::{Attempt, Digest, Iteration, Microbatch, NodeId, StageId, Term};
use std::collections::{BTreeMap, BTreeSet};

/// A process that ever was, by number.
pub(super) type Pid = usize;

/// What happens to a node.
#[derive(Debug, Clone)]
pub(super) enum NodeEvent {
    /// It tries to reach the coordinator.
    Dial,
    /// Its connection to the coordinator stands.
    Up { connection: u64 },
    /// Its connection to the coordinator is gone.
    Down { connection: u64 },
    /// The coordinator says something.
    Frame { connection: u64, term: Term, message: ToWorker },
    /// A connection to a peer stands.
    PeerUp { link: u64, peer: NodeId },
    /// A peer says something.
    PeerFrame { link: u64, from: NodeId, message: ToPeer, payload: Option<Value> },
    /// Its task is over.
    Computed { id: TaskId },
    /// Its write is over.
    Written { id: TaskId },
    /// It goes on after standing still.
    Wake,
}

/// A task under way.
#[derive(Debug, Clone)]
struct Running {
    id: TaskId,
    outputs: Vec<Handle>,
    effects: Effects,
}

/// A state on its way to the disk.
#[derive(Debug, Clone)]
struct Writing {
    id: TaskId,
    state: (Iteration, StageId, Origin),
    failed: Option<&'static str>,
}

/// Wrong numbers that a node will compute once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A reduced gradient.
    Gradient,
    /// The state after a step.
    State,
    /// The copy of a replica's state.
    Copy,
    /// The sum of its gradients, in this way where it can be told, once in each of its next iterations.
    Share { how: Poisoning, times: u8 },
}

/// What is done to a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Poisoning {
    NotFinite,
    Scaled,
    Stale,
}

/// Shares of a stage that must be known before one that is scaled can be told.
const SHARES_KNOWN_MIN: usize = 8;

/// A process.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it runs, for those who dial it.
    pub(super) machine: usize,
    pub(super) worker: Worker,
    pub(super) store: Store,
    pub(super) alive: bool,
    pub(super) id: NodeId,
    /// The connection to the coordinator, as this end sees it.
    pub(super) connection: Option<u64>,
    pub(super) hub_blocked_until: u64,
    /// The machines of nodes.
    pub(super) addresses: BTreeMap<NodeId, usize>,
    pub(super) forgotten: BTreeSet<NodeId>,
    /// Processes that it lets in no more, whatever they are called, until it hears where one of them is.
    pub(super) forbidden: BTreeSet<Pid>,
    /// Dies before its n-th command from now.
    pub(super) crash_in: Option<u32>,
    pub(super) fail_next_task: bool,
    pub(super) stalled: bool,
    pub(super) haste: Haste,
    /// How far its clock is off.
    pub(super) clock_us: i64,
    pub(super) wrong: Option<Wrong>,
    /// What it lies about.
    pub(super) lies: Option<Lies>,
    /// Microbatches of another node's share that it was told to compute again.
    pub(super) checks: BTreeSet<Microbatch>,
    /// The last iteration in which its sum was poisoned: what comes out again is taken for the data's doing.
    poisoned_in: Option<Iteration>,
    /// Whether its state is not what it should be.
    pub(super) tainted: bool,
    /// Whether it was told to leave: its successor is started then, not when it is gone.
    pub(super) drained: bool,
    inbox: Vec<NodeEvent>,
    running: Option<Running>,
    writing: Option<Writing>,
    /// The newest attempt begun.
    pub(super) attempt: (Iteration, Attempt),
}

impl Node {
    /// Whether it will be gone before long, as far as is known now: it dies, fails at its task, or leaves.
    pub(super) fn is_doomed(&self) -> bool {
        let fails = |running: &Running| matches!(running.effects.outcome, Outcome::Failed { .. });
        self.crash_in.is_some()
            || self.fail_next_task
            || self.drained
            || self.running.as_ref().is_some_and(fails)
    }

    pub(super) fn task_under_way(&self) -> Option<TaskId> {
        self.running.as_ref().map(|running| running.id)
    }

    pub(super) fn write_under_way(&self) -> Option<TaskId> {
        self.writing.as_ref().map(|writing| writing.id)
    }
}

fn address(machine: usize) -> String {
    format!("machine:{machine}")
}

impl World {
    /// A new process, empty, on a machine of its own.
    pub(super) fn spawn(&mut self) {
        let (pid, machine) = (self.nodes.len(), self.machines.len());
        self.machines.push(pid);
        self.nodes.push(Node {
            machine,
            worker: Worker::new(self.plan.settings.run, address(machine), pid as u32),
            store: Store::default(),
            alive: true,
            id: NodeId(0),
            connection: None,
            hub_blocked_until: 0,
            addresses: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            forbidden: BTreeSet::new(),
            crash_in: None,
            fail_next_task: false,
            stalled: false,
            haste: Haste::new(),
            clock_us: 0,
            wrong: None,
            lies: None,
            checks: BTreeSet::new(),
            poisoned_in: None,
            tainted: false,
            drained: false,
            inbox: Vec::new(),
            running: None,
            writing: None,
            attempt: (Iteration(0), Attempt(0)),
        });
        self.dial_hub(pid);
    }

    /// A process comes back as it was once, on its machine.
    pub(super) fn restore(&mut self, image: &Node) {
        if image.tainted {
            // What it had has been told from the others' meanwhile; alone, nobody could tell any more.
            return self.spawn();
        }
        let pid = self.nodes.len();
        self.machines[image.machine] = pid;
        let node = Node {
            alive: true,
            connection: None,
            crash_in: None,
            fail_next_task: false,
            stalled: false,
            inbox: Vec::new(),
            ..image.clone()
        };
        if let Some(running) = &node.running {
            let id = running.id;
            let took = self.draw(self.plan.tempo.task_us);
            self.schedule(took, Event::Node(pid, NodeEvent::Computed { id }));
        }
        if let Some(id) = node.write_under_way() {
            let took = self.plan.write_tasks * self.draw(self.plan.tempo.task_us);
            self.schedule(took, Event::Node(pid, NodeEvent::Written { id }));
        }
        self.nodes.push(node);
        self.dial_hub(pid);
    }

    /// The process is gone, and replaced if that is the way of the run.
    pub(super) fn kill(&mut self, pid: Pid) {
        if self.nodes[pid].alive
            && self.plan.settings.respawn
            && !self.hub.ended()
            && !self.nodes[pid].drained
        {
            let (delay, invocation) = (self.draw(self.plan.tempo.respawn_us), self.invocation.number);
            self.schedule(delay, Event::Spawn { invocation });
        }
        self.end_process(pid);
    }

    /// The process is gone.
    pub(super) fn end_process(&mut self, pid: Pid) {
        if !self.nodes[pid].alive {
            return;
        }
        self.nodes[pid].alive = false;
        self.note_loss(self.nodes[pid].id);
        if self.is_traced() {
            self.remember(&format!("    pid {pid} dies"));
        }
        self.nodes[pid].inbox.clear();
        self.nodes[pid].store = Store::default();
        let drains = self.random.chance(self.plan.drain);
        self.node_end_gone(pid, drains);
        self.close_links_of(pid, drains);
    }

    /// Something happens to a node.
    pub(super) fn node_event(&mut self, pid: Pid, event: NodeEvent) -> Checked {
        if !self.nodes[pid].alive {
            return Ok(());
        }
        if matches!(event, NodeEvent::Wake) {
            self.nodes[pid].stalled = false;
            for waiting in std::mem::take(&mut self.nodes[pid].inbox) {
                self.node_event(pid, waiting)?;
            }
            return Ok(());
        }
        if self.nodes[pid].stalled {
            self.nodes[pid].inbox.push(event);
            return Ok(());
        }
        match event {
            NodeEvent::Wake => Ok(()),
            NodeEvent::Dial => {
                self.dial_hub(pid);
                Ok(())
            }
            NodeEvent::Up { connection } => {
                if self.nodes[pid].connection == Some(connection) && self.wiring.reaches_node(connection) {
                    self.tell(pid, WorkerInput::CoordinatorUp)?;
                }
                Ok(())
            }
            NodeEvent::Down { connection } => {
                if self.nodes[pid].connection == Some(connection) {
                    self.nodes[pid].connection = None;
                    self.tell(pid, WorkerInput::CoordinatorDown)?;
                    let delay = self.draw(self.plan.tempo.redial_us);
                    self.schedule(delay, Event::Node(pid, NodeEvent::Dial));
                }
                Ok(())
            }
            NodeEvent::Frame { connection, term, message } => {
                if self.nodes[pid].connection == Some(connection) && self.wiring.reaches_node(connection) {
                    let newest = &mut self.nodes[pid].attempt;
                    match &message {
                        ToWorker::Begin { iteration, attempt, .. } => {
                            *newest = (*newest).max((*iteration, *attempt));
                            self.nodes[pid].checks.clear();
                        }
                        // What it is given itself it computes for others no more.
                        ToWorker::Reroute { duties, .. } => {
                            let checks = &mut self.nodes[pid].checks;
                            duties.iter().for_each(|duty| _ = checks.remove(&duty.microbatch));
                        }
                        ToWorker::Check { additions, .. } => {
                            self.nodes[pid].checks = additions.iter().copied().map(added).collect();
                        }
                        ToWorker::Welcome { empty: true, .. } => {
                            *newest = (Iteration(0), Attempt(0));
                            self.nodes[pid].tainted = false;
                        }
                        _ => {}
                    }
                    self.tell(pid, WorkerInput::Coordinator { term, message })?;
                }
                Ok(())
            }
            NodeEvent::PeerUp { link, peer } => {
                if self.is_linked(link, self.nodes[pid].id, peer) {
                    self.tell(pid, WorkerInput::PeerUp { peer })?;
                }
                Ok(())
            }
            NodeEvent::PeerFrame { link, from, message, payload } => {
                if self.is_heard(link, pid, from) {
                    self.hear_peer(pid, from, message, payload)?;
                }
                Ok(())
            }
            NodeEvent::Computed { id } => self.computed(pid, id),
            NodeEvent::Written { id } => self.state_written(pid, id),
        }
    }

    fn hear_peer(&mut self, pid: Pid, from: NodeId, message: ToPeer, payload: Option<Value>) -> Checked {
        let node = &mut self.nodes[pid];
        let birth = match &message {
            ToPeer::Boundary { iteration, attempt, .. }
            | ToPeer::Part { iteration, attempt, .. }
            | ToPeer::Reduced { iteration, attempt, .. } => (*iteration, *attempt),
            _ => node.attempt,
        };
        let payload =
            payload.map(|value| node.store.receive(value, birth)).transpose().map_err(Broken::interface)?;
        let began_us = self.now;
        self.tell(pid, WorkerInput::Peer { from, message, payload, began_us })
    }

    /// Gives the worker an input, and carries out its commands.
    pub(super) fn tell(&mut self, pid: Pid, input: WorkerInput) -> Checked {
        let now = self.now.saturating_add_signed(self.nodes[pid].clock_us);
        let ended_task = matches!(input, WorkerInput::Computed { .. });
        let commands = self.nodes[pid].worker.on(input, now);
        let id = self.nodes[pid].worker.node();
        if id != self.nodes[pid].id {
            // Peers knew it under its old id.
            self.close_links_of(pid, false);
            self.nodes[pid].id = id;
        }
        for command in commands {
            if let Some(left) = self.nodes[pid].crash_in.as_mut() {
                if *left == 0 {
                    self.kill(pid);
                    return Ok(());
                }
                *left -= 1;
            }
            if self.is_traced() {
                self.remember(&format!("    {id} (pid {pid}): {command:?}"));
            }
            self.carry_out(pid, command)?;
            if !self.nodes[pid].alive {
                return Ok(());
            }
        }
        let node = &self.nodes[pid];
        let (store, attempt) = (&node.store, node.attempt);
        let seen = Observation::Stored { node: id, store, attempt, settled: ended_task };
        self.invariants.observe(&seen, &self.truth)
    }

    fn carry_out(&mut self, pid: Pid, command: WorkerCommand) -> Checked {
        match command {
            WorkerCommand::Compute { id, task, inputs, outputs } => {
                self.compute(pid, id, &task, &inputs, outputs)
            }
            WorkerCommand::Write { id, stage, iteration, digest, state } => {
                self.write(pid, id, (iteration, stage, digest), state)
            }
            WorkerCommand::Drop { handles } => {
                if self.is_leaking() {
                    return Ok(());
                }
                self.nodes[pid].store.forget(&handles).map_err(|why| self.misuse(pid, &why))
            }
            WorkerCommand::SendCoordinator { message } => {
                let node = self.nodes[pid].id;
                self.observe(&Observation::Reported { node, message: &message })?;
                self.send_to_hub(pid, message)
            }
            WorkerCommand::SendPeer { to, message, payload } => {
                let payload = payload
                    .map(|handle| self.nodes[pid].store.get(handle))
                    .transpose()
                    .map_err(|why| self.misuse(pid, &why))?;
                self.send_to_peer(pid, to, message, payload)
            }
            WorkerCommand::Know { addresses } => {
                for (node, at) in addresses {
                    let known = at.strip_prefix("machine:").and_then(|machine| machine.parse().ok());
                    let known =
                        known.ok_or_else(|| Broken::interface(format!("{at} is nobody's address")))?;
                    self.nodes[pid].addresses.insert(node, known);
                    let process = self.machines[known];
                    self.nodes[pid].forbidden.remove(&process);
                }
                Ok(())
            }
            WorkerCommand::Forget { peers } => {
                self.forget_peers(pid, &peers);
                Ok(())
            }
            WorkerCommand::Exit { why, .. } => {
                if self.is_traced() {
                    self.remember(&format!("    pid {pid} exits: {why}"));
                }
                self.kill(pid);
                Ok(())
            }
        }
    }

    fn misuse(&self, pid: Pid, why: &str) -> Broken {
        Broken {
            invariant: "handles_name_what_exists",
            what: format!("{} (pid {pid}): {why}", self.nodes[pid].id),
        }
    }

    fn compute(
        &mut self,
        pid: Pid,
        id: TaskId,
        task: &Task,
        inputs: &[Handle],
        outputs: Vec<Handle>,
    ) -> Checked {
        if self.nodes[pid].running.is_some() {
            return Err(Broken::interface(format!(
                "pid {pid} starts {id:?} while another task is under way"
            )));
        }
        let context =
            Context { seed: self.plan.settings.seed, chunks: self.plan.chunks, folder: &self.folder };
        // The very first weights are not to be had when this fails, and the run is refused: not a fault to survive.
        let first = matches!(task, Task::Initialise { .. });
        let effects = if !first && std::mem::take(&mut self.nodes[pid].fail_next_task) {
            self.count(super::Fault::Task);
            Effects::failed("injected")
        } else {
            run(task, inputs, &self.nodes[pid].store, context)
                .map_err(|why| self.misuse(pid, &format!("{id:?}: {why}")))?
        };
        let effects = self.miscompute(pid, task, inputs, effects)?;
        let effects = self.poison(pid, task, effects)?;
        let effects = self.lie(pid, task, effects)?;
        let effects = self.tamper_with_task(pid, task, effects);
        let failed = matches!(effects.outcome, Outcome::Failed { .. });
        if !failed && effects.outputs.len() != outputs.len() {
            return Err(self.misuse(pid, &format!("{task:?} has outputs {outputs:?}")));
        }
        let node = self.nodes[pid].id;
        let makes = effects.outputs.first().and_then(|value| match value {
            Value::State { stage, .. } => Some(*stage),
            _ => None,
        });
        self.observe(&Observation::Started { node, task, makes })?;
        if let Some(rebuilt) = &effects.rebuilt {
            self.observe(&Observation::Rebuilt { rebuilt })?;
        }
        if let Some((iteration, stage, digest)) = effects.loaded {
            self.observe(&Observation::Loaded { iteration, stage, digest })?;
        }
        self.nodes[pid].running = Some(Running { id, outputs, effects });
        let took = self.task_time(pid);
        self.schedule(took, Event::Node(pid, NodeEvent::Computed { id }));
        Ok(())
    }

    fn computed(&mut self, pid: Pid, id: TaskId) -> Checked {
        let Some(Running { outputs, effects, .. }) = self.nodes[pid].running.take_if(|task| task.id == id)
        else {
            return Ok(());
        };
        let slots = self.plan.settings.slots;
        let node = &mut self.nodes[pid];
        let birth = node.attempt;
        let settled = effects.settle(&mut node.store, &outputs, birth);
        settled.map_err(|why| self.misuse(pid, &why))?;
        let saved = self.nodes[pid].store.count(Kind::Saved);
        self.observe(&Observation::Slots { node: self.nodes[pid].id, saved, slots })?;
        self.tell(pid, WorkerInput::Computed { id, outcome: effects.outcome })
    }

    /// A node begins to write its state, beside its task.
    fn write(
        &mut self,
        pid: Pid,
        id: TaskId,
        (iteration, stage, digest): (Iteration, StageId, Digest),
        handle: Handle,
    ) -> Checked {
        if self.nodes[pid].writing.is_some() {
            return Err(Broken::interface(format!(
                "pid {pid} writes {id:?} while another write is under way"
            )));
        }
        let value = self.nodes[pid].store.get(handle).map_err(|why| self.misuse(pid, &why))?;
        let Value::State { stage: of, origin } = value else {
            return Err(self.misuse(pid, &format!("{id:?}: a state is written, not {value:?}")));
        };
        if (of, made::digest(origin)) != (stage, digest) {
            return Err(self.misuse(pid, &format!("{id:?}: {value:?} is not {digest} of {stage}")));
        }
        let failed = if std::mem::take(&mut self.nodes[pid].fail_next_task) {
            self.count(super::Fault::Task);
            Some("injected")
        } else {
            (self.folder.full_until_us > self.now).then_some("no space left on the disk")
        };
        self.nodes[pid].writing = Some(Writing { id, state: (iteration, of, origin), failed });
        let took = self.task_time(pid) + (self.plan.write_tasks - 1) * self.draw(self.plan.tempo.task_us);
        self.schedule(took, Event::Node(pid, NodeEvent::Written { id }));
        Ok(())
    }

    fn state_written(&mut self, pid: Pid, id: TaskId) -> Checked {
        let Some(writing) = self.nodes[pid].writing.take_if(|writing| writing.id == id) else {
            return Ok(());
        };
        let written = writing.failed.map_or(Ok(()), |why| Err(why.to_owned()));
        if written.is_ok() {
            let (iteration, stage, state) = writing.state;
            self.folder.write(iteration, stage, state);
        }
        self.tell(pid, WorkerInput::Written { id, written })
    }

    /// Nodes that hold a stage now.
    fn holders(&self, stage: StageId) -> usize {
        let holds = |node: &NodeId| {
            let held = self.truth.held.get(node).filter(|held| held.stage == stage);
            held.is_some_and(|held| held.iteration.0 + 1 >= self.truth.committed())
        };
        self.wiring.bound().filter(|(node, _)| holds(node)).count()
    }

    /// Whether enough others make the same step to tell that a node made another. Only those that were members when the
    /// iteration was decided are asked.
    fn is_outvoted(&self, node: NodeId, stage: Option<StageId>, iteration: Iteration) -> bool {
        let record = self.truth.records.get(iteration.0 as usize);
        let Some(part) = record.zip(stage).and_then(|(record, stage)| record.stage(stage)) else {
            return false;
        };
        let living = self.wiring.bound().filter(|(other, _)| part.members.contains(other)).count();
        part.members.contains(&node) && living >= 3
    }

    /// Alters what a task makes, if the node is to compute wrong numbers and others can tell.
    fn miscompute(
        &mut self,
        pid: Pid,
        task: &Task,
        inputs: &[Handle],
        mut effects: Effects,
    ) -> Result<Effects, Broken> {
        let node = self.nodes[pid].id;
        let stage = self.truth.serves(node);
        if let Task::Join { .. } = task
            && is_mixed(&effects, &self.nodes[pid].store, inputs)
        {
            self.observe(&Observation::Miscomputed { node })?;
        }
        let replicas = stage.map_or(0, |stage| self.holders(stage));
        let wrong = self.nodes[pid].wrong;
        let altered = match (wrong, task) {
            (Some(Wrong::Gradient), Task::Assemble) => inputs.len() >= 2 && self.chaos.poisoned.is_none(),
            (Some(Wrong::State), Task::Step { iteration, .. }) => {
                self.chaos.poisoned.is_none() && self.is_outvoted(node, stage, *iteration)
            }
            (Some(Wrong::Copy), Task::Join { stage: of, .. }) => stage == Some(*of) && replicas >= 2,
            _ => false,
        };
        if !altered || effects.outputs.is_empty() {
            return Ok(effects);
        }
        self.nodes[pid].wrong = None;
        self.count(super::Fault::Numbers);
        effects.alter(node);
        if let (Task::Step { .. } | Task::Assemble, Some(stage), Some(wrong)) = (task, stage, wrong) {
            self.chaos.poisoned = Some((node, stage, wrong));
            self.nodes[pid].tainted |= wrong == Wrong::State;
        }
        self.observe(&Observation::Miscomputed { node })?;
        Ok(effects)
    }
}

impl World {
    /// Poisons the sum that a task adds to, if the node is to have a wrong one.
    fn poison(&mut self, pid: Pid, task: &Task, mut effects: Effects) -> Result<Effects, Broken> {
        if self.is_of_check(pid, task) {
            return Ok(effects);
        }
        let (node, (iteration, attempt)) = (self.nodes[pid].id, self.nodes[pid].attempt);
        let Some(Wrong::Share { how, times }) = self.nodes[pid].wrong else { return Ok(effects) };
        let again = self.nodes[pid].poisoned_in == Some(iteration);
        let (Some((_, Value::Sum { poison, .. })), Some(stage), false) =
            (&mut effects.replaced, self.truth.serves(node), again)
        else {
            return Ok(effects);
        };
        let known = self.truth.share_norms(stage);
        *poison = Some(match (how, known.first()) {
            (Poisoning::Scaled, _) if known.len() >= SHARES_KNOWN_MIN => Poison::Scaled,
            (Poisoning::Stale, Some(norm)) => Poison::Stale { norm_bits: norm.to_bits() },
            _ => Poison::NotFinite,
        });
        self.nodes[pid].poisoned_in = Some(iteration);
        self.nodes[pid].wrong = (times > 1).then_some(Wrong::Share { how, times: times.saturating_sub(1) });
        self.count(super::Fault::Numbers);
        self.observe(&Observation::Poisoned { node, iteration, attempt })?;
        Ok(effects)
    }
}

/// Whether a joined state is nobody's: its chunks came from donors that do not hold the same.
fn is_mixed(effects: &Effects, store: &Store, chunks: &[Handle]) -> bool {
    let joined = effects.outputs.first();
    let same = |chunk: &Handle| {
        matches!((store.get(*chunk), joined),
            (Ok(Value::Chunk { origin, .. }), Some(Value::State { origin: made, .. } | Value::Frozen { origin: made, .. }))
                if origin == *made)
    };
    !chunks.iter().all(same)
}
