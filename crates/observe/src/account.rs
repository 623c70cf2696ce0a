//! Where the node-seconds of a run went.
//!
//! Every microsecond that a node is alive, from `NodeJoined` to `NodeLost` or `Finished`, lands in exactly one
//! account, by these rules:
//!
//! * Until the first attempt everything is `startup`; later too for a node whose weights are initialised or
//!   loaded, until it enters.
//! * A node without a stage is `idle`; a node that copies, rebuilds or returns is in `recovery` until it enters.
//! * A node that was killed is in `detection` until it is declared lost. The time from a death that nobody
//!   announced (a crash) to its detection can't be told from work and stays with the serving nodes' time.
//! * The time of serving nodes is held back until the attempt's end. If it is aborted, all of it is `aborted`. If
//!   it commits, the reported work is taken out of it: counted work is *good*; `replay` is what was done twice;
//!   `memory_wait` and `link` are what was reported as such; what nodes waited while no coordinator lived is
//!   `recovery`; the rest is `bubble`.
//! * Work is the time from a task's start to its end by the wall clock: microbatches, the reduction of gradients and
//!   the optimiser's step (which is reported with the next commit, within whose time it lies). A task whose thread
//!   waits for a processor core counts as work, for nobody but the system can tell the difference: where more nodes
//!   than cores share a machine, goodput is higher than the cores' share.
//! * Of a share that was lost with its node and replayed, one doing counts as good and the other as `replay`.
//! * What was committed and then undone by a rollback is `aborted`.
//! * While no attempt runs because one was aborted, serving nodes wait for a recovery: `recovery`.
//!
//! `link` is what a receiver knows for certain: it was idle, and a tensor that it then used was on the wire to it,
//! from half the connection's shortest round trip before the first byte came until the last. Clocks of two machines are
//! never compared. What a tensor waited at its sender, behind others in a queue or in a buffer of the system, is not
//! seen and stays in `bubble`: `link` is a lower bound, close to the truth where transfers take long and few share a
//! connection. Waits that several tensors explain count once. Handing weights over and saving them, while serving,
//! are neither work nor told apart, and are in `bubble` too.

use serde::{Deserialize, Serialize};
use skipstone_types::NodeId;
use std::collections::BTreeMap;

/// Node-seconds that did not end in a commit, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Badput {
    /// Before nodes first served.
    pub startup: f64,
    /// Serving, with nothing to do: waiting for other nodes.
    pub bubble: f64,
    /// Idle while a tensor was on the wire to the node; a lower bound, see the module.
    pub link: f64,
    /// Waiting for a free slot.
    pub memory_wait: f64,
    /// Dead, and not yet known to be.
    pub detection: f64,
    /// Getting a lost stage's or replica's weights back, or waiting for that.
    pub recovery: f64,
    /// Work done again for lost nodes.
    pub replay: f64,
    /// Serving in attempts that were given up.
    pub aborted: f64,
    /// Without a stage.
    pub idle: f64,
}

impl Badput {
    /// The causes by name, in the order of the command line's contract.
    pub fn causes(&self) -> [(&'static str, f64); 9] {
        [
            ("startup", self.startup),
            ("bubble", self.bubble),
            ("link", self.link),
            ("memory_wait", self.memory_wait),
            ("detection", self.detection),
            ("recovery", self.recovery),
            ("replay", self.replay),
            ("aborted", self.aborted),
            ("idle", self.idle),
        ]
    }

    /// Each cause so many times.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        Self {
            startup: factor * self.startup,
            bubble: factor * self.bubble,
            link: factor * self.link,
            memory_wait: factor * self.memory_wait,
            detection: factor * self.detection,
            recovery: factor * self.recovery,
            replay: factor * self.replay,
            aborted: factor * self.aborted,
            idle: factor * self.idle,
        }
    }

    /// All causes together.
    pub fn total(&self) -> f64 {
        self.causes().iter().map(|(_, seconds)| seconds).sum()
    }
}

/// What an account means, in a few words; `good` is goodput.
pub(crate) fn meaning(account: &str) -> &'static str {
    match account {
        "good" => "work that ended in a commit, by the wall clock",
        "startup" => "before nodes first served",
        "bubble" => "nothing to do: waiting for other nodes",
        "link" => "waiting for tensors on the wire",
        "memory_wait" => "waiting for a free slot",
        "detection" => "dead, and not yet known to be",
        "recovery" => "getting weights back after a loss, or waiting for that",
        "replay" => "work done again for lost nodes",
        "aborted" => "attempts that were given up, and what a rollback undid",
        "idle" => "spares, and nodes without a stage",
        _ => "",
    }
}

/// What a living node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Idle = 0,
    Starting = 1,
    Recovering = 2,
    Serving = 3,
    Dead = 4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Attempt {
    #[default]
    NoneYet,
    Running,
    Committed,
    Aborted,
}

