//! A node of the conflict-based search: one path for every slot, and what was forbidden to get there.

use std::cmp::Ordering;
use std::rc::Rc;

use super::time_space::{Bans, Route};

/// Paths of all slots, and their bans.
#[derive(Debug, Clone)]
pub(super) struct SearchNode {
    pub(super) routes: Vec<Rc<Route>>,
    pub(super) bans: Vec<Rc<Bans>>,
    /// End of the slowest path in the planned times.
    pub(super) end_us: u64,
    /// Paths above memory that are left for later, at the node's parent.
    pub(super) excess: u64,
    /// The n-th node made.
    pub(super) number: u64,
    /// Whether a collision led here.
    pub(super) after_collision: bool,
    /// A fingerprint of all forbidden stages and nodes.
    pub(super) fingerprint: u128,
}

impl SearchNode {
    /// Slots from the slowest path to the quickest.
    pub(super) fn slowest_first(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.routes.len()).collect();
        order.sort_by_key(|agent| std::cmp::Reverse(self.routes[*agent].end_us));
        order
    }

    /// What a ban adds to the fingerprint (Zobrist).
    pub(super) fn mark(agent: usize, stage: bool, place: usize) -> u128 {
        let mut random = crate::random::Random::new(&[agent as u64, u64::from(stage), place as u64]);
        u128::from(random.next()) << 64 | u128::from(random.next())
    }

    fn order(&self) -> (u64, u64, std::cmp::Reverse<u64>) {
        (self.end_us, self.excess, std::cmp::Reverse(self.number))
    }
}

/// In a max-heap the quickest comes first; of equals the newest.
impl Ord for SearchNode {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order().cmp(&self.order())
    }
}

impl PartialOrd for SearchNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SearchNode {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for SearchNode {}
