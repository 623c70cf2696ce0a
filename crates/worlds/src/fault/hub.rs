//! The coordinator's process: its core, its disk, and the driver that carries out its commands one by one.

use super::chaos::Doom;
use super::disk::Disk;
use super::invariants::Observation;
use super::random::Random;
use super::world::{Broken, Checked, Event, World};
use skipstone_planner::{BalancedChooser, PathChooser};
use skipstone_protocol::{
    Coordinator, CoordinatorCommand, CoordinatorInput, End, Entry, FailureDomain, Holding, SavedStage,
    ToCoordinator, ToWorker, Wait, condense,
};
use skipstone_types::{Iteration, NodeId, PlaceAnswer, PlaceProblem, Plan, StageId, Swap, Term};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

/// What happens to the coordinator.
#[derive(Debug)]
pub(super) enum HubEvent {
    /// It starts, on its journal, if the run was not begun anew meanwhile.
    Start {
        invocation: u32,
    },
    /// Time passes.
    Tick,
    /// A worker says something.
    Frame {
        connection: u64,
        sender: NodeId,
        term: Term,
        message: ToCoordinator,
    },
    /// A connection has ended.
    Gone {
        connection: u64,
    },
    /// Nothing has been heard of a connection for long.
    Silent {
        connection: u64,
    },
    /// A write is on disk.
    Written {
        life: u64,
    },
    /// A search for paths is over.
    Planned {
        life: u64,
        plan: Plan,
    },
    Placed {
        life: u64,
        answer: PlaceAnswer,
    },
    /// It goes on after standing still.
    Wake {
        life: u64,
    },
    /// Someone asks for `state/`.
    Save,
    /// Someone asks it to stop.
    Stop,
}

/// What is being written to the disk.
#[derive(Debug)]
enum Write {
    Entry(Entry),
    Manifest(Iteration, Vec<SavedStage>),
}

/// Between two tries while the disk is full.
const DISK_RETRY_US: u64 = 200_000;

/// The coordinator's process.
#[derive(Debug)]
pub(super) struct Hub {
    core: Option<Coordinator>,
    /// Counts starts.
    pub(super) life: u64,
    pub(super) disk: Disk,
    /// Commands not yet carried out.
    commands: VecDeque<CoordinatorCommand>,
    writing: Option<Write>,
    pub(super) stalled: bool,
    /// What waits until it can go on.
    inbox: VecDeque<HubEvent>,
    /// How it will die.
    pub(super) doom: Option<Doom>,
    end: Option<End>,
    /// How far its clock is ahead of the others'.
    pub(super) clock_us: u64,
    /// The node that was cut off last.
    pub(super) last_lost: Option<NodeId>,
    /// A node that is not cut off, whatever is said.
    pub(super) kept: Option<NodeId>,
    /// What workers came with, by connection.
    holdings: BTreeMap<u64, Box<Holding>>,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            core: None,
            life: 0,
            disk: Disk::new(),
            commands: VecDeque::new(),
            writing: None,
            stalled: false,
            inbox: VecDeque::new(),
            doom: None,
            end: None,
            clock_us: 0,
            last_lost: None,
            kept: None,
            holdings: BTreeMap::new(),
        }
    }

    /// Whether it can be reached.
    pub(super) fn is_up(&self) -> bool {
        self.core.is_some() && self.end.is_none()
    }

    pub(super) fn ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn term(&self) -> Term {
        self.core.as_ref().map(Coordinator::term).unwrap_or_default()
    }

    /// Puts two commands before all others.
    pub(super) fn insert_command(&mut self, first: CoordinatorCommand, second: CoordinatorCommand) {
        self.commands.push_front(second);
        self.commands.push_front(first);
    }

    /// Puts a command behind all others.
    pub(super) fn append_command(&mut self, command: CoordinatorCommand) {
        self.commands.push_back(command);
    }

    /// The core hears something that a node never said (only for tampering).
    pub(super) fn hear_for(&mut self, node: NodeId, message: ToCoordinator, now_us: u64) {
        if let Some(core) = &mut self.core {
            let commands = core.on(CoordinatorInput::Worker { node, message }, now_us + self.clock_us);
            self.commands.extend(commands);
        }
    }

    /// Takes the next command.
    pub(super) fn next_command(&mut self) -> Option<CoordinatorCommand> {
        self.commands.pop_front()
    }

    /// As on a machine where it never ran, but for the disk.
    pub(super) fn begin_anew(&mut self) {
        let disk = std::mem::replace(&mut self.disk, Disk::new());
        *self = Self { disk, life: self.life + 1, ..Self::new() };
    }

    /// What the coordinator waits for, when it has done all that it can.
    pub(super) fn waits(&self) -> Option<Vec<Wait>> {
        let idle =
            self.commands.is_empty() && self.inbox.is_empty() && !self.is_blocked() && self.end.is_none();
        self.core.as_ref().filter(|_| idle).map(Coordinator::waits)
    }

    fn is_blocked(&self) -> bool {
        self.writing.is_some() || self.stalled
    }
}

