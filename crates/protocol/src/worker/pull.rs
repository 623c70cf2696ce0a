//! One state on its way to a node, chunk by chunk.

use crate::task::{Handle, Task};
use skipstone_recovery::StateFormat;
use skipstone_types::{NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet};

/// Chunks asked for and not yet here.
const WINDOW_CHUNKS: usize = 4;

/// A state, arriving in chunks from those who froze it.
#[derive(Debug, Clone)]
pub(super) struct Pull {
    pub(super) stage: StageId,
    format: StateFormat,
    pub(super) donors: Vec<NodeId>,
    /// How many chunks there are, and their bytes.
    pub(super) count: Option<(u32, u64)>,
    asked: BTreeSet<u32>,
    pub(super) chunks: BTreeMap<u32, Handle>,
    joining: bool,
    pub(super) joined: Option<Handle>,
}

impl Pull {
    pub(super) fn new(stage: StageId, format: StateFormat, donors: Vec<NodeId>) -> Self {
        Self {
            stage,
            format,
            donors,
            count: None,
            asked: BTreeSet::new(),
            chunks: BTreeMap::new(),
            joining: false,
            joined: None,
        }
    }

    /// Chunks that have arrived.
    pub(super) fn arrived(&self) -> u64 {
        match self.count {
            Some((count, _)) if self.joining => u64::from(count),
            _ => self.chunks.len() as u64,
        }
    }

    /// Chunks to ask for now, and of whom: as many as the window allows, and those that are open with the donor `again`.
    pub(super) fn requests(&mut self, again: Option<NodeId>) -> Vec<(NodeId, u32)> {
        if self.donors.is_empty() || self.joining {
            return Vec::new();
        }
        let donor_of = |index: u32| self.donors[index as usize % self.donors.len()];
        let mut requests = Vec::new();
        if let Some(peer) = again {
            let open = self.asked.iter().filter(|index| !self.chunks.contains_key(index));
            requests.extend(open.map(|index| (donor_of(*index), *index)).filter(|(to, _)| *to == peer));
        }
        let known = self.count.map_or(1, |(count, _)| count);
        let open = self.asked.len() - self.chunks.len();
        let next = (0..known).filter(|index| !self.asked.contains(index));
        let next: Vec<_> = next.take(WINDOW_CHUNKS.saturating_sub(open)).collect();
        requests.extend(next.iter().map(|index| (donor_of(*index), *index)));
        self.asked.extend(next);
        requests
    }

    /// Takes a chunk that is missing; false if it is not.
    pub(super) fn take(&mut self, index: u32, count: (u32, u64), chunk: Handle) -> bool {
        let fits = index < count.0 && self.count.is_none_or(|known| known == count);
        if !fits || self.joining || self.chunks.contains_key(&index) {
            return false;
        }
        self.count = Some(count);
        // It may have been asked of a donor that was lost since.
        self.asked.insert(index);
        self.chunks.insert(index, chunk);
        true
    }

    /// What is missing is asked of the other donors, who froze the same; whether there are others. Without any it waits for
    /// what the coordinator decides.
    pub(super) fn go_on_without(&mut self, lost: &[NodeId]) -> bool {
        let others = self.donors.iter().filter(|donor| !lost.contains(donor)).count();
        if others == 0 || others == self.donors.len() {
            return false;
        }
        // Which chunk comes from whom changes for all: what is on its way from the living comes all the same.
        self.donors.retain(|donor| !lost.contains(donor));
        self.asked = self.chunks.keys().copied().collect();
        true
    }

    /// Once all chunks are here: the task that makes a state of them.
    pub(super) fn join_when_complete(&mut self) -> Option<(Task, Vec<Handle>)> {
        let (count, _) = self.count?;
        if self.joining || self.chunks.len() < count as usize {
            return None;
        }
        self.joining = true;
        Some((Task::Join { stage: self.stage, format: self.format }, self.chunks.values().copied().collect()))
    }

    /// All that it holds.
    pub(super) fn handles(self) -> Vec<Handle> {
        self.chunks.into_values().chain(self.joined).collect()
    }
}
