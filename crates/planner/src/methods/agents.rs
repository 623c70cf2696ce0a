//! One path for every slot of every origin, used in all waves.

use std::collections::BTreeMap;

use super::placement::Placement;
use crate::compiled::CompiledInstance;
use crate::plan::{DispatchPolicy, PipelinePlan, PlanMode, PlannedMicrobatch};

/// A slot of an origin, whose microbatches follow each other on one path.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    /// The origin.
    pub(super) origin: u32,
    /// When the origin can start its first microbatch, microseconds: after those of its earlier slots.
    pub(super) start_us: u64,
    /// Whether the path has to take CheckFree+'s swaps.
    pub(super) swaps: bool,
    /// Ids of its microbatches, in order.
    pub(super) ids: Vec<u32>,
}

impl Agent {
    /// How often its path is used in an iteration.
    pub(super) fn repeats(&self) -> u32 {
        self.ids.len() as u32
    }
}

/// All slots.
#[derive(Debug, Clone)]
pub(super) struct Agents {
    pub(super) agents: Vec<Agent>,
}

impl Agents {
    /// The slots of a placement's origins; slots that have nothing to send are left out.
    pub(super) fn new(compiled: &CompiledInstance, placement: &Placement) -> Self {
        let instance = compiled.instance();
        let mut agents = Vec::new();
        let mut repeats = Vec::new();
        for (place, origin) in placement.stages.first().into_iter().flatten().enumerate() {
            let quota = instance.quota(place);
            let slots = compiled.memory[*origin as usize].min(quota);
            for slot in 0..slots {
                agents.push(Agent {
                    origin: *origin,
                    start_us: u64::from(slot) * compiled.origin_forward[*origin as usize],
                    swaps: false,
                    ids: Vec::new(),
                });
                repeats.push(quota / slots + u32::from(slot < quota % slots));
            }
        }
        let mut agents = Self { agents };
        agents.number(compiled, &repeats);
        agents
    }

    /// Gives out ids: wave by wave; where odd microbatches swap stages, slots take ids of one parity as far as they last.
    fn number(&mut self, compiled: &CompiledInstance, repeats: &[u32]) {
        let total: u32 = repeats.iter().sum();
        if compiled.instance().edge_swaps.is_none() {
            let waves = repeats.iter().copied().max().unwrap_or(0);
            let mut next = 0;
            for wave in 0..waves {
                for (agent, repeats) in self.agents.iter_mut().zip(repeats) {
                    if wave < *repeats {
                        agent.ids.push(next);
                        next += 1;
                    }
                }
            }
            return;
        }
        let mut pools = [(0..total).step_by(2), (1..total).step_by(2)];
        for (index, (agent, repeats)) in self.agents.iter_mut().zip(repeats).enumerate() {
            for _ in 0..*repeats {
                let id = pools[index % 2].next().or_else(|| pools[1 - index % 2].next());
                agent.ids.extend(id);
            }
            agent.swaps = agent.ids.iter().any(|id| compiled.swaps_edges(*id));
        }
    }

    /// The plan in which every slot takes its path, one microbatch after the other.
    pub(super) fn plan<'a>(
        &self,
        compiled: &CompiledInstance,
        placement: &Placement,
        method: &str,
        paths: impl Iterator<Item = &'a [u32]>,
    ) -> PipelinePlan {
        let mut microbatches = Vec::new();
        for (agent, path) in self.agents.iter().zip(paths) {
            let mut after = None;
            for id in &agent.ids {
                let microbatch =
                    PlannedMicrobatch { id: *id, path: path.to_vec(), after, release: 0.0, priority: 0.0 };
                microbatches.push(microbatch);
                after = Some(*id);
            }
        }
        microbatches.sort_unstable_by_key(|microbatch| microbatch.id);
        PipelinePlan {
            instance: compiled.instance().name.clone(),
            method: method.to_owned(),
            mode: PlanMode::Partial,
            policy: DispatchPolicy::default(),
            stages: placement.stages.clone(),
            microbatches,
            node_order: BTreeMap::new(),
        }
    }
}

/// Where a path stands among the rules for the order of stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footing {
    /// Highest stage so far.
    pub(super) frontier: u16,
    swaps: u16,
    distance: u16,
}

impl Footing {
    /// At the origin.
    pub(super) const START: Self = Self { frontier: 0, swaps: 0, distance: 0 };

    /// After one more stage, which the path has not visited yet. None: a rule forbids it.
    pub(super) fn step(self, compiled: &CompiledInstance, stage: u16) -> Option<Self> {
        let rules = &compiled.rules;
        if stage.abs_diff(self.frontier) > rules.jump_max {
            return None;
        }
        if stage > self.frontier {
            return Some(Self { frontier: stage, ..self });
        }
        let back = self.frontier - stage;
        let after = Self { swaps: self.swaps + 1, distance: self.distance + back, ..self };
        let allowed = back <= rules.swap_distance_max
            && after.swaps <= rules.swap_count_max
            && after.distance <= rules.swap_total_distance_max;
        allowed.then_some(after)
    }
}

/// Whether CheckFree+'s swaps let a path that has visited `visited` go on to `stage`.
pub(super) fn keeps_swaps(compiled: &CompiledInstance, visited: impl Fn(u16) -> bool, stage: u16) -> bool {
    compiled
        .edge_pairs()
        .into_iter()
        .all(|(first, second)| usize::from(stage) != first || !visited(second as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{DrawnSize, draw_instance};
    use skipstone_types::StageId;

    #[test]
    fn footing_agrees_with_the_rules() {
        let mut instance = draw_instance(DrawnSize { nodes: 8, stages: 6, path_len: 4, regions: 2 }, 1);
        let mut random = crate::random::Random::new(&[11]);
        for _ in 0..3000 {
            instance.swap.max_count = random.below(4) as u32;
            instance.swap.max_distance = random.below(4) as u32;
            instance.swap.max_total_distance = random.below(5) as u32;
            instance.max_jump = 1 + random.below(5) as u32;
            let compiled = CompiledInstance::new(&instance).unwrap();
            let mut stages: Vec<u16> = (1..6).collect();
            random.shuffle(&mut stages);
            stages.truncate(1 + random.below(5));
            let walked =
                stages.iter().try_fold(Footing::START, |footing, stage| footing.step(&compiled, *stage));
            let sequence: Vec<StageId> = std::iter::once(0).chain(stages).map(StageId).collect();
            assert_eq!(walked.is_some(), compiled.rules.check(&sequence).is_ok(), "{sequence:?}");
        }
    }
}
