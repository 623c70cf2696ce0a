//! Instances drawn at random, for tests and benchmarks.

use crate::instance::{INSTANCE_SCHEMA, Instance, InstanceNode, Link, Quota, RegionLink, Regions, SwapRules};
use crate::random::Random;

/// The size of an instance to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrawnSize {
    /// Nodes, at least one for each stage.
    pub nodes: usize,
    /// Stages, the origin's included.
    pub stages: usize,
    /// Nodes on a path, at most `stages`.
    pub path_len: usize,
    /// Regions, at least one.
    pub regions: usize,
}

/// An instance of this size: a quarter more origins than nodes of a relay stage, speeds between half and double, links of
/// 0.01–0.3 s and 5–60 MB/s, three slots a node, six microbatches an origin, no more visits of a stage than an
/// equal share needs, and jumps that reach every choice of stages. The same numbers give the same instance on every machine.
pub fn draw_instance(size: DrawnSize, seed: u64) -> Instance {
    let DrawnSize { nodes, stages, path_len, regions } = size;
    let random = &mut Random::new(&[seed, nodes as u64, stages as u64, 0x6472_6177]);
    let unit = |random: &mut Random| random.below(1 << 20) as f64 / f64::from(1 << 20);
    let relays = stages - 1;
    let origins = if relays == 0 { nodes } else { (nodes * 5 / (5 + 4 * relays)).clamp(1, nodes - relays) };
    let left = nodes - origins;
    let sizes: Vec<u32> = std::iter::once(origins)
        .chain((0..relays).map(|relay| left / relays + usize::from(relay < left % relays)))
        .map(|size| size as u32)
        .collect();
    let total = 6 * origins as u32;
    let mut links = Vec::new();
    for a in 0..regions {
        for b in 0..a {
            links.push(RegionLink {
                a: format!("region-{a}"),
                b: format!("region-{b}"),
                link: Link::steady(0.01 + 0.29 * unit(random), 5.0e6 + 55.0e6 * unit(random)),
                back: None,
            });
        }
    }
    let drawn = (0..nodes).map(|id| InstanceNode {
        id: id as u32,
        region: format!("region-{}", random.below(regions)),
        compute_s_per_layer_sample: 0.0275 + 0.0825 * unit(random),
        memory: 3,
    });
    Instance {
        nodes: drawn.collect(),
        schema: INSTANCE_SCHEMA.to_owned(),
        name: format!("drawn-{nodes}-{stages}-{path_len}-{regions}-{seed}"),
        note: None,
        n_stages: stages as u32,
        stage_sizes: Some(sizes),
        layers_per_stage: 4,
        origin_layers: None,
        path_len: path_len as u32,
        skip_ratio: None,
        samples_per_mb: 8,
        activation_bytes_per_sample: 4_194_304.0,
        param_bytes_per_stage: 268_468_224.0,
        backward_ratio: 1.5,
        loss_ratio: 0.25,
        link_overhead_s: 0.35,
        task_gap_s: 0.0,
        link_serial: false,
        microbatches_per_origin: Quota::Each(6),
        total_microbatches: total,
        waves: None,
        edge_swaps: None,
        stage_visits_max: (relays > 0)
            .then(|| (total * (path_len as u32 - 1)).div_ceil(relays as u32).max(1)),
        dp_allreduce_max_s: None,
        swap: SwapRules { max_distance: 1, max_count: 2, max_total_distance: 2 },
        max_jump: (stages + 1).saturating_sub(path_len).max(4) as u32,
        regions: Regions { intra: Link::steady(0.001, 2.0e9), links },
    }
}