impl World {
    /// Something happens to the coordinator.
    pub(super) fn hub_event(&mut self, event: HubEvent) -> Checked {
        match event {
            HubEvent::Start { invocation } if invocation != self.invocation.number => Ok(()),
            HubEvent::Start { .. } => self.start_hub(),
            HubEvent::Written { life } => self.written(life),
            HubEvent::Wake { life } => {
                if life == self.hub.life {
                    self.hub.stalled = false;
                    self.go_on()?;
                }
                Ok(())
            }
            _ if self.hub.core.is_none() || self.hub.ended() => Ok(()),
            HubEvent::Tick if self.hub.is_blocked() => Ok(()),
            event if self.hub.is_blocked() => {
                self.hub.inbox.push_back(event);
                Ok(())
            }
            event => self.hub_hears(event),
        }
    }

    fn start_hub(&mut self) -> Checked {
        if self.hub.ended() || self.hub.core.is_some() {
            return Ok(());
        }
        if self.forgets_synced() {
            self.hub.disk.forget_last();
        }
        let entries = self
            .hub
            .disk
            .restore()
            .map_err(|what| Broken { invariant: "journal_restores_what_existed", what })?;
        let written = self.hub.disk.written().to_vec();
        self.cut_journal(&written)?;
        self.observe(&Observation::Restored { entries: &entries, written: &written })?;
        self.hub.life += 1;
        self.report.terms += 1;
        let (settings, resume) = (self.plan.settings.clone(), self.invocation.resume.clone());
        let target = self.tamper_with_reading(resume.as_ref().map(|saved| saved.iteration));
        let Ok((entries, ())) = condense(target, |each| {
            entries.iter().cloned().for_each(each);
            Ok::<_, Infallible>(())
        });
        let (core, commands) = Coordinator::open(settings, &entries, resume, self.now + self.hub.clock_us);
        self.hub.core = Some(core);
        self.hub.commands.extend(commands);
        if self.invocation.stops {
            self.schedule(1, Event::Hub(HubEvent::Stop));
        }
        if self.chaos.journal_deaths > 0 {
            self.chaos.journal_deaths -= 1;
            self.hub.doom = Some(self.draw_journal_doom());
        }
        self.go_on()
    }

    /// What a restart would find had the journal been cut anywhere.
    fn cut_journal(&mut self, written: &[Entry]) -> Checked {
        let last = self.hub.disk.len() as u64;
        // Mostly near the end, where it differs from what the run has seen.
        let back = self.random.magnitude(1, last.max(2));
        let entries = self.hub.disk.cut((last - back.min(last)) as usize);
        let entries = entries.as_deref().map_err(String::as_str);
        self.observe(&Observation::Cut { entries, written })
    }

    fn hub_hears(&mut self, event: HubEvent) -> Checked {
        let life = self.hub.life;
        let input = match event {
            HubEvent::Tick => Some(CoordinatorInput::Tick),
            HubEvent::Save => Some(CoordinatorInput::Save),
            HubEvent::Stop if self.loses_stop() => None,
            HubEvent::Stop => Some(CoordinatorInput::Stop),
            HubEvent::Planned { life: of, plan } if of == life => Some(CoordinatorInput::Planned { plan }),
            HubEvent::Placed { life: of, answer } if of == life => Some(CoordinatorInput::Placed { answer }),
            HubEvent::Frame { connection, sender, term, message }
                if self.wiring.reaches_hub(connection, life) =>
            {
                self.frame_input(connection, sender, term, message)
            }
            HubEvent::Gone { connection } => {
                let node = self.wiring.node_of(connection);
                node.map(|node| {
                    self.wiring.unbind(node);
                    CoordinatorInput::Lost { node, why: "connection".to_owned() }
                })
            }
            HubEvent::Silent { connection } => self
                .wiring
                .node_of(connection)
                .map(|node| CoordinatorInput::Lost { node, why: "silence".to_owned() }),
            _ => None,
        };
        let Some(input) = input else { return Ok(()) };
        self.observe(&Observation::Heard { input: &input })?;
        let now = self.now + self.hub.clock_us;
        let Some(core) = &mut self.hub.core else { return Ok(()) };
        let commands = core.on(input, now);
        self.hub.commands.extend(commands);
        self.go_on()
    }

