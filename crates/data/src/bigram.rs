//! What a model that sees one token achieves: the baseline a trained model has to beat.

use std::collections::HashMap;

/// How many imagined observations the unigram distribution is worth; the best on the tail of the training split is taken.
const STRENGTHS: [f64; 9] = [0.01, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0];

/// The loss in nats per token of a bigram model of `train` on `validation` (on every token but the first).
///
/// p(b | a) = (n(a, b) + k·p(b)) / (n(a) + k), where p(b) is the add-one unigram distribution, and k the best of a few on the
/// last tenth of `train` for counts of the rest. `None` when either split has fewer than two tokens.
///
/// # Panics
/// When a token is not below `vocab_size`.
pub fn bigram_loss(train: &[u32], validation: &[u32], vocab_size: usize) -> Option<f64> {
    if train.len() < 2 || validation.len() < 2 {
        return None;
    }
    let (head, tail) = train.split_at(train.len() - train.len() / 10);
    let mut strength = 1.0;
    if tail.len() > 1 {
        let counts = Counts::of(head, vocab_size);
        let loss = |&k: &f64| counts.loss(tail, k);
        strength = STRENGTHS.into_iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap_or(strength);
    }
    Some(Counts::of(train, vocab_size).loss(validation, strength))
}

struct Counts {
    pairs: HashMap<(u32, u32), u32>,
    /// How often each token comes before another.
    firsts: Vec<u32>,
    unigram: Vec<f64>,
}

impl Counts {
    fn of(tokens: &[u32], vocab_size: usize) -> Self {
        let mut pairs = HashMap::new();
        let mut firsts = vec![0; vocab_size];
        let mut unigram = vec![1.0; vocab_size];
        for &token in tokens {
            unigram[token as usize] += 1.0;
        }
        let total = (tokens.len() + vocab_size) as f64;
        for count in &mut unigram {
            *count /= total;
        }
        for pair in tokens.windows(2) {
            *pairs.entry((pair[0], pair[1])).or_insert(0) += 1;
            firsts[pair[0] as usize] += 1;
        }
        Self { pairs, firsts, unigram }
    }

    fn loss(&self, tokens: &[u32], strength: f64) -> f64 {
        let nats = |pair: &[u32]| {
            let seen = f64::from(self.pairs.get(&(pair[0], pair[1])).copied().unwrap_or(0));
            let (first, unigram) = (f64::from(self.firsts[pair[0] as usize]), self.unigram[pair[1] as usize]);
            -((seen + strength * unigram) / (first + strength)).ln()
        };
        tokens.windows(2).map(nats).sum::<f64>() / (tokens.len() - 1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of order one whose entropy rate is known: the bigram model gets there and no lower.
    #[test]
    fn reaches_the_entropy_of_a_markov_chain() {
        let mut state = 1_u64;
        let mut uniform = || {
            state = crate::permutation::mix(state);
            state >> 32
        };
        let mut chain = |length| {
            let mut token = 0;
            (0..length)
                .map(|_| {
                    token = if uniform() % 4 == 0 { (token + 1) % 8 } else { (token + 3) % 8 };
                    token
                })
                .collect::<Vec<u32>>()
        };
        let (train, validation) = (chain(200_000), chain(100_000));
        let entropy = -(0.25 * 0.25_f64.ln() + 0.75 * 0.75_f64.ln());
        let loss = bigram_loss(&train, &validation, 8).unwrap();
        assert!((loss - entropy).abs() < 0.01, "{loss} nats instead of {entropy}");
    }

    #[test]
    fn unseen_pairs_cost_a_finite_price_above_the_uniform_one() {
        let train: Vec<u32> = [0, 1].repeat(500);
        let loss = bigram_loss(&train, &[2, 3, 2, 3], 4).unwrap();
        assert!(loss.is_finite() && loss > 4_f64.ln(), "{loss}");
    }

    #[test]
    fn too_little_is_nothing() {
        assert_eq!(bigram_loss(&[1], &[1, 2], 4), None);
        assert_eq!(bigram_loss(&[1, 2], &[1], 4), None);
        assert!(bigram_loss(&[1, 2], &[1, 2], 4).is_some());
    }
}
