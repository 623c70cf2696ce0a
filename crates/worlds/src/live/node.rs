//! A node's process: a worker core, its tensors, a compute thread, and the connections to the others.

use super::address::PeerAddress;
use super::control::{Brake, Control};
use super::door;
use super::pacer::Pacer;
use super::reporter::Reporter;
use super::start::{NodeStart, follow_parent, read_start};
use super::store::{Done, Engine, EngineSetup, Job, StateWriter, TensorStore, WriteJob};
use crate::live::say;
use crate::wan::RegionView;
use skipstone_net::{
    Frame, NetConfig, NetEvent, PeerId, Priority, RunSecret, SendError, StreamTransport, Transport,
};
use skipstone_protocol::{
    Envelope, Handle, MESSAGE_BYTES_MAX, Message, Outcome, TaskId, ToPeer, ToWorker, WIRE_VERSION, Worker,
    WorkerCommand, WorkerInput, decode, encode,
};
use skipstone_types::{NodeId, RunId, StageId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The coordinator's name in the transport.
pub(super) const COORDINATOR: PeerId = PeerId(0);

/// Exit code of a node that was told twice to go: 128 + SIGTERM, as shells have it.
#[cfg(unix)]
const NOTICE_EXIT: i32 = 143;

/// Least payload that peers accept from each other; stages may need more.
const PAYLOAD_BYTES_MIN: usize = 64 << 20;

/// What happens to the process.
enum Input {
    Net(NetEvent),
    Computed(Done),
    Written(TaskId, Result<(), String>),
    Told(Control),
}

/// Runs `skipstone internal-node`: the order comes on stdin. Returns when the run is over.
pub fn run_node() -> ExitCode {
    match serve() {
        Ok(success) => ExitCode::from(u8::from(!success)),
        Err(error) => {
            say(&format_args!("node: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<bool> {
    let order: NodeStart = read_start(&mut io::stdin().lock())?;
    let setup = EngineSetup::of(&order.config, &order.dir, order.vocabulary).map_err(io::Error::other)?;
    let (inputs, arrivals) = mpsc::channel();
    let control = inputs.clone();
    follow_parent(move |line| {
        if let Ok(told) = line.parse() {
            drop(control.send(Input::Told(told)));
        }
    })?;
    leave_on_notice(inputs.clone())?;
    let me = PeerAddress::draw_id(order.view.as_ref().map_or(0, |view| view.region))?;
    let config = net_config(me, &order, &setup)?;
    let (brake, lies) = (Arc::new(Brake::default()), Arc::new(AtomicBool::new(false)));
    let sink = inputs.clone();
    let transport =
        StreamTransport::bind(config, "127.0.0.1:0", move |event| drop(sink.send(Input::Net(event))))
            .map_err(io::Error::other)?;
    let files = door::run_files(&order, &transport)?;
    let written = inputs.clone();
    let writes = StateWriter::new(&setup, files.clone())
        .start(move |id, how| written.send(Input::Written(id, how)).is_ok())?;
    let mut engine = Engine::new(setup, None).map_err(io::Error::other)?;
    if let Some(files) = files {
        engine = engine.with_files(files);
    }
    let engine = engine.with_lies(lies.clone());
    let jobs = start_compute(engine, inputs, brake.clone(), order.pace.map(Pacer::new))?;
    let address = PeerAddress { peer: me, socket: transport.local_address() };
    let worker = Worker::new(order.run, address.to_string(), std::process::id());
    transport.connect(COORDINATOR, &order.coordinator);
    let mut node = Node {
        run: order.run,
        worker,
        store: TensorStore::default(),
        transport,
        jobs,
        writes,
        brake,
        lies,
        peers: BTreeMap::new(),
        names: BTreeMap::new(),
        up: BTreeSet::new(),
        round_trips: BTreeMap::new(),
        forgotten: BTreeSet::new(),
        start: Instant::now(),
        queue: VecDeque::new(),
        waits: order.waits,
        coordinator_up: false,
        reporter: Reporter::new(
            order.door.is_some_and(|door| door.host.is_some()),
            order.config.price_per_gb.is_some(),
        ),
        exit: None,
    };
    while node.exit.is_none() {
        let Ok(input) = arrivals.recv() else { break };
        node.take(input);
        while let Some(input) = node.queue.pop_front() {
            let now_us = node.start.elapsed().as_micros() as u64;
            let commands = node.worker.on(input, now_us);
            node.carry_out(commands);
        }
    }
    Ok(node.exit.unwrap_or(false))
}

/// SIGTERM, which is how clouds and service managers give notice: the node leaves once others have what is needed of it.
/// A second one ends it at once.
#[cfg(unix)]
fn leave_on_notice(inputs: mpsc::Sender<Input>) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM])?;
    std::thread::Builder::new().name("notice".to_owned()).spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 || inputs.send(Input::Told(Control::Leave)).is_err() {
                std::process::exit(NOTICE_EXIT);
            }
        }
    })?;
    Ok(())
}

