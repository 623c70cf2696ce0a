//! Errors as the shell sees them: a sentence on stderr and an exit code.

use std::fmt;
use std::process::ExitCode;

use skipstone_data::DataError;
use skipstone_model::{HfError, ModelError};
use skipstone_worlds::config::ConfigError;
use skipstone_worlds::live::RunError;
use skipstone_worlds::live::folder::FolderError;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Usage or input was wrong: exit code 2.
    Input(String),
    /// The work failed: exit code 1.
    Failed(String),
}

/// Result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Wrong usage or input.
    pub(crate) fn input(why: impl fmt::Display) -> Self {
        Self::Input(why.to_string())
    }

    /// Failed work.
    pub(crate) fn failed(why: impl fmt::Display) -> Self {
        Self::Failed(why.to_string())
    }

    /// The exit code that the command line promises.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Input(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Input(why) | Self::Failed(why)) = self;
        f.write_str(why)
    }
}

/// Options, data and models come from whoever typed the command.
macro_rules! input {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::input(error)
            }
        })*
    };
}
input!(ConfigError, DataError, HfError, ModelError, skipstone_observe::ReadError);

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::File { .. } => Self::failed(error),
            _ => Self::input(error),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Config(_)
            | RunError::Health(_)
            | RunError::State(_)
            | RunError::Log(_)
            | RunError::Store(_)
            | RunError::Stored { .. }
            | RunError::Memory { .. } => Self::input(error),
            RunError::Folder(error) => error.into(),
            error => Self::failed(error),
        }
    }
}
