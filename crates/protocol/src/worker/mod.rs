//! The worker: serves one stage. It computes its duties, passes boundary tensors on, reduces its stage's gradient
//! with its replicas, and steps when the coordinator has committed.

mod checking;
mod compute;
mod copies;
mod giving_up;
mod lessons;
mod passage;
mod pull;
mod queues;
mod reduction;
mod saving;
mod slots;
mod spending;
mod transfer;

use crate::command::{WorkerCommand, WorkerInput};
use crate::message::{Holding, NAMES_MAX, ToCoordinator, ToPeer, ToWorker, TransferId};
use crate::record::CommitRecord;
use crate::task::{Handle, Task};
use compute::{Compute, Purpose};
use copies::Copies;
use lessons::KeptTensors;
use passage::AttemptWork;
pub use queues::Queue;
use reduction::Reduction;
use saving::Saving;
use skipstone_types::{Attempt, Digest, Iteration, NodeId, RunId, Settings, StageId, Term};
use spending::Spending;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use transfer::{Donation, Obtaining};

/// Committed iterations that a node may lag behind while its state arrives; beyond, the transfer starts anew.
pub(crate) const LAG_ITERATIONS_MAX: usize = 8;

/// Chunk requests kept for transfers that the coordinator has not announced yet.
const EARLY_REQUESTS_MAX: usize = 256;

/// The state of a stage, as it is before `iteration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    stage: StageId,
    iteration: Iteration,
    /// `None` while a step is under way.
    state: Option<Handle>,
    digest: Digest,
    /// Whether an attempt has begun with it: before that it is a candidate, which counts for nobody.
    entered: bool,
}

/// A reduced gradient, waiting for its commit.
#[derive(Debug, Clone, Copy)]
struct Gradient {
    handle: Handle,
    digest: Digest,
}

/// A frame that came before the message that explains it.
#[derive(Debug, Clone)]
struct Early {
    from: NodeId,
    message: ToPeer,
    payload: Handle,
}

/// A worker: serves one stage of a run.
#[derive(Debug, Clone)]
pub struct Worker {
    run: RunId,
    address: String,
    process: u32,
    /// Our id; node 0 until we are welcome.
    me: NodeId,
    /// Our ids since the last record that names us, that one first.
    names: Vec<NodeId>,
    /// The highest term heard of; control messages of lower ones are refused.
    term: Term,
    settings: Option<Box<Settings>>,
    held: Option<Held>,
    obtaining: Option<Obtaining>,
    /// A return with what we hold, to be confirmed for this iteration.
    keeping: Option<(TransferId, Iteration)>,
    donations: BTreeMap<TransferId, Donation>,
    copies: Copies,
    kept: KeptTensors,
    early_requests: Vec<(NodeId, TransferId, u32)>,
    /// The newest transfer that we were told of as a donor; requests for older ones come too late.
    newest_donation: Option<TransferId>,
    saving: Saving,
    work: Option<AttemptWork>,
    /// The highest (iteration, attempt) begun or aborted; older data frames are dropped.
    newest: (Iteration, Attempt),
    early: Vec<Early>,
    reductions: BTreeMap<Iteration, Reduction>,
    gradients: BTreeMap<Iteration, Gradient>,
    /// Commits not yet stepped.
    commits: BTreeMap<Iteration, Arc<CommitRecord>>,
    last_record: Option<Arc<CommitRecord>>,
    fenced: BTreeSet<NodeId>,
    compute: Compute,
    spending: Spending,
    /// Whether we are about to leave; every coordinator that takes us in is told.
    leaving: bool,
    exited: bool,
    out: Vec<WorkerCommand>,
}

