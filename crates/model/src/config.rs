//! The shape of a LLaMA model, in the words of a Hugging Face `config.json`.

use serde::{Deserialize, Serialize};

/// A model configuration; field names are those of Hugging Face's `LlamaConfig`.
///
/// Reading accepts both the classic form (`rope_theta`, `rope_scaling`) and the form `transformers` 5 writes
/// (`rope_parameters`); writing produces the classic form, which every version reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "RawConfig")]
pub struct LlamaConfig {
    /// Number of tokens, V.
    pub vocab_size: usize,
    /// Model width, D.
    pub hidden_size: usize,
    /// Width of the MLP, F.
    pub intermediate_size: usize,
    /// Number of transformer layers of the whole model.
    pub num_hidden_layers: usize,
    /// Query heads, Hq.
    pub num_attention_heads: usize,
    /// Key and value heads, Hkv; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; `hidden_size / num_attention_heads` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Longest context the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// ε inside the root of RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Long-context scaling of the rotary frequencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Activation of the MLP; only `silu`.
    pub hidden_act: String,
    /// Biases in the attention projections; only `false`.
    pub attention_bias: bool,
    /// Biases in the MLP projections; only `false`.
    pub mlp_bias: bool,
}

/// Scaling of rotary frequencies, as in `rope_scaling` of a `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeScaling {
    /// `llama3` or `default`.
    #[serde(alias = "type")]
    pub rope_type: String,
    /// How much low frequencies are slowed down.
    #[serde(default = "one")]
    pub factor: f64,
    /// Wavelengths above `original / low_freq_factor` are scaled in full.
    #[serde(default = "one")]
    pub low_freq_factor: f64,
    /// Wavelengths below `original / high_freq_factor` are left alone.
    #[serde(default = "four")]
    pub high_freq_factor: f64,
    /// Context length before scaling, in tokens.
    #[serde(default = "original_context")]
    pub original_max_position_embeddings: usize,
}

fn one() -> f64 {
    1.0
}
fn four() -> f64 {
    4.0
}
fn original_context() -> usize {
    8192
}

/// What a `config.json` may hold, before defaults are filled in.
#[derive(Deserialize)]
struct RawConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f32>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeScaling>,
    rope_parameters: Option<RopeParameters>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
}

/// `rope_parameters` of transformers 5: base and scaling in one object.
#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    #[serde(flatten)]
    scaling: RopeScaling,
}

impl From<RawConfig> for LlamaConfig {
    fn from(raw: RawConfig) -> Self {
        let (theta, scaling) = match raw.rope_parameters {
            Some(p) => (p.rope_theta.or(raw.rope_theta), Some(p.scaling)),
            None => (raw.rope_theta, raw.rope_scaling),
        };
        Self {
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            num_key_value_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: raw.head_dim,
            max_position_embeddings: raw.max_position_embeddings.unwrap_or(2048),
            rms_norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: theta.unwrap_or(10_000.0),
            rope_scaling: scaling.filter(|s| s.rope_type != "default"),
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            hidden_act: raw.hidden_act.unwrap_or_else(|| "silu".to_owned()),
            attention_bias: raw.attention_bias.unwrap_or(false),
            mlp_bias: raw.mlp_bias.unwrap_or(false),
        }
    }
}

/// Why a configuration cannot be trained. Every message ends in what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A size is zero.
    #[error("`{0}` is 0; set it to a positive number")]
    Zero(&'static str),
    /// Width and heads do not fit.
    #[error(
        "hidden_size {hidden} is not divisible by num_attention_heads {heads}; change one of them or set head_dim"
    )]
    HeadDim {
        /// `hidden_size`.
        hidden: usize,
        /// `num_attention_heads`.
        heads: usize,
    },
    /// Rotary embedding turns pairs of channels.
    #[error("head_dim {0} is odd, but rotary embedding turns pairs of channels; make it even")]
    OddHeadDim(usize),
    /// Grouped-query attention needs whole groups.
    #[error(
        "num_attention_heads {query} is not a multiple of num_key_value_heads {kv}; use a divisor of {query}"
    )]
    Groups {
        /// `num_attention_heads`.
        query: usize,
        /// `num_key_value_heads`.
        kv: usize,
    },
    /// A number is out of its range.
    #[error("`{name}` is {value}; it must be {range}")]
    Range {
        /// The field.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
    /// A feature of other model families.
    #[error(
        "{0} is not supported (LLaMA models without biases, with silu, and with default or llama3 rotary \
         embedding are); choose another model or change the field"
    )]
    Unsupported(String),
    /// No preset has this name.
    #[error(
        "`{0}` is neither a model preset nor a .json file; use tiny, 124m, 500m, 1.5b, 8b or the path of a Hugging Face config.json"
    )]
    UnknownPreset(String),
}

