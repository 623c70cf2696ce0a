//! The fault simulation: the protocol's cores in virtual time, with everything going wrong that can, by seed.
//!
//! A seed is a whole run: its settings, machines, network and faults ([`FaultPlan`]). The same
//! [`Worker`](skipstone_protocol::Worker) and [`Coordinator`](skipstone_protocol::Coordinator) as in a live run are
//! driven; only tensors are symbolic: each is the hash of how it was made, so that an oracle can tell without
//! arithmetic what a committed gradient must be, and that replicas hold the same bits. What must hold is in
//! `invariants/`, one file a promise.

mod chaos;
pub(crate) mod compute;
mod disk;
pub(crate) mod folder;
mod hub;
mod invariants;
mod invocation;
mod kinds;
mod lies;
mod links;
mod node;
mod outages;
mod plan;
pub(crate) mod provenance;
pub(crate) mod queue;
mod random;
mod report;
mod seeds;
mod slow;
pub(crate) mod store;
mod tamper;
mod truth;
pub(crate) mod value;
mod weather;
mod wiring;
mod world;

pub use kinds::{Fault, FaultSet, UnknownFault};
pub use plan::{FaultPlan, Tempo};
pub use report::{Report, SeedsReport, Violation};
pub use seeds::run_seeds;
pub use tamper::Tamper;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is simulated, besides the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Nodes at the start; by default up to 23, as the seed says.
    pub nodes: Option<usize>,
    /// Iterations of each run, at least 8.
    pub iterations: u64,
    /// Faults that may happen.
    pub faults: FaultSet,
    /// A rule to break on purpose.
    pub tamper: Option<Tamper>,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: None, iterations: 50, faults: FaultSet::ALL, tamper: None }
    }
}

/// Simulates a seed.
///
/// # Errors
/// The first promise that was broken.
pub fn simulate(seed: u64, options: &Options) -> Result<Report, Box<Violation>> {
    run(seed, options, false)
}

/// Simulates a seed, and keeps what happened before a promise was broken.
///
/// # Errors
/// The first promise that was broken, with a trace and the state of the cores.
pub fn simulate_traced(seed: u64, options: &Options) -> Result<Report, Box<Violation>> {
    run(seed, options, true)
}

fn run(seed: u64, options: &Options, traced: bool) -> Result<Report, Box<Violation>> {
    let plan = FaultPlan::new(seed, options);
    let world = world::World::new(plan, options.tamper, traced);
    let nodes = options.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
    let (iterations, faults) = (options.iterations, options.faults);
    let command = format!(
        "skipstone simulate --faults {faults} --seeds {seed}..{seed}{nodes} --iterations {iterations}"
    );
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    outcome
        .unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Err(Box::new(Violation {
                seed,
                invariant: "cores_never_panic".to_owned(),
                what: text.to_owned(),
                at_us: 0,
                reproduce: String::new(),
                trace: Vec::new(),
                dump: String::new(),
            }))
        })
        .map_err(|violation| Box::new(Violation { reproduce: command, ..*violation }))
}
