//! Which copies of stages count, and who keeps them.

use crate::journal::{Entry, StageCopy};
use crate::message::KeptCopy;
use skipstone_types::{Iteration, NodeId, StageId};
use std::collections::BTreeMap;

/// Nodes that keep a copy of a stage at a time. Each newer copy takes the place of the older of two, so that a second keeper costs no
/// byte on the wire; a stage that is lost together with one of them comes back from the other's copy.
const KEEPERS_MAX: usize = 2;

/// Copies of a stage that are remembered, newest first: those of its keepers, and some whose keepers are lost, and may come back.
const REMEMBERED_MAX: usize = 4;

/// A copy that has the right bits.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    copy: StageCopy,
    /// Who has it; none: a node that is lost, and may come back.
    keeper: Option<NodeId>,
}

/// The last copies of each stage, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct KnownCopies(BTreeMap<StageId, Vec<Known>>);

impl KnownCopies {
    /// A journal tells of a copy; whoever has it may come.
    pub(super) fn remember(&mut self, copy: StageCopy) {
        self.add(copy, None);
    }

    /// What is remembered, for a journal.
    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        let oldest_first = |known: Vec<Known>| known.into_iter().rev().map(|known| known.copy);
        self.0.into_values().flat_map(oldest_first).map(Entry::CopyKept)
    }

    /// A node keeps a newer copy; those returned need not keep theirs any more.
    pub(super) fn adopt(&mut self, keeper: NodeId, copy: StageCopy) -> Vec<NodeId> {
        self.add(copy, Some(keeper))
    }

    fn add(&mut self, copy: StageCopy, keeper: Option<NodeId>) -> Vec<NodeId> {
        let all = self.0.entry(copy.stage).or_default();
        if keeper.is_some() {
            all.retain(|known| known.keeper != keeper);
        }
        all.insert(0, Known { copy, keeper });
        trim(all)
    }

    /// A node comes back with a copy: who need not keep theirs any more; none: the copy counts for nothing.
    pub(super) fn recognise(&mut self, node: NodeId, kept: KeptCopy) -> Option<Vec<NodeId>> {
        let KeptCopy { stage, iteration, digest } = kept;
        let all = self.0.get_mut(&stage)?;
        let is_it = |known: &Known| (known.copy.iteration, known.copy.state) == (iteration, digest);
        if all.iter().any(|known| known.keeper == Some(node)) {
            return None;
        }
        all.iter_mut().find(|known| known.keeper.is_none() && is_it(known))?.keeper = Some(node);
        Some(trim(all))
    }

    /// What the node kept of this stage has another in its place.
    pub(super) fn replace(&mut self, stage: StageId, node: NodeId) {
        if let Some(all) = self.0.get_mut(&stage) {
            all.retain(|known| known.keeper != Some(node));
        }
    }

    /// The copy is of no use: its keeper does not have it, or it has other bits. Whether it counted.
    pub(super) fn forget(&mut self, stage: StageId, iteration: Iteration, keeper: NodeId) -> bool {
        let Some(all) = self.0.get_mut(&stage) else { return false };
        let before = all.len();
        all.retain(|known| known.keeper != Some(keeper) || known.copy.iteration != iteration);
        all.len() < before
    }

    /// The node is gone, and may come back.
    pub(super) fn lose(&mut self, node: NodeId) {
        for known in self.0.values_mut().flatten().filter(|known| known.keeper == Some(node)) {
            known.keeper = None;
        }
    }

    /// The newest copy, and who keeps it, if it is not lost.
    pub(super) fn newest(&self, stage: StageId) -> Option<(&StageCopy, Option<NodeId>)> {
        self.0.get(&stage)?.first().map(|known| (&known.copy, known.keeper))
    }

    /// Who keeps a copy of the stage, the newest first.
    pub(super) fn keepers(&self, stage: StageId) -> impl Iterator<Item = (NodeId, &StageCopy)> {
        let all = self.0.get(&stage).map_or(&[][..], Vec::as_slice);
        all.iter().filter_map(|known| Some((known.keeper?, &known.copy)))
    }

    /// Whether the node keeps a copy of the stage.
    pub(super) fn is_kept_by(&self, stage: StageId, node: NodeId) -> bool {
        self.keepers(stage).any(|(keeper, _)| keeper == node)
    }

    /// Each copy that a node keeps: of which stage.
    pub(super) fn held(&self) -> impl Iterator<Item = (NodeId, StageId)> {
        let stages = self.0.keys();
        stages.flat_map(|stage| self.keepers(*stage).map(|(keeper, _)| (keeper, *stage)))
    }
}

