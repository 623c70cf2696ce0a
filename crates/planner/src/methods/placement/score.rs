//! What the genetic search makes small.

use super::matching::Costs;
use super::tour::tour;
use crate::compiled::{CompiledInstance, MICROSECONDS};

/// A placement's worth: less is better, and keeping to the limit of the all-reduce comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    /// How far the all-reduce is above the instance's limit, microseconds.
    pub(super) excess_us: u64,
    /// The slowest transfer within a stage plus twice the cheapest tour over the stages, microseconds.
    pub(super) cost_us: i64,
}

/// Scores groups of nodes; the second result is the order in which they become stages.
pub(super) fn score(
    compiled: &CompiledInstance,
    groups: &[Vec<u32>],
    sizes: &[usize],
) -> (Score, Vec<usize>) {
    let stages = groups.len();
    let mut costs = vec![0; stages * stages];
    for a in 0..stages {
        for b in a + 1..stages {
            let (from, to) = (&groups[a], &groups[b]);
            let pair = |row: usize, column: usize| {
                let node = from[row] as usize;
                compiled.transfer_us(node, to[column] as usize) + compiled.forward[node]
            };
            let cost = Costs::new(from.len(), to.len(), pair).bottleneck();
            costs[a * stages + b] = cost;
            costs[b * stages + a] = cost;
        }
    }
    let (length, order) = tour(&costs, sizes);
    let within = groups.iter().map(|group| slowest_within(compiled, group)).max().unwrap_or(0);
    let excess_us = match compiled.instance().dp_allreduce_max_s.filter(|most| *most > 0.0) {
        Some(most) => ((compiled.allreduce_s(groups) - most).max(0.0) * MICROSECONDS).ceil() as u64,
        None => 0,
    };
    (Score { excess_us, cost_us: within as i64 + 2 * length }, order)
}

/// The slowest transfer between two nodes of a group.
fn slowest_within(compiled: &CompiledInstance, group: &[u32]) -> u64 {
    // Transfers depend on regions: one node of each will do, two where a region has two.
    let mut seen = vec![0_u8; compiled.regions];
    let few: Vec<usize> = group
        .iter()
        .map(|node| *node as usize)
        .filter(|node| {
            let count = &mut seen[compiled.region[*node] as usize];
            *count += u8::from(*count < 3);
            *count < 3
        })
        .collect();
    few.iter().flat_map(|a| few.iter().map(|b| compiled.transfer_us(*a, *b))).max().unwrap_or(0)
}
