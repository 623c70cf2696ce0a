//! What happened around an iteration.
use crate::{RunInfo, RunState};
use skipstone_types::{EventRecord, Iteration};
/// todo
pub fn explain(_info: &RunInfo, _events: &[EventRecord], _iteration: Iteration) -> String {
    let _ = RunState::default();
    String::new()
}
