//! The coordinator's process: the core, its journal, and a connection to every node.

use super::desk::{Desk, Told};
use super::inputs_file::InputsFile;
use super::journal_file::JournalFile;
use super::planner::{Found, Planner};
use super::publish::{StateManifest, discard, publish};
use super::refusals::Refusals;
use super::roll::Roll;
use super::signals::Signals;
use super::start::{
    CoordinatorFindable, CoordinatorReady, CoordinatorStart, CoordinatorWelcomed, follow_parent, read_start,
};
use crate::live::say;
use crate::wan::{RegionView, region_of_name};
use serde::Serialize;
use skipstone_net::{
    BindError, Frame, NetConfig, NetEvent, PeerId, Priority, Reach, RunSecret, StreamTransport, Transport,
};
use skipstone_planner::SwarmChooser;
use skipstone_protocol::{
    Coordinator, CoordinatorCommand, CoordinatorInput, End, Entry, Envelope, FailureDomain,
    MESSAGE_BYTES_MAX, Opening, RunningClock, ToCoordinator, ToWorker, WIRE_VERSION, decode, encode,
};
use skipstone_types::{Event, NodeId};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often time passes for the core.
const TICK: Duration = Duration::from_millis(50);

/// Two readings of the failure detector's clock are never further apart while this process is running.
const STRIDE_US: u64 = 2 * TICK.as_micros() as u64;

/// How long the port of a killed predecessor is waited for.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

/// The pause between tries while the disk refuses the journal.
const DISK_RETRY: Duration = Duration::from_millis(200);

/// How often it is looked who may no longer stay.
const TURN_OUT: Duration = Duration::from_secs(2);

/// How often a run that is to end says what it waits for.
const END_TOLD_EVERY: Duration = Duration::from_secs(5);

/// Exit code of a coordinator that can't start.
const START_EXIT: u8 = 2;

enum Input {
    Net(NetEvent),
    Found(Found),
    /// Another machine says so.
    Told(Told),
    /// A relay was looked for; whether one is there.
    LookedForRelay(bool),
    Save,
    Stop,
}

