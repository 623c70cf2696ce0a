//! Writes the embedded stories to stdout and their figures to stderr: `stories SEED BYTES`.
//!
//! With it the corpus can be given to any other program, PyTorch say, and its loss compared with the floor.

use std::io::Write;

use skipstone_data::story::StoryCorpus;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |name: &str| -> Result<u64, Box<dyn std::error::Error>> {
        let argument =
            arguments.next().ok_or_else(|| format!("usage: stories SEED BYTES; {name} is missing"))?;
        argument.parse().map_err(|error| format!("{name} {argument:?}: {error}").into())
    };
    let (seed, bytes) = (number("SEED")?, number("BYTES")?);
    let corpus = StoryCorpus::generate(seed, usize::try_from(bytes)?);
    std::io::stdout().write_all(corpus.text.as_bytes())?;
    let (bytes, nats, stories) = (corpus.text.len(), corpus.nats, corpus.stories);
    eprintln!("{{\"bytes\": {bytes}, \"nats\": {nats}, \"stories\": {stories}}}");
    Ok(())
}
