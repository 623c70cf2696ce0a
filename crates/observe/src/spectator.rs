//! Shows a run that goes on elsewhere.

use crate::read::LINE_BYTES_MAX;
use crate::view::{Progress, View};
use crate::{RunInfo, RunState, Summary};
use skipstone_types::EventRecord;
use thiserror::Error;

/// Bytes of a log that are not its.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpectatorError {
    /// A line is not an event of this version.
    #[error(
        "the run's log has a line that is no event of this version ({0}); use the version of skipstone that it uses"
    )]
    Line(String),
    /// A line without an end.
    #[error("the run's log has a line of more than {LINE_BYTES_MAX} bytes")]
    Long,
}

/// Shows a run that goes on elsewhere: give it the bytes of its event log as they come, and let time pass.
#[derive(Debug)]
pub struct Spectator {
    state: RunState,
    view: View,
    /// The beginning of a line whose end has not come yet.
    torn: Vec<u8>,
}

impl Spectator {
    /// Of a run of which nothing has been heard yet.
    pub fn new(info: RunInfo, progress: Progress) -> Self {
        let state = RunState::new(info);
        let mut view = View::new(progress, &state);
        view.name_nodes();
        Self { state, view, torn: Vec::new() }
    }

    /// Takes the next bytes of the log.
    ///
    /// # Errors
    /// See [`SpectatorError`].
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), SpectatorError> {
        self.torn.extend_from_slice(bytes);
        let Some(end) = self.torn.iter().rposition(|byte| *byte == b'\n') else {
            return if self.torn.len() > LINE_BYTES_MAX { Err(SpectatorError::Long) } else { Ok(()) };
        };
        let rest = self.torn.split_off(end + 1);
        let whole = std::mem::replace(&mut self.torn, rest);
        for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record: EventRecord =
                serde_json::from_slice(line).map_err(|why| SpectatorError::Line(why.to_string()))?;
            self.state.apply(&record);
            self.view.tick(&self.state);
        }
        Ok(())
    }

    /// Lets so many milliseconds pass; call it about ten times a second.
    pub fn tick(&mut self, passed_ms: u64) {
        self.state.advance(self.state.now_ms() + passed_ms);
        self.view.tick(&self.state);
    }

    /// Says something without disturbing the view.
    pub fn note(&mut self, text: &str) {
        self.view.note(text, &self.state);
    }

    /// Why the run has ended, if it has.
    pub fn finished(&self) -> Option<&str> {
        self.state.finished()
    }

    /// Ends the view; the numbers.
    pub fn finish(mut self) -> Summary {
        self.view.close(&self.state);
        Summary::of(&self.state)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn bytes_may_come_in_any_pieces() {
        let log = "{\"schema\":1,\"time_ms\":5,\"event\":\"node_joined\",\"node\":1,\"process\":9}\n\
                   {\"schema\":1,\"time_ms\":9,\"event\":\"finished\",\"iteration\":3,\"why\":\"done\"}\n";
        for size in [1, 7, 1000] {
            let mut spectator = Spectator::new(RunInfo::default(), Progress::Quiet);
            for piece in log.as_bytes().chunks(size) {
                assert_eq!(spectator.finished(), None);
                spectator.read(piece).unwrap();
            }
            assert_eq!(spectator.finished(), Some("done"));
            assert_eq!(spectator.finish().wall_s, 0.009);
        }
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let mut spectator = Spectator::new(RunInfo::default(), Progress::Quiet);
        assert!(matches!(spectator.read(b"garbage\n"), Err(SpectatorError::Line(_))));
        let mut spectator = Spectator::new(RunInfo::default(), Progress::Quiet);
        assert_eq!(spectator.read(&vec![b'x'; LINE_BYTES_MAX + 1]), Err(SpectatorError::Long));
    }
}
