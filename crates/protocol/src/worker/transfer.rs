//! Getting a stage's state, and handing one's own to others.
//!
//! A joiner pulls chunks from donors that froze their state at one iteration, and asks again after a broken
//! connection. If one of several donors is lost, it asks the others for what is still missing. Donors go on training
//! meanwhile; the joiner follows the reduced gradients.

use super::compute::Purpose;
use super::lessons::Lessons;
use super::pull::Pull;
use super::{EARLY_REQUESTS_MAX, Held, Worker};
use crate::message::{Method, ToCoordinator, ToPeer, TransferId};
use crate::task::{Handle, Task};
use skipstone_recovery::{Recipe, StateFormat};
use skipstone_types::{Digest, Iteration, NodeId, StageId};
use std::collections::BTreeSet;

/// Reports on how far a transfer is.
const REPORTS: u64 = 10;

/// A frozen state that someone pulls.
#[derive(Debug, Clone)]
pub(super) struct Donation {
    iteration: Iteration,
    to: NodeId,
    format: StateFormat,
    /// Digest of our own state that is frozen.
    of: Digest,
    freezing: bool,
    /// The frozen state, with its chunks and their bytes.
    frozen: Option<(Handle, (u32, u64))>,
    asked: BTreeSet<u32>,
}

/// A state on its way to us.
#[derive(Debug, Clone)]
pub(super) struct Obtaining {
    pub(super) transfer: TransferId,
    stage: StageId,
    pub(super) iteration: Iteration,
    recipe: Option<Recipe>,
    sources: Vec<Pull>,
    pub(super) lessons: Lessons,
    finishing: bool,
}

impl Worker {
    pub(super) fn obtain(
        &mut self,
        transfer: TransferId,
        stage: StageId,
        iteration: Iteration,
        method: Method,
    ) {
        if let Some(obtaining) = self.obtaining.take() {
            self.drop_obtaining(obtaining);
        }
        self.keeping = None;
        if matches!(method, Method::Keep) {
            if self.held.is_some_and(|held| held.stage == stage) {
                self.keeping = Some((transfer, iteration));
                self.keep_if_settled();
            } else {
                let why = "nothing is held to be kept".to_owned();
                self.report(ToCoordinator::TransferFailed { transfer, why });
            }
            return;
        }
        // A node that changes its stage starts empty.
        self.forget_everything();
        let mut obtaining = Obtaining {
            transfer,
            stage,
            iteration,
            recipe: None,
            sources: Vec::new(),
            lessons: Lessons::default(),
            finishing: false,
        };
        match method {
            Method::Initialise => {
                let task = Task::Initialise { stage };
                self.compute.enqueue(Purpose::Obtain { transfer }, task, Vec::new(), 1);
            }
            Method::Load { state } => {
                let task = Task::Load { stage, iteration, state };
                self.compute.enqueue(Purpose::Obtain { transfer }, task, Vec::new(), 1);
            }
            Method::Copy { donors } => obtaining.sources.push(Pull::new(stage, StateFormat::F32, donors)),
            Method::Rebuild { recipe, donors, teachers } => {
                obtaining.lessons = Lessons::of(&recipe, &teachers);
                let format = recipe.travels_as(stage);
                obtaining.sources = recipe
                    .sources
                    .iter()
                    .zip(donors)
                    .map(|(from, donor)| Pull::new(from.stage, format, vec![donor]))
                    .collect();
                obtaining.recipe = Some(recipe);
            }
            Method::Keep => {}
        }
        let pulls = !obtaining.sources.is_empty();
        // From the seed, or what the driver remembers.
        let alone = obtaining.recipe.is_some() && !pulls;
        self.obtaining = Some(obtaining);
        if alone {
            self.rebuild_if_complete();
        }
        if pulls {
            self.request_chunks(None);
        }
        self.request_lessons(None);
    }

    /// Goes on with what is held, once the step that was missed is done. Nobody stepped the stage after that: what is
    /// held is as good for a later iteration.
    pub(super) fn keep_if_settled(&mut self) {
        let Some((transfer, iteration)) = self.keeping else { return };
        let Some(held) = &mut self.held else { return };
        if held.state.is_none() || self.commits.contains_key(&held.iteration) {
            return;
        }
        self.keeping = None;
        held.iteration = held.iteration.max(iteration);
        let (stage, iteration, digest) = (held.stage, held.iteration, held.digest);
        self.forget_iterations_before(iteration);
        self.report(ToCoordinator::Holds { transfer: Some(transfer), stage, iteration, digest });
    }

