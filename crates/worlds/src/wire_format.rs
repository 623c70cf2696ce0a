//! In how many bits tensors travel: activations and their gradients between stages, sums of gradients between replicas.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The numbers of boundary tensors (activations on their way forward, their gradients on the way back), or of what replicas add
/// up. They are rounded where they are made, so that whoever gets one, again or by another way, computes with the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireFormat {
    /// As they are: 32 bits.
    #[default]
    F32,
    /// The upper 16 bits of a float32, rounded to nearest, ties to even.
    Bf16,
    /// 8 bits and a power of two for each 64 numbers.
    Int8,
}

impl WireFormat {
    /// Whether nothing is rounded.
    pub fn is_f32(&self) -> bool {
        *self == Self::F32
    }

    /// Its bytes, as a share of those of float32.
    pub fn share(self) -> f64 {
        match self {
            Self::F32 => 1.0,
            Self::Bf16 => 0.5,
            Self::Int8 => 66.0 / 256.0,
        }
    }
}

impl fmt::Display for WireFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for WireFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err("choose f32, bf16 or int8".to_owned()),
        }
    }
}
