//! The coordinator's process: its core, its disk, and the driver that carries out its commands one by one.

use super::chaos::Doom;
use super::disk::Disk;
use super::invariants::Observation;
use super::world::{Broken, Checked, Event, World};
use skipstone_planner::{BalancedChooser, PathChooser};
use skipstone_protocol::{
    Coordinator, CoordinatorCommand, CoordinatorInput, End, Entry, Holding, ToCoordinator, ToWorker,
};
use skipstone_types::{NodeId, Plan, Term};
use std::collections::{BTreeMap, VecDeque};

/// What happens to the coordinator.
#[derive(Debug)]
pub(super) enum HubEvent {
    /// It starts, on its journal.
    Start,
    /// Time passes.
    Tick,
    /// A worker says something.
    Frame { connection: u64, sender: NodeId, term: Term, message: ToCoordinator },
    /// A connection has ended.
    Gone { connection: u64 },
    /// Nothing has been heard of a connection for long.
    Silent { connection: u64 },
    /// A write is on disk.
    Written { life: u64 },
    /// A search for paths is over.
    Planned { life: u64, plan: Plan },
    /// It goes on after standing still.
    Wake { life: u64 },
    /// Someone asks for `state/`.
    Save,
}

/// The coordinator's process.
#[derive(Debug)]
pub(super) struct Hub {
    core: Option<Coordinator>,
    /// Counts starts.
    pub(super) life: u64,
    pub(super) disk: Disk,
    /// Commands not yet carried out.
    commands: VecDeque<CoordinatorCommand>,
    /// The entry that is being written.
    writing: Option<Entry>,
    pub(super) stalled: bool,
    /// What waits until it can go on.
    inbox: VecDeque<HubEvent>,
    /// How it will die.
    pub(super) doom: Option<Doom>,
    end: Option<End>,
    /// The node that was cut off last.
    pub(super) last_lost: Option<NodeId>,
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
            last_lost: None,
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

    /// Takes the next command.
    pub(super) fn next_command(&mut self) -> Option<CoordinatorCommand> {
        self.commands.pop_front()
    }

    fn is_blocked(&self) -> bool {
        self.writing.is_some() || self.stalled
    }
}

impl World {
    /// Something happens to the coordinator.
    pub(super) fn hub_event(&mut self, event: HubEvent) -> Checked {
        match event {
            HubEvent::Start => self.start_hub(),
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
        if self.hub.ended() {
            return Ok(());
        }
        if self.forgets_synced() {
            self.hub.disk.forget_last();
        }
        let entries = self.hub.disk.restore().map_err(|what| Broken {
            invariant: "journal_restores_what_existed",
            section: "§4",
            what,
        })?;
        let written = self.hub.disk.written().to_vec();
        self.observe(&Observation::Restored { entries: &entries, written: &written })?;
        self.hub.life += 1;
        self.report.terms += 1;
        let (core, commands) = Coordinator::open(self.plan.settings.clone(), &entries, None, self.now);
        self.hub.core = Some(core);
        self.hub.commands.extend(commands);
        self.go_on()
    }

    fn hub_hears(&mut self, event: HubEvent) -> Checked {
        let life = self.hub.life;
        let input = match event {
            HubEvent::Tick => Some(CoordinatorInput::Tick),
            HubEvent::Save => Some(CoordinatorInput::Save),
            HubEvent::Planned { life: of, plan } if of == life => Some(CoordinatorInput::Planned { plan }),
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
        let now = self.now;
        let Some(core) = &mut self.hub.core else { return Ok(()) };
        let commands = core.on(input, now);
        self.hub.commands.extend(commands);
        self.go_on()
    }

    /// What a frame is to the core, if its envelope is in order (DESIGN §4.6).
    fn frame_input(
        &mut self,
        connection: u64,
        sender: NodeId,
        term: Term,
        message: ToCoordinator,
    ) -> Option<CoordinatorInput> {
        match (self.wiring.node_of(connection), self.wiring.was_bound(connection)) {
            (Some(node), _) => (sender == node && term >= self.hub.term())
                .then_some(CoordinatorInput::Worker { node, message }),
            (None, false) if matches!(message, ToCoordinator::Hello { .. }) => {
                if let ToCoordinator::Hello { holding: Some(holding), .. } = &message {
                    self.hub.holdings.insert(connection, holding.clone());
                }
                Some(CoordinatorInput::Hello { connection, hello: message })
            }
            _ => None,
        }
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
                self.send_to_node(to, message)
            }
            CoordinatorCommand::Disconnect { node } => {
                self.observe(&Observation::Disconnected { node })?;
                self.disconnect(node);
                Ok(())
            }
            CoordinatorCommand::Journal { entry } => {
                self.hub.writing = Some(entry);
                let (delay, life) = (self.draw(self.plan.tempo.write_us), self.hub.life);
                self.schedule(delay, Event::Hub(HubEvent::Written { life }));
                Ok(())
            }
            CoordinatorCommand::Plan { problem } => {
                let plan = BalancedChooser.choose(&problem).map_err(|error| {
                    Broken::interface(format!("{error}, and still the coordinator asks: {problem:?}"))
                })?;
                let (delay, life) = (self.draw(self.plan.tempo.plan_us), self.hub.life);
                self.schedule(delay, Event::Hub(HubEvent::Planned { life, plan }));
                Ok(())
            }
            CoordinatorCommand::Publish { iteration, stages, .. } => {
                self.observe(&Observation::Published { iteration, stages: &stages })
            }
            // Only published states are kept here.
            CoordinatorCommand::Discard { .. } => Ok(()),
            CoordinatorCommand::Log { event } => {
                self.log(&event);
                Ok(())
            }
            CoordinatorCommand::End { end } => self.ended(end),
        }
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
        self.finished = true;
        Ok(())
    }

    fn written(&mut self, life: u64) -> Checked {
        if life != self.hub.life {
            return Ok(());
        }
        let Some(entry) = self.hub.writing.take() else { return Ok(()) };
        self.on_disk(&entry)?;
        if matches!(self.hub.doom, Some(Doom::AfterWrite)) {
            self.count(super::Fault::CrashAfterWrite);
            self.crash_hub();
            return Ok(());
        }
        self.go_on()
    }

    /// An entry is whole on the disk: it counts from now on, whoever hears of it.
    fn on_disk(&mut self, entry: &Entry) -> Checked {
        self.hub.disk.append(entry.clone());
        self.observe(&Observation::Written { entry })
    }

    /// The coordinator's process dies.
    pub(super) fn crash_hub(&mut self) {
        self.hub_end_gone();
        self.hub.core = None;
        self.hub.commands.clear();
        self.hub.inbox.clear();
        self.hub.stalled = false;
        self.hub.doom = None;
        self.hub.writing = None;
        let delay = self.draw(self.plan.tempo.restart_us);
        self.schedule(delay, Event::Hub(HubEvent::Start));
    }

    /// Dies at once, whatever is under way. A write may be on disk in part, or whole.
    pub(super) fn crash_hub_now(&mut self) -> Checked {
        if let Some(entry) = self.hub.writing.take() {
            if self.random.chance(0.4) {
                self.on_disk(&entry)?;
            } else {
                let fraction = self.random.fraction();
                self.hub.disk.tear(&entry, fraction);
            }
        }
        self.crash_hub();
        Ok(())
    }
}
