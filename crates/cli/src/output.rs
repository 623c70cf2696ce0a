//! What commands say: results on stdout, everything else on stderr.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// Writes a result to stdout. A reader that has gone (`| head`) is no error.
pub(crate) fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("can't write to stdout: {error}; check where it is redirected to")))
        }
        _ => Ok(()),
    }
}

/// Writes the one JSON document of `--json`.
pub(crate) fn print_json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("the result can't be written as JSON ({error})")))?;
    print(&format!("{text}\n"))
}

/// A line on stderr.
pub(crate) fn say(text: &str) {
    // Whoever closed stderr does not want to hear it.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Progress on stderr: one line that changes on a terminal, a line every ten seconds elsewhere.
pub(crate) struct Progress {
    what: &'static str,
    terminal: bool,
    shown: Option<Instant>,
    started: Instant,
}

impl Progress {
    /// Progress of `what`.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, terminal: io::stderr().is_terminal(), shown: None, started: Instant::now() }
    }

    /// `done` of `total` are done; `more` is said too.
    pub(crate) fn update(&mut self, done: u64, total: u64, more: &str) {
        let pause = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(10) };
        let since = self.shown.unwrap_or(self.started);
        if since.elapsed() < pause {
            return;
        }
        self.shown = Some(Instant::now());
        let line = format!("{}: {done} of {total}{more}", self.what);
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[2K{line}");
        } else {
            say(&line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}

/// Threads to use: as asked, or all of the machine's cores.
pub(crate) fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).max(1)
}
