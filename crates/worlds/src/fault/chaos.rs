//! What goes wrong, and when.

use super::hub::HubEvent;
use super::kinds::Fault;
use super::node::{Node, NodeEvent, Pid, Poisoning, Wrong};
use super::world::{Checked, Event, World};
use skipstone_protocol::{CoordinatorCommand, Entry, Method, ToWorker, WorkerInput};
use skipstone_types::{NodeId, StageId};

/// How the coordinator will die.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doom {
    /// Before its n-th command from now.
    Commands(u32),
    /// Before its next write.
    BeforeWrite,
    /// During its next write.
    Torn,
    /// After its next write.
    AfterWrite,
}

/// How far a clock jumps at most, in microseconds.
const JUMP_US_MAX: u64 = 3_600_000_000;

/// The state of the faults.
#[derive(Debug, Default)]
pub(super) struct Chaos {
    /// When the faults ended.
    pub(super) calm_since: Option<u64>,
    /// So many of the next coordinators die at a write too.
    pub(super) journal_deaths: u32,
    /// Whether the next transfer will lose one of its ends.
    ambush: bool,
    /// A node that computed wrong numbers, and its stage. Nothing else goes wrong until it is told from the others: of two
    /// that differ nobody can tell which of them is right.
    pub(super) poisoned: Option<(NodeId, StageId, Wrong)>,
}

impl World {
    /// Puts the next fault into the queue.
    pub(super) fn next_fault(&mut self) {
        if self.plan.fault_every_us > 0 && self.chaos.calm_since.is_none() {
            let wait = -(1.0 - self.random.fraction()).ln() * self.plan.fault_every_us as f64;
            self.schedule(wait as u64 + 1, Event::Fault);
        }
    }

    /// No more faults: what stands still goes on, who can't reach each other can.
    pub(super) fn lift_faults(&mut self) {
        let poisoned = self.chaos.poisoned;
        self.chaos = Chaos { calm_since: Some(self.now), poisoned, ..Chaos::default() };
        self.hub.doom = None;
        self.links.lift();
        self.weather.lift();
        self.folder.full_until_us = 0;
        let life = self.hub.life;
        if self.hub.stalled {
            self.schedule(0, Event::Hub(HubEvent::Wake { life }));
        }
        for pid in 0..self.nodes.len() {
            let node = &mut self.nodes[pid];
            node.crash_in = None;
            node.fail_next_task = false;
            node.wrong = None;
            node.lies = None;
            node.hub_blocked_until = 0;
            if node.alive && node.stalled {
                self.schedule(0, Event::Node(pid, NodeEvent::Wake));
            }
            if self.nodes[pid].alive {
                self.speed_up(pid);
            }
        }
    }

    /// A node is lost, or is to be told from the others by their majority.
    pub(super) fn note_loss(&mut self, node: NodeId) {
        match self.chaos.poisoned {
            Some((wrong, ..)) if wrong == node => self.chaos.poisoned = None,
            Some((_, stage, _)) if self.truth.serves(node) == Some(stage) => self.leave_undecided(),
            _ => {}
        }
    }

    /// Something that was under way before leaves too few to tell who is right: what follows proves nothing.
    pub(super) fn leave_undecided(&mut self) {
        let tainted = self.nodes.iter().any(|node| node.alive && node.tainted);
        if self.chaos.poisoned.is_some() || tainted {
            self.report.ended = String::from("undecided");
            self.finished = true;
        }
    }

    /// Something goes wrong, or two things at once.
    pub(super) fn strike(&mut self) -> Checked {
        if self.chaos.calm_since.is_some() {
            return Ok(());
        }
        self.next_fault();
        if self.chaos.poisoned.is_some() {
            return Ok(());
        }
        let twice = self.random.chance(self.plan.two_at_once);
        for _ in 0..=u8::from(twice) {
            let total: f64 = self.plan.faults.iter().map(|(_, weight)| weight).sum();
            let mut mark = self.random.fraction() * total;
            let chosen = self.plan.faults.iter().find(|(_, weight)| {
                mark -= weight;
                mark < 0.0
            });
            if let Some((fault, _)) = chosen.copied() {
                self.inflict(fault)?;
            }
        }
        Ok(())
    }

    fn inflict(&mut self, fault: Fault) -> Checked {
        match fault {
            Fault::Kill
            | Fault::Restore
            | Fault::Stop
            | Fault::Slow
            | Fault::Hang
            | Fault::Drain
            | Fault::Task
            | Fault::Numbers
            | Fault::Lie
            | Fault::Clock
            | Fault::Transfer
            | Fault::Stage
            | Fault::Adjacent
            | Fault::Origins => return self.harm_nodes(fault),
            Fault::Cut
            | Fault::Partition
            | Fault::Delay
            | Fault::Loss
            | Fault::Reorder
            | Fault::Duplicate
            | Fault::Stale
            | Fault::Corrupt => self.harm_network(fault),
            Fault::Coordinator | Fault::Journal | Fault::Pause => return self.harm_coordinator(fault),
            Fault::Disk => {
                self.count(fault);
                self.folder.full_until_us = self.now + self.draw(self.plan.tempo.stall_us);
            }
            Fault::Save => {
                self.count(fault);
                return self.hub_event(HubEvent::Save);
            }
            Fault::Interrupt => return self.interrupt(),
            Fault::Blackout => return self.black_out(),
        }
        Ok(())
    }