/// The usual width of a SwiGLU MLP: 8/3 of the model width, rounded up to a multiple of 64. A width that no model has
/// (2^31 or more) gives one that [`LlamaConfig::validate`] refuses too.
pub fn swiglu_width(hidden_size: usize) -> usize {
    hidden_size.min(SIZE_MAX).saturating_mul(8).div_ceil(3).next_multiple_of(64)
}

/// Sizes are below this.
const SIZE_MAX: usize = 1 << 31;

/// The most parameters of a model: their bytes, moments and gradients can be counted in 64 bits.
const PARAMETERS_MAX: u128 = 1 << 48;

impl LlamaConfig {
    /// A LLaMA configuration with the usual defaults: MLP of [`swiglu_width`], as many key as query heads,
    /// ε = 1e-5, θ = 10 000, head and embedding apart.
    pub fn new(vocab_size: usize, width: usize, heads: usize, layers: usize, context: usize) -> Self {
        Self {
            vocab_size,
            hidden_size: width,
            intermediate_size: swiglu_width(width),
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: heads,
            head_dim: None,
            max_position_embeddings: context,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: false,
            hidden_act: "silu".to_owned(),
            attention_bias: false,
            mlp_bias: false,
        }
    }

    /// A named shape: `tiny`, `124m`, `500m`, `1.5b` (CheckFree's models) or `8b` (LLaMA 3 8B).
    ///
    /// # Errors
    /// [`ConfigError::UnknownPreset`].
    pub fn preset(name: &str) -> Result<Self, ConfigError> {
        match name.to_ascii_lowercase().as_str() {
            "tiny" => Ok(Self::tiny()),
            "124m" => Ok(Self::m124()),
            "500m" => Ok(Self::m500()),
            "1.5b" => Ok(Self::b1_5()),
            "8b" => Ok(Self::b8()),
            _ => Err(ConfigError::UnknownPreset(name.to_owned())),
        }
    }

    /// The demo's model: bytes as tokens, width 128, 4 heads, 4 layers, context 64.
    pub fn tiny() -> Self {
        Self::new(256, 128, 4, 4, 64)
    }
    /// Width 512, 8 heads, 12 layers, context 512.
    pub fn m124() -> Self {
        Self::new(50_304, 512, 8, 12, 512)
    }
    /// Width 1024, 16 heads, 24 layers, context 1024.
    pub fn m500() -> Self {
        Self::new(50_304, 1024, 16, 24, 1024)
    }
    /// Width 2048, 16 heads, 24 layers, context 4096.
    pub fn b1_5() -> Self {
        Self::new(50_304, 2048, 16, 24, 4096)
    }
    /// LLaMA 3 8B: width 4096, 32 query and 8 key heads, 32 layers, MLP 14 336, context 8192.
    pub fn b8() -> Self {
        Self {
            intermediate_size: 14_336,
            num_key_value_heads: 8,
            rope_theta: 500_000.0,
            ..Self::new(128_256, 4096, 32, 32, 8192)
        }
    }

