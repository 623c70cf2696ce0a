//! An attempt at an iteration: who owns what, what is done, and the reductions.

use super::hedge::Hedging;
use super::roster::{Join, JoinKind, Role};
use super::shares::Shares;
use super::spot_check::SpotCheck;
use super::{Coordinator, ORIGIN_GRACE_US, Phase};
use crate::command::CoordinatorCommand;
use crate::message::{Duty, LossShare, ReduceId, ShareDigests, Spent, ToWorker};
use skipstone_types::{
    Attempt, Digest, Event, Iteration, Microbatch, NodeId, PathRules, Plan, PlanEpoch, PlanProblem, StageId,
    Visit, WhileLost,
};
use std::collections::{BTreeMap, BTreeSet};

/// Why a run is given up whose last origin does not come back.
const ORIGIN_LOST: &str = "stage 0 has lost its last origin, and with it the embedding and the head; if a \
                           state was saved, go on from it with --resume; more --replicas make this rarer";

/// The same, where a neighbour keeps a copy of it, which is saved.
const ORIGIN_AWAY: &str = "stage 0 has lost its last origin, and no node comes for it; state/ has it as a neighbour's copy \
                           was: go on with --resume";

/// How far a stage's reduction is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ReducePhase {
    /// Shares are missing.
    Open,
    /// All shares are there; members report.
    Sealed { reduce: ReduceId, reports: BTreeMap<NodeId, (Digest, f64)> },
    /// All members reported the same.
    Agreed { digest: Digest, norm: f64 },
}

/// A stage's part of an attempt.
#[derive(Debug)]
pub(super) struct StageAttempt {
    /// Who counts each microbatch that reaches the stage, and what of them is done.
    pub(super) shares: Shares,
    /// How many microbatches each owner's share has, and its norm, where it was not refused.
    pub(super) measured: BTreeMap<NodeId, (u32, f64)>,
    /// What owners say of their shares, in a run with spot checks.
    pub(super) digests: BTreeMap<NodeId, ShareDigests>,
    /// A node's share that a replica is to compute again.
    pub(super) check: Option<SpotCheck>,
    /// Whose share was refused: nothing of theirs counts in this attempt.
    pub(super) refused: BTreeSet<NodeId>,
    pub(super) phase: ReducePhase,
    /// What followers reported for the current reduction.
    pub(super) listeners: BTreeMap<NodeId, Digest>,
    pub(super) spent: BTreeMap<NodeId, Spent>,
    /// Whose share came last, when all were there, and when all members agreed on their sum.
    pub(super) last: Option<NodeId>,
    pub(super) shares_us: u64,
    pub(super) agreed_us: u64,
    pub(super) hedging: Hedging,
    mismatches: u32,
}

/// The attempt under way.
#[derive(Debug)]
pub(super) struct AttemptState {
    pub(super) iteration: Iteration,
    pub(super) attempt: Attempt,
    pub(super) plan_epoch: PlanEpoch,
    pub(super) began_us: u64,
    /// Who handles each visit of each microbatch now. Owners count; others may stand in for dead owners whose share
    /// counts already.
    pub(super) routes: Vec<Vec<Visit>>,
    pub(super) stages: Vec<StageAttempt>,
    /// What each node was last told of each microbatch.
    pub(super) told: BTreeMap<(NodeId, Microbatch), Duty>,
    pub(super) losses: BTreeMap<Microbatch, LossShare>,
    /// Whether a spot check came to nothing, and no node is to blame.
    pub(super) check_dropped: bool,
}

impl StageAttempt {
    /// Owners whose sum is not measured as it will be.
    pub(super) fn unmeasured(&self) -> impl Iterator<Item = NodeId> + '_ {
        let is_measured = |owner: &NodeId, owned: u32| {
            self.measured.get(owner).is_some_and(|(microbatches, _)| *microbatches == owned)
        };
        let unmeasured = self.shares.owners().filter(move |(owner, owned)| !is_measured(owner, *owned));
        unmeasured.map(|(owner, _)| owner)
    }
}

