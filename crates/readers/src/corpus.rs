//! Text to train on: `.txt` and `.jsonl` (`skipstone-data`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, scratch, within};
use skipstone_data::{Corpus, Limits, LoadError};
use std::path::Path;

/// The text twice, a line of it, and the places of its documents, of which one takes 16 bytes for 14 of text while their
/// list grows.
fn memory_max(input: usize) -> usize {
    (64 << 10) + 32 * input
}

pub(crate) const READER: Reader = Reader {
    name: "corpus",
    what: "a text file or JSON lines of `--data`, both ways",
    text: true,
    memory_max,
    read,
    mend: None,
    seeds,
};

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let text = load(&scratch::file("corpus.txt", bytes)?, bytes)?;
    let lines = load(&scratch::file("corpus.jsonl", bytes)?, bytes)?;
    for corpus in [&text, &lines].into_iter().flatten() {
        let mut once = Vec::new();
        for document in corpus.documents() {
            serde_json::to_writer(&mut once, &serde_json::json!({ "text": document })).map_err(lost)?;
            once.push(b'\n');
        }
        same(corpus, &load(&scratch::file("again.jsonl", &once)?, &once)?.map_err(lost)?)?;
    }
    // Anything may be a text; what begins like JSON is meant as JSON lines.
    match if bytes.trim_ascii_start().starts_with(b"{") { lines } else { text } {
        Ok(_) => Ok(Verdict::Taken),
        Err(why) => refused(why),
    }
}

fn load(path: &Path, bytes: &[u8]) -> Result<Result<Corpus, LoadError>, Broken> {
    let limits = Limits { max_bytes: 1 << 20, max_depth: 2 };
    within(memory_max(bytes.len()), bytes, || Corpus::load(path, limits))
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let line = |text: &str| format!("{}\n", serde_json::json!({ "text": text, "more": [1, 2.5, null] }));
    let lines = line("One day.") + &line("Two\ndays, \u{1f600} and \"quotes\".");
    let texts =
        [("lines", lines.as_str()), ("documents", "One.\n<|endoftext|>\nTwo.\n"), ("mark", "\u{feff}One.")];
    Ok(texts.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect())
}
