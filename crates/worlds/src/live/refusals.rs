//! Who was turned away, told so that it fills no log: whoever is refused tries again, several times a second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The same of the same peer is told once in this time, with how often it came meanwhile.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Peers and reasons that are told apart; what more there are is told as one.
const APART_MAX: usize = 64;

/// What is told of them.
const OTHERS: &str = "others too, for several reasons";

#[derive(Debug)]
struct Told {
    at: Instant,
    /// How often it came since.
    more: u64,
}

/// What was told lately. Its memory is bounded, and so are the lines that it has told: at most [`APART_MAX`] and one in
/// [`TELL_EVERY`], for each new one.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    told: BTreeMap<String, Told>,
}

/// `192.0.2.1` of `192.0.2.1:7000`: who comes again has another port. A key (`iroh:…`) stays whole.
fn without_port(address: &str) -> &str {
    match address.rsplit_once(':') {
        Some((host, port)) if host != "iroh" && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => address,
    }
}

impl Refusals {
    /// A peer at this address was refused; answers with what is to be told of it, if anything.
    pub(super) fn note(&mut self, address: &str, why: &str, now: Instant) -> Option<String> {
        let mut text = format!("{}: {why}", without_port(address));
        if self.told.len() >= APART_MAX && !self.told.contains_key(&text) {
            OTHERS.clone_into(&mut text);
        }
        if let Some(told) = self.told.get_mut(&text) {
            told.more += 1;
            return None;
        }
        self.told.insert(text.clone(), Told { at: now, more: 0 });
        Some(text)
    }

    /// What is to be told of those that came again; who did not is forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        self.told.retain(|text, told| {
            if now.duration_since(told.at) < TELL_EVERY {
                return true;
            }
            let more = std::mem::take(&mut told.more);
            if more > 0 {
                told.at = now;
                due.push(format!("{text} ({more} more in {} s)", TELL_EVERY.as_secs()));
            }
            more > 0
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_minute_with_how_often_it_came() {
        let (start, mut refusals) = (Instant::now(), Refusals::default());
        let at = |s: u64| start + Duration::from_secs(s);
        let mut lines = Vec::new();
        for second in 0..150 {
            // 8 tries a second, from another port each, and somebody else once.
            for port in 0..8 {
                let address = format!("192.0.2.1:{}", 1000 + 8 * second + port);
                lines.extend(refusals.note(&address, "it was cut off", at(second)));
            }
            if second == 30 {
                lines.extend(refusals.note("iroh:1369544754", "it was cut off", at(second)));
            }
            lines.extend(refusals.due(at(second)));
        }
        assert_eq!(
            lines,
            [
                "192.0.2.1: it was cut off",
                "iroh:1369544754: it was cut off",
                "192.0.2.1: it was cut off (487 more in 60 s)",
                "192.0.2.1: it was cut off (480 more in 60 s)",
            ]
        );
        // What came last is told too, and then nothing more.
        assert_eq!(refusals.due(at(300)).len(), 1);
        assert!(refusals.due(at(600)).is_empty() && refusals.told.is_empty());
    }

    #[test]
    fn a_crowd_is_told_as_one() {
        let (now, mut refusals) = (Instant::now(), Refusals::default());
        let lines: Vec<String> =
            (0..10_000).filter_map(|peer| refusals.note(&format!("iroh:{peer:010x}"), "busy", now)).collect();
        assert_eq!(lines.len(), APART_MAX + 1);
        assert_eq!(lines.last().map(String::as_str), Some(OTHERS));
        assert_eq!(refusals.told.len(), APART_MAX + 1);
        assert_eq!(refusals.due(now + TELL_EVERY), [format!("{OTHERS} (9935 more in 60 s)")]);
    }
}
