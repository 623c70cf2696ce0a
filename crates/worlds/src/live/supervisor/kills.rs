//! Kills and notices on purpose: the demo's script, and `--churn`.

use crate::config::{Churn, Kill, PlacesChange, Target, When};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use skipstone_types::{Event, Iteration, NodeId, StageId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What is done to a victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// SIGKILL.
    Kill(Option<NodeId>),
    /// Notice: it leaves once others have what is needed of it.
    Drain(NodeId),
    /// SIGKILL for all nodes of a region, or notice, but for the last origin.
    Region {
        /// Which.
        region: u16,
        /// Notice.
        notice: bool,
    },
}

/// Kills to be made in a run, in any order.
pub type KillScript = Vec<Kill>;

/// Who lives, as the parent hears it.
#[derive(Debug, Clone, Default)]
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

    /// Those of `nodes` that may die together: all but the last origin.
    pub(crate) fn but_the_last_origin(&self, nodes: Vec<NodeId>) -> Vec<NodeId> {
        let origins = self.of_stage(StageId::ORIGIN);
        let spared = origins.iter().all(|origin| nodes.contains(origin)).then(|| origins.last().copied());
        nodes.into_iter().filter(|node| spared.flatten() != Some(*node)).collect()
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
    /// What is still to come of a spot market's trace.
    spot: VecDeque<PlacesChange>,
    /// Places that stay empty, since the trace has no machine for them.
    away: usize,
    /// When the next random kill is due.
    next: Option<Duration>,
    /// Who is killed at random.
    random: ChaCha8Rng,
    /// When. Drawn once a kill, so that a seed's kills fall at the same times however often the parent looks.
    pauses: ChaCha8Rng,
}

impl Killer {
    /// For a swarm of `places` nodes.
    pub(crate) fn new(script: KillScript, churn: Option<Churn>, seed: u64, places: usize) -> Self {
        let (mut script, mut spot) = (script, VecDeque::new());
        let churn = match churn {
            Some(Churn::Spot(trace)) => {
                spot = trace.on(places as u32).into();
                None
            }
            Some(Churn::Trace(kills)) => {
                script.extend(kills);
                None
            }
            churn => churn,
        };
        let random = ChaCha8Rng::seed_from_u64(seed ^ 0x006b_696c_6c73);
        let pauses = ChaCha8Rng::seed_from_u64(seed ^ 0x7061_7573_6573);
        Self { script, churn, spot, away: 0, next: None, random, pauses }
    }

    /// Who was killed before a run's saved state is not killed again when it goes on from there.
    pub(crate) fn going_on_from(mut self, saved: Iteration) -> Self {
        self.script.retain(|kill| !matches!(kill.when, When::Iteration(at) if at <= saved));
        self
    }

    /// Whether places are empty that a trace will have machines for, or may.
    pub(crate) fn waits_for_machines(&self) -> bool {
        self.away > 0 && !self.spot.is_empty()
    }

    /// How many places are to stay empty.
    pub(crate) fn away(&self) -> usize {
        self.away
    }

    /// What is to be done now; a kill that names no node is the coordinator's.
    pub(crate) fn due(&mut self, elapsed: Duration, iteration: Iteration, roster: &Roster) -> Vec<Deed> {
        let is_due = |when: When| match when {
            When::Iteration(at) => iteration >= at,
            // Nobody dies by the clock before training has begun.
            When::At(at) => elapsed >= at && iteration > Iteration(0),
        };
        let (mut due, rest) = self.script.drain(..).partition::<Vec<_>, _>(|kill| is_due(kill.when));
        self.script = rest;
        due.sort_by_key(|kill| matches!(kill.target, Target::Coordinator));
        let mut victims = Vec::new();
        for Kill { target, notice, .. } in due {
            let nodes = match target {
                Target::Coordinator => {
                    victims.push(Deed::Kill(None));
                    continue;
                }
                Target::Region(region) => {
                    victims.push(Deed::Region { region, notice });
                    continue;
                }
                Target::Stage(stage) => self.one_of(&roster.of_stage(stage)).into_iter().collect(),
                Target::WholeStage(stage) => roster.of_stage(stage),
                Target::AnyNode => self.one_of(&roster.mortal()).into_iter().collect(),
                Target::Node(index) => {
                    let nodes = roster.all();
                    nodes.get(index as usize % nodes.len().max(1)).copied().into_iter().collect()
                }
            };
            let deed = |node| if notice { Deed::Drain(node) } else { Deed::Kill(Some(node)) };
            victims.extend(nodes.into_iter().map(deed));
        }
        victims.extend(self.churned(elapsed, iteration, roster));
        self.take_away(elapsed, iteration, roster, &mut victims);
        victims
    }

