//! TensorBoard scalars: an event file of TFRecords with hand-written protobuf.

mod record;

use crate::RunState;
use crate::append::Append;
use skipstone_types::{Event, EventRecord};
use std::io;
use std::path::Path;
use std::time::Duration;

const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// What waits for a disk that refuses; scalars beyond it are left out.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// Scalars for TensorBoard, in `DIR/tensorboard/`: `loss/train`, `loss/validation`, `learning_rate`,
/// `tokens_per_s`, `nodes/living`, `goodput` and `gradient_norm/stage_N`. Like the log, it never ends a run.
#[derive(Debug)]
pub struct Scalars {
    file: Append,
    /// Seconds of the run's start since 1970.
    start_s: f64,
}

impl Scalars {
    /// Starts an event file. `start_s`: the run's time 0 in seconds since 1970.
    ///
    /// # Errors
    /// A folder or file that can't be made.
    pub fn create(dir: &Path, start_s: f64) -> io::Result<Self> {
        let dir = dir.join("tensorboard");
        std::fs::create_dir_all(&dir)?;
        // TensorBoard reads the files of a folder in order of name, and asks for `tfevents` in it.
        let path = dir.join(format!("events.out.tfevents.{:010}.skipstone", start_s.max(0.0) as u64));
        let mut scalars = Self { file: Append::open(&path, FLUSH_EVERY, PENDING_BYTES_MAX)?, start_s };
        scalars.push(&record::version(start_s));
        scalars.flush();
        Ok(scalars)
    }

    /// Writes what an event that `state` has just taken in adds.
    pub fn write(&mut self, record: &EventRecord, state: &RunState) {
        let wall_s = self.start_s + record.time_ms as f64 / 1000.0;
        match &record.event {
            Event::Committed { iteration, loss, learning_rate, stages, .. } => {
                let mut values = vec![
                    ("loss/train".to_owned(), *loss),
                    ("learning_rate".to_owned(), *learning_rate),
                    ("tokens_per_s".to_owned(), state.recent_tokens_per_s()),
                    ("nodes/living".to_owned(), state.living() as f64),
                    ("goodput".to_owned(), state.time().goodput()),
                ];
                values.extend(
                    stages
                        .iter()
                        .filter(|stage| stage.microbatches > 0)
                        .map(|stage| (format!("gradient_norm/stage_{}", stage.stage.0), stage.gradient_norm)),
                );
                self.push(&record::scalars(wall_s, iteration.0, &values));
            }
            Event::Validated { iteration, loss } => {
                let values = [("loss/validation".to_owned(), *loss)];
                self.push(&record::scalars(wall_s, iteration.0, &values));
            }
            _ => {}
        }
    }

    /// Flushes now and then.
    pub fn tick(&mut self) {
        self.file.tick();
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) {
        self.file.flush();
    }

    /// The warning of the first failure, once.
    pub fn take_warning(&mut self) -> Option<String> {
        let why = self.file.take_failure()?;
        let path = self.file.path().display();
        Some(format!("can't write TensorBoard's scalars {path}: {why}; training goes on"))
    }

    fn push(&mut self, event: &[u8]) {
        self.file.push(&record::frame(event));
    }
}
