//! States that a replay has to remember: those that stages were rebuilt from, and those that a run went back to.

use crate::live::store::StageState;
use skipstone_net::Payload;
use skipstone_protocol::{Entry, Rebuild};
use skipstone_recovery::Lesson;
use skipstone_types::{Iteration, StageId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A stage's state before an iteration, in a lineage.
pub(super) type Key = (StageId, u32, Iteration);

/// What is needed later, and what of it is there.
struct Wanted<K, V> {
    /// How often each is still asked for.
    wanted: BTreeMap<K, u32>,
    kept: BTreeMap<K, V>,
}

impl<K, V> Default for Wanted<K, V> {
    fn default() -> Self {
        Self { wanted: BTreeMap::new(), kept: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, V: Clone> Wanted<K, V> {
    fn want(&mut self, key: K) {
        *self.wanted.entry(key).or_default() += 1;
    }

    /// What was kept; it is forgotten when nobody asks again.
    fn take(&mut self, key: K) -> Option<V> {
        let value = self.kept.get(&key).cloned();
        if let Some(left) = self.wanted.get_mut(&key) {
            *left -= 1;
            if *left == 0 {
                self.wanted.remove(&key);
                self.kept.remove(&key);
            }
        }
        value
    }
}

/// Which boundary tensor of a microbatch that passed through a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Boundary {
    /// The activation that came to it.
    Came,
    /// The activation that it made of it.
    Made,
    /// The gradient that came back.
    Returned,
}

/// Names a boundary tensor of a stage.
pub(super) type BoundaryKey = (StageId, Lesson, Boundary);

/// States needed later, and those of them that are there; the same of boundary tensors, as they were sent.
///
/// A rollback may bring the same key about again, with other bits: then the newer one counts, as whoever asks next is
/// of the newer generation.
#[derive(Default)]
pub(super) struct Needs {
    states: Wanted<Key, Arc<StageState>>,
    boundaries: Wanted<BoundaryKey, Payload>,
}

impl Needs {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut needs = Self::default();
        for entry in entries {
            if let Entry::Rebuilt(rebuild) = entry {
                for key in boundaries_of(rebuild) {
                    needs.boundaries.want(key);
                }
            }
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
                needs.states.want(key);
            }
        }
        needs
    }

    /// Whether this state is needed later.
    pub(super) fn wants(&self, key: Key) -> bool {
        self.states.wanted.contains_key(&key)
    }

    pub(super) fn keep(&mut self, key: Key, state: Arc<StageState>) {
        self.states.kept.insert(key, state);
    }

    /// A state that was kept.
    pub(super) fn take(&mut self, key: Key) -> Option<Arc<StageState>> {
        self.states.take(key)
    }

    /// Whether this boundary tensor is needed later.
    pub(super) fn wants_boundary(&self, key: BoundaryKey) -> bool {
        self.boundaries.wanted.contains_key(&key)
    }

    pub(super) fn keep_boundary(&mut self, key: BoundaryKey, payload: Payload) {
        self.boundaries.kept.insert(key, payload);
    }

    /// A boundary tensor that was kept.
    pub(super) fn take_boundary(&mut self, key: BoundaryKey) -> Option<Payload> {
        self.boundaries.take(key)
    }
}

/// The boundary tensors that a stage was made again with, in the order in which its task takes them.
pub(super) fn boundaries_of(rebuild: &Rebuild) -> Vec<BoundaryKey> {
    let second = if rebuild.recipe.retracing.is_some() { Boundary::Returned } else { Boundary::Made };
    let lessons = rebuild.recipe.lessons().into_iter();
    lessons.flat_map(|lesson| [Boundary::Came, second].map(|which| (rebuild.stage, lesson, which))).collect()
}
