//! What is done to children: they are told, drained, halted and killed.

use super::Children;
use crate::live::control::Control;
use std::io::Write;

impl Children {
    pub(in crate::live::supervisor) fn tell_coordinator(&mut self, word: &str) {
        self.stops |= word == "stop";
        if let Some(process) = &mut self.coordinator {
            // A coordinator that is just dying hears nothing: its successor is told to stop, and a save is put off.
            let _ = writeln!(process.stdin, "{word}").and_then(|()| process.stdin.flush());
        }
    }

    /// Gives a node notice: it leaves once others have what is needed of it. Whether there was such a node.
    pub(in crate::live::supervisor) fn drain_node(&mut self, process: u32) -> bool {
        self.tell_node(process, Control::Leave)
    }

    /// SIGKILL. Whether there was such a node.
    pub(in crate::live::supervisor) fn kill_node(&mut self, process: u32) -> bool {
        self.nodes
            .iter_mut()
            .find(|node| node.child.id() == process)
            .is_some_and(|node| node.child.kill().is_ok())
    }

    /// Tells a node to make a fault. Whether there was such a node.
    pub(in crate::live::supervisor) fn tell_node(&mut self, process: u32, control: Control) -> bool {
        self.nodes
            .iter_mut()
            .find(|node| node.child.id() == process)
            .is_some_and(|node| writeln!(node.stdin, "{control}").and_then(|()| node.stdin.flush()).is_ok())
    }

    /// SIGSTOP, or SIGCONT. Whether there was such a node.
    #[cfg(unix)]
    pub(in crate::live::supervisor) fn halt_node(&mut self, process: u32, halt: bool) -> bool {
        use rustix::process::{Pid, Signal, kill_process};
        let signal = if halt { Signal::STOP } else { Signal::CONT };
        // A child that has died is not reaped before `look` says so: the id is still its own.
        self.nodes
            .iter()
            .find(|node| node.child.id() == process)
            .and_then(|node| Pid::from_raw(node.child.id() as i32))
            .is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Processes can't be stopped here.
    #[cfg(not(unix))]
    pub(in crate::live::supervisor) fn halt_node(&mut self, _: u32, _: bool) -> bool {
        false
    }

    /// Process id and slot of each node.
    pub(in crate::live::supervisor) fn places(&self) -> Vec<(u32, usize)> {
        self.nodes.iter().map(|process| (process.child.id(), process.slot)).collect()
    }

    /// Processes of the nodes in a region of the run's table.
    pub(in crate::live::supervisor) fn in_region(&self, region: u16) -> Vec<u32> {
        let Some(table) = &self.wan else { return Vec::new() };
        let of = |slot| self.region_of(table, slot);
        self.nodes
            .iter()
            .filter(|process| of(process.slot) == region)
            .map(|process| process.child.id())
            .collect()
    }

    /// SIGKILL. Whether there was a coordinator.
    pub(in crate::live::supervisor) fn kill_coordinator(&mut self) -> bool {
        self.coordinator.as_mut().is_some_and(|process| process.child.kill().is_ok())
    }
}
