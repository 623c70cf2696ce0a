//! Matrix products in fixed tiles.

use rayon::prelude::*;

use super::scratch::SharedMut;

/// A strided view of a matrix: element (i, j) is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    row: usize,
    col: usize,
}

impl<'a> View<'a> {
    /// Row-major, `stride` elements from row to row.
    pub(crate) fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, row: stride, col: 1 }
    }
    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { data: self.data, row: self.col, col: self.row }
    }
    fn check(&self, rows: usize, cols: usize) {
        let last = (rows - 1) * self.row + (cols - 1) * self.col;
        assert!(last < self.data.len(), "matrix view out of bounds");
    }
}

/// What happens to the destination's old values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// C = A·B.
    Set,
    /// C += A·B.
    Add,
}

/// Rows and columns of a tile of C that one task computes. Fixed, so that results do not depend on the threads.
const TILE_M: usize = 512;
const TILE_N: usize = 512;

/// C (m, n), row-major with `stride` = (or +=) A (m, k) · B (k, n), in parallel over fixed tiles of C.
///
/// # Panics
/// If a view or `c` is too small.
pub(crate) fn matmul(
    c: &mut [f32],
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write,
) {
    if m == 0 || n == 0 {
        return;
    }
    let (tiles_m, tiles_n) = (m.div_ceil(TILE_M), n.div_ceil(TILE_N));
    assert!((m - 1) * stride + n <= c.len() && (n <= stride || m == 1), "destination out of bounds");
    a.check(m, k);
    b.check(k, n);
    let c = SharedMut::new(c);
    (0..tiles_m * tiles_n).into_par_iter().for_each(|tile| {
        let (i, j) = (tile / tiles_n * TILE_M, tile % tiles_n * TILE_N);
        let (tm, tn) = (TILE_M.min(m - i), TILE_N.min(n - j));
        let a = View { data: &a.data[i * a.row..], ..a };
        let b = View { data: &b.data[j * b.col..], ..b };
        // SAFETY: tiles of C are disjoint, and the bounds of all three matrices were checked above.
        unsafe { gemm_tile(c.at(i * stride + j), stride, (tm, tn, k), a, b, 1.0, write) };
    });
}

/// The same for one small product on the calling thread, scaled: C = (or +=) `alpha`·A·B.
///
/// # Panics
/// If a view or `c` is too small.
pub(crate) fn matmul_small(
    c: &mut [f32],
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    alpha: f32,
    write: Write,
) {
    assert!((m - 1) * stride + n <= c.len() && (n <= stride || m == 1), "destination out of bounds");
    a.check(m, k);
    b.check(k, n);
    // SAFETY: bounds checked above; `c` is borrowed exclusively.
    unsafe { gemm_tile(c.as_mut_ptr(), stride, (m, n, k), a, b, alpha, write) }
}

/// # Safety
/// `c` must be writable for (m, n) with `stride`, and the views readable for (m, k) and (k, n).
unsafe fn gemm_tile(
    c: *mut f32,
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    alpha: f32,
    write: Write,
) {
    // SAFETY: by this function's contract. C and the inputs do not alias: C is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
