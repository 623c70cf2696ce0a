//! The kernel for AVX2 with FMA: tiles of 6 × 16 in 12 of the 16 registers, the shape of BLIS's for Haswell and Zen
//! (Van Zee & van de Geijn 2015). Twelve chains hide the latency of two fused multiply-adds a cycle.

use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_broadcast_ss, _mm256_cmpgt_epi32,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_set1_epi32,
    _mm256_setr_epi32, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::kernel::{Kernel, Left, Right, Target};

/// AVX2 and FMA.
pub(super) struct Avx2;

impl Kernel for Avx2 {
    const MR: usize = 6;
    const NR: usize = 16;
    const TASK_ROWS: usize = 12 * Self::MR;
    const GROUP: usize = 16 * 1024;
    const IN_PLACE_COLUMNS: usize = usize::MAX;

    unsafe fn tile(size: (usize, usize, usize), a: Left, b: Right, c: Target) {
        // SAFETY: the caller's contract.
        unsafe { tile(size, a, b, c) }
    }
}

/// # Safety
/// As [`Kernel::tile`].
#[target_feature(enable = "avx2,fma")]
unsafe fn tile((m, n, k): (usize, usize, usize), a: Left, b: Right, c: Target) {
    macro_rules! rows {
        ($($rows:literal)*) => {
            match (m, n) {
                // SAFETY: the caller's contract.
                $(
                    ($rows, 16) if a.row == 1 => unsafe { fixed::<$rows, 2, true, false>(n, k, a, b, c) },
                    ($rows, 16) => unsafe { fixed::<$rows, 2, false, false>(n, k, a, b, c) },
                    ($rows, 9..) => unsafe { fixed::<$rows, 2, false, true>(n, k, a, b, c) },
                    ($rows, _) => unsafe { fixed::<$rows, 1, false, true>(n, k, a, b, c) },
                )*
                _ => unreachable!("a tile has 1 to 6 rows"),
            }
        };
    }
    rows!(1 2 3 4 5 6);
}

/// [`tile`] for M rows and V registers of columns; `UNIT` promises `a.row == 1`, and only with `MASKED` may the last
/// register be partly beyond column n.
///
/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx2,fma")]
unsafe fn fixed<const M: usize, const V: usize, const UNIT: bool, const MASKED: bool>(
    n: usize,
    k: usize,
    a: Left,
    b: Right,
    c: Target,
) {
    let row = if UNIT { 1 } else { a.row };
    let rest = (n - (V - 1) * 8) as i32;
    let mask: __m256i =
        _mm256_cmpgt_epi32(_mm256_set1_epi32(rest), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    let mut sum: [[__m256; V]; M] = [[_mm256_setzero_ps(); V]; M];
    // SAFETY: all offsets stay inside the matrices by the caller's contract; a last register of columns that reaches
    // beyond them is read and written under `mask`.
    unsafe {
        for i in 0..M {
            let line = c.ptr.add(i * c.stride);
            _mm_prefetch::<_MM_HINT_T0>(line.cast());
            _mm_prefetch::<_MM_HINT_T0>(line.add(n - 1).cast());
        }
        let (mut ap, mut bp) = (a.ptr, b.ptr);
        for _ in 0..k {
            let mut columns = [_mm256_setzero_ps(); V];
            for (v, column) in columns.iter_mut().enumerate() {
                *column = if MASKED && v + 1 == V {
                    _mm256_maskload_ps(bp.add(v * 8), mask)
                } else {
                    _mm256_loadu_ps(bp.add(v * 8))
                };
            }
            for (i, sum) in sum.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*ap.add(i * row));
                for (s, column) in sum.iter_mut().zip(&columns) {
                    *s = _mm256_fmadd_ps(x, *column, *s);
                }
            }
            ap = ap.wrapping_add(a.col);
            bp = bp.wrapping_add(b.stride);
        }
        for (i, sum) in sum.iter().enumerate() {
            for (v, &s) in sum.iter().enumerate() {
                let offset = i * c.stride + v * 8;
                let at = c.ptr.add(offset);
                if MASKED && v + 1 == V {
                    let value = match c.base {
                        Some(base) => _mm256_add_ps(_mm256_maskload_ps(base.add(offset), mask), s),
                        None => s,
                    };
                    _mm256_maskstore_ps(at, mask, value);
                } else {
                    let value = match c.base {
                        Some(base) => _mm256_add_ps(_mm256_loadu_ps(base.add(offset)), s),
                        None => s,
                    };
                    _mm256_storeu_ps(at, value);
                }
            }
        }
    }
}
