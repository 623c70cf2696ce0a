//! A swarm in a queue: one coordinator, some nodes, messages delivered in the order in which they were sent.

use skipstone_data::{SampleOrder, TokenDataset};
use skipstone_net::Payload;
use skipstone_planner::{BalancedChooser, PathChooser};
use skipstone_protocol::{
    CommitRecord, Coordinator, CoordinatorCommand, CoordinatorInput, End, Entry, FailureDomain, Handle,
    Outcome, Task, ToPeer, Worker, WorkerCommand, WorkerInput,
};
use skipstone_types::{Digest, Event, Iteration, NodeId, PlaceAnswer, RunId, Settings};
use skipstone_worlds::config::{RunConfig, RunShape};
use skipstone_worlds::live::publish::StateManifest;
use skipstone_worlds::live::store::{
    Engine, EngineSetup, Feed, OptimizerSetup, StateWriter, TensorStore, WriteJob,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

/// Tokens of the tests' vocabulary.
pub(crate) const VOCABULARY: usize = 61;

/// A configuration small enough to be run hundreds of times.
pub(crate) fn small(stages: u16, origin_layers: usize, replicas: u16) -> RunConfig {
    RunConfig {
        layers: Some(usize::from(stages) + origin_layers),
        width: Some(32),
        heads: Some(2),
        ffn: Some(48),
        context: Some(12),
        batch: 2,
        microbatches: 5,
        stages,
        origin_layers,
        replicas,
        steps: 2,
        warmup: Some(0),
        seed: 3,
        threads: Some(1),
        ..RunConfig::default()
    }
}

/// Tokens that are neither constant nor random.
pub(crate) fn feed(config: &RunConfig) -> Feed {
    let tokens: Vec<u32> =
        (0..4000_u32).map(|at| (at * at / 7 + at * 13) % (VOCABULARY as u32 - 1)).collect();
    let dataset = TokenDataset::split(tokens, VOCABULARY, 10).unwrap();
    let shape = config.batch_shape().unwrap();
    let order = SampleOrder::new(config.seed, dataset.train().len(), shape).unwrap();
    Feed::new(Arc::new(dataset), order)
}

pub(crate) fn engine_setup(config: &RunConfig, shape: &RunShape, state: PathBuf) -> EngineSetup {
    EngineSetup {
        shape: shape.clone(),
        optimizer: OptimizerSetup {
            raise_kept: 1.0,
            beta1: config.beta1,
            beta2: config.beta2,
            epsilon: config.epsilon,
            weight_decay: config.weight_decay,
        },
        seed: config.seed,
        wire: config.wire,
        reduce: config.reduce,
        digests: config.spot_check_every() > 0,
        threads: 1,
        tokens: PathBuf::new(),
        state,
    }
}

enum News {
    Coordinator(CoordinatorInput),
    Node(usize, WorkerInput),
    Frame { to: usize, from: NodeId, message: ToPeer, payload: Option<Payload> },
}

struct Process {
    worker: Worker,
    store: TensorStore,
    engine: Engine,
    alive: bool,
    node: NodeId,
    commands: u32,
    peers: BTreeMap<NodeId, usize>,
}

/// A run.
pub(crate) struct Swarm {
    settings: Settings,
    setup: EngineSetup,
    feed: Feed,
    coordinator: Coordinator,
    processes: Vec<Process>,
    queue: VecDeque<News>,
    now_us: u64,
    /// Process and number of its command before which it dies.
    kill: Option<(usize, u32)>,
    /// Whether a dead process is replaced by an empty one.
    respawn: bool,
    pub(crate) killed: bool,
    pub(crate) end: Option<End>,
    pub(crate) journal: Vec<Entry>,
    pub(crate) events: Vec<Event>,
    /// What was saved last.
    pub(crate) published: Option<StateManifest>,
    /// Every reduced gradient that was made, by its digest.
    pub(crate) gradients: BTreeMap<Digest, Arc<Vec<f32>>>,
    tasks: BTreeMap<(usize, u64), (bool, Vec<Handle>)>,
}

impl Swarm {
    pub(crate) fn new(config: &RunConfig, kill: Option<(usize, u32)>, state: PathBuf) -> Self {
        let mut settings = config.settings().unwrap();
        settings.run = RunId(9);
        let shape = config.shape(VOCABULARY).unwrap();
        let (coordinator, commands) = Coordinator::open(settings.clone(), &[], None, 0);
        let mut swarm = Self {
            setup: engine_setup(config, &shape, state),
            feed: feed(config),
            coordinator,
            processes: Vec::new(),
            queue: VecDeque::new(),
            now_us: 0,
            kill,
            respawn: config.respawn,
            killed: false,
            end: None,
            journal: Vec::new(),
            events: Vec::new(),
            published: None,
            gradients: BTreeMap::new(),
            tasks: BTreeMap::new(),
            settings,
        };
        swarm.carry_out(commands);
        for _ in 0..swarm.settings.nodes() {
            swarm.spawn();
        }
        swarm
    }

    fn spawn(&mut self) {
        let index = self.processes.len();
        self.processes.push(Process {
            worker: Worker::new(self.settings.run, index.to_string(), 0),
            store: TensorStore::default(),
            engine: Engine::new(self.setup.clone(), Some(self.feed.clone())).unwrap(),
            alive: true,
            node: NodeId(0),
            commands: 0,
            peers: BTreeMap::new(),
        });
        self.queue.push_back(News::Node(index, WorkerInput::CoordinatorUp));
    }

    /// Runs to the end of the run.
    pub(crate) fn run(mut self) -> Self {
        for _ in 0..200_000 {
            if self.end.is_some() {
                return self;
            }
            self.now_us += 20;
            match self.queue.pop_front() {
                None => {
                    self.now_us += 50_000;
                    self.tell_coordinator(CoordinatorInput::Tick);
                }
                Some(News::Coordinator(input)) => self.tell_coordinator(input),
                Some(News::Node(index, input)) => self.tell_node(index, input),
                Some(News::Frame { to, from, message, payload }) => {
                    let process = &mut self.processes[to];
                    let payload = payload.and_then(|payload| process.store.receive(payload));
                    self.tell_node(to, WorkerInput::Peer { from, message, payload, began_us: 0 });
                }
            }
        }
        panic!("the run does not end: {:?}\n{:?}", self.kill, self.coordinator);
    }

    /// Records of committed iterations.
    pub(crate) fn records(&self) -> Vec<&CommitRecord> {
        self.journal
            .iter()
            .filter_map(|entry| match entry {
                Entry::Committed(record) => Some(record.as_ref()),
                _ => None,
            })
            .collect()
    }

    /// The state of a stage as its first living node holds it.
    pub(crate) fn commands_of(&self, process: usize) -> u32 {
        self.processes[process].commands
    }

    /// Tensors that living nodes still hold, at most.
    pub(crate) fn tensors_max(&self) -> usize {
        self.processes
            .iter()
            .filter(|process| process.alive)
            .map(|process| process.store.len())
            .max()
            .unwrap_or(0)
    }

    /// Bytes that nodes keep for reuse, at most.
    pub(crate) fn idle_bytes_max(&self) -> u64 {
        self.processes.iter().map(|process| process.engine.idle_bytes()).max().unwrap_or(0)
    }

    fn tell_coordinator(&mut self, input: CoordinatorInput) {
        let commands = self.coordinator.on(input, self.now_us);
        self.carry_out(commands);
    }

    fn carry_out(&mut self, commands: Vec<CoordinatorCommand>) {
        for command in commands {
            match command {
                CoordinatorCommand::Bind { connection, node } => {
                    self.processes[connection as usize].node = node;
                }
                CoordinatorCommand::Send { to, message } => {
                    let term = self.coordinator.term();
                    if let Some(index) = self.process_of(to) {
                        self.queue.push_back(News::Node(index, WorkerInput::Coordinator { term, message }));
                    }
                }
                CoordinatorCommand::Journal { entry } => self.journal.push(entry),
                CoordinatorCommand::Place { problem } => {
                    let answer = PlaceAnswer { epoch: problem.epoch, ..PlaceAnswer::default() };
                    self.queue.push_back(News::Coordinator(CoordinatorInput::Placed { answer }));
                }
                CoordinatorCommand::Plan { problem } => {
                    let plan = BalancedChooser.choose(&problem).unwrap();
                    self.queue.push_back(News::Coordinator(CoordinatorInput::Planned { plan }));
                }
                CoordinatorCommand::Log { event } => self.events.push(event),
                CoordinatorCommand::End { end } => self.end = Some(end),
                CoordinatorCommand::Reject { why, .. } => panic!("rejected: {why}"),
                CoordinatorCommand::Publish { iteration, generation, stages } => {
                    self.published = Some(StateManifest::new(iteration, generation, stages));
                }
                CoordinatorCommand::Disconnect { node } => {
                    // If it lives, it dials again.
                    if let Some(index) = self.process_of(node) {
                        self.processes[index].node = NodeId(0);
                        self.queue.push_back(News::Node(index, WorkerInput::CoordinatorDown));
                        self.queue.push_back(News::Node(index, WorkerInput::CoordinatorUp));
                    }
                }
                CoordinatorCommand::Discard { .. } => {}
            }
        }
    }

    fn process_of(&self, node: NodeId) -> Option<usize> {
        self.processes.iter().position(|process| process.node == node && process.alive)
    }

    fn tell_node(&mut self, index: usize, input: WorkerInput) {
        if !self.processes[index].alive {
            return;
        }
        if let WorkerInput::Computed { id, outcome } = &input {
            let (assembles, outputs) = self.tasks.remove(&(index, id.0)).unwrap();
            match outcome {
                Outcome::Gradient { digest, .. } if assembles => {
                    let values = self.processes[index].store.values(outputs[0]).unwrap();
                    self.gradients.insert(*digest, values);
                }
                Outcome::Failed { why } => panic!("node {index}: {why}"),
                _ => {}
            }
        }
        let commands = self.processes[index].worker.on(input, self.now_us);
        for command in commands {
            let process = &mut self.processes[index];
            if self.kill == Some((index, process.commands)) {
                process.alive = false;
                self.killed = true;
                let node = process.node;
                let lost = CoordinatorInput::Lost { node, why: "connection".to_owned() };
                self.queue.push_back(News::Coordinator(lost));
                if self.respawn {
                    self.spawn();
                }
                return;
            }
            process.commands += 1;
            self.carry_out_of_node(index, command);
        }
    }

    fn carry_out_of_node(&mut self, index: usize, command: WorkerCommand) {
        let process = &mut self.processes[index];
        match command {
            WorkerCommand::Compute { id, task, inputs, outputs } => {
                self.tasks.insert((index, id.0), (matches!(task, Task::Assemble), outputs.clone()));
                let job = process.store.begin(id, task, &inputs, outputs).unwrap();
                let done = process.engine.run(job);
                let outcome = process.store.finish(done);
                self.queue.push_back(News::Node(index, WorkerInput::Computed { id, outcome }));
            }
            WorkerCommand::Write { id, stage, iteration, digest, state } => {
                let state = process.store.state(state).unwrap();
                let job = WriteJob { id, stage, iteration, digest, state };
                let written = StateWriter::new(&self.setup, None).write(&job);
                assert_eq!(written, Ok(()), "node {index}");
                self.queue.push_back(News::Node(index, WorkerInput::Written { id, written }));
            }
            WorkerCommand::Drop { handles } => process.store.drop_handles(&handles),
            WorkerCommand::SendCoordinator { message } => {
                let input = if matches!(message, skipstone_protocol::ToCoordinator::Hello { .. }) {
                    CoordinatorInput::Hello {
                        connection: index as u64,
                        hello: message,
                        domain: FailureDomain::default(),
                    }
                } else {
                    CoordinatorInput::Worker { node: process.node, message }
                };
                self.queue.push_back(News::Coordinator(input));
            }
            WorkerCommand::SendPeer { to, message, payload } => {
                let from = process.worker.node();
                let payload = payload.map(|handle| process.store.payload(handle).unwrap());
                if let Some(to) = process.peers.get(&to).copied() {
                    self.queue.push_back(News::Frame { to, from, message, payload });
                }
            }
            WorkerCommand::Know { addresses } => {
                process.peers.extend(addresses.iter().map(|(node, at)| (*node, at.parse().unwrap())));
            }
            WorkerCommand::Forget { peers } => {
                for peer in peers {
                    process.peers.remove(&peer);
                }
            }
            WorkerCommand::Exit { why, success } => {
                assert!(success, "node {index} gave up: {why}");
                process.alive = false;
            }
        }
    }
}

/// ‖a − b‖ / ‖b‖.
pub(crate) fn relative_difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let (mut difference, mut norm) = (0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        difference += (f64::from(*x) - f64::from(*y)).powi(2);
        norm += f64::from(*y).powi(2);
    }
    (difference / norm).sqrt()
}

/// The first iteration.
pub(crate) const FIRST: Iteration = Iteration(0);
