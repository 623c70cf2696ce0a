//! What a tensor is made from, as a hash: two tensors are equal if they were made in the same way.
//!
//! Workers' stores and the oracle make values with the same functions. The gradient of a stage is a multiset of
//! terms, one or two a microbatch, kept as their wrapping sum: the order of addition leaves no trace.

use skipstone_recovery::{Moments, Recipe, StateFormat};
use skipstone_types::{Digest, Iteration, Microbatch, StageId};

/// Names how a tensor was made.
pub(crate) type Origin = u64;

/// The hash of `words`.
fn mix(words: &[u64]) -> Origin {
    words.iter().fold(0x243f_6a88_85a3_08d3, |hash: u64, word| {
        let mut mixed = (hash.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 29)
    })
}

/// The digest of a tensor.
pub(crate) fn digest(value: Origin) -> Digest {
    let mut bytes = [0; 32];
    for (index, part) in bytes.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&mix(&[value, index as u64]).to_le_bytes());
    }
    Digest(bytes)
}

/// A stage's state from the seed.
pub(crate) fn initial(seed: u64, stage: StageId) -> Origin {
    mix(&[1, seed, u64::from(stage.0)])
}

/// The embedding of a microbatch: its activation and what is kept for the backward.
pub(crate) fn embed(state: Origin, t: Iteration, m: Microbatch) -> (Origin, Origin) {
    let activation = mix(&[2, state, t.0, u64::from(m.0)]);
    (activation, mix(&[3, activation]))
}

/// A relay's forward: its activation and what is kept for the backward.
pub(crate) fn forward(state: Origin, m: Microbatch, input: Origin) -> (Origin, Origin) {
    let activation = mix(&[4, state, u64::from(m.0), input]);
    (activation, mix(&[5, activation]))
}

/// Head and loss: the gradient that goes back, and the term for the origin's sum.
pub(crate) fn loss(state: Origin, t: Iteration, m: Microbatch, input: Origin) -> (Origin, Origin) {
    let gradient = mix(&[6, state, t.0, u64::from(m.0), input]);
    (gradient, mix(&[7, gradient]))
}

/// The loss of a microbatch, in multiples of 1/16 (so that sums are exact in any order), and its tokens.
pub(crate) fn loss_share(gradient: Origin, m: Microbatch) -> (f64, u64) {
    ((gradient % 4096) as f64 / 16.0, 64 + u64::from(m.0 % 5))
}

/// A backward, of a relay or of the embedding: the gradient that goes back, and the term for the sum.
pub(crate) fn backward(state: Origin, saved: Origin, gradient: Origin) -> (Origin, Origin) {
    let back = mix(&[8, state, saved, gradient]);
    (back, mix(&[9, back]))
}

/// The reduced gradient: the sum of `count` terms, divided for `microbatches`.
pub(crate) fn reduced(state: Origin, terms: u64, count: u32, microbatches: u32) -> Origin {
    mix(&[10, state, terms, u64::from(count), u64::from(microbatches)])
}

/// The L2 norm of a gradient: between ½ and 2.
pub(crate) fn norm(gradient: Origin) -> f64 {
    0.5 + (gradient % 1024) as f64 * (1.5 / 1024.0)
}

/// The L2 norm of a sum of `count` terms: between ½ and 2 a term, and hardly ever the same twice.
pub(crate) fn sum_norm(terms: u64, count: u32) -> f64 {
    let fraction = (mix(&[14, terms]) >> 11) as f64 / (1_u64 << 53) as f64;
    f64::from(count) * (0.5 + 1.5 * fraction)
}

/// A sum of `count` terms as it is, poisoned or not: that tells in its norm.
pub(crate) fn share(state: Origin, terms: u64, count: u32, norm: f64) -> Origin {
    mix(&[15, state, terms, u64::from(count), norm.to_bits()])
}

/// The state after a step.
pub(crate) fn step(state: Origin, gradient: Origin, t: Iteration, rate: f64, clip: f64) -> Origin {
    mix(&[11, state, gradient, t.0, rate.to_bits(), clip.to_bits()])
}

/// A rebuilt state; of each lesson, what came to the stage and what it made of it.
pub(crate) fn rebuild(
    stage: StageId,
    recipe: &Recipe,
    sources: &[Origin],
    lessons: &[(Origin, Origin)],
) -> Origin {
    let mut words = vec![
        12,
        u64::from(stage.0),
        u64::from(recipe.moments == Moments::Mix),
        recipe.learning_rate_factor.to_bits(),
    ];
    for (source, state) in recipe.sources.iter().zip(sources) {
        words.extend([u64::from(source.stage.0), source.coefficient.to_bits(), *state]);
    }
    if let Some(matching) = recipe.matching.as_ref().filter(|_| !lessons.is_empty()) {
        words.extend([u64::from(matching.steps), matching.rate.to_bits()]);
        words.extend(lessons.iter().flat_map(|(came, made)| [*came, *made]));
    }
    mix(&words)
}

/// A restored state after the steps of `recipe`; of each microbatch, what came to the stage and the gradient that came back. And what
/// the stage makes of each, both ways.
pub(crate) fn retrace(
    restored: Origin,
    recipe: &Recipe,
    tensors: &[(Origin, Origin)],
) -> (Origin, Vec<(Origin, Origin)>) {
    let (mut tensors, mut again) = (tensors.iter(), Vec::new());
    let taken = recipe.retracing.iter().flat_map(|retracing| &retracing.iterations);
    let state = taken.fold(restored, |state, retraced| {
        let microbatches = retraced.shares.iter().flatten();
        let terms: Vec<_> = microbatches
            .zip(tensors.by_ref())
            .map(|(microbatch, (came, gradient))| {
                let (made, saved) = forward(state, *microbatch, *came);
                let (back, term) = backward(state, saved, *gradient);
                again.push((made, back));
                term
            })
            .collect();
        let count = terms.len() as u32;
        let sum = terms.into_iter().fold(0, u64::wrapping_add);
        let gradient = reduced(state, sum, count, count);
        step(state, gradient, retraced.iteration, retraced.learning_rate, retraced.clip_factor)
    });
    (state, again)
}

/// Odd, so that it can be undone; and its inverse.
const ROUNDED: u64 = 0x9e37_79b9_7f4a_7c15;
const UNROUNDED: u64 = inverse(ROUNDED);

/// Of an odd number, modulo 2⁶⁴ (Newton: each step doubles the bits that are right).
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut step = 0;
    while step < 6 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

/// What a copy of a state in rounded numbers gives.
pub(crate) fn rounded(state: Origin, format: StateFormat) -> Origin {
    if format.rounds() { state.wrapping_mul(ROUNDED).wrapping_add(format as u64) } else { state }
}

/// The state of which a copy gives this.
pub(crate) fn unrounded(copy: Origin, format: StateFormat) -> Origin {
    if format.rounds() { copy.wrapping_sub(format as u64).wrapping_mul(UNROUNDED) } else { copy }
}

/// Some other tensor of the same shape: what a tampered frame carries.
pub(crate) fn altered(value: Origin) -> Origin {
    mix(&[13, value])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rounded_copy_is_a_copy_of_is_known() {
        for format in [StateFormat::F32, StateFormat::Bf16, StateFormat::Int8] {
            for state in [0, 1, 77, u64::MAX, initial(3, StageId(2))] {
                let copy = rounded(state, format);
                assert_eq!(unrounded(copy, format), state);
                assert_eq!(copy == state, !format.rounds());
            }
        }
    }
}
