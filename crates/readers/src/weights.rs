//! Weights of a Hugging Face model: `model.safetensors`, and the index of several (`skipstone-model`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, scratch, within};
use skipstone_model::{ExportOptions, LlamaConfig, WholeModel, export, import};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Names of a folder's files.
const CONFIG: &str = "config.json";
const ONE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Header and index are read whole and become trees of values; the model itself takes what its files hold, twice while
/// numbers are converted.
fn memory_max(input: usize) -> usize {
    (512 << 10) + 128 * input
}

pub(crate) const WEIGHTS: Reader = Reader {
    name: "weights",
    what: "model.safetensors of a Hugging Face model",
    text: false,
    memory_max,
    read: read_weights,
    mend: None,
    seeds: weights_seeds,
};

pub(crate) const INDEX: Reader = Reader {
    name: "weights_index",
    what: "model.safetensors.index.json of a Hugging Face model",
    text: true,
    memory_max,
    read: read_index,
    mend: None,
    seeds: index_seeds,
};

/// Files of a good model, by name.
type Folder = Vec<(String, Vec<u8>)>;

fn model() -> Result<WholeModel, SeedError> {
    Ok(WholeModel::initial(LlamaConfig::new(5, 4, 1, 2, 8), 1, 1, 3)?)
}

/// A folder of the good model, in files of at most so many bytes.
fn exported(max_shard_bytes: u64) -> Result<Folder, SeedError> {
    scratch::made_in(|dir| {
        let model_dir = dir.join("model");
        export(&model()?, &model_dir, &ExportOptions { max_shard_bytes, ..ExportOptions::default() })?;
        let mut files = Vec::new();
        for entry in fs::read_dir(model_dir)? {
            let entry = entry?;
            files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
        }
        Ok(files)
    })
}

fn file_of(folder: &Folder, name: &str) -> Result<Vec<u8>, SeedError> {
    let found = folder.iter().find(|(other, _)| other == name);
    found.map(|(_, bytes)| bytes.clone()).ok_or_else(|| format!("the exported model has no {name}").into())
}

/// The good folder, made once.
fn good(sharded: bool) -> Result<&'static Folder, Broken> {
    static FOLDERS: [OnceLock<Result<Folder, String>>; 2] = [OnceLock::new(), OnceLock::new()];
    let limit = if sharded { 1024 } else { u64::MAX };
    let made = FOLDERS[usize::from(sharded)].get_or_init(|| exported(limit).map_err(|why| why.to_string()));
    made.as_ref().map_err(|why| Broken::Scratch(why.clone()))
}

fn read_weights(bytes: &[u8]) -> Result<Verdict, Broken> {
    let config = file_of(good(false)?, CONFIG).map_err(|why| Broken::Scratch(why.to_string()))?;
    scratch::file(&format!("weights/{CONFIG}"), &config)?;
    let path = scratch::file(&format!("weights/{ONE_FILE}"), bytes)?;
    read_folder(path.parent().unwrap_or(&path), bytes)
}

fn read_index(bytes: &[u8]) -> Result<Verdict, Broken> {
    for (name, file) in good(true)? {
        if name != INDEX_FILE {
            scratch::file(&format!("index/{name}"), file)?;
        }
    }
    let path = scratch::file(&format!("index/{INDEX_FILE}"), bytes)?;
    read_folder(path.parent().unwrap_or(&path), bytes)
}

fn read_folder(dir: &Path, bytes: &[u8]) -> Result<Verdict, Broken> {
    let model = match within(memory_max(bytes.len()), bytes, || import(dir))? {
        Ok(imported) => imported.model,
        Err(why) => return refused(why),
    };
    let copy = dir.with_file_name("copy");
    export(&model, &copy, &ExportOptions::default()).map_err(lost)?;
    let again = import(&copy).map_err(lost)?.model;
    let bits = |model: &WholeModel| -> Vec<u32> {
        model.stages().iter().flat_map(|stage| stage.params.iter().map(|value| value.to_bits())).collect()
    };
    same(&bits(&model), &bits(&again))
}

fn weights_seeds() -> Result<Vec<Seed>, SeedError> {
    Ok(vec![("f32".to_owned(), file_of(&exported(u64::MAX)?, ONE_FILE)?)])
}

fn index_seeds() -> Result<Vec<Seed>, SeedError> {
    Ok(vec![("shards".to_owned(), file_of(&exported(1024)?, INDEX_FILE)?)])
}
