//! Writes states to `state/`, one after the other, on a thread of its own: the disk holds up no task.

use super::files::{StateFile, stage_path};
use super::{EngineSetup, RunFiles, StageState};
use skipstone_protocol::TaskId;
use skipstone_types::{Digest, Iteration, StageId};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

/// A state to be written. While it is held here, a step makes a copy of it instead of changing it.
#[derive(Debug)]
pub struct WriteJob {
    /// Names the write.
    pub id: TaskId,
    /// The stage.
    pub stage: StageId,
    /// The iteration that the state belongs to.
    pub iteration: Iteration,
    /// The state's digest.
    pub digest: Digest,
    /// The state.
    pub state: Arc<StageState>,
}

/// Writes states for one node.
pub struct StateWriter {
    folder: PathBuf,
    shape: String,
    files: Option<Arc<dyn RunFiles>>,
}

impl std::fmt::Debug for StateWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateWriter").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl StateWriter {
    /// A writer for a node of this setup. On a machine without the run's folder what is written goes there through `files`.
    pub fn new(setup: &EngineSetup, files: Option<Arc<dyn RunFiles>>) -> Self {
        Self { folder: setup.state.clone(), shape: setup.shape.digest(), files }
    }

    /// Writes a state. It is on the disk for good when this returns.
    ///
    /// # Errors
    /// In words: a full disk, say. Nothing is left behind then.
    pub fn write(&self, job: &WriteJob) -> Result<(), String> {
        let WriteJob { stage, iteration, digest, state, .. } = job;
        let path = stage_path(&self.folder, *iteration, *stage, digest);
        let file = StateFile { stage: *stage, iteration: *iteration, shape: &self.shape };
        file.write(&path, state, digest).map_err(|error| error.to_string())?;
        let deliver = |files: &Arc<dyn RunFiles>| files.deliver(&path).map_err(|error| error.to_string());
        self.files.as_ref().map_or(Ok(()), deliver)
    }

    /// Starts the thread: it takes jobs, and says of each how it ended. It ends with the queue, or when nobody hears it any more.
    ///
    /// # Errors
    /// A thread that can't be started.
    pub fn start(
        self,
        ended: impl Fn(TaskId, Result<(), String>) -> bool + Send + 'static,
    ) -> io::Result<mpsc::Sender<WriteJob>> {
        // The core gives one job at a time: no more than one waits.
        let (jobs, queue) = mpsc::channel::<WriteJob>();
        std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
            for job in queue {
                let id = job.id;
                let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.write(&job)));
                let written =
                    written.unwrap_or_else(|_| Err("the write broke down; this is a bug".to_owned()));
                // The state must have no reader left when the next step wants to write to it.
                drop(job);
                if !ended(id, written) {
                    break;
                }
            }
        })?;
        Ok(jobs)
    }
}
