//! What goes wrong, and when.

use super::hub::HubEvent;
use super::node::{Node, NodeEvent, Pid};
use super::plan::Fault;
use super::world::{Checked, Event, World};
use skipstone_protocol::{CoordinatorCommand, Entry, WorkerInput};
use skipstone_types::{NodeId, StageId};

/// How the coordinator will die.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doom {
    /// Before its n-th command from now.
    Commands(u32),
    /// Before its next commit is written.
    BeforeWrite,
    /// During its next write.
    Torn,
    /// After its next write.
    AfterWrite,
}

/// The state of the faults.
#[derive(Debug, Default)]
pub(super) struct Chaos {
    /// When the faults ended.
    pub(super) calm_since: Option<u64>,
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
        self.chaos.calm_since = Some(self.now);
        self.hub.doom = None;
        self.links.unblock();
        let life = self.hub.life;
        if self.hub.stalled {
            self.schedule(0, Event::Hub(HubEvent::Wake { life }));
        }
        for pid in 0..self.nodes.len() {
            let node = &mut self.nodes[pid];
            node.crash_in = None;
            node.fail_next_task = false;
            node.hub_blocked_until = 0;
            if node.alive && node.stalled {
                self.schedule(0, Event::Node(pid, NodeEvent::Wake));
            }
            if self.nodes[pid].alive {
                self.speed_up(pid);
            }
        }
    }

    /// Something goes wrong.
    pub(super) fn strike(&mut self) -> Checked {
        if self.chaos.calm_since.is_some() {
            return Ok(());
        }
        self.next_fault();
        let total: f64 = self.plan.faults.iter().map(|(_, weight)| weight).sum();
        let mut mark = self.random.fraction() * total;
        let chosen = self.plan.faults.iter().find(|(_, weight)| {
            mark -= weight;
            mark < 0.0
        });
        let Some((fault, _)) = chosen.copied() else { return Ok(()) };
        self.inflict(fault)
    }

    fn inflict(&mut self, fault: Fault) -> Checked {
        match fault {
            Fault::NodeCrash => {
                if let Some(pid) = self.victim(true) {
                    self.count(fault);
                    let commands = self.random.between(0, 12) as u32;
                    if commands == 0 {
                        self.kill(pid);
                    } else {
                        self.nodes[pid].crash_in = Some(commands);
                    }
                }
            }
            Fault::TaskFailure => {
                if let Some(pid) = self.victim(true) {
                    self.nodes[pid].fail_next_task = true;
                }
            }
            Fault::NodeStall => {
                if let Some(pid) = self.victim(false) {
                    self.count(fault);
                    self.stall(pid);
                }
            }
            Fault::NodeSlow | Fault::NodeHang => {
                if let Some(pid) = self.victim(false) {
                    self.count(fault);
                    self.slow_down(pid, fault);
                }
            }
            Fault::NodeDrain => {
                if let Some(pid) = self.victim(true) {
                    self.count(fault);
                    return self.drain(pid);
                }
            }
            Fault::CoordinatorBreak => {
                if let Some(pid) = self.victim(false).filter(|pid| self.nodes[*pid].connection.is_some()) {
                    self.count(fault);
                    self.nodes[pid].hub_blocked_until = self.now + self.draw(self.plan.tempo.stall_us) / 2;
                    self.break_hub_connection(pid);
                }
            }
            Fault::PeerBreak => {
                if let Some(pair) = self.random.pick(&self.links.pairs()).copied() {
                    self.count(fault);
                    let blocked =
                        if self.random.chance(0.3) { self.draw(self.plan.tempo.stall_us) } else { 0 };
                    self.break_link(pair, blocked);
                }
            }
            Fault::Save => {
                self.count(fault);
                return self.hub_event(HubEvent::Save);
            }
            _ if !self.hub.is_up() || self.hub.doom.is_some() => {}
            Fault::CoordinatorStall => {
                if !self.hub.stalled {
                    self.count(fault);
                    self.hub.stalled = true;
                    let (life, wait) = (self.hub.life, self.draw(self.plan.tempo.stall_us));
                    self.schedule(wait, Event::Hub(HubEvent::Wake { life }));
                }
            }
            Fault::CoordinatorCrash => {
                let commands = self.random.between(0, 30) as u32;
                if commands == 0 {
                    self.count(fault);
                    return self.crash_hub_now();
                }
                self.hub.doom = Some(Doom::Commands(commands));
            }
            Fault::CrashBeforeWrite => self.hub.doom = Some(Doom::BeforeWrite),
            Fault::TornWrite => self.hub.doom = Some(Doom::Torn),
            Fault::CrashAfterWrite => self.hub.doom = Some(Doom::AfterWrite),
        }
        Ok(())
    }

    fn drain(&mut self, pid: Pid) -> Checked {
        let before = std::mem::replace(&mut self.nodes[pid].drained, true);
        if self.plan.settings.respawn && !before {
            let delay = self.draw(self.plan.tempo.respawn_us);
            self.schedule(delay, Event::Spawn);
        }
        self.tell(pid, WorkerInput::Leave)
    }

    fn stall(&mut self, pid: Pid) {
        self.nodes[pid].stalled = true;
        let wait = self.draw(self.plan.tempo.stall_us);
        self.schedule(wait, Event::Node(pid, NodeEvent::Wake));
        if wait > self.plan.tempo.silence_us
            && let Some(connection) = self.nodes[pid].connection
        {
            self.schedule(self.plan.tempo.silence_us, Event::Hub(HubEvent::Silent { connection }));
        }
    }

    /// Dies before this command, if that is how it is to be.
    pub(super) fn doom_strikes(&mut self, command: &CoordinatorCommand) -> bool {
        let writes = matches!(command, CoordinatorCommand::Journal { .. });
        let commits = matches!(command, CoordinatorCommand::Journal { entry: Entry::Committed(_) });
        match (self.hub.doom, command) {
            (Some(Doom::Commands(0)), _) => {
                self.count(Fault::CoordinatorCrash);
                self.crash_hub();
            }
            (Some(Doom::Commands(left)), _) => {
                self.hub.doom = Some(Doom::Commands(left - 1));
                return false;
            }
            (Some(Doom::BeforeWrite), _) if commits => {
                self.count(Fault::CrashBeforeWrite);
                self.crash_hub();
            }
            (Some(Doom::Torn), CoordinatorCommand::Journal { entry }) if writes => {
                self.count(Fault::TornWrite);
                let fraction = self.random.fraction();
                self.hub.disk.tear(entry, fraction);
                self.crash_hub();
            }
            _ => return false,
        }
        true
    }

    /// A living process to be harmed: not the last origin if that is protected, and, where nobody takes the place
    /// of the dead, only as long as every stage can be served without it.
    fn victim(&mut self, deadly: bool) -> Option<Pid> {
        let living: Vec<Pid> =
            (0..self.nodes.len()).filter(|pid| self.nodes[*pid].alive && !self.nodes[*pid].stalled).collect();
        let stays =
            |node: &&Node| node.alive && node.crash_in.is_none() && !node.fail_next_task && !node.drained;
        let all = self.nodes.iter().filter(stays).count();
        let needed = usize::from(self.plan.settings.relay_stages) + 1;
        if deadly && !self.plan.settings.respawn && all <= needed {
            return None;
        }
        let pid = self.random.pick(&living).copied()?;
        if self.plan.protect_origin && self.is_last_origin(pid) { None } else { Some(pid) }
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