    /// Asks for as many chunks as the window allows; `again` names a donor whose open requests are repeated.
    pub(super) fn request_chunks(&mut self, again: Option<NodeId>) {
        let mut requests = Vec::new();
        if let Some(obtaining) = &mut self.obtaining {
            for pull in &mut obtaining.sources {
                // A donor may serve several sources only if it served several stages, which a node never does, so a
                // chunk's donor tells its source.
                requests.extend(
                    pull.requests(again).into_iter().map(|(to, index)| (obtaining.transfer, to, index)),
                );
            }
        }
        for (transfer, pull) in self.copies.pulls() {
            requests.extend(pull.requests(again).into_iter().map(|(to, index)| (transfer, to, index)));
        }
        for (transfer, to, index) in requests {
            self.send(to, ToPeer::ChunkRequest { transfer, index }, None);
        }
    }

    pub(super) fn request_again(&mut self, peer: NodeId) {
        self.request_chunks(Some(peer));
    }

    pub(super) fn on_chunk(
        &mut self,
        from: NodeId,
        transfer: TransferId,
        index: u32,
        count: (u32, u64),
        payload: Handle,
    ) {
        let obtained = self
            .obtaining
            .as_mut()
            .filter(|obtaining| obtaining.transfer == transfer)
            .and_then(|obtaining| obtaining.sources.iter_mut().find(|pull| pull.donors.contains(&from)));
        let is_own = obtained.is_some();
        let copied = self.copies.pulls().find(|(of, pull)| *of == transfer && pull.donors.contains(&from));
        let pull = obtained.or(copied.map(|(_, pull)| pull));
        if !pull.is_some_and(|pull| pull.take(index, count, payload)) {
            self.drop_handles([payload]);
            return;
        }
        if is_own {
            self.report_progress();
        }
        self.request_chunks(None);
        self.join_if_complete();
    }

    /// A chunk has arrived: tells how far the transfer is, whenever another tenth of it is there.
    fn report_progress(&mut self) {
        let Some(obtaining) = &self.obtaining else { return };
        let arrived: u64 = obtaining.sources.iter().map(Pull::arrived).sum();
        let counts: Option<Vec<_>> = obtaining.sources.iter().map(|source| source.count).collect();
        // How much there is in all is known once every source has sent something.
        let Some(counts) = counts else { return };
        let total: u64 = counts.iter().map(|(count, _)| u64::from(*count)).sum();
        let tenths = |chunks: u64| chunks * REPORTS / total.max(1);
        if arrived == 0 || tenths(arrived) == tenths(arrived - 1) {
            return;
        }
        let donors: BTreeSet<_> = obtaining.sources.iter().flat_map(|source| &source.donors).collect();
        let (transfer, donors) = (obtaining.transfer, donors.len() as u32);
        self.report(ToCoordinator::Obtained {
            transfer,
            chunks: arrived as u32,
            chunks_total: total as u32,
            bytes_total: counts.iter().map(|(_, bytes)| bytes).sum(),
            donors,
        });
    }

    /// These nodes are lost. What is missing of theirs is asked of a source's other donors, who froze the same; a source
    /// that has no other waits for what the coordinator decides.
    pub(super) fn go_on_without_donors(&mut self, lost: &[NodeId]) {
        self.drop_copies_from(lost);
        let Some(obtaining) = &mut self.obtaining else { return };
        let mut shrunk = false;
        for pull in &mut obtaining.sources {
            shrunk |= pull.go_on_without(lost);
        }
        if shrunk {
            self.request_chunks(None);
        }
    }

    fn join_if_complete(&mut self) {
        if let Some(obtaining) = &mut self.obtaining {
            let transfer = obtaining.transfer;
            for (source, pull) in obtaining.sources.iter_mut().enumerate() {
                if let Some((task, chunks)) = pull.join_when_complete() {
                    self.compute.enqueue(Purpose::Join { transfer, source }, task, chunks, 1);
                }
            }
        }
        for (transfer, pull) in self.copies.pulls() {
            if let Some((task, chunks)) = pull.join_when_complete() {
                self.compute.enqueue(Purpose::Join { transfer, source: 0 }, task, chunks, 1);
            }
        }
    }

