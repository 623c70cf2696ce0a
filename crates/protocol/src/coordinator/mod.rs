//! The coordinator.
use crate::command::{CoordinatorCommand, CoordinatorInput};
use crate::journal::Entry;
use skipstone_types::{Iteration, Settings};

/// The coordinator of a run.
#[derive(Debug)]
pub struct Coordinator {}

impl Coordinator {
    /// Takes over the run that `journal` tells of (empty: a new run). `resume` starts from `state/` at that
    /// iteration: given by whoever started `--resume`, on every start of a coordinator of that invocation.
    /// The first commands journal the new term.
    pub fn open(
        _settings: Settings,
        _journal: &[Entry],
        _resume: Option<Iteration>,
        _now_us: u64,
    ) -> (Self, Vec<CoordinatorCommand>) {
        (Self {}, Vec::new())
    }
    /// The term, for envelopes.
    pub fn term(&self) -> skipstone_types::Term {
        skipstone_types::Term(0)
    }
    /// Takes an input at a time in microseconds (monotonic); answers with commands, to be carried out in order.
    pub fn on(&mut self, _input: CoordinatorInput, _now_us: u64) -> Vec<CoordinatorCommand> {
        Vec::new()
    }
}
