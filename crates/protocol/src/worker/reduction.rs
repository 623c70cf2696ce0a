//! Adding up a stage's gradient over its replicas: each part is summed by one member, in a fixed order.

use super::compute::Purpose;
use super::{Gradient, Worker};
use crate::message::{ReduceId, ToCoordinator, ToPeer};
use crate::task::{Handle, Task};
use skipstone_types::{Attempt, Digest, Iteration, NodeId};
use std::collections::BTreeMap;

/// A reduction under way. The unreduced sums stay until the commit, so that it can be dropped whole.
#[derive(Debug, Clone)]
pub(super) struct Reduction {
    pub(super) id: ReduceId,
    attempt: Attempt,
    members: Vec<NodeId>,
    contributors: Vec<NodeId>,
    listeners: Vec<NodeId>,
    microbatches: u32,
    /// Parts of our own sum, kept to be sent again.
    own: BTreeMap<u32, Handle>,
    /// Contributors' pieces of the part that we sum.
    pieces: BTreeMap<NodeId, Handle>,
    summing: bool,
    /// Reduced parts, ours and others'.
    reduced: BTreeMap<u32, Handle>,
    assembling: bool,
}

impl Reduction {
    pub(super) fn new(
        id: ReduceId,
        attempt: Attempt,
        members: Vec<NodeId>,
        contributors: Vec<NodeId>,
        listeners: Vec<NodeId>,
        microbatches: u32,
    ) -> Self {
        Self {
            id,
            attempt,
            members,
            contributors,
            listeners,
            microbatches,
            own: BTreeMap::new(),
            pieces: BTreeMap::new(),
            summing: false,
            reduced: BTreeMap::new(),
            assembling: false,
        }
    }

    pub(super) fn handles(&self) -> Vec<Handle> {
        self.own.values().chain(self.pieces.values()).chain(self.reduced.values()).copied().collect()
    }

    fn parts(&self) -> u32 {
        self.members.len() as u32
    }

    fn part_of(&self, node: NodeId) -> Option<u32> {
        self.members.iter().position(|member| *member == node).map(|index| index as u32)
    }
}

impl Worker {
    pub(super) fn seal(&mut self, iteration: Iteration, reduction: Reduction) {
        // A follower that gave up is told of more reductions until the coordinator has heard of it.
        let steps = self.held.is_some() || self.obtaining.is_some();
        if (iteration, reduction.attempt) < self.newest || !steps {
            return;
        }
        self.drop_iteration(iteration);
        let contributes = reduction.contributors.contains(&self.me);
        let (reduce, parts) = (reduction.id, reduction.parts());
        self.reductions.insert(iteration, reduction);
        if contributes {
            let Some(sum) = self.work.as_ref().and_then(|work| work.sum) else {
                self.broken(format!("sealed into {iteration} without a share"));
                return;
            };
            for index in 0..parts {
                let task = Task::Part { index, count: parts };
                self.compute.enqueue(Purpose::Part { iteration, reduce, index }, task, vec![sum], 1);
            }
        }
        self.take_early_frames();
    }

    fn reduction(&mut self, iteration: Iteration, reduce: ReduceId) -> Option<&mut Reduction> {
        self.reductions.get_mut(&iteration).filter(|reduction| reduction.id == reduce)
    }

    pub(super) fn part_made(
        &mut self,
        iteration: Iteration,
        reduce: ReduceId,
        index: u32,
        outputs: Vec<Handle>,
    ) {
        let me = self.me;
        let Some((reduction, part)) = self.reduction(iteration, reduce).zip(outputs.first().copied()) else {
            self.drop_handles(outputs);
            return;
        };
        if reduction.part_of(me) == Some(index) {
            reduction.pieces.insert(me, part);
            self.sum_if_complete(iteration, reduce);
            return;
        }
        reduction.own.insert(index, part);
        let (attempt, to) = (reduction.attempt, reduction.members[index as usize]);
        self.send(to, ToPeer::Part { iteration, attempt, reduce, index }, Some(part));
    }

