//! Carries out recovery recipes: weighted sums of weights.

use rayon::prelude::*;

use crate::error::{Result, expect_len};
use crate::simd::multiversion;

const TILE: usize = 1 << 11;

multiversion! {
    fn add_scaled(sum: &mut [f64], source: &[f32], coefficient: f64) {
        for (s, x) in sum.iter_mut().zip(source) {
            *s += f64::from(*x) * coefficient;
        }
    }
}

multiversion! {
    fn round(sum: &[f64], out: &mut [f32]) {
        for (o, s) in out.iter_mut().zip(sum) {
            *o = *s as f32;
        }
    }
}

/// `out` = Σ coefficient · source, added in the order given in `f64` and rounded once: the same bits on every
/// machine and number of threads. No sources give zeros.
///
/// # Errors
/// [`crate::ModelError::Length`] if a source is not as long as `out`.
pub fn weighted_sum_into(out: &mut [f32], sources: &[(&[f32], f64)]) -> Result<()> {
    for (source, _) in sources {
        expect_len("source of a weighted sum", source.len(), out.len())?;
    }
    out.par_chunks_mut(TILE).enumerate().for_each(|(i, out)| {
        let mut sum = [0.0f64; TILE];
        let sum = &mut sum[..out.len()];
        for (source, coefficient) in sources {
            add_scaled(sum, &source[i * TILE..][..out.len()], *coefficient);
        }
        round(sum, out);
    });
    Ok(())
}

/// [`weighted_sum_into`] a new buffer, as long as the first source (empty without sources).
///
/// # Errors
/// [`crate::ModelError::Length`] if the sources differ in length.
pub fn weighted_sum(sources: &[(&[f32], f64)]) -> Result<Vec<f32>> {
    let mut out = vec![0.0; sources.first().map_or(0, |(s, _)| s.len())];
    weighted_sum_into(&mut out, sources)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_in_order_and_refuses_unequal_lengths() {
        let a: Vec<f32> = (0..10_001).map(|i| i as f32 * 0.1).collect();
        let b: Vec<f32> = (0..10_001).map(|i| 7.0 - i as f32).collect();
        let mix = weighted_sum(&[(&a, 0.3), (&b, 0.7)]).unwrap();
        for i in 0..a.len() {
            assert_eq!(mix[i], (f64::from(a[i]) * 0.3 + f64::from(b[i]) * 0.7) as f32);
        }
        assert_eq!(weighted_sum(&[(&a, 1.0)]).unwrap(), a);
        assert!(weighted_sum(&[(&a, 1.0), (&b[1..], 1.0)]).is_err());
        assert!(weighted_sum(&[]).unwrap().is_empty());
    }
}