impl AttemptState {
    pub(super) fn is(&self, of: (Iteration, Attempt)) -> bool {
        (self.iteration, self.attempt) == of
    }

    pub(super) fn stage(&mut self, stage: StageId) -> &mut StageAttempt {
        &mut self.stages[usize::from(stage.0)]
    }

    pub(super) fn busy_us_of(&self, node: NodeId) -> u64 {
        self.stages.iter().filter_map(|stage| stage.spent.get(&node)).map(|spent| spent.busy_us).sum()
    }

    /// Whether the microbatch was another node's first.
    pub(super) fn is_replay(&self, node: NodeId, microbatch: Microbatch) -> bool {
        self.told.get(&(node, microbatch)).is_some_and(|duty| duty.replay)
    }

    /// The duty of a visit: its neighbours on the circle from the origin and back.
    pub(super) fn duty(&self, microbatch: Microbatch, position: usize, replay: bool) -> Duty {
        let route = &self.routes[microbatch.0 as usize];
        let (count, visit) = (route.len(), route[position]);
        Duty {
            microbatch,
            counted: self.stages[usize::from(visit.stage.0)].shares.owner(microbatch) == Some(visit.node),
            replay,
            goes_back: route.get(position + 1).is_some_and(|next| next.stage < visit.stage),
            previous: route[(position + count - 1) % count].node,
            next: route[(position + 1) % count].node,
        }
    }
}

impl Coordinator {
    /// Asks for a plan, if nothing stands in the way of the next attempt.
    pub(super) fn begin_if_possible(&mut self) {
        if !matches!(self.phase, Phase::Running) || self.attempt.is_some() || self.planning.is_some() {
            return;
        }
        self.take_heart();
        if self.saving.as_ref().is_some_and(|saving| saving.last) {
            return;
        }
        self.change_places();
        self.admit_joiners();
        self.release_leavers();
        if self.attempt_must_wait() || self.waits_for_followers() || self.hole_patience_until_us().is_some() {
            return;
        }
        self.plan_epoch = PlanEpoch(self.plan_epoch.0 + 1);
        self.planning = Some(self.plan_epoch);
        let problem = PlanProblem {
            epoch: self.plan_epoch,
            seed: self.settings.seed,
            iteration: self.iteration,
            attempt: self.next_attempt,
            nodes: self.stage_ids().map(|stage| self.workers_of(stage)).collect(),
            microbatches: self.settings.microbatches,
            path_length: self.settings.path_length(),
            full: self.settings.is_full(self.iteration),
            rules: PathRules::default(),
            paces: self.paces(),
            edge_swaps: self.settings.edge_swaps,
        };
        self.out.push(CoordinatorCommand::Plan { problem });
        // Behind the plan, which is waited for.
        self.ask_for_swap();
    }

    /// The last origin comes back after all, while what else lives is being saved: the run is not given up.
    fn take_heart(&mut self) {
        let is_given_up =
            self.failure.as_deref().is_some_and(|why| [ORIGIN_LOST, ORIGIN_AWAY].contains(&why));
        if is_given_up && self.is_coming(StageId::ORIGIN) {
            self.failure = None;
            self.saving = None;
            self.ends_since_us = None;
            self.origin_away_since_us = None;
        }
    }

    /// Whether the run is to end: it was asked to stop, all iterations are done, or it is given up.
    pub fn is_to_end(&self) -> bool {
        self.failure.is_some() || self.stop_since_us.is_some() || self.iteration.0 >= self.settings.steps
    }