    /// Whether the tensor was needed.
    pub(super) fn on_reduction_frame(&mut self, from: NodeId, message: ToPeer, payload: Handle) -> bool {
        let (ToPeer::Part { iteration, attempt, reduce, .. }
        | ToPeer::Reduced { iteration, attempt, reduce, .. }) = message
        else {
            self.drop_handles([payload]);
            return false;
        };
        let me = self.me;
        let newest = self.newest;
        let Some(reduction) = self.reduction(iteration, reduce) else {
            if (iteration, attempt) < newest {
                self.drop_handles([payload]);
            } else {
                self.keep_for_later(from, message, payload);
            }
            return false;
        };
        match message {
            ToPeer::Part { index, .. }
                if reduction.part_of(me) == Some(index)
                    && reduction.contributors.contains(&from)
                    && !reduction.pieces.contains_key(&from) =>
            {
                reduction.pieces.insert(from, payload);
                self.sum_if_complete(iteration, reduce);
                true
            }
            ToPeer::Reduced { index, .. }
                if reduction.part_of(from) == Some(index) && !reduction.reduced.contains_key(&index) =>
            {
                reduction.reduced.insert(index, payload);
                self.assemble_if_complete(iteration, reduce);
                true
            }
            _ => {
                self.drop_handles([payload]);
                false
            }
        }
    }

    fn sum_if_complete(&mut self, iteration: Iteration, reduce: ReduceId) {
        let Some(reduction) = self.reduction(iteration, reduce) else { return };
        let pieces: Vec<_> =
            reduction.contributors.iter().filter_map(|node| reduction.pieces.get(node)).copied().collect();
        if pieces.len() < reduction.contributors.len() || reduction.summing {
            return;
        }
        reduction.summing = true;
        let task = Task::Sum { microbatches: reduction.microbatches };
        self.compute.enqueue(Purpose::Sum { iteration, reduce }, task, pieces, 1);
    }

    pub(super) fn part_reduced(&mut self, iteration: Iteration, reduce: ReduceId, outputs: Vec<Handle>) {
        let me = self.me;
        let Some((reduction, part)) = self.reduction(iteration, reduce).zip(outputs.first().copied()) else {
            self.drop_handles(outputs);
            return;
        };
        let Some(index) = reduction.part_of(me) else {
            self.drop_handles(outputs);
            return;
        };
        reduction.reduced.insert(index, part);
        let (attempt, count) = (reduction.attempt, reduction.parts());
        let receivers: Vec<_> = reduction
            .members
            .iter()
            .chain(&reduction.listeners)
            .copied()
            .filter(|node| *node != me)
            .collect();
        for to in receivers {
            self.send(to, ToPeer::Reduced { iteration, attempt, reduce, index, count }, Some(part));
        }
        self.assemble_if_complete(iteration, reduce);
    }

    fn assemble_if_complete(&mut self, iteration: Iteration, reduce: ReduceId) {
        let Some(reduction) = self.reduction(iteration, reduce) else { return };
        if reduction.reduced.len() < reduction.members.len() || reduction.assembling {
            return;
        }
        reduction.assembling = true;
        let parts = reduction.reduced.values().copied().collect();
        self.compute.enqueue(Purpose::Assemble { iteration, reduce }, Task::Assemble, parts, 1);
    }

    pub(super) fn assembled(
        &mut self,
        iteration: Iteration,
        reduce: ReduceId,
        outputs: Vec<Handle>,
        digest: Digest,
        norm: f64,
    ) {
        let Some((reduction, handle)) = self.reduction(iteration, reduce).zip(outputs.first().copied())
        else {
            self.drop_handles(outputs);
            return;
        };
        let attempt = reduction.attempt;
        self.gradients.insert(iteration, Gradient { handle, digest });
        let spent = self.spending.spent();
        self.report(ToCoordinator::Reduced { iteration, attempt, reduce, digest, norm, spent });
    }

    pub(super) fn resend_reductions(&mut self, peer: NodeId) {
        let me = self.me;
        let mut again = Vec::new();
        for (iteration, reduction) in &self.reductions {
            let (iteration, attempt, reduce, count) =
                (*iteration, reduction.attempt, reduction.id, reduction.parts());
            if let Some((index, part)) =
                reduction.part_of(peer).and_then(|index| reduction.own.get_key_value(&index))
            {
                again.push((ToPeer::Part { iteration, attempt, reduce, index: *index }, *part));
            }
            let receives = reduction.members.contains(&peer) || reduction.listeners.contains(&peer);
            if let Some((index, part)) = reduction
                .part_of(me)
                .filter(|_| receives)
                .and_then(|index| reduction.reduced.get_key_value(&index))
            {
                again.push((ToPeer::Reduced { iteration, attempt, reduce, index: *index, count }, *part));
            }
        }
        for (message, part) in again {
            self.send(peer, message, Some(part));
        }
    }
}
