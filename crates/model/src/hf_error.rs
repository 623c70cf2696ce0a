//! What can go wrong with a Hugging Face folder.

use std::io;
use std::path::PathBuf;

use crate::error::ModelError;

/// Reading or writing a model folder failed. Messages name the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum HfError {
    /// Nothing is there.
    #[error("no model at {}: give a folder with config.json and model.safetensors (a run's DIR/model, or what `save_pretrained` writes)", path.display())]
    Missing {
        /// What was asked for.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}; check the path, its permissions and the space left on the disk", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A JSON file that cannot be understood.
    #[error("{} is not a usable {what}: {why}; restore the file from where the model came from", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A model of another family, or with parts that LLaMA does not have.
    #[error("{}: {why}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What, and what to do.
        why: String,
    },
    /// The configuration is impossible.
    #[error("{}: {source}", path.display())]
    Config {
        /// `config.json`.
        path: PathBuf,
        /// Why.
        source: ModelError,
    },
    /// A weights file that is damaged.
    #[error("{} is damaged: {why}; copy or download it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A tensor is not in any file.
    #[error("{} holds no tensor `{tensor}`, which config.json asks for; {remedy}", path.display())]
    MissingTensor {
        /// The weights file or index.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A tensor of another shape than the configuration says.
    #[error("{}: tensor `{tensor}` has shape {actual:?}, but config.json makes it {expected:?}; config.json and weights do not belong together: take both from one model", path.display())]
    Shape {
        /// The weights file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// Shape in the file.
        actual: Vec<usize>,
        /// Shape by the configuration.
        expected: Vec<usize>,
    },
    /// The folder to write holds something else.
    #[error("{} holds `{found}`, which no model export wrote; choose another folder or move that away", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The first strange entry.
        found: String,
    },
    /// The model itself.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl HfError {
    pub(crate) fn read(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing: "read", path, source }
    }

    pub(crate) fn write(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing: "write", path, source }
    }
}
