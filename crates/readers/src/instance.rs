//! The planner's instance (`skipstone-planner`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, within};
use skipstone_planner::{
    CompiledInstance, EdgeSwaps, INSTANCE_SCHEMA, Instance, InstanceNode, Link, Quota, RegionLink, Regions,
    SwapRules,
};

/// The largest field of the text is a node's, which takes less than 32 times its bytes while a list grows.
fn memory_max(input: usize) -> usize {
    (256 << 10) + 64 * input
}

pub(crate) const READER: Reader = Reader {
    name: "instance",
    what: "INSTANCE.json of `skipstone plan`",
    text: true,
    memory_max,
    read,
    mend: None,
    seeds,
};

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        // Files are read as text: what is not UTF-8 is refused before the reader.
        return refused("not UTF-8");
    };
    let instance = match within(memory_max(bytes.len()), bytes, || {
        let instance = Instance::from_json(text)?;
        CompiledInstance::new(&instance).map(|_| instance)
    })? {
        Ok(instance) => instance,
        Err(why) => return refused(why),
    };
    let once = serde_json::to_string(&instance).map_err(lost)?;
    same(&instance, &Instance::from_json(&once).map_err(lost)?)
}

/// Two regions, three stages, microbatches that skip one.
pub(crate) fn small() -> Instance {
    let node = |id: u32| InstanceNode {
        id,
        region: if id.is_multiple_of(2) { "east" } else { "west" }.to_owned(),
        compute_s_per_layer_sample: 0.25,
        memory: 3,
    };
    let link = |latency_s| Link::steady(latency_s, 1.0e8);
    Instance {
        schema: INSTANCE_SCHEMA.to_owned(),
        name: "small".to_owned(),
        note: None,
        n_stages: 3,
        stage_sizes: Some(vec![2, 2, 2]),
        layers_per_stage: 2,
        origin_layers: None,
        path_len: 2,
        skip_ratio: Some(0.25),
        samples_per_mb: 1,
        activation_bytes_per_sample: 1.0e6,
        param_bytes_per_stage: 1.0e7,
        backward_ratio: 2.0,
        loss_ratio: 0.5,
        link_overhead_s: 0.0,
        task_gap_s: 0.0,
        link_serial: true,
        microbatches_per_origin: Quota::Each(2),
        total_microbatches: 4,
        waves: None,
        edge_swaps: None,
        stage_visits_max: Some(4),
        dp_allreduce_max_s: None,
        swap: SwapRules { max_distance: 1, max_count: 1, max_total_distance: 1 },
        max_jump: 2,
        regions: Regions {
            intra: link(0.0005),
            links: vec![RegionLink {
                a: "east".to_owned(),
                b: "west".to_owned(),
                link: link(0.03),
                back: None,
            }],
        },
        nodes: (0..6).map(node).collect(),
    }
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let every_field = Instance {
        note: Some("a remark".to_owned()),
        origin_layers: Some(1),
        waves: Some(1.0),
        edge_swaps: Some(EdgeSwaps::Odd),
        dp_allreduce_max_s: Some(9.0),
        microbatches_per_origin: Quota::List(vec![1, 3]),
        ..small()
    };
    let free = Instance { stage_sizes: None, skip_ratio: None, stage_visits_max: None, ..small() };
    [("small", small()), ("every-field", every_field), ("free-sizes", free)]
        .into_iter()
        .map(|(name, instance)| Ok((name.to_owned(), serde_json::to_vec_pretty(&instance)?)))
        .collect()
}
