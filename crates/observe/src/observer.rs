//! The one thing that a run's parent process talks to.

use crate::view::{Progress, View};
use crate::{EventLog, ReadError, RunInfo, RunState, Scalars, Summary, write_report};
use skipstone_types::{EVENT_SCHEMA, Event, EventRecord};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is left when a run has ended.
#[derive(Debug)]
pub struct Outcome {
    /// The numbers.
    pub summary: Summary,
    /// The report, written in [`Observer::finish`]; why not, if it couldn't be.
    pub report: Result<PathBuf, String>,
}

/// The one thing that a run's parent process talks to: give it every event ([`Observer::record`]), call
/// [`Observer::tick`] about ten times a second, and end with [`Observer::finish`]. It writes the log, the scalars and
/// the progress, and never fails: trouble with the disk is a warning.
#[derive(Debug)]
pub struct Observer {
    dir: PathBuf,
    state: RunState,
    log: EventLog,
    scalars: Option<Scalars>,
    view: View,
    offset_ms: u64,
}

impl Observer {
    /// Starts to observe a run in the folder `dir`, which must exist. If it holds a log (`--resume`), its events are
    /// taken in first, and time goes on from its end.
    ///
    /// # Errors
    /// A log that can't be opened, or one of another version of skipstone.
    pub fn start(dir: &Path, info: RunInfo, progress: Progress) -> Result<Self, ReadError> {
        let log = EventLog::open(dir)?;
        let mut state = RunState::new(info);
        crate::read::scan(log.path(), |record, _| state.apply(&record))?;
        let offset_ms = log.resumed_ms();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let scalars = Scalars::create(dir, now_s - offset_ms as f64 / 1000.0);
        let view = View::new(progress, &state);
        let mut observer = Self { dir: dir.to_owned(), state, log, scalars: None, view, offset_ms };
        match scalars {
            Ok(scalars) => observer.scalars = Some(scalars),
            Err(why) => observer.note(&format!(
                "warning: can't write TensorBoard's scalars under {}: {why}; training goes on",
                dir.display()
            )),
        }
        Ok(observer)
    }

    /// The run as it stands.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Sets reference losses that became known after the start.
    pub fn set_references(&mut self, bigram_val_loss: Option<f64>, entropy_floor_loss: Option<f64>) {
        self.state.info.bigram_val_loss = bigram_val_loss;
        self.state.info.entropy_floor_loss = entropy_floor_loss;
    }

    /// Takes an event, `elapsed_ms` after [`Observer::start`].
    pub fn record(&mut self, elapsed_ms: u64, event: Event) {
        // Events of two sources may arrive a little out of order; the log's times never run backwards.
        let time_ms = self.offset_ms.saturating_add(elapsed_ms).max(self.state.now_ms());
        let record = EventRecord { schema: EVENT_SCHEMA, time_ms, event };
        self.state.apply(&record);
        self.log.append(&record);
        if let Some(scalars) = &mut self.scalars {
            scalars.write(&record, &self.state);
        }
        self.view.tick(&self.state);
        self.warn();
    }

    /// Lets time pass; call it about ten times a second.
    pub fn tick(&mut self, elapsed_ms: u64) {
        self.state.advance(self.offset_ms.saturating_add(elapsed_ms));
        self.log.tick();
        if let Some(scalars) = &mut self.scalars {
            scalars.tick();
        }
        self.view.tick(&self.state);
        self.warn();
    }

    /// Says something on stderr without disturbing the view: warnings, the first lines of `demo`.
    pub fn note(&mut self, text: &str) {
        self.view.note(text, &self.state);
    }

    /// Says something that has just happened and that no event tells.
    pub fn remark(&mut self, text: &str) {
        self.view.remark(text, &self.state);
    }

    /// Ends the view, writes `report.html` and gives the numbers. Call it after the run's `Finished` event.
    pub fn finish(mut self) -> Outcome {
        self.view.close(&self.state);
        self.log.flush();
        if let Some(scalars) = &mut self.scalars {
            scalars.flush();
        }
        self.warn();
        let report = write_report(&self.dir, &self.state);
        Outcome { summary: Summary::of(&self.state), report }
    }

    fn warn(&mut self) {
        let log = self.log.take_warning();
        let scalars = self.scalars.as_mut().and_then(Scalars::take_warning);
        for warning in [log, scalars].into_iter().flatten() {
            self.note(&format!("warning: {warning}"));
        }
    }
}
