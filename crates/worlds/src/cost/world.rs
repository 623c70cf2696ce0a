//! A simulated run: its processes, its network, its virtual time, and the parent that kills and replaces.

use super::hub::Hub;
use super::node::Node;
use super::report::{IterationTimes, Simulated};
use super::tensors::{Files, Freight, Tensors};
use super::watcher::{Seen, Watcher};
use super::wires::{Pid, Wires};
use super::{CostModel, SimulateError};
use crate::fault::queue::Queue;
use crate::live::supervisor::kills::{Deed, Killer, Roster};
use skipstone_observe::{RunInfo, RunState, Summary};
use skipstone_planner::SwarmChooser;
use skipstone_protocol::{CoordinatorInput, TaskId, ToCoordinator, ToPeer, ToWorker, Worker, WorkerInput};
use skipstone_types::{EVENT_SCHEMA, Event as Logged, EventRecord, Iteration, NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two looks of the parent at its children, as live.
const LOOK_US: u64 = 20_000;

/// Between two ticks of the coordinator, as live.
const TICK_US: u64 = 50_000;

/// A run that commits nothing for so much virtual time …
const STANDSTILL_US: u64 = 3_600_000_000;
/// … and for so many times its longest iteration has come to a standstill.
const STANDSTILL_FACTOR: u64 = 50;

/// What happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    /// The parent looks at its children.
    Look,
    /// Time passes for the coordinator.
    Tick,
    /// A write is on disk.
    Written,
    /// A process starts.
    Start {
        place: usize,
    },
    /// A node's connection to the coordinator stands.
    HubUp {
        pid: Pid,
    },
    /// A message arrives.
    ToHub {
        pid: Pid,
        sender: NodeId,
        message: ToCoordinator,
    },
    ToNode {
        pid: Pid,
        message: ToWorker,
    },
    ToPeer {
        pid: Pid,
        from: NodeId,
        message: ToPeer,
        payload: Option<Freight>,
        began_us: u64,
    },
    /// A connection between nodes stands.
    PeerUp {
        pid: Pid,
        peer: Pid,
    },
    /// The coordinator sees that a connection has ended.
    Lost {
        pid: Pid,
    },
    /// A node's state is on the disk.
    NodeWritten {
        pid: Pid,
        id: TaskId,
    },
    /// A task is over.
    Computed {
        pid: Pid,
        id: TaskId,
    },
}

/// Everything that is simulated.
#[derive(Debug)]
pub(super) struct World {
    pub(super) model: CostModel,
    pub(super) now_us: u64,
    pub(super) queue: Queue<Event>,
    pub(super) nodes: Vec<Node>,
    /// Processes of the nodes that the coordinator knows.
    pub(super) pids: BTreeMap<NodeId, Pid>,
    pub(super) hub: Hub,
    pub(super) wires: Wires,
    pub(super) files: Files,
    pub(super) end: Option<String>,
    state: RunState,
    roster: Roster,
    killer: Killer,
    /// Places whose process is gone, and not yet replaced.
    empty: Vec<usize>,
    /// Nodes that have said that they leave.
    leaving: Vec<NodeId>,
    /// The first process that has not joined, and those behind it that could.
    turn: Pid,
    waiting: BTreeSet<Pid>,
    iteration: Iteration,
    commits_us: Vec<u64>,
    /// What the plan of the attempt under way expects, and those of committed iterations did, in milliseconds.
    expects_ms: Option<u64>,
    expected_ms: Vec<u64>,
    /// When the last shares of each committed iteration were there, in milliseconds.
    shares_ms: Vec<u64>,
    longest_us: u64,
    /// When places were last empty that no machine was there for.
    enough_us: u64,
    saved_us: u64,
    over: bool,
    /// What the watcher has not been told yet.
    seen: Vec<Seen>,
    /// Bytes of tensors that nodes have sent each other.
    pub(super) sent_bytes: f64,
}

impl World {
    pub(super) fn new(model: CostModel) -> Result<Self, SimulateError> {
        let settings = model.settings.clone();
        let info = RunInfo {
            model: "simulated".to_owned(),
            price_per_hour: model.price_per_hour,
            price_per_gb: model.price_per_gb,
            ..RunInfo::from_settings(&settings)
        };
        let chooser = model.swarm.clone().map(SwarmChooser::new).transpose();
        let chooser = chooser.map_err(|why| SimulateError::Plan(why.to_string()))?;
        let chooser = chooser.map(|chooser| chooser.with_domain_price(model.domain_price_s));
        let killer = Killer::new(model.script.clone(), model.churn.clone(), settings.seed, settings.nodes());
        let mut world = Self {
            hub: Hub::new(settings, chooser, &model.paths),
            now_us: 0,
            queue: Queue::new(),
            nodes: Vec::new(),
            pids: BTreeMap::new(),
            wires: Wires::default(),
            files: Files::of(&model.settings.recovery),
            end: None,
            state: RunState::new(info),
            roster: Roster::default(),
            killer,
            empty: Vec::new(),
            leaving: Vec::new(),
            turn: 0,
            waiting: BTreeSet::new(),
            iteration: Iteration(0),
            commits_us: Vec::new(),
            expects_ms: None,
            expected_ms: Vec::new(),
            shares_ms: Vec::new(),
            longest_us: 0,
            enough_us: 0,
            saved_us: 0,
            over: false,
            seen: Vec::new(),
            sent_bytes: 0.0,
            model,
        };
        world.go_on()?;
        Ok(world)
    }

