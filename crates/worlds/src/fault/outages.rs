//! What goes wrong with the network.

use super::kinds::Fault;
use super::links::Pair;
use super::node::Pid;
use super::weather::HUB;
use super::world::{Event, World};

impl World {
    /// Something happens to connections.
    pub(super) fn harm_network(&mut self, fault: Fault) {
        match fault {
            Fault::Partition => return self.partition(),
            Fault::Stale => {
                let count = self.random.between(1, 20);
                if self.repeat_old_frames(count) {
                    self.count(fault);
                }
                return;
            }
            Fault::Delay => {
                let Some(pid) = self.victim(false) else { return };
                self.count(fault);
                let (factor, time) = (self.random.between(10, 100), self.draw(self.plan.tempo.stall_us));
                self.weather.slow_down(pid, factor, self.now + time);
                if factor * self.plan.tempo.message_us.1 > self.plan.tempo.silence_us {
                    self.falls_silent(pid);
                }
                return;
            }
            _ => {}
        }
        let between_nodes = matches!(fault, Fault::Reorder | Fault::Duplicate) || self.random.chance(0.6);
        let pair = if between_nodes { self.random.pick(&self.links.pairs()).copied() } else { None };
        match pair {
            Some(pair) => self.harm_link(fault, pair),
            None if between_nodes => {}
            None => self.harm_hub_connection(fault),
        }
    }

    fn harm_link(&mut self, fault: Fault, pair: Pair) {
        self.count(fault);
        let until = self.now + self.draw(self.plan.tempo.stall_us);
        match fault {
            Fault::Reorder => self.links.reorder(pair, until),
            Fault::Duplicate => self.links.duplicate(pair, until),
            Fault::Corrupt => self.links.corrupt(pair),
            Fault::Loss => {
                if let Some(((low, high), _)) = self.links.ends(pair) {
                    let seen_dead = self.draw_detection();
                    let (from, to) = if self.random.chance(0.5) { (low, high) } else { (high, low) };
                    self.weather.bar(&[from], &[to], self.now + seen_dead);
                    self.break_link_later(pair, seen_dead);
                }
            }
            _ => {
                let blocked = if self.random.chance(0.3) { until - self.now } else { 0 };
                self.break_link(pair, blocked);
            }
        }
    }

    fn harm_hub_connection(&mut self, fault: Fault) {
        let Some(pid) = self.victim(false).filter(|pid| self.nodes[*pid].connection.is_some()) else {
            return;
        };
        self.count(fault);
        if fault == Fault::Loss {
            let seen_dead = self.draw_detection();
            let (from, to) = if self.random.chance(0.5) { (pid, HUB) } else { (HUB, pid) };
            self.weather.bar(&[from], &[to], self.now + seen_dead);
            self.break_hub_connection_later(pid, seen_dead);
            return;
        }
        if fault == Fault::Cut {
            self.nodes[pid].hub_blocked_until = self.now + self.draw(self.plan.tempo.stall_us) / 2;
        }
        self.break_hub_connection(pid);
    }

    /// How long it takes until a connection on which nothing passes is seen to be dead.
    fn draw_detection(&mut self) -> u64 {
        let silence_us = self.plan.tempo.silence_us;
        self.random.between(silence_us / 2, 2 * silence_us)
    }

    fn break_link_later(&mut self, pair: Pair, delay_us: u64) {
        if let Some((_, number)) = self.links.ends(pair) {
            self.schedule(delay_us, Event::BreakLink { pair, number });
        }
    }

    fn break_hub_connection_later(&mut self, pid: Pid, delay_us: u64) {
        if let Some(connection) = self.nodes[pid].connection {
            self.schedule(delay_us, Event::BreakHubConnection { pid, connection });
        }
    }

    /// Some can't reach the others for a while. Connections between them are seen to be dead if it lasts.
    fn partition(&mut self) {
        let living: Vec<Pid> = (0..self.nodes.len()).filter(|pid| self.nodes[*pid].alive).collect();
        let (regions, region) = (self.plan.regions, self.random.between(0, self.plan.regions as u64 - 1));
        let whole_region = self.random.chance(0.4);
        let chosen = self.victim(false);
        let inside: Vec<Pid> = living
            .iter()
            .copied()
            .filter(|pid| {
                if whole_region {
                    self.nodes[*pid].machine % regions == region as usize
                } else {
                    Some(*pid) == chosen
                }
            })
            .filter(|pid| !self.is_spared(*pid))
            .collect();
        if inside.is_empty() {
            return;
        }
        self.count(Fault::Partition);
        let outside: Vec<Pid> = living.into_iter().filter(|pid| !inside.contains(pid)).chain([HUB]).collect();
        let time = self.draw(self.plan.tempo.stall_us);
        let until = self.now + time;
        // Both ways, or only out of it, or only into it.
        let ways = self.random.between(0, 3);
        if ways != 1 {
            self.weather.bar(&inside, &outside, until);
        }
        if ways != 2 {
            self.weather.bar(&outside, &inside, until);
        }
        let crossing = |pair: &Pair| {
            self.links.ends(*pair).is_some_and(|((a, b), _)| inside.contains(&a) != inside.contains(&b))
        };
        let crossing: Vec<Pair> = self.links.pairs().into_iter().filter(crossing).collect();
        for pair in crossing {
            let seen_dead = self.draw_detection();
            if seen_dead < time {
                self.break_link_later(pair, seen_dead);
            }
        }
        for pid in inside {
            let seen_dead = self.draw_detection();
            if seen_dead < time {
                self.break_hub_connection_later(pid, seen_dead);
            }
            if ways != 1 && time > self.plan.tempo.silence_us {
                self.falls_silent(pid);
            }
        }
    }

    /// A node's connection to the coordinator is seen to be dead, if it still is the one that is meant.
    pub(super) fn break_hub_connection_if(&mut self, pid: Pid, connection: u64) {
        if self.nodes[pid].alive && self.nodes[pid].connection == Some(connection) {
            self.break_hub_connection(pid);
        }
    }
}
