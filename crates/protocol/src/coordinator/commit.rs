//! Deciding an iteration: the record is journalled, then heard.

use super::attempt::{AttemptState, ReducePhase, StageAttempt};
use super::guard::Doubts;
use super::roster::{Join, JoinKind};
use super::{Coordinator, HISTORY_ITERATIONS, NOT_FINITE_MAX};
use crate::journal::Entry;
use crate::message::{LossShare, ToWorker};
use crate::record::{CommitRecord, LossAdded, Share, StageRecord};
use crate::worker::LAG_ITERATIONS_MAX;
use skipstone_types::{
    Attempt, CommittedStage, Digest, Event, Iteration, Microbatch, NodeId, Path, StageId, StagePace, Visit,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Iterations that a follower may lag behind; less than its own bound, so that it is restarted before it gives up.
const FOLLOWER_LAG_ITERATIONS_MAX: u64 = LAG_ITERATIONS_MAX as u64 - 2;

/// Where an origin added the losses of its microbatches, in the order of addition.
fn losses_of(done: &[Microbatch], losses: &BTreeMap<Microbatch, LossShare>) -> Vec<LossAdded> {
    let mut added: Vec<_> = done
        .iter()
        .filter_map(|microbatch| {
            losses.get(microbatch).map(|loss| LossAdded { microbatch: *microbatch, place: loss.place })
        })
        .collect();
    added.sort_by_key(|loss| (loss.place, loss.microbatch));
    added
}

/// How a stage's shares and their sum came about.
fn pace(attempt: &AttemptState, part: &StageAttempt) -> Option<StagePace> {
    let last = part.last?;
    let spent = part.spent.get(&last).copied().unwrap_or_default();
    Some(StagePace {
        shares_ms: part.shares_us.saturating_sub(attempt.began_us) / 1000,
        last,
        last_busy_ms: (spent.busy_us + spent.replay_us) / 1000,
        reduced_ms: part.agreed_us.saturating_sub(part.shares_us) / 1000,
    })
}

impl Coordinator {
    /// Commits once every stage that anything reached has agreed, and the nodes of the others have come as far: nodes are at
    /// most one step apart.
    pub(super) fn commit_if_complete(&mut self) {
        let complete = self.attempt.as_ref().is_some_and(|attempt| {
            self.stage_ids().zip(&attempt.stages).all(|(stage, part)| {
                matches!(part.phase, ReducePhase::Agreed { .. })
                    || (part.shares.is_empty() && (!self.is_served(stage) || self.states_agree(stage)))
            })
        });
        if !complete {
            return;
        }
        let Some(attempt) = self.attempt.take() else { return };
        self.checks_owed = attempt.check_dropped;
        let record = Arc::new(self.record(&attempt));
        self.last_commit_us = (self.now_us, self.now_us.saturating_sub(attempt.began_us));
        self.journal(Entry::Committed(Box::new(CommitRecord::clone(&record))));
        self.log_commit(&attempt, &record);
        self.learn_paces(&attempt);
        self.send_to_workers(&ToWorker::Commit { record: record.clone() });
        for part in &record.stages {
            let stage = &mut self.stages[usize::from(part.stage.0)];
            if part.step {
                stage.gradient_norm = part.gradient_norm;
                stage.last_step = Some(record.iteration);
                stage.last_step_members = (part.members.clone(), part.lineage);
                stage.strikes = 0;
            } else if !part.shares.is_empty() {
                stage.strikes += 1;
                if stage.strikes >= NOT_FINITE_MAX {
                    let why = format!(
                        "the gradient of {} was not finite {NOT_FINITE_MAX} times in a row; lower --lr, or look at the data",
                        part.stage
                    );
                    self.failure.get_or_insert(why);
                }
            }
        }
        self.settle_copies();
        let struck = self.strike_doubted(record.iteration);
        self.committed(record);
        self.restart_laggards();
        for (index, part) in attempt.stages.iter().enumerate() {
            for (node, digest) in &part.listeners {
                self.followed(*node, attempt.iteration, *digest);
            }
            if part.shares.is_empty() {
                self.nothing_to_follow(StageId(index as u16), attempt.iteration);
            }
        }
        self.set_aside(&struck);
    }

    /// Takes a decided record as the latest.
    pub(super) fn committed(&mut self, record: Arc<CommitRecord>) {
        self.iteration = record.iteration.next();
        self.next_attempt = Attempt(0);
        self.doubts = Doubts::default();
        self.stages.iter_mut().for_each(|stage| stage.said_by_lost.clear());
        self.last_digest = record.digest();
        self.records.insert(record.iteration, record);
        while self.records.len() > HISTORY_ITERATIONS {
            self.records.pop_first();
        }
    }

    fn record(&self, attempt: &AttemptState) -> CommitRecord {
        let stages = attempt
            .stages
            .iter()
            .enumerate()
            .map(|(index, part)| {
                let stage = StageId(index as u16);
                let known = &self.stages[index];
                let (gradient, gradient_norm, agreed) = match part.phase {
                    ReducePhase::Agreed { digest, norm } => (digest, norm, true),
                    _ => (Digest::default(), 0.0, false),
                };
                let clip_max = self.settings.clip_norm_max;
                let clips = clip_max > 0.0 && gradient_norm > clip_max;
                StageRecord {
                    stage,
                    members: self.serving(stage),
                    shares: part
                        .shares
                        .done()
                        .iter()
                        .map(|(node, done)| Share {
                            node: *node,
                            microbatches: done.clone(),
                            losses: if stage.is_origin() {
                                losses_of(done, &attempt.losses)
                            } else {
                                Vec::new()
                            },
                            norm: part.measured.get(node).map_or(0.0, |(_, norm)| *norm),
                        })
                        .collect(),
                    gradient,
                    gradient_norm,
                    clip_factor: if clips { clip_max / gradient_norm } else { 1.0 },
                    step: agreed && gradient_norm.is_finite(),
                    state: known.digests.get(&attempt.iteration).copied(),
                    lineage: known.lineage,
                }
            })
            .collect();
        let paths = attempt
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| {
                let microbatch = Microbatch(index as u32);
                let owner =
                    |visit: &Visit| attempt.stages[usize::from(visit.stage.0)].shares.owner(microbatch);
                Path(
                    route
                        .iter()
                        .map(|visit| Visit { stage: visit.stage, node: owner(visit).unwrap_or(visit.node) })
                        .collect(),
                )
            })
            .collect();
        CommitRecord {
            run: self.settings.run,
            term: self.term,
            generation: self.generation,
            iteration: attempt.iteration,
            attempt: attempt.attempt,
            plan_epoch: attempt.plan_epoch,
            paths,
            stages,
            loss_sum: attempt.losses.values().map(|loss| loss.loss_sum).sum(),
            tokens: attempt.losses.values().map(|loss| loss.tokens).sum(),
            learning_rate: self.settings.learning_rate.at(attempt.iteration),
            previous: self.last_digest,
        }
    }

    fn log_commit(&mut self, attempt: &AttemptState, record: &CommitRecord) {
        let spent = || attempt.stages.iter().flat_map(|part| part.spent.values());
        let event = Event::Committed {
            iteration: record.iteration,
            attempt: record.attempt,
            loss: if record.tokens == 0 { 0.0 } else { record.loss_sum / record.tokens as f64 },
            tokens: record.tokens,
            learning_rate: record.learning_rate,
            stages: record
                .stages
                .iter()
                .map(|part| CommittedStage {
                    stage: part.stage,
                    microbatches: part.microbatches(),
                    nodes: part.members.clone(),
                    gradient_norm: part.gradient_norm,
                    pace: pace(attempt, &attempt.stages[usize::from(part.stage.0)]),
                })
                .collect(),
            busy_us: spent().map(|spent| spent.busy_us).sum(),
            replay_us: spent().map(|spent| spent.replay_us).sum(),
            memory_wait_us: spent().map(|spent| spent.memory_wait_us).sum(),
            link_us: spent().map(|spent| spent.link_us).sum(),
            took_ms: self.now_us.saturating_sub(attempt.began_us) / 1000,
            record: record.digest(),
        };
        self.log(event);
    }

    /// A follower that has missed a gradient for good (its summer died) would wait for ever: it starts anew, before
    /// its own bound ends it.
    fn restart_laggards(&mut self) {
        let limit = self.iteration.0;
        let lags = |join: &Join| {
            join.kind == JoinKind::Copy && join.followed.0 + FOLLOWER_LAG_ITERATIONS_MAX < limit
        };
        let laggards: Vec<_> = self.nodes.joins().filter(|(_, join)| lags(join)).map(|(id, _)| id).collect();
        for node in laggards {
            self.cancel_transfer(node);
        }
    }

    /// A follower holds the reduced gradient of a committed iteration.
    pub(super) fn followed(&mut self, node: NodeId, iteration: Iteration, digest: Digest) {
        let Some(join) = self.nodes.join(node) else { return };
        let committed = self
            .records
            .get(&iteration)
            .and_then(|record| record.stage(join.stage))
            .is_some_and(|part| part.gradient == digest);
        if committed
            && let Some(join) = self.nodes.join_mut(node)
            && join.followed == iteration
        {
            join.followed = iteration.next();
        }
    }

    /// A committed iteration did not reach the stage: its followers are through with it.
    fn nothing_to_follow(&mut self, stage: StageId, iteration: Iteration) {
        for node in self.nodes.joiners() {
            if let Some(join) = self.nodes.join_mut(node)
                && join.stage == stage
                && join.kind == JoinKind::Copy
                && join.followed == iteration
            {
                join.followed = iteration.next();
            }
        }
    }
}
