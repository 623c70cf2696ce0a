//! Faults of every kind, at random times, on a live swarm (`skipstone chaos`).

use super::children::Children;
use super::kills::Roster;
use crate::live::control::Control;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use skipstone_net::CutDirection;
use skipstone_types::{Event, NodeId, StageId};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL to a node; now and then to all nodes of a relay stage at once.
    Kill,
    /// SIGSTOP to a node, SIGCONT later.
    Stop,
    /// A link is cut for a while, both ways or one.
    Partition,
    /// A node takes longer for every task, for a while.
    Slow,
    /// A frame is damaged on its way.
    Corrupt,
    /// A node is told that its machine is about to be taken away.
    Drain,
    /// SIGKILL to the coordinator.
    Coordinator,
    /// A node computes wrong sums from then on, of the usual size: only by name, and only spot checks find it.
    Lie,
}

impl Fault {
    /// All kinds that a run survives without a trace: those that are made if none is named.
    pub const ALL: [Self; 7] =
        [Self::Kill, Self::Stop, Self::Partition, Self::Slow, Self::Corrupt, Self::Drain, Self::Coordinator];

    /// The name in options and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Partition => "partition",
            Self::Slow => "slow",
            Self::Corrupt => "corrupt",
            Self::Drain => "drain",
            Self::Coordinator => "coordinator",
            Self::Lie => "lie",
        }
    }

    /// How often it is drawn, against the others.
    fn weight(self) -> u32 {
        if self == Self::Kill { 5 } else { 1 }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.into_iter().chain([Self::Lie]);
        known().find(|fault| fault.name() == name).ok_or_else(|| {
            let names: Vec<_> = known().map(Self::name).collect();
            format!("'{name}' is no fault; choose from {}", names.join(", "))
        })
    }
}

/// What a chaos run does.
#[derive(Debug, Clone, PartialEq)]
pub struct ChaosPlan {
    /// How long faults are made; then the run is stopped as by Ctrl-C.
    pub time: Duration,
    /// Mean time between faults; the times are exponentially distributed.
    pub mean_between: Duration,
    /// Kinds of faults.
    pub faults: Vec<Fault>,
    /// Draws kinds, times and victims.
    pub seed: u64,
    /// A run that commits nothing for so long hangs, and is ended.
    pub hang: Duration,
}

/// A node that was stopped, cut off or damaged may be lost for it, and comes back a moment after.
const AFTERMATH: Duration = Duration::from_secs(4);

/// Makes the faults of a plan.
#[derive(Debug)]
pub(super) struct Injector {
    plan: ChaosPlan,
    random: ChaCha8Rng,
    next: Option<Duration>,
    /// Nodes that may not hold on to their state for now, and until when.
    afflicted: BTreeMap<NodeId, Duration>,
    /// Stopped processes, and when they go on.
    stopped: Vec<(Duration, u32)>,
}

impl Injector {
    pub(super) fn new(plan: ChaosPlan) -> Self {
        let random = ChaCha8Rng::seed_from_u64(plan.seed ^ 0x6368_616f_7321);
        Self { plan, random, next: None, afflicted: BTreeMap::new(), stopped: Vec::new() }
    }

    pub(super) fn plan(&self) -> &ChaosPlan {
        &self.plan
    }

    /// Makes the faults that are due, and answers with what is to be logged.
    pub(super) fn make(
        &mut self,
        elapsed: Duration,
        roster: &mut Roster,
        children: &mut Children,
    ) -> Vec<Event> {
        self.go_on(elapsed, children);
        let pause = self.pause();
        let next = *self.next.get_or_insert(elapsed + pause);
        if elapsed < next {
            return Vec::new();
        }
        self.next = Some(next.max(elapsed.saturating_sub(self.plan.mean_between)) + pause);
        self.afflicted.retain(|_, until| *until > elapsed);
        match self.draw_fault() {
            Fault::Coordinator if children.kill_coordinator() => {
                vec![Event::Killed { target: "coordinator".to_owned(), node: None, stage: None }]
            }
            Fault::Coordinator => Vec::new(),
            Fault::Kill => self.kill(elapsed, roster, children),
            fault => self.disturb(fault, elapsed, roster, children).into_iter().collect(),
        }
    }