/// Elsewhere the parent gives notice.
#[cfg(not(unix))]
fn leave_on_notice(_inputs: mpsc::Sender<Input>) -> io::Result<()> {
    Ok(())
}

/// The compute thread: one task at a time.
fn start_compute(
    mut engine: Engine,
    done: mpsc::Sender<Input>,
    brake: Arc<Brake>,
    mut pacer: Option<Pacer>,
) -> io::Result<mpsc::Sender<Job>> {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new().name("compute".to_owned()).spawn(move || {
        for job in queue {
            let modelled = pacer.as_ref().and_then(|pacer| pacer.times.of(&job.task));
            let began = Instant::now();
            let computed = engine.run(job);
            if let Some((pacer, modelled)) = pacer.as_mut().zip(modelled) {
                pacer.stretch(began, modelled);
            }
            brake.wait();
            if done.send(Input::Computed(computed)).is_err() {
                break;
            }
        }
    })?;
    Ok(jobs)
}

fn net_config(me: PeerId, order: &NodeStart, setup: &EngineSetup) -> io::Result<NetConfig> {
    let shape = &setup.shape;
    let largest = [StageId::ORIGIN, StageId(1)]
        .into_iter()
        .map(|stage| shape.parameters(stage))
        .chain([shape.tokens() * shape.model.hidden_size])
        .max()
        .unwrap_or(0);
    let mut config =
        NetConfig::new(me, order.run.0, RunSecret::from_hex(&order.secret).map_err(io::Error::other)?);
    config.max_header = MESSAGE_BYTES_MAX;
    config.shapes = order.view.as_ref().map(RegionView::shapes);
    door::open(&mut config, order)?;
    config.max_payload = (4 * largest).max(PAYLOAD_BYTES_MIN);
    // What waits to be sent is kept by the store anyway, until the attempt ends, and a frame that is refused here
    // would be missed: the bounds are the store's, not the queues'.
    for lane in [&mut config.control, &mut config.bulk] {
        lane.frames = 1 << 20;
        lane.bytes = 1 << 40;
    }
    Ok(config)
}

struct Node {
    run: RunId,
    worker: Worker,
    store: TensorStore,
    transport: StreamTransport,
    jobs: mpsc::Sender<Job>,
    /// To the thread that writes states.
    writes: mpsc::Sender<WriteJob>,
    /// Slows the compute thread down on purpose.
    brake: Arc<Brake>,
    /// Has it compute wrong sums on purpose.
    lies: Arc<AtomicBool>,
    /// Where nodes are. The socket of one that dialled us may not be known yet: then there is nothing but its
    /// connection.
    peers: BTreeMap<NodeId, (PeerId, Option<String>)>,
    /// Which node a connection's other end is.
    names: BTreeMap<PeerId, NodeId>,
    up: BTreeSet<PeerId>,
    /// The shortest time there and back on each connection.
    round_trips: BTreeMap<PeerId, Duration>,
    /// Processes that were cut off; one that comes back under a new id is let in again.
    forgotten: BTreeSet<PeerId>,
    start: Instant,
    queue: VecDeque<WorkerInput>,
    /// Whether it is not its turn yet to say hello.
    waits: bool,
    coordinator_up: bool,
    reporter: Reporter,
    exit: Option<bool>,
}

