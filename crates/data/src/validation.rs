//! Validation batches: the same ones whenever it is validated.

/// Rows of a validation batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationBatch {
    /// Input tokens, `rows` × T.
    pub inputs: Vec<u32>,
    /// The token after each input, `rows` × T.
    pub targets: Vec<u32>,
    /// Samples: B, fewer in the last batch.
    pub rows: usize,
}

/// Cuts `tokens` into windows of `context` inputs that follow each other without overlap, `batch` to a batch, and returns
/// the first `max_batches` batches. Tokens after the last whole window are left out.
///
/// # Panics
/// When `context` or `batch` is 0.
pub fn validation_batches(
    tokens: &[u32],
    context: usize,
    batch: usize,
    max_batches: usize,
) -> Vec<ValidationBatch> {
    assert!(context > 0 && batch > 0, "context and batch have to be at least 1");
    let windows = tokens.len().saturating_sub(1) / context;
    let rows = (0..windows).map(|window| window * context).collect::<Vec<_>>();
    rows.chunks(batch)
        .take(max_batches)
        .map(|starts| ValidationBatch {
            inputs: starts.iter().flat_map(|&at| &tokens[at..at + context]).copied().collect(),
            targets: starts.iter().flat_map(|&at| &tokens[at + 1..=at + context]).copied().collect(),
            rows: starts.len(),
        })
        .collect()
}
