//! The oracle: what the journal's records make the run to be, computed as if nothing had ever gone wrong.

use super::compute::Rebuilt;
use super::invariants::Observation;
use super::provenance::{self as made, Origin};
use skipstone_protocol::{CommitRecord, Entry, Method, SavedStage, ToCoordinator, ToWorker};
use skipstone_recovery::Lesson;
use skipstone_types::{Attempt, Digest, Iteration, Microbatch, NodeId, Settings, StageId};
use std::collections::{BTreeMap, BTreeSet};

/// Iterations whose shares tell what is usual.
const SHARES_ITERATIONS: usize = 16;

/// What a committed iteration must have come to.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// The reduced gradient of each stage, if any microbatch reached it.
    pub(super) gradients: Vec<Option<Origin>>,
    pub(super) loss_sum: f64,
    pub(super) tokens: u64,
}

/// What a node says that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) stage: StageId,
    pub(super) iteration: Iteration,
    pub(super) digest: Digest,
}

/// The committed run.
#[derive(Debug)]
pub(super) struct Truth {
    pub(super) settings: Settings,
    /// Decided iterations, in order.
    pub(super) records: Vec<CommitRecord>,
    pub(super) expected: Vec<Expected>,
    /// `states[t][s]`: the state of stage s before iteration t.
    pub(super) states: Vec<Vec<Origin>>,
    /// `norms[t][s]`: the norm of the last gradient of stage s before iteration t.
    pub(super) norms: Vec<Vec<f64>>,
    /// Every state that was made from others, by digest.
    pub(super) rebuilt: BTreeMap<Digest, Rebuilt>,
    /// Every state that a stage served with before an iteration: as the iterations before made it, or rebuilt and
    /// entered, whether or not a record came to name it.
    served: BTreeSet<(StageId, u64, Digest)>,
    /// Every state that a stage served with, by digest.
    origins: BTreeMap<Digest, Origin>,
    pub(super) held: BTreeMap<NodeId, Held>,
    assigned: BTreeMap<NodeId, StageId>,
    /// Rebuilds of each stage.
    lineages: Vec<u32>,
    /// By how much sums of nodes that lie differ from what they should be, of the attempts that may still count.
    lies: BTreeMap<(Iteration, Attempt, NodeId), u64>,
    /// What came to a stage, what it made of it and what gradient came back, of every microbatch that passed through it in a committed
    /// iteration; none are kept where the strategy makes no stage again from them.
    passed: BTreeMap<(StageId, Lesson), [Origin; 3]>,
    keeps_passed: bool,
    /// The last `state/` that was published.
    pub(super) published: Option<(Iteration, Vec<SavedStage>)>,
}

impl Truth {
    /// Before the first iteration.
    pub(super) fn new(settings: &Settings) -> Self {
        let stages = (0..=settings.relay_stages).map(|stage| made::initial(settings.seed, StageId(stage)));
        let states: Vec<_> = stages.collect();
        Self {
            settings: settings.clone(),
            records: Vec::new(),
            expected: Vec::new(),
            norms: vec![vec![0.0; states.len()]],
            rebuilt: BTreeMap::new(),
            served: (0..)
                .zip(&states)
                .map(|(index, state)| (StageId(index), 0, made::digest(*state)))
                .collect(),
            held: BTreeMap::new(),
            origins: states.iter().map(|state| (made::digest(*state), *state)).collect(),
            lineages: vec![0; states.len()],
            states: vec![states],
            assigned: BTreeMap::new(),
            lies: BTreeMap::new(),
            passed: BTreeMap::new(),
            keeps_passed: skipstone_recovery::strategy(&settings.recovery)
                .is_ok_and(|strategy| strategy.iterations_kept() > 0),
            published: None,
        }
    }

    /// Iterations committed.
    pub(super) fn committed(&self) -> u64 {
        self.records.len() as u64
    }

    /// Whether a microbatch came to a stage so in a committed iteration, and left it so.
    pub(super) fn has_passed(&self, stage: StageId, lesson: Lesson, (came, made): (Origin, Origin)) -> bool {
        self.passed.get(&(stage, lesson)).is_some_and(|passed| passed[..2] == [came, made])
    }

    /// Whether a microbatch came to a stage so in a committed iteration, and its gradient came back so.
    pub(super) fn has_returned(
        &self,
        stage: StageId,
        lesson: Lesson,
        (came, back): (Origin, Origin),
    ) -> bool {
        self.passed.get(&(stage, lesson)).is_some_and(|passed| [passed[0], passed[2]] == [came, back])
    }

    /// The stage that a node was last given.
    pub(super) fn serves(&self, node: NodeId) -> Option<StageId> {
        self.assigned.get(&node).copied()
    }

    /// Whether a node holds what the origin is now.
    pub(super) fn is_origin(&self, node: NodeId) -> bool {
        self.held.get(&node).is_some_and(|held| {
            held.stage.is_origin()
                && held.iteration.0 >= self.committed()
                && self.served(held.stage, held.iteration, held.digest)
        })
    }

