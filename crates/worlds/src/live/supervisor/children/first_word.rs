//! The wait for what the coordinator says first: where it listens. Before that it opens the journal, which may take long.

use super::words::Word;
use crate::live::start::CoordinatorReady;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Time between looks at the process.
const LOOK: Duration = Duration::from_millis(50);

/// How long is waited.
#[derive(Debug)]
pub(super) struct Patience {
    /// Until it is said what is waited for.
    pub(super) unsaid: Duration,
    /// In all: no journal takes so long, and nothing may hang for ever.
    pub(super) whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { unsaid: Duration::from_secs(10), whole: Duration::from_secs(600) }
    }
}

/// Why there is no first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unready {
    /// The process has ended.
    Dead,
    /// It lives, and has said nothing for so long.
    Silent(Duration),
    /// Nobody wants to wait any longer.
    Unwanted,
}

/// Waits as long as the process lives. `heed` hears, once, what is waited for, and says each time whether to go on.
///
/// # Errors
/// See [`Unready`].
pub(super) fn first_word(
    words: &Receiver<Word>,
    lives: &mut dyn FnMut() -> bool,
    patience: &Patience,
    heed: &mut dyn FnMut(Option<&str>) -> bool,
) -> Result<CoordinatorReady, Unready> {
    let began = Instant::now();
    let mut said = false;
    loop {
        // What it has said before it died is still heard.
        let lived = lives();
        match words.recv_timeout(LOOK) {
            Ok(Word::Ready(ready)) => return Ok(ready),
            // Nobody else has been started.
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Unready::Dead),
        }
        if !lived {
            return Err(Unready::Dead);
        }
        let waited = began.elapsed();
        if waited >= patience.whole {
            return Err(Unready::Silent(waited));
        }
        let says = !said && waited >= patience.unsaid;
        said |= says;
        let text = "the coordinator is still opening the journal: a long one takes its time on a slow disk; Ctrl-C twice ends at once";
        if !heed(says.then_some(text)) {
            return Err(Unready::Unwanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const PATIENCE: Patience =
        Patience { unsaid: Duration::from_millis(100), whole: Duration::from_millis(400) };

    #[test]
    fn who_takes_long_is_waited_for_and_it_is_said_once() {
        let (speaker, words) = channel();
        let mut told = Vec::new();
        let mut speaker = Some(speaker);
        let mut heed = |text: Option<&str>| {
            told.extend(text.map(str::to_owned));
            // It is ready some time after that was said.
            if text.is_none()
                && told.len() == 1
                && let Some(speaker) = speaker.take()
            {
                let address = "here".to_owned();
                speaker.send(Word::Ready(CoordinatorReady { address })).unwrap();
            }
            true
        };
        let ready = first_word(&words, &mut || true, &PATIENCE, &mut heed).unwrap();
        assert_eq!(ready.address, "here");
        assert!(told.len() == 1 && told[0].contains("opening the journal"), "{told:?}");
    }

    #[test]
    fn only_who_has_ended_is_dead_and_nothing_waits_for_ever() {
        let (_speaker, words) = channel();
        let mut looks = 0;
        let mut dies = || {
            looks += 1;
            looks < 3
        };
        assert_eq!(first_word(&words, &mut dies, &PATIENCE, &mut |_| true).unwrap_err(), Unready::Dead);
        assert_eq!(looks, 3);
        let silent = first_word(&words, &mut || true, &PATIENCE, &mut |_| true).unwrap_err();
        assert!(matches!(silent, Unready::Silent(waited) if waited >= PATIENCE.whole), "{silent:?}");
        let began = Instant::now();
        assert_eq!(
            first_word(&words, &mut || true, &PATIENCE, &mut |_| false).unwrap_err(),
            Unready::Unwanted
        );
        assert!(began.elapsed() < PATIENCE.whole);
    }
}