    pub(super) fn joined(
        &mut self,
        transfer: TransferId,
        source: usize,
        outputs: Vec<Handle>,
        digest: Digest,
    ) {
        let Some(obtaining) = self.obtaining.as_mut().filter(|obtaining| obtaining.transfer == transfer)
        else {
            self.copy_joined(transfer, outputs, digest);
            return;
        };
        let retracing = obtaining.recipe.as_ref().and_then(|recipe| recipe.retracing.as_ref());
        if retracing.is_some_and(|retracing| retracing.copy != digest) {
            // What comes of it can't be compared with anything that is known.
            self.drop_handles(outputs);
            self.fail_obtaining(transfer, "the copy of the stage has other bits than were copied".to_owned());
            return;
        }
        let chunks = std::mem::take(&mut obtaining.sources[source].chunks);
        obtaining.sources[source].joined = outputs.first().copied();
        let copy = obtaining.recipe.is_none();
        self.drop_handles(chunks.into_values());
        if copy {
            if let Some(obtaining) = &mut self.obtaining {
                obtaining.sources.clear();
            }
            self.obtained(transfer, outputs, digest);
        } else {
            self.rebuild_if_complete();
        }
    }

    pub(super) fn rebuild_if_complete(&mut self) {
        let Some(obtaining) = &mut self.obtaining else { return };
        let joined: Vec<_> = obtaining.sources.iter().filter_map(|source| source.joined).collect();
        let Some(recipe) = obtaining.recipe.clone().filter(|_| !obtaining.finishing) else { return };
        if joined.len() < obtaining.sources.len() || !obtaining.lessons.is_complete() {
            return;
        }
        obtaining.finishing = true;
        let inputs = joined.into_iter().chain(obtaining.lessons.handles()).collect();
        let outputs = 1 + 2 * recipe.made_again().count();
        let (transfer, task) = (obtaining.transfer, Task::Rebuild { stage: obtaining.stage, recipe });
        self.compute.enqueue(Purpose::Obtain { transfer }, task, inputs, outputs);
    }

    pub(super) fn obtained(&mut self, transfer: TransferId, outputs: Vec<Handle>, digest: Digest) {
        let Some(obtaining) = self.obtaining.take_if(|obtaining| obtaining.transfer == transfer) else {
            self.drop_handles(outputs);
            return;
        };
        let (stage, iteration) = (obtaining.stage, obtaining.iteration);
        let mut outputs = outputs.into_iter();
        self.held = Some(Held { stage, iteration, state: outputs.next(), digest, entered: false });
        if let Some(recipe) = &obtaining.recipe {
            self.keep_made_again(recipe, outputs);
        }
        self.drop_obtaining(obtaining);
        self.report(ToCoordinator::Holds { transfer: Some(transfer), stage, iteration, digest });
    }

    pub(super) fn drop_obtaining(&mut self, obtaining: Obtaining) {
        self.compute.cancel(|purpose| purpose.is_of_transfer(obtaining.transfer));
        self.drop_handles(obtaining.lessons.handles());
        self.drop_handles(obtaining.sources.into_iter().flat_map(Pull::handles));
    }

    /// What was on its way can't be had; the coordinator decides what comes next.
    pub(super) fn fail_obtaining(&mut self, transfer: TransferId, why: String) {
        if let Some(obtaining) = self.obtaining.take_if(|obtaining| obtaining.transfer == transfer) {
            self.report(ToCoordinator::TransferFailed { transfer, why });
            self.drop_obtaining(obtaining);
        }
    }

    /// The first iteration whose commit we need while a state is on its way. A stage that is being rebuilt takes no
    /// steps meanwhile: its state is as good for the iteration after `committed`.
    pub(super) fn following_from(&mut self, committed: Iteration) -> Option<Iteration> {
        let obtaining = self.obtaining.as_mut()?;
        if obtaining.recipe.is_some() {
            obtaining.iteration = obtaining.iteration.max(committed.next());
        }
        Some(obtaining.iteration)
    }

    pub(super) fn give_up_transfer(&mut self, why: &str) {
        self.commits.clear();
        if let Some(obtaining) = self.obtaining.take() {
            let transfer = obtaining.transfer;
            self.drop_obtaining(obtaining);
            // What it followed led on from that state.
            self.forget_iterations_before(Iteration(u64::MAX));
            self.report(ToCoordinator::TransferFailed { transfer, why: why.to_owned() });
        } else {
            self.broken(why.to_owned());
        }
    }

