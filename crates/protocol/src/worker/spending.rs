//! What a worker spends an attempt's time on, as far as it can know.

use super::Worker;
use crate::message::Spent;
use std::collections::VecDeque;

/// Waits that are remembered; of more the oldest are forgotten, and count as nothing in particular.
const WAITS_MAX: usize = 64;

/// Why a node computes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Idle {
    /// An activation is there, but no free slot.
    Memory,
    /// Nothing is there.
    Input,
}

/// What a worker has spent since the last attempt ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Spending {
    spent: Spent,
    /// Since when it has been idle, and why.
    idle: Option<(u64, Idle)>,
    /// Waits for input whose cause is not known, in order of time; none touches another.
    waits: VecDeque<(u64, u64)>,
}

impl Spending {
    pub(super) fn spent(&self) -> Spent {
        self.spent
    }

    /// Adds a microbatch's task.
    pub(super) fn compute(&mut self, took_us: u64, replay: bool) {
        let account = if replay { &mut self.spent.replay_us } else { &mut self.spent.busy_us };
        *account += took_us;
    }

    /// Adds another task of training.
    pub(super) fn compute_once(&mut self, took_us: u64) {
        self.spent.busy_us += took_us;
        self.spent.fixed_us += took_us;
    }

    /// Says whether the worker is idle from now on, and why.
    pub(super) fn note(&mut self, now_us: u64, idle: Option<Idle>) {
        if self.idle.map(|(_, why)| why) == idle {
            return;
        }
        match self.idle {
            Some((since_us, Idle::Memory)) => self.spent.memory_wait_us += now_us.saturating_sub(since_us),
            Some((since_us, Idle::Input)) if since_us < now_us => {
                self.waits.push_back((since_us, now_us));
                if self.waits.len() > WAITS_MAX {
                    self.waits.pop_front();
                }
            }
            _ => {}
        }
        self.idle = idle.map(|why| (now_us, why));
    }

    /// A tensor that was needed has arrived, on its way since `began_us`: what the worker waited meanwhile it waited
    /// for the wire. Waits that several tensors explain count once.
    pub(super) fn arrived(&mut self, now_us: u64, began_us: u64) {
        if let Some((since_us, Idle::Input)) = &mut self.idle {
            let from_us = began_us.max(*since_us);
            if from_us < now_us {
                if *since_us < from_us {
                    self.waits.push_back((*since_us, from_us));
                }
                self.spent.link_us += now_us - from_us;
                *since_us = now_us;
            }
        }
        while let Some((from_us, to_us)) = self.waits.pop_back() {
            if to_us <= began_us {
                self.waits.push_back((from_us, to_us));
                return;
            }
            self.spent.link_us += to_us - from_us.max(began_us);
            if from_us < began_us {
                self.waits.push_back((from_us, began_us));
                return;
            }
        }
    }

    /// The attempt has ended; what follows belongs to the next.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }
}

impl Worker {
    /// Notes whether the worker is idle, and why.
    pub(super) fn note_idle(&mut self, now_us: u64) {
        let idle = match &self.work {
            Some(work) if self.compute.is_idle() => {
                let blocked = self.held.as_ref().is_some_and(|held| work.lacks_slot(held.stage));
                Some(if blocked { Idle::Memory } else { Idle::Input })
            }
            _ => None,
        };
        self.spending.note(now_us, idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_idle_time_while_a_needed_tensor_was_on_its_way_counts_as_link() {
        let mut spending = Spending::default();
        spending.note(100, Some(Idle::Input));
        spending.note(150, None); // a task from 150 to 180
        spending.compute(30, false);
        spending.note(180, Some(Idle::Input));
        spending.arrived(200, 130);
        assert_eq!(spending.spent().link_us, 20 + 20, "130 to 150, and 180 to 200");
        // A second tensor that was on its way at the same time explains nothing twice, and 100 to 130 is still open.
        spending.arrived(210, 120);
        assert_eq!(spending.spent().link_us, 40 + 10 + 10);
        spending.arrived(215, 215);
        assert_eq!(spending.spent().link_us, 60, "it came at once: nothing was waited for");
        spending.note(230, Some(Idle::Memory));
        spending.arrived(240, 200);
        assert_eq!(spending.spent().link_us, 80, "210 to 230; what lacked a slot was not waiting for bytes");
        spending.note(250, None);
        spending.compute_once(7);
        assert_eq!(
            spending.spent(),
            Spent { busy_us: 37, replay_us: 0, fixed_us: 7, memory_wait_us: 20, link_us: 80 }
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut spending = Spending::default();
        for n in 0..1000_u64 {
            spending.note(10 * n, Some(Idle::Input));
            spending.note(10 * n + 5, None);
        }
        assert_eq!(spending.waits.len(), WAITS_MAX);
        spending.arrived(10_000, 0);
        assert_eq!(spending.spent().link_us, 5 * WAITS_MAX as u64);
        spending.begin_anew();
        assert_eq!(spending.spent(), Spent::default());
    }
}
