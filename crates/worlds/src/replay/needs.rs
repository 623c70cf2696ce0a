//! States that a replay has to remember: those that stages were rebuilt from, and those that a run went back to.

use crate::live::store::StageState;
use skipstone_protocol::Entry;
use skipstone_types::{Iteration, StageId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A stage's state before an iteration, in a lineage.
pub(super) type Key = (StageId, u32, Iteration);

/// States needed later, and those of them that are there.
///
/// A rollback may bring the same key about again, with other bits: then the newer one counts, as whoever asks next is
/// of the newer generation.
#[derive(Default)]
pub(super) struct Needs {
    /// How often each is still asked for.
    wanted: BTreeMap<Key, u32>,
    kept: BTreeMap<Key, Arc<StageState>>,
}

impl Needs {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut needs = Self::default();
        for entry in entries {
            let keys: Vec<Key> = match entry {
                Entry::Rebuilt(rebuild) => rebuild
                    .recipe
                    .sources
                    .iter()
                    .zip(&rebuild.source_lineages)
                    .map(|(source, lineage)| (source.stage, *lineage, rebuild.from))
                    .collect(),
                Entry::RolledBack { iteration, stages, .. } => {
                    stages.iter().map(|part| (part.stage, part.lineage, *iteration)).collect()
                }
                _ => Vec::new(),
            };
            for key in keys {
                *needs.wanted.entry(key).or_default() += 1;
            }
        }
        needs
    }

    /// Whether this state is needed later.
    pub(super) fn wants(&self, key: Key) -> bool {
        self.wanted.contains_key(&key)
    }

    pub(super) fn keep(&mut self, key: Key, state: Arc<StageState>) {
        self.kept.insert(key, state);
    }

    /// A state that was kept; it is forgotten when nobody asks again.
    pub(super) fn take(&mut self, key: Key) -> Option<Arc<StageState>> {
        let state = self.kept.get(&key).cloned();
        if let Some(left) = self.wanted.get_mut(&key) {
            *left -= 1;
            if *left == 0 {
                self.wanted.remove(&key);
                self.kept.remove(&key);
            }
        }
        state
    }
}
