//! What the coordinator waits for. Nothing is waited for that nobody will bring about.

use super::attempt::ReducePhase;
use super::spot_check::SpotCheck;
use super::{Coordinator, ORIGIN_GRACE_US, Phase};
use skipstone_types::{NodeId, StageId, WhileLost};
use std::collections::BTreeSet;
use std::fmt;

/// Nodes that are named in words.
const NODES_TOLD_MAX: usize = 4;

/// Who ends a wait.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The coordinator itself, at the latest so many microseconds from now.
    Time {
        /// How long.
        left_us: u64,
    },
    /// The driver, which looks for paths.
    Planner,
    /// These nodes: each answers, or is lost.
    Nodes(Vec<NodeId>),
    /// Whoever starts nodes, or lets them come back.
    Outside,
}

/// Something that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait {
    /// For what.
    pub what: &'static str,
    /// Who ends it.
    pub owner: Owner,
}

impl fmt::Display for Wait {
    /// What, from whom, and for how much longer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match &self.owner {
            Owner::Time { left_us } => write!(f, ", for {} s at most", left_us.div_ceil(1_000_000)),
            Owner::Nodes(nodes) => {
                let mut word = " from";
                for node in nodes.iter().take(NODES_TOLD_MAX) {
                    write!(f, "{word} {node}")?;
                    word = ",";
                }
                match nodes.len().saturating_sub(NODES_TOLD_MAX) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Owner::Planner | Owner::Outside => Ok(()),
        }
    }
}

impl Coordinator {
    /// What [`Self::waits`] says, in words for people: what is wanted of several nodes is one thing.
    pub fn waits_in_words(&self) -> Vec<String> {
        let mut waits: Vec<Wait> = Vec::new();
        for wait in self.waits() {
            let alike = waits.iter_mut().find(|other| other.what == wait.what).map(|other| &mut other.owner);
            match (alike, &wait.owner) {
                (Some(Owner::Nodes(known)), Owner::Nodes(nodes)) => {
                    known.extend(nodes);
                    known.sort_unstable();
                    known.dedup();
                }
                _ => waits.push(wait),
            }
        }
        waits.iter().map(ToString::to_string).collect()
    }

    /// Everything that is waited for now; empty only once the run is over.
    pub fn waits(&self) -> Vec<Wait> {
        let mut waits = Vec::new();
        let mut wait = |what, owner| waits.push(Wait { what, owner });
        let left = |until_us: u64| Owner::Time { left_us: until_us.saturating_sub(self.now_us) };
        match &self.phase {
            Phase::Ending => return waits,
            Phase::Returning { until_us, .. } => wait("nodes that still hold the run", left(*until_us)),
            Phase::Gathering { .. } => wait("nodes for the start", Owner::Outside),
            Phase::Running => {}
        }
        if self.planning.is_some() {
            wait("paths", Owner::Planner);
        }
        for (what, nodes) in self.owed_to_attempt() {
            wait(what, Owner::Nodes(nodes));
        }
        if let Some(saving) = &self.saving {
            let mut owing = saving.owing();
            if owing.is_empty() {
                owing = self.stage_ids().flat_map(|stage| self.silent(stage)).collect();
            }
            wait("state/ to be written", Owner::Nodes(owing));
        }
        if let Some(retry) = self.save_retry {
            wait("another try to write state/", left(retry.at_us));
        }
        if let Some(since_us) = self.origin_away_since_us {
            wait("an origin to come back", left(since_us + ORIGIN_GRACE_US));
        }
        for (node, join) in self.nodes.joins() {
            let givers = join.donors.iter().copied().chain(join.teachers());
            let nodes = std::iter::once(node).chain(givers.filter(|_| join.ready.is_none())).collect();
            wait("a state on its way to a node", Owner::Nodes(nodes));
        }
        let (since_us, took_us) = self.last_commit_us;
        if self.attempt.is_none() && self.now_us < since_us + took_us {
            wait("followers of the last iteration", left(since_us + took_us));
        }
        if self.settings.while_lost == WhileLost::Wait && !self.holes().is_empty() {
            wait("a stage without a replica", Owner::Outside);
        }
        if let Some(until_us) = self.hole_patience_until_us() {
            wait("a stage that may be back soon", left(until_us));
        }
        if let Some(since_us) = self.ends_since_us
            && self.saving.is_none()
            && self.attempt.is_none()
        {
            // Saving begins by itself with the next input.
            let until_us = since_us + super::LAST_REBUILD_GRACE_US;
            wait("a stage to be rebuilt before the end", left(until_us.max(self.now_us + 1)));
        }
        waits
    }

    /// Replicas of the stage that have not said what they hold before the iteration that runs or comes next.
    fn silent(&self, stage: StageId) -> Vec<NodeId> {
        let votes = self.stages[usize::from(stage.0)].votes.get(&self.iteration);
        let silent = |node: &NodeId| votes.is_none_or(|votes| !votes.contains_key(node));
        self.serving(stage).into_iter().filter(silent).collect()
    }

    /// Per stage, what the attempt under way still lacks, and from whom.
    fn owed_to_attempt(&self) -> Vec<(&'static str, Vec<NodeId>)> {
        let Some(attempt) = &self.attempt else { return Vec::new() };
        let parts = attempt.stages.iter().zip(0..);
        parts
            .filter_map(|(part, index)| {
                let stage = StageId(index);
                match &part.phase {
                    ReducePhase::Agreed { .. } => None,
                    ReducePhase::Open if part.shares.is_empty() => {
                        let silent = self.silent(stage);
                        (!silent.is_empty()).then_some(("a state to start from", silent))
                    }
                    ReducePhase::Sealed { reports, .. } => {
                        let owing = self.serving(stage).into_iter();
                        Some((
                            "a reduced gradient",
                            owing.filter(|node| !reports.contains_key(node)).collect(),
                        ))
                    }
                    ReducePhase::Open => {
                        let mut owing: BTreeSet<_> = part.shares.left().map(|(owner, _)| owner).collect();
                        owing.extend(part.unmeasured());
                        owing.extend(self.silent(stage));
                        owing.extend(part.check.as_ref().and_then(SpotCheck::asked));
                        Some(("shares of a gradient", owing.into_iter().collect()))
                    }
                }
            })
            .collect()
    }
}