/// Keeps the newest with [`KEEPERS_MAX`] nodes, and of the rest what may come back, [`REMEMBERED_MAX`] in all; who need not keep
/// theirs any more.
fn trim(all: &mut Vec<Known>) -> Vec<NodeId> {
    let mut released = Vec::new();
    let mut kept = 0;
    all.retain(|known| {
        kept += usize::from(known.keeper.is_some());
        let stays = known.keeper.is_none() || kept <= KEEPERS_MAX;
        released.extend(known.keeper.filter(|_| !stays));
        stays
    });
    while all.len() > REMEMBERED_MAX {
        // The oldest that nobody has; with so many there is one.
        let Some(oldest) = all.iter().rposition(|known| known.keeper.is_none()) else { break };
        all.remove(oldest);
    }
    released
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_types::Digest;

    const STAGE: StageId = StageId(3);

    fn copy(iteration: u64) -> StageCopy {
        let state = Digest([iteration as u8; 32]);
        StageCopy { stage: STAGE, iteration: Iteration(iteration), lineage: 0, state }
    }

    fn kept(iteration: u64) -> KeptCopy {
        let StageCopy { stage, iteration, state, .. } = copy(iteration);
        KeptCopy { stage, iteration, digest: state }
    }

    fn keepers(copies: &KnownCopies) -> Vec<(u32, u64)> {
        copies.keepers(STAGE).map(|(keeper, copy)| (keeper.0, copy.iteration.0)).collect()
    }

    #[test]
    fn the_newest_two_are_kept_and_the_third_is_let_go() {
        let mut copies = KnownCopies::default();
        assert_eq!(copies.adopt(NodeId(1), copy(8)), []);
        assert_eq!(copies.adopt(NodeId(2), copy(16)), []);
        assert_eq!(copies.adopt(NodeId(3), copy(24)), [NodeId(1)]);
        assert_eq!(keepers(&copies), [(3, 24), (2, 16)]);
        // In the place of what the same node kept.
        assert_eq!(copies.adopt(NodeId(2), copy(32)), []);
        assert_eq!(keepers(&copies), [(2, 32), (3, 24)]);
    }

    #[test]
    fn the_older_stays_while_the_newest_is_lost() {
        let mut copies = KnownCopies::default();
        copies.adopt(NodeId(1), copy(8));
        copies.adopt(NodeId(2), copy(16));
        copies.lose(NodeId(2));
        assert_eq!(copies.newest(STAGE), Some((&copy(16), None)));
        assert_eq!(keepers(&copies), [(1, 8)]);
        assert_eq!(copies.adopt(NodeId(3), copy(17)), []);
        assert_eq!(keepers(&copies), [(3, 17), (1, 8)]);
        // Who comes back has a newer one than one of the two.
        assert_eq!(copies.recognise(NodeId(2), kept(16)), Some(vec![NodeId(1)]));
        assert_eq!(keepers(&copies), [(3, 17), (2, 16)]);
        assert_eq!(copies.recognise(NodeId(4), kept(16)), None, "nobody is waited for with it");
    }

    #[test]
    fn what_a_journal_tells_is_bounded_and_told_again_the_same() {
        let mut copies = KnownCopies::default();
        (0..100).for_each(|iteration| copies.remember(copy(iteration)));
        let entries: Vec<_> = copies.clone().into_entries().collect();
        assert_eq!(entries, [96, 97, 98, 99].map(|iteration| Entry::CopyKept(copy(iteration))));
        let mut again = KnownCopies::default();
        for entry in entries {
            if let Entry::CopyKept(copy) = entry {
                again.remember(copy);
            }
        }
        assert_eq!(again, copies);
        assert_eq!(again.recognise(NodeId(1), kept(95)), None);
        assert_eq!(again.recognise(NodeId(1), kept(97)), Some(vec![]));
        assert_eq!(again.recognise(NodeId(1), kept(98)), None, "of a stage a node keeps one copy");
    }

    #[test]
    fn only_the_copy_of_the_named_node_is_forgotten() {
        let mut copies = KnownCopies::default();
        // Both are of the same iteration: the first keeper was lost for a moment.
        copies.adopt(NodeId(1), copy(8));
        copies.adopt(NodeId(2), copy(8));
        assert!(!copies.forget(STAGE, Iteration(9), NodeId(1)));
        assert!(copies.forget(STAGE, Iteration(8), NodeId(1)));
        assert_eq!(keepers(&copies), [(2, 8)]);
        assert!(!copies.forget(STAGE, Iteration(8), NodeId(1)));
    }
}