impl Worker {
    /// A worker of `run` that serves nothing yet; peers reach it at `address`, and `process` is its process id
    /// (0 if unknown).
    pub fn new(run: RunId, address: String, process: u32) -> Self {
        Self {
            run,
            address,
            process,
            me: NodeId(0),
            names: Vec::new(),
            term: Term(0),
            settings: None,
            held: None,
            obtaining: None,
            keeping: None,
            donations: BTreeMap::new(),
            copies: Copies::default(),
            kept: KeptTensors::default(),
            early_requests: Vec::new(),
            newest_donation: None,
            saving: Saving::default(),
            work: None,
            newest: (Iteration(0), Attempt(0)),
            early: Vec::new(),
            reductions: BTreeMap::new(),
            gradients: BTreeMap::new(),
            commits: BTreeMap::new(),
            last_record: None,
            fenced: BTreeSet::new(),
            compute: Compute::default(),
            spending: Spending::default(),
            leaving: false,
            exited: false,
            out: Vec::new(),
        }
    }

    /// The worker's id; node 0 until it is welcome.
    pub fn node(&self) -> NodeId {
        self.me
    }

    /// The highest term that the worker has heard of, for envelopes.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The stage that it holds, and its state: none while a step is under way.
    pub fn state(&self) -> Option<(StageId, Handle)> {
        self.held.as_ref().and_then(|held| Some((held.stage, held.state?)))
    }

    /// Takes an input at a time in microseconds (monotonic); answers with commands, to be carried out in order.
    pub fn on(&mut self, input: WorkerInput, now_us: u64) -> Vec<WorkerCommand> {
        if self.exited {
            return Vec::new();
        }
        match input {
            WorkerInput::CoordinatorUp => self.say_hello(),
            WorkerInput::CoordinatorDown => {}
            WorkerInput::Leave => self.leave(),
            WorkerInput::Coordinator { term, message } => {
                if term >= self.term {
                    self.term = term;
                    self.on_coordinator(message);
                }
            }
            WorkerInput::PeerUp { peer } => self.on_peer_up(peer),
            WorkerInput::Peer { from, message, payload, began_us } => {
                if self.on_peer(from, message, payload) {
                    self.spending.arrived(now_us, began_us.min(now_us));
                }
            }
            WorkerInput::Computed { id, outcome } => self.on_computed(id, outcome, now_us),
            WorkerInput::Written { id, written } => self.on_written(id, written),
        }
        self.settle();
        self.write_copies();
        self.dispatch(now_us);
        std::mem::take(&mut self.out)
    }

    fn say_hello(&mut self) {
        // What arrived between this and the welcome would be in no list.
        self.stop_copies();
        let holding = self.held.as_ref().filter(|held| held.entered).map(|held| {
            Box::new(Holding {
                run: self.run,
                term: self.term,
                node: self.me,
                names: self.names.clone(),
                stage: held.stage,
                iteration: held.iteration,
                newest: self.newest,
                state: held.digest,
                reduced: self.gradients.get(&held.iteration).map(|gradient| gradient.digest),
                record: self.last_record.as_deref().cloned().map(Box::new),
                copies: self.copies.list(),
            })
        });
        // A state that is still on its way, or that nothing was ever computed with, is of no use to anyone else.
        let was = Some(self.me).filter(|me| me.0 != 0);
        let (address, process) = (self.address.clone(), self.process);
        let hello = ToCoordinator::Hello { holding, address, process, was };
        self.report(hello);
    }

    /// Of more names than are kept, the oldest stays: a record may know us by it.
    fn remember_name(&mut self) {
        if self.names.len() == NAMES_MAX {
            self.names.remove(1);
        }
        self.names.push(self.me);
    }