/// Runs `skipstone internal-coordinator`: the order comes on stdin, events go out on stdout, one JSON line each. Returns
/// when the run is over.
pub fn run_coordinator() -> ExitCode {
    // Whoever ends a service signals all its processes: the parent says when this one is to end. It also ends with its parent.
    let Ok(_deaf) = Signals::listen() else {
        say(&"coordinator: signals can't be listened to");
        return ExitCode::from(START_EXIT);
    };
    let (mut driver, arrivals) = match Driver::start() {
        Ok(started) => started,
        Err(error) => {
            say(&format_args!("coordinator: {error}"));
            return ExitCode::from(START_EXIT);
        }
    };
    match driver.serve(&arrivals) {
        Ok(success) => ExitCode::from(u8::from(!success)),
        Err(error) => {
            say(&format_args!("coordinator: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn net_config(order: &CoordinatorStart) -> io::Result<NetConfig> {
    let secret = RunSecret::from_hex(&order.secret).map_err(io::Error::other)?;
    let mut config = NetConfig::new(PeerId(0), order.settings.run.0, secret);
    config.max_header = MESSAGE_BYTES_MAX;
    config.shapes = order.view.as_ref().map(RegionView::shapes);
    Ok(config)
}

fn bind(
    config: &NetConfig,
    order: &CoordinatorStart,
    inputs: &mpsc::Sender<Input>,
) -> io::Result<StreamTransport> {
    let address = format!("127.0.0.1:{}", order.port);
    let start = Instant::now();
    loop {
        let sink = inputs.clone();
        match StreamTransport::bind(config.clone(), &address, move |event| drop(sink.send(Input::Net(event))))
        {
            Ok(transport) => return Ok(transport),
            Err(BindError::PortInUse { .. }) if start.elapsed() < PORT_PATIENCE => {
                std::thread::sleep(TICK);
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

fn tell(line: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, line).map_err(io::Error::other)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// The machine that a hello comes from, if it says.
fn machine_of(hello: &ToCoordinator) -> Option<u64> {
    let ToCoordinator::Hello { address, .. } = hello else { return None };
    let (machine, _) = address.parse::<Reach>().ok()?.tcp?;
    Some(machine).filter(|machine| *machine != 0)
}

/// Tells an event in passing: without a parent to hear it this process is about to end.
fn log(event: &Event) {
    drop(tell(event));
}

struct Driver {
    order: CoordinatorStart,
    core: Coordinator,
    transport: StreamTransport,
    journal: JournalFile,
    inputs: InputsFile,
    planner: Planner,
    roll: Roll,
    desk: Desk,
    /// Who was turned away lately.
    refusals: Refusals,
    /// When it was looked last who may no longer stay.
    turned_out: Instant,
    /// Since when the run is to end, and when what that waits for was last told.
    ends: Option<(Instant, Instant)>,
    start: Instant,
    /// The failure detector's time.
    running: RunningClock,
    queue: VecDeque<CoordinatorInput>,
    /// Whether the run ended as it should, once it has.
    end: Option<bool>,
}

impl Driver {
    fn start() -> io::Result<(Self, Receiver<Input>)> {
        let mut order: CoordinatorStart = read_start(&mut io::stdin().lock())?;
        // Nobody else may know what is checked when: run.toml, and so its seed, every node has read.
        order.settings.spot_checks.salt = getrandom::u64().map_err(io::Error::other)?;
        let (inputs, arrivals) = mpsc::channel();
        let control = inputs.clone();
        follow_parent(move |line| match line {
            "save" => drop(control.send(Input::Save)),
            "stop" => drop(control.send(Input::Stop)),
            _ => {}
        })?;
        // The lock comes before the port: who has both is the run's only coordinator.
        let resumed = order.resume.as_ref().map(|saved| saved.iteration);
        let (journal, entries) = JournalFile::open(&order.dir, resumed).map_err(io::Error::other)?;
        let mut config = net_config(&order)?;
        let told = inputs.clone();
        let desk = Desk::open(&mut config, &order, move |what| drop(told.send(Input::Told(what))))?;
        let transport = bind(&config, &order, &inputs)?;
        let address = transport.local_address();
        desk.set_address(&address);
        tell(&CoordinatorReady { address })?;
        let looked = inputs.clone();
        Desk::look_for_relay(&order, &transport, move |found| {
            drop(looked.send(Input::LookedForRelay(found)));
        })?;
        let chooser = order.swarm.clone().map(SwarmChooser::new).transpose().map_err(io::Error::other)?;
        let chooser = chooser.map(|chooser| chooser.with_domain_price(order.domain_price_s));
        let found = inputs.clone();
        let planner = Planner::start(
            order.dir.clone(),
            chooser,
            order.fixed.clone(),
            order.settings.deterministic,
            move |what| {
                drop(found.send(Input::Found(what)));
            },
        )?;
        let start = Instant::now();
        let (core, commands) = Coordinator::open(order.settings.clone(), &entries, order.resume.clone(), 0);
        let opening =
            Opening { term: core.term(), settings: order.settings.clone(), resume: order.resume.clone() };
        let inputs = InputsFile::start(&order.dir, &opening);
        let mut driver = Self {
            inputs,
            planner,
            order,
            core,
            transport,
            journal,
            roll: Roll::new(config.heartbeat_interval),
            desk,
            refusals: Refusals::default(),
            turned_out: start,
            ends: None,
            start,
            running: RunningClock::new(STRIDE_US, 0),
            queue: VecDeque::new(),
            end: None,
        };
        driver.carry_out(commands)?;
        Ok((driver, arrivals))
    }

    /// Goes on until the run is over; whether it ended as it should.
    fn serve(&mut self, arrivals: &Receiver<Input>) -> io::Result<bool> {
        let mut next_tick = self.start;
        loop {
            if let Some(success) = self.end {
                return Ok(success);
            }
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                for why in self.refusals.due(now) {
                    log(&Event::Refused { node: None, why });
                }
                self.note_silence();
                self.turn_out(now);
                self.tell_what_the_end_waits_for(now);
                if let Some(plan) = self.planner.overdue(now) {
                    self.queue.push_back(CoordinatorInput::Planned { plan });
                }
                let answer = self.planner.overdue_places(now);
                self.queue.extend(answer.map(|answer| CoordinatorInput::Placed { answer }));
                self.queue.push_back(CoordinatorInput::Tick);
            } else {
                match arrivals.recv_timeout(next_tick - now) {
                    Ok(Input::Net(event)) => self.take(event),
                    Ok(Input::Found(Found::Places(answer))) => {
                        let answer = self.planner.found_places(answer);
                        self.queue.extend(answer.map(|answer| CoordinatorInput::Placed { answer }));
                    }
                    Ok(Input::Found(Found::Plan(found))) => {
                        let plan = self.planner.found(found.map_err(io::Error::other)?);
                        self.queue.extend(plan.map(|plan| CoordinatorInput::Planned { plan }));
                    }
                    Ok(Input::Told(what)) => self.hear(what),
                    Ok(Input::LookedForRelay(by_relay)) => {
                        let address = self.transport.local_address();
                        self.desk.set_address(&address);
                        tell(&CoordinatorFindable { address, by_relay })?;
                    }
                    Ok(Input::Save) => self.queue.push_back(CoordinatorInput::Save),
                    Ok(Input::Stop) => self.queue.push_back(CoordinatorInput::Stop),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(false),
                }
            }
            while let Some(input) = self.queue.pop_front() {
                let now_us = self.start.elapsed().as_micros() as u64;
                self.inputs.record(now_us, &input);
                let commands = self.core.on(input, now_us);
                self.carry_out(commands)?;
            }
        }
    }

    fn take(&mut self, event: NetEvent) {
        match event {
            NetEvent::Up { peer, connection, key, .. } => {
                let now_us = self.running_us();
                self.roll.up(peer, connection, key, now_us);
            }
            NetEvent::Down { peer, connection, .. } => {
                if let Some(node) = self.roll.down(peer, connection) {
                    self.desk.note_node(node, false);
                    self.queue.push_back(CoordinatorInput::Lost { node, why: "connection".to_owned() });
                }
            }
            NetEvent::Heard { peer, .. } => {
                let now_us = self.running_us();
                self.roll.heard(peer, now_us);
            }
            NetEvent::Frame { peer, connection, frame, .. } => self.take_frame(peer, connection, &frame),
            NetEvent::Refused { address, why, .. } => {
                let told = self.refusals.note(&address, &why, Instant::now());
                told.into_iter().for_each(|why| log(&Event::Refused { node: None, why }));
            }
            NetEvent::Listening { .. } | NetEvent::Unreachable { .. } => {}
        }
    }

    fn take_frame(&mut self, peer: PeerId, connection: u64, frame: &Frame) {
        let envelope = match decode::<ToCoordinator>(&frame.header, self.order.settings.run) {
            Ok(envelope) => envelope,
            Err(error) => {
                log(&Event::Refused { node: self.roll.node(peer), why: error.to_string() });
                self.transport.disconnect(peer);
                return;
            }
        };
        match (self.roll.node(peer), envelope.message) {
            // What was sent under an old id counts for nothing.
            (Some(node), message) if envelope.sender == node => {
                self.queue.push_back(CoordinatorInput::Worker { node, message });
            }
            (None, hello @ ToCoordinator::Hello { .. }) => {
                let regions = self.order.regions.len();
                let region = region_of_name(peer).filter(|region| usize::from(*region) < regions);
                let machine = machine_of(&hello);
                let domain = FailureDomain { region, machine };
                self.queue.push_back(CoordinatorInput::Hello { connection, hello, domain });
            }
            _ => {}
        }
    }

    #[cfg(feature = "iroh")]
    fn hear(&mut self, what: Told) {
        use super::remote::Order;
        match what {
            Told::Gone(key) => {
                let gone = self.roll.peers_with(|other| other == key);
                gone.into_iter().for_each(|peer| self.transport.forbid(peer));
            }
            Told::Ordered { ticket, order, of } => {
                log(&Event::Managed { ticket, order: order.name().to_owned(), of });
                match order {
                    Order::Save => self.queue.push_back(CoordinatorInput::Save),
                    Order::Stop => self.queue.push_back(CoordinatorInput::Stop),
                    // What the node itself says when its machine gives notice.
                    Order::Drain { node } if self.roll.peer(node).is_some() => {
                        let message = ToCoordinator::Leaving;
                        self.queue.push_back(CoordinatorInput::Worker { node, message });
                    }
                    // The reception has done these, or the node has gone meanwhile.
                    Order::List | Order::Issue { .. } | Order::Revoke { .. } | Order::Drain { .. } => {}
                }
            }
        }
    }

    #[cfg(not(feature = "iroh"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    fn hear(&mut self, what: Told) {
        match what {}
    }

    /// A run that is to end, and does not, says why.
    fn tell_what_the_end_waits_for(&mut self, now: Instant) {
        if !self.core.is_to_end() {
            self.ends = None;
            return;
        }
        let (since, told) = *self.ends.get_or_insert((now, now));
        if now.duration_since(told) >= END_TOLD_EVERY {
            self.ends = Some((since, now));
            let for_ms = now.duration_since(since).as_millis() as u64;
            log(&Event::EndWaits { for_ms, what: self.core.waits_in_words() });
        }
    }

    /// Cuts nodes off whose ticket was revoked.
    fn turn_out(&mut self, now: Instant) {
        if now.duration_since(self.turned_out) < TURN_OUT {
            return;
        }
        self.turned_out = now;
        if self.desk.turn_out() {
            let out = self.roll.peers_with(|key| !self.desk.admits(&key));
            out.into_iter().for_each(|peer| self.transport.forbid(peer));
        }
    }

    fn running_us(&mut self) -> u64 {
        self.running.read(self.start.elapsed().as_micros() as u64)
    }

    /// Nodes that have said nothing for too long are lost, although their connection stands.
    fn note_silence(&mut self) {
        let now_us = self.running_us();
        let transport = &self.transport;
        for (node, suspicion) in self.roll.silent(now_us, |peer| transport.silence(peer)) {
            log(&Event::Silent {
                node,
                phi: suspicion.phi,
                silence_ms: suspicion.silence_us as f64 / 1e3,
                interval_ms: suspicion.interval_us / 1e3,
                deviation_ms: suspicion.deviation_us / 1e3,
            });
            self.queue.push_back(CoordinatorInput::Lost { node, why: "silence".to_owned() });
        }
    }

    fn carry_out(&mut self, commands: Vec<CoordinatorCommand>) -> io::Result<()> {
        for command in commands {
            match command {
                CoordinatorCommand::Bind { connection, node } => {
                    self.roll.bind(connection, node);
                    self.desk.note_node(node, true);
                    if let Some((machine, ticket)) =
                        self.roll.key(node).and_then(|key| self.desk.origin(&key))
                    {
                        tell(&CoordinatorWelcomed { node, machine, ticket })?;
                    }
                    let region = self.roll.peer(node).and_then(region_of_name);
                    let name = region.and_then(|region| self.order.regions.get(usize::from(region)));
                    if let Some(name) = name {
                        self.planner.place(node, name.clone());
                    }
                }
                CoordinatorCommand::Reject { connection, why } => {
                    if let Some(peer) = self.roll.peer_of_connection(connection) {
                        self.send(peer, ToWorker::Refuse { why });
                        self.transport.disconnect(peer);
                    }
                }
                CoordinatorCommand::Send { to, message } => {
                    self.note_asked(to, &message);
                    if let Some(peer) = self.roll.peer(to) {
                        self.send(peer, message);
                    }
                }
                CoordinatorCommand::Disconnect { node } => {
                    self.desk.note_node(node, false);
                    if let Some(peer) = self.roll.release(node) {
                        self.transport.disconnect(peer);
                    }
                }
                CoordinatorCommand::Journal { entry } => self.append(&entry),
                CoordinatorCommand::Plan { problem } => {
                    let plan = self.planner.ask(problem, Instant::now()).map_err(io::Error::other)?;
                    self.queue.extend(plan.map(|plan| CoordinatorInput::Planned { plan }));
                }
                CoordinatorCommand::Place { problem } => {
                    let answer = self.planner.ask_places(problem, Instant::now());
                    self.queue.extend(answer.map(|answer| CoordinatorInput::Placed { answer }));
                }
                CoordinatorCommand::Publish { iteration, generation, stages } => {
                    let manifest = StateManifest::new(iteration, generation, stages);
                    let dir = self.order.dir.clone();
                    insist("state/state.json", || publish(&dir, &manifest));
                    self.desk.note_published();
                }
                CoordinatorCommand::Discard { iteration } => discard(&self.order.dir, iteration),
                CoordinatorCommand::Log { event } => tell(&event)?,
                CoordinatorCommand::End { end } => self.end = Some(!matches!(end, End::Failed { .. })),
            }
        }
        Ok(())
    }

    /// A node of another machine may bring what it is asked to save, and nothing else.
    fn note_asked(&self, node: NodeId, message: &ToWorker) {
        let (iteration, stage) = match message {
            ToWorker::Save { iteration } => (*iteration, self.core.stage_of(node)),
            ToWorker::SaveCopy { stage, iteration, .. } => (*iteration, Some(*stage)),
            _ => return,
        };
        if let (Some(key), Some(stage)) = (self.roll.key(node), stage) {
            self.desk.note_asked(key, iteration, stage);
        }
    }

    fn send(&self, peer: PeerId, message: ToWorker) {
        let envelope = Envelope {
            version: WIRE_VERSION,
            run: self.order.settings.run,
            term: self.core.term(),
            sender: NodeId(0),
            message,
        };
        let sent = encode(&envelope).map_err(|error| error.to_string()).and_then(|header| {
            self.transport
                .send(peer, Frame::message(header), Priority::Control)
                .map_err(|error| error.to_string())
        });
        if let Err(why) = sent {
            // A node that misses a message can't go on: its connection ends, and with it what it was.
            say(&why);
            self.transport.disconnect(peer);
        }
    }

    fn append(&mut self, entry: &Entry) {
        self.inputs.flush();
        insist("the journal", || self.journal.append(entry));
    }
}

/// Writes what nothing may be heard before: while the disk refuses it is tried again.
fn insist(what: &str, mut write: impl FnMut() -> io::Result<()>) {
    let mut told = false;
    while let Err(error) = write() {
        if !told {
            told = true;
            let why = format!("{what} can't be written ({error}); training waits: free some space");
            log(&Event::SaveFailed { why });
        }
        std::thread::sleep(DISK_RETRY);
    }
}
