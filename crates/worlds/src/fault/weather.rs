//! The state of the network: who can't reach whom, and whose messages are slow.

use super::node::Pid;

/// What stands for the coordinator's machine among processes.
pub(super) const HUB: Pid = Pid::MAX;

/// Nothing passes from some machines to others until a time; what is sent meanwhile passes then, if its connection
/// still stands (a transport sends again what was not acknowledged).
#[derive(Debug)]
struct Barrier {
    from: Vec<Pid>,
    to: Vec<Pid>,
    until_us: u64,
}

/// The network between all processes.
#[derive(Debug, Default)]
pub(super) struct Weather {
    barriers: Vec<Barrier>,
    /// Whose messages take so many times as long, until when.
    slow: Vec<(Pid, u64, u64)>,
}

impl Weather {
    /// Lets nothing pass from `from` to `to` until a time.
    pub(super) fn bar(&mut self, from: &[Pid], to: &[Pid], until_us: u64) {
        self.barriers.push(Barrier { from: from.to_vec(), to: to.to_vec(), until_us });
    }

    /// Makes what a process sends or gets slow.
    pub(super) fn slow_down(&mut self, pid: Pid, factor: u64, until_us: u64) {
        self.slow.push((pid, factor, until_us));
    }

    /// When something that is sent now can set out.
    pub(super) fn passes_at(&mut self, from: Pid, to: Pid, now_us: u64) -> u64 {
        self.barriers.retain(|barrier| barrier.until_us > now_us);
        let bars = |barrier: &&Barrier| barrier.from.contains(&from) && barrier.to.contains(&to);
        self.barriers.iter().filter(bars).map(|barrier| barrier.until_us).max().unwrap_or(now_us)
    }

    /// Whether a connection between the two can be made now.
    pub(super) fn connects(&mut self, a: Pid, b: Pid, now_us: u64) -> bool {
        self.passes_at(a, b, now_us) <= now_us && self.passes_at(b, a, now_us) <= now_us
    }

    /// How many times as long a message takes.
    pub(super) fn factor(&mut self, a: Pid, b: Pid, now_us: u64) -> u64 {
        self.slow.retain(|(.., until_us)| *until_us > now_us);
        let hits = self.slow.iter().filter(|(pid, ..)| *pid == a || *pid == b);
        hits.map(|(_, factor, _)| *factor).max().unwrap_or(1)
    }

    /// Whether all is well.
    pub(super) fn is_fair(&self) -> bool {
        self.barriers.is_empty() && self.slow.is_empty()
    }

    /// Everyone reaches everyone again.
    pub(super) fn lift(&mut self) {
        self.barriers.clear();
        self.slow.clear();
    }
}
