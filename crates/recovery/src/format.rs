//! In what numbers a copy of a stage's state travels and is kept.

use serde::{Deserialize, Serialize};

/// The numbers of a copy: weights and both moments of Adam. The counters beside them are always exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateFormat {
    /// As the stage computes with them: nothing is lost.
    #[default]
    F32,
    /// The upper half of each, rounded to nearest: 8 significant bits.
    Bf16,
    /// A byte each, with a scale for every 64: weights and first moments rounded to nearest; the root of second moments rounded
    /// up, so that no step becomes larger than it would have been.
    Int8,
}

impl StateFormat {
    /// Values that share a scale in [`Self::Int8`].
    pub const BLOCK_VALUES: usize = 64;

    /// 32-bit words that so many numbers take.
    pub fn words(self, values: usize) -> usize {
        match self {
            Self::F32 => values,
            Self::Bf16 => values.div_ceil(2),
            Self::Int8 => {
                let (blocks, rest) = (values / Self::BLOCK_VALUES, values % Self::BLOCK_VALUES);
                blocks * (1 + Self::BLOCK_VALUES / 4) + if rest > 0 { 1 + rest.div_ceil(4) } else { 0 }
            }
        }
    }

    /// What a copy takes of the bytes of the state, for large ones.
    pub fn share(self) -> f64 {
        match self {
            Self::F32 => 1.0,
            Self::Bf16 => 0.5,
            Self::Int8 => 0.25 * (1.0 + 4.0 / Self::BLOCK_VALUES as f64),
        }
    }

    /// Whether numbers come out otherwise than they went in.
    pub fn rounds(self) -> bool {
        self != Self::F32
    }
}

#[cfg(test)]
mod tests {
    use super::StateFormat::{self, Bf16, F32, Int8};

    #[test]
    fn words_follow_from_the_numbers() {
        let words = |format: StateFormat| [0, 1, 2, 3, 64, 65, 128].map(|values| format.words(values));
        assert_eq!(words(F32), [0, 1, 2, 3, 64, 65, 128]);
        assert_eq!(words(Bf16), [0, 1, 1, 2, 32, 33, 64]);
        assert_eq!(words(Int8), [0, 2, 2, 2, 17, 19, 34]);
        for format in [F32, Bf16, Int8] {
            let share = format.words(64 * 1000) as f64 / 64_000.0;
            assert!((format.share() - share).abs() < 1e-12, "{format:?}");
        }
    }
}
