//! Kills and notices on purpose: the demo's script, and `--churn`.

use crate::config::{Churn, TraceLine, TraceTarget};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use skipstone_types::{Event, Iteration, NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Whom to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A node of the stage.
    Stage(StageId),
    /// All nodes of the stage, at once.
    WholeStage(StageId),
    /// Any node, but not the last origin: no strategy rebuilds it.
    AnyNode,
    /// The coordinator.
    Coordinator,
}

/// When to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As soon as this iteration is under way.
    Iteration(Iteration),
    /// So long after the start.
    At(Duration),
}

/// What is done to a victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// SIGKILL.
    Kill(Option<NodeId>),
    /// Notice: it leaves once others have what is needed of it.
    Drain(NodeId),
}

/// One line of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// When.
    pub when: When,
    /// Whom.
    pub target: Target,
}

/// Kills to be made in a run, in any order.
pub type KillScript = Vec<Kill>;

/// Who lives, as the parent hears it.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    nodes: BTreeMap<NodeId, (u32, Option<StageId>)>,
    /// Those that the coordinator of now has taken in. Of the others nobody says when they die.
    heard: BTreeSet<NodeId>,
}

impl Roster {
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::CoordinatorStarted { .. } => self.heard.clear(),
            Event::NodeJoined { node, process, was } => {
                self.heard.insert(*node);
                // Nobody is killed under an id that a restart of the coordinator took from him. What he holds he still
                // holds, unless he is told to forget it: he may be the last origin.
                let before = was.and_then(|was| self.nodes.remove(&was));
                self.nodes.insert(*node, (*process, before.and_then(|(_, serves)| serves)));
            }
            Event::NodeEmptied { node, .. } => {
                if let Some((_, serves)) = self.nodes.get_mut(node) {
                    *serves = None;
                }
            }
            Event::NodeEntered { node, stage, .. } => {
                if let Some((_, serves)) = self.nodes.get_mut(node) {
                    *serves = Some(*stage);
                }
            }
            Event::NodeLost { node, .. } => self.forget(*node),
            _ => {}
        }
    }

    pub(crate) fn process_of(&self, node: NodeId) -> Option<u32> {
        self.nodes.get(&node).map(|(process, _)| *process)
    }

    pub(crate) fn stage_of(&self, node: NodeId) -> Option<StageId> {
        self.nodes.get(&node).and_then(|(_, stage)| *stage)
    }

    pub(crate) fn of_stage(&self, stage: StageId) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, (_, serves))| *serves == Some(stage)).map(|(node, _)| *node).collect()
    }

    /// All nodes.
    pub(crate) fn all(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// A node is gone, although nobody has said so yet.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.heard.remove(&node);
    }

    /// Whether the coordinator of now has taken it in.
    pub(crate) fn is_heard(&self, node: NodeId) -> bool {
        self.heard.contains(&node)
    }

    /// All nodes that may be killed at random.
    fn mortal(&self) -> Vec<NodeId> {
        let origins = self.of_stage(StageId::ORIGIN);
        self.nodes.keys().copied().filter(|node| origins.len() > 1 || !origins.contains(node)).collect()
    }

    /// How many those are. Asked at every look of the parent, so it lists nobody.
    fn mortal_count(&self) -> usize {
        let origins = self.nodes.values().filter(|(_, serves)| *serves == Some(StageId::ORIGIN)).take(2);
        self.nodes.len() - usize::from(origins.count() == 1)
    }
}

/// Decides who is killed when.
#[derive(Debug)]
pub(crate) struct Killer {
    script: KillScript,
    churn: Option<Churn>,
    /// When the next random kill is due.
    next: Option<Duration>,
    random: ChaCha8Rng,
}

impl Killer {
    pub(crate) fn new(script: KillScript, churn: Option<Churn>, seed: u64) -> Self {
        Self { script, churn, next: None, random: ChaCha8Rng::seed_from_u64(seed ^ 0x006b_696c_6c73) }
    }

    /// What is to be done now; a kill that names no node is the coordinator's.
    pub(crate) fn due(&mut self, elapsed: Duration, iteration: Iteration, roster: &Roster) -> Vec<Deed> {
        let is_due = |when: When| match when {
            When::Iteration(at) => iteration >= at,
            When::At(at) => elapsed >= at,
        };
        let (mut due, rest) = self.script.drain(..).partition::<Vec<_>, _>(|kill| is_due(kill.when));
        self.script = rest;
        due.sort_by_key(|kill| matches!(kill.target, Target::Coordinator));
        let mut victims = Vec::new();
        for kill in due {
            match kill.target {
                Target::Coordinator => victims.push(Deed::Kill(None)),
                Target::Stage(stage) => {
                    let nodes = roster.of_stage(stage);
                    victims.extend(self.one_of(&nodes).map(|node| Deed::Kill(Some(node))));
                }
                Target::WholeStage(stage) => {
                    victims.extend(roster.of_stage(stage).into_iter().map(|node| Deed::Kill(Some(node))));
                }
                Target::AnyNode => {
                    let nodes = roster.mortal();
                    victims.extend(self.one_of(&nodes).map(|node| Deed::Kill(Some(node))));
                }
            }
        }
        victims.extend(self.churned(elapsed, iteration, roster));
        victims
    }

    fn one_of(&mut self, nodes: &[NodeId]) -> Option<NodeId> {
        if nodes.is_empty() { None } else { Some(nodes[self.random.random_range(0..nodes.len())]) }
    }

