//! A node died, or its share was refused, and a replica of its stage lives: the share is replayed there.

use super::Coordinator;
use super::attempt::{AttemptState, ReducePhase};
use super::shares::Shares;
use crate::message::{Duty, ToWorker};
use skipstone_types::{Event, Microbatch, NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet};

impl Coordinator {
    /// Moves the share of `lost` to living replicas of `stage`, unless it counts already; what its neighbours on the
    /// paths still miss is made again either way.
    pub(super) fn repair(&mut self, stage: StageId, lost: NodeId) {
        let counts = self.share_counts(stage);
        if !counts {
            match self.pass_share_on(stage, lost) {
                None => return self.abort_attempt(),
                Some(0) => {}
                Some(microbatches) => self.log(Event::Repaired { stage, lost, microbatches }),
            }
        }
        self.tell_heirs(stage, lost);
    }

    /// Throws the node's share away, and gives its microbatches to replicas whose own was not refused. How many they are;
    /// none if there is no such replica.
    pub(super) fn pass_share_on(&mut self, stage: StageId, from: NodeId) -> Option<u32> {
        let mut heirs = self.workers_of(stage);
        let Some(attempt) = self.attempt.as_mut() else { return Some(0) };
        let part = attempt.stage(stage);
        part.hedging.look_again();
        heirs.retain(|node| *node != from && !part.refused.contains(node));
        let orphans = part.shares.owned_by(from);
        if heirs.is_empty() && !orphans.is_empty() {
            return None;
        }
        part.phase = ReducePhase::Open;
        part.listeners.clear();
        part.shares.throw_away(from);
        part.measured.remove(&from);
        for microbatch in &orphans {
            if let Some(heir) = least_loaded(&part.shares, &heirs) {
                part.shares.give(*microbatch, heir);
            }
        }
        Some(orphans.len() as u32)
    }

    /// Tells everyone on the paths that led through the node where they lead now.
    pub(super) fn tell_heirs(&mut self, stage: StageId, from: NodeId) {
        let affected = self.unfinished_through(from);
        self.reroute(&affected);
        self.seal_if_complete(stage);
    }

    /// Whether all living replicas have agreed on the stage's gradient, a dead one's share included (perhaps only
    /// now that it is not waited for any more).
    fn share_counts(&mut self, stage: StageId) -> bool {
        let members = self.serving(stage);
        self.agree_if_complete(stage, &members);
        self.is_agreed(stage)
    }

    /// Microbatches whose route leads through the node, and which some owner has not finished.
    fn unfinished_through(&self, node: NodeId) -> Vec<Microbatch> {
        let Some(attempt) = &self.attempt else { return Vec::new() };
        let finished =
            |microbatch: &Microbatch| attempt.stages.iter().all(|part| part.shares.is_done(*microbatch));
        attempt
            .routes
            .iter()
            .enumerate()
            .filter(|(_, route)| route.iter().any(|visit| visit.node == node))
            .map(|(index, _)| Microbatch(index as u32))
            .filter(|microbatch| !finished(microbatch))
            .collect()
    }

    fn is_agreed(&self, stage: StageId) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| {
            matches!(attempt.stages[usize::from(stage.0)].phase, ReducePhase::Agreed { .. })
        })
    }

    /// Brings the routes of these microbatches up to date with their owners and with who lives, and tells everyone
    /// whose duty or neighbours changed.
    pub(super) fn reroute(&mut self, microbatches: &[Microbatch]) {
        let dropped = self.drop_checks_of(microbatches);
        let living: BTreeSet<_> = self.nodes.keys().copied().collect();
        let replicas: Vec<_> = self.stage_ids().map(|stage| self.serving(stage)).collect();
        let Some(attempt) = self.attempt.as_mut() else { return };
        let mut changes: BTreeMap<NodeId, Vec<Duty>> = BTreeMap::new();
        for microbatch in microbatches {
            let route = attempt.routes[microbatch.0 as usize].clone();
            let mut renewed = route.clone();
            for visit in &mut renewed {
                let owner = attempt.stages[usize::from(visit.stage.0)].shares.owner(*microbatch);
                match owner {
                    Some(owner) if living.contains(&owner) => visit.node = owner,
                    // The owner is dead but its share counts: someone must make again what neighbours miss.
                    _ if living.contains(&visit.node) => {}
                    _ => {
                        let stand_ins = &replicas[usize::from(visit.stage.0)];
                        if let Some(stand_in) = stand_ins.get(microbatch.0 as usize % stand_ins.len().max(1))
                        {
                            visit.node = *stand_in;
                        }
                    }
                }
            }
            attempt.routes[microbatch.0 as usize] = renewed;
            collect_changes(attempt, *microbatch, &mut changes);
        }
        let (iteration, number) = (attempt.iteration, attempt.attempt);
        for (node, duties) in changes {
            self.send(node, ToWorker::Reroute { iteration, attempt: number, duties });
        }
        for stage in dropped {
            self.seal_if_complete(stage);
        }
    }
}

fn collect_changes(
    attempt: &mut AttemptState,
    microbatch: Microbatch,
    changes: &mut BTreeMap<NodeId, Vec<Duty>>,
) {
    for position in 0..attempt.routes[microbatch.0 as usize].len() {
        let node = attempt.routes[microbatch.0 as usize][position].node;
        let told = attempt.told.get(&(node, microbatch)).copied();
        let duty = attempt.duty(microbatch, position, told.is_none_or(|told| told.replay));
        if told != Some(duty) {
            attempt.told.insert((node, microbatch), duty);
            changes.entry(node).or_default().push(duty);
        }
    }
}

/// The member that owns the fewest microbatches, the lowest of several.
fn least_loaded(shares: &Shares, members: &[NodeId]) -> Option<NodeId> {
    members.iter().copied().min_by_key(|member| shares.owned(*member))
}
