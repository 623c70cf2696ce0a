//! States that a replay has to remember: those that stages were rebuilt from, and those that a run went back to.

use crate::live::store::StageState;
use skipstone_net::Payload;
use skipstone_protocol::Entry;
use skipstone_recovery::Lesson;
use skipstone_types::{Iteration, StageId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A stage's state before an iteration, in a lineage.
pub(super) type Key = (StageId, u32, Iteration);

/// The two activations of a lesson, as they were sent.
pub(super) type LessonPayloads = (Payload, Payload);

/// States needed later, and those of them that are there.
///
/// A rollback may bring the same key about again, with other bits: then the newer one counts, as whoever asks next is
/// of the newer generation.
#[derive(Default)]
pub(super) struct Needs {
    /// How often each is still asked for.
    wanted: BTreeMap<Key, u32>,
    kept: BTreeMap<Key, Arc<StageState>>,
    /// The same of lessons: what came to a stage, and what it made of it.
    lessons_wanted: BTreeMap<(StageId, Lesson), u32>,
    lessons: BTreeMap<(StageId, Lesson), LessonPayloads>,
}

impl Needs {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut needs = Self::default();
        for entry in entries {
            if let Entry::Rebuilt(rebuild) = entry {
                for lesson in rebuild.recipe.lessons() {
                    *needs.lessons_wanted.entry((rebuild.stage, *lesson)).or_default() += 1;
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
                *needs.wanted.entry(key).or_default() += 1;
            }
        }
        needs
    }

    /// Whether this state is needed later.
    pub(super) fn wants(&self, key: Key) -> bool {
        self.wanted.contains_key(&key)
    }

    /// Whether what came to a stage, and what it made of it, is needed later.
    pub(super) fn wants_lesson(&self, stage: StageId, lesson: Lesson) -> bool {
        self.lessons_wanted.contains_key(&(stage, lesson))
    }

    pub(super) fn keep_lesson(&mut self, stage: StageId, lesson: Lesson, payloads: LessonPayloads) {
        self.lessons.insert((stage, lesson), payloads);
    }

    /// A lesson that was kept; it is forgotten when nobody asks again.
    pub(super) fn take_lesson(&mut self, stage: StageId, lesson: Lesson) -> Option<LessonPayloads> {
        let key = (stage, lesson);
        let payloads = self.lessons.get(&key).cloned();
        if let Some(left) = self.lessons_wanted.get_mut(&key) {
            *left -= 1;
            if *left == 0 {
                self.lessons_wanted.remove(&key);
                self.lessons.remove(&key);
            }
        }
        payloads
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
