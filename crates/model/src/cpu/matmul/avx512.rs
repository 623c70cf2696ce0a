//! The kernel for AVX-512: tiles of 12 × 32 in 24 of the 32 registers, the shape of BLIS's for Zen 4.

use std::arch::x86_64::{
    __m512, __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
};

use super::kernel::{Kernel, Left, Right, Target};

/// AVX-512F.
pub(super) struct Avx512;

impl Kernel for Avx512 {
    const MR: usize = 12;
    const NR: usize = 32;
    const TASK_ROWS: usize = 10 * Self::MR;
    const GROUP: usize = 64 * 1024;
    const IN_PLACE_COLUMNS: usize = 256;

    unsafe fn tile(size: (usize, usize, usize), a: Left, b: Right, c: Target) {
        // SAFETY: the caller's contract.
        unsafe { tile(size, a, b, c) }
    }
}

/// # Safety
/// As [`Kernel::tile`].
#[target_feature(enable = "avx512f")]
unsafe fn tile((m, n, k): (usize, usize, usize), a: Left, b: Right, c: Target) {
    macro_rules! rows {
        ($($rows:literal)*) => {
            match (m, n > 16) {
                // SAFETY: the caller's contract.
                $(
                    ($rows, true) if a.row == 1 => unsafe { fixed::<$rows, 2, true>(n, k, a, b, c) },
                    ($rows, true) => unsafe { fixed::<$rows, 2, false>(n, k, a, b, c) },
                    ($rows, false) => unsafe { fixed::<$rows, 1, false>(n, k, a, b, c) },
                )*
                _ => unreachable!("a tile has 1 to 12 rows"),
            }
        };
    }
    rows!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// [`tile`] for M rows and V registers of columns; `UNIT` promises `a.row == 1`.
///
/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f")]
unsafe fn fixed<const M: usize, const V: usize, const UNIT: bool>(
    n: usize,
    k: usize,
    a: Left,
    b: Right,
    c: Target,
) {
    let row = if UNIT { 1 } else { a.row };
    let rest = n - (V - 1) * 16;
    let mask: __mmask16 = if rest == 16 { !0 } else { (1 << rest) - 1 };
    let mut sum: [[__m512; V]; M] = [[_mm512_setzero_ps(); V]; M];
    // SAFETY: all offsets stay inside the matrices by the caller's contract; the last register of columns is
    // read and written under `mask`, so columns from n on are not touched.
    unsafe {
        for i in 0..M {
            let line = c.ptr.add(i * c.stride);
            _mm_prefetch::<_MM_HINT_T0>(line.cast());
            _mm_prefetch::<_MM_HINT_T0>(line.add(n - 1).cast());
        }
        let (mut ap, mut bp) = (a.ptr, b.ptr);
        for _ in 0..k {
            let mut columns = [_mm512_setzero_ps(); V];
            for (v, column) in columns.iter_mut().enumerate() {
                *column = if v + 1 == V {
                    _mm512_maskz_loadu_ps(mask, bp.add(v * 16))
                } else {
                    _mm512_loadu_ps(bp.add(v * 16))
                };
            }
            for (i, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*ap.add(i * row));
                for (s, column) in sum.iter_mut().zip(&columns) {
                    *s = _mm512_fmadd_ps(x, *column, *s);
                }
            }
            ap = ap.wrapping_add(a.col);
            bp = bp.wrapping_add(b.stride);
        }
        for (i, sum) in sum.iter().enumerate() {
            for (v, &s) in sum.iter().enumerate() {
                let offset = i * c.stride + v * 16;
                let at = c.ptr.add(offset);
                let mask = if v + 1 == V { mask } else { !0 };
                let value = match c.base {
                    Some(base) => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, base.add(offset)), s),
                    None => s,
                };
                _mm512_mask_storeu_ps(at, mask, value);
            }
        }
    }
}
