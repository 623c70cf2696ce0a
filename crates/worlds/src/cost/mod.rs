//! What a run will take: the state machines that train ([`skipstone_protocol::Worker`], [`skipstone_protocol::Coordinator`]) in
//! virtual time, with modelled compute, links and memory.
//!
//! Tensors are the symbolic ones of the fault simulation, so that every digest is what it would be, or, in the lab
//! ([`crate::lab`]), real ones; what they cost is said by a [`CostModel`]. Nodes are killed by the very code that kills them live, and what the run took is counted by the same
//! fold over the same events. A run is a function of its model: same seed, same result.

mod error;
mod fixed;
mod hub;
mod model;
mod node;
mod report;
mod tensors;
mod watcher;
mod wires;
mod world;

pub use error::SimulateError;
pub use fixed::{SimulatedPlan, simulate_plan};
pub use model::{CostModel, Paths, StageBytes, Tempo};
pub use report::{IterationTimes, Simulated};
pub use tensors::Numbers;
pub use watcher::{Seen, Watcher};

/// Simulates the run; `progress` hears how many iterations are committed.
///
/// # Errors
/// A run that can't go on, or that comes to a standstill.
pub fn simulate(model: CostModel, progress: &mut dyn FnMut(u64)) -> Result<Simulated, SimulateError> {
    world::World::new(model)?.run(&mut watcher::Progress(progress))
}

/// The same, before the eyes of a watcher.
///
/// # Errors
/// As [`simulate`], and those of the watcher.
pub fn watch(model: CostModel, watcher: &mut dyn Watcher) -> Result<Simulated, SimulateError> {
    world::World::new(model)?.run(watcher)
}

#[cfg(test)]
mod tests;
