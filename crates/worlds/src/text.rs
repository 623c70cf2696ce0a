//! Text that people and other programs write: bounded, and with errors that name the field.

use serde::de::DeserializeOwned;

/// The longest file of options, facts or states that is read, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 16 << 20;

/// The value in a JSON text.
///
/// # Errors
/// The field, and what is wrong with it.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|why| why.to_string())?;
    json.end().map_err(|why| why.to_string())?;
    Ok(value)
}

/// The value in a TOML text.
///
/// # Errors
/// The line with the field, and what is wrong with it.
pub(crate) fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|why| {
        let Some(before) = why.span().and_then(|span| text.get(..span.start)) else {
            return why.message().to_owned();
        };
        let number = before.matches('\n').count();
        let line: String = text.lines().nth(number).unwrap_or_default().chars().take(80).collect();
        format!("line {}, `{}`: {}", number + 1, line.trim(), why.message())
    })
}