    /// Runs to the end.
    pub(super) fn run(mut self, watcher: &mut dyn Watcher) -> Result<Simulated, SimulateError> {
        for place in 0..self.model.settings.nodes() {
            self.queue.push(0, Event::Start { place });
        }
        self.queue.push(TICK_US, Event::Tick);
        self.queue.push(LOOK_US, Event::Look);
        let (mut events, mut told) = (0, 0);
        while self.end.is_none() {
            let Some((at_us, event)) = self.queue.pop() else { break };
            self.now_us = at_us;
            events += 1;
            self.handle(event)?;
            for seen in self.seen.drain(..) {
                watcher.see(seen).map_err(SimulateError::Watcher)?;
            }
            if told < self.commits_us.len() {
                told = self.commits_us.len();
                watcher.progress(told as u64);
            }
        }
        self.state.advance(self.now_us / 1000);
        let mut summary = Summary::of(&self.state);
        summary.ended = self.end.or(summary.ended);
        summary.set_traffic(&self.state.info, self.sent_bytes as u64);
        let iteration = IterationTimes::of(&self.commits_us).with_means(&self.expected_ms, &self.shares_ms);
        Ok(Simulated { summary, iteration, sent_bytes: self.sent_bytes as u64, events })
    }

    fn handle(&mut self, event: Event) -> Result<(), SimulateError> {
        match event {
            Event::Look => self.look(),
            Event::Tick => {
                self.queue.push(self.now_us + TICK_US, Event::Tick);
                self.hub_input(CoordinatorInput::Tick)
            }
            Event::Written => self.written(),
            Event::Start { place } => {
                self.start(place);
                Ok(())
            }
            Event::Lost { pid } => match self.nodes[pid].bound.take() {
                Some(node) => self.hub_input(CoordinatorInput::Lost { node, why: "connection".to_owned() }),
                None => Ok(()),
            },
            Event::ToHub { pid, sender, message } => self.hub_hears(pid, sender, message),
            // At the start of a run nodes are let in one after the other, by their places.
            Event::HubUp { pid } if pid > self.turn && pid < self.model.settings.nodes() => {
                self.waiting.insert(pid);
                Ok(())
            }
            Event::HubUp { pid } if self.nodes[pid].alive => self.tell(pid, WorkerInput::CoordinatorUp),
            Event::ToNode { pid, message } if self.nodes[pid].alive => self.hear_hub(pid, message),
            Event::ToPeer { pid, from, message, payload, began_us } if self.nodes[pid].alive => {
                self.hear_peer(pid, from, message, payload, began_us)
            }
            Event::PeerUp { pid, peer } if self.nodes[pid].alive && self.nodes[peer].alive => {
                let peer = self.nodes[peer].worker.node();
                self.tell(pid, WorkerInput::PeerUp { peer })
            }
            Event::NodeWritten { pid, id } if self.nodes[pid].alive => self.node_written(pid, id),
            Event::Computed { pid, id } if self.nodes[pid].alive => self.computed(pid, id),
            // To the dead.
            _ => Ok(()),
        }
    }

    /// A process starts, and dials the coordinator.
    fn start(&mut self, place: usize) {
        let pid = self.nodes.len();
        let region = self.model.network.region_of(place);
        let times = self.model.times[place];
        let tensors = Tensors::new(self.model.numbers.as_ref());
        let worker = Worker::new(self.model.settings.run, format!("process:{pid}"), pid as u32);
        self.nodes.push(Node::new(place, region, worker, times, tensors));
        let (way, tempo) = (self.way_of_hub(pid, true), self.model.tempo);
        let at_us = self.now_us + tempo.startup_us + 2 * way.round_trip_us + tempo.connect_us;
        self.queue.push(at_us, Event::HubUp { pid });
    }

    /// A process is gone.
    pub(super) fn end_process(&mut self, pid: Pid) {
        if !self.nodes[pid].alive {
            return;
        }
        self.nodes[pid].die();
        let way = self.way_of_hub(pid, true);
        self.queue.push(self.now_us + way.latency_us + self.model.tempo.driver_us, Event::Lost { pid });
        self.wires.close(pid);
        if !self.nodes[pid].succeeded {
            self.empty.push(self.nodes[pid].place);
        }
    }