    fn on_coordinator(&mut self, message: ToWorker) {
        match message {
            ToWorker::Welcome { node, settings, empty } => {
                self.me = node;
                // A strategy that is not known here keeps nothing, and its stages are made without lessons.
                if let Ok(strategy) = skipstone_recovery::strategy(&settings.recovery) {
                    self.kept.keep_for(strategy.as_ref());
                }
                self.settings = Some(settings);
                if empty {
                    self.forget_everything();
                    self.names.clear();
                    // Another coordinator may count attempts anew.
                    self.newest = (Iteration(0), Attempt(0));
                }
                self.remember_name();
                self.forget_donations_of_former_ids();
                self.stop_copies();
                if self.leaving {
                    self.report(ToCoordinator::Leaving);
                }
            }
            ToWorker::Refuse { why } => self.exit(why, false),
            ToWorker::Finish => self.exit("the run is over".to_owned(), true),
            ToWorker::Assign { transfer, stage, iteration, method, addresses } => {
                self.know(addresses);
                self.obtain(transfer, stage, iteration, method);
            }
            ToWorker::Donate { transfer, stage, iteration, to, format } => {
                self.donate(transfer, stage, iteration, (to, format));
            }
            ToWorker::KeepCopy { transfer, stage, iteration, format, donor, addresses } => {
                self.know(addresses);
                self.keep_copy(transfer, stage, iteration, (donor, format));
            }
            ToWorker::DropCopy { stage } => self.drop_copy(stage),
            ToWorker::Release { transfer } => {
                self.release(transfer);
                self.stop_copy_by(transfer);
            }
            ToWorker::Begin { iteration, attempt, duties, addresses } => {
                self.know(addresses);
                self.begin(iteration, attempt, duties);
            }
            ToWorker::Reroute { iteration, attempt, duties } => self.reroute(iteration, attempt, duties),
            ToWorker::Fence { nodes } => self.fence(nodes),
            ToWorker::Abort { iteration, attempt } => self.abort(iteration, attempt),
            ToWorker::Seal { iteration, attempt, reduce, members, contributors, listeners, microbatches } => {
                let reduction =
                    Reduction::new(reduce, attempt, members, contributors, listeners, microbatches);
                self.seal(iteration, reduction);
            }
            ToWorker::Commit { record } => self.commit(record),
            ToWorker::Leave => self.exit("left".to_owned(), true),
            ToWorker::Poll => self.tell_task(),
            ToWorker::GiveUp { iteration, attempt, microbatches_max } => {
                self.give_up((iteration, attempt), microbatches_max as usize);
            }
            ToWorker::Save { iteration } => self.saving.want(iteration),
            ToWorker::Check { iteration, attempt, of, additions } => {
                self.check((iteration, attempt), of, additions);
            }
            ToWorker::Resend { iteration, attempt, to, boundaries } => {
                self.resend_to((iteration, attempt), to, boundaries);
            }
            ToWorker::Know { addresses } => self.know(addresses),
            ToWorker::SaveCopy { stage, iteration, copied, recipe } => {
                self.save_copy(stage, iteration, copied, recipe);
            }
        }
    }

    /// Whether it brought a tensor that the attempt under way needs.
    fn on_peer(&mut self, from: NodeId, message: ToPeer, payload: Option<Handle>) -> bool {
        if self.fenced.contains(&from) {
            self.drop_handles(payload);
            return false;
        }
        match (message, payload) {
            (message @ ToPeer::Boundary { .. }, Some(payload)) => {
                return self.on_boundary(from, message, payload);
            }
            (message @ (ToPeer::Part { .. } | ToPeer::Reduced { .. }), Some(payload)) => {
                return self.on_reduction_frame(from, message, payload);
            }
            (ToPeer::ChunkRequest { transfer, index }, None) => self.on_chunk_request(from, transfer, index),
            (ToPeer::Chunk { transfer, index, count, bytes }, Some(payload)) => {
                self.on_chunk(from, transfer, index, (count, bytes), payload);
            }
            (ToPeer::LessonRequest { transfer, lesson, which }, None) => {
                self.on_lesson_request(from, transfer, lesson, which);
            }
            (ToPeer::Lesson { transfer, lesson, which }, payload) => {
                self.on_lesson(from, transfer, (lesson, which), payload);
            }
            // A payload where none belongs, or none where one does: a malformed frame counts for nothing.
            (_, payload) => self.drop_handles(payload),
        }
        false
    }