    /// Whether something comes first: an origin that may come back, the end, or a stage that is waited for.
    fn attempt_must_wait(&mut self) -> bool {
        let ends = self.is_to_end();
        let origin = StageId::ORIGIN;
        let saves_copy = ends && !self.is_coming(origin) && self.copy_to_save(origin).is_some();
        if !self.is_served(origin) && !saves_copy {
            let now_us = self.now_us;
            self.stages[0].lost_since_us.get_or_insert(now_us);
            let away_since_us = *self.origin_away_since_us.get_or_insert(now_us);
            if self.is_coming(StageId::ORIGIN) {
                self.origin_away_since_us = None;
            } else if now_us >= away_since_us + ORIGIN_GRACE_US {
                let is_kept = self.copy_to_save(origin).is_some();
                self.fail(if is_kept { ORIGIN_AWAY } else { ORIGIN_LOST }.to_owned());
                self.save_last();
            }
            return true;
        }
        self.origin_away_since_us = None;
        if ends {
            self.save_last();
            return true;
        }
        if self.settings.while_lost == WhileLost::Wait {
            let holes = self.holes();
            let refused = holes.iter().find(|stage| self.stages[usize::from(stage.0)].refused).copied();
            if let Some(stage) = refused {
                self.fail(format!(
                    "{stage} is lost, and --recovery {} can't rebuild it",
                    self.strategy.name()
                ));
                self.save_last();
                return true;
            }
            return !holes.is_empty();
        }
        false
    }

    pub(super) fn begin_attempt(&mut self, plan: &Plan) {
        if let Err(why) = self.check_plan(plan) {
            self.fail(format!("the path chooser made an unusable plan: {why}"));
            return;
        }
        let mut stages: Vec<_> = self
            .stage_ids()
            .map(|_| StageAttempt {
                shares: Shares::default(),
                measured: BTreeMap::new(),
                digests: BTreeMap::new(),
                check: None,
                refused: BTreeSet::new(),
                phase: ReducePhase::Open,
                listeners: BTreeMap::new(),
                spent: BTreeMap::new(),
                last: None,
                shares_us: 0,
                agreed_us: 0,
                hedging: Hedging::default(),
                mismatches: 0,
            })
            .collect();
        let routes: Vec<_> = plan.paths.iter().map(|path| path.0.clone()).collect();
        for (index, route) in routes.iter().enumerate() {
            for visit in route {
                stages[usize::from(visit.stage.0)].shares.give(Microbatch(index as u32), visit.node);
            }
        }
        self.draw_checks(&mut stages);
        let attempt = AttemptState {
            iteration: self.iteration,
            attempt: self.next_attempt,
            plan_epoch: plan.epoch,
            began_us: self.now_us,
            routes,
            stages,
            told: BTreeMap::new(),
            losses: BTreeMap::new(),
            check_dropped: false,
        };
        self.next_attempt = self.next_attempt.next();
        self.note_shares(&attempt);
        let holes = self.holes();
        self.log(Event::AttemptStarted {
            iteration: attempt.iteration,
            attempt: attempt.attempt,
            holes,
            expected_ms: plan.expected_us.map(|us| us / 1000),
        });
        self.tell_duties(attempt);
        self.copy_stages();
        self.save_if_wanted();
    }