impl Node {
    fn take(&mut self, input: Input) {
        match input {
            Input::Computed(done) => {
                let id = done.id;
                let outcome = self.store.finish(done);
                self.queue.push_back(WorkerInput::Computed { id, outcome });
            }
            Input::Written(id, written) => {
                self.queue.push_back(WorkerInput::Written { id, written });
            }
            Input::Told(control) => self.obey(control),
            Input::Net(NetEvent::Up { peer: COORDINATOR, .. }) => {
                self.coordinator_up = true;
                self.say_hello();
            }
            Input::Net(NetEvent::Down { peer: COORDINATOR, .. }) => {
                self.coordinator_up = false;
                self.reporter.away();
                self.queue.push_back(WorkerInput::CoordinatorDown);
            }
            Input::Net(NetEvent::Up { peer, .. }) => {
                self.up.insert(peer);
                if let Some(peer) = self.names.get(&peer).copied() {
                    self.queue.push_back(WorkerInput::PeerUp { peer });
                }
            }
            Input::Net(NetEvent::Down { peer, .. }) => {
                self.up.remove(&peer);
                self.round_trips.remove(&peer);
            }
            Input::Net(NetEvent::Frame { peer: COORDINATOR, frame, .. }) => {
                match decode::<ToWorker>(&frame.header, self.run) {
                    Ok(Envelope { term, message, .. }) => {
                        self.reporter.heard(&message);
                        self.queue.push_back(WorkerInput::Coordinator { term, message });
                    }
                    Err(error) => {
                        say(&format_args!("a message of the coordinator is not understood: {error}"));
                    }
                }
            }
            Input::Net(NetEvent::Heard { peer, round_trip, .. }) => {
                let shortest = self.round_trips.entry(peer).or_insert(round_trip);
                *shortest = round_trip.min(*shortest);
            }
            Input::Net(NetEvent::Frame { peer, frame, receiving, .. }) => {
                self.take_frame(peer, frame, receiving);
            }
            Input::Net(
                NetEvent::Refused { why, address, .. } | NetEvent::Unreachable { why, address, .. },
            ) => {
                say(&format_args!("{address}: {why}"));
            }
            Input::Net(_) => {}
        }
    }

    /// The worker hears of the connection to the coordinator once it is its turn.
    fn say_hello(&mut self) {
        if self.coordinator_up && !self.waits {
            self.queue.push_back(WorkerInput::CoordinatorUp);
        }
    }

    /// Makes a fault on purpose.
    fn obey(&mut self, control: Control) {
        let peer_of = |node: NodeId| match node {
            NodeId(0) => Some(COORDINATOR),
            node => self.peers.get(&node).map(|(peer, _)| *peer),
        };
        match control {
            Control::Cut { peer, direction, time } => {
                if let Some(peer) = peer_of(peer) {
                    self.transport.cut(peer, direction, time);
                }
            }
            Control::Corrupt { peer } => {
                if let Some(peer) = peer_of(peer) {
                    self.transport.corrupt(peer);
                }
            }
            Control::Slow { pause, time } => self.brake.set(pause, time),
            Control::Lie => self.lies.store(true, Ordering::Relaxed),
            Control::Enter => {
                if std::mem::take(&mut self.waits) {
                    self.say_hello();
                }
            }
            Control::Leave => self.queue.push_back(WorkerInput::Leave),
        }
    }

    fn take_frame(&mut self, peer: PeerId, frame: Frame, receiving: Duration) {
        match decode::<ToPeer>(&frame.header, self.run) {
            Ok(Envelope { sender, message, .. }) => {
                self.name(peer, sender);
                let payload = self.store.receive(frame.payload);
                // The first byte itself took at least half of the shortest round trip.
                let way = self.round_trips.get(&peer).map_or(Duration::ZERO, |shortest| *shortest / 2);
                let began = self.start.elapsed().saturating_sub(receiving + way);
                let began_us = began.as_micros() as u64;
                self.queue.push_back(WorkerInput::Peer { from: sender, message, payload, began_us });
            }
            Err(error) => {
                say(&format_args!("{peer} is cut off: {error}"));
                self.transport.forbid(peer);
            }
        }
    }

    /// Learns which node is at the other end. A process that was set aside goes on under a higher id.
    fn name(&mut self, peer: PeerId, node: NodeId) {
        if self.names.get(&peer).is_some_and(|known| *known >= node) {
            return;
        }
        self.names.insert(peer, node);
        self.peers.entry(node).or_insert((peer, None));
        if self.up.contains(&peer) {
            self.queue.push_back(WorkerInput::PeerUp { peer: node });
        }
    }

