//! The MODEL argument of `eval` and `generate`: a Hugging Face folder, or a run's folder.

use std::path::{Path, PathBuf};

use skipstone_data::Tokenizer;
use skipstone_model::{Imported, import};

use crate::failure::{Failure, Outcome};

/// A model and its tokenizer.
pub(crate) struct ModelFolder {
    pub(crate) imported: Imported,
    pub(crate) tokenizer: Tokenizer,
}

impl ModelFolder {
    /// Reads both. `tokenizer` is `--tokenizer`: `bytes` or a file, in place of the folder's own.
    pub(crate) fn read(path: &Path, tokenizer: Option<&str>) -> Outcome<Self> {
        let imported = import(path)?;
        let tokenizer = match (tokenizer, &imported.tokenizer) {
            (Some("bytes"), _) => Tokenizer::bytes(),
            (Some(file), _) => Tokenizer::from_file(Path::new(file)),
            (None, Some(file)) => Tokenizer::from_file(file),
            (None, None) => {
                return Err(Failure::input(format!(
                    "{} holds no tokenizer.json; copy the model's there, or pass --tokenizer FILE or --tokenizer bytes",
                    imported.dir.display()
                )));
            }
        };
        let tokenizer = tokenizer.map_err(Failure::input)?;
        let vocab = imported.model.config().vocab_size;
        // A padded embedding has more rows than the tokenizer has tokens; the reverse cannot work.
        if tokenizer.vocab_size() > vocab {
            return Err(Failure::input(format!(
                "the tokenizer has {} tokens, but the model in {} knows {vocab}; pass the tokenizer that the model was \
                 trained with",
                tokenizer.vocab_size(),
                imported.dir.display()
            )));
        }
        Ok(Self { imported, tokenizer })
    }

    /// Cuts the model as `--stages` and `--origin-layers` say; as it knows itself, or layer by layer, without them.
    pub(crate) fn recut(mut self, stages: Option<usize>, origin_layers: Option<usize>) -> Outcome<Self> {
        if stages.is_none() && origin_layers.is_none() {
            return Ok(self);
        }
        let model = self.imported.model;
        let stages = stages.unwrap_or_else(|| model.relay_stages());
        self.imported.model = model.recut(stages, origin_layers.unwrap_or(0))?;
        Ok(self)
    }

    /// The run's folder that the model lies in, if it does.
    pub(crate) fn run_dir(&self) -> Option<PathBuf> {
        let dir = self.imported.dir.canonicalize().ok()?;
        dir.parent().filter(|dir| dir.join("run.toml").is_file()).map(Path::to_owned)
    }
}
