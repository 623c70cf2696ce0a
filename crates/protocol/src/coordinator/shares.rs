//! Who counts which microbatches of a stage, and what of them is done.

use skipstone_types::{Microbatch, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Owners of a stage's microbatches. What follows from them is asked for after every message, and kept beside them.
#[derive(Debug, Default)]
pub(super) struct Shares {
    owners: BTreeMap<Microbatch, NodeId>,
    /// How many microbatches each node owns; no node without any.
    owned: BTreeMap<NodeId, u32>,
    /// What each owner has added, in order.
    done: BTreeMap<NodeId, Vec<Microbatch>>,
    /// What each owner has not added; no node without any.
    left: BTreeMap<NodeId, BTreeSet<Microbatch>>,
}

impl Shares {
    /// The node is to count the microbatch, and nobody else.
    pub(super) fn give(&mut self, microbatch: Microbatch, node: NodeId) {
        if let Some(before) = self.owners.insert(microbatch, node) {
            match self.owned.get_mut(&before) {
                Some(count) if *count > 1 => *count -= 1,
                _ => _ = self.owned.remove(&before),
            }
            self.settle(before, microbatch);
        }
        *self.owned.entry(node).or_default() += 1;
        if !self.done.get(&node).is_some_and(|done| done.contains(&microbatch)) {
            self.left.entry(node).or_default().insert(microbatch);
        }
    }

    fn settle(&mut self, node: NodeId, microbatch: Microbatch) {
        if let Some(left) = self.left.get_mut(&node) {
            left.remove(&microbatch);
            if left.is_empty() {
                self.left.remove(&node);
            }
        }
    }

    /// An owner has added a microbatch; whether it is its own, and that is news.
    pub(super) fn add(&mut self, node: NodeId, microbatch: Microbatch) -> bool {
        if !self.left.get(&node).is_some_and(|left| left.contains(&microbatch)) {
            return false;
        }
        self.settle(node, microbatch);
        self.done.entry(node).or_default().push(microbatch);
        true
    }

    /// What a node has added is thrown away; it still owns what it did.
    pub(super) fn throw_away(&mut self, node: NodeId) {
        for microbatch in self.done.remove(&node).unwrap_or_default() {
            if self.owners.get(&microbatch) == Some(&node) {
                self.left.entry(node).or_default().insert(microbatch);
            }
        }
    }

    /// Who counts the microbatch.
    pub(super) fn owner(&self, microbatch: Microbatch) -> Option<NodeId> {
        self.owners.get(&microbatch).copied()
    }

    /// All microbatches that reach the stage.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether none does.
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Who owns any, ascending, and how many.
    pub(super) fn owners(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.owned.iter().map(|(node, count)| (*node, *count))
    }

    /// How many microbatches the node owns.
    pub(super) fn owned(&self, node: NodeId) -> u32 {
        self.owned.get(&node).copied().unwrap_or(0)
    }

    /// What the node owns, ascending.
    pub(super) fn owned_by(&self, node: NodeId) -> Vec<Microbatch> {
        self.owners.iter().filter(|(_, owner)| **owner == node).map(|(microbatch, _)| *microbatch).collect()
    }

    /// Whether everything is added.
    pub(super) fn all_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Who has something left to add, ascending, and what.
    pub(super) fn left(&self) -> impl Iterator<Item = (NodeId, &BTreeSet<Microbatch>)> {
        self.left.iter().map(|(node, left)| (*node, left))
    }

    /// What the node owns and has not added, ascending.
    pub(super) fn left_of(&self, node: NodeId) -> impl ExactSizeIterator<Item = Microbatch> + '_ {
        static NOTHING: BTreeSet<Microbatch> = BTreeSet::new();
        self.left.get(&node).unwrap_or(&NOTHING).iter().copied()
    }

    /// Whether the owner of the microbatch has added it; so if nobody owns it.
    pub(super) fn is_done(&self, microbatch: Microbatch) -> bool {
        self.owner(microbatch)
            .is_none_or(|owner| !self.left.get(&owner).is_some_and(|left| left.contains(&microbatch)))
    }

    /// Who has added any, ascending, and what, in order.
    pub(super) fn done(&self) -> &BTreeMap<NodeId, Vec<Microbatch>> {
        &self.done
    }

    /// How many microbatches the node has added.
    pub(super) fn done_by(&self, node: NodeId) -> usize {
        self.done.get(&node).map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Give(Microbatch, NodeId),
        Add(NodeId, Microbatch),
        ThrowAway(NodeId),
    }

    /// The same without anything kept beside it.
    #[derive(Default)]
    struct Plain {
        owners: BTreeMap<Microbatch, NodeId>,
        done: BTreeMap<NodeId, Vec<Microbatch>>,
    }

    impl Plain {
        fn has_added(&self, node: NodeId, microbatch: Microbatch) -> bool {
            self.done.get(&node).is_some_and(|done| done.contains(&microbatch))
        }

        fn take(&mut self, step: Step) -> bool {
            match step {
                Step::Give(microbatch, node) => _ = self.owners.insert(microbatch, node),
                Step::ThrowAway(node) => _ = self.done.remove(&node),
                Step::Add(node, microbatch) => {
                    let news =
                        self.owners.get(&microbatch) == Some(&node) && !self.has_added(node, microbatch);
                    if news {
                        self.done.entry(node).or_default().push(microbatch);
                    }
                    return news;
                }
            }
            true
        }

        fn left(&self, node: NodeId) -> Vec<Microbatch> {
            let owned = self.owners.iter().filter(|(_, owner)| **owner == node);
            owned.map(|(microbatch, _)| *microbatch).filter(|of| !self.has_added(node, *of)).collect()
        }
    }

    fn take(shares: &mut Shares, step: Step) -> bool {
        match step {
            Step::Give(microbatch, node) => shares.give(microbatch, node),
            Step::ThrowAway(node) => shares.throw_away(node),
            Step::Add(node, microbatch) => return shares.add(node, microbatch),
        }
        true
    }

    #[test]
    fn what_is_kept_beside_owners_follows_from_them_whatever_happens() {
        let nodes = [NodeId(1), NodeId(2)];
        let microbatches = [Microbatch(0), Microbatch(1), Microbatch(2)];
        let mut steps: Vec<Step> = nodes.into_iter().map(Step::ThrowAway).collect();
        for node in nodes {
            for microbatch in microbatches {
                steps.extend([Step::Give(microbatch, node), Step::Add(node, microbatch)]);
            }
        }
        let count = steps.len().pow(4);
        for sequence in 0..count {
            let (mut shares, mut plain) = (Shares::default(), Plain::default());
            let chosen = (0..4).map(|place| steps[sequence / steps.len().pow(place) % steps.len()]);
            let chosen: Vec<Step> = chosen.collect();
            for step in &chosen {
                assert_eq!(take(&mut shares, *step), plain.take(*step), "{chosen:?}");
            }
            assert_eq!(shares.len(), plain.owners.len(), "{chosen:?}");
            assert_eq!(shares.done(), &plain.done, "{chosen:?}");
            for node in nodes {
                let owned = plain.owners.values().filter(|owner| **owner == node).count();
                assert_eq!(shares.owned(node) as usize, owned, "{chosen:?}");
                assert_eq!(shares.owned_by(node).len(), owned, "{chosen:?}");
                assert_eq!(shares.left_of(node).collect::<Vec<_>>(), plain.left(node), "{chosen:?}");
                assert_eq!(shares.done_by(node), plain.done.get(&node).map_or(0, Vec::len), "{chosen:?}");
            }
            let owning: Vec<_> = shares.owners().map(|(node, _)| node).collect();
            let left: Vec<_> = shares.left().map(|(node, _)| node).collect();
            let owns = |node: &NodeId| plain.owners.values().any(|owner| owner == node);
            assert_eq!(owning, nodes.into_iter().filter(owns).collect::<Vec<_>>(), "{chosen:?}");
            let lacks = |node: &NodeId| !plain.left(*node).is_empty();
            assert_eq!(left, nodes.into_iter().filter(lacks).collect::<Vec<_>>(), "{chosen:?}");
            assert_eq!(shares.all_done(), left.is_empty(), "{chosen:?}");
            for microbatch in microbatches {
                let owner = plain.owners.get(&microbatch).copied();
                assert_eq!(shares.owner(microbatch), owner, "{chosen:?}");
                let done = owner.is_none_or(|owner| plain.has_added(owner, microbatch));
                assert_eq!(shares.is_done(microbatch), done, "{chosen:?}");
            }
        }
    }
}
