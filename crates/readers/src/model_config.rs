//! `config.json` of a model, on its own and as `--model PATH` (`skipstone-model`, `skipstone-worlds`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, scratch, within};
use skipstone_model::{HfError, LlamaConfig, RopeScaling, read_config};
use skipstone_worlds::config::{ConfigError, RunConfig};

/// The text and its tree of JSON values, of which a small one takes 32 bytes for 2 of text while its list grows.
fn memory_max(input: usize) -> usize {
    (256 << 10) + 128 * input
}

pub(crate) const READER: Reader = Reader {
    name: "model_config",
    what: "config.json of a Hugging Face model, also as `--model PATH`",
    text: true,
    memory_max,
    read,
    mend: None,
    seeds,
};

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let path = scratch::file("config.json", bytes)?;
    let run = RunConfig { model: path.display().to_string(), ..RunConfig::default() };
    // Whatever can be read has to be a run's model too, or be refused in words.
    let planned: Result<_, ConfigError> = within(memory_max(bytes.len()), bytes, || {
        let shape = run.shape(257)?;
        run.memory_plan(257).map(|plan| (shape, plan.total()))
    })?;
    let config: Result<LlamaConfig, HfError> = within(memory_max(bytes.len()), bytes, || read_config(&path))?;
    let config = match config {
        Ok(config) => config,
        Err(why) => return refused(why),
    };
    let once = serde_json::to_vec(&config).map_err(lost)?;
    let again = read_config(&scratch::file("again.json", &once)?).map_err(lost)?;
    same(&config, &again)?;
    if config.parameters() == 0
        || planned.is_ok_and(|(shape, bytes)| shape.model.parameters() == 0 || bytes == 0)
    {
        return Err(lost("a model of no parameters"));
    }
    Ok(Verdict::Taken)
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let grouped = LlamaConfig {
        num_key_value_heads: 2,
        head_dim: Some(32),
        tie_word_embeddings: true,
        rope_scaling: Some(RopeScaling {
            rope_type: "llama3".to_owned(),
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        }),
        ..LlamaConfig::tiny()
    };
    [
        ("tiny", LlamaConfig { vocab_size: 300, ..LlamaConfig::tiny() }),
        ("8b", LlamaConfig::b8()),
        ("grouped", grouped),
        ("deep", LlamaConfig { num_hidden_layers: 200_000, ..LlamaConfig::tiny() }),
    ]
    .into_iter()
    .map(|(name, config)| Ok((name.to_owned(), serde_json::to_vec_pretty(&config)?)))
    .collect()
}
