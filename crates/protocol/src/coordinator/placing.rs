//! Which node gets which stage, where the driver knows of links (`Settings::places`): it is asked, and its answer is carried
//! out as far as the swarm is still the one that it was asked about. Where it is late, nodes get stages as they come.

use super::roster::{JoinKind, Role};
use super::{Base, Coordinator, GATHER_GRACE_US, Phase};
use crate::command::CoordinatorCommand;
use crate::message::Method;
use skipstone_types::{Event, Iteration, NodeId, PathRules, PlaceAnswer, PlaceProblem, StageId, Swap};

/// How long the first nodes are waited for before those that are there are given stages.
const FIRST_NODES_GRACE_US: u64 = GATHER_GRACE_US / 2;

/// How long the answer is waited for at the start, and while stages want nodes. Drivers answer sooner.
const FIRST_PATIENCE_US: u64 = 10_000_000;
const PATIENCE_US: u64 = 1_000_000;

/// After an answer that placed nobody nodes get stages as they come, for so long.
const QUIET_US: u64 = 1_000_000;

/// Iterations from one question whether two nodes should change places to the next: paces follow a change within less.
const SWAP_EVERY: u64 = 10;

/// A swap has to pay for itself within so many iterations: who knows what the swarm is then.
const SWAP_WITHIN_MAX: u64 = 100;

/// What the driver was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Stages for the first nodes.
    First,
    /// Stages for nodes that came later.
    Places,
    /// Whether two nodes should change places.
    Swap,
}

/// The question that is not answered yet, and what follows from earlier ones.
#[derive(Debug, Default)]
pub(super) struct Placing {
    epoch: u64,
    asked: Option<(u64, Wanted)>,
    asked_us: u64,
    /// Whether the first nodes have got their stages.
    started: bool,
    /// Nobody is asked for places before.
    quiet_until_us: u64,
    /// The next iteration before which nodes may change places.
    swap_from: Iteration,
    /// Two nodes that change places before the next attempt.
    swap: Option<PlaceAnswer>,
}

impl Coordinator {
    /// Whether the first nodes wait until it is known which of them goes where.
    pub(super) fn first_places_are_awaited(&mut self, base: Base, until_us: u64) -> bool {
        if !self.settings.places || self.placing.started {
            return false;
        }
        if let Some((epoch, _)) = self.placing.asked {
            if self.is_patient(FIRST_PATIENCE_US) {
                return true;
            }
            self.on_placed(&PlaceAnswer { epoch, ..PlaceAnswer::default() });
            return false;
        }
        let all = self.nodes.len() >= self.settings.nodes();
        if !all && self.now_us + GATHER_GRACE_US < until_us + FIRST_NODES_GRACE_US {
            return true;
        }
        let Some(open) = self.first_open(base) else {
            self.placing.started = true;
            return false;
        };
        self.ask_for_places(Wanted::First, open);
        true
    }

    /// A driver that must not hurry, so that its answer does not depend on time, is waited for as long as it takes.
    fn is_patient(&self, patience_us: u64) -> bool {
        self.settings.deterministic || self.now_us < self.placing.asked_us + patience_us
    }

    /// How many nodes each stage gets at the start: as many as it should have, or fewer where not enough have come; none if
    /// not every stage can have one.
    fn first_open(&self, base: Base) -> Option<Vec<u16>> {
        let mut open = vec![0; self.stages.len()];
        let stages = self.first_stages(base);
        for stage in &stages {
            open[usize::from(stage.0)] = self.settings.replicas_of(*stage);
        }
        let free = self.spare_nodes().len();
        while open.iter().copied().map(usize::from).sum::<usize>() > free {
            let richest = stages.iter().map(|stage| usize::from(stage.0)).max_by_key(|stage| open[*stage])?;
            open[richest] -= 1;
        }
        stages.iter().all(|stage| open[usize::from(stage.0)] > 0).then_some(open)
    }

    fn ask_for_places(&mut self, wanted: Wanted, open: Vec<u16>) {
        let placing = &mut self.placing;
        placing.epoch += 1;
        (placing.asked, placing.asked_us) = (Some((placing.epoch, wanted)), self.now_us);
        let swaps = wanted == Wanted::Swap;
        let left = self.settings.steps.saturating_sub(self.iteration.0);
        let mut nodes = vec![Vec::new(); self.stages.len()];
        for (id, node) in self.nodes.iter() {
            match &node.role {
                Role::Serving { stage } if !self.is_leaving(*id) => nodes[usize::from(stage.0)].push(*id),
                Role::Joining(join) => nodes[usize::from(join.stage.0)].push(*id),
                _ => {}
            }
        }
        let problem = PlaceProblem {
            epoch: self.placing.epoch,
            seed: self.settings.seed,
            iteration: self.iteration,
            nodes,
            free: if swaps { Vec::new() } else { self.spare_nodes() },
            open,
            swap_within: if swaps { left.min(SWAP_WITHIN_MAX) } else { 0 },
            microbatches: self.settings.microbatches,
            path_length: self.settings.path_length(),
            rules: PathRules::default(),
            paces: self.paces(),
            edge_swaps: self.settings.edge_swaps,
        };
        self.out.push(CoordinatorCommand::Place { problem });
    }

