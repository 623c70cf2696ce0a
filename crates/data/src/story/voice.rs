//! How a derivation is carried out: written from random choices, or read back from text.

use std::convert::Infallible;
use std::sync::LazyLock;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// One alternative of a choice: its weight and the words it writes at once.
pub(super) type Alternative<'a> = (u32, &'a str);

/// All weights of one choice must sum to less than this.
const MAX_TOTAL: usize = 256;

/// Natural logarithms of 0 (unused), 1, 2, … `MAX_TOTAL` − 1.
static LN: LazyLock<Vec<f64>> = LazyLock::new(|| (0..MAX_TOTAL).map(|n| (n.max(1) as f64).ln()).collect());

/// −ln of the probability of an alternative of weight `weight` among `total`, in nats.
fn nats(weight: u32, total: u32) -> f64 {
    LN[total as usize] - LN[weight as usize]
}

/// Whether a choice may take its `i`-th alternative.
pub(super) fn is_allowed(allowed: u32, i: usize) -> bool {
    allowed >> i & 1 == 1
}

fn weight_of(options: &[Alternative<'_>], allowed: u32) -> u32 {
    options.iter().enumerate().filter(|(i, _)| is_allowed(allowed, *i)).map(|(_, option)| option.0).sum()
}

/// What the grammar speaks through. A choice writes the words of the alternative taken **at once**, and no alternative's
/// words begin another's, so the text alone tells which was taken: the grammar is unambiguous by construction.
pub(super) trait Voice {
    /// Why a derivation stops early; uninhabited for a writer.
    type Stop;

    /// Takes one of `options` whose bit in `allowed` is set, with probability proportional to its weight.
    fn choose(&mut self, options: &[Alternative<'_>], allowed: u32) -> Result<usize, Self::Stop>;

    /// Says words that follow with certainty.
    fn say(&mut self, words: &str) -> Result<(), Self::Stop>;
}

/// Writes stories from a seeded generator.
pub(super) struct Writer {
    generator: ChaCha8Rng,
    pub(super) text: String,
    /// −ln of the probability of what was written since this was last set to zero.
    pub(super) nats: f64,
}

impl Writer {
    pub(super) fn new(seed: u64, capacity: usize) -> Self {
        let mut key = *b"skipstone stories, 1............";
        key[24..].copy_from_slice(&seed.to_le_bytes());
        Self { generator: ChaCha8Rng::from_seed(key), text: String::with_capacity(capacity), nats: 0.0 }
    }

    /// A uniform integer below `bound`, exactly (Lemire's multiplication with rejection).
    fn below(&mut self, bound: u32) -> u32 {
        loop {
            let product = u64::from(self.generator.next_u32()) * u64::from(bound);
            let low = product as u32;
            if low >= bound || low >= bound.wrapping_neg() % bound {
                return (product >> 32) as u32;
            }
        }
    }
}

impl Voice for Writer {
    type Stop = Infallible;

    fn choose(&mut self, options: &[Alternative<'_>], allowed: u32) -> Result<usize, Infallible> {
        let total = weight_of(options, allowed);
        let mut left = self.below(total);
        let mut taken = 0;
        for (i, &(weight, _)) in options.iter().enumerate() {
            if !is_allowed(allowed, i) {
                continue;
            }
            taken = i;
            if left < weight {
                break;
            }
            left -= weight;
        }
        self.nats += nats(options[taken].0, total);
        self.text.push_str(options[taken].1);
        Ok(taken)
    }

    fn say(&mut self, words: &str) -> Result<(), Infallible> {
        self.text.push_str(words);
        Ok(())
    }
}

/// Finds the derivation of a text.
pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
    pub(super) nats: f64,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0, nats: 0.0 }
    }

    /// The byte offset reached.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }
}

impl Voice for Reader<'_> {
    /// The text is not one the grammar writes.
    type Stop = ();

    fn choose(&mut self, options: &[Alternative<'_>], allowed: u32) -> Result<usize, ()> {
        let rest = self.rest();
        let taken = options
            .iter()
            .enumerate()
            .position(|(i, option)| is_allowed(allowed, i) && rest.starts_with(option.1))
            .ok_or(())?;
        self.nats += nats(options[taken].0, weight_of(options, allowed));
        self.at += options[taken].1.len();
        Ok(taken)
    }

    fn say(&mut self, words: &str) -> Result<(), ()> {
        if !self.rest().starts_with(words) {
            return Err(());
        }
        self.at += words.len();
        Ok(())
    }
}