    /// What a frame is to the core, if its envelope is in order.
    fn frame_input(
        &mut self,
        connection: u64,
        sender: NodeId,
        term: Term,
        message: ToCoordinator,
    ) -> Option<CoordinatorInput> {
        match (self.wiring.node_of(connection), self.wiring.was_bound(connection)) {
            (Some(node), _) => (sender == node && term >= self.hub.term()).then(|| {
                let message = self.tamper_with_report(node, message);
                CoordinatorInput::Worker { node, message }
            }),
            (None, false) if matches!(message, ToCoordinator::Hello { .. }) => {
                if let ToCoordinator::Hello { holding: Some(holding), .. } = &message {
                    self.hub.holdings.insert(connection, holding.clone());
                }
                let hello = self.tamper_with_hello(message);
                let domain = self.domain_of(connection);
                Some(CoordinatorInput::Hello { connection, hello, domain })
            }
            _ => None,
        }
    }

    /// What fails together with who is at the other end of a connection.
    fn domain_of(&self, connection: u64) -> FailureDomain {
        let machine = self.wiring.pid_of(connection).map(|pid| self.nodes[pid].machine);
        let region = machine.map(|machine| (machine % self.plan.regions) as u16);
        FailureDomain { region, machine: machine.map(|machine| machine as u64) }
    }