    /// What a peer may have missed while the connection was down is sent again; receivers drop what they have.
    fn on_peer_up(&mut self, peer: NodeId) {
        if self.fenced.contains(&peer) {
            return;
        }
        self.resend_boundaries(peer);
        self.resend_reductions(peer);
        self.request_again(peer);
        self.request_lessons(Some(peer));
    }

    fn fence(&mut self, nodes: Vec<NodeId>) {
        self.fenced.extend(nodes.iter().copied());
        if let Some(work) = &mut self.work {
            work.ordered = false;
        }
        let fenced = &self.fenced;
        let (gone, kept) = std::mem::take(&mut self.early)
            .into_iter()
            .partition::<Vec<_>, _>(|early| fenced.contains(&early.from));
        self.early = kept;
        self.early_requests.retain(|(from, ..)| !fenced.contains(from));
        self.drop_handles(gone.into_iter().map(|early| early.payload));
        self.go_on_without_donors(&nodes);
        self.out.push(WorkerCommand::Forget { peers: nodes });
    }

    fn know(&mut self, addresses: Vec<(NodeId, String)>) {
        let others: Vec<_> = addresses.into_iter().filter(|(node, _)| *node != self.me).collect();
        if !others.is_empty() {
            self.out.push(WorkerCommand::Know { addresses: others });
        }
    }

    /// Takes in a commit. Members hold the reduced gradient already; a follower may still wait for it.
    fn commit(&mut self, record: Arc<CommitRecord>) {
        let iteration = record.iteration;
        if self.work.as_ref().is_some_and(|work| work.iteration <= iteration) {
            self.keep_tensors((iteration, record.attempt));
            self.end_attempt();
        }
        self.newest = self.newest.max((iteration.next(), Attempt(0)));
        self.forget_early_frames();
        self.last_record = Some(record.clone());
        if record.stages.iter().any(|part| part.members.contains(&self.me)) {
            self.names.retain(|name| *name == self.me);
        }
        let needed_from = self.held.as_ref().map(|held| held.iteration).or(self.following_from(iteration));
        if needed_from.is_some_and(|first| first <= iteration) {
            self.commits.insert(iteration, record);
        } else if let Some(held) = self.held.filter(|held| held.state.is_some()) {
            // Told again after the step: what was said of it then went to a coordinator that is no more.
            let Held { stage, iteration, digest, .. } = held;
            self.report(ToCoordinator::Holds { transfer: None, stage, iteration, digest });
        }
        if self.commits.len() > LAG_ITERATIONS_MAX {
            self.give_up_transfer("too far behind");
        }
    }

    /// Does what the held state allows, in order: freeze and save what was asked for at its iteration, then step.
    fn settle(&mut self) {
        loop {
            let Some(Held { stage, iteration, state: Some(state), .. }) = self.held else { return };
            self.freeze_for_donations(iteration, state);
            self.save(stage, iteration);
            let Some(record) = self.commits.get(&iteration) else { return };
            let Some(part) = record.stage(stage).filter(|part| part.step) else {
                self.advance_without_step(stage, iteration);
                continue;
            };
            let Some(gradient) = self.gradients.get(&iteration).copied() else { return };
            if gradient.digest != part.gradient {
                self.broken(format!("the reduced gradient of {iteration} differs from the committed one"));
                return;
            }
            let task =
                Task::Step { iteration, learning_rate: record.learning_rate, clip_factor: part.clip_factor };
            if let Some(held) = &mut self.held {
                held.state = None;
            }
            self.compute.enqueue(Purpose::Step { iteration }, task, vec![state, gradient.handle], 1);
            return;
        }
    }

