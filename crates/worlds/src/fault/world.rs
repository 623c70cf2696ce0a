//! A simulated run: its processes, its network, its virtual time.

use super::chaos::Chaos;
use super::folder::Folder;
use super::hub::{Hub, HubEvent};
use super::invariants::{Invariants, Observation};
use super::invocation::Invocation;
use super::kinds::Fault;
use super::links::{Links, Pair};
use super::node::{Node, NodeEvent, Pid};
use super::plan::FaultPlan;
use super::queue::Queue;
use super::random::Random;
use super::report::{Report, Violation};
use super::tamper::Tamper;
use super::truth::Truth;
use super::weather::Weather;
use super::wiring::Wiring;
use skipstone_protocol::{Envelope, Message, ShareDigests, WIRE_VERSION};
use skipstone_types::{Event as Logged, NodeId, Term};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

/// Events kept when a run is traced.
const TRACE_MAX: usize = 3000;

/// Between two ticks of the coordinator.
const TICK_US: u64 = 50_000;

/// A promise that does not hold.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) invariant: &'static str,
    pub(super) what: String,
}

impl Broken {
    /// A core used its driver in a way that the interface does not allow.
    pub(super) fn interface(what: String) -> Self {
        Self { invariant: "commands_make_sense", what }
    }
}

pub(super) type Checked = Result<(), Broken>;

/// What happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Tick,
    Fault,
    Hub(HubEvent),
    Node(Pid, NodeEvent),
    /// A process starts, in place of one that was lost.
    Spawn {
        invocation: u32,
    },
    /// A process dies, to come back as it was.
    Relapse {
        pid: Pid,
        image: Box<Node>,
    },
    /// A process is back as it was.
    Restore {
        invocation: u32,
        image: Box<Node>,
    },
    /// A node dies in mid-transfer.
    Ambush {
        node: NodeId,
    },
    /// A connection between nodes is seen to be dead.
    BreakLink {
        pair: Pair,
        number: u64,
    },
    /// A connection to the coordinator is seen to be dead.
    BreakHubConnection {
        pid: Pid,
        connection: u64,
    },
    /// The run is begun anew with `--resume`.
    BeginAnew {
        invocation: u32,
    },
    /// A node tries to reach a peer.
    DialPeer {
        from: Pid,
        to: NodeId,
    },
}

/// Everything that is simulated.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: FaultPlan,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) queue: Queue<Event>,
    pub(super) nodes: Vec<Node>,
    /// The process that runs on each machine.
    pub(super) machines: Vec<Pid>,
    pub(super) hub: Hub,
    pub(super) folder: Folder,
    pub(super) invocation: Invocation,
    pub(super) weather: Weather,
    pub(super) wiring: Wiring,
    pub(super) links: Links,
    pub(super) chaos: Chaos,
    pub(super) truth: Truth,
    pub(super) tamper: Option<Tamper>,
    /// What nodes last said of their shares (only for tampering).
    pub(super) said: BTreeMap<NodeId, ShareDigests>,
    pub(super) report: Report,
    pub(super) finished: bool,
    pub(super) invariants: Invariants,
    trace: Option<VecDeque<String>>,
}

