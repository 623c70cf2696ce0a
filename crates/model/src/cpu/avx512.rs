//! The inner kernel of matrix products for AVX-512, and the packing that feeds it.
//!
//! A tile of C of up to [`MR`] rows and [`NR`] columns stays in 24 registers while k runs (Goto & van de Geijn
//! 2008; the 12 × 32 shape is BLIS's for Zen 4). Each element of C is one chain of fused multiply-adds in the
//! order of k, whatever the tile's size or the packing: cutting C differently does not change a bit.

use std::arch::x86_64::{
    __m512, __mmask16, _MM_HINT_T0, _mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_prefetch, _mm_storeu_ps,
    _mm_unpackhi_ps, _mm_unpacklo_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
};

/// Rows of a full tile of C.
pub(super) const MR: usize = 12;
/// Columns of a full tile of C: two registers.
pub(super) const NR: usize = 32;

/// A (rows, k) by strides: element (i, p) at `ptr + i·row + p·col`.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub(super) ptr: *const f32,
    pub(super) row: usize,
    pub(super) col: usize,
}

/// B (k, columns), contiguous in columns: element (p, j) at `ptr + p·stride + j`.
#[derive(Clone, Copy)]
pub(super) struct Right {
    pub(super) ptr: *const f32,
    pub(super) stride: usize,
}

/// C, row-major; `add` keeps what it holds.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) ptr: *mut f32,
    pub(super) stride: usize,
    pub(super) add: bool,
}

/// C (m, n) = or += A (m, k) · B (k, n) for m ≤ [`MR`], n ≤ [`NR`].
///
/// # Safety
/// The CPU must have AVX-512F; the matrices must be valid for these sizes.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile(m: usize, n: usize, k: usize, a: Left, b: Right, c: Target) {
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
                let at = c.ptr.add(i * c.stride + v * 16);
                let mask = if v + 1 == V { mask } else { !0 };
                let value = if c.add { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), s) } else { s };
                _mm512_mask_storeu_ps(at, mask, value);
            }
        }
    }
}

/// Packs `rows` (≤ `WIDTH`) rows of k values for the kernel: value (i, p) goes to `to[p·WIDTH + i]`, rows beyond
/// are zero. Source element (i, p) is at `from + i·row + p·col`; one of the strides should be 1.
///
/// # Safety
/// The source must be readable for these sizes, `to` writable for `k·WIDTH` values.
pub(super) unsafe fn pack<const WIDTH: usize>(
    from: *const f32,
    (row, col): (usize, usize),
    (rows, k): (usize, usize),
    to: *mut f32,
) {
    debug_assert!(rows <= WIDTH);
    // SAFETY: every offset is within the sizes promised by the caller; SSE is part of x86-64.
    unsafe {
        if rows < WIDTH {
            for p in 0..k {
                for i in 0..WIDTH {
                    *to.add(p * WIDTH + i) = if i < rows { *from.add(i * row + p * col) } else { 0.0 };
                }
            }
        } else if row == 1 {
            for p in 0..k {
                std::ptr::copy_nonoverlapping(from.add(p * col), to.add(p * WIDTH), WIDTH);
            }
        } else if col == 1 {
            let whole = k / 4 * 4;
            for p in (0..whole).step_by(4) {
                for i in (0..WIDTH).step_by(4) {
                    transpose_4x4(from.add(i * row + p), row, to.add(p * WIDTH + i), WIDTH);
                }
            }
            for p in whole..k {
                for i in 0..WIDTH {
                    *to.add(p * WIDTH + i) = *from.add(i * row + p);
                }
            }
        } else {
            for p in 0..k {
                for i in 0..WIDTH {
                    *to.add(p * WIDTH + i) = *from.add(i * row + p * col);
                }
            }
        }
    }
}

/// Four rows of four values become four columns.
///
/// # Safety
/// Source and destination must be valid for four rows of four values at their strides.
#[inline]
unsafe fn transpose_4x4(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller's contract; SSE is part of x86-64.
    unsafe {
        let r0 = _mm_loadu_ps(from);
        let r1 = _mm_loadu_ps(from.add(from_stride));
        let r2 = _mm_loadu_ps(from.add(2 * from_stride));
        let r3 = _mm_loadu_ps(from.add(3 * from_stride));
        let (a, b) = (_mm_unpacklo_ps(r0, r1), _mm_unpackhi_ps(r0, r1));
        let (c, d) = (_mm_unpacklo_ps(r2, r3), _mm_unpackhi_ps(r2, r3));
        _mm_storeu_ps(to, _mm_movelh_ps(a, c));
        _mm_storeu_ps(to.add(to_stride), _mm_movehl_ps(c, a));
        _mm_storeu_ps(to.add(2 * to_stride), _mm_movelh_ps(b, d));
        _mm_storeu_ps(to.add(3 * to_stride), _mm_movehl_ps(d, b));
    }
}
