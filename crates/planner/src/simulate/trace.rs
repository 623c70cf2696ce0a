//! What every node does, and when.

use super::simulator::Watch;
use crate::compiled::CompiledInstance;
use crate::plan::TaskKind;

/// Work of a node on one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskInterval {
    /// The node.
    pub node: u32,
    /// Start, microseconds.
    pub start_us: u64,
    /// End, microseconds.
    pub end_us: u64,
    /// The microbatch's id.
    pub microbatch: u32,
    /// Forward, loss or backward.
    pub kind: TaskKind,
}

/// An activation or gradient on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferInterval {
    /// When the link takes it, microseconds.
    pub start_us: u64,
    /// When it has arrived, microseconds.
    pub end_us: u64,
    /// The node that sends.
    pub from: u32,
    /// The node that receives.
    pub to: u32,
    /// The microbatch's id.
    pub microbatch: u32,
    /// The task that it is for.
    pub kind: TaskKind,
}

/// A time in which a node has nothing to do but forwards that no memory slot is free for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryWait {
    /// The node.
    pub node: u32,
    /// Start, microseconds.
    pub start_us: u64,
    /// End, microseconds.
    pub end_us: u64,
}

/// An iteration as it runs, each list in order of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// Tasks, by node and time.
    pub tasks: Vec<TaskInterval>,
    /// Transfers between different nodes, by time.
    pub transfers: Vec<TransferInterval>,
    /// Waits for memory, by node and time.
    pub memory_waits: Vec<MemoryWait>,
}

/// Collects a trace.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    tasks: Vec<TaskInterval>,
    transfers: Vec<TransferInterval>,
    ready: Vec<(u32, u32, u64)>,
}

impl Watch for Recorder {
    fn task(&mut self, start_us: u64, end_us: u64, node: u32, microbatch: u32, kind: TaskKind) {
        self.tasks.push(TaskInterval { node, start_us, end_us, microbatch, kind });
    }

    fn transfer(&mut self, start_us: u64, end_us: u64, from: u32, to: u32, microbatch: u32, kind: TaskKind) {
        if from != to {
            self.transfers.push(TransferInterval { start_us, end_us, from, to, microbatch, kind });
        }
    }

    fn ready(&mut self, at: u64, node: u32, microbatch: u32, kind: TaskKind) {
        if kind == TaskKind::Forward {
            self.ready.push((node, microbatch, at));
        }
    }
}

impl Recorder {
    /// The trace, with ids in place of places in the list.
    pub(crate) fn into_trace(mut self, compiled: &CompiledInstance, ids: &[u32]) -> Trace {
        self.tasks.sort_unstable();
        let memory_waits = self.memory_waits(compiled);
        let Self { mut tasks, mut transfers, .. } = self;
        tasks.iter_mut().for_each(|task| task.microbatch = ids[task.microbatch as usize]);
        transfers.iter_mut().for_each(|transfer| transfer.microbatch = ids[transfer.microbatch as usize]);
        tasks.sort_unstable();
        transfers.sort_unstable();
        Trace { tasks, transfers, memory_waits }
    }

    /// Idle times with a forward ready and all slots taken.
    fn memory_waits(&mut self, compiled: &CompiledInstance) -> Vec<MemoryWait> {
        self.ready.sort_unstable();
        let mut waits = Vec::new();
        for (node, slots) in compiled.memory.iter().enumerate() {
            let node = node as u32;
            let own = self.tasks.partition_point(|task| task.node < node)
                ..self.tasks.partition_point(|task| task.node <= node);
            let own = &self.tasks[own];
            // At each change: forwards ready and not started, slots taken, tasks running.
            let mut changes: Vec<(u64, i64, i64, i64)> = Vec::new();
            for task in own {
                let forward = i64::from(task.kind == TaskKind::Forward);
                let backward = i64::from(task.kind == TaskKind::Backward);
                changes.push((task.start_us, -forward, forward, 1));
                changes.push((task.end_us, 0, -backward, -1));
            }
            let first = self.ready.partition_point(|entry| entry.0 < node);
            let arrivals = self.ready[first..].iter().take_while(|entry| entry.0 == node);
            changes.extend(arrivals.map(|entry| (entry.2, 1, 0, 0)));
            changes.sort_unstable_by_key(|change| change.0);
            let (mut waiting, mut taken, mut running, mut since) = (0, 0, 0, None);
            for (index, change) in changes.iter().enumerate() {
                waiting += change.1;
                taken += change.2;
                running += change.3;
                if changes.get(index + 1).is_some_and(|next| next.0 == change.0) {
                    continue;
                }
                let blocked = waiting > 0 && running == 0 && taken >= i64::from(*slots);
                match (since, blocked) {
                    (None, true) => since = Some(change.0),
                    (Some(start_us), false) => {
                        waits.push(MemoryWait { node, start_us, end_us: change.0 });
                        since = None;
                    }
                    _ => {}
                }
            }
        }
        waits
    }
}