    fn carry_out(&mut self, commands: Vec<WorkerCommand>) {
        for command in commands {
            match command {
                WorkerCommand::Compute { id, task, inputs, outputs } => {
                    let failed = match self.store.begin(id, task, &inputs, outputs) {
                        Ok(job) => self.jobs.send(job).err().map(|_| "the compute thread is gone".to_owned()),
                        Err(Handle(handle)) => Some(format!("handle {handle} names nothing; this is a bug")),
                    };
                    if let Some(why) = failed {
                        let outcome = Outcome::Failed { why };
                        self.queue.push_back(WorkerInput::Computed { id, outcome });
                    }
                }
                WorkerCommand::Write { id, stage, iteration, digest, state } => {
                    let job =
                        self.store.state(state).map(|state| WriteJob { id, stage, iteration, digest, state });
                    let failed = match job {
                        Some(job) => {
                            self.writes.send(job).err().map(|_| "the writing thread is gone".to_owned())
                        }
                        None => Some(format!("handle {} names no state; this is a bug", state.0)),
                    };
                    if let Some(why) = failed {
                        self.queue.push_back(WorkerInput::Written { id, written: Err(why) });
                    }
                }
                WorkerCommand::Drop { handles } => self.store.drop_handles(&handles),
                WorkerCommand::SendCoordinator { message } => {
                    self.reporter.said(&message);
                    if let Some(header) = self.envelope(message) {
                        // Lost without harm if there is no connection: the next one begins with a hello.
                        let _ = self.transport.send(COORDINATOR, Frame::message(header), Priority::Control);
                    }
                }
                WorkerCommand::SendPeer { to, message, payload } => self.send(to, message, payload),
                WorkerCommand::Know { addresses } => self.know(addresses),
                WorkerCommand::Forget { peers } => self.forget(&peers),
                WorkerCommand::Exit { why, success } => {
                    if !success {
                        say(&why);
                    }
                    self.exit = Some(success);
                }
            }
        }
    }

    fn envelope<M: Message>(&self, message: M) -> Option<Vec<u8>> {
        let envelope = Envelope {
            version: WIRE_VERSION,
            run: self.run,
            term: self.worker.term(),
            sender: self.worker.node(),
            message,
        };
        encode(&envelope).map_err(|error| say(&format_args!("a message can't be sent: {error}"))).ok()
    }

    fn send(&mut self, to: NodeId, message: ToPeer, payload: Option<Handle>) {
        let Some((peer, socket)) = self.peers.get(&to).cloned() else { return };
        if let Some(socket) = socket.as_ref().filter(|_| !self.up.contains(&peer)) {
            // What is lost now is sent again when the connection stands.
            self.transport.connect(peer, socket);
        }
        let Some(header) = self.envelope(message) else { return };
        let (payload, priority) = match payload {
            None => (skipstone_net::Payload::Empty, Priority::Control),
            Some(handle) => {
                let Some(payload) = self.store.payload(handle) else {
                    say(&format_args!("handle {} can't be sent; this is a bug", handle.0));
                    return;
                };
                (payload, Priority::Bulk)
            }
        };
        let bytes = payload.len();
        match self.transport.send(peer, Frame { header: header.into(), payload }, priority) {
            Ok(()) if bytes > 0 => self.reporter.sent(bytes),
            Ok(()) | Err(SendError::NotConnected(_)) => {}
            Err(error) => {
                // The frame would be missed: a new connection makes the core send it again.
                say(&error);
                self.transport.disconnect(peer);
                if let Some(socket) = socket {
                    self.transport.connect(peer, &socket);
                }
            }
        }
    }

    fn know(&mut self, addresses: Vec<(NodeId, String)>) {
        for (node, text) in addresses {
            let Some(address) = PeerAddress::parse(&text) else {
                say(&format_args!("{node} has no address: {text}"));
                continue;
            };
            if self.forgotten.remove(&address.peer) {
                self.transport.connect(address.peer, &address.socket);
            }
            self.peers.insert(node, (address.peer, Some(address.socket)));
            self.name(address.peer, node);
        }
    }

    fn forget(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            let Some((peer, _)) = self.peers.remove(node) else { continue };
            if self.names.get(&peer) == Some(node) {
                self.transport.forbid(peer);
                self.forgotten.insert(peer);
            }
        }
    }
}