    fn churned(&mut self, elapsed: Duration, iteration: Iteration, roster: &Roster) -> Option<Deed> {
        if iteration == Iteration(0) {
            return None;
        }
        match self.churn.take()? {
            Churn::Trace(mut trace) => {
                let due = trace.first().copied().filter(|line| elapsed >= line.at);
                if due.is_some() {
                    trace.remove(0);
                }
                self.churn = Some(Churn::Trace(trace));
                let TraceLine { target, notice, .. } = due?;
                let node = match target {
                    TraceTarget::Stage(stage) => {
                        let nodes = roster.of_stage(stage);
                        self.one_of(&nodes)
                    }
                    TraceTarget::Node(index) => {
                        let nodes: Vec<_> = roster.nodes.keys().copied().collect();
                        nodes.get(index as usize % nodes.len().max(1)).copied()
                    }
                };
                node.map(|node| if notice { Deed::Drain(node) } else { Deed::Kill(Some(node)) })
            }
            churn => {
                let pause = self.pause(&churn, roster.mortal_count());
                self.churn = Some(churn);
                let next = *self.next.get_or_insert(elapsed + pause);
                if elapsed < next {
                    return None;
                }
                self.next = Some(next + pause);
                self.one_of(&roster.mortal()).map(|node| Deed::Kill(Some(node)))
            }
        }
    }

    /// Until the next random kill: fixed, or exponential for a rate per node.
    fn pause(&mut self, churn: &Churn, nodes: usize) -> Duration {
        match churn {
            Churn::Every(interval) => *interval,
            Churn::PerNodeHour(rate) => {
                let per_second = rate * nodes.max(1) as f64 / 3600.0;
                let uniform: f64 = self.random.random();
                Duration::from_secs_f64((-(1.0 - uniform).ln() / per_second).min(1e9))
            }
            Churn::Trace(_) => Duration::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> Roster {
        let mut roster = Roster::default();
        for node in 1..=4_u32 {
            roster.apply(&Event::NodeJoined { node: NodeId(node), process: 100 + node, was: None });
            let stage = StageId(u16::from(node > 1));
            roster.apply(&Event::NodeEntered {
                node: NodeId(node),
                stage,
                iteration: Iteration(0),
                took_ms: 0,
            });
        }
        roster
    }

    #[test]
    fn a_script_strikes_once_and_the_last_origin_is_spared_by_chance() {
        let script = vec![
            Kill { when: When::Iteration(Iteration(5)), target: Target::WholeStage(StageId(1)) },
            Kill { when: When::At(Duration::from_secs(1)), target: Target::Coordinator },
        ];
        let mut killer = Killer::new(script, None, 1);
        assert_eq!(killer.due(Duration::ZERO, Iteration(4), &roster()), []);
        let all: Vec<_> = (2..=4).map(|node| Deed::Kill(Some(NodeId(node)))).collect();
        assert_eq!(killer.due(Duration::ZERO, Iteration(5), &roster()), all);
        assert_eq!(killer.due(Duration::from_secs(2), Iteration(5), &roster()), [Deed::Kill(None)]);
        assert_eq!(killer.due(Duration::from_secs(9), Iteration(9), &roster()), []);
        assert!(!roster().mortal().contains(&NodeId(1)));
        assert_eq!(roster().mortal_count(), roster().mortal().len());
    }

    #[test]
    fn the_last_origin_is_known_under_its_next_id_too() {
        let mut roster = roster();
        roster.apply(&Event::NodeJoined { node: NodeId(65), process: 101, was: Some(NodeId(1)) });
        assert_eq!(roster.of_stage(StageId::ORIGIN), [NodeId(65)]);
        assert!(!roster.mortal().contains(&NodeId(65)));
        assert_eq!(roster.mortal_count(), roster.mortal().len());
        roster.apply(&Event::NodeEmptied { node: NodeId(65), stage: StageId::ORIGIN });
        assert!(roster.mortal().contains(&NodeId(65)), "it holds nothing any more");
        assert_eq!(roster.mortal_count(), roster.mortal().len());
    }

    #[test]
    fn a_trace_gives_notice_where_it_says_drain() {
        let line =
            |at_s, notice| TraceLine { at: Duration::from_secs(at_s), target: TraceTarget::Node(1), notice };
        let trace = Churn::Trace(vec![line(1, true), line(2, false)]);
        let mut killer = Killer::new(vec![], Some(trace), 1);
        let mut due = |at_s| killer.due(Duration::from_secs(at_s), Iteration(1), &roster());
        assert_eq!(due(0), []);
        assert_eq!(due(1), [Deed::Drain(NodeId(2))]);
        assert_eq!(due(3), [Deed::Kill(Some(NodeId(2)))]);
        assert_eq!(due(9), []);
    }

    #[test]
    fn a_rate_kills_about_as_often_as_it_says() {
        // 3 mortal nodes at 100 deaths an hour each: 300 an hour.
        let mut killer = Killer::new(vec![], Some(Churn::PerNodeHour(100.0)), 7);
        let roster = roster();
        let kills: usize = (0..36_000_u32)
            .map(|tenth| {
                killer.due(Duration::from_millis(u64::from(tenth) * 100), Iteration(1), &roster).len()
            })
            .sum();
        assert!((240..=360).contains(&kills), "{kills}");
    }
}
