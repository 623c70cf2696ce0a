//! The guard against poison: a share that is not finite, or far from what its stage's shares were, is refused before it is
//! added to the others'.
//!
//! A share is the sum of a node's gradients; its norm tells numbers that have blown up, by the robust z-score of its logarithm
//! (median and median absolute deviation; Iglewicz & Hoaglin 1993, "How to Detect and Handle Outliers"). It can't tell wrong
//! numbers of the usual size. What usual is follows from the last commit records alone, those that a rollback has
//! undone included: a coordinator that starts anew judges as the one before.

use super::Coordinator;
use super::roster::{JoinKind, Role};
use super::strikes::STRIKES_MAX;
use crate::journal::Entry;
use crate::message::ShareDigests;
use crate::record::CommitRecord;
use skipstone_types::{Attempt, Event, Iteration, NodeId, Refusal, Remedy, StageId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Shares that must be known before one can be out of the ordinary.
const GUARD_SHARES_MIN: usize = 8;

/// A share is refused beyond so many deviations from the median.
const GUARD_DEVIATIONS_MAX: f64 = 8.0;

/// Smallest deviation of the logarithm: with it a share is refused if it is at least e⁴ ≈ 55 times as large or as small as the
/// median. The mean over few microbatches is larger than over many, by up to the root of their ratio, and norms fall tenfold when
/// training begins: both are usual.
const DEVIATION_MIN: f64 = 0.5;

/// From the median absolute deviation to the standard deviation, for the normal distribution.
const MAD_TO_DEVIATION: f64 = 1.4826;

/// What has been refused of the iteration under way, over all its attempts.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Whose share.
    refused: BTreeMap<NodeId, StageId>,
    /// Stages where a refused share came out again, and counts: no node is to blame.
    confirmed: BTreeSet<StageId>,
}

/// How a share's norm compares with those of its stage before.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Verdict {
    why: Option<Refusal>,
    /// Median of the norms of a microbatch.
    usual: Option<f64>,
    deviations: Option<f64>,
    shares: u32,
}

/// The median; 0 of nothing.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count => f64::midpoint(values[(count - 1) / 2], values[count / 2]),
    }
}

/// Judges the norm of a microbatch by the logarithms of those before.
fn judge(norm: f64, mut logarithms: Vec<f64>) -> Verdict {
    let shares = logarithms.len() as u32;
    if logarithms.len() < GUARD_SHARES_MIN {
        let why = (!norm.is_finite()).then_some(Refusal::NotFinite);
        return Verdict { why, usual: None, deviations: None, shares };
    }
    let middle = median(&mut logarithms);
    let usual = Some(middle.exp());
    if !norm.is_finite() {
        return Verdict { why: Some(Refusal::NotFinite), usual, deviations: None, shares };
    }
    let mut distances: Vec<_> = logarithms.iter().map(|other| (other - middle).abs()).collect();
    let deviation = (MAD_TO_DEVIATION * median(&mut distances)).max(DEVIATION_MIN);
    // The logarithm of 0 is infinitely far away, and can't be written down.
    let deviations = ((norm.max(f64::MIN_POSITIVE).ln() - middle) / deviation).abs();
    let why = (deviations > GUARD_DEVIATIONS_MAX).then_some(Refusal::Outlying);
    Verdict { why, usual, deviations: Some(deviations), shares }
}

