//! Exact evaluation of plans: one training iteration, event by event, in integer microseconds.

mod evaluation;
mod links;
mod schedule;
mod simulator;
mod tournament;
mod trace;
mod turns;

pub use evaluation::{Evaluation, evaluate};
pub(crate) use schedule::{NONE, Schedule};
pub(crate) use simulator::{CostWeights, Simulator, Verdict, Watch};
pub use trace::{MemoryWait, TaskInterval, Trace, TransferInterval};
