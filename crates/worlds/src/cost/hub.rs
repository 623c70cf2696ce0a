//! The coordinator's process: its core, and what its commands cost.

use super::wires::Pid;
use super::world::{Event, World};
use super::{Paths, SimulateError};
use crate::fixed_plan::FixedPlan;
use skipstone_planner::{BalancedChooser, DrawnChooser, PathChooser, PlanError, SwarmChooser};
use skipstone_protocol::{
    Coordinator, CoordinatorCommand, CoordinatorInput, End, FailureDomain, ToCoordinator, ToWorker,
    WorkerInput,
};
use skipstone_types::{NodeId, PlaceAnswer, Plan, PlanProblem, Settings, Term};
use std::collections::VecDeque;

/// The coordinator's process. It never dies here: what that costs is the chaos run's to show.
#[derive(Debug)]
pub(super) struct Hub {
    core: Coordinator,
    /// Searches for paths, and for who serves which stage; none: paths are balanced.
    chooser: Option<SwarmChooser>,
    /// In place of that.
    paths: OtherPaths,
    /// Commands not yet carried out.
    commands: VecDeque<CoordinatorCommand>,
    /// What comes while the journal is written.
    inbox: VecDeque<CoordinatorInput>,
    writing: bool,
}

/// Whose paths are taken in place of the planner's.
#[derive(Debug)]
enum OtherPaths {
    None,
    Balanced,
    Drawn(DrawnChooser),
}

impl Hub {
    pub(super) fn new(settings: Settings, chooser: Option<SwarmChooser>, paths: &Paths) -> Self {
        let (core, commands) = Coordinator::open(settings, &[], None, 0);
        let paths = match paths {
            Paths::Planned => OtherPaths::None,
            Paths::Balanced => OtherPaths::Balanced,
            Paths::Drawn(paths) => OtherPaths::Drawn(DrawnChooser::new(paths.clone())),
        };
        Self { core, chooser, paths, commands: commands.into(), inbox: VecDeque::new(), writing: false }
    }

    fn choose(&mut self, problem: &PlanProblem) -> Result<Plan, PlanError> {
        match (&mut self.paths, &mut self.chooser) {
            (OtherPaths::Drawn(chooser), _) => chooser.choose(problem),
            (OtherPaths::None, Some(chooser)) => chooser.choose(problem),
            (OtherPaths::None, None) | (OtherPaths::Balanced, _) => BalancedChooser.choose(problem),
        }
    }

    pub(super) fn term(&self) -> Term {
        self.core.term()
    }
}

impl World {
    /// A worker says something.
    pub(super) fn hub_hears(
        &mut self,
        pid: Pid,
        sender: NodeId,
        message: ToCoordinator,
    ) -> Result<(), SimulateError> {
        let input = match (self.nodes[pid].bound, message) {
            // What was sent under an old id counts for nothing.
            (Some(node), message) if node == sender => CoordinatorInput::Worker { node, message },
            (None, hello @ ToCoordinator::Hello { .. }) => {
                // Each place is a machine of its own.
                let (region, machine) = (self.nodes[pid].region, self.nodes[pid].place as u64);
                let domain = FailureDomain { region: Some(region), machine: Some(machine) };
                CoordinatorInput::Hello { connection: pid as u64, hello, domain }
            }
            _ => return Ok(()),
        };
        self.hub_input(input)
    }

    /// Gives the coordinator an input, once it is free.
    pub(super) fn hub_input(&mut self, input: CoordinatorInput) -> Result<(), SimulateError> {
        self.hub.inbox.push_back(input);
        self.go_on()
    }

    /// The journal's entry is on disk.
    pub(super) fn written(&mut self) -> Result<(), SimulateError> {
        self.hub.writing = false;
        self.go_on()
    }

    /// Carries out commands until one takes time, then what came meanwhile.
    pub(super) fn go_on(&mut self) -> Result<(), SimulateError> {
        while !self.hub.writing && self.end.is_none() {
            if let Some(command) = self.hub.commands.pop_front() {
                self.command(command)?;
            } else if let Some(input) = self.hub.inbox.pop_front() {
                let commands = self.hub.core.on(input, self.now_us);
                self.hub.commands.extend(commands);
            } else {
                break;
            }
        }
        Ok(())
    }

