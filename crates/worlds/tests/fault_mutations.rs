//! Each rule, broken on purpose, is caught by an invariant made for it: otherwise a thousand clean seeds would say
//! nothing.

use skipstone_worlds::fault::{Options, Tamper, simulate};

/// Seeds tried for each rule; most are caught at the first.
const SEEDS: u64 = 3000;

fn is_caught(tamper: Tamper, invariants: &[&str]) {
    let iterations = iterations(tamper);
    let options = Options { iterations, tamper: Some(tamper), ..Options::default() };
    let mut others = std::collections::BTreeSet::new();
    for seed in 1..=SEEDS {
        match simulate(seed, &options) {
            Err(violation) if invariants.contains(&violation.invariant.as_str()) => {
                println!("{tamper:?}: {} at seed {seed}", violation.invariant);
                return;
            }
            Err(violation) => drop(others.insert(violation.invariant)),
            Ok(_) => {}
        }
    }
    panic!("{tamper:?} was not caught by {invariants:?} in {SEEDS} seeds, only by {others:?}");
}

/// How long runs are that a rule is broken in.
fn iterations(tamper: Tamper) -> u64 {
    match tamper {
        // The saved state must be older than the records that a coordinator keeps.
        Tamper::ReadJournalEndOnly => 60,
        _ => 20,
    }
}

/// The invariant that is made for a rule.
fn guards(tamper: Tamper) -> &'static [&'static str] {
    match tamper {
        Tamper::CountTwice | Tamper::ForgeFirstCopy | Tamper::HearTheFenced => {
            &["committed_gradient_equals_undisturbed"]
        }
        Tamper::CommitOtherGradient | Tamper::CountUnheardMember => &["hashes_before_step"],
        // Shares that were made with different states can't be added up.
        Tamper::ReplayOldFrames | Tamper::LieAboutState => &["handles_name_what_exists"],
        Tamper::LeakTensors => &["handles_bounded"],
        Tamper::ForgetSyncedEntry => &["journal_restores_what_existed"],
        Tamper::AppendTwice => &["journal_cut_anywhere_is_a_past"],
        Tamper::ForgetNodeIds => &["node_ids_are_never_used_twice"],
        Tamper::GrantExtraSlot => &["slots_never_exceeded"],
        // A node may hold three of other stages' states, and no more.
        Tamper::AskForFutureSaves | Tamper::KeepDroppedCopies => &["queues_bounded"],
        Tamper::LoseMicrobatch => &["each_microbatch_counted_once"],
        Tamper::CommitBeforeWrite => &["commit_is_journalled_first"],
        Tamper::RebuildOtherwise | Tamper::TeachOtherwise => &["recovery_is_the_configured_one"],
        Tamper::StepOtherwise => &["replicas_bitwise_equal"],
        Tamper::WriteInOldTerm => &["no_two_terms_commit"],
        // Nodes wait for each other's slots.
        Tamper::GiveLastSlot => &["waits_have_an_owner_and_an_end", "iterations_commit_when_faults_end"],
        // All leave someone waiting for an answer to what was never asked.
        Tamper::LoseBegin | Tamper::LoseCommit | Tamper::LosePlan => &["waits_have_an_owner_and_an_end"],
        Tamper::LoseWrite => &["iterations_commit_when_faults_end"],
        Tamper::KeepHole => &["every_stage_is_served_when_faults_end"],
        Tamper::MiscountLoss => &["sample_order_independent"],
        Tamper::CountLostOwner => &["fenced_nodes_never_count"],
        Tamper::VouchForUnstepped => &["nodes_one_step_apart"],
        Tamper::PublishOtherBits => &["published_state_is_committed"],
        Tamper::LoseSavedFile
        | Tamper::ResumeElsewhere
        | Tamper::ForgetRollback
        | Tamper::RollBackElsewhere => &["resume_goes_on_from_what_was_saved"],
        Tamper::SwapPaths => &["repair_keeps_the_planned_stages"],
        Tamper::CommitTwice | Tamper::ReadJournalEndOnly => &["committed_iterations_never_change"],
        Tamper::GiveUpEarly => &["one_origin_and_a_spare_suffice"],
        Tamper::HideNorm => &["poisoned_shares_never_count"],
        Tamper::ForgetNames => &["needed_states_are_kept"],
        Tamper::KeepStruckNode => &["struck_nodes_are_set_aside"],
        Tamper::CountGivenUp => &["given_up_microbatches_never_count"],
        Tamper::ForgetCopies | Tamper::LeaveOutSavedCopies => &["a_kept_copy_is_used"],
        Tamper::EchoShares => &["liars_are_found"],
        Tamper::DistortChecks => &["honest_nodes_are_never_set_aside_by_a_check"],
        Tamper::EndEarly | Tamper::LoseStop => &["runs_end_as_they_should"],
    }
}

#[test]
fn every_broken_rule_is_caught_by_its_invariant() {
    for tamper in Tamper::ALL {
        is_caught(tamper, guards(tamper));
    }
}
