//! The coordinator: tells nodes what to do, decides what counts, and journals every decision before it is heard.
//!
//! It never sees a tensor. Data goes from node to node; what arrives here are events of a few bytes.

mod attempt;
mod commit;
mod condense;
mod copies;
mod entering;
mod guard;
mod hedge;
mod known_copies;
mod leaving;
mod nodes;
mod pace;
mod placing;
mod rebuilding;
mod repair;
mod restart;
mod retracing;
mod rollback;
mod roster;
mod saving;
mod shares;
mod spot_check;
mod strikes;
mod votes;
mod waits;

use crate::command::{CoordinatorCommand, CoordinatorInput, End};
use crate::journal::Entry;
use crate::message::{KeptCopy, ReduceId, ToCoordinator, ToWorker, TransferId};
use crate::record::{CommitRecord, SavedState};
use attempt::AttemptState;
pub use condense::condense;
use copies::Frozen;
use nodes::Nodes;
use restart::Returning;
use retracing::{MadeAgain, RestoredLineages};
use roster::Role;
use saving::Saving;
use skipstone_recovery::Strategy;
use skipstone_types::{Attempt, Digest, Event, Iteration, NodeId, Plan, PlanEpoch, Settings, StageId, Term};
use std::collections::BTreeMap;
use std::sync::Arc;
pub use waits::{Owner, Wait};

/// How long a restarted coordinator waits for nodes that the last record names: dead ones never come.
const RETURN_GRACE_US: u64 = 3_000_000;

/// How long the start waits for the full number of nodes once every stage has one.
const GATHER_GRACE_US: u64 = 20_000_000;

/// How long the last origin is waited for when it is lost: without it the run is over.
const ORIGIN_GRACE_US: u64 = 9_000_000;

/// How long the end waits for a lost stage to be rebuilt before it is saved without.
const LAST_REBUILD_GRACE_US: u64 = 20_000_000;

/// Time that may pass between two inputs; what is more is a clock that jumped, or a machine that stood still, and
/// nobody's patience ends because of it.
const PAUSE_US_MAX: u64 = 250_000;

/// What passes instead. Not nothing, so that every wait ends even on a machine that is always that late; and little, so
/// that a clock that jumps often does not use up anyone's patience either.
const JUMP_US: u64 = 50_000;

/// Iterations of which digests are remembered, for nodes that follow behind.
const HISTORY_ITERATIONS: usize = 16;

/// Iterations that are held up for one follower.
const FOLLOWER_WAITS_MAX: u32 = 4;

/// How long each of them is held up at most: the last iteration may have taken very long, because of what went wrong in it.
const FOLLOWER_WAIT_US_MAX: u64 = 5_000_000;

/// The part of the last iteration's time for which a lost stage is waited for, where it is briefly.
const HOLE_PATIENCE_PART: u64 = 4;

/// For how many times what the last iteration took a stage is waited for that learns from its neighbours.
const LEARNING_ITERATIONS_MAX: u64 = 8;

/// Node ids reserved with one journal entry.
const NODE_IDS_RESERVED: u32 = 64;

/// Iterations in a row whose gradient of a stage is not finite, until the run is ended.
const NOT_FINITE_MAX: u32 = 3;

/// Where weights come from when nothing has been committed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Seed,
    Saved,
}

/// What the coordinator is at.
#[derive(Debug)]
enum Phase {
    /// Restarted on a journal with commits: waits for nodes that still hold the run.
    Returning { until_us: u64, waiting: Returning },
    /// Waits for nodes to be there with the first weights.
    Gathering { until_us: u64, base: Base },
    /// Iterations run.
    Running,
    /// The last save is under way, or the run is over.
    Ending,
}