impl Coordinator {
    /// A node's share is complete. It is taken, or refused and made again: by a replica, else in another attempt. If what
    /// was refused of a node before comes out of it again, it is the data's or the model's doing, and counts (if it is not
    /// finite, the stage takes no step).
    pub(super) fn on_measured(
        &mut self,
        node: NodeId,
        of: (Iteration, Attempt),
        (microbatches, norm): (u32, f64),
        digests: Option<ShareDigests>,
    ) {
        let Some(stage) = self.stage_served_by(node) else { return };
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.is(of)) else { return };
        let part = attempt.stage(stage);
        // An older sum, if it has been given more to do meanwhile.
        if microbatches == 0 || part.shares.owned(node) != microbatches || part.refused.contains(&node) {
            return;
        }
        match digests {
            Some(digests) => _ = part.digests.insert(node, digests),
            // Whoever could keep them back would never be checked.
            None if self.settings.spot_checks.are_on() => return self.lose(node, "check"),
            None => {}
        }
        let verdict = self.verdict(stage, microbatches, norm);
        if let Some(why) = verdict.why {
            self.refuse(stage, node, microbatches, norm, &verdict, why);
            return;
        }
        self.take_share(stage, node, microbatches, norm);
    }

    fn stage_served_by(&self, node: NodeId) -> Option<StageId> {
        match self.nodes.get(&node)?.role {
            Role::Serving { stage } => Some(stage),
            _ => None,
        }
    }

    fn take_share(&mut self, stage: StageId, node: NodeId, microbatches: u32, norm: f64) {
        if let Some(attempt) = self.attempt.as_mut() {
            attempt.stage(stage).measured.insert(node, (microbatches, norm));
        }
        self.seal_if_complete(stage);
    }

    fn verdict(&self, stage: StageId, microbatches: u32, norm: f64) -> Verdict {
        let lineage = self.stages[usize::from(stage.0)].lineage;
        // Norm and number of microbatches.
        let shares = |records: &BTreeMap<Iteration, Arc<CommitRecord>>| -> Vec<(f64, usize)> {
            let parts = records.values().filter_map(|record| record.stage(stage));
            parts
                .filter(|part| part.lineage == lineage && part.step)
                .flat_map(|part| &part.shares)
                .map(|share| (share.norm, share.microbatches.len()))
                .filter(|(norm, _)| *norm > 0.0 && norm.is_finite())
                .collect()
        };
        let known = shares(&self.records);
        // What was undone says what norms are like; to the last bit they may well come again.
        let undone = shares(&self.rollbacks.undone);
        let logarithms =
            known.iter().chain(&undone).map(|(norm, microbatches)| (norm / *microbatches as f64).ln());
        let mut verdict = judge(norm / f64::from(microbatches), logarithms.collect());
        // No two sums of a trained stage have the same norm to the last bit.
        if known.iter().any(|(other, _)| *other == norm) {
            verdict.why = Some(Refusal::Repeated);
        }
        verdict
    }

    fn refuse(
        &mut self,
        stage: StageId,
        node: NodeId,
        microbatches: u32,
        norm: f64,
        verdict: &Verdict,
        why: Refusal,
    ) {
        let Some(attempt) = self.attempt.as_mut() else { return };
        let (iteration, number) = (attempt.iteration, attempt.attempt);
        attempt.stage(stage).refused.insert(node);
        let passed_on = self.pass_share_on(stage, node).is_some();
        let again = self.doubts.refused.insert(node, stage).is_some();
        let then = match (passed_on, again) {
            (true, _) => Remedy::Replica,
            (false, false) => Remedy::Retry,
            (false, true) => Remedy::Counts,
        };
        self.log(Event::ShareRefused {
            iteration,
            attempt: number,
            stage,
            node,
            why,
            microbatches,
            norm: Some(norm).filter(|norm| norm.is_finite()),
            usual_norm: verdict.usual.map(|usual| usual * f64::from(microbatches)),
            deviations: verdict.deviations,
            deviations_max: GUARD_DEVIATIONS_MAX,
            shares: verdict.shares,
            then,
        });
        match then {
            Remedy::Replica => self.tell_heirs(stage, node),
            Remedy::Retry => self.abort_attempt(),
            Remedy::Counts => {
                self.doubts.confirmed.insert(stage);
                if let Some(attempt) = self.attempt.as_mut() {
                    let part = attempt.stage(stage);
                    part.refused.remove(&node);
                    part.hedging.look_again();
                }
                self.take_share(stage, node, microbatches, norm);
            }
        }
    }

    /// An iteration is decided: whose share was refused, and then came out right, has a strike. The nodes that have too many.
    pub(super) fn strike_doubted(&mut self, iteration: Iteration) -> Vec<NodeId> {
        let doubts = std::mem::take(&mut self.doubts);
        let guilty = doubts.refused.into_iter().filter(|(_, stage)| !doubts.confirmed.contains(stage));
        let mut struck = Vec::new();
        for (id, stage) in guilty {
            if !self.nodes.contains_key(&id) {
                continue;
            }
            let strikes = self.strikes.add(id, iteration);
            self.journal(Entry::Struck { node: id, iteration });
            if strikes >= STRIKES_MAX {
                struck.push(id);
            }
            self.log(Event::Struck { node: id, stage, iteration, strikes, strikes_max: STRIKES_MAX });
        }
        struck
    }

    /// Sets nodes aside, but for one that alone has a stage's state: that is worth more than the attempts that it costs.
    pub(super) fn set_aside(&mut self, struck: &[NodeId]) {
        for id in struck {
            let alone = match self.nodes.get(id).map(|node| &node.role) {
                Some(Role::Serving { stage }) => self.serving(*stage).len() == 1,
                Some(Role::Joining(join)) => join.kind == JoinKind::Keep,
                Some(Role::Spare) | None => false,
            };
            if !alone {
                self.lose(*id, "numbers");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(count: usize) -> Vec<f64> {
        (0..count).map(|index| (1.0 + 0.1 * (index % 5) as f64).ln()).collect()
    }

    #[test]
    fn what_is_not_finite_is_refused_whatever_is_known() {
        for norm in [f64::NAN, f64::INFINITY] {
            for count in [0, 7, 8, 30] {
                assert_eq!(judge(norm, usual(count)).why, Some(Refusal::NotFinite));
            }
        }
    }

    #[test]
    fn a_factor_of_a_hundred_is_refused_once_enough_is_known() {
        for norm in [120.0, 0.012, 0.0] {
            assert_eq!(judge(norm, usual(GUARD_SHARES_MIN - 1)).why, None);
            let verdict = judge(norm, usual(GUARD_SHARES_MIN));
            assert_eq!(verdict.why, Some(Refusal::Outlying));
            assert!(
                verdict.deviations.is_some_and(|z| z.is_finite() && z > GUARD_DEVIATIONS_MAX),
                "{verdict:?}"
            );
        }
        for norm in [1.2, 20.0, 0.1] {
            assert_eq!(judge(norm, usual(16)).why, None, "{norm}");
        }
    }

    #[test]
    fn a_stage_whose_norms_vary_is_given_more_room() {
        let wide = (0..16).map(|index| f64::from(index - 8)).collect();
        assert_eq!(judge(1e6, wide).why, None);
    }

    #[test]
    fn outliers_among_the_known_do_not_move_the_measure() {
        let mut known = usual(12);
        known.extend([1e9_f64.ln(), 1e9_f64.ln(), 1e9_f64.ln()]);
        let verdict = judge(1e9, known);
        assert_eq!(verdict.why, Some(Refusal::Outlying));
        assert!(verdict.usual.is_some_and(|usual| (1.0..1.5).contains(&usual)), "{verdict:?}");
    }
}