    /// Norms of the shares that the stage's are compared with: those of its last iterations since it was rebuilt.
    pub(super) fn share_norms(&self, stage: StageId) -> Vec<f64> {
        let lineage = self.lineages.get(usize::from(stage.0));
        let last = self.records.iter().rev().take(SHARES_ITERATIONS);
        last.filter_map(|record| record.stage(stage))
            .filter(|part| Some(&part.lineage) == lineage && part.step)
            .flat_map(|part| part.shares.iter().map(|share| share.norm))
            .collect()
    }

    /// The digest of a stage's state before an iteration.
    pub(super) fn state(&self, stage: StageId, t: Iteration) -> Option<Digest> {
        let states = self.states.get(t.0 as usize)?;
        states.get(usize::from(stage.0)).map(|state| made::digest(*state))
    }

    /// Whether a stage served with this state before an iteration.
    pub(super) fn served(&self, stage: StageId, t: Iteration, state: Digest) -> bool {
        self.served.contains(&(stage, t.0, state))
    }

    /// Whether one of these nodes was given the stage.
    pub(super) fn is_with_one_of(&self, nodes: &[NodeId], stage: StageId) -> bool {
        nodes.iter().any(|node| self.assigned.get(node) == Some(&stage))
    }

    /// Takes in what was seen.
    pub(super) fn observe(&mut self, seen: &Observation<'_>) {
        match seen {
            Observation::Written { entry: Entry::Committed(record) }
                if record.iteration.0 == self.committed() =>
            {
                self.commit(record);
            }
            Observation::Written { entry: Entry::RolledBack { iteration, stages, .. } } => {
                self.roll_back(*iteration, stages);
            }
            Observation::Lied { node, iteration, attempt, checks: false, by } => {
                self.lies.insert((*iteration, *attempt, *node), *by);
            }
            Observation::Published { iteration, stages } => {
                self.published = Some((*iteration, stages.to_vec()));
            }
            Observation::BegunAnew => {
                self.held.clear();
                self.assigned.clear();
            }
            Observation::Written { entry: Entry::Rebuilt(rebuild) } => {
                self.served.insert((rebuild.stage, self.committed(), rebuild.state));
                self.lineages[usize::from(rebuild.stage.0)] = rebuild.lineage;
            }
            Observation::Rebuilt { rebuilt } => {
                let known = self.rebuilt.entry(made::digest(rebuilt.state));
                // A copy of what was made from others is no news of how it was made.
                let known = known.or_insert_with(|| (*rebuilt).clone());
                if known.recipe.restores(known.stage) {
                    known.clone_from(rebuilt);
                }
            }
            Observation::Bound { node, holding: Some(holding) } => {
                let (stage, iteration, digest) = (holding.stage, holding.iteration, holding.state);
                self.assigned.insert(*node, stage);
                let known = self.held.get(&holding.node).filter(|held| held.iteration > iteration).copied();
                self.held.insert(*node, known.unwrap_or(Held { stage, iteration, digest }));
            }
            Observation::Told { node, message: ToWorker::Assign { stage, method, .. } } => {
                self.assigned.insert(*node, *stage);
                if *method != Method::Keep {
                    self.held.remove(node);
                }
            }
            Observation::Told { node, message: ToWorker::Welcome { empty: true, .. } } => {
                self.held.remove(node);
                self.assigned.remove(node);
            }
            Observation::Reported {
                node,
                message: ToCoordinator::Holds { stage, iteration, digest, .. },
            } => {
                let (stage, iteration, digest) = (*stage, *iteration, *digest);
                // A process that came back as it was a while before speaks under the old id until it is told another.
                let is_older = self.held.get(node).is_some_and(|known| known.iteration > iteration);
                let is_of_another = self.assigned.get(node).is_some_and(|assigned| *assigned != stage);
                if !is_older && !is_of_another {
                    self.held.insert(*node, Held { stage, iteration, digest });
                }
            }
            _ => {}
        }
    }

    /// The run goes on from `state/`: what came after it has never been.
    fn roll_back(&mut self, to: Iteration, saved: &[SavedStage]) {
        // Nodes come again under other ids.
        self.held.clear();
        self.assigned.clear();
        let kept = to.0 as usize;
        self.records.truncate(kept);
        self.expected.truncate(kept);
        self.states.truncate(kept + 1);
        self.norms.truncate(kept + 1);
        self.served.retain(|(_, t, _)| *t <= to.0);
        // A stage may have been rebuilt after it was saved, or before.
        let Some(states) = self.states.last_mut() else { return };
        for SavedStage { stage, state: digest, lineage } in saved {
            self.lineages[usize::from(stage.0)] = *lineage;
            let rebuilt = self.rebuilt.get(digest).map(|rebuilt| rebuilt.state);
            if let Some(state) = self.origins.get(digest).copied().or(rebuilt) {
                states[usize::from(stage.0)] = state;
                self.served.insert((*stage, to.0, *digest));
            }
        }
    }