    fn command(&mut self, command: CoordinatorCommand) -> Result<(), SimulateError> {
        match command {
            CoordinatorCommand::Bind { connection, node } => {
                self.nodes[connection as Pid].bound = Some(node);
                self.pids.insert(node, connection as Pid);
                let network = &self.model.network;
                let region = network.region_of(self.nodes[connection as Pid].place);
                let region = network.names()[usize::from(region)].clone();
                if let Some(chooser) = &mut self.hub.chooser {
                    // As live: how fast it is shows after its first iteration.
                    chooser.locate(node, region).map_err(|why| SimulateError::Plan(why.to_string()))?;
                }
            }
            CoordinatorCommand::Reject { connection, why } => {
                self.send_to_node(connection as Pid, ToWorker::Refuse { why });
            }
            CoordinatorCommand::Publish { iteration, stages, .. } => self.files.publish(iteration, stages),
            // What is written for nothing takes no room. And a quiet node is asked what it computes, every second of virtual time, to find
            // tasks that never end: here all do.
            CoordinatorCommand::Discard { .. } | CoordinatorCommand::Send { message: ToWorker::Poll, .. } => {
            }
            CoordinatorCommand::Send { to, message } => {
                if let Some(pid) =
                    self.pids.get(&to).copied().filter(|pid| self.nodes[*pid].bound == Some(to))
                {
                    self.send_to_node(pid, message);
                }
            }
            CoordinatorCommand::Disconnect { node } => self.disconnect(node)?,
            CoordinatorCommand::Journal { .. } => {
                self.hub.writing = true;
                self.queue.push(self.now_us + self.model.tempo.journal_us, Event::Written);
            }
            CoordinatorCommand::Plan { problem } => {
                let given = self.model.fixed.as_ref().and_then(|fixed| fixed.plan(&problem));
                let plan = given.map_or_else(|| self.hub.choose(&problem), Ok);
                let plan = plan.map_err(|why| SimulateError::Plan(why.to_string()))?;
                self.hub.inbox.push_back(CoordinatorInput::Planned { plan });
            }
            CoordinatorCommand::Place { problem } => {
                // As live, but never in a hurry.
                let answer = match (&self.model.fixed, &mut self.hub.chooser) {
                    // Who comes later goes where it shortens an iteration most.
                    (Some(fixed), None) => fixed.places(&problem),
                    (Some(fixed), Some(_)) if FixedPlan::answers(&problem) => fixed.places(&problem),
                    (Some(_), Some(chooser)) => chooser.answer(&problem, &mut || 0.0),
                    (None, Some(chooser)) => chooser.answer(&problem, &mut || 0.0),
                    (None, None) => PlaceAnswer { epoch: problem.epoch, ..PlaceAnswer::default() },
                };
                self.hub.inbox.push_back(CoordinatorInput::Placed { answer });
            }
            CoordinatorCommand::Log { event } => self.hear_event(event),
            CoordinatorCommand::End { end } => {
                self.end = Some(match end {
                    End::Done => "done".to_owned(),
                    End::Stopped => "stopped".to_owned(),
                    End::Failed { why } => why,
                });
            }
        }
        Ok(())
    }

    fn send_to_node(&mut self, pid: Pid, mut message: ToWorker) {
        if let ToWorker::Welcome { settings, .. } = &mut message
            && let Some(slots) = self.model.slots.get(self.nodes[pid].place)
        {
            settings.slots = *slots;
        }
        if self.nodes[pid].alive {
            let way = self.way_of_hub(pid, false);
            let at_us = self.wires.with_hub(pid, false, self.now_us, &way);
            self.queue.push(at_us + self.model.tempo.driver_us, Event::ToNode { pid, message });
        }
    }

    /// A node was set aside: if it lives, it comes back under a new id.
    fn disconnect(&mut self, node: NodeId) -> Result<(), SimulateError> {
        let Some(pid) = self.pids.remove(&node) else { return Ok(()) };
        self.nodes[pid].bound = None;
        if self.nodes[pid].alive {
            self.tell(pid, WorkerInput::CoordinatorDown)?;
            let way = self.way_of_hub(pid, true);
            let ways_us = 2 * way.round_trip_us + way.latency_us;
            let at_us = self.now_us + ways_us + self.model.tempo.connect_us;
            self.queue.push(at_us, Event::HubUp { pid });
        }
        Ok(())
    }
}
