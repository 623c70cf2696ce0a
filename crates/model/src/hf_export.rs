//! A model folder that `transformers` opens as `LlamaForCausalLM`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};
use serde_json::{Value, json};

use crate::hf_error::HfError;
use crate::hf_names::parts;
use crate::whole::WholeModel;

/// What goes into the folder besides the weights.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Most bytes of weights in one file; more are sharded, with an index.
    pub max_shard_bytes: u64,
    /// The token that ends (and, as in training, precedes) a document.
    pub eos: Option<u32>,
    /// Contents of `tokenizer.json`.
    pub tokenizer_json: Option<String>,
    /// Contents of `tokenizer_config.json`.
    pub tokenizer_config_json: Option<String>,
    /// More entries for the `skipstone` object of `config.json`.
    pub notes: serde_json::Map<String, Value>,
}

impl Default for ExportOptions {
    /// 4 GiB a file, nothing else.
    fn default() -> Self {
        Self {
            max_shard_bytes: 4 << 30,
            eos: None,
            tokenizer_json: None,
            tokenizer_config_json: None,
            notes: serde_json::Map::new(),
        }
    }
}

/// Tensors of one file: name, and shape and values.
type Shard<'a> = Vec<(String, F32View<'a>)>;

/// Values of a tensor, written as they lie in memory.
struct F32View<'a> {
    shape: Vec<usize>,
    values: &'a [f32],
}

impl View for &F32View<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(self.values))
        } else {
            Cow::Owned(self.values.iter().flat_map(|x| x.to_le_bytes()).collect())
        }
    }
    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

/// Writes `model` as the folder `dir`: everything beside it, synced, and then renamed. A model that is there is
/// replaced, anything else refused.
///
/// # Errors
/// When the folder holds something else, or cannot be written; then what was there still is.
pub fn export(model: &WholeModel, dir: &Path, options: &ExportOptions) -> Result<(), HfError> {
    refuse_foreign(dir)?;
    let beside = sibling(dir, "tmp");
    let old = sibling(dir, "old");
    clear(&beside)?;
    if !dir.exists() && old.exists() {
        // A former export was cut off between its two renames.
        fs::rename(&old, dir).map_err(HfError::write(dir))?;
    }
    clear(&old)?;
    fs::create_dir_all(&beside).map_err(HfError::write(&beside))?;
    let written = write_files(model, &beside, options).and_then(|()| {
        if dir.exists() {
            fs::rename(dir, &old).map_err(HfError::write(dir))?;
        }
        fs::rename(&beside, dir).map_err(|source| {
            // What was there comes back; the first error is the one to report.
            let _ = fs::rename(&old, dir);
            HfError::Io { doing: "write", path: dir.to_owned(), source }
        })
    });
    if written.is_err() {
        // Reported already; a leftover is removed by the next export.
        let _ = fs::remove_dir_all(&beside);
        return written;
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        skipstone_files::sync_folder(parent).map_err(HfError::write(parent))?;
    }
    clear(&old)
}

fn write_files(model: &WholeModel, dir: &Path, options: &ExportOptions) -> Result<(), HfError> {
    let shards = shards(model, options.max_shard_bytes);
    let count = shards.len();
    let file_name = |index: usize| match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    };
    let (mut weight_map, mut total) = (BTreeMap::new(), 0);
    for (index, shard) in shards.iter().enumerate() {
        let name = file_name(index);
        let path = dir.join(&name);
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let tensors = shard.iter().map(|(name, view)| (name.as_str(), view));
        safetensors::serialize_to_file(tensors, Some(metadata), &path)
            .map_err(|error| HfError::write(&path)(std::io::Error::other(error.to_string())))?;
        skipstone_files::sync(&path).map_err(HfError::write(&path))?;
        for (tensor, view) in shard {
            weight_map.insert(tensor.clone(), name.clone());
            total += 4 * view.values.len();
        }
    }
    if count > 1 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        write_json(&dir.join("model.safetensors.index.json"), &index)?;
    }
    write_json(&dir.join("config.json"), &config_json(model, options))?;
    write_json(&dir.join("generation_config.json"), &generation_json(options))?;
    for (name, text) in [
        ("tokenizer.json", &options.tokenizer_json),
        ("tokenizer_config.json", &options.tokenizer_config_json),
    ] {
        if let Some(text) = text {
            write_file(&dir.join(name), text.as_bytes())?;
        }
    }
    skipstone_files::sync_folder(dir).map_err(HfError::write(dir))
}

