//! A simulated run: its processes, its network, its virtual time.

use super::chaos::Chaos;
use super::hub::{Hub, HubEvent};
use super::invariants::{Invariants, Observation};
use super::links::Links;
use super::node::{Node, NodeEvent, Pid};
use super::plan::{Fault, FaultPlan};
use super::queue::Queue;
use super::random::Random;
use super::report::{Report, Violation};
use super::tamper::Tamper;
use super::truth::Truth;
use super::wiring::Wiring;
use skipstone_protocol::{Envelope, Message, WIRE_VERSION};
use skipstone_types::{Event as Logged, NodeId, Term};
use std::collections::VecDeque;
use std::fmt::Debug;

/// Events kept when a run is traced.
const TRACE_MAX: usize = 3000;

/// Between two ticks of the coordinator.
const TICK_US: u64 = 50_000;

/// Virtual time that a run without faults has for its next iteration, or its end.
const CALM_US: u64 = 60_000_000;

/// A promise that does not hold.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) invariant: &'static str,
    pub(super) section: &'static str,
    pub(super) what: String,
}

impl Broken {
    /// A core used its driver in a way that the interface does not allow.
    pub(super) fn interface(what: String) -> Self {
        Self { invariant: "commands_make_sense", section: "§2", what }
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
    /// A process starts on a machine that lost one.
    Spawn,
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
    pub(super) hub: Hub,
    pub(super) wiring: Wiring,
    pub(super) links: Links,
    pub(super) chaos: Chaos,
    pub(super) truth: Truth,
    pub(super) tamper: Option<Tamper>,
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
            hub: Hub::new(),
            wiring: Wiring::default(),
            links: Links::default(),
            chaos: Chaos::default(),
            truth: Truth::new(&plan.settings),
            invariants: Invariants::new(&plan.settings),
            tamper,
            report: Report { seed: plan.seed, nodes, ..Report::default() },
            finished: false,
            trace: traced.then(VecDeque::new),
            plan,
        }
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<Report, Box<Violation>> {
        self.schedule(0, Event::Hub(HubEvent::Start));
        for _ in 0..self.plan.settings.nodes() {
            let delay = self.random.between(0, 100_000);
            self.schedule(delay, Event::Spawn);
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
                self.watch_over_liveness()?;
                self.hub_event(HubEvent::Tick)
            }
            Event::Fault => self.strike(),
            Event::Hub(event) => self.hub_event(event),
            Event::Node(pid, event) => self.node_event(pid, event),
            Event::Spawn => {
                self.spawn();
                Ok(())
            }
            Event::DialPeer { from, to } => {
                self.dial_peer(from, to);
                Ok(())
            }
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

    /// Tells every invariant what was seen.
    pub(super) fn observe(&mut self, seen: &Observation<'_>) -> Checked {
        self.truth.observe(seen, self.now);
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
        let broken = |what| Broken { invariant: "wire_form_is_faithful", section: "§4.6", what };
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
    pub(super) fn log(&mut self, event: &Logged) {
        match event {
            Logged::Committed { stages, .. } => {
                self.report.around_holes += u64::from(stages.iter().any(|stage| stage.nodes.is_empty()));
            }
            Logged::AttemptAborted { .. } => self.report.aborted += 1,
            Logged::StageLost { .. } => self.report.stages_lost += 1,
            Logged::StageRebuilt { .. } => self.report.rebuilt += 1,
            Logged::Repaired { .. } => self.report.repaired += 1,
            _ => {}
        }
        if self.trace.is_some() {
            self.remember(&format!("log {event:?}"));
        }
    }

    /// A run without faults gets on; else this is a hang.
    fn watch_over_liveness(&mut self) -> Checked {
        let Some(since) = self.chaos.calm_since else {
            if self.truth.committed() >= self.plan.faults_until_iteration
                || self.now >= self.plan.faults_until_us
            {
                self.lift_faults();
            }
            return Ok(());
        };
        if self.now > since.max(self.truth.last_commit_us()) + CALM_US {
            let what = format!(
                "faults ended at {:.3} s, {} of {} iterations are committed, and nothing more has been for {} s",
                since as f64 / 1e6,
                self.truth.committed(),
                self.plan.settings.steps,
                CALM_US / 1_000_000
            );
            return Err(Broken { invariant: "runs_end_when_faults_end", section: "§4", what });
        }
        Ok(())
    }

    fn note(&mut self, event: &Event) {
        if self.trace.is_some()
            && !matches!(event, Event::Tick | Event::Fault | Event::Node(_, NodeEvent::Dial))
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
            section: broken.section.to_owned(),
            what: broken.what,
            at_us: self.now,
            reproduce: String::new(),
            trace: self.trace.iter().flatten().cloned().collect(),
            dump,
        }
    }
}