    /// The driver has answered.
    pub(super) fn on_placed(&mut self, answer: &PlaceAnswer) {
        let Some((_, wanted)) = self.placing.asked.take_if(|(epoch, _)| *epoch == answer.epoch) else {
            return;
        };
        match (wanted, &self.phase) {
            (Wanted::First, Phase::Gathering { base, .. }) => {
                let base = *base;
                self.placing.started = true;
                let stages = self.first_stages(base);
                self.carry_out_places(answer, |coordinator, node, stage| {
                    let wants =
                        coordinator.population(stage) < usize::from(coordinator.settings.replicas_of(stage));
                    let fits = stages.contains(&stage) && wants;
                    if fits {
                        coordinator.assign_first(node, stage, base);
                    }
                    fits
                });
            }
            (Wanted::Places, Phase::Running) => {
                let placed = self.carry_out_places(answer, |coordinator, node, stage| {
                    if coordinator.needy_stages().contains(&stage) {
                        coordinator.fill(node, stage);
                    }
                    // There may be nothing to fill it from.
                    coordinator.nodes.get(&node).is_some_and(|node| !matches!(node.role, Role::Spare))
                });
                if placed == 0 {
                    self.placing.quiet_until_us = self.now_us + QUIET_US;
                }
            }
            (Wanted::Swap, Phase::Running) => {
                self.placing.swap = answer.swap.is_some().then(|| answer.clone());
            }
            _ => {}
        }
    }

    /// Gives nodes stages as answered, where `give` says that it fits; how many got one.
    fn carry_out_places(
        &mut self,
        answer: &PlaceAnswer,
        mut give: impl FnMut(&mut Self, NodeId, StageId) -> bool,
    ) -> usize {
        let told = self.out.len();
        let mut places = Vec::new();
        for (node, stage) in &answer.places {
            let free = self.nodes.get(node).is_some_and(|node| matches!(node.role, Role::Spare));
            if free && usize::from(stage.0) < self.stages.len() && give(self, *node, *stage) {
                places.push((*node, *stage));
            }
        }
        let count = places.len();
        let event = placed_event(answer, places);
        self.out.insert(told, CoordinatorCommand::Log { event });
        count
    }

    /// Whether nodes without a stage wait for an answer, or ask, because there is a choice: several of them, or several stages.
    pub(super) fn places_are_awaited(&mut self) -> bool {
        if !self.settings.places || self.now_us < self.placing.quiet_until_us {
            return false;
        }
        match self.placing.asked {
            Some((_, Wanted::Places)) if self.is_patient(PATIENCE_US) => return true,
            Some((epoch, Wanted::Places)) => {
                self.on_placed(&PlaceAnswer { epoch, ..PlaceAnswer::default() });
                return false;
            }
            // It is of no use any more.
            Some(_) | None => self.placing.asked = None,
        }
        let needy = self.needy_stages();
        if needy.is_empty() || needy.len() * self.spare_nodes().len() < 2 {
            return false;
        }
        let mut open = vec![0; self.stages.len()];
        for stage in needy {
            open[usize::from(stage.0)] = 1;
        }
        self.ask_for_places(Wanted::Places, open);
        true
    }

    /// Between attempts: nodes change places if that was found worth it.
    pub(super) fn change_places(&mut self) {
        if let Some(answer) = self.placing.swap.take() {
            self.swap(&answer);
        }
    }

    /// Now and then it is asked whether two nodes should change places. Never in a deterministic run, as answers come when they
    /// come.
    pub(super) fn ask_for_swap(&mut self) {
        if !self.settings.places || self.settings.deterministic {
            return;
        }
        self.placing.swap_from = self.placing.swap_from.max(Iteration(SWAP_EVERY));
        let due = self.iteration >= self.placing.swap_from && self.iteration.0 < self.settings.steps;
        if due && self.placing.asked.is_none() && self.is_at_rest() {
            self.placing.swap_from = Iteration(self.iteration.0 + SWAP_EVERY);
            self.ask_for_places(Wanted::Swap, vec![0; self.stages.len()]);
        }
    }

    /// Whether nobody comes or goes, and nothing is being saved.
    fn is_at_rest(&self) -> bool {
        let leaves =
            |id: &NodeId| matches!(self.nodes.get(id).map(|node| &node.role), Some(Role::Serving { .. }));
        let settled = self.nodes.joins().next().is_none() && !self.nodes.leaving().iter().any(leaves);
        settled && self.saving.is_none() && self.stop_since_us.is_none() && self.holes().is_empty()
    }

    fn swap(&mut self, answer: &PlaceAnswer) {
        let Some(Swap { a, b, .. }) = answer.swap else { return };
        let stage_of = |id| match self.nodes.get(&id).map(|node| &node.role) {
            Some(Role::Serving { stage }) => Some(*stage),
            _ => None,
        };
        let (Some(of_a), Some(of_b)) = (stage_of(a), stage_of(b)) else { return };
        // Nobody leaves a stage without another replica.
        let alone = |stage| self.serving(stage).len() < 2;
        if of_a == of_b || alone(of_a) || alone(of_b) || !self.is_at_rest() {
            return;
        }
        let event = placed_event(answer, vec![(a, of_b), (b, of_a)]);
        self.log(event);
        // How fast it is at another stage shows there.
        for (node, stage) in [(a, of_b), (b, of_a)] {
            let donors: Vec<_> =
                self.serving(stage).into_iter().filter(|donor| *donor != a && *donor != b).collect();
            self.forget_pace(node);
            let method = Method::Copy { donors: donors.clone() };
            self.assign(node, stage, JoinKind::Copy, method, donors, "copy");
        }
    }
}

fn placed_event(answer: &PlaceAnswer, places: Vec<(NodeId, StageId)>) -> Event {
    let by = match answer.expected_us {
        Some(_) => "search",
        None if answer.places.is_empty() => "order",
        None => "plan",
    };
    Event::Placed {
        by: by.to_owned(),
        places,
        expected_ms: answer.expected_us.map(|us| us / 1000),
        before_ms: answer.swap.map(|swap| swap.before_us / 1000),
        copies_ms: answer.swap.map(|swap| swap.copies_us / 1000),
        lost_with_a_region: answer.lost_with_a_region,
        domain_price_ms: answer.domain_price_us / 1000,
    }
}
