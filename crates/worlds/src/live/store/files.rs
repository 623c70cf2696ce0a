//! `DIR/state/<iteration>/stage-<k>-<digest>.safetensors`: a stage's weights, moments and counters. A file is never
//! written over by other bits: a stage may be rebuilt, and be saved again for the same iteration.

use super::StageState;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use skipstone_model::StageLayout;
use skipstone_types::{Digest, Iteration, StageId};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Version of the files; raised when a reader of the old one would misunderstand the new.
const FORMAT: &str = "skipstone-state-1";

const BUFFERS: [&str; 3] = ["parameters", "first_moments", "second_moments"];

/// Why a saved state can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateFileError {
    /// The system refuses.
    #[error("{}: {source}; check the path, its permissions and the space left on the disk", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged ({why}); restore it from a copy, or start anew in another folder", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file is of another model, cut or stage.
    #[error("{} does not fit: {why}; resume with the options that the run was started with", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is different.
        why: String,
    },
}

/// The folder of the states saved for `iteration`, under the run's `state/`.
pub fn iteration_dir(state: &Path, iteration: Iteration) -> PathBuf {
    state.join(iteration.0.to_string())
}

/// The file of a stage in it, with a state of this digest.
pub fn stage_path(state: &Path, iteration: Iteration, stage: StageId, digest: &Digest) -> PathBuf {
    let start = digest.to_string();
    let start = start.get(..16).unwrap_or(&start);
    iteration_dir(state, iteration).join(format!("stage-{}-{start}.safetensors", stage.0))
}

/// What a stage's file must agree with.
#[derive(Debug, Clone, Copy)]
pub struct StateFile<'a> {
    /// The stage.
    pub stage: StageId,
    /// The iteration that would run next.
    pub iteration: Iteration,
    /// Digest of model and cut ([`crate::config::RunShape::digest`]).
    pub shape: &'a str,
}

impl StateFile<'_> {
    /// Writes a state of this digest beside `path`, syncs it, and renames.
    ///
    /// # Errors
    /// [`StateFileError::Io`]: a full disk, say. Nothing is left behind then.
    pub fn write(&self, path: &Path, state: &StageState, digest: &Digest) -> Result<(), StateFileError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)
            .and_then(|()| skipstone_files::replace(path, |beside| self.write_to(beside, state, digest)))
            .map_err(|source| StateFileError::Io { path: path.to_owned(), source })
    }

    fn write_to(&self, path: &Path, state: &StageState, digest: &Digest) -> io::Result<()> {
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("stage".to_owned(), self.stage.0.to_string()),
            ("iteration".to_owned(), self.iteration.0.to_string()),
            ("shape".to_owned(), self.shape.to_owned()),
            ("optimizer_step".to_owned(), state.optimizer_step.to_string()),
            ("learning_rate_factor".to_owned(), format!("{:08x}", state.learning_rate_factor.to_bits())),
            ("digest".to_owned(), digest.to_string()),
        ]);
        let buffers = [&state.parameters, &state.first_moments, &state.second_moments];
        let views = BUFFERS
            .iter()
            .zip(buffers)
            .map(|(name, values)| {
                let bytes = bytemuck::cast_slice(values.as_slice());
                TensorView::new(Dtype::F32, vec![values.len()], bytes).map(|view| (*name, view))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)?;
        safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(source) => source,
            other => io::Error::other(other),
        })
    }

    /// Reads a state and checks every bit of it.
    ///
    /// # Errors
    /// A file that is missing, damaged, or of something else.
    pub fn read(&self, path: &Path, layout: &StageLayout) -> Result<StageState, StateFileError> {
        let damaged = |why: String| StateFileError::Damaged { path: path.to_owned(), why };
        let unfit = |why: String| StateFileError::Unfit { path: path.to_owned(), why };
        let bytes =
            std::fs::read(path).map_err(|source| StateFileError::Io { path: path.to_owned(), source })?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|why| damaged(why.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let field = |name: &str| {
            metadata.get(name).map(String::as_str).ok_or_else(|| damaged(format!("it has no {name}")))
        };
        if field("format")? != FORMAT {
            return Err(unfit(format!("its format is {}, not {FORMAT}", field("format")?)));
        }
        if field("shape")? != self.shape {
            return Err(unfit("it is of another model, or of another number of stages or layers".to_owned()));
        }
        for (name, expected) in
            [("stage", self.stage.0.to_string()), ("iteration", self.iteration.0.to_string())]
        {
            if field(name)? != expected {
                return Err(unfit(format!("its {name} is {}, not {expected}", field(name)?)));
            }
        }
        let number =
            |name: &str| field(name)?.parse::<u64>().map_err(|why| damaged(format!("{name}: {why}")));
        let factor = u32::from_str_radix(field("learning_rate_factor")?, 16)
            .map_err(|why| damaged(format!("learning_rate_factor: {why}")))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|why| damaged(why.to_string()))?;
        let buffer = |name: &str| {
            let view = tensors.tensor(name).map_err(|why| damaged(why.to_string()))?;
            if view.dtype() != Dtype::F32 || view.shape() != [layout.len()] {
                return Err(unfit(format!(
                    "{name} holds {:?} values, the stage has {}",
                    view.shape(),
                    layout.len()
                )));
            }
            // The file's bytes need not lie where numbers may.
            let mut values = vec![0.0_f32; layout.len()];
            bytemuck::cast_slice_mut(&mut values).copy_from_slice(view.data());
            Ok(values)
        };
        let state = StageState {
            stage: self.stage,
            parameters: buffer(BUFFERS[0])?,
            first_moments: buffer(BUFFERS[1])?,
            second_moments: buffer(BUFFERS[2])?,
            optimizer_step: number("optimizer_step")?,
            learning_rate_factor: f32::from_bits(factor),
        };
        let written = field("digest")?;
        if state.digest().to_string() == written {
            Ok(state)
        } else {
            Err(damaged("its digest differs".to_owned()))
        }
    }
}
