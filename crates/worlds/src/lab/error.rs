//! Why an experiment can't be run.

use crate::config::ConfigError;
use crate::cost::SimulateError;
use skipstone_data::{DataError, OrderError};
use skipstone_model::ModelError;
use skipstone_observe::PictureError;
use skipstone_recovery::SpecError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why an experiment can't be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabError {
    /// The file can't be read.
    #[error("can't read {path}: {source}; `skipstone lab --help` shows what an experiment is")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Results can't be written.
    #[error("can't write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A chart can't be painted.
    #[error("can't make {path}: {source}")]
    Picture {
        /// The file that it would have been.
        path: PathBuf,
        /// Why.
        source: PictureError,
    },
    /// The file is not an experiment.
    #[error("{path} is not an experiment: {why}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The place, and what is wrong there.
        why: String,
    },
    /// A file of results that another program wrote, or that is damaged.
    #[error(
        "{path}, line {line}, is not a result of the lab: {why}; move the file away, or give another folder with --out"
    )]
    Results {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A field that can't work.
    #[error("{field}: {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The run's options.
    #[error("[run]: {0}")]
    Config(#[from] ConfigError),
    /// Paths that are not known.
    #[error(transparent)]
    Paths(#[from] SpecError),
    /// The data.
    #[error("data, in [run]: {0}")]
    Data(#[from] DataError),
    /// What can't be computed so, or threads that the system refuses.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Batches that the data can't fill.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// An arm did not come to its end.
    #[error("{arm}: {why}")]
    Arm {
        /// Which.
        arm: String,
        /// Why.
        why: Box<SimulateError>,
    },
    /// Ctrl-C.
    #[error("interrupted; what was finished is kept, the same command goes on")]
    Interrupted,
}