    /// Stopped nodes go on: those whose time is up, or all at the end.
    pub(super) fn go_on(&mut self, elapsed: Duration, children: &mut Children) {
        let end = elapsed >= self.plan.time;
        self.stopped.retain(|(until, process)| {
            let goes_on = end || elapsed >= *until;
            if goes_on {
                children.halt_node(*process, false);
            }
            !goes_on
        });
    }

    fn pause(&mut self) -> Duration {
        let uniform: f64 = self.random.random();
        self.plan.mean_between.mul_f64((-(1.0 - uniform).ln()).min(20.0))
    }

    fn draw_fault(&mut self) -> Fault {
        let total: u32 = self.plan.faults.iter().map(|fault| fault.weight()).sum();
        let mut drawn = self.random.random_range(0..total.max(1));
        for fault in &self.plan.faults {
            if drawn < fault.weight() {
                return *fault;
            }
            drawn -= fault.weight();
        }
        Fault::Kill
    }

    /// Nodes that may be lost. The last healthy origin may not: no strategy makes it again.
    fn mortal(&self, roster: &Roster) -> Vec<NodeId> {
        let origins = roster.of_stage(StageId::ORIGIN);
        let healthy = |node: &NodeId| !self.afflicted.contains_key(node);
        let sound = |node: &NodeId| healthy(node) && roster.is_heard(*node);
        let left = origins.iter().filter(|node| sound(node)).count();
        // While no coordinator has taken an origin in, whoever is not known to serve another stage may be the last one.
        let may_be_one =
            |node: &NodeId| origins.contains(node) || (left == 0 && roster.stage_of(*node).is_none());
        let spared = |node: &NodeId| may_be_one(node) && left <= usize::from(sound(node));
        roster.all().into_iter().filter(|node| !spared(node)).collect()
    }

