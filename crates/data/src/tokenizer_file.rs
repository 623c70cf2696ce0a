//! What is checked of a `tokenizer.json` before the library sees it.

use serde::Deserialize;
use serde_json::Value;

/// The most patterns that a file may hold: each may compile to some 20 MB, and published tokenizers have four or fewer.
const PATTERNS_MAX: usize = 8;

/// The parts of which the library takes damage for a fault of its own, and panics.
#[derive(Deserialize)]
struct Parts {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    r#type: Option<String>,
    continuing_subword_prefix: Option<String>,
}

/// Refuses what the library would not survive, or what would take memory out of proportion.
///
/// # Errors
/// What is wrong, with its field.
pub(crate) fn check(json: &[u8]) -> Result<(), String> {
    let parts: Parts = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let trees = [&parts.normalizer, &parts.pre_tokenizer, &parts.post_processor, &parts.decoder];
    let patterns: usize = trees.into_iter().flatten().map(patterns).sum();
    if patterns > PATTERNS_MAX {
        return Err(format!("it has {patterns} patterns, and {PATTERNS_MAX} are read"));
    }
    if let Some(why) = trees.into_iter().flatten().find_map(table) {
        return Err(why);
    }
    match parts.model {
        // The library cuts the prefix off without looking whether it is there.
        Some(Model { r#type, continuing_subword_prefix: Some(prefix) })
            if !prefix.is_empty() && r#type.as_deref().is_none_or(|name| name == "BPE") =>
        {
            Err(format!("its model has the continuing_subword_prefix `{prefix}`, which is not read for BPE"))
        }
        _ => Ok(()),
    }
}

/// What is wrong with the tables of characters (`precompiled_charsmap`) in a part. The library takes memory for as many
/// bytes as such a table says that it has, up to 8 GiB, before it looks.
fn table(part: &Value) -> Option<String> {
    match part {
        Value::Array(list) => list.iter().find_map(table),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| match value {
            Value::String(text) if name == "precompiled_charsmap" => {
                let has = text.len() / 4 * 3;
                match announced(text) {
                    Some(says) if says <= has => None,
                    says => {
                        Some(format!("precompiled_charsmap says that it has {says:?} bytes, and has {has}"))
                    }
                }
            }
            other => table(other),
        }),
        _ => None,
    }
}

/// The number, of 32 bits, that a text in base 64 begins with.
fn announced(text: &str) -> Option<usize> {
    let sextet = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let bits = text
        .as_bytes()
        .get(..6)?
        .iter()
        .try_fold(0_u64, |bits, letter| sextet(*letter).map(|sextet| bits << 6 | u64::from(sextet)))?;
    Some((bits >> 4) as u32).map(|number| number.swap_bytes() as usize)
}

/// Regular expressions in a part.
fn patterns(part: &Value) -> usize {
    match part {
        Value::Array(list) => list.iter().map(patterns).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| usize::from(name == "Regex") + patterns(value)).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_how_long_it_is() {
        // 0x00, 0x04, 0x00, 0x00: 1024, then more.
        assert_eq!(announced("AAQAAAAA"), Some(1024));
        assert_eq!(announced("/////w=="), Some(u32::MAX as usize));
        assert_eq!(announced("AAQ="), None);
        assert_eq!(announced("AAQA*AAA"), None);
    }
}
