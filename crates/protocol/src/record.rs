//! The commit record: everything that decides one iteration, journalled before anyone steps.

use serde::{Deserialize, Serialize};
use skipstone_types::{
    Attempt, Digest, Iteration, Microbatch, NodeId, Path, PlanEpoch, RunId, StageId, Term,
};

/// One node's share of a stage's gradient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The owner.
    pub node: NodeId,
    /// Its microbatches, in the order in which their gradients were added.
    pub microbatches: Vec<Microbatch>,
    /// At the origin, which adds to its sum twice for a microbatch: the losses' gradients, in the order in which
    /// they were added among those of `microbatches`. Empty at a relay.
    pub losses: Vec<LossAdded>,
    /// L2 norm of the sum, before it is reduced and divided.
    pub norm: f64,
}

/// Where in a share a loss's gradient was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossAdded {
    /// The microbatch.
    pub microbatch: Microbatch,
    /// Additions to the sum before it, of either kind.
    pub place: u32,
}

/// One addition to a share's sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Addition {
    /// Head and final norm, at the origin.
    Loss(Microbatch),
    /// Everything else.
    Backward(Microbatch),
}

impl Share {
    /// Every addition to the sum, in order; `None` if the places of the losses leave a gap.
    pub fn additions(&self) -> Option<Vec<Addition>> {
        let count = self.microbatches.len() + self.losses.len();
        let mut losses = self.losses.iter().peekable();
        let mut backwards = self.microbatches.iter();
        (0..count)
            .map(|place| match losses.next_if(|loss| loss.place as usize == place) {
                Some(loss) => Some(Addition::Loss(loss.microbatch)),
                None => backwards.next().map(|microbatch| Addition::Backward(*microbatch)),
            })
            .collect()
    }
}

/// A stage in a commit record. A stage that nothing reached has no shares and takes no step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The stage.
    pub stage: StageId,
    /// Living replicas at the commit; none = a hole.
    pub members: Vec<NodeId>,
    /// Shares, in the order of summation.
    pub shares: Vec<Share>,
    /// Digest of the reduced gradient.
    pub gradient: Digest,
    /// Its L2 norm.
    pub gradient_norm: f64,
    /// Multiplies the gradient in the step.
    pub clip_factor: f64,
    /// Whether the stage steps.
    pub step: bool,
    /// Digest of weights, moments and counters before the step, where a replica lives.
    pub state: Option<Digest>,
    /// Counts the stage's rebuilds: its history since the last one is its lineage.
    pub lineage: u32,
}

impl StageRecord {
    /// Microbatches that reached the stage.
    pub fn microbatches(&self) -> u32 {
        self.shares.iter().map(|share| share.microbatches.len() as u32).sum()
    }
}

/// A stage in `state/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedStage {
    /// The stage.
    pub stage: StageId,
    /// Digest of its state.
    pub state: Digest,
    /// Its rebuilds before the save.
    pub lineage: u32,
}

/// What `state/` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The iteration that runs next.
    pub iteration: Iteration,
    /// The stages; one that is missing was lost when the state was saved.
    pub stages: Vec<SavedStage>,
}

/// A committed iteration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// The run.
    pub run: RunId,
    /// The coordinator's term.
    pub term: Term,
    /// Raised by a rollback to `state/` (`--resume`).
    pub generation: u32,
    /// The iteration.
    pub iteration: Iteration,
    /// The attempt that succeeded.
    pub attempt: Attempt,
    /// The plan that it ran on.
    pub plan_epoch: PlanEpoch,
    /// Executed paths, one a microbatch: who owned what at the end.
    pub paths: Vec<Path>,
    /// All stages, origin first.
    pub stages: Vec<StageRecord>,
    /// Sum of the loss over all tokens, in nats.
    pub loss_sum: f64,
    /// Tokens of the iteration.
    pub tokens: u64,
    /// The learning rate, before stages' own factors.
    pub learning_rate: f64,
    /// Digest of the record before this one; zero for the first of a run.
    pub previous: Digest,
}

impl CommitRecord {
    /// The record's digest, over its wire form.
    pub fn digest(&self) -> Digest {
        // A record holds only numbers, vectors and options, which postcard always writes.
        Digest::of(&postcard::to_stdvec(self).unwrap_or_default())
    }

    /// The stage's part.
    pub fn stage(&self, stage: StageId) -> Option<&StageRecord> {
        self.stages.get(usize::from(stage.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_find_their_places_among_the_backwards() {
        let loss = |microbatch, place| LossAdded { microbatch: Microbatch(microbatch), place };
        let mut share = Share {
            node: NodeId(1),
            microbatches: vec![Microbatch(1), Microbatch(0)],
            losses: vec![loss(1, 0), loss(0, 2)],
            norm: 1.0,
        };
        let (l, b) = (|m| Addition::Loss(Microbatch(m)), |m| Addition::Backward(Microbatch(m)));
        assert_eq!(share.additions(), Some(vec![l(1), b(1), l(0), b(0)]));
        share.losses[1].place = 9;
        assert_eq!(share.additions(), None);
        share.losses.clear();
        assert_eq!(share.additions(), Some(vec![b(1), b(0)]));
    }
}