/// Tensors in the order of the model, as many to a file as fit.
fn shards(model: &WholeModel, max_bytes: u64) -> Vec<Shard<'_>> {
    let mut shards: Vec<Shard<'_>> = vec![Vec::new()];
    let mut bytes = 0;
    for stage in model.stages() {
        for slot in stage.layout(model.config()).tensors() {
            for part in parts(model.config(), slot) {
                let size = 4 * part.range.len() as u64;
                if bytes > 0 && bytes + size > max_bytes {
                    shards.push(Vec::new());
                    bytes = 0;
                }
                bytes += size;
                if let Some(shard) = shards.last_mut() {
                    let values = &stage.params[part.range];
                    shard.push((part.name, F32View { shape: part.shape, values }));
                }
            }
        }
    }
    shards
}

fn config_json(model: &WholeModel, options: &ExportOptions) -> Value {
    let mut config = serde_json::to_value(model.config()).unwrap_or_default();
    let mut notes = options.notes.clone();
    notes.insert("stages".to_owned(), model.relay_stages().into());
    notes.insert("origin_layers".to_owned(), model.origin_layers().into());
    if let Some(config) = config.as_object_mut() {
        config.extend([
            ("architectures".to_owned(), json!(["LlamaForCausalLM"])),
            ("model_type".to_owned(), json!("llama")),
            ("torch_dtype".to_owned(), json!("float32")),
            ("initializer_range".to_owned(), json!(crate::init::INIT_STD)),
            ("use_cache".to_owned(), json!(true)),
            // Training puts the end of one document before the next, so that is how a document begins.
            ("bos_token_id".to_owned(), json!(options.eos)),
            ("eos_token_id".to_owned(), json!(options.eos)),
            ("skipstone".to_owned(), Value::Object(notes)),
        ]);
    }
    config
}

fn generation_json(options: &ExportOptions) -> Value {
    json!({
        "bos_token_id": options.eos,
        "eos_token_id": options.eos,
        "pad_token_id": options.eos,
        "do_sample": true,
        "temperature": 0.8,
        "top_p": 0.95,
    })
}

fn write_json(path: &Path, value: &Value) -> Result<(), HfError> {
    write_file(path, format!("{value:#}\n").as_bytes())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), HfError> {
    skipstone_files::write(path, &[bytes]).map_err(HfError::write(path))
}

/// `.NAME.KIND` beside `dir`; one export of a folder runs at a time.
fn sibling(dir: &Path, kind: &str) -> PathBuf {
    let name = dir.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy());
    dir.with_file_name(format!(".{name}.{kind}"))
}

fn clear(dir: &Path) -> Result<(), HfError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(HfError::write(dir)(error)),
        _ => Ok(()),
    }
}

/// A folder is replaced only if nothing in it could be anything but a model.
fn refuse_foreign(dir: &Path) -> Result<(), HfError> {
    let foreign = |found: String| HfError::Foreign { path: dir.to_owned(), found };
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(HfError::read(dir)(error)),
        Ok(found) if !found.is_dir() => {
            return Err(foreign("a file or link in the folder's place".to_owned()));
        }
        Ok(_) => {}
    }
    for entry in fs::read_dir(dir).map_err(HfError::read(dir))? {
        let name = entry.map_err(HfError::read(dir))?.file_name().to_string_lossy().into_owned();
        let ours = matches!(
            name.as_str(),
            "config.json"
                | "generation_config.json"
                | "tokenizer.json"
                | "tokenizer_config.json"
                | "model.safetensors.index.json"
        ) || (name.starts_with("model") && name.ends_with(".safetensors"));
        if !ours {
            return Err(foreign(name));
        }
    }
    Ok(())
}