impl World {
    /// A run that is about to start.
    pub(super) fn new(plan: FaultPlan, tamper: Option<Tamper>, traced: bool) -> Self {
        let random = Random::new(plan.seed, 2);
        let nodes = plan.settings.nodes();
        Self {
            random,
            now: 0,
            queue: Queue::new(),
            nodes: Vec::new(),
            machines: Vec::new(),
            hub: Hub::new(),
            folder: Folder::default(),
            invocation: Invocation { began: true, ..Invocation::default() },
            weather: Weather::default(),
            wiring: Wiring::default(),
            links: Links::default(),
            chaos: Chaos::default(),
            truth: Truth::new(&plan.settings),
            invariants: Invariants::new(&plan.settings),
            tamper,
            said: BTreeMap::new(),
            report: Report { seed: plan.seed, nodes, ..Report::default() },
            finished: false,
            trace: traced.then(VecDeque::new),
            plan,
        }
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<Report, Box<Violation>> {
        let invocation = self.invocation.number;
        self.schedule(0, Event::Hub(HubEvent::Start { invocation }));
        for _ in 0..self.plan.settings.nodes() {
            let delay = self.random.between(0, 100_000);
            self.schedule(delay, Event::Spawn { invocation });
        }
        self.schedule(TICK_US, Event::Tick);
        self.next_fault();
        while !self.finished {
            let Some((at, event)) = self.queue.pop() else { break };
            self.now = at;
            self.report.events += 1;
            self.note(&event);
            if let Err(broken) = self.handle(event) {
                return Err(Box::new(self.violation(broken)));
            }
        }
        self.report.iterations = self.truth.committed();
        self.report.virtual_s = self.now as f64 / 1e6;
        Ok(self.report)
    }

    fn handle(&mut self, event: Event) -> Checked {
        match event {
            Event::Tick => {
                self.schedule(TICK_US, Event::Tick);
                self.watch()?;
                self.hub_event(HubEvent::Tick)
            }
            Event::Fault => self.strike(),
            Event::Hub(event) => self.hub_event(event),
            Event::Node(pid, event) => self.node_event(pid, event),
            Event::BeginAnew { invocation } if invocation == self.invocation.number => self.begin_anew(),
            other => {
                self.outside_event(other);
                Ok(())
            }
        }
    }

    /// Something happens to processes or connections that nobody is told of.
    fn outside_event(&mut self, event: Event) {
        let current = self.invocation.number;
        match event {
            Event::Spawn { invocation } if invocation == current => self.spawn(),
            Event::Relapse { pid, image } if self.nodes[pid].alive && !self.is_spared(pid) => {
                self.end_process(pid);
                let delay = self.draw(self.plan.tempo.respawn_us);
                self.schedule(delay, Event::Restore { invocation: current, image });
            }
            Event::Restore { invocation, image } if invocation == current => self.restore(&image),
            Event::Ambush { node } => self.spring_ambush(node),
            Event::BreakLink { pair, number } => self.break_link_if(pair, number),
            Event::BreakHubConnection { pid, connection } => self.break_hub_connection_if(pid, connection),
            Event::DialPeer { from, to } => self.dial_peer(from, to),
            _ => {}
        }
    }

    /// Puts an event `delay_us` from now.
    pub(super) fn schedule(&mut self, delay_us: u64, event: Event) {
        self.queue.push(self.now + delay_us, event);
    }

    /// A duration from a range of the plan.
    pub(super) fn draw(&mut self, range: (u64, u64)) -> u64 {
        self.random.between(range.0, range.1)
    }

    /// How long a message is under way.
    pub(super) fn draw_message(&mut self) -> u64 {
        let delay = self.draw(self.plan.tempo.message_us);
        if self.plan.tempo.slow_message > 0.0 && self.random.chance(self.plan.tempo.slow_message) {
            delay * 10
        } else {
            delay
        }
    }

    /// When a message that is sent now arrives.
    pub(super) fn draw_arrival(&mut self, from: Pid, to: Pid) -> u64 {
        let delay = self.draw_message();
        if self.weather.is_fair() {
            return self.now + delay;
        }
        let now = self.now;
        self.weather.passes_at(from, to, now) + delay * self.weather.factor(from, to, now)
    }

    /// Tells every invariant what was seen.
    pub(super) fn observe(&mut self, seen: &Observation<'_>) -> Checked {
        self.truth.observe(seen);
        self.invariants.observe(seen, &self.truth)
    }

    /// Sends a message through its wire form, where the plan asks for that.
    pub(super) fn through_wire<M: Message + Clone + PartialEq + Debug>(
        &self,
        message: M,
        term: Term,
        sender: NodeId,
    ) -> Result<M, Broken> {
        if !self.plan.codecs {
            return Ok(message);
        }
        let run = self.plan.settings.run;
        let envelope = Envelope { version: WIRE_VERSION, run, term, sender, message };
        let broken = |what| Broken { invariant: "wire_form_is_faithful", what };
        let bytes = skipstone_protocol::encode(&envelope).map_err(|error| broken(error.to_string()))?;
        let back = skipstone_protocol::decode::<M>(&bytes, run).map_err(|error| broken(error.to_string()))?;
        if back == envelope {
            Ok(back.message)
        } else {
            Err(broken(format!("{envelope:?} came back as {back:?}")))
        }
    }

    pub(super) fn count(&mut self, fault: Fault) {
        *self.report.faults.entry(fault).or_default() += 1;
    }

    /// Takes note of what the coordinator logs.
    pub(super) fn log(&mut self, event: &Logged) -> Checked {
        self.observe(&Observation::Log { event })?;
        match event {
            Logged::Committed { stages, .. } => {
                self.report.around_holes += u64::from(stages.iter().any(|stage| stage.nodes.is_empty()));
            }
            Logged::AttemptAborted { .. } => self.report.aborted += 1,
            Logged::CoordinatorStarted { .. } => self.invocation.resume = None,
            Logged::Finished { .. } => self.invocation.over = true,
            Logged::StageLost { .. } => self.report.stages_lost += 1,
            Logged::StageRebuilt { kind, .. } => {
                self.report.rebuilt += 1;
                self.report.saved_copies += u64::from(kind == "saved");
            }
            Logged::RolledBack { .. } => self.report.rolled_back += 1,
            Logged::CopyKept { .. } => self.report.copies += 1,
            Logged::RebuildStarted { stage, sources, lessons, .. } => {
                let restores = sources.iter().any(|(source, _)| source == stage);
                self.report.restored += u64::from(restores);
                self.report.learned += u64::from(*lessons > 0 && !restores);
                self.report.retraced += u64::from(*lessons > 0 && restores);
            }
            Logged::Repaired { .. } => self.report.repaired += 1,
            Logged::Hedged { .. } => self.report.hedged += 1,
            Logged::ShareRefused { .. } => self.report.refused += 1,
            Logged::SpotChecked { .. } => self.report.checked += 1,
            Logged::Disputed { wrong: Some(_), .. } => self.report.found += 1,
            Logged::Struck { strikes, strikes_max, .. } => {
                self.report.struck += u64::from(strikes >= strikes_max);
            }
            _ => {}
        }
        if self.trace.is_some() {
            self.remember(&format!("log {event:?}"));
        }
        Ok(())
    }

    /// Shows the invariants how the run stands, and ends the faults when it is time.
    fn watch(&mut self) -> Checked {
        let due = self.truth.committed() >= self.plan.faults_until_iteration
            || self.now >= self.plan.faults_until_us;
        if self.chaos.calm_since.is_none() && due {
            self.lift_faults();
        }
        let (since_us, now_us) = (self.invocation.since_us, self.now);
        let calm_since_us = self.chaos.calm_since.map(|calm| calm.max(since_us));
        let bound = || self.wiring.bound().map(|(node, _)| node);
        let (nodes, origins) = (bound().count(), bound().filter(|node| self.truth.is_origin(*node)).count());
        self.observe(&Observation::Standing { now_us, calm_since_us, nodes, origins })?;
        for pid in 0..self.nodes.len() {
            let node = &self.nodes[pid];
            if node.alive {
                self.invariants.observe(
                    &Observation::Keeps { node: node.id, queues: &node.worker.queues() },
                    &self.truth,
                )?;
            }
        }
        let bound: Vec<_> = self.wiring.bound().map(|(node, _)| node).collect();
        match self.hub.waits() {
            Some(waits) => self.observe(&Observation::Waits {
                waits: &waits,
                bound: &bound,
                now_us,
                calm: calm_since_us.is_some(),
            }),
            None => Ok(()),
        }
    }

    fn note(&mut self, event: &Event) {
        if self.trace.is_some()
            && !matches!(
                event,
                Event::Tick
                    | Event::Fault
                    | Event::Relapse { .. }
                    | Event::Restore { .. }
                    | Event::Node(_, NodeEvent::Dial)
            )
        {
            self.remember(&format!("{event:?}"));
        }
    }

    /// Adds a line to the trace.
    pub(super) fn remember(&mut self, line: &str) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_MAX {
                trace.pop_front();
            }
            trace.push_back(format!("{:>12.6} {line}", now as f64 / 1e6));
        }
    }

    /// Whether the run is traced.
    pub(super) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    fn violation(&self, broken: Broken) -> Violation {
        let seed = self.plan.seed;
        let dump = if self.trace.is_some() {
            let workers: Vec<_> = self.nodes.iter().filter(|node| node.alive).collect();
            format!("{:#?}\n{:#?}\n{workers:#?}", self.plan, self.hub)
        } else {
            String::new()
        };
        Violation {
            seed,
            invariant: broken.invariant.to_owned(),
            what: broken.what,
            at_us: self.now,
            reproduce: String::new(),
            trace: self.trace.iter().flatten().cloned().collect(),
            dump,
        }
    }
}
