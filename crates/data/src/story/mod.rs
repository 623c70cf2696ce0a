//! The embedded corpus: short English stories whose entropy is known exactly.
//!
//! A story is told by a grammar in which every choice has explicit integer weights. Facts settled early (who, with which
//! animal, where, which treasure, what is always said) decide words later, so a model that only sees the last token does
//! clearly worse than one that reads. Every choice writes its words at once, and no alternative's words begin another's;
//! hence a text has one derivation at most, the sum of −ln p over its choices *is* its negative log-likelihood, and no
//! model can have a lower expected loss on such stories. [`nats_of`] finds the derivation of a given story.

mod tale;
#[cfg(test)]
mod tests;
mod voice;
mod words;

use voice::{Reader, Writer};

/// Stories, and how much information they hold.
#[derive(Debug, Clone, PartialEq)]
pub struct StoryCorpus {
    /// One story a line; every line ends with `\n`.
    pub text: String,
    /// −ln p of all the stories together, in nats: the entropy floor of whoever predicts this very text.
    pub nats: f64,
    /// How many stories there are.
    pub stories: usize,
}

impl StoryCorpus {
    /// Writes whole stories until there are at least `target_bytes` bytes of text. The same seed gives the same bytes on
    /// every machine, and a longer text begins with the shorter one.
    pub fn generate(seed: u64, target_bytes: usize) -> Self {
        let mut writer = Writer::new(seed, target_bytes + 4096);
        let (mut nats, mut stories) = (0.0, 0);
        while writer.text.len() < target_bytes {
            writer.nats = 0.0;
            match tale::tell(&mut writer) {
                Ok(()) => {}
                Err(never) => match never {},
            }
            writer.text.push('\n');
            nats += writer.nats;
            stories += 1;
        }
        Self { text: writer.text, nats, stories }
    }
}

/// The text is not a story of the embedded corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a story of the embedded corpus: nothing the grammar writes goes on like byte {offset}; use text from `StoryCorpus::generate`"
)]
pub struct NotAStory {
    /// The byte up to which the text is the beginning of a story.
    pub offset: usize,
}

/// −ln of the probability of one story (a line without its `\n`), in nats.
///
/// # Errors
/// When the grammar does not write this text.
pub fn nats_of(story: &str) -> Result<f64, NotAStory> {
    let mut reader = Reader::new(story);
    match tale::tell(&mut reader) {
        Ok(()) if reader.rest().is_empty() => Ok(reader.nats),
        _ => Err(NotAStory { offset: reader.at() }),
    }
}