    /// Width of one head, in channels.
    pub fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }
    /// Channels of all query heads, Hq·hd.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_width()
    }
    /// Channels of all key heads, Hkv·hd.
    pub fn key_width(&self) -> usize {
        self.num_key_value_heads * self.head_width()
    }

    /// Checks that the model can be built and trained.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("max_position_embeddings", self.max_position_embeddings),
            ("head_dim", self.head_dim.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
            if value >= SIZE_MAX {
                return Err(ConfigError::Range { name, value: value.to_string(), range: "below 2^31" });
            }
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(ConfigError::HeadDim { hidden: self.hidden_size, heads: self.num_attention_heads });
        }
        if !self.head_width().is_multiple_of(2) {
            return Err(ConfigError::OddHeadDim(self.head_width()));
        }
        let parameters = self.parameters_wide();
        if parameters >= PARAMETERS_MAX {
            let value = parameters.to_string();
            return Err(ConfigError::Range { name: "parameters", value, range: "below 2^48" });
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(ConfigError::Groups {
                query: self.num_attention_heads,
                kv: self.num_key_value_heads,
            });
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            let value = self.rms_norm_eps.to_string();
            return Err(ConfigError::Range { name: "rms_norm_eps", value, range: "between 0 and 1" });
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) {
            let value = self.rope_theta.to_string();
            return Err(ConfigError::Range { name: "rope_theta", value, range: "finite and above 1" });
        }
        if self.hidden_act != "silu" {
            return Err(ConfigError::Unsupported(format!("hidden_act `{}`", self.hidden_act)));
        }
        if self.attention_bias || self.mlp_bias {
            return Err(ConfigError::Unsupported("attention_bias or mlp_bias".to_owned()));
        }
        match &self.rope_scaling {
            Some(s) if s.rope_type != "llama3" && s.rope_type != "default" => {
                Err(ConfigError::Unsupported(format!("rope_scaling of type `{}`", s.rope_type)))
            }
            Some(s)
                if !(s.factor > 0.0
                    && s.low_freq_factor > 0.0
                    && s.high_freq_factor > s.low_freq_factor
                    && s.original_max_position_embeddings > 0)
                    && s.rope_type == "llama3" =>
            {
                Err(ConfigError::Range {
                    name: "rope_scaling",
                    value: format!("{s:?}"),
                    range: "positive, with high_freq_factor above low_freq_factor",
                })
            }
            _ => Ok(()),
        }
    }

    /// Parameters of the whole model, of whatever sizes below 2^31.
    fn parameters_wide(&self) -> u128 {
        let wide = |size: usize| size as u128;
        let width = wide(self.hidden_size);
        let heads = 2 * (wide(self.num_attention_heads) + wide(self.num_key_value_heads));
        let layer =
            2 * width + heads * wide(self.head_width()) * width + 3 * wide(self.intermediate_size) * width;
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        wide(self.num_hidden_layers) * layer + tables * wide(self.vocab_size) * width + width
    }

    /// Parameters of one layer: four projections, three MLP matrices, two norms.
    pub fn layer_parameters(&self) -> usize {
        let d = self.hidden_size;
        2 * d + (2 * self.query_width() + 2 * self.key_width()) * d + 3 * self.intermediate_size * d
    }
    /// Parameters outside the layers: embedding, final norm, and the head unless it is tied.
    pub fn edge_parameters(&self) -> usize {
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        tables * self.vocab_size * self.hidden_size + self.hidden_size
    }
    /// Parameters of the whole model.
    pub fn parameters(&self) -> usize {
        self.num_hidden_layers * self.layer_parameters() + self.edge_parameters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_have_the_published_sizes() {
        for name in ["tiny", "124m", "500m", "1.5b", "8b"] {
            LlamaConfig::preset(name).unwrap().validate().unwrap();
        }
        assert_eq!(LlamaConfig::b8().parameters(), 8_030_261_248); // Meta-Llama-3-8B
        assert_eq!(LlamaConfig::b8().parameters_wide(), 8_030_261_248);
        assert!(LlamaConfig::preset("9b").unwrap_err().to_string().contains("config.json"));
    }

    #[test]
    fn reads_both_rope_forms() {
        let base = r#""vocab_size":10,"hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2"#;
        let old: LlamaConfig = serde_json::from_str(&format!(
            r#"{{{base},"rope_theta":5e5,"rope_scaling":{{"rope_type":"llama3","factor":8.0}}}}"#
        ))
        .unwrap();
        let new: LlamaConfig = serde_json::from_str(&format!(
            r#"{{{base},"rope_parameters":{{"rope_theta":5e5,"rope_type":"llama3","factor":8.0}}}}"#
        ))
        .unwrap();
        assert_eq!(old, new);
        assert_eq!(old.rope_theta, 5e5);
        let again: LlamaConfig = serde_json::from_str(&serde_json::to_string(&old).unwrap()).unwrap();
        assert_eq!(again, old);
    }

    #[test]
    fn refuses_what_cannot_be_trained() {
        let ok = LlamaConfig::tiny();
        let bad = [
            LlamaConfig { vocab_size: 0, ..ok.clone() },
            LlamaConfig { num_attention_heads: 5, ..ok.clone() },
            LlamaConfig { num_key_value_heads: 3, ..ok.clone() },
            LlamaConfig { head_dim: Some(7), ..ok.clone() },
            LlamaConfig { hidden_act: "gelu".into(), ..ok.clone() },
            LlamaConfig { rms_norm_eps: f32::NAN, ..ok.clone() },
        ];
        for config in bad {
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