    /// The parent looks at its children: replaces the dead, and kills on purpose.
    fn look(&mut self) -> Result<(), SimulateError> {
        self.queue.push(self.now_us + LOOK_US, Event::Look);
        let patience_us = STANDSTILL_US.max(STANDSTILL_FACTOR * self.longest_us);
        // A trace may have too few machines to train with, for as long as it likes.
        if self.killer.waits_for_machines() {
            self.enough_us = self.now_us;
        }
        let since_us = self.commits_us.last().copied().unwrap_or(0).max(self.enough_us);
        if self.now_us > since_us + patience_us {
            let (iterations, at_s) = (self.commits_us.len() as u64, self.now_us as f64 / 1e6);
            return Err(SimulateError::Standstill { iterations, at_s });
        }
        if self.model.settings.respawn && !self.over {
            for node in std::mem::take(&mut self.leaving) {
                if let Some(pid) = self.pids.get(&node).copied().filter(|pid| !self.nodes[*pid].succeeded) {
                    self.nodes[pid].succeeded = true;
                    self.replace(self.nodes[pid].place);
                }
            }
            let replaced = self.empty.len().saturating_sub(self.killer.away());
            for place in self.empty.drain(..replaced).collect::<Vec<_>>() {
                self.replace(place);
            }
        }
        if self.iteration.0 >= self.model.settings.steps || self.over {
            return Ok(());
        }
        for deed in self.killer.due(Duration::from_micros(self.now_us), self.iteration, &self.roster) {
            match deed {
                Deed::Kill(Some(node)) => self.take_away(node, false)?,
                Deed::Drain(node) => self.take_away(node, true)?,
                Deed::Region { region, notice } => {
                    let mut nodes = self.roster.all();
                    nodes.retain(|node| {
                        self.pids.get(node).is_some_and(|pid| self.nodes[*pid].region == region)
                    });
                    for node in self.roster.but_the_last_origin(nodes) {
                        self.take_away(node, notice)?;
                    }
                }
                // No trace names it.
                Deed::Kill(None) => {}
            }
        }
        let every_s = self.model.save_every_s;
        if every_s > 0.0 && (self.now_us - self.saved_us) as f64 / 1e6 >= every_s {
            self.saved_us = self.now_us;
            return self.hub_input(CoordinatorInput::Save);
        }
        Ok(())
    }

    /// Kills a node, or gives it notice.
    fn take_away(&mut self, node: NodeId, notice: bool) -> Result<(), SimulateError> {
        let Some(pid) = self.pids.get(&node).copied() else { return Ok(()) };
        if notice {
            return self.tell(pid, WorkerInput::Leave);
        }
        let stage = self.roster.stage_of(node);
        self.end_process(pid);
        self.hear_event(Logged::Killed { target: "node".to_owned(), node: Some(node), stage });
        Ok(())
    }

    /// Shows the watcher what it wants to see.
    fn show(&mut self, event: &Logged) {
        let every = self.model.weights_every;
        if every == 0 {
            return;
        }
        let at_us = self.now_us;
        let before = match event {
            // The nodes have not heard of it yet: they hold what it starts from.
            Logged::Committed { iteration, .. } => Some(*iteration).filter(|t| t.0.is_multiple_of(every)),
            Logged::Finished { iteration, .. } => Some(*iteration),
            _ => None,
        };
        if let Some(iteration) = before {
            let stages = (0..=self.model.settings.relay_stages).map(|stage| self.weights_of(StageId(stage)));
            self.seen.push(Seen::Weights { at_us, iteration, stages: stages.collect() });
        }
        self.seen.push(Seen::Event { at_us, event: event.clone() });
    }

    /// The weights that a stage is served with; none of a hole.
    fn weights_of(&self, stage: StageId) -> Option<Vec<f32>> {
        let nodes = self.roster.of_stage(stage);
        let mut living = nodes.iter().filter_map(|node| Some(&self.nodes[*self.pids.get(node)?]));
        living.find_map(|node| node.weights().filter(|(held, _)| *held == stage)).map(|(_, weights)| weights)
    }

    fn replace(&mut self, place: usize) {
        self.start(place);
        self.hear_event(Logged::Respawned { target: "node".to_owned() });
    }

    /// Something happened that a live run would write into its log.
    pub(super) fn hear_event(&mut self, event: Logged) {
        self.roster.apply(&event);
        self.show(&event);
        match &event {
            Logged::Committed { iteration, stages, .. } => {
                let shares = stages.iter().filter_map(|stage| stage.pace).map(|pace| pace.shares_ms);
                self.shares_ms.push(shares.max().unwrap_or(0));
                self.iteration = iteration.next();
                let last_us = self.commits_us.last().copied().unwrap_or(self.now_us);
                self.longest_us = self.longest_us.max(self.now_us - last_us);
                self.commits_us.push(self.now_us);
                self.sent_bytes += self.model.calm_bytes;
                self.expected_ms.extend(self.expects_ms.take());
            }
            Logged::AttemptStarted { expected_ms, .. } => self.expects_ms = *expected_ms,
            Logged::NodeJoined { process, .. } if *process as Pid == self.turn => {
                self.turn += 1;
                if self.waiting.remove(&self.turn) {
                    self.queue
                        .push(self.now_us + self.model.tempo.connect_us, Event::HubUp { pid: self.turn });
                }
            }
            Logged::Leaving { node, .. } => self.leaving.push(*node),
            Logged::Finished { .. } => self.over = true,
            _ => {}
        }
        self.state.apply(&EventRecord { schema: EVENT_SCHEMA, time_ms: self.now_us / 1000, event });
    }
}
