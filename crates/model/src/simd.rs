//! Run-time choice of the instruction set for elementwise loops.
//!
//! [`multiversion!`] compiles one safe body three times (AVX-512, AVX2, the target's baseline) and picks at run
//! time. rustc never contracts `a * b + c` into a fused multiply-add on its own, and the bodies fix the order of
//! their sums by explicit lanes, so all versions give the same bits.

use std::sync::OnceLock;

/// Instruction sets a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// AVX-512 F/VL/BW/DQ with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the target guarantees.
    Baseline,
}

/// The best instruction set of this CPU. `SKIPSTONE_ISA=avx2` or `=baseline` holds back, to test the others.
#[inline]
pub(crate) fn isa() -> Isa {
    static FOUND: OnceLock<Isa> = OnceLock::new();
    *FOUND.get_or_init(|| detect(std::env::var("SKIPSTONE_ISA").ok().as_deref()))
}

#[cfg(target_arch = "x86_64")]
fn detect(limit: Option<&str>) -> Isa {
    let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let wide = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq");
    match limit {
        Some("baseline") => Isa::Baseline,
        Some("avx2") if fma => Isa::Avx2,
        _ if fma && wide => Isa::Avx512,
        _ if fma => Isa::Avx2,
        _ => Isa::Baseline,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect(_limit: Option<&str>) -> Isa {
    Isa::Baseline
}

/// Defines a function whose body is compiled for every [`Isa`] and dispatched at run time.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[allow(clippy::inline_always, reason = "must be compiled inside each target-feature function")]
            #[inline(always)]
            fn generic($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    generic($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    generic($($arg),*)
                }
                match $crate::simd::isa() {
                    // SAFETY: the CPU was just found to have these features.
                    $crate::simd::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::Isa::Baseline => {}
                }
            }
            generic($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Lanes of the sums below: the order of addition is the same on every instruction set.
pub(crate) const LANES: usize = 32;

/// Folds lanes pairwise, always in the same order.
#[inline]
pub(crate) fn fold_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Sum of products of two equally long slices, in lanes.
#[allow(clippy::inline_always, reason = "inlined into multiversioned kernels")]
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (ac, ar) = a.as_chunks::<LANES>();
    let (bc, br) = b.as_chunks::<LANES>();
    for (x, y) in ac.iter().zip(bc) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    for (i, (x, y)) in ar.iter().zip(br).enumerate() {
        lanes[i] += x * y;
    }
    fold_lanes(lanes)
}

/// Largest value of a slice, −∞ if empty. NaN entries are passed over.
#[allow(clippy::inline_always, reason = "inlined into multiversioned kernels")]
#[inline(always)]
pub(crate) fn max(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
        }
    }
    let mut best = f32::NEG_INFINITY;
    for &x in rest.iter().chain(&lanes) {
        best = if x > best { x } else { best };
    }
    best
}

/// Replaces each value by exp(value·scale − shift) and returns their sum.
#[allow(clippy::inline_always, reason = "inlined into multiversioned kernels")]
#[inline(always)]
pub(crate) fn exp_sum(a: &mut [f32], scale: f32, shift: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = a.as_chunks_mut::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            x[i] = exp(x[i] * scale - shift);
            lanes[i] += x[i];
        }
    }
    for (x, lane) in rest.iter_mut().zip(&mut lanes) {
        *x = exp(*x * scale - shift);
        *lane += *x;
    }
    fold_lanes(lanes)
}

/// eˣ for x in about [−87, 88]; clamped outside. NaN stays NaN.
///
/// Cephes `expf`: x = n·ln 2 + r by Cody and Waite, polynomial of degree 6 in r, exponent set by integer add.
/// Relative error below 2e-7 over the range.
#[allow(clippy::inline_always, reason = "inlined into multiversioned kernels")]
#[allow(clippy::manual_clamp, reason = "comparisons, unlike clamp, become vector instructions and keep NaN")]
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³: adding it rounds to an integer
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let t = x * std::f32::consts::LOG2_E + ROUND;
    let n = t - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    f32::from_bits(y.to_bits().wrapping_add(t.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    multiversion! {
        fn exp_all(x: &mut [f32]) {
            for v in x { *v = exp(*v); }
        }
    }

    #[test]
    fn exponential_is_accurate_and_independent_of_the_instruction_set() {
        let xs: Vec<f32> = (-86_999..87_999).map(|i| i as f32 / 1000.0).collect();
        let mut fast = xs.clone();
        exp_all(&mut fast);
        for (x, y) in xs.iter().zip(&fast) {
            let want = f64::from(*x).exp();
            assert!((f64::from(*y) / want - 1.0).abs() < 3e-7, "{x}: {y} {want}");
            assert_eq!(exp(*x).to_bits(), y.to_bits());
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-1e30) < 2e-38 && exp(1e30) > 1e38);
    }

    #[test]
    fn reductions() {
        let a: Vec<f32> = (0..101).map(|i| (i as f32 * 0.7).sin()).collect();
        let want: f64 = a.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((f64::from(dot(&a, &a)) - want).abs() < 1e-5);
        assert_eq!(max(&a), a.iter().copied().fold(f32::MIN, f32::max));
        let mut e = a.clone();
        let sum = exp_sum(&mut e, 2.0, 1.0);
        let want: f64 = a.iter().map(|x| (f64::from(*x) * 2.0 - 1.0).exp()).sum();
        assert!((f64::from(sum) / want - 1.0).abs() < 1e-5);
    }
}
