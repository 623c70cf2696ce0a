//! What a failure domain takes with it.

use crate::compiled::CompiledInstance;

/// How many stages lose all their nodes with one region, and how many pairs of adjacent stages lose them together: what
/// CheckFree (arXiv 2506.15461) can't rebuild from both sides, or not at all. Interruptions come in groups, and a region is
/// what is known of them.
pub fn lost_with_a_region(compiled: &CompiledInstance, stages: &[Vec<u32>]) -> u32 {
    let only = |nodes: &Vec<u32>| {
        let region = compiled.region[*nodes.first()? as usize];
        nodes.iter().all(|node| compiled.region[*node as usize] == region).then_some(region)
    };
    let (mut lost, mut before) = (0, None);
    for nodes in stages {
        let region = only(nodes);
        lost += u32::from(region.is_some()) + u32::from(region.is_some() && region == before);
        before = region;
    }
    lost
}
