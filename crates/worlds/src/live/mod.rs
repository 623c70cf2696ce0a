//! The live world: real processes, real tensors, loopback TCP; with the feature `iroh` nodes on other machines too (`remote`).
//!
//! The parent ([`run`]) only supervises. Its direct children are a coordinator ([`run_coordinator`]) and nodes
//! ([`run_node`]), each the same executable under a hidden subcommand, told what to do on the first line of stdin (the
//! run secret among it, which is therefore neither in arguments nor in the environment). Children end when that pipe does.
//!
//! In a node, one thread runs the worker core and owns the tensors ([`store::TensorStore`]), one computes
//! ([`store::Engine`]), one writes states to the disk ([`store::StateWriter`]), and the transport's threads move bytes and heartbeats.

mod address;
pub mod chaos;
mod control;
mod coordinator;
mod desk;
mod door;
pub mod folder;
mod health;
pub mod inputs_file;
pub mod journal_file;
mod liars;
mod node;
mod offsite;
mod pacer;
mod plan_file;
mod planner;
pub mod publish;
mod refusals;
#[cfg(feature = "iroh")]
pub mod remote;
mod reporter;
mod roll;
mod signals;
mod spawner;
mod start;
pub mod store;
pub(crate) mod supervisor;

pub use coordinator::run_coordinator;
pub use health::HealthError;
pub use node::run_node;
pub use offsite::fetch_run;
pub use supervisor::{
    ChaosPlan, ChaosTrace, Ended, Fault, Kill, KillScript, ListenOptions, MemorySample, RunError, RunOptions,
    RunOutcome, Target, When, run,
};

/// A line on stderr, which of a child is its log. A disk that is full must not end the process, as `eprintln!` would.
pub(crate) fn say(line: &dyn std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
