//! Nodes that are slow, and nodes that live but get nothing done.

use super::kinds::Fault;
use super::node::{NodeEvent, Pid};
use super::world::{Event, World};

/// The state of a node's compute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Haste {
    /// Tasks take so many times as long …
    factor: u64,
    /// … until then.
    slow_until: u64,
    /// A task that begins before then does not end before it.
    hung_until: u64,
}

impl Haste {
    pub(super) fn new() -> Self {
        Self { factor: 1, slow_until: 0, hung_until: 0 }
    }
}

/// How many times as long tasks take.
const FACTORS: (u64, u64) = (2, 50);

/// How long a node lives without getting anything done: long enough to be set aside, short enough to come back.
const HANG_US: (u64, u64) = (1_000_000, 30_000_000);

impl World {
    /// A node becomes slow, or hangs.
    pub(super) fn slow_down(&mut self, pid: Pid, fault: Fault) {
        let now = self.now;
        if fault == Fault::Hang {
            self.nodes[pid].haste.hung_until = now + self.draw(HANG_US);
        } else {
            let (factor, wait) = (self.draw(FACTORS), self.draw(self.plan.tempo.stall_us));
            let haste = &mut self.nodes[pid].haste;
            (haste.factor, haste.slow_until) = (factor, now + 4 * wait);
        }
    }

    /// How long a task really takes.
    pub(super) fn task_time(&mut self, pid: Pid) -> u64 {
        let took = self.draw(self.plan.tempo.task_us);
        let haste = self.nodes[pid].haste;
        let slowed = if self.now < haste.slow_until { took * haste.factor } else { took };
        slowed.max(haste.hung_until.saturating_sub(self.now))
    }

    /// The node is as fast as ever; what hung goes on.
    pub(super) fn speed_up(&mut self, pid: Pid) {
        self.nodes[pid].haste = Haste::new();
        if let Some(id) = self.nodes[pid].task_under_way() {
            self.schedule(0, Event::Node(pid, NodeEvent::Computed { id }));
        }
        if let Some(id) = self.nodes[pid].write_under_way() {
            self.schedule(0, Event::Node(pid, NodeEvent::Written { id }));
        }
    }
}