    /// The victims of a spot market, but for the last origin.
    fn take_away(
        &mut self,
        elapsed: Duration,
        iteration: Iteration,
        roster: &Roster,
        victims: &mut Vec<Deed>,
    ) {
        if iteration == Iteration(0) || self.spot.front().is_none_or(|change| change.at > elapsed) {
            return;
        }
        let mut left = roster.clone();
        while let Some(change) = self.spot.pop_front_if(|change| change.at <= elapsed) {
            self.away = change.away as usize;
            for _ in 0..change.taken {
                let mortal = left.mortal();
                let Some(node) = self.one_of(&mortal) else { break };
                left.forget(node);
                victims.push(Deed::Kill(Some(node)));
            }
        }
    }

    fn one_of(&mut self, nodes: &[NodeId]) -> Option<NodeId> {
        if nodes.is_empty() { None } else { Some(nodes[self.random.random_range(0..nodes.len())]) }
    }

    fn churned(&mut self, elapsed: Duration, iteration: Iteration, roster: &Roster) -> Option<Deed> {
        if iteration == Iteration(0) || self.churn.is_none() {
            return None;
        }
        let next = match self.next {
            Some(next) => next,
            None => elapsed.saturating_add(self.pause(roster.mortal_count())),
        };
        self.next = Some(next);
        if elapsed < next {
            return None;
        }
        self.next = Some(next.saturating_add(self.pause(roster.mortal_count())));
        self.one_of(&roster.mortal()).map(|node| Deed::Kill(Some(node)))
    }

    /// Until the next random kill: fixed, or exponential for a rate per node.
    fn pause(&mut self, nodes: usize) -> Duration {
        match self.churn {
            Some(Churn::Every(interval)) => interval,
            Some(Churn::PerNodeHour(rate)) => {
                let per_second = rate * nodes.max(1) as f64 / 3600.0;
                let uniform: f64 = self.pauses.random();
                Duration::from_secs_f64((-(1.0 - uniform).ln() / per_second).min(1e9))
            }
            Some(Churn::Trace(_) | Churn::Spot(_)) | None => Duration::MAX,
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
            Kill::new(When::Iteration(Iteration(5)), Target::WholeStage(StageId(1))),
            Kill::new(When::At(Duration::from_secs(1)), Target::Coordinator),
        ];
        let mut killer = Killer::new(script, None, 1, 4);
        assert_eq!(killer.due(Duration::ZERO, Iteration(4), &roster()), []);
        let all: Vec<_> = (2..=4).map(|node| Deed::Kill(Some(NodeId(node)))).collect();
        assert_eq!(killer.due(Duration::ZERO, Iteration(5), &roster()), all);
        assert_eq!(killer.due(Duration::from_secs(2), Iteration(5), &roster()), [Deed::Kill(None)]);
        assert_eq!(killer.due(Duration::from_secs(9), Iteration(9), &roster()), []);
        assert!(!roster().mortal().contains(&NodeId(1)));
        assert_eq!(roster().mortal_count(), roster().mortal().len());
    }