    pub(super) fn donate(
        &mut self,
        transfer: TransferId,
        stage: StageId,
        iteration: Iteration,
        (to, format): (NodeId, StateFormat),
    ) {
        self.newest_donation = self.newest_donation.max(Some(transfer));
        // Of another stage it is a copy that is kept.
        let copy = self.held.is_none_or(|held| held.stage != stage);
        let state = self.copies.state(stage, iteration).filter(|_| copy);
        if copy && state.is_none() {
            let why = format!("no copy of {stage} before {iteration} is kept");
            self.report(ToCoordinator::TransferFailed { transfer, why });
            return;
        }
        self.donations.insert(
            transfer,
            Donation {
                iteration,
                to,
                format,
                of: Digest::default(),
                freezing: copy,
                frozen: None,
                asked: BTreeSet::new(),
            },
        );
        if let Some(state) = state {
            self.compute.enqueue(Purpose::Freeze { transfer }, Task::Freeze { format }, vec![state], 1);
        }
        let (now, later) = std::mem::take(&mut self.early_requests)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, wanted, _)| *wanted == transfer);
        self.early_requests = later.into_iter().filter(|(_, wanted, _)| *wanted > transfer).collect();
        for (from, transfer, index) in now {
            self.on_chunk_request(from, transfer, index);
        }
    }

    /// Freezes the state for donations that were asked for at this iteration.
    pub(super) fn freeze_for_donations(&mut self, iteration: Iteration, state: Handle) {
        let digest = self.held.map_or_else(Digest::default, |held| held.digest);
        let mut late = Vec::new();
        for (transfer, donation) in &mut self.donations {
            if donation.freezing || donation.iteration > iteration {
                continue;
            }
            if donation.iteration < iteration {
                late.push(*transfer);
                continue;
            }
            donation.freezing = true;
            donation.of = digest;
            let task = Task::Freeze { format: donation.format };
            self.compute.enqueue(Purpose::Freeze { transfer: *transfer }, task, vec![state], 1);
        }
        for transfer in late {
            self.donations.remove(&transfer);
            let why = "the donor's state has moved on".to_owned();
            self.report(ToCoordinator::TransferFailed { transfer, why });
        }
    }

    pub(super) fn frozen(
        &mut self,
        transfer: TransferId,
        outputs: Vec<Handle>,
        chunks: (u32, u64),
        rounded: Option<Digest>,
    ) {
        let Some((donation, state)) = self.donations.get_mut(&transfer).zip(outputs.first().copied()) else {
            self.drop_handles(outputs);
            return;
        };
        donation.frozen = Some((state, chunks));
        let (to, digest, asked) = (donation.to, donation.of, std::mem::take(&mut donation.asked));
        if let Some(rounded) = rounded {
            self.report(ToCoordinator::CopyFrozen { transfer, digest, rounded });
        }
        for index in asked {
            self.on_chunk_request(to, transfer, index);
        }
    }

    pub(super) fn on_chunk_request(&mut self, from: NodeId, transfer: TransferId, index: u32) {
        let Some(donation) = self.donations.get_mut(&transfer) else {
            let awaited = self.newest_donation < Some(transfer);
            if awaited && self.early_requests.len() < EARLY_REQUESTS_MAX {
                self.early_requests.push((from, transfer, index));
            }
            return;
        };
        if donation.to != from {
            return;
        }
        match donation.frozen {
            Some((state, (chunks, _))) if index < chunks => {
                let purpose = Purpose::Chunk { transfer, index, to: from };
                // Asked again before it was made: once is enough.
                if self.compute.is_queued(purpose) {
                    return;
                }
                self.compute.enqueue(purpose, Task::Chunk { index }, vec![state], 1);
            }
            Some(_) => {}
            None => {
                if donation.asked.len() < EARLY_REQUESTS_MAX {
                    donation.asked.insert(index);
                }
            }
        }
    }

    pub(super) fn chunk_made(&mut self, transfer: TransferId, index: u32, to: NodeId, outputs: Vec<Handle>) {
        let chunks =
            self.donations.get(&transfer).and_then(|donation| donation.frozen).map(|(_, chunks)| chunks);
        if let Some((count, bytes)) = chunks {
            let payload = outputs.first().copied();
            self.send(to, ToPeer::Chunk { transfer, index, count, bytes }, payload);
        }
        self.drop_handles(outputs);
    }

    /// Under a new id nobody waits for what was promised under the old one, and nobody would ever release it: whoever
    /// lost the old id chose other donors.
    pub(super) fn forget_donations_of_former_ids(&mut self) {
        let term = self.term;
        let former: Vec<_> = self.donations.keys().copied().collect();
        for transfer in former {
            self.release(transfer);
        }
        self.early_requests.retain(|(_, wanted, _)| wanted.term >= term);
    }

    pub(super) fn release(&mut self, transfer: TransferId) {
        self.compute.cancel(|purpose| purpose.is_of_transfer(transfer));
        let frozen = self.donations.remove(&transfer).and_then(|donation| donation.frozen);
        self.drop_handles(frozen.map(|(state, _)| state));
        self.early_requests.retain(|(_, wanted, _)| *wanted != transfer);
    }
}
