//! Elementary functions from +, ×, ÷ and √ only, in `f64`: the same bits on every machine, unlike libm's.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI};

/// Taylor coefficients of sin and cos: 1/n! with the sign, from the highest power down.
const SIN: [f64; 9] = [
    1.0 / 355_687_428_096_000.0,
    -1.0 / 1_307_674_368_000.0,
    1.0 / 6_227_020_800.0,
    -1.0 / 39_916_800.0,
    1.0 / 362_880.0,
    -1.0 / 5_040.0,
    1.0 / 120.0,
    -1.0 / 6.0,
    1.0,
];
const COS: [f64; 9] = [
    1.0 / 20_922_789_888_000.0,
    -1.0 / 87_178_291_200.0,
    1.0 / 479_001_600.0,
    -1.0 / 3_628_800.0,
    1.0 / 40_320.0,
    -1.0 / 720.0,
    1.0 / 24.0,
    -1.0 / 2.0,
    1.0,
];

fn horner(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

/// Cosine and sine of `turns` whole turns (2π each).
///
/// Reduced to an eighth of a turn, then Taylor's series to the 17th power: absolute error below 4e-16.
/// Not finite for arguments that are not.
pub fn cos_sin_turns(turns: f64) -> (f64, f64) {
    let eighths = (turns - turns.floor()) * 8.0; // [0, 8)
    let quadrant = ((eighths + 1.0) * 0.5).floor(); // nearest quarter turn, 0..=4
    let x = (eighths - quadrant * 2.0) * (PI / 4.0); // [-π/4, π/4]
    let (s, c) = (x * horner(&SIN, x * x), horner(&COS, x * x));
    match quadrant as i64 {
        0 | 4 => (c, s),
        1 => (-s, c),
        2 => (-c, -s),
        3 => (s, -c),
        _ => (f64::NAN, f64::NAN),
    }
}

/// Natural logarithm of a positive normal number.
///
/// Mantissa in [√½, √2), then 2·artanh((m−1)/(m+1)) to the 23rd power: relative error below 1e-15 away from 1.
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1022;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | (1022 << 52)); // [½, 1)
    if m < FRAC_1_SQRT_2 {
        m *= 2.0;
        exponent -= 1;
    }
    let z = (m - 1.0) / (m + 1.0);
    let z2 = z * z;
    let mut sum = 0.0;
    let mut n = 23.0;
    while n > 0.0 {
        sum = sum * z2 + 1.0 / n;
        n -= 2.0;
    }
    exponent as f64 * LN_2 + 2.0 * z * sum
}

/// `base` to the `exponent` by repeated squaring.
pub fn powi(base: f64, mut exponent: u64) -> f64 {
    let (mut result, mut square) = (1.0, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= square;
        }
        square *= square;
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trigonometry_agrees_with_libm() {
        for i in -3000..3000 {
            let turns = f64::from(i) / 997.0;
            let (c, s) = cos_sin_turns(turns);
            let (sl, cl) = (turns * 2.0 * PI).sin_cos();
            assert!((c - cl).abs() < 1e-14 && (s - sl).abs() < 1e-14, "{turns}: {c} {cl} {s} {sl}");
        }
        assert_eq!(cos_sin_turns(0.0), (1.0, 0.0));
        assert_eq!(cos_sin_turns(0.5).0, -1.0);
    }

    #[test]
    fn logarithm_agrees_with_libm() {
        for i in 1..5000 {
            for x in [f64::from(i) / 701.0, f64::from(i) * 1e-9, f64::from(i) * 1e12] {
                assert!((ln(x) - x.ln()).abs() <= 4e-15 * x.ln().abs().max(0.1), "{x}");
            }
        }
    }

    #[test]
    fn powers() {
        assert_eq!(powi(2.0, 10), 1024.0);
        assert_eq!(powi(0.9, 0), 1.0);
        assert!((powi(0.999, 12_345) - 0.999f64.powi(12_345)).abs() < 1e-15);
    }
}
