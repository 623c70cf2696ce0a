//! Spot checks: now and then a replica computes a node's whole share again, before it counts, and both are compared bit by bit.
//!
//! The same numbers in the same order give the same bits on every machine. So two that differ differ in what they were sent, or one
//! of them is wrong; a third replica then decides. Which iterations are checked, and which node of each stage, follows from a
//! number that only the coordinator knows; and a node says what it computed in every iteration, before anybody could tell it
//! that it is checked. The check changes no paths and no sums: what counts is what would have counted without it.
//!
//! A check begins when all shares of its stage are there, and the stage is not sealed before it has ended. It ends: by an
//! answer; or because the node, or everyone who could compute, is lost; or because microbatches of the share move; or, if it takes too
//! long, by time. If that or an abort cuts a dispute short, the same two are compared in the next attempt. Only who is outvoted by two replicas that were sent the same is set aside, and then the iteration
//! runs again: others may have computed with what that node sent them.

use super::Coordinator;
use super::attempt::{AttemptState, StageAttempt};
use crate::message::{Direction, ShareDigests, ToWorker};
use crate::record::{Addition, LossAdded, Share};
use skipstone_types::{
    Attempt, Difference, Digest, Event, Iteration, Microbatch, NodeId, Ruling, StageId, Visit,
};
use std::collections::BTreeMap;

/// A check may take so many times as long as the attempt has taken until it began …
const SLOW_FACTOR: u64 = 4;

/// … and so much more.
const SLOW_US_MIN: u64 = 1_000_000;

/// A check of one node's share.
#[derive(Debug)]
pub(super) struct SpotCheck {
    node: NodeId,
    /// Who can compute it again, the next one last.
    able: Vec<NodeId>,
    under_way: Option<UnderWay>,
}

/// A check that has begun.
#[derive(Debug)]
struct UnderWay {
    said: ShareDigests,
    microbatches: Vec<Microbatch>,
    additions: Vec<Addition>,
    /// Nodes before and after the node on the paths of these microbatches, and what they have sent it.
    boundaries: BTreeMap<NodeId, Vec<(Microbatch, Direction)>>,
    asked: NodeId,
    began_us: u64,
    asked_us: u64,
    answers: Vec<(NodeId, ShareDigests)>,
}

impl SpotCheck {
    /// Who computes the share again.
    pub(super) fn asked(&self) -> Option<NodeId> {
        self.under_way.as_ref().map(|under_way| under_way.asked)
    }
}

