//! When an iteration is committed, every member of its record holds the state that it started from.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;

/// See the file's name.
#[derive(Debug)]
pub(super) struct NodesOneStepApart;

impl Invariant for NodesOneStepApart {
    fn name(&self) -> &'static str {
        "nodes_one_step_apart"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        let Some(record) = seen.committed() else { return Ok(()) };
        for part in &record.stages {
            for node in &part.members {
                let held =
                    truth.held.get(node).ok_or_else(|| format!("{node} is a member and holds nothing"))?;
                if held.stage != part.stage || held.iteration < record.iteration {
                    return Err(format!("{} is committed while {node} holds {held:?}", record.iteration));
                }
            }
        }
        Ok(())
    }
}
