//! The words for an event.

use crate::state::RunState;
use skipstone_types::Event;

/// The words for the event that `state` has taken in last, or nothing where it isn't worth a line. Events of one
/// incident are one growing sentence: the words for a rebuilt stage begin with how it was lost.
pub fn sentence(event: &Event, state: &RunState) -> Option<String> {
    match event {
        // Commits are shown as numbers and curves.
        Event::Committed { .. } => None,
        _ => state.stories.touched(),
    }
}