/// Numbers between which nobody who lacks the salt sees a connection.
fn draw(words: &[u64]) -> u64 {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let Digest(digest) = Digest::of(&bytes);
    digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// In what two answers differ, and the digests of that.
fn difference(one: &ShareDigests, other: &ShareDigests) -> Option<Difference> {
    if one.inputs != other.inputs {
        Some(Difference::Inputs)
    } else if one.outputs != other.outputs {
        Some(Difference::Outputs)
    } else {
        (one.sum != other.sum).then_some(Difference::Sum)
    }
}

fn digest_of(digests: &ShareDigests, what: Difference) -> Digest {
    match what {
        Difference::Inputs => digests.inputs,
        Difference::Outputs => digests.outputs,
        Difference::Sum => digests.sum,
    }
}

/// What a node was sent for these microbatches, and by whom; none if it sent something to itself.
fn neighbours(
    attempt: &AttemptState,
    node: NodeId,
    microbatches: &[Microbatch],
) -> Option<BTreeMap<NodeId, Vec<(Microbatch, Direction)>>> {
    let mut boundaries: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
    for microbatch in microbatches {
        let route: &Vec<Visit> = attempt.routes.get(microbatch.0 as usize)?;
        let at = route.iter().position(|visit| visit.node == node).filter(|_| route.len() > 1)?;
        let (before, after) = ((at + route.len() - 1) % route.len(), (at + 1) % route.len());
        boundaries.entry(route[before].node).or_default().push((*microbatch, Direction::Forward));
        boundaries.entry(route[after].node).or_default().push((*microbatch, Direction::Backward));
    }
    Some(boundaries)
}

/// Every addition to a node's sum, in order, as it has told; none if that can't be.
fn additions(attempt: &AttemptState, part: &StageAttempt, node: NodeId) -> Option<Vec<Addition>> {
    let microbatches = part.shares.done().get(&node)?.clone();
    let loss = |of: &Microbatch| attempt.losses.get(of).map(|loss| (loss.place, *of));
    let mut places: Vec<_> = microbatches.iter().filter_map(loss).collect();
    // A relay has none of its own: the microbatch's loss is an origin's.
    if !attempt.stages.first().is_some_and(|origin| origin.shares.done().contains_key(&node)) {
        places.clear();
    }
    places.sort_unstable();
    let losses = places.into_iter().map(|(place, microbatch)| LossAdded { microbatch, place }).collect();
    Share { node, microbatches, losses, norm: 0.0 }.additions()
}

impl Coordinator {
    /// Draws whose shares of an attempt are checked: one of each stage with two or more nodes, in an iteration that is.
    pub(super) fn draw_checks(&mut self, stages: &mut [StageAttempt]) {
        let checks = self.settings.spot_checks;
        let iteration = [checks.salt, u64::from(self.generation), self.iteration.0];
        let drawn = checks.are_on() && draw(&iteration).is_multiple_of(checks.every);
        if !(drawn || checks.are_on() && (self.checks_owed || !self.disputed.is_empty())) {
            return;
        }
        let nodes = &self.nodes;
        self.disputed.retain(|_, (node, by)| nodes.contains_key(node) && nodes.contains_key(by));
        for (stage, part) in self.stage_ids().zip(stages) {
            let more = [u64::from(self.next_attempt.0), self.term.0, u64::from(stage.0)];
            let at = |what: u64| {
                let words: Vec<_> = iteration.into_iter().chain(more).chain([what]).collect();
                draw(&words)
            };
            let owners: Vec<_> = part.shares.owners().map(|(owner, _)| owner).collect();
            if owners.is_empty() {
                continue;
            }
            let drawn = owners[(at(0) % owners.len() as u64) as usize];
            // What was cut short is taken up again.
            let disputed = self.disputed.get(&stage).copied().filter(|(node, _)| owners.contains(node));
            let (node, first) = disputed.map_or((drawn, None), |(node, by)| (node, Some(by)));
            let mut able = self.workers_of(stage);
            able.retain(|other| *other != node);
            able.sort_by_key(|other| (Some(*other) == first, at(1 + u64::from(other.0))));
            if !able.is_empty() {
                part.check = Some(SpotCheck { node, able, under_way: None });
            }
        }
    }

    /// Whether a stage whose shares are all there must wait for a check, which begins now if it has not.
    pub(super) fn is_under_check(&mut self, stage: StageId) -> bool {
        let now_us = self.now_us;
        let Some(attempt) = self.attempt.as_ref() else { return false };
        let part = &attempt.stages[usize::from(stage.0)];
        let Some(check) = &part.check else { return false };
        if check.under_way.is_some() {
            return true;
        }
        let node = check.node;
        let microbatches = part.shares.done().get(&node).cloned().unwrap_or_default();
        let said = part.digests.get(&node).copied().filter(|_| self.nodes.contains_key(&node));
        let Some(said) = said.filter(|_| !microbatches.is_empty()) else {
            let why = if self.nodes.contains_key(&node) { "moved" } else { "lost" };
            self.drop_check(stage, why, true);
            return false;
        };
        let Some(boundaries) = neighbours(attempt, node, &microbatches) else {
            self.drop_check(stage, "moved", false);
            return false;
        };
        if boundaries.keys().any(|other| !self.nodes.contains_key(other)) {
            // Who has left since then can't send again what it made.
            self.drop_check(stage, "lost", true);
            return false;
        }
        let Some(additions) = additions(attempt, part, node) else {
            self.drop_check(stage, "order", false);
            return false;
        };
        let Some(asked) = self.next_able(stage) else {
            self.drop_check(stage, "lost", true);
            return false;
        };
        let under_way = UnderWay {
            said,
            microbatches,
            additions,
            boundaries,
            asked,
            began_us: now_us,
            asked_us: now_us,
            answers: Vec::new(),
        };
        if let Some(check) = self.check_mut(stage) {
            check.under_way = Some(under_way);
        }
        self.ask(stage);
        true
    }

    fn check_mut(&mut self, stage: StageId) -> Option<&mut SpotCheck> {
        self.attempt.as_mut()?.stage(stage).check.as_mut()
    }

    /// The next replica that can compute a share again, if there is one.
    fn next_able(&mut self, stage: StageId) -> Option<NodeId> {
        let serving = self.serving(stage);
        let part = self.attempt.as_mut()?.stage(stage);
        let check = part.check.as_mut()?;
        while let Some(next) = check.able.pop() {
            if serving.contains(&next) && !part.refused.contains(&next) {
                return Some(next);
            }
        }
        None
    }

    /// Tells the replica what to compute, and those who have it to send it what it needs.
    fn ask(&mut self, stage: StageId) {
        let Some(attempt) = self.attempt.as_ref() else { return };
        let (iteration, number) = (attempt.iteration, attempt.attempt);
        let Some(check) = &attempt.stages[usize::from(stage.0)].check else { return };
        let Some(under_way) = &check.under_way else { return };
        let (to, of) = (under_way.asked, check.node);
        let additions = under_way.additions.clone();
        let sends = under_way.boundaries.clone();
        self.send(to, ToWorker::Check { iteration, attempt: number, of, additions });
        for (node, boundaries) in sends {
            self.send(node, ToWorker::Resend { iteration, attempt: number, to, boundaries });
        }
    }

    /// A check comes to nothing. `owed`: another iteration is checked instead.
    fn drop_check(&mut self, stage: StageId, why: &str, owed: bool) {
        let Some(attempt) = self.attempt.as_mut() else { return };
        let (iteration, number) = (attempt.iteration, attempt.attempt);
        let Some(check) = attempt.stage(stage).check.take() else { return };
        attempt.check_dropped |= owed;
        let (node, why) = (check.node, why.to_owned());
        self.log(Event::SpotCheckDropped { iteration, attempt: number, stage, node, why });
    }

    /// Whether any share is being computed again.
    pub(super) fn checks_are_under_way(&self) -> bool {
        let under_way = |part: &StageAttempt| part.check.as_ref().is_some_and(|c| c.under_way.is_some());
        self.attempt.as_ref().is_some_and(|attempt| attempt.stages.iter().any(under_way))
    }

    /// Stages with a check under way for which this holds.
    fn checks_where(&self, holds: impl Fn(&SpotCheck, &UnderWay) -> bool) -> Vec<StageId> {
        let Some(attempt) = &self.attempt else { return Vec::new() };
        let checks = self.stage_ids().zip(&attempt.stages);
        let checks = checks.filter(|(_, part)| {
            part.check.as_ref().is_some_and(|c| c.under_way.as_ref().is_some_and(|u| holds(c, u)))
        });
        checks.map(|(stage, _)| stage).collect()
    }

    /// These microbatches move: checks of shares with any of them come to nothing. Their stages.
    pub(super) fn drop_checks_of(&mut self, microbatches: &[Microbatch]) -> Vec<StageId> {
        let stages = self.checks_where(|_, under_way| {
            under_way.microbatches.iter().any(|microbatch| microbatches.contains(microbatch))
        });
        stages.iter().for_each(|stage| self.drop_check(*stage, "moved", true));
        stages
    }

    /// Checks that take too long come to nothing: a slow replica must not hold up everyone.
    pub(super) fn drop_slow_checks(&mut self) {
        let Some(attempt_began_us) = self.attempt.as_ref().map(|attempt| attempt.began_us) else { return };
        let now_us = self.now_us;
        let slow = self.checks_where(|_, under_way| {
            let usual_us = under_way.began_us.saturating_sub(attempt_began_us);
            now_us >= under_way.asked_us + SLOW_FACTOR * usual_us + SLOW_US_MIN
        });
        for stage in slow {
            self.drop_check(stage, "slow", false);
            self.seal_if_complete(stage);
        }
    }

    /// A node is lost: what it was to compute another computes, and what it was to send can't be had.
    pub(super) fn check_without(&mut self, node: NodeId) {
        let asked = self.checks_where(|_, under_way| under_way.asked == node);
        let stages = self.checks_where(|check, under_way| {
            check.node == node || under_way.asked == node || under_way.boundaries.contains_key(&node)
        });
        for stage in stages {
            if !asked.contains(&stage) || !self.ask_another(stage) {
                self.drop_check(stage, "lost", true);
            }
            self.seal_if_complete(stage);
        }
    }

    /// Has the next replica compute the share, if there is one.
    fn ask_another(&mut self, stage: StageId) -> bool {
        let now_us = self.now_us;
        let Some(next) = self.next_able(stage) else { return false };
        let Some(under_way) = self.check_mut(stage).and_then(|check| check.under_way.as_mut()) else {
            return false;
        };
        (under_way.asked, under_way.asked_us) = (next, now_us);
        self.ask(stage);
        true
    }

    /// A replica has computed a share again.
    pub(super) fn on_checked(
        &mut self,
        node: NodeId,
        of: (Iteration, Attempt),
        whose: NodeId,
        digests: ShareDigests,
    ) {
        if !self.attempt.as_ref().is_some_and(|attempt| attempt.is(of)) {
            return;
        }
        let asked = self.checks_where(|check, under_way| check.node == whose && under_way.asked == node);
        let Some(stage) = asked.first().copied() else { return };
        let Some(part) = self.attempt.as_mut().map(|attempt| attempt.stage(stage)) else { return };
        let share = part.shares.done().get(&whose);
        let Some(under_way) = part.check.as_mut().and_then(|check| check.under_way.as_mut()) else { return };
        // It was given more meanwhile, or its share was refused.
        if share != Some(&under_way.microbatches)
            || part.shares.owned(whose) as usize != under_way.microbatches.len()
        {
            self.drop_check(stage, "moved", true);
        } else {
            under_way.answers.push((node, digests));
            self.judge_check(stage);
        }
        self.seal_if_complete(stage);
    }

    /// What the answers so far come to.
    fn judge_check(&mut self, stage: StageId) {
        let now_us = self.now_us;
        let Some(attempt) = self.attempt.as_mut() else { return };
        let (iteration, number) = (attempt.iteration, attempt.attempt);
        let Some(check) = &attempt.stage(stage).check else { return };
        let Some(under_way) = &check.under_way else { return };
        let (node, said) = (check.node, under_way.said);
        let Some((first, answer)) = under_way.answers.first().copied() else { return };
        let second = under_way.answers.get(1).copied();
        let Some(differ) = difference(&said, &answer) else {
            let microbatches = under_way.microbatches.len() as u32;
            let took_ms = now_us.saturating_sub(under_way.began_us) / 1000;
            attempt.stage(stage).check = None;
            let (attempt, by) = (number, first);
            self.disputed.remove(&stage);
            self.log(Event::SpotChecked { iteration, attempt, stage, node, by, microbatches, took_ms });
            return;
        };
        let by: Vec<_> = under_way.answers.iter().map(|(by, _)| *by).collect();
        let answers = under_way.answers.iter().map(|(_, answer)| answer);
        let digests = std::iter::once(&said).chain(answers).map(|of| digest_of(of, differ)).collect();
        // Whoever sent them other inputs may have sent them so.
        let same_inputs = under_way.answers.iter().all(|(_, answer)| answer.inputs == said.inputs);
        let wrong = second.filter(|_| same_inputs).and_then(|(_, third)| {
            if third == said { Some(first) } else { (third == answer).then_some(node) }
        });
        let asks = second.is_none() && same_inputs && self.ask_another(stage);
        let then = match (wrong, asks) {
            (Some(_), _) => Ruling::SetAside,
            (None, true) => Ruling::Asks,
            (None, false) => Ruling::Undecided,
        };
        self.log(Event::Disputed {
            iteration,
            attempt: number,
            stage,
            node,
            by,
            differ,
            digests,
            then,
            wrong,
        });
        if then == Ruling::Asks {
            self.disputed.insert(stage, (node, first));
        } else if let Some(attempt) = self.attempt.as_mut() {
            attempt.stage(stage).check = None;
            self.disputed.remove(&stage);
        }
        if let Some(wrong) = wrong {
            // What others have computed from what it sent them may be wrong too.
            self.abort_attempt();
            self.lose(wrong, "check");
        }
    }
}
