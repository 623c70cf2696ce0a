//! What replicas say that they hold: the same bits after every step, or they are set aside.

use super::attempt::majority;
use super::roster::{Join, JoinKind};
use super::saving::Saving;
use super::{Coordinator, HISTORY_ITERATIONS, Phase};
use skipstone_types::{Digest, Iteration, NodeId, StageId};

impl Coordinator {
    /// Replicas must hold the same bits after every step; those that do not are set aside.
    pub(super) fn vote(&mut self, node: NodeId, stage: StageId, iteration: Iteration, digest: Digest) {
        let known = &mut self.stages[usize::from(stage.0)];
        known.votes.entry(iteration).or_default().insert(node, digest);
        while known.votes.len() > HISTORY_ITERATIONS {
            known.votes.pop_first();
        }
        self.count_votes(stage, iteration);
    }

    /// A replica is gone, and others live: what it said of the state counts no more, or a wrong word of the dead would stand
    /// against the living for ever. But others may go on with what it has computed in the attempt under way: that holds only
    /// if it said before what it computes with, and that is what the living hold.
    pub(super) fn forget_votes_of(&mut self, node: NodeId, stage: StageId) {
        let iteration = self.iteration;
        let known = &mut self.stages[usize::from(stage.0)];
        let said = known.votes.get(&iteration).and_then(|votes| votes.get(&node)).copied();
        known.votes.values_mut().for_each(|votes| _ = votes.remove(&node));
        let worked = self.attempt.as_ref().is_some_and(|attempt| {
            attempt.iteration == iteration && attempt.told.keys().any(|(told, _)| *told == node)
        });
        // Who has not said anything has sent nothing to others either: what a node holds is the first that it says.
        known.said_by_lost.extend(said.filter(|_| worked));
        self.count_votes(stage, iteration);
    }

    fn count_votes(&mut self, stage: StageId, iteration: Iteration) {
        let members = self.serving(stage);
        let known = &mut self.stages[usize::from(stage.0)];
        let votes = known.votes.get(&iteration).cloned().unwrap_or_default();
        if let Some(agreed) = majority(&votes) {
            known.digests.insert(iteration, agreed);
        }
        self.forget_old_digests(stage);
        let complete = members.iter().all(|member| votes.contains_key(member));
        if !complete {
            return;
        }
        let Some(agreed) = majority(&votes) else { return };
        let deviants: Vec<_> =
            members.iter().copied().filter(|member| votes.get(member) != Some(&agreed)).collect();
        let lost_differed = iteration == self.iteration
            && std::mem::take(&mut self.stages[usize::from(stage.0)].said_by_lost)
                .iter()
                .any(|said| *said != agreed);
        if !deviants.is_empty() || lost_differed {
            // What others have computed from theirs is of no use either.
            self.abort_attempt();
        }
        for deviant in deviants {
            self.undo_rebuilds_from(deviant);
            self.lose(deviant, "hash");
        }
        self.seal_if_complete(stage);
    }

    /// Of what the stage was before each of the last iterations, and before those of which a copy or a file of it is still to be
    /// compared, however long it is on its way.
    fn forget_old_digests(&mut self, stage: StageId) {
        let saving = self.saving.as_ref().map(Saving::iteration);
        let known = &mut self.stages[usize::from(stage.0)].digests;
        let old = known.len().saturating_sub(HISTORY_ITERATIONS);
        if old == 0 {
            return;
        }
        let awaited: Vec<_> = self.copies.awaited(stage).chain(saving).collect();
        let old: Vec<_> =
            known.keys().take(old).copied().filter(|iteration| !awaited.contains(iteration)).collect();
        for iteration in old {
            known.remove(&iteration);
        }
    }

    /// A node held other bits than its stage's replicas: what was made of them for a lost stage is made again. Nothing has been
    /// committed with it, since no iteration is before all have said what they hold before it.
    fn undo_rebuilds_from(&mut self, donor: NodeId) {
        let made = |join: &Join| {
            matches!(&join.kind, JoinKind::Rebuild(making) if !making.recipe.restores(join.stage))
                && join.donors.contains(&donor)
        };
        let joining: Vec<_> =
            self.nodes.joins().filter(|(_, join)| made(join)).map(|(node, _)| node).collect();
        for node in joining {
            self.cancel_transfer(node);
        }
        let iteration = self.iteration;
        let entered = |stage: &StageId| {
            let made_from = &self.stages[usize::from(stage.0)].made_from;
            made_from.as_ref().is_some_and(|(from, donors)| *from == iteration && donors.contains(&donor))
        };
        let entered: Vec<_> = self.stage_ids().filter(entered).collect();
        let heirs: Vec<_> = entered.into_iter().flat_map(|stage| self.serving(stage)).collect();
        for node in heirs {
            self.lose(node, "hash");
        }
    }

    /// Whether all members of a stage have said that they hold the state that the iteration under way starts from. They
    /// have done so before their share of it is done: this waits only for members without a share.
    pub(super) fn states_agree(&self, stage: StageId) -> bool {
        let known = &self.stages[usize::from(stage.0)];
        let (Some(votes), Some(agreed)) =
            (known.votes.get(&self.iteration), known.digests.get(&self.iteration))
        else {
            return false;
        };
        self.nodes.serving(stage).iter().all(|member| votes.get(member) == Some(agreed))
    }

    /// Whether this is the state of the stage before the iteration that comes next.
    pub(super) fn is_current(&self, stage: StageId, held: Iteration, digest: Digest) -> bool {
        let known = self.stages.get(usize::from(stage.0)).and_then(|known| known.digests.get(&held));
        matches!(self.phase, Phase::Running) && known == Some(&digest) && !self.stepped_since(stage, held)
    }

    /// Whether a state for `held` is too old for the iteration that comes next.
    pub(super) fn stepped_since(&self, stage: StageId, held: Iteration) -> bool {
        self.stages[usize::from(stage.0)].last_step.is_some_and(|step| step >= held)
    }

    pub(super) fn settle_first_votes(&mut self, stage: StageId) {
        let iteration = self.iteration;
        let votes = self.stages[usize::from(stage.0)].votes.get(&iteration).cloned().unwrap_or_default();
        let Some(agreed) = majority(&votes) else { return };
        self.stages[usize::from(stage.0)].digests.insert(iteration, agreed);
        for (node, digest) in votes {
            if digest != agreed {
                self.lose(node, "hash");
            }
        }
    }
}
