//! Nodes that lie: their sums are wrong, finite, and of the usual size. Only a replica that computes the same can tell.

use super::compute::Effects;
use super::invariants::Observation;
use super::kinds::Fault;
use super::node::Pid;
use super::provenance as made;
use super::value::Value;
use super::world::{Broken, World};
use skipstone_protocol::{Addition, Task};
use skipstone_types::Microbatch;

/// What a node lies about, until faults are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lies {
    /// Its own shares.
    own: bool,
    /// Those that it computes again to check others.
    others: bool,
}

/// The microbatch of an addition.
pub(super) fn added(addition: Addition) -> Microbatch {
    match addition {
        Addition::Loss(microbatch) | Addition::Backward(microbatch) => microbatch,
    }
}

impl World {
    /// A node lies from now on.
    pub(super) fn begin_to_lie(&mut self, pid: Pid) {
        let ways = [(true, true), (true, false), (false, true)];
        let way = self.random.pick(&ways).copied();
        if let Some((own, others)) = way.filter(|_| self.plan.settings.spot_checks.are_on()) {
            self.nodes[pid].lies = Some(Lies { own, others });
        }
    }

    /// Whether another node of the stage lies already: of two that do, and an honest one, nobody can tell which is right.
    fn is_second_liar(&self, pid: Pid) -> bool {
        let stage = self.truth.serves(self.nodes[pid].id);
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != pid);
        let mut liars = others.filter(|(_, node)| node.alive && node.lies.is_some());
        liars.any(|(_, node)| self.truth.serves(node.id) == stage)
    }

    /// Whether a task adds to the sum of a share that the node computes again.
    pub(super) fn is_of_check(&self, pid: Pid, task: &Task) -> bool {
        let (Task::Loss { microbatch, .. }
        | Task::Backward { microbatch }
        | Task::EmbedBackward { microbatch, .. }) = task
        else {
            return false;
        };
        self.nodes[pid].checks.contains(microbatch)
    }

    /// Adds something else to a sum than should be, at its first addition.
    pub(super) fn lie(&mut self, pid: Pid, task: &Task, mut effects: Effects) -> Result<Effects, Broken> {
        let (Some(lies), (iteration, attempt)) = (self.nodes[pid].lies, self.nodes[pid].attempt) else {
            return Ok(effects);
        };
        let checks = self.is_of_check(pid, task);
        let Some((_, Value::Sum { terms, count: 1, .. })) = &mut effects.replaced else { return Ok(effects) };
        if !(if checks { lies.others } else { lies.own }) {
            return Ok(effects);
        }
        if self.is_second_liar(pid) {
            self.nodes[pid].lies = None;
            return Ok(effects);
        }
        let node = self.nodes[pid].id;
        // Another one for each sum: two that lie by chance do not say the same.
        let by = made::altered(*terms ^ (u64::from(node.0) << 32) ^ u64::from(checks));
        *terms = terms.wrapping_add(by);
        self.count(Fault::Lie);
        self.observe(&Observation::Lied { node, iteration, attempt, checks, by })?;
        Ok(effects)
    }
}