    fn tell_duties(&mut self, mut attempt: AttemptState) {
        let mut duties: BTreeMap<NodeId, Vec<Duty>> = BTreeMap::new();
        for (index, route) in attempt.routes.iter().enumerate() {
            for (position, visit) in route.iter().enumerate() {
                let duty = attempt.duty(Microbatch(index as u32), position, false);
                duties.entry(visit.node).or_default().push(duty);
            }
        }
        for (node, duties) in &duties {
            for duty in duties {
                attempt.told.insert((*node, duty.microbatch), *duty);
            }
        }
        let (iteration, number) = (attempt.iteration, attempt.attempt);
        self.attempt = Some(attempt);
        let serving: Vec<_> = self.stage_ids().flat_map(|stage| self.serving(stage)).collect();
        for node in serving {
            let duties = duties.remove(&node).unwrap_or_default();
            let addresses = self.addresses_for(node);
            self.send(node, ToWorker::Begin { iteration, attempt: number, duties, addresses });
        }
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), String> {
        if plan.paths.len() != self.settings.microbatches as usize {
            return Err(format!(
                "{} paths for {} microbatches",
                plan.paths.len(),
                self.settings.microbatches
            ));
        }
        for path in &plan.paths {
            if path.0.first().is_none_or(|visit| !visit.stage.is_origin()) {
                return Err("a path does not start at the origin".to_owned());
            }
            for (index, visit) in path.0.iter().enumerate() {
                if self.nodes.serving(visit.stage).binary_search(&visit.node).is_err() {
                    return Err(format!("{} does not serve {}", visit.node, visit.stage));
                }
                if path.0[..index].iter().any(|other| other.stage == visit.stage) {
                    return Err(format!("a path visits {} twice", visit.stage));
                }
            }
        }
        Ok(())
    }