    fn advance_without_step(&mut self, stage: StageId, iteration: Iteration) {
        self.commits.remove(&iteration);
        self.drop_iteration(iteration);
        let Some(held) = &mut self.held else { return };
        held.iteration = iteration.next();
        let digest = held.digest;
        self.report(ToCoordinator::Holds { transfer: None, stage, iteration: iteration.next(), digest });
        self.keep_if_settled();
    }

    fn stepped(&mut self, iteration: Iteration, state: Handle, digest: Digest) {
        self.commits.remove(&iteration);
        self.drop_iteration(iteration);
        let Some(held) = &mut self.held else {
            self.drop_handles([state]);
            return;
        };
        held.state = Some(state);
        held.iteration = iteration.next();
        held.digest = digest;
        let stage = held.stage;
        self.report(ToCoordinator::Holds { transfer: None, stage, iteration: iteration.next(), digest });
        self.keep_if_settled();
    }

    /// Drops reduction and gradient of an iteration.
    fn drop_iteration(&mut self, iteration: Iteration) {
        if let Some(gradient) = self.gradients.remove(&iteration) {
            self.drop_handles([gradient.handle]);
        }
        if let Some(reduction) = self.reductions.remove(&iteration) {
            self.compute.cancel(|purpose| purpose.is_of_reduce(reduction.id));
            self.drop_handles(reduction.handles());
        }
    }

    /// What was decided of these without a step for us is over, whatever of it was still under way.
    pub(super) fn forget_iterations_before(&mut self, iteration: Iteration) {
        let past = self.reductions.keys().chain(self.gradients.keys()).chain(self.commits.keys());
        let past: Vec<_> = past.copied().filter(|of| *of < iteration).collect();
        for of in past {
            self.commits.remove(&of);
            self.drop_iteration(of);
        }
    }

    /// As if newly started: drops every tensor.
    fn forget_everything(&mut self) {
        self.end_attempt();
        self.keeping = None;
        if let Some(obtaining) = self.obtaining.take() {
            self.drop_obtaining(obtaining);
        }
        let state = self.compute.cancel_step();
        self.compute.cancel(|_| true);
        self.drop_handles(state);
        let iterations: Vec<_> = self.reductions.keys().chain(self.gradients.keys()).copied().collect();
        for iteration in iterations {
            self.drop_iteration(iteration);
        }
        let transfers: Vec<_> = self.donations.keys().copied().collect();
        for transfer in transfers {
            self.release(transfer);
        }
        if let Some(state) = self.held.take().and_then(|held| held.state) {
            self.drop_handles([state]);
        }
        self.drop_all_copies();
        let kept = self.kept.take();
        self.drop_handles(kept);
        let early = std::mem::take(&mut self.early);
        self.drop_handles(early.into_iter().map(|early| early.payload));
        self.commits.clear();
        self.saving.forget();
        self.early_requests.clear();
        self.last_record = None;
    }

    fn leave(&mut self) {
        // Who is nobody yet is told when it is welcome.
        if !std::mem::replace(&mut self.leaving, true) && self.me != NodeId(0) {
            self.report(ToCoordinator::Leaving);
        }
    }

    fn report(&mut self, message: ToCoordinator) {
        self.out.push(WorkerCommand::SendCoordinator { message });
    }

    fn broken(&mut self, why: String) {
        self.report(ToCoordinator::Broken { why: why.clone() });
        self.exit(why, false);
    }

    fn exit(&mut self, why: String, success: bool) {
        self.out.push(WorkerCommand::Exit { why, success });
        self.exited = true;
    }

    fn send(&mut self, to: NodeId, message: ToPeer, payload: Option<Handle>) {
        if !self.fenced.contains(&to) {
            self.out.push(WorkerCommand::SendPeer { to, message, payload });
        }
    }

    /// Forgets tensors, once the task under way does not read them.
    fn drop_handles(&mut self, handles: impl IntoIterator<Item = Handle>) {
        self.compute.drop_later(handles);
    }
}
