//! Reading JSON with errors that name the field.

/// The last object key that begins before the given place (both from 1), or `?`.
pub(crate) fn field_before(text: &str, line: usize, column: usize) -> String {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut end = (start + column).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut last = "?";
    let mut rest = &text[..end];
    // A key is a string followed by a colon.
    while let Some(open) = rest.find('"') {
        let Some(length) = rest[open + 1..].find('"') else { break };
        let word = &rest[open + 1..open + 1 + length];
        rest = &rest[open + length + 2..];
        if rest.trim_start().starts_with(':') {
            last = word;
        }
    }
    last.chars().take(80).collect()
}

/// What serde says, without its "at line … column …".
pub(crate) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_field_before_a_fault() {
        let text = "{\"a\": \"x\",\n \"loss_ratio\": NaN, \"b\": 1}";
        let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
        assert_eq!(field_before(text, error.line(), error.column()), "loss_ratio");
        assert_eq!(reason(&error), "expected value");
        assert_eq!(field_before("", 1, 1), "?");
        assert_eq!(field_before("\"é\":", 9, 9), "é");
    }
}
