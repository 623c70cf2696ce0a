//! What must hold, one file each, named after what it promises. An invariant sees everything that happens in the
//! simulated run, and the oracle; it never looks into the cores.

mod a_kept_copy_is_used;
mod a_right_copy_counts;
mod checkpoints_are_journalled_first;
mod commit_is_journalled_first;
mod committed_gradient_equals_undisturbed;
mod committed_iterations_never_change;
mod each_microbatch_counted_once;
mod every_stage_is_served_when_faults_end;
mod fenced_nodes_never_count;
mod given_up_microbatches_never_count;
mod handles_bounded;
mod hashes_before_step;
mod honest_nodes_are_never_set_aside_by_a_check;
mod iterations_commit_when_faults_end;
mod journal_cut_anywhere_is_a_past;
mod journal_restores_what_existed;
mod liars_are_found;
mod needed_states_are_kept;
mod no_two_terms_commit;
mod node_ids_are_never_used_twice;
mod nodes_one_step_apart;
mod one_origin_and_a_spare_suffice;
mod poisoned_shares_never_count;
mod published_state_is_committed;
mod queues_bounded;
mod recovery_is_the_configured_one;
mod repair_keeps_the_planned_stages;
mod replicas_bitwise_equal;
mod resume_goes_on_from_what_was_saved;
mod runs_end_as_they_should;
mod sample_order_independent;
mod slots_never_exceeded;
mod struck_nodes_are_set_aside;
mod the_ledger_is_sound;
mod waits_have_an_owner_and_an_end;

use super::compute::Rebuilt;
use super::store::Store;
use super::truth::Truth;
use super::world::{Broken, Checked};
use skipstone_protocol::{
    CommitRecord, CoordinatorInput, End, Entry, Holding, Queue, SavedStage, Task, ToCoordinator, ToWorker,
    Wait,
};
use skipstone_types::{Attempt, Digest, Event, Iteration, NodeId, Plan, Settings, StageId};
use std::fmt::Debug;