    /// Carries out commands until one takes time, then what came meanwhile.
    fn go_on(&mut self) -> Checked {
        while self.hub.core.is_some() && !self.hub.is_blocked() && !self.hub.ended() {
            if let Some(command) = self.hub.commands.pop_front() {
                if self.doom_strikes(&command) {
                    return Ok(());
                }
                if self.is_traced() {
                    self.remember(&format!("    coordinator: {command:?}"));
                }
                self.command(command)?;
            } else if let Some(event) = self.hub.inbox.pop_front() {
                self.hub_hears(event)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn command(&mut self, command: CoordinatorCommand) -> Checked {
        let Some(command) = self.tamper_with_command(command) else { return Ok(()) };
        match command {
            CoordinatorCommand::Bind { connection, node } => {
                let holding = self.hub.holdings.remove(&connection);
                self.observe(&Observation::Bound { node, holding: holding.as_deref() })?;
                self.wiring.bind(connection, node)
            }
            CoordinatorCommand::Reject { connection, why } => {
                self.send_on(connection, ToWorker::Refuse { why })?;
                self.close_from_hub(connection);
                Ok(())
            }
            CoordinatorCommand::Send { to, message } => {
                self.observe(&Observation::Told { node: to, message: &message })?;
                self.note_told(to, &message);
                self.send_to_node(to, message)
            }
            CoordinatorCommand::Disconnect { node } => {
                self.observe(&Observation::Disconnected { node })?;
                self.note_loss(node);
                self.disconnect(node);
                Ok(())
            }
            CoordinatorCommand::Journal { entry } => {
                self.begin_write(Write::Entry(entry));
                Ok(())
            }
            CoordinatorCommand::Plan { problem } => {
                let plan = BalancedChooser.choose(&problem).map_err(|error| {
                    Broken::interface(format!("{error}, and still the coordinator asks: {problem:?}"))
                })?;
                self.observe(&Observation::Planned { plan: &plan })?;
                let Some(plan) = self.tamper_with_plan(plan) else { return Ok(()) };
                let (delay, life) = (self.draw(self.plan.tempo.plan_us), self.hub.life);
                self.schedule(delay, Event::Hub(HubEvent::Planned { life, plan }));
                Ok(())
            }
            CoordinatorCommand::Place { problem } => {
                let answer = any_places(&problem);
                let (delay, life) = (self.draw(self.plan.tempo.plan_us), self.hub.life);
                self.schedule(delay, Event::Hub(HubEvent::Placed { life, answer }));
                Ok(())
            }
            CoordinatorCommand::Publish { iteration, stages, .. } => {
                self.begin_write(Write::Manifest(iteration, stages));
                Ok(())
            }
            // A file that was written for nothing is never looked at here.
            CoordinatorCommand::Discard { .. } => Ok(()),
            CoordinatorCommand::Log { event } => self.log(&event),
            CoordinatorCommand::End { end } => self.ended(end),
        }
    }

    fn begin_write(&mut self, write: Write) {
        let lost = matches!(write, Write::Entry(_)) && self.loses_write();
        self.hub.writing = Some(write);
        if lost {
            return;
        }
        let (delay, life) = (self.draw(self.plan.tempo.write_us), self.hub.life);
        self.schedule(delay, Event::Hub(HubEvent::Written { life }));
    }

    fn ended(&mut self, end: End) -> Checked {
        let bound: Vec<_> = self.wiring.bound().map(|(node, _)| node).collect();
        self.observe(&Observation::Ended { end: &end, bound: &bound })?;
        self.report.ended = match &end {
            End::Done => "done".to_owned(),
            End::Stopped => "stopped".to_owned(),
            End::Failed { why } => format!("failed: {why}"),
        };
        self.hub.end = Some(end);
        self.run_is_over();
        Ok(())
    }

    fn written(&mut self, life: u64) -> Checked {
        if life != self.hub.life {
            return Ok(());
        }
        let full = self.folder.full_until_us > self.now;
        match self.hub.writing.take() {
            None => return Ok(()),
            // Nothing may be heard before it is on disk: it is tried again until it is.
            Some(write) if full => {
                self.hub.writing = Some(write);
                self.schedule(DISK_RETRY_US, Event::Hub(HubEvent::Written { life }));
                return Ok(());
            }
            Some(Write::Entry(entry)) => {
                self.on_disk(&entry)?;
                if matches!(self.hub.doom, Some(Doom::AfterWrite)) {
                    self.count(super::Fault::Journal);
                    self.crash_hub();
                    return Ok(());
                }
            }
            Some(Write::Manifest(iteration, stages)) => self.published(iteration, stages)?,
        }
        self.go_on()
    }

    /// An entry is whole on the disk: it counts from now on, whoever hears of it.
    fn on_disk(&mut self, entry: &Entry) -> Checked {
        let twice = self.appends_twice();
        self.hub.disk.append(entry.clone(), twice);
        self.observe(&Observation::Written { entry })
    }

    fn published(&mut self, iteration: Iteration, stages: Vec<SavedStage>) -> Checked {
        self.observe(&Observation::Published { iteration, stages: &stages })?;
        self.folder.publish(iteration, stages);
        if self.loses_files() {
            self.folder.lose_file();
        }
        Ok(())
    }

    /// The coordinator's process dies.
    pub(super) fn crash_hub(&mut self) {
        self.leave_undecided();
        self.hub_end_gone();
        self.hub.core = None;
        self.hub.commands.clear();
        self.hub.inbox.clear();
        self.hub.stalled = false;
        self.hub.doom = None;
        self.hub.writing = None;
        self.hub.clock_us = 0;
        if self.invocation.over {
            // The parent has seen the end in the log, and starts no other.
            self.report.ended = String::from("died at the end");
            self.run_is_over();
            return;
        }
        let (delay, invocation) = (self.draw(self.plan.tempo.restart_us), self.invocation.number);
        self.schedule(delay, Event::Hub(HubEvent::Start { invocation }));
    }

    /// Dies at once, whatever is under way. A write may be on disk in part, or whole.
    pub(super) fn crash_hub_now(&mut self) -> Checked {
        let reaches_disk = self.folder.full_until_us <= self.now && self.random.chance(0.4);
        match self.hub.writing.take() {
            Some(Write::Entry(entry)) if reaches_disk => self.on_disk(&entry)?,
            Some(Write::Entry(entry)) => self.hub.disk.tear(&entry, &mut self.random),
            Some(Write::Manifest(iteration, stages)) if reaches_disk => self.published(iteration, stages)?,
            Some(Write::Manifest(..)) | None => {}
        }
        self.crash_hub();
        Ok(())
    }
}

/// Any answer that could come of a search: free nodes on stages that want some, or two that serve changing places. Without
/// links none is better than another, and drawn from the question alone it costs no seed its history.
fn any_places(problem: &PlaceProblem) -> PlaceAnswer {
    let mut random = Random::new(problem.seed, problem.epoch);
    let mut places = Vec::new();
    let mut open = problem.open.clone();
    for node in &problem.free {
        let wanting: Vec<usize> = (0..open.len()).filter(|stage| open[*stage] > 0).collect();
        // Now and then nobody is named: then nodes get stages as they came.
        if let Some(stage) = random.pick(&wanting).copied().filter(|_| random.chance(0.9)) {
            open[stage] -= 1;
            places.push((*node, StageId(stage as u16)));
        }
    }
    let mut swap = None;
    if problem.swap_within > 0 {
        let served: Vec<NodeId> = problem.nodes.iter().flatten().copied().collect();
        if let (Some(a), Some(b)) = (random.pick(&served).copied(), random.pick(&served).copied()) {
            swap = Some(Swap { a, b, before_us: 2, after_us: 1, copies_us: 1 });
        }
    }
    let expected_us = (!places.is_empty() || swap.is_some()).then_some(1);
    PlaceAnswer { epoch: problem.epoch, places, swap, expected_us, ..PlaceAnswer::default() }
}