/// What is known of a stage.
#[derive(Debug, Default)]
struct Stage {
    lineage: u32,
    /// Norm of its last committed gradient.
    gradient_norm: f64,
    /// The last committed iteration in which it stepped.
    last_step: Option<Iteration>,
    /// Who held it then, and its lineage then: remembered for longer than the record is.
    last_step_members: (Vec<NodeId>, u32),
    /// When its last replica was lost; none while it is served.
    lost_since_us: Option<u64>,
    /// Whether the strategy refuses to rebuild it.
    refused: bool,
    /// Digest of its state before each of the last iterations, as its replicas agree.
    digests: BTreeMap<Iteration, Digest>,
    /// What replicas said of it.
    votes: BTreeMap<Iteration, BTreeMap<NodeId, Digest>>,
    /// What replicas that are lost said of it before the iteration under way, in which they had work: what others hold of
    /// theirs is of use only if it was right.
    said_by_lost: Vec<Digest>,
    /// Where it was made of other stages' states: the iteration at which it entered, and the nodes that gave them.
    made_from: Option<(Iteration, Vec<NodeId>)>,
    /// What its last lineages go on from, where they do not start anew.
    restored: RestoredLineages,
    /// Who has again what it made when others served it.
    made_again: MadeAgain,
    /// What it was to be made again with, besides others' states, could not be had: it is not asked for again.
    lessons_failed: bool,
    /// Iterations in a row whose gradient was not finite.
    strikes: u32,
    /// Joiners in a row that were set aside because a task of theirs never ended.
    stuck_joiners: u32,
}

/// The coordinator of a run.
pub struct Coordinator {
    settings: Settings,
    strategy: Box<dyn Strategy>,
    term: Term,
    generation: u32,
    /// Time as it passes for the run; starts as the driver's, and never jumps.
    now_us: u64,
    /// The driver's time at the last input.
    heard_us: u64,
    /// The stages that `state/` has, while the run goes on from it.
    saved: BTreeMap<StageId, Digest>,
    phase: Phase,
    /// The iteration that runs or comes next.
    iteration: Iteration,
    /// The attempt of it that comes next.
    next_attempt: Attempt,
    nodes: Nodes,
    next_node: NodeId,
    node_ids_below: NodeId,
    /// Raised when a node joins: nodes are told addresses that they lack.
    roster_version: u64,
    stages: Vec<Stage>,
    attempt: Option<AttemptState>,
    /// The plan asked for and not yet answered.
    planning: Option<PlanEpoch>,
    plan_epoch: PlanEpoch,
    next_transfer: u32,
    next_reduce: u64,
    /// The last committed records, for nodes that follow behind and for the chain.
    records: BTreeMap<Iteration, Arc<CommitRecord>>,
    last_digest: Digest,
    /// When the last iteration was committed, and how long its attempt took.
    last_commit_us: (u64, u64),
    /// Whether the next iteration has spot checks, because the last one's came to nothing.
    checks_owed: bool,
    /// Whose share a replica got otherwise, and which, where nobody has decided between the two yet.
    disputed: BTreeMap<StageId, (NodeId, NodeId)>,
    /// Whose share of the iteration under way was refused.
    doubts: guard::Doubts,
    strikes: strikes::Strikes,
    placing: placing::Placing,
    copies: copies::Copies,
    rollbacks: rollback::Rollbacks,
    saving: Option<Saving>,
    save_retry: Option<saving::Retry>,
    save_wanted: bool,
    /// The iteration whose save was left out last.
    save_skipped: Option<Iteration>,
    stop_since_us: Option<u64>,
    /// Since when the last save is due, whatever the reason.
    ends_since_us: Option<u64>,
    /// Since when there is no origin, and none is coming.
    origin_away_since_us: Option<u64>,
    /// An error that ends the run once what lives is saved.
    failure: Option<String>,
    out: Vec<CoordinatorCommand>,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator")
            .field("term", &self.term)
            .field("phase", &self.phase)
            .field("iteration", &self.iteration)
            .field("next_attempt", &self.next_attempt)
            .field("nodes", &self.nodes)
            .field("attempt", &self.attempt)
            .field("strikes", &self.strikes)
            .field("planning", &self.planning)
            .field("saving", &self.saving)
            .field("stop_since_us", &self.stop_since_us)
            .finish_non_exhaustive()
    }
}

