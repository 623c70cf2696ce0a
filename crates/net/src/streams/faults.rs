//! Faults made on purpose, so that a live swarm can be tried: links that are cut for a while, one way or both, and
//! frames that are damaged on their way.

use crate::PeerId;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Which way of a link is cut, as seen from this end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutDirection {
    /// What this end sends.
    Outgoing,
    /// What it receives.
    Incoming,
    /// Both.
    Both,
}

/// Links that are cut now. What is sent meanwhile arrives afterwards, as over a network that was away for a moment and
/// whose lost packets are sent again.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    /// Whether there ever was one: without any, nothing is looked up.
    any: AtomicBool,
    until: Mutex<HashMap<PeerId, [Option<Instant>; 2]>>,
}

impl Cuts {
    pub(crate) fn cut(&self, peer: PeerId, direction: CutDirection, time: Duration) {
        let now = Instant::now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, ends| ends.iter().flatten().any(|end| *end > now));
        let ends = until.entry(peer).or_default();
        if direction != CutDirection::Incoming {
            ends[0] = Some(now + time);
        }
        if direction != CutDirection::Outgoing {
            ends[1] = Some(now + time);
        }
        self.any.store(true, Ordering::Release);
    }

    /// How long the link stays cut in this direction, or in either; none while it isn't.
    fn left(&self, peer: PeerId, direction: CutDirection) -> Option<Duration> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let [outgoing, incoming] = until.get(&peer).copied()?;
        let end = match direction {
            CutDirection::Outgoing => outgoing,
            CutDirection::Incoming => incoming,
            CutDirection::Both => outgoing.max(incoming),
        };
        end?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Waits until the link is whole in this direction.
    pub(crate) async fn whole(&self, peer: PeerId, direction: CutDirection) {
        while let Some(left) = self.left(peer, direction) {
            tokio::time::sleep(left).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_has_a_direction_and_an_end() {
        let cuts = Cuts::default();
        let (peer, other) = (PeerId(1), PeerId(2));
        assert_eq!(cuts.left(peer, CutDirection::Both), None);
        cuts.cut(peer, CutDirection::Outgoing, Duration::from_mins(1));
        assert!(cuts.left(peer, CutDirection::Outgoing).is_some());
        assert!(cuts.left(peer, CutDirection::Both).is_some());
        assert_eq!(cuts.left(peer, CutDirection::Incoming), None);
        assert_eq!(cuts.left(other, CutDirection::Both), None);
        cuts.cut(peer, CutDirection::Both, Duration::ZERO);
        assert_eq!(cuts.left(peer, CutDirection::Both), None);
    }
}
