//! A model folder as `transformers` writes it, read into stages.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::LlamaConfig;
use crate::error::ModelError;
use crate::hf_error::HfError;
use crate::hf_names::parts;
use crate::hf_shards::{Shards, read_bounded, read_json};
use crate::whole::WholeModel;

/// A model that was read, and what its folder says besides.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The model, cut as `config.json` says, else layer by layer: the first is the origin's, every other a stage.
    pub model: WholeModel,
    /// Whether `config.json` said how the model was cut.
    pub knows_stages: bool,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// The token that begins a text, if the model wants one.
    pub bos: Option<u32>,
    /// `tokenizer.json`, where there is one.
    pub tokenizer: Option<PathBuf>,
    /// The folder.
    pub dir: PathBuf,
}

/// Finds the model folder that `path` means: itself, or `model/` in a run's folder.
///
/// # Errors
/// [`HfError::Missing`] when neither holds a `config.json`.
pub fn model_dir(path: &Path) -> Result<PathBuf, HfError> {
    [path.to_owned(), path.join("model")]
        .into_iter()
        .find(|dir| dir.join("config.json").is_file())
        .ok_or_else(|| HfError::Missing { path: path.to_owned() })
}

/// Reads a LLaMA configuration from a `config.json` alone.
///
/// # Errors
/// When it cannot be read, is damaged, or of another family.
pub fn read_config(path: &Path) -> Result<LlamaConfig, HfError> {
    Ok(config_of(path)?.0)
}

/// Reads a folder: configuration, weights in one file or several, in F32, F16 or BF16.
///
/// # Errors
/// When anything is missing, damaged, of another family, or does not fit together. Memory is taken only for what
/// the files are long enough to hold.
pub fn import(path: &Path) -> Result<Imported, HfError> {
    let dir = model_dir(path)?;
    let config_path = dir.join("config.json");
    let (config, json) = config_of(&config_path)?;
    let in_config = |source| HfError::Config { path: config_path.clone(), source };
    let mut shards = Shards::open(&dir)?;
    refuse_too_small(&config, &shards, &config_path)?;
    let note = |name: &str| json["skipstone"][name].as_u64().map(|n| n as usize);
    let cut = note("stages").zip(note("origin_layers"));
    let (relays, origin_layers) = cut.unwrap_or((config.num_hidden_layers - 1, 1));
    check_tensors(&config, &shards)?;
    let mut model = WholeModel::zeroed(config.clone(), relays, origin_layers).map_err(in_config)?;
    for stage in model.stages_mut() {
        for slot in stage.layout(&config).tensors() {
            for part in parts(&config, slot) {
                let place = shards.get(&part.name).cloned().ok_or_else(|| missing(&shards, &part.name))?;
                shards.read(&part.name, &place, &mut stage.params[part.range])?;
            }
        }
    }
    let generation = dir.join("generation_config.json");
    let generation: Value =
        if generation.is_file() { read_json(&generation, "generation_config.json")? } else { Value::Null };
    let tokens = |name: &str| ids(&generation[name]).or_else(|| ids(&json[name]));
    let tokenizer = dir.join("tokenizer.json");
    Ok(Imported {
        model,
        knows_stages: cut.is_some(),
        eos: tokens("eos_token_id").unwrap_or_default(),
        bos: tokens("bos_token_id").and_then(|ids| ids.first().copied()),
        tokenizer: tokenizer.is_file().then_some(tokenizer),
        dir,
    })
}

/// One token or a list of them.
fn ids(value: &Value) -> Option<Vec<u32>> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        value => Some(vec![one(value)?]),
    }
}

fn config_of(path: &Path) -> Result<(LlamaConfig, Value), HfError> {
    if fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(HfError::Missing { path: path.to_owned() });
    }
    let text = read_bounded(path, "config.json")?;
    let unreadable = |why: String| HfError::Json { path: path.to_owned(), what: "config.json", why };
    let json: Value = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    let unsupported = |why: String| Err(HfError::Unsupported { path: path.to_owned(), why });
    match json.get("model_type").map(|family| family.as_str().unwrap_or("?")) {
        None | Some("llama") => {}
        Some(other) => {
            return unsupported(format!(
                "the model is of the family `{other}`; only `llama` is read: choose a LLaMA model"
            ));
        }
    }
    if json.get("quantization_config").is_some_and(|q| !q.is_null()) {
        return unsupported(
            "the model is quantised; dequantise it first, and save it in F32 or BF16".to_owned(),
        );
    }
    // From the text, not from the tree of values: of a field that is given twice that would take the last.
    let config: LlamaConfig =
        serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&text))
            .map_err(|error| unreadable(error.to_string()))?;
    config
        .validate()
        .map_err(|error| HfError::Config { path: path.to_owned(), source: ModelError::Config(error) })?;
    Ok((config, json))
}

/// Refuses a configuration that asks for more than the files can hold, before memory is taken for it.
fn refuse_too_small(config: &LlamaConfig, shards: &Shards, path: &Path) -> Result<(), HfError> {
    let wide = |x: usize| x as u128;
    let (d, f, hd) = (wide(config.hidden_size), wide(config.intermediate_size), wide(config.head_width()));
    let heads = wide(config.num_attention_heads) + wide(config.num_key_value_heads);
    let layers = wide(config.num_hidden_layers) * (2 * d + 2 * heads * hd * d + 3 * f * d);
    let parameters = layers + wide(config.vocab_size) * d + d;
    if 2 * parameters <= u128::from(shards.bytes) {
        return Ok(());
    }
    let why = format!(
        "it describes at least {parameters} parameters, but {} holds {} bytes; config.json and weights do not belong \
         together: take both from one model",
        shards.source.display(),
        shards.bytes
    );
    Err(HfError::Unsupported { path: path.to_owned(), why })
}

/// Every tensor that the configuration asks for must be there in its shape, and nothing that would change the model.
fn check_tensors(config: &LlamaConfig, shards: &Shards) -> Result<(), HfError> {
    let layout =
        crate::layout::StageLayout::new(config, crate::layout::Role::Origin, 0..config.num_hidden_layers);
    let mut known = std::collections::BTreeSet::new();
    for part in layout.tensors().iter().flat_map(|slot| parts(config, slot)) {
        let place = shards.get(&part.name).ok_or_else(|| missing(shards, &part.name))?;
        if place.shape != part.shape {
            return Err(HfError::Shape {
                path: shards.path(place).to_owned(),
                tensor: part.name,
                actual: place.shape.clone(),
                expected: part.shape,
            });
        }
        known.insert(part.name);
    }
    let harmless = |name: &str| {
        name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight")
    };
    match shards.names().find(|name| !known.contains(*name) && !harmless(name)) {
        Some(name) => Err(HfError::Unsupported {
            path: shards.source.clone(),
            why: format!(
                "it holds `{name}`, which a LLaMA model of this config.json does not have (biases, adapters and more \
                 layers are not read); merge adapters, or take config.json and weights from one model"
            ),
        }),
        None => Ok(()),
    }
}

fn missing(shards: &Shards, tensor: &str) -> HfError {
    let remedy = if tensor == "lm_head.weight" {
        "set \"tie_word_embeddings\": true in config.json if the model's head is its embedding, else copy the weights again"
    } else {
        "copy all weights files again, or correct config.json"
    };
    HfError::MissingTensor { path: shards.source.clone(), tensor: tensor.to_owned(), remedy }
}