/// Something that happened.
#[derive(Debug)]
pub(super) enum Observation<'a> {
    /// A coordinator read its journal; these entries had been written whole.
    Restored { entries: &'a [Entry], written: &'a [Entry] },
    /// What a restart would find if the journal had been cut at some byte; these entries had been written whole.
    Cut { entries: Result<&'a [Entry], &'a str>, written: &'a [Entry] },
    /// The coordinator was told these paths.
    Planned { plan: &'a Plan },
    /// Someone asked the run to stop.
    Interrupted,
    /// All processes are new, and the run goes on from `state/`.
    BegunAnew,
    /// A state was read from `state/`.
    Loaded { iteration: Iteration, stage: StageId, digest: Digest },
    /// A node has computed wrong numbers.
    Miscomputed { node: NodeId },
    /// What a node adds up in an attempt is wrong, in a way that can be told.
    Poisoned { node: NodeId, iteration: Iteration, attempt: Attempt },
    /// What a node adds up in an attempt, of its own share or of one that it checks, differs by so much from what it should be.
    Lied { node: NodeId, iteration: Iteration, attempt: Attempt, checks: bool, by: u64 },
    /// Time has passed; no fault has happened since then, if faults are over.
    /// So many nodes belong to it; so many of them are origins with the last state.
    Standing { now_us: u64, calm_since_us: Option<u64>, nodes: usize, origins: usize },
    /// What a node keeps for later.
    Keeps { node: NodeId, queues: &'a [Queue] },
    /// What the coordinator waits for; these nodes belong to it. Whether faults are over.
    Waits { waits: &'a [Wait], bound: &'a [NodeId], now_us: u64, calm: bool },
    /// The coordinator logged an event.
    Log { event: &'a Event },
    /// An entry is on disk.
    Written { entry: &'a Entry },
    /// The coordinator's core got an input.
    Heard { input: &'a CoordinatorInput },
    /// A connection was given to a node, which had come with this.
    Bound { node: NodeId, holding: Option<&'a Holding> },
    /// The coordinator told a node.
    Told { node: NodeId, message: &'a ToWorker },
    /// The coordinator cut a node off.
    Disconnected { node: NodeId },
    /// `state/` was published.
    Published { iteration: Iteration, stages: &'a [SavedStage] },
    /// The run is over; these nodes still belonged to it.
    Ended { end: &'a End, bound: &'a [NodeId] },
    /// A node told the coordinator.
    Reported { node: NodeId, message: &'a ToCoordinator },
    /// A node started a task, which makes a state of this stage.
    Started { node: NodeId, task: &'a Task, makes: Option<StageId> },
    /// A state was made from others.
    Rebuilt { rebuilt: &'a Rebuilt },
    /// A node holds so many microbatches between forward and backward.
    Slots { node: NodeId, saved: usize, slots: u32 },
    /// A node's store after it has carried out its commands; `settled` when all drops that it owed are done.
    Stored { node: NodeId, store: &'a Store, attempt: (Iteration, Attempt), settled: bool },
}

impl<'a> Observation<'a> {
    /// The record, if this is its writing.
    fn committed(&self) -> Option<&'a CommitRecord> {
        match self {
            Self::Written { entry: Entry::Committed(record) } => Some(record),
            _ => None,
        }
    }
}

/// A promise.
trait Invariant: Debug + Send {
    /// Its name, which is its file's.
    fn name(&self) -> &'static str;
    /// Checks what was seen.
    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String>;
}

/// All promises.
#[derive(Debug)]
pub(super) struct Invariants {
    promises: Vec<Box<dyn Invariant>>,
    /// No node had this id or a higher one yet.
    ids_below: NodeId,
    /// Nodes below were let go when the run went back to a checkpoint: until they come again, as others, they do and say what
    /// belongs to a past that never was.
    let_go_below: NodeId,
}

impl Invariants {
    /// All promises for a run.
    pub(super) fn new(settings: &Settings) -> Self {
        // The most telling first: one mistake often breaks several promises.
        let promises: Vec<Box<dyn Invariant>> = vec![
            Box::new(journal_restores_what_existed::JournalRestoresWhatExisted),
            Box::new(journal_cut_anywhere_is_a_past::JournalCutAnywhereIsAPast),
            Box::new(node_ids_are_never_used_twice::NodeIdsAreNeverUsedTwice::default()),
            Box::new(resume_goes_on_from_what_was_saved::ResumeGoesOnFromWhatWasSaved::default()),
            Box::new(needed_states_are_kept::NeededStatesAreKept::default()),
            Box::new(no_two_terms_commit::NoTwoTermsCommit::default()),
            Box::new(committed_iterations_never_change::CommittedIterationsNeverChange::default()),
            Box::new(commit_is_journalled_first::CommitIsJournalledFirst),
            Box::new(repair_keeps_the_planned_stages::RepairKeepsThePlannedStages::default()),
            Box::new(fenced_nodes_never_count::FencedNodesNeverCount::default()),
            Box::new(poisoned_shares_never_count::PoisonedSharesNeverCount::default()),
            Box::new(struck_nodes_are_set_aside::StruckNodesAreSetAside::default()),
            Box::new(liars_are_found::LiarsAreFound::default()),
            Box::new(
                honest_nodes_are_never_set_aside_by_a_check::HonestNodesAreNeverSetAsideByACheck::default(),
            ),
            Box::new(given_up_microbatches_never_count::GivenUpMicrobatchesNeverCount::default()),
            Box::new(each_microbatch_counted_once::EachMicrobatchCountedOnce),
            Box::new(hashes_before_step::HashesBeforeStep::default()),
            Box::new(recovery_is_the_configured_one::RecoveryIsTheConfiguredOne::default()),
            Box::new(a_kept_copy_is_used::AKeptCopyIsUsed::default()),
            Box::new(a_right_copy_counts::ARightCopyCounts::default()),
            Box::new(checkpoints_are_journalled_first::CheckpointsAreJournalledFirst::default()),
            Box::new(committed_gradient_equals_undisturbed::CommittedGradientEqualsUndisturbed),
            Box::new(replicas_bitwise_equal::ReplicasBitwiseEqual::default()),
            Box::new(sample_order_independent::SampleOrderIndependent),
            Box::new(nodes_one_step_apart::NodesOneStepApart),
            Box::new(slots_never_exceeded::SlotsNeverExceeded),
            Box::new(handles_bounded::HandlesBounded::new(settings)),
            Box::new(published_state_is_committed::PublishedStateIsCommitted),
            Box::new(queues_bounded::QueuesBounded),
            Box::new(waits_have_an_owner_and_an_end::WaitsHaveAnOwnerAndAnEnd::default()),
            Box::new(one_origin_and_a_spare_suffice::OneOriginAndASpareSuffice::default()),
            Box::new(every_stage_is_served_when_faults_end::EveryStageIsServedWhenFaultsEnd::default()),
            Box::new(iterations_commit_when_faults_end::IterationsCommitWhenFaultsEnd::default()),
            Box::new(runs_end_as_they_should::RunsEndAsTheyShould::default()),
            Box::new(the_ledger_is_sound::TheLedgerIsSound::default()),
        ];
        Self { promises, ids_below: NodeId(0), let_go_below: NodeId(0) }
    }

    /// Shows what happened to every promise.
    pub(super) fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Checked {
        match seen {
            Observation::Bound { node, .. } => self.ids_below = self.ids_below.max(NodeId(node.0 + 1)),
            Observation::Written { entry: Entry::RolledBack { .. } } => self.let_go_below = self.ids_below,
            Observation::Reported { node, .. } | Observation::Started { node, .. }
                if *node < self.let_go_below =>
            {
                return Ok(());
            }
            _ => {}
        }
        for invariant in &mut self.promises {
            invariant.observe(seen, truth).map_err(|what| Broken { invariant: invariant.name(), what })?;
        }
        Ok(())
    }
}