    pub(super) fn on_share_done(
        &mut self,
        node: NodeId,
        of: (Iteration, Attempt),
        microbatch: Microbatch,
        loss: Option<LossShare>,
    ) {
        let Some(Role::Serving { stage }) = self.nodes.get(&node).map(|node| &node.role) else { return };
        let (stage, now_us) = (*stage, self.now_us);
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.is(of)) else { return };
        let part = attempt.stage(stage);
        if !part.shares.add(node, microbatch) {
            return;
        }
        part.last = Some(node);
        part.hedging.progressed(node, now_us);
        if part.shares.left_of(node).len() == 0 {
            part.hedging.completed(node, now_us);
        }
        if let Some(loss) = loss {
            attempt.losses.insert(microbatch, loss);
        }
        self.seal_if_complete(stage);
    }

    /// Seals a stage whose shares are all there, measured and not refused, and whose members have all said that they hold the same state, once the
    /// share that is checked is: from now on they count together or not at all.
    pub(super) fn seal_if_complete(&mut self, stage: StageId) {
        let now_us = self.now_us;
        let Some(part) = self.attempt.as_ref().map(|attempt| &attempt.stages[usize::from(stage.0)]) else {
            return;
        };
        if part.shares.is_empty() {
            self.commit_if_complete();
            return;
        }
        let complete = part.phase == ReducePhase::Open
            && part.shares.all_done()
            && part.unmeasured().next().is_none()
            && self.states_agree(stage);
        if !complete {
            return;
        }
        if let Some(attempt) = self.attempt.as_mut() {
            attempt.stage(stage).shares_us = now_us;
        }
        if !self.is_under_check(stage) {
            self.seal(stage);
        }
    }

    fn seal(&mut self, stage: StageId) {
        let reduce = self.new_reduce();
        let members = self.serving(stage);
        let listens = |join: &Join| {
            join.stage == stage && join.kind == JoinKind::Copy && join.followed <= self.iteration
        };
        let listeners: Vec<_> =
            self.nodes.joins().filter(|(_, join)| listens(join)).map(|(id, _)| id).collect();
        let Some(attempt) = self.attempt.as_mut() else { return };
        let (iteration, number) = (attempt.iteration, attempt.attempt);
        let part = attempt.stage(stage);
        part.phase = ReducePhase::Sealed { reduce, reports: BTreeMap::new() };
        part.listeners.clear();
        let contributors: Vec<_> =
            members.iter().copied().filter(|node| part.shares.done_by(*node) > 0).collect();
        let microbatches = part.shares.len() as u32;
        for node in members.iter().chain(&listeners) {
            let message = ToWorker::Seal {
                iteration,
                attempt: number,
                reduce,
                members: members.clone(),
                contributors: contributors.clone(),
                listeners: listeners.clone(),
                microbatches,
            };
            self.send(*node, message);
        }
    }

    pub(super) fn on_reduced(
        &mut self,
        node: NodeId,
        iteration: Iteration,
        reduce: ReduceId,
        digest: Digest,
        norm: f64,
        spent: Spent,
    ) {
        let stage = match self.nodes.get(&node).map(|node| &node.role) {
            Some(Role::Serving { stage }) => *stage,
            Some(Role::Joining(join)) => {
                let stage = join.stage;
                self.follower_reduced(node, stage, iteration, reduce, digest);
                return;
            }
            _ => return,
        };
        let members = self.serving(stage);
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.iteration == iteration) else {
            return;
        };
        let part = attempt.stage(stage);
        let ReducePhase::Sealed { reduce: current, reports } = &mut part.phase else { return };
        if *current != reduce {
            return;
        }
        reports.insert(node, (digest, norm));
        part.spent.insert(node, spent);
        self.agree_if_complete(stage, &members);
    }

    /// A follower's report counts for itself only.
    fn follower_reduced(
        &mut self,
        node: NodeId,
        stage: StageId,
        iteration: Iteration,
        reduce: ReduceId,
        digest: Digest,
    ) {
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.iteration == iteration) {
            let part = attempt.stage(stage);
            // A report for a reduction that was dropped is void; the next one will be reported too.
            let current = match &part.phase {
                ReducePhase::Sealed { reduce: current, .. } => *current == reduce,
                ReducePhase::Agreed { .. } => true,
                ReducePhase::Open => false,
            };
            if current {
                part.listeners.insert(node, digest);
            }
        } else {
            self.followed(node, iteration, digest);
        }
    }

    pub(super) fn agree_if_complete(&mut self, stage: StageId, members: &[NodeId]) {
        let Some(attempt) = self.attempt.as_mut() else { return };
        let part = attempt.stage(stage);
        let ReducePhase::Sealed { reports, .. } = &part.phase else { return };
        if members.is_empty() || !members.iter().all(|member| reports.contains_key(member)) {
            return;
        }
        let said: Vec<_> = members.iter().filter_map(|member| reports.get(member).copied()).collect();
        let (digest, norm) = said[0];
        if said.iter().all(|(other, _)| *other == digest) {
            part.phase = ReducePhase::Agreed { digest, norm };
            part.agreed_us = self.now_us;
            self.commit_if_complete();
            return;
        }
        part.mismatches += 1;
        if part.mismatches == 1 {
            self.seal(stage);
            return;
        }
        let reports = reports.clone();
        for node in minority(&reports) {
            self.lose(node, "hash");
        }
    }

    /// Drops the attempt under way; the iteration will run again.
    pub(super) fn abort_attempt(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        self.stages.iter_mut().for_each(|stage| stage.said_by_lost.clear());
        let (iteration, number) = (attempt.iteration, attempt.attempt);
        self.send_to_workers(&ToWorker::Abort { iteration, attempt: number });
        let ran_ms = self.now_us.saturating_sub(attempt.began_us) / 1000;
        self.log(Event::AttemptAborted { iteration, attempt: number, ran_ms });
    }
}

/// Those who reported another digest than most; at a tie, than the lowest node.
fn minority(reports: &BTreeMap<NodeId, (Digest, f64)>) -> Vec<NodeId> {
    let digests: BTreeMap<NodeId, Digest> =
        reports.iter().map(|(node, (digest, _))| (*node, *digest)).collect();
    let Some(most) = majority(&digests) else { return Vec::new() };
    digests.into_iter().filter(|(_, digest)| *digest != most).map(|(node, _)| node).collect()
}

/// The digest that most nodes report; at a tie, the lowest node's among the most frequent.
pub(super) fn majority(digests: &BTreeMap<NodeId, Digest>) -> Option<Digest> {
    let count = |digest: &Digest| digests.values().filter(|other| *other == digest).count();
    let most = digests.values().map(count).max()?;
    digests.values().find(|digest| count(digest) == most).copied()
}