    fn harm_nodes(&mut self, fault: Fault) -> Checked {
        match fault {
            Fault::Transfer => {
                self.chaos.ambush = true;
                return Ok(());
            }
            Fault::Stage | Fault::Adjacent | Fault::Origins => {
                self.kill_stage(fault);
                return Ok(());
            }
            _ => {}
        }
        let deadly = matches!(fault, Fault::Kill | Fault::Restore | Fault::Task | Fault::Drain);
        let Some(pid) = self.victim(deadly) else { return Ok(()) };
        // Counted when they come to pass.
        if !matches!(fault, Fault::Task | Fault::Numbers | Fault::Lie) {
            self.count(fault);
        }
        match fault {
            Fault::Kill => {
                let commands = self.random.between(0, 12) as u32;
                if commands == 0 {
                    self.kill(pid);
                } else {
                    self.nodes[pid].crash_in = Some(commands);
                }
            }
            Fault::Restore => {
                let image = Box::new(self.nodes[pid].clone());
                let wait = self.random.between(0, 2 * self.plan.tempo.stall_us.1);
                self.schedule(wait, Event::Relapse { pid, image });
            }
            Fault::Stop => self.stall(pid),
            Fault::Slow | Fault::Hang => self.slow_down(pid, fault),
            Fault::Drain => return self.drain(pid),
            Fault::Task => self.nodes[pid].fail_next_task = true,
            Fault::Numbers => {
                let times = self.random.between(1, 5) as u8;
                let share = |how| Wrong::Share { how, times };
                let ways = [
                    Wrong::Gradient,
                    Wrong::State,
                    Wrong::Copy,
                    share(Poisoning::NotFinite),
                    share(Poisoning::Scaled),
                    share(Poisoning::Stale),
                ];
                self.nodes[pid].wrong = self.random.pick(&ways).copied();
            }
            Fault::Lie => self.begin_to_lie(pid),
            Fault::Clock => {
                let by = self.random.magnitude(1_000, JUMP_US_MAX);
                if self.random.chance(0.3) {
                    self.hub.clock_us += by;
                } else {
                    self.nodes[pid].clock_us = if self.random.chance(0.5) { by as i64 } else { -(by as i64) };
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// All replicas of a stage die, or of two, or all origins but one.
    fn kill_stage(&mut self, fault: Fault) {
        let relays = u64::from(self.plan.settings.relay_stages);
        let first = self.random.between(1, relays) as u16;
        let (stages, spared) = match fault {
            Fault::Origins => (0..=0, 1),
            Fault::Adjacent => (first..=first + 1, 0),
            _ => (first..=first, 0),
        };
        let mut any = false;
        for stage in stages.map(StageId) {
            let serving =
                |pid: &Pid| self.nodes[*pid].alive && self.truth.serves(self.nodes[*pid].id) == Some(stage);
            let doomed: Vec<Pid> = (0..self.nodes.len()).filter(serving).collect();
            for pid in doomed.into_iter().skip(spared) {
                if self.may_die(pid) {
                    any = true;
                    self.kill(pid);
                }
            }
        }
        if any {
            self.count(fault);
        }
    }

    /// A node is told something. If a transfer begins, one of its ends will die in the middle of it, if that is how it
    /// is to be.
    pub(super) fn note_told(&mut self, joiner: NodeId, message: &ToWorker) {
        // A gradient that is added up anew, or came to nothing, does no harm.
        if let (
            Some((_, _, Wrong::Gradient)),
            ToWorker::Seal { .. } | ToWorker::Commit { .. } | ToWorker::Abort { .. },
        ) = (self.chaos.poisoned, message)
        {
            let of_other_stage = matches!(message, ToWorker::Seal { .. })
                && self.truth.serves(joiner) != self.chaos.poisoned.map(|(_, stage, _)| stage);
            if !of_other_stage {
                self.chaos.poisoned = None;
            }
        }
        let ToWorker::Assign { method, .. } = message else { return };
        let donors = match method {
            Method::Copy { donors } | Method::Rebuild { donors, .. } if self.chaos.ambush => donors,
            _ => return,
        };
        self.chaos.ambush = false;
        let node = if self.random.chance(0.5) { Some(joiner) } else { self.random.pick(donors).copied() };
        let step = self.plan.tempo.message_us.1 + self.plan.tempo.task_us.1;
        let wait = self.random.between(0, 10 * step);
        if let Some(node) = node {
            self.schedule(wait, Event::Ambush { node });
        }
    }

    /// The node dies, in mid-transfer.
    pub(super) fn spring_ambush(&mut self, node: NodeId) {
        let pid = self.wiring.bound().find(|(other, _)| *other == node).map(|(_, pid)| pid);
        let calm = self.chaos.calm_since.is_some();
        if let Some(pid) = pid.filter(|pid| !calm && self.nodes[*pid].alive && self.may_die(*pid)) {
            self.count(Fault::Transfer);
            self.kill(pid);
        }
    }

    fn harm_coordinator(&mut self, fault: Fault) -> Checked {
        if !self.hub.is_up() || self.hub.doom.is_some() {
            return Ok(());
        }
        match fault {
            Fault::Pause => {
                if !self.hub.stalled {
                    self.count(fault);
                    self.hub.stalled = true;
                    let (life, wait) = (self.hub.life, self.draw(self.plan.tempo.stall_us));
                    self.schedule(wait, Event::Hub(HubEvent::Wake { life }));
                }
            }
            Fault::Journal => {
                // Its successors may die at their writes too.
                self.chaos.journal_deaths = self.random.between(0, 3) as u32;
                self.hub.doom = Some(self.draw_journal_doom());
            }
            _ => {
                let commands = self.random.between(0, 30) as u32;
                if commands == 0 {
                    self.count(fault);
                    return self.crash_hub_now();
                }
                self.hub.doom = Some(Doom::Commands(commands));
            }
        }
        Ok(())
    }

    /// At which side of its next write the coordinator dies.
    pub(super) fn draw_journal_doom(&mut self) -> Doom {
        match self.random.between(0, 2) {
            0 => Doom::BeforeWrite,
            1 => Doom::Torn,
            _ => Doom::AfterWrite,
        }
    }

    /// A node's machine is about to be taken away.
    fn drain(&mut self, pid: Pid) -> Checked {
        let before = std::mem::replace(&mut self.nodes[pid].drained, true);
        if self.plan.settings.respawn && !before {
            let (delay, invocation) = (self.draw(self.plan.tempo.respawn_us), self.invocation.number);
            self.schedule(delay, Event::Spawn { invocation });
        }
        self.tell(pid, WorkerInput::Leave)
    }

    fn stall(&mut self, pid: Pid) {
        self.nodes[pid].stalled = true;
        let wait = self.draw(self.plan.tempo.stall_us);
        self.schedule(wait, Event::Node(pid, NodeEvent::Wake));
        if wait > self.plan.tempo.silence_us {
            self.falls_silent(pid);
        }
    }

    /// The coordinator will hear nothing of a node, and will take note.
    pub(super) fn falls_silent(&mut self, pid: Pid) {
        if let Some(connection) = self.nodes[pid].connection {
            self.schedule(self.plan.tempo.silence_us, Event::Hub(HubEvent::Silent { connection }));
        }
    }

    /// Dies before this command, if that is how it is to be.
    pub(super) fn doom_strikes(&mut self, command: &CoordinatorCommand) -> bool {
        let commits = matches!(command, CoordinatorCommand::Journal { entry: Entry::Committed(_) });
        match (self.hub.doom, command) {
            (Some(Doom::Commands(0)), _) => {
                self.count(Fault::Coordinator);
                self.crash_hub();
            }
            (Some(Doom::Commands(left)), _) => {
                self.hub.doom = Some(Doom::Commands(left - 1));
                return false;
            }
            // Before any other write it would be as if it had died a little earlier.
            (Some(Doom::BeforeWrite), _) if commits => {
                self.count(Fault::Journal);
                self.crash_hub();
            }
            (Some(Doom::Torn), CoordinatorCommand::Journal { entry }) => {
                self.count(Fault::Journal);
                self.hub.disk.tear(entry, &mut self.random);
                self.crash_hub();
            }
            _ => return false,
        }
        true
    }

    /// A living process to be harmed.
    pub(super) fn victim(&mut self, deadly: bool) -> Option<Pid> {
        let living: Vec<Pid> =
            (0..self.nodes.len()).filter(|pid| self.nodes[*pid].alive && !self.nodes[*pid].stalled).collect();
        let pid = self.random.pick(&living).copied()?;
        let spared = if deadly { !self.may_die(pid) } else { self.is_spared(pid) };
        (!spared).then_some(pid)
    }

    /// Whether a process may be killed: not the last origin if that is protected, and, where nobody takes the place
    /// of the dead, only as long as every stage can be served without it.
    fn may_die(&self, pid: Pid) -> bool {
        let stays = |node: &&Node| node.alive && !node.is_doomed();
        let enough = self.plan.settings.respawn
            || self.nodes.iter().filter(stays).count() > usize::from(self.plan.settings.relay_stages) + 1;
        enough && !self.is_spared(pid)
    }

    /// Whether a process is the last origin, and that is protected.
    pub(super) fn is_spared(&self, pid: Pid) -> bool {
        self.plan.protect_origin && self.is_last_origin(pid)
    }

    fn is_last_origin(&self, pid: Pid) -> bool {
        let serves = |node: NodeId| self.truth.serves(node) == Some(StageId::ORIGIN);
        let sound = |pid: Pid| {
            let node = &self.nodes[pid];
            node.alive
                && !node.stalled
                && !node.drained
                && node.crash_in.is_none()
                && !node.fail_next_task
                && node.connection.is_some()
        };
        serves(self.nodes[pid].id)
            && !self
                .nodes
                .iter()
                .enumerate()
                .any(|(other, node)| other != pid && sound(other) && serves(node.id))
    }
}