impl Coordinator {
    /// Takes over the run that `journal` tells of (empty: a new run), and journals the new term. `resume` goes back
    /// to what `state/` holds: it is given until the first [`Event::CoordinatorStarted`] of the invocation
    /// that resumes has been seen, and never after.
    ///
    /// A strategy name that is not known counts as `checkfree`; check it before with
    /// [`skipstone_recovery::strategy`].
    pub fn open(
        settings: Settings,
        journal: &[Entry],
        resume: Option<SavedState>,
        now_us: u64,
    ) -> (Self, Vec<CoordinatorCommand>) {
        let past = restart::Past::of(journal);
        let strategy = skipstone_recovery::strategy(&settings.recovery)
            .unwrap_or_else(|_| skipstone_recovery::checkfree());
        let stages = (0..=settings.relay_stages).map(|_| Stage::default()).collect();
        let mut coordinator = Self {
            strategy,
            term: Term(past.term.0 + 1),
            generation: past.generation,
            now_us,
            heard_us: now_us,
            saved: BTreeMap::new(),
            phase: Phase::Ending,
            iteration: Iteration(0),
            next_attempt: Attempt(0),
            nodes: Nodes::default(),
            next_node: past.node_ids_below.max(NodeId(1)),
            node_ids_below: past.node_ids_below,
            roster_version: 0,
            stages,
            attempt: None,
            planning: None,
            plan_epoch: PlanEpoch(0),
            next_transfer: 0,
            next_reduce: 0,
            records: BTreeMap::new(),
            last_digest: Digest::default(),
            last_commit_us: (0, 0),
            checks_owed: false,
            disputed: BTreeMap::new(),
            doubts: guard::Doubts::default(),
            strikes: strikes::Strikes::default(),
            placing: placing::Placing::default(),
            copies: copies::Copies::default(),
            rollbacks: rollback::Rollbacks::default(),
            saving: None,
            save_retry: None,
            save_skipped: None,
            save_wanted: false,
            stop_since_us: None,
            ends_since_us: None,
            origin_away_since_us: None,
            failure: None,
            out: Vec::new(),
            settings,
        };
        coordinator.take_over(past, resume);
        let commands = std::mem::take(&mut coordinator.out);
        (coordinator, commands)
    }

    /// The term, for envelopes.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The iteration that runs or comes next.
    pub fn iteration(&self) -> Iteration {
        self.iteration
    }

    /// The stage that a node serves, if it serves one.
    pub fn stage_of(&self, node: NodeId) -> Option<StageId> {
        match self.nodes.get(&node)?.role {
            Role::Serving { stage } => Some(stage),
            _ => None,
        }
    }

    /// Takes an input at a time in microseconds (monotonic); answers with commands, to be carried out in order.
    ///
    /// More than a quarter of a second between two inputs passes as a twentieth, whatever the clock says: a coordinator that stood
    /// still (SIGSTOP, a suspended machine) hears what its nodes said meanwhile before it gives anyone up.
    pub fn on(&mut self, input: CoordinatorInput, now_us: u64) -> Vec<CoordinatorCommand> {
        let passed_us = now_us.saturating_sub(self.heard_us);
        self.now_us += if passed_us > PAUSE_US_MAX { JUMP_US } else { passed_us };
        self.heard_us = now_us;
        match input {
            CoordinatorInput::Tick => {
                self.ask_quiet_nodes();
                self.hedge_late_microbatches();
                self.drop_slow_checks();
            }
            CoordinatorInput::Hello { connection, hello, domain } => self.on_hello(connection, hello, domain),
            CoordinatorInput::Worker { node, message } => {
                if self.nodes.contains_key(&node) {
                    self.on_worker(node, message);
                }
            }
            CoordinatorInput::Lost { node, why } => self.lose(node, &why),
            CoordinatorInput::Planned { plan } => self.on_planned(&plan),
            CoordinatorInput::Placed { answer } => self.on_placed(&answer),
            CoordinatorInput::Save => self.save_wanted = true,
            CoordinatorInput::Stop => {
                self.stop_since_us.get_or_insert(self.now_us);
            }
        }
        self.advance();
        std::mem::take(&mut self.out)
    }