/// What workers reported for a committed attempt, in node-microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reported {
    pub(crate) busy: u64,
    pub(crate) replay: u64,
    pub(crate) memory_wait: u64,
    pub(crate) link: u64,
}

/// The account of node time; all in node-microseconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeTime {
    now_us: u128,
    nodes: BTreeMap<NodeId, Doing>,
    /// Nodes in each [`Doing`].
    counts: [u32; 5],
    attempt: Attempt,
    coordinator_away: bool,
    /// Serving time since the last attempt's end.
    open_us: u128,
    /// The part of it while the coordinator was away.
    away_us: u128,
    /// Work of lost nodes in the running attempt.
    wasted_us: u128,
    good_us: u128,
    startup_us: u128,
    bubble_us: u128,
    link_us: u128,
    memory_wait_us: u128,
    detection_us: u128,
    recovery_us: u128,
    replay_us: u128,
    aborted_us: u128,
    idle_us: u128,
}

impl NodeTime {
    /// Node-seconds of work that ended in a commit.
    pub fn good_seconds(&self) -> f64 {
        seconds(self.good_us)
    }

    /// Node-seconds alive, up to the last event or tick.
    pub fn alive_seconds(&self) -> f64 {
        seconds(self.closed_us() + self.open_us)
    }

    /// Node-seconds in the running attempt, which nobody can judge yet; 0 once the run has finished.
    pub fn open_seconds(&self) -> f64 {
        seconds(self.open_us)
    }

    /// Good node-seconds over those that have been judged; 0 before there are any.
    pub fn goodput(&self) -> f64 {
        let closed = self.closed_us();
        if closed == 0 { 0.0 } else { self.good_us as f64 / closed as f64 }
    }

    /// Node-seconds that did not end in a commit, by cause.
    pub fn badput(&self) -> Badput {
        Badput {
            startup: seconds(self.startup_us),
            bubble: seconds(self.bubble_us),
            link: seconds(self.link_us),
            memory_wait: seconds(self.memory_wait_us),
            detection: seconds(self.detection_us),
            recovery: seconds(self.recovery_us),
            replay: seconds(self.replay_us),
            aborted: seconds(self.aborted_us),
            idle: seconds(self.idle_us),
        }
    }

    fn closed_us(&self) -> u128 {
        self.good_us
            + self.startup_us
            + self.bubble_us
            + self.link_us
            + self.memory_wait_us
            + self.detection_us
            + self.recovery_us
            + self.replay_us
            + self.aborted_us
            + self.idle_us
    }

    /// Lets time pass; time that runs backwards stands still.
    pub(crate) fn advance(&mut self, now_us: u128) {
        let passed = now_us.saturating_sub(self.now_us);
        self.now_us += passed;
        let of = |doing: Doing| passed * u128::from(self.counts[doing as usize]);
        let (idle, starting, recovering) = (of(Doing::Idle), of(Doing::Starting), of(Doing::Recovering));
        let (serving, dead) = (of(Doing::Serving), of(Doing::Dead));
        self.detection_us += dead;
        if self.attempt == Attempt::NoneYet {
            self.startup_us += idle + starting + recovering + serving;
            return;
        }
        self.idle_us += idle;
        self.startup_us += starting;
        self.recovery_us += recovering;
        if self.attempt == Attempt::Aborted {
            self.recovery_us += serving;
        } else {
            self.open_us += serving;
            self.away_us += if self.coordinator_away { serving } else { 0 };
        }
    }

    /// A node does something else from now on; `None`: it is gone.
    pub(crate) fn set(&mut self, node: NodeId, doing: Option<Doing>) {
        let before = match doing {
            Some(doing) => self.nodes.insert(node, doing),
            None => self.nodes.remove(&node),
        };
        if let Some(before) = before {
            self.counts[before as usize] -= 1;
        }
        if let Some(doing) = doing {
            self.counts[doing as usize] += 1;
        }
    }

    pub(crate) fn doing(&self, node: NodeId) -> Option<Doing> {
        self.nodes.get(&node).copied()
    }

    pub(crate) fn waste(&mut self, wasted_us: u64) {
        self.wasted_us += u128::from(wasted_us);
    }

    pub(crate) fn coordinator_away(&mut self, away: bool) {
        self.coordinator_away = away;
    }

    /// An attempt begins; one that neither committed nor was aborted is given up with it.
    pub(crate) fn start(&mut self) {
        if self.attempt == Attempt::Running {
            self.abort();
        }
        self.attempt = Attempt::Running;
    }

    pub(crate) fn abort(&mut self) {
        self.aborted_us += self.open_us;
        self.clear_open();
        self.attempt = Attempt::Aborted;
    }