    fn one_of(&mut self, nodes: &[NodeId]) -> Option<NodeId> {
        if nodes.is_empty() { None } else { Some(nodes[self.random.random_range(0..nodes.len())]) }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    fn kill(&mut self, elapsed: Duration, roster: &mut Roster, children: &mut Children) -> Vec<Event> {
        let mortal = self.mortal(roster);
        let Some(first) = self.one_of(&mortal) else { return Vec::new() };
        // Interruptions come in groups: one in eight takes the other replicas of a relay stage too.
        let whole = self.random.random_range(0..8) == 0;
        let stage = roster.stage_of(first).filter(|stage| whole && !stage.is_origin());
        let victims = stage.map_or_else(|| vec![first], |stage| roster.of_stage(stage));
        let mut events = Vec::new();
        for node in victims {
            let stage = roster.stage_of(node);
            if roster.process_of(node).is_some_and(|process| children.kill_node(process)) {
                events.push(Event::Killed { target: "node".to_owned(), node: Some(node), stage });
            }
            roster.forget(node);
            self.afflicted.insert(node, elapsed + AFTERMATH);
        }
        events
    }

    /// Everything that no process dies of.
    fn disturb(
        &mut self,
        fault: Fault,
        elapsed: Duration,
        roster: &Roster,
        children: &mut Children,
    ) -> Option<Event> {
        let candidates = if fault == Fault::Slow { roster.all() } else { self.mortal(roster) };
        let node = self.one_of(&candidates)?;
        let process = roster.process_of(node)?;
        // A third of the links go to the coordinator.
        let others: Vec<_> = roster.all().into_iter().filter(|other| *other != node).collect();
        let to_coordinator = self.random.random_range(0..3) == 0;
        let peer = if to_coordinator { NodeId(0) } else { self.one_of(&others).unwrap_or(NodeId(0)) };
        let time = match fault {
            Fault::Stop => self.millis(200..4000),
            Fault::Partition => self.millis(200..3000),
            Fault::Slow => self.millis(1000..5000),
            _ => Duration::ZERO,
        };
        let (done, peer) = match fault {
            Fault::Stop => {
                self.stopped.push((elapsed + time, process));
                (children.halt_node(process, true), None)
            }
            Fault::Partition => {
                let direction = match self.random.random_range(0..4) {
                    0 => CutDirection::Outgoing,
                    1 => CutDirection::Incoming,
                    _ => CutDirection::Both,
                };
                (children.tell_node(process, Control::Cut { peer, direction, time }), Some(peer))
            }
            Fault::Slow => {
                let pause = self.millis(5..60);
                (children.tell_node(process, Control::Slow { pause, time }), None)
            }
            Fault::Drain => (children.drain_node(process), None),
            Fault::Lie => (children.tell_node(process, Control::Lie), None),
            _ => (children.tell_node(process, Control::Corrupt { peer }), Some(peer)),
        };
        let lost_for_it = matches!(fault, Fault::Stop | Fault::Drain)
            || (!matches!(fault, Fault::Slow | Fault::Lie) && to_coordinator);
        if lost_for_it {
            self.afflicted.insert(node, elapsed + time + AFTERMATH);
        }
        let for_ms = time.as_millis() as u64;
        done.then(|| Event::Injected { fault: fault.name().to_owned(), node, peer, for_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipstone_types::{Iteration, Term};

    #[test]
    fn faults_have_names() {
        for fault in Fault::ALL.into_iter().chain([Fault::Lie]) {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        assert!("hope".parse::<Fault>().is_err_and(|why| why.contains("kill, stop")));
    }

    #[test]
    fn the_last_healthy_origin_is_spared() {
        let mut roster = Roster::default();
        for node in 1..=3_u32 {
            roster.apply(&Event::NodeJoined { node: NodeId(node), process: 100 + node, was: None });
            let stage = StageId(u16::from(node == 3));
            let (node, iteration) = (NodeId(node), Iteration(0));
            roster.apply(&Event::NodeEntered { node, stage, iteration, took_ms: 0 });
        }
        let mut injector = Injector::new(ChaosPlan {
            time: Duration::from_secs(1),
            mean_between: Duration::from_secs(1),
            faults: Fault::ALL.to_vec(),
            seed: 1,
            hang: Duration::from_secs(1),
        });
        assert_eq!(injector.mortal(&roster), [NodeId(1), NodeId(2), NodeId(3)]);
        injector.afflicted.insert(NodeId(2), Duration::from_secs(9));
        assert_eq!(injector.mortal(&roster), [NodeId(2), NodeId(3)]);
        roster.forget(NodeId(2));
        assert_eq!(injector.mortal(&roster), [NodeId(3)]);
    }

    #[test]
    fn an_origin_that_no_coordinator_has_taken_in_spares_nobody() {
        let mut roster = Roster::default();
        let joined = |node: u32, was| Event::NodeJoined { node: NodeId(node), process: 100 + node % 64, was };
        for node in 1..=3_u32 {
            roster.apply(&joined(node, None));
            let (stage, iteration) = (StageId(u16::from(node == 3)), Iteration(0));
            roster.apply(&Event::NodeEntered { node: NodeId(node), stage, iteration, took_ms: 0 });
        }
        let injector = Injector::new(ChaosPlan {
            time: Duration::from_secs(1),
            mean_between: Duration::from_secs(1),
            faults: Fault::ALL.to_vec(),
            seed: 1,
            hang: Duration::from_secs(1),
        });
        // Nobody would say that an origin died while there was no coordinator.
        roster.apply(&Event::CoordinatorStarted { term: Term(2), iteration: Iteration(0) });
        assert_eq!(injector.mortal(&roster), [NodeId(3)]);
        roster.apply(&joined(65, Some(NodeId(1))));
        assert_eq!(injector.mortal(&roster), [NodeId(2), NodeId(3)], "the other may be dead already");
        roster.apply(&joined(66, Some(NodeId(2))));
        assert_eq!(injector.mortal(&roster), [NodeId(3), NodeId(65), NodeId(66)]);
    }
}
