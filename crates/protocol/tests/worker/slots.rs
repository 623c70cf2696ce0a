//! Which microbatches may take a free slot.

use super::*;

/// How many of three microbatches, of which two go back from here, begin before any has ended; the last to come goes up.
fn begun(edge_swaps: EdgeSwaps, slots: u32) -> Vec<u32> {
    let mut bench = Bench::serving_with(Box::new(Settings { slots, edge_swaps, ..*settings() }));
    let duties =
        (0..3).map(|microbatch| Duty { goes_back: microbatch < 2, ..duty(microbatch, AFTER) }).collect();
    bench.told(ToWorker::Begin { iteration: T, attempt: Attempt(1), duties, addresses: vec![] });
    let mut begun = Vec::new();
    let mut note = |commands: Vec<WorkerCommand>| {
        commands.into_iter().find_map(|command| match command {
            WorkerCommand::Compute { id, task: Task::Forward { microbatch }, .. } => {
                begun.push(microbatch.0);
                Some(id.0)
            }
            _ => None,
        })
    };
    for microbatch in 0..3 {
        let message = ToPeer::Boundary {
            iteration: T,
            attempt: Attempt(1),
            microbatch: Microbatch(microbatch),
            stage: STAGE,
            direction: Direction::Forward,
        };
        let payload = Some(Handle(X + u64::from(microbatch)));
        let mut computes = note(bench.on(WorkerInput::Peer { from: BEFORE, message, payload, began_us: 0 }));
        while let Some(id) = computes {
            computes = note(bench.done(id, Outcome::Done));
        }
    }
    begun
}

#[test]
fn paths_that_go_back_leave_a_slot() {
    assert_eq!(begun(EdgeSwaps::Odd, 2), [0, 2], "the last slot is not for one that goes back");
    assert_eq!(begun(EdgeSwaps::Odd, 3), [0, 1, 2]);
    assert_eq!(begun(EdgeSwaps::Off, 2), [0, 1], "without swaps the first to come have them");
}