    fn on_worker(&mut self, node: NodeId, message: ToCoordinator) {
        self.note_heard(node);
        match message {
            // A second hello on a bound connection is out of order.
            ToCoordinator::Hello { .. } => self.lose(node, "out of order"),
            ToCoordinator::ShareDone { iteration, attempt, microbatch, loss } => {
                self.on_share_done(node, (iteration, attempt), microbatch, loss);
            }
            ToCoordinator::Measured { iteration, attempt, microbatches, norm, digests } => {
                self.on_measured(node, (iteration, attempt), (microbatches, norm), digests);
            }
            ToCoordinator::Checked { iteration, attempt, of, digests } => {
                self.on_checked(node, (iteration, attempt), of, digests);
            }
            ToCoordinator::Reduced { iteration, reduce, digest, norm, spent, .. } => {
                self.on_reduced(node, iteration, reduce, digest, norm, spent);
            }
            ToCoordinator::Holds { transfer, stage, iteration, digest } => {
                self.on_holds(node, transfer, stage, iteration, digest);
            }
            ToCoordinator::TransferFailed { transfer, why } => self.on_transfer_failed(node, transfer, &why),
            ToCoordinator::Saved { stage, iteration, digest } => {
                self.on_saved(node, stage, iteration, digest);
            }
            ToCoordinator::SaveFailed { stage, iteration, why } => {
                self.on_save_failed(stage, iteration, &why);
            }
            ToCoordinator::Computing { task, duty } => self.on_computing(node, task, duty),
            ToCoordinator::Leaving => self.on_leaving(node),
            ToCoordinator::Obtained { transfer, chunks, chunks_total, bytes_total, donors } => {
                self.on_obtained(node, transfer, (chunks, chunks_total), bytes_total, donors);
            }
            ToCoordinator::CopyUnusable { stage, iteration, why } => {
                self.on_copy_unusable(node, (stage, iteration), &why);
            }
            ToCoordinator::CopyFrozen { transfer, digest, rounded } => {
                self.on_copy_frozen(transfer, Frozen { of: digest, rounded });
            }
            ToCoordinator::CopyKept { transfer, stage, iteration, digest } => {
                self.on_copy_kept(node, transfer, KeptCopy { stage, iteration, digest });
            }
            ToCoordinator::GaveUp { iteration, attempt, microbatches } => {
                self.on_gave_up(node, (iteration, attempt), &microbatches);
            }
            ToCoordinator::Broken { why } => self.lose(node, &why),
        }
    }

    /// Whatever can go on after an input, goes on.
    fn advance(&mut self) {
        self.end_returning_if_due();
        self.end_gathering_if_due();
        self.release_idle_leavers();
        self.place_nodes();
        self.publish_if_written();
        self.begin_if_possible();
        // Who has just entered, or gone, may have been all that a save waited for.
        self.publish_if_written();
    }

    fn on_planned(&mut self, plan: &Plan) {
        if self.planning != Some(plan.epoch) {
            return;
        }
        self.planning = None;
        self.begin_attempt(plan);
    }

    /// Nodes that serve the stage, ascending.
    fn serving(&self, stage: StageId) -> Vec<NodeId> {
        self.nodes.serving(stage).to_vec()
    }

    fn is_served(&self, stage: StageId) -> bool {
        !self.nodes.serving(stage).is_empty()
    }

    fn stage_ids(&self) -> impl Iterator<Item = StageId> + use<> {
        (0..=self.settings.relay_stages).map(StageId)
    }

    fn holes(&self) -> Vec<StageId> {
        self.stage_ids().filter(|stage| !self.is_served(*stage)).collect()
    }

    fn new_transfer(&mut self) -> TransferId {
        self.next_transfer += 1;
        TransferId { term: self.term, number: self.next_transfer }
    }

    fn new_reduce(&mut self) -> ReduceId {
        self.next_reduce += 1;
        ReduceId { term: self.term, number: self.next_reduce }
    }

    fn send(&mut self, to: NodeId, message: ToWorker) {
        self.out.push(CoordinatorCommand::Send { to, message });
    }

    /// Sends to every node that serves a stage or is about to.
    fn send_to_workers(&mut self, message: &ToWorker) {
        let workers: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| !matches!(node.role, Role::Spare))
            .map(|(id, _)| *id)
            .collect();
        for node in workers {
            self.send(node, message.clone());
        }
    }

    fn log(&mut self, event: Event) {
        self.out.push(CoordinatorCommand::Log { event });
    }

    fn journal(&mut self, entry: Entry) {
        self.out.push(CoordinatorCommand::Journal { entry });
    }

    fn end(&mut self, end: End) {
        let why = match &end {
            End::Done => "done".to_owned(),
            End::Stopped => "stopped".to_owned(),
            End::Failed { why } => why.clone(),
        };
        let nodes: Vec<_> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.send(node, ToWorker::Finish);
        }
        self.log(Event::Finished { iteration: self.iteration, why });
        self.out.push(CoordinatorCommand::End { end });
        self.phase = Phase::Ending;
        self.saving = None;
    }

    /// Gives up the run: what lives is saved first.
    fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            self.abort_attempt();
            self.failure = Some(why);
        }
    }
}