    /// The attempt was committed; gives what of its time was good, in node-microseconds.
    pub(crate) fn commit(&mut self, reported: Reported) -> u128 {
        let good_before_us = self.good_us;
        let mut left = self.open_us;
        let mut take = |asked: u128| {
            let taken = asked.min(left);
            left -= taken;
            taken
        };
        let replayed = u128::from(reported.replay);
        self.good_us += take(u128::from(reported.busy) + replayed.min(self.wasted_us));
        self.replay_us += take(replayed.max(self.wasted_us));
        self.memory_wait_us += take(u128::from(reported.memory_wait));
        self.link_us += take(u128::from(reported.link));
        self.recovery_us += take(self.away_us);
        self.bubble_us += left;
        self.clear_open();
        self.attempt = Attempt::Committed;
        self.good_us - good_before_us
    }

    /// The run goes back: so much good work has come to nothing. Nodes get weights back until the next attempt.
    pub(crate) fn roll_back(&mut self, good_us: u128) {
        let undone_us = good_us.min(self.good_us);
        self.good_us -= undone_us;
        self.aborted_us += undone_us;
        self.abort();
    }

    /// The run is over: what an attempt had done is lost, and no node lives.
    pub(crate) fn finish(&mut self) {
        match self.attempt {
            Attempt::Running => self.aborted_us += self.open_us,
            _ => self.bubble_us += self.open_us,
        }
        self.clear_open();
        self.nodes.clear();
        self.counts = [0; 5];
        self.attempt = Attempt::NoneYet;
        self.coordinator_away = false;
    }

    fn clear_open(&mut self) {
        (self.open_us, self.away_us, self.wasted_us) = (0, 0, 0);
    }
}

fn seconds(us: u128) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes serve; every number is known by hand.
    fn two_serving() -> NodeTime {
        let mut time = NodeTime::default();
        for node in [NodeId(1), NodeId(2)] {
            time.set(node, Some(Doing::Serving));
        }
        time.advance(100);
        time.start();
        time
    }

    #[test]
    fn a_commit_is_taken_apart() {
        let mut time = two_serving();
        assert_eq!(time.startup_us, 200);
        time.advance(1100);
        time.commit(Reported { busy: 1200, replay: 0, memory_wait: 300, link: 150 });
        assert_eq!((time.good_us, time.memory_wait_us, time.link_us, time.bubble_us), (1200, 300, 150, 350));
        assert_eq!(time.closed_us(), 2200);
    }

    #[test]
    fn a_share_done_twice_is_good_once() {
        let mut time = two_serving();
        time.advance(600);
        time.set(NodeId(2), Some(Doing::Dead));
        time.advance(650);
        time.waste(400);
        time.set(NodeId(2), None);
        time.advance(1100);
        time.commit(Reported { busy: 500, replay: 300, ..Reported::default() });
        // 300 of the 400 that were thrown away came back as 300 of replay.
        assert_eq!((time.detection_us, time.good_us, time.replay_us), (50, 800, 400));
        assert_eq!(time.closed_us(), 200 + 1000 + 500 + 50);
    }

    #[test]
    fn an_abort_costs_all_of_it_and_the_wait_after_it_is_recovery() {
        let mut time = two_serving();
        time.advance(600);
        time.abort();
        time.advance(700);
        time.start();
        time.advance(800);
        time.set(NodeId(3), Some(Doing::Recovering));
        time.coordinator_away(true);
        time.advance(900);
        time.coordinator_away(false);
        time.commit(Reported { busy: 250, ..Reported::default() });
        assert_eq!((time.aborted_us, time.good_us), (1000, 250));
        assert_eq!(time.recovery_us, 200 + 100 + 150, "the wait, the joiner, and what the absence left idle");
        assert_eq!(time.bubble_us, 0);
        time.finish();
        time.advance(5000);
        assert_eq!(time.closed_us(), 200 + 1000 + 200 + 400 + 100);
    }

    #[test]
    fn what_a_rollback_undoes_was_not_good() {
        let mut time = two_serving();
        for iteration in 0..3_u64 {
            time.advance(1000 * u128::from(iteration + 1));
            let good_us = time.commit(Reported { busy: 100 << iteration, ..Reported::default() });
            assert_eq!(good_us, 100 << iteration);
            time.start();
        }
        let closed_us = time.closed_us();
        time.advance(3300);
        time.roll_back(200 + 400);
        assert_eq!((time.good_us, time.aborted_us), (100, 200 + 400 + 600), "and the attempt under way");
        assert_eq!(time.closed_us(), closed_us + 600);
        time.start();
        time.advance(3400);
        time.commit(Reported { busy: 50, ..Reported::default() });
        assert_eq!(time.good_us, 150);
    }
}
