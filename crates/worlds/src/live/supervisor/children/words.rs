//! What children say on their standard output, a line each.

use crate::live::start::{CoordinatorFindable, CoordinatorReady, CoordinatorWelcomed, NodeCount};
use skipstone_types::Event;
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::Sender;

/// Something that a child says.
pub(super) enum Word {
    Ready(CoordinatorReady),
    Findable(CoordinatorFindable),
    Welcomed(CoordinatorWelcomed),
    Event(Event),
    Node(NodeCount),
}

/// Hears a node, until it ends.
pub(super) fn hear_counts(stdout: impl Read, speaker: &Sender<Word>) {
    let counts = BufReader::new(stdout).lines().map_while(Result::ok);
    for count in counts.filter_map(|line| serde_json::from_str(&line).ok()) {
        if speaker.send(Word::Node(count)).is_err() {
            return;
        }
    }
}

/// Hears the coordinator, until it ends.
pub(super) fn hear_coordinator(stdout: impl Read, speaker: &Sender<Word>) {
    for (number, line) in BufReader::new(stdout).lines().enumerate() {
        let Ok(line) = line else { return };
        let word = if number == 0 {
            serde_json::from_str(&line).ok().map(Word::Ready)
        } else {
            let event = serde_json::from_str(&line).map(Word::Event);
            event
                .or_else(|_| serde_json::from_str(&line).map(Word::Findable))
                .or_else(|_| serde_json::from_str(&line).map(Word::Welcomed))
                .ok()
        };
        if let Some(word) = word
            && speaker.send(word).is_err()
        {
            return;
        }
    }
}
