//! What a configuration takes when the state machines carry it out: paths that change from iteration to iteration, searched in
//! the time that training has for it.

use super::node_list::NodeList;
use super::predict::Fitted;
use crate::config::RunConfig;
use crate::cost::{CostModel, SimulateError, simulate};
use crate::wan::{TaskTimes, WanTable};
use serde_json::json;
use skipstone_planner::SwarmDescription;
use skipstone_types::Settings;

/// Iterations that are simulated; the first is not counted.
const ITERATIONS: u64 = 13;

impl Fitted {
    /// Seconds of an iteration, the mean of some, as `skipstone simulate` tells of such a run. None where memory decides which node
    /// may serve what, which a run does not know when it places its nodes.
    ///
    /// # Errors
    /// A run that can't go on.
    pub(super) fn rehearse(&self, list: &NodeList) -> Result<Option<f64>, SimulateError> {
        if !self.all_alike() {
            return Ok(None);
        }
        // Sizes of tensors are the run's; times and links are the list's.
        let paced = Some(1.0);
        let config =
            RunConfig { steps: ITERATIONS, wan: None, links: None, pace: paced, ..self.config.clone() };
        let swarm = self.describe(list)?;
        let model = CostModel::of_run(&config)?;
        let model = CostModel {
            settings: Settings { places: true, ..model.settings },
            network: table(list, &swarm)?,
            times: (0..list.nodes.len()).map(|place| times(&swarm, place)).collect(),
            swarm: Some(swarm),
            ..model
        };
        Ok(Some(simulate(model, &mut |_| {})?.iteration.mean_s))
    }
}

/// The list's regions and links, with the nodes in their order.
fn table(list: &NodeList, swarm: &SwarmDescription) -> Result<WanTable, SimulateError> {
    let regions: Vec<&str> = list.nodes.iter().map(|node| node.region.as_str()).collect();
    let text = json!({
        "regions": list.regions,
        "node_regions": regions,
        "coordinator_region": swarm.coordinator,
        "link_overhead_s": list.link_overhead_s,
    });
    WanTable::from_json(&text.to_string()).map_err(|why| SimulateError::Bug(why.to_string()))
}

/// Times of a node's tasks: those of the fastest, as many times longer as it is slower.
fn times(swarm: &SwarmDescription, place: usize) -> TaskTimes {
    let slowness = swarm.nodes[place].slowness;
    let us = |seconds: f64| (slowness * seconds * 1e6).round() as u64;
    TaskTimes {
        forward_us: us(swarm.relay.forward_s),
        backward_us: us(swarm.relay.backward_s),
        embed_us: us(swarm.origin.forward_s),
        embed_backward_us: us(swarm.origin.backward_s),
        loss_us: us(swarm.origin.loss_s),
        sequences: 1,
    }
}
