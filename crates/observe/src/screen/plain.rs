//! Progress as plain lines, for files, pipes and `--plain`.

use crate::{RunState, sentence, words};
use skipstone_types::EventRecord;
use std::io::Write;
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress as plain lines: one every few seconds, and one for each incident.
#[derive(Debug)]
pub struct PlainView<W> {
    out: W,
    every: Duration,
    said: Option<Instant>,
    said_steps: u64,
}

impl<W: Write> PlainView<W> {
    /// Writes to `out`, which should be stderr.
    pub fn new(out: W) -> Self {
        Self { out, every: LINE_EVERY, said: None, said_steps: 0 }
    }

    /// Sets how often progress is told; never more often than there is any.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Says what the event that `state` has just taken in means.
    pub fn on_event(&mut self, record: &EventRecord, state: &RunState) {
        if let Some(text) = sentence(&record.event, state) {
            self.line(state, &text);
        }
        self.tick(state);
    }

    /// Says how far the run is, if it is time to.
    pub fn tick(&mut self, state: &RunState) {
        let due = self.said.is_none_or(|said| said.elapsed() >= self.every);
        if due && state.steps() != self.said_steps {
            self.said = Some(Instant::now());
            self.said_steps = state.steps();
            let text = progress(state);
            self.line(state, &text);
        }
    }

    /// A line of somebody else's.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    fn line(&mut self, state: &RunState, text: &str) {
        // A reader that went away is no reason to stop training.
        let _ = writeln!(self.out, "{:>7}  {text}", words::clock(state.now_ms() / 1000));
        let _ = self.out.flush();
    }
}

/// `iteration 312/600  loss 2.314  12.3 k tokens/s  14 nodes  goodput 71 %`
fn progress(state: &RunState) -> String {
    let of = if state.info.steps > 0 { format!("/{}", state.info.steps) } else { String::new() };
    let mut text = format!("iteration {}{of}", state.steps());
    if let Some(loss) = state.loss().recent(1) {
        text.push_str(&format!("  loss {loss:.3}"));
    }
    text.push_str(&format!(
        "  {} tokens/s  {}  goodput {}",
        words::count(state.recent_tokens_per_s()),
        words::plural(state.living() as u64, "node"),
        words::percent(state.time().goodput())
    ));
    let holes: Vec<_> = state.stages().filter(|stage| stage.is_hole()).map(|stage| stage.stage).collect();
    if !holes.is_empty() {
        text.push_str(&format!("  without stage {}", words::stages(&holes)));
    }
    if let Some(seconds) = state.remaining_s() {
        text.push_str(&format!("  {} left", words::duration(seconds)));
    }
    text
}
