//! The repair figure: the gradient of an iteration in which a node dies, against the same without the death.

use super::swarm::{Swarm, relative_difference, small};
use skipstone_protocol::End;
use skipstone_types::Event;
use skipstone_worlds::config::RunConfig;

/// Kills each process before each of its commands.
fn every_kill(config: &RunConfig, mut check: impl FnMut(&Swarm, usize, u32)) {
    let dir = tempfile::tempdir().unwrap();
    let calm = Swarm::new(config, None, dir.path().to_owned()).run();
    assert_eq!(calm.end, Some(End::Done));
    for process in 0..config.nodes() {
        for command in 0..calm.commands_of(process) {
            let dir = tempfile::tempdir().unwrap();
            let swarm = Swarm::new(config, Some((process, command)), dir.path().to_owned()).run();
            check(&swarm, process, command);
        }
    }
}

/// The first iteration of `swarm` whose gradients are not bit for bit those of `calm`: the largest relative
/// difference over its stages. (Later iterations start from weights that differ by this much already.)
fn first_difference(swarm: &Swarm, calm: &Swarm) -> f64 {
    for (record, other) in swarm.records().iter().zip(calm.records()) {
        let mut largest = 0.0_f64;
        let mut same = true;
        for (part, other) in record.stages.iter().zip(&other.stages) {
            same &= part.gradient == other.gradient;
            assert_eq!(part.microbatches(), other.microbatches());
            largest = largest
                .max(relative_difference(&swarm.gradients[&part.gradient], &calm.gradients[&other.gradient]));
        }
        if !same {
            return largest;
        }
    }
    0.0
}

#[test]
fn with_a_replica_alive_the_gradient_is_as_without_the_death() {
    let ordered = RunConfig { deterministic: true, slots: Some(1), ..small(2, 0, 2) };
    for config in [small(2, 0, 2), RunConfig { skip: 0.34, ..small(2, 1, 2) }, ordered] {
        let config = RunConfig { respawn: false, ..config };
        let dir = tempfile::tempdir().unwrap();
        let calm = Swarm::new(&config, None, dir.path().to_owned()).run();
        let (mut kills, mut moved, mut largest) = (0, 0, 0.0_f64);
        every_kill(&config, |swarm, process, command| {
            assert_eq!(swarm.end, Some(End::Done), "process {process}, command {command}");
            let difference = first_difference(swarm, &calm);
            assert!(difference <= 1e-6, "process {process}, command {command}: {difference:e}");
            kills += u32::from(swarm.killed);
            moved += u32::from(difference > 0.0);
            largest = largest.max(difference);
        });
        eprintln!("{kills} kills, {moved} changed bits, largest relative difference {largest:e}");
        assert!(kills > 100);
    }
}

#[test]
fn with_no_replica_alive_the_stage_is_rebuilt_and_the_run_ends_well() {
    let recovery = "checkfree".to_owned();
    let config = RunConfig { steps: 4, spares: 1, recovery, ..small(2, 0, 1) };
    let mut rebuilt = 0;
    every_kill(&config, |swarm, process, command| {
        let origin_lost = swarm
            .events
            .iter()
            .any(|event| matches!(event, Event::StageLost { stage, .. } if stage.is_origin()));
        if origin_lost {
            // Unless everything was committed and saved by then.
            let done = swarm.end == Some(End::Done) && swarm.records().len() == 4;
            assert!(
                done || matches!(swarm.end, Some(End::Failed { .. })),
                "process {process}, command {command}: {:?}",
                swarm.end
            );
            return;
        }
        assert_eq!(swarm.end, Some(End::Done), "process {process}, command {command}");
        assert_eq!(swarm.records().len(), 4);
        assert!(swarm.records().iter().all(|record| record.loss_sum.is_finite()));
        let again = |event: &Event| matches!(event, Event::StageRebuilt { kind, .. } if kind == "checkfree");
        rebuilt += u32::from(swarm.events.iter().any(again));
    });
    assert!(rebuilt > 20, "{rebuilt}");
}
