//! A run computed again from its journal, whatever happened in it.

use super::swarm::{Swarm, VOCABULARY, engine_setup, feed, small};
use skipstone_protocol::{Addition, CommitRecord, End, Entry};
use skipstone_types::{Digest, Iteration, NodeId, StageId};
use skipstone_worlds::config::RunConfig;
use skipstone_worlds::replay::{ReplayError, ReplayReport, ReplaySource, replay};
use std::path::PathBuf;

fn again(config: &RunConfig, entries: &[Entry], swarm: &Swarm) -> Result<ReplayReport, ReplayError> {
    let shape = config.shape(VOCABULARY).unwrap();
    let source = ReplaySource {
        entries,
        saved: swarm.published.as_ref(),
        setup: engine_setup(config, &shape, PathBuf::new()),
        feed: Some(feed(config)),
    };
    replay(&source, &mut |_, _| ())
}

/// Runs once for every so many commands of every process, with that process killed before that command.
fn kills(config: &RunConfig, every: usize, mut check: impl FnMut(&Swarm)) {
    let dir = tempfile::tempdir().unwrap();
    let calm = Swarm::new(config, None, dir.path().to_owned()).run();
    assert_eq!(calm.end, Some(End::Done));
    check(&calm);
    for process in 0..config.nodes() {
        for command in (0..calm.commands_of(process)).step_by(every) {
            let dir = tempfile::tempdir().unwrap();
            check(&Swarm::new(config, Some((process, command)), dir.path().to_owned()).run());
        }
    }
}

#[test]
fn every_bit_comes_out_again_after_repairs() {
    let config = RunConfig { skip: 0.34, respawn: false, ..small(2, 1, 2) };
    let (mut repaired, mut interleaved) = (0, 0);
    kills(&config, 7, |swarm| {
        let report = again(&config, &swarm.journal, swarm).unwrap();
        assert_eq!((report.records, report.iteration), (2, Iteration(2)));
        assert!(report.saved_state_checked && report.states > 8 && report.gradients >= 4, "{report:?}");
        repaired += usize::from(swarm.killed);
        let origin = &swarm.records()[0].stages[0].shares;
        let in_turns = |additions: Vec<Addition>| {
            let first_backward = additions.iter().position(|added| matches!(added, Addition::Backward(_)));
            let last_loss = additions.iter().rposition(|added| matches!(added, Addition::Loss(_)));
            first_backward < last_loss
        };
        interleaved += origin.iter().filter(|share| in_turns(share.additions().unwrap())).count();
    });
    assert!(repaired > 20 && interleaved > 4, "{repaired} {interleaved}");
}

#[test]
fn every_bit_comes_out_again_after_rebuilds() {
    let recovery = "checkfree".to_owned();
    let config = RunConfig { steps: 4, spares: 1, recovery, ..small(3, 0, 1) };
    let swapped = RunConfig { recovery: "checkfree+".to_owned(), ..config.clone() };
    for config in [config, swapped] {
        let (mut rebuilt, mut went_back) = (0, 0);
        kills(&config, 11, |swarm| {
            let report = again(&config, &swarm.journal, swarm).unwrap();
            rebuilt += report.rebuilds;
            assert_eq!(report.records as usize, swarm.records().len());
            assert_eq!(report.saved_state_checked, swarm.published.is_some());
            let records = swarm.records();
            let paths = records.iter().flat_map(|record| &record.paths);
            went_back += paths.filter(|path| !path.0.is_sorted_by_key(|visit| visit.stage)).count();
        });
        assert!(rebuilt > 10, "{rebuilt}");
        assert_eq!(went_back > 0, config.recovery == "checkfree+");
    }
}

#[test]
fn every_bit_comes_out_again_after_stages_learned_from_their_neighbours() {
    let recovery = "match:steps=3,kept=2".to_owned();
    let config = RunConfig { steps: 4, spares: 1, recovery, ..small(3, 0, 1) };
    let (mut learned, mut lessons) = (0, 0);
    kills(&config, 11, |swarm| {
        let report = again(&config, &swarm.journal, swarm).unwrap();
        assert_eq!(report.records as usize, swarm.records().len());
        let rebuilds = swarm.journal.iter().filter_map(|entry| match entry {
            Entry::Rebuilt(rebuild) => Some(rebuild.recipe.lessons().len()),
            _ => None,
        });
        for count in rebuilds.filter(|count| *count > 0) {
            learned += 1;
            lessons += count;
        }
    });
    assert!(learned > 10 && lessons > learned, "{learned} stages, {lessons} lessons");
}

/// Two of five microbatches meet the other three at the nodes of stages 1 and 2, in two slots.
#[test]
fn every_bit_comes_out_again_after_repairs_of_swapped_paths() {
    let swapped = Some(skipstone_types::EdgeSwaps::Odd);
    let config = RunConfig { edge_swaps: swapped, slots: Some(2), respawn: false, ..small(2, 0, 2) };
    let mut repaired = 0;
    kills(&config, 7, |swarm| {
        assert_eq!(swarm.end, Some(End::Done));
        let report = again(&config, &swarm.journal, swarm).unwrap();
        assert!(report.records == 2 && report.saved_state_checked, "{report:?}");
        repaired += usize::from(swarm.killed);
        for record in swarm.records() {
            let stages = |microbatch: usize| {
                let path = &record.paths[microbatch].0;
                path.iter().map(|visit| visit.stage.0).collect::<Vec<_>>()
            };
            assert_eq!((stages(0), stages(1), stages(3)), (vec![0, 1, 2], vec![0, 2, 1], vec![0, 2, 1]));
        }
    });
    assert!(repaired > 20, "{repaired}");
}

