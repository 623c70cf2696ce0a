//! What the planner is told of a run's swarm.

use super::{TaskTimes, WanTable};
use crate::config::{ConfigError, RunConfig, RunShape};
use crate::cost::StageBytes;
use skipstone_planner::{RegionLink, Regions, StageCost, SwarmDescription, SwarmNode};
use skipstone_types::StageId;

/// Bytes of a number on the wire.
const VALUE_BYTES: f64 = 4.0;

/// Floating-point operations that a core does in a second, as long as nothing is measured: the first plan's guess.
const OPERATIONS_PER_S: f64 = 2e10;

/// Regions, links and costs of a run on shaped links. The node with the n-th id is taken for the one at the n-th place;
/// where each is, the coordinator learns from its name.
///
/// # Errors
/// Options that can't work.
pub fn describe(
    config: &RunConfig,
    shape: &RunShape,
    table: &WanTable,
) -> Result<SwarmDescription, ConfigError> {
    let settings = config.settings()?;
    let parameters = |stage| shape.parameters(StageId(stage)) as f64;
    let guess_s = 2.0 * parameters(1) * shape.tokens() as f64 / OPERATIONS_PER_S;
    let origin = config.origin_layers as f64 / shape.relay_layers.max(1) as f64;
    let times = |place| -> Result<TaskTimes, ConfigError> {
        let paced = TaskTimes::of_run(config, Some(table), place)?;
        Ok(paced.unwrap_or_else(|| TaskTimes::new(guess_s, origin, Some(table))))
    };
    let seconds = |us: u64| us.max(1) as f64 / 1e6;
    let first = times(0)?;
    let names = table.names();
    let mut nodes = Vec::with_capacity(config.nodes());
    for place in 0..config.nodes() {
        nodes.push(SwarmNode {
            region: names[usize::from(table.region_of(place))].clone(),
            slowness: seconds(times(place)?.forward_us) / seconds(first.forward_us),
        });
    }
    let mut links = Vec::with_capacity(names.len() * names.len() / 2);
    for a in 0..names.len() as u16 {
        for b in 0..a {
            let name = |region: u16| names[usize::from(region)].clone();
            links.push(RegionLink::both(name(a), name(b), table.link(a, b), table.link(b, a)));
        }
    }
    let closing_s = |stage| StageBytes::of(parameters(stage)).closing_s();
    Ok(SwarmDescription {
        regions: Regions { intra: table.link(0, 0), links },
        nodes,
        relay: StageCost {
            forward_s: seconds(first.forward_us),
            loss_s: 0.0,
            backward_s: seconds(first.backward_us),
            closing_s: closing_s(1),
        },
        origin: StageCost {
            forward_s: seconds(first.embed_us),
            loss_s: seconds(first.loss_us),
            backward_s: seconds(first.embed_backward_us),
            closing_s: closing_s(0),
        },
        activation_bytes: config.wire.share()
            * VALUE_BYTES
            * shape.tokens() as f64
            * shape.model.hidden_size as f64,
        gradient_bytes: config.reduce.share() * VALUE_BYTES * parameters(1),
        origin_gradient_bytes: Some(config.reduce.share() * VALUE_BYTES * parameters(0)),
        link_overhead_s: table.overhead_s,
        slots: settings.slots,
        coordinator: Some(names[usize::from(table.coordinator())].clone()),
        moved: std::collections::BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_planner::SwarmChooser;

    #[test]
    fn a_run_over_cloud_regions_can_be_planned_for() {
        let config = RunConfig {
            wan: Some("gcp12".to_owned()),
            pace: Some(0.5),
            stages: 4,
            replicas: 3,
            tokenizer: "bytes".to_owned(),
            ..RunConfig::default()
        };
        let table = config.wan_table().expect("built in").expect("asked for");
        let shape = config.shape_expected().expect("a model");
        let swarm = describe(&config, &shape, &table).expect("a run");
        assert_eq!(swarm.nodes.len(), 15);
        assert_eq!((swarm.relay.forward_s, swarm.relay.backward_s), (0.5, 1.0));
        assert_eq!(swarm.nodes[13].region, table.names()[1], "round again past the end");
        assert!(swarm.gradient_bytes > 0.0 && swarm.slots > 0);
        let origin = swarm.origin_gradient_bytes.expect("the origin's differ");
        assert!((origin - swarm.gradient_bytes).abs() > 0.0);
        SwarmChooser::new(swarm).expect("a description");
    }
}
