//! Whose shares were refused before: remembered across a node's names, so that neither a cut link nor another coordinator
//! clears it.

use skipstone_types::{Iteration, NodeId};
use std::collections::BTreeMap;

/// Strikes older than this are forgotten.
pub(super) const STRIKE_ITERATIONS: u64 = 200;

/// Nodes whose strikes are remembered; of more, those struck longest ago are forgotten.
pub(super) const STRUCK_NODES_MAX: usize = 1024;

/// A node with so many strikes is set aside. More are not remembered of any.
pub(super) const STRIKES_MAX: u32 = 3;

/// Iterations in which a node's share was refused, and another's of the same was not, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Strikes(BTreeMap<NodeId, Vec<Iteration>>);

impl Strikes {
    /// A node has one more; how many it has now.
    pub(super) fn add(&mut self, node: NodeId, iteration: Iteration) -> u32 {
        let strikes = self.0.entry(node).or_default();
        strikes.push(iteration);
        strikes.drain(..strikes.len().saturating_sub(STRIKES_MAX as usize));
        self.forget_before(iteration);
        self.0.get(&node).map_or(0, Vec::len) as u32
    }

    /// A node that had these names is called otherwise now; gives its strikes.
    pub(super) fn rename(&mut self, names: impl IntoIterator<Item = NodeId>, now: NodeId) -> &[Iteration] {
        let mut strikes: Vec<_> =
            names.into_iter().filter_map(|name| self.0.remove(&name)).flatten().collect();
        // A journal may tell of one strike under several names.
        strikes.sort_unstable();
        strikes.dedup();
        strikes.drain(..strikes.len().saturating_sub(STRIKES_MAX as usize));
        if strikes.is_empty() {
            return &[];
        }
        self.0.entry(now).or_insert(strikes)
    }

    fn forget_before(&mut self, iteration: Iteration) {
        self.0.retain(|_, strikes| {
            strikes.retain(|strike| strike.0 + STRIKE_ITERATIONS > iteration.0);
            !strikes.is_empty()
        });
        while self.0.len() > STRUCK_NODES_MAX {
            let oldest = self.0.iter().min_by_key(|(node, strikes)| (strikes.last().copied(), **node));
            let Some(oldest) = oldest.map(|(node, _)| *node) else { return };
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_follow_a_node_through_its_names_and_are_forgotten_in_time() {
        let mut strikes = Strikes::default();
        assert_eq!(strikes.add(NodeId(3), Iteration(5)), 1);
        assert_eq!(strikes.add(NodeId(7), Iteration(9)), 1);
        let both = [Iteration(5), Iteration(9)];
        assert_eq!(strikes.rename([NodeId(3), NodeId(7), NodeId(8)], NodeId(70)), both);
        assert_eq!(strikes.add(NodeId(70), Iteration(10)), 3);
        assert_eq!(strikes.add(NodeId(3), Iteration(10)), 1, "a new node may not inherit an old one's");
        assert_eq!(strikes.add(NodeId(70), Iteration(5 + STRIKE_ITERATIONS)), 3, "the first is forgotten");
        for _ in 0..5 {
            assert!(strikes.add(NodeId(70), Iteration(206)) <= STRIKES_MAX);
        }
    }

    #[test]
    fn only_so_many_nodes_are_remembered() {
        let mut strikes = Strikes::default();
        for node in 0..3 * STRUCK_NODES_MAX as u32 {
            strikes.add(NodeId(node), Iteration(u64::from(node) / 100));
        }
        assert_eq!(strikes.0.len(), STRUCK_NODES_MAX);
        assert!(strikes.0.contains_key(&NodeId(3 * STRUCK_NODES_MAX as u32 - 1)));
    }
}