    fn commit(&mut self, record: &CommitRecord) {
        let t = record.iteration;
        let (Some(mut states), Some(mut norms)) = (self.states.last().cloned(), self.norms.last().cloned())
        else {
            return;
        };
        for part in &record.stages {
            self.lineages[usize::from(part.stage.0)] = part.lineage;
            if let Some(rebuilt) = part.state.and_then(|digest| self.rebuilt.get(&digest))
                && rebuilt.stage == part.stage
            {
                states[usize::from(part.stage.0)] = rebuilt.state;
            }
        }
        let expected = expectation(record, &states, |node| {
            self.lies.get(&(t, record.attempt, node)).copied().unwrap_or(0)
        });
        self.lies.retain(|(of, ..), _| *of > t);
        if self.keeps_passed {
            self.passed.extend(passed(record, &states));
        }
        if let Some(current) = self.states.last_mut() {
            current.clone_from(&states);
        }
        for (index, gradient) in expected.gradients.iter().enumerate() {
            let Some(gradient) = *gradient else { continue };
            let norm = made::norm(gradient);
            let clip = clip_factor(&self.settings, norm);
            states[index] = made::step(states[index], gradient, t, self.settings.learning_rate.at(t), clip);
            norms[index] = norm;
        }
        let next = states.iter().enumerate();
        self.served.extend(next.map(|(index, state)| (StageId(index as u16), t.0 + 1, made::digest(*state))));
        self.origins.extend(states.iter().map(|state| (made::digest(*state), *state)));
        self.states.push(states);
        self.norms.push(norms);
        self.expected.push(expected);
        self.records.push(record.clone());
    }
}

/// What multiplies a gradient of this norm in the step.
pub(super) fn clip_factor(settings: &Settings, norm: f64) -> f64 {
    let max = settings.clip_norm_max;
    if max > 0.0 && norm > max { max / norm } else { 1.0 }
}

/// What came to each stage, what it made of it, and what gradient came back, along the paths of a record.
fn passed(record: &CommitRecord, states: &[Origin]) -> Vec<((StageId, Lesson), [Origin; 3])> {
    let iteration = record.iteration;
    let mut passed = Vec::new();
    for (microbatch, path) in (0..).map(Microbatch).zip(&record.paths) {
        let (mut activation, _) = made::embed(states[0], iteration, microbatch);
        let mut visited = Vec::new();
        for visit in path.0.iter().skip(1) {
            let (next, saved) = made::forward(states[usize::from(visit.stage.0)], microbatch, activation);
            visited.push((visit.stage, activation, next, saved));
            activation = next;
        }
        let (mut gradient, _) = made::loss(states[0], iteration, microbatch, activation);
        for (stage, came, made, saved) in visited.into_iter().rev() {
            passed.push(((stage, Lesson { iteration, microbatch }), [came, made, gradient]));
            gradient = made::backward(states[usize::from(stage.0)], saved, gradient).0;
        }
    }
    passed
}

/// What the paths of a record make of these states, in peace but for lies that nobody has found.
fn expectation(record: &CommitRecord, states: &[Origin], lie: impl Fn(NodeId) -> u64) -> Expected {
    let t = record.iteration;
    // Per stage: the sum of terms, their number, and the microbatches that brought them.
    let mut sums = vec![(0_u64, 0_u32, 0_u32); states.len()];
    let mut add = |index: usize, term: u64, first: bool| {
        let (terms, count, microbatches) = &mut sums[index];
        *terms = terms.wrapping_add(term);
        *count += 1;
        *microbatches += u32::from(first);
    };
    let (mut loss_sum, mut tokens) = (0.0, 0);
    for (index, path) in record.paths.iter().enumerate() {
        let m = Microbatch(index as u32);
        let relays: Vec<usize> = path.0.iter().skip(1).map(|visit| usize::from(visit.stage.0)).collect();
        let (mut activation, origin_keeps) = made::embed(states[0], t, m);
        let mut kept = Vec::with_capacity(relays.len());
        for stage in &relays {
            let (next, keeps) = made::forward(states[*stage], m, activation);
            activation = next;
            kept.push(keeps);
        }
        let (mut gradient, term) = made::loss(states[0], t, m, activation);
        add(0, term, true);
        let (loss, count) = made::loss_share(gradient, m);
        loss_sum += loss;
        tokens += count;
        for (stage, keeps) in relays.iter().zip(kept).rev() {
            let (back, term) = made::backward(states[*stage], keeps, gradient);
            add(*stage, term, true);
            gradient = back;
        }
        let (_, term) = made::backward(states[0], origin_keeps, gradient);
        add(0, term, false);
    }
    for (part, (terms, ..)) in record.stages.iter().zip(&mut sums) {
        *terms = part.shares.iter().fold(*terms, |terms, share| terms.wrapping_add(lie(share.node)));
    }
    let gradients = sums
        .iter()
        .zip(states)
        .map(|((terms, count, microbatches), state)| {
            (*count > 0).then(|| made::reduced(*state, *terms, *count, *microbatches))
        })
        .collect();
    Expected { gradients, loss_sum, tokens }
}