    #[test]
    fn what_a_script_has_done_before_a_run_goes_on_is_done() {
        let kill = |at| Kill::new(When::Iteration(Iteration(at)), Target::Coordinator);
        let killer = Killer::new(vec![kill(5), kill(8), kill(9)], None, 1, 4);
        let mut killer = killer.going_on_from(Iteration(8));
        assert_eq!(killer.due(Duration::ZERO, Iteration(8), &roster()), []);
        assert_eq!(killer.due(Duration::ZERO, Iteration(9), &roster()), [Deed::Kill(None)]);
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
        let line = |at_s, notice| Kill {
            when: When::At(Duration::from_secs(at_s)),
            target: Target::Node(1),
            notice,
        };
        let trace = Churn::Trace(vec![line(1, true), line(2, false)]);
        let mut killer = Killer::new(vec![], Some(trace), 1, 4);
        let mut due = |at_s| killer.due(Duration::from_secs(at_s), Iteration(1), &roster());
        assert_eq!(due(0), []);
        assert_eq!(due(1), [Deed::Drain(NodeId(2))]);
        assert_eq!(due(3), [Deed::Kill(Some(NodeId(2)))]);
        assert_eq!(due(9), []);
    }

    #[test]
    fn a_rate_kills_about_as_often_as_it_says() {
        // 3 mortal nodes at 100 deaths an hour each: 300 an hour.
        let mut killer = Killer::new(vec![], Some(Churn::PerNodeHour(100.0)), 7, 4);
        let roster = roster();
        let kills: usize = (0..36_000_u32)
            .map(|tenth| {
                killer.due(Duration::from_millis(u64::from(tenth) * 100), Iteration(1), &roster).len()
            })
            .sum();
        assert!((240..=360).contains(&kills), "{kills}");
    }

    #[test]
    fn kills_fall_at_the_same_times_however_often_the_parent_looks() {
        let times = |every_ms: u64| -> Vec<u64> {
            let mut killer = Killer::new(vec![], Some(Churn::PerNodeHour(100.0)), 0, 4);
            let roster = roster();
            let looks = (0..3_600_000 / every_ms).map(|look| look * every_ms);
            looks
                .filter(|at_ms| !killer.due(Duration::from_millis(*at_ms), Iteration(1), &roster).is_empty())
                .map(|at_ms| at_ms / 1000)
                .collect()
        };
        let seldom = times(1000);
        assert!(!seldom.is_empty());
        let often = times(100);
        // Two kills within a second are two looks apart.
        assert!(seldom.len().abs_diff(often.len()) <= 2, "{} and {}", seldom.len(), often.len());
        assert!(seldom[..5].iter().zip(&often).all(|(a, b)| a.abs_diff(*b) <= 2), "{seldom:?} {often:?}");
    }

    #[test]
    fn a_spot_market_takes_what_it_says_and_spares_the_last_origin() {
        let text = "0,add,a\n0,add,b\n0,add,c\n0,add,d\n1000,remove,a\n1000,remove,b\n5000,remove,c\n5000,remove,d\n9000,add,a\n";
        let trace = crate::config::SpotTrace::parse(text).unwrap();
        let mut killer = Killer::new(vec![], Some(Churn::Spot(trace)), 1, 4);
        let mut roster = roster();
        let mut due = |at_s, iteration, roster: &mut Roster| {
            let deeds = killer.due(Duration::from_secs(at_s), Iteration(iteration), roster);
            for deed in &deeds {
                let Deed::Kill(Some(node)) = deed else { panic!("{deed:?}") };
                assert_ne!(*node, NodeId(1), "the last origin");
                assert!(roster.process_of(*node).is_some(), "nobody dies twice");
                roster.forget(*node);
            }
            (deeds.len(), killer.away())
        };
        assert_eq!(due(2, 0, &mut roster), (0, 0), "nobody dies before training has begun");
        assert_eq!(due(2, 1, &mut roster), (2, 2));
        assert_eq!(due(4, 2, &mut roster), (0, 2));
        // Two are to go; one of the two that are left is the origin.
        assert_eq!(due(6, 3, &mut roster), (1, 4));
        assert_eq!(due(9, 4, &mut roster), (0, 3));
    }
}
