//! A run ends when all iterations are committed and saved, every stage among them; it is given up only when the last origin is lost.

use super::{Invariant, Observation};
use crate::fault::truth::Truth;
use skipstone_protocol::{End, ToWorker};
use skipstone_types::{Iteration, NodeId, StageId};
use std::collections::BTreeSet;

/// See the file's name.
#[derive(Debug, Default)]
pub(super) struct RunsEndAsTheyShould {
    published: Option<(Iteration, usize)>,
    /// Who belongs to the run, and how many did when the last save was asked for: who comes later finds it under way.
    nodes: BTreeSet<NodeId>,
    nodes_at_save: usize,
    /// Whether someone asked to stop.
    asked: bool,
    /// Iterations committed since.
    since_asked: u64,
}

/// Iterations that may still be committed after a wish to stop: the one under way, and one whose paths are being found.
const LAST_ITERATIONS_MAX: u64 = 2;

impl Invariant for RunsEndAsTheyShould {
    fn name(&self) -> &'static str {
        "runs_end_as_they_should"
    }

    fn observe(&mut self, seen: &Observation<'_>, truth: &Truth) -> Result<(), String> {
        match seen {
            Observation::Published { iteration, stages } => {
                self.published = Some((*iteration, stages.len()));
            }
            Observation::Bound { node, .. } => drop(self.nodes.insert(*node)),
            Observation::Disconnected { node } => drop(self.nodes.remove(node)),
            Observation::Told { message: ToWorker::Save { .. }, .. } => self.nodes_at_save = self.nodes.len(),
            // Nodes say hello to each coordinator anew.
            Observation::Restored { .. } => self.nodes.clear(),
            Observation::Interrupted => (self.asked, self.since_asked) = (true, 0),
            Observation::BegunAnew => {
                self.asked = false;
                self.nodes.clear();
            }
            _ => {}
        }
        if self.asked && seen.committed().is_some() {
            self.since_asked += 1;
            if self.since_asked > LAST_ITERATIONS_MAX {
                return Err(format!(
                    "it was asked to stop, and has committed {} iterations since",
                    self.since_asked
                ));
            }
        }
        let Observation::Ended { end, bound } = seen else { return Ok(()) };
        let committed = truth.committed();
        match end {
            End::Done if committed != truth.settings.steps => {
                Err(format!("the run is done after {committed} of {} iterations", truth.settings.steps))
            }
            End::Done => {
                let stages = usize::from(truth.settings.relay_stages) + 1;
                let enough = truth.settings.respawn || self.nodes_at_save >= stages;
                match self.published {
                    Some((iteration, saved)) if iteration.0 == committed && (saved == stages || !enough) => {
                        Ok(())
                    }
                    published => Err(format!(
                        "{stages} stages, {} nodes, and the last state/ is {published:?}",
                        self.nodes_at_save
                    )),
                }
            }
            End::Stopped if !self.asked => Err("nobody asked to stop".to_owned()),
            End::Stopped => match self.published {
                Some((iteration, _)) if iteration.0 == committed => Ok(()),
                None if committed == 0 => Ok(()),
                published => {
                    Err(format!("stopped after {committed} iterations, and the last state/ is {published:?}"))
                }
            },
            End::Failed { why } => {
                let origin = bound.iter().find(|node| {
                    truth.held.get(node).is_some_and(|held| {
                        held.stage == StageId::ORIGIN
                            && held.iteration.0 == committed
                            && truth.state(held.stage, held.iteration) == Some(held.digest)
                    })
                });
                match origin {
                    Some(node) => Err(format!("given up while {node} serves the origin: {why}")),
                    None if why.contains("last origin") => Ok(()),
                    None => Err(format!("given up: {why}")),
                }
            }
        }
    }
}