#[test]
fn every_bit_comes_out_again_after_stages_were_restored_from_copies() {
    for (dtype, every_nth) in [("f32", 5), ("bf16", 17), ("int8", 17)] {
        let recovery = format!("neighbour-snapshot:every=1,dtype={dtype}");
        let config = RunConfig { steps: 5, spares: 1, recovery, ..small(2, 0, 1) };
        let (mut restored, mut origins) = (0, 0);
        kills(&config, every_nth, |swarm| {
            let report = again(&config, &swarm.journal, swarm).unwrap();
            assert_eq!(report.records as usize, swarm.records().len());
            let rebuilds = swarm.journal.iter().filter_map(|entry| match entry {
                Entry::Rebuilt(rebuild) if rebuild.recipe.restores(rebuild.stage) => Some(rebuild.stage),
                _ => None,
            });
            for stage in rebuilds {
                restored += 1;
                origins += usize::from(stage.is_origin());
                assert_eq!(swarm.end, Some(End::Done));
            }
        });
        assert!(restored > 5 && origins > 1, "{dtype}: {restored} stages, {origins} of them the last origin");
    }
}

#[test]
fn every_bit_comes_out_again_after_rollbacks() {
    let recovery = "checkpoint:every=2".to_owned();
    let config = RunConfig { steps: 5, spares: 1, recovery, ..small(2, 0, 1) };
    let mut rollbacks = 0;
    kills(&config, 5, |swarm| {
        let report = again(&config, &swarm.journal, swarm).unwrap();
        assert_eq!(report.records as usize, swarm.records().len());
        if report.rollbacks > 0 {
            assert_eq!((&swarm.end, report.iteration), (&Some(End::Done), Iteration(5)));
        }
        rollbacks += report.rollbacks;
    });
    assert!(rollbacks > 10, "{rollbacks}");
}

#[test]
fn a_journal_that_was_changed_is_refused_with_the_place() {
    let config = small(2, 1, 2);
    let dir = tempfile::tempdir().unwrap();
    let swarm = Swarm::new(&config, None, dir.path().to_owned()).run();
    assert!(again(&config, &swarm.journal, &swarm).is_ok());
    let tamper = |iteration: u64, change: &dyn Fn(&mut CommitRecord)| {
        let mut entries = swarm.journal.clone();
        let mut previous = Digest::default();
        for entry in &mut entries {
            if let Entry::Committed(record) = entry {
                if record.iteration.0 == iteration {
                    change(record);
                }
                // As one would who knows about the chain.
                record.previous = previous;
                previous = record.digest();
            }
        }
        let error = again(&config, &entries, &swarm).unwrap_err();
        (error.place(), error.to_string())
    };
    let at = |iteration, stage| Some((Iteration(iteration), StageId(stage)));
    let (place, text) = tamper(1, &|record| record.stages[1].gradient.0[0] ^= 1);
    assert_eq!(place, at(1, 1));
    assert!(text.contains("iteration 1, stage 1: the gradient differs"), "{text}");
    let (place, text) = tamper(0, &|record| record.learning_rate *= 1.5);
    assert_eq!(place, at(1, 0), "the weights after iteration 0 differ");
    assert!(text.contains("the state before the step differs"), "{text}");
    let (place, _) = tamper(1, &|record| record.learning_rate *= 1.5);
    assert_eq!(place, at(2, 0), "the last step is checked against state/");
    let (place, text) = tamper(0, &|record| record.loss_sum += 1.0);
    assert_eq!(place, at(0, 0));
    assert!(text.contains("the loss differs"), "{text}");
    let (place, text) = tamper(0, &|record| _ = record.stages[2].shares[0].microbatches.pop());
    assert_eq!(place.map(|(iteration, _)| iteration), Some(Iteration(0)));
    assert!(text.contains("can't be right"), "{text}");
    let (place, _) = tamper(0, &|record| record.stages[0].shares[0].losses[0].place = 99);
    assert_eq!(place, at(0, 0));
    let (_, text) = tamper(0, &|record| {
        let share = &mut record.stages[1].shares[0];
        let stranger = share.microbatches[0];
        share.microbatches.push(stranger);
    });
    assert!(text.contains("never comes"), "{text}");
    let (place, _) = tamper(1, &|record| record.stages[1].lineage = 1);
    assert_eq!(place, at(1, 1));
    let (place, text) = tamper(0, &|record| record.iteration = Iteration(5));
    assert_eq!(place, None);
    assert!(text.contains("missing or out of order"), "{text}");
    let mut entries = swarm.journal.clone();
    if let Some(Entry::Committed(record)) = entries.last_mut() {
        record.previous = Digest([1; 32]);
    }
    assert!(matches!(again(&config, &entries, &swarm), Err(ReplayError::Chain { .. })));
}

/// Addition is not associative: what the record says of the order is needed.
#[test]
fn the_order_of_addition_matters() {
    let config = RunConfig { microbatches: 6, ..small(2, 0, 1) };
    let dir = tempfile::tempdir().unwrap();
    let swarm = Swarm::new(&config, None, dir.path().to_owned()).run();
    let mut refused = 0;
    for stage in 0..3 {
        let mut entries = swarm.journal.clone();
        let Some(Entry::Committed(record)) =
            entries.iter_mut().find(|entry| matches!(entry, Entry::Committed(_)))
        else {
            panic!("nothing was committed")
        };
        let share = &mut record.stages[stage].shares[0];
        assert_ne!(share.node, NodeId(0));
        let last = share.microbatches.len() - 1;
        share.microbatches.swap(last, 0);
        share.losses.iter_mut().zip(0..).for_each(|(loss, place)| loss.place = place);
        refused += u32::from(again(&config, &entries, &swarm).is_err());
    }
    assert_eq!(refused, 3);
}
