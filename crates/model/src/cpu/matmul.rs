//! Matrix products whose bits do not depend on the number of threads.
//!
//! With AVX-512 they run on our own kernel ([`super::avx512`]), which shares the packed operands between threads
//! and never sums an element of C in another order; elsewhere on the `gemm` crate, cut into fixed tiles.

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::avx512::{self, Left, MR, NR, Right, Target};
use super::scratch::SharedMut;
#[cfg(target_arch = "x86_64")]
use super::scratch::with_scratch;
use crate::simd::{dot, multiversion};

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

/// Whether our own kernel can run.
fn own_kernel() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::simd::isa() == crate::simd::Isa::Avx512;
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

fn check(c: &[f32], stride: usize, (m, n, k): (usize, usize, usize), a: View<'_>, b: View<'_>) {
    assert!((m - 1) * stride + n <= c.len() && (n <= stride || m == 1), "destination out of bounds");
    a.check(m, k);
    b.check(k, n);
}

/// C (m, n), row-major with `stride` = (or +=) A (m, k) · B (k, n), in parallel.
///
/// # Panics
/// If a view or `c` is too small, or k is 0.
pub(crate) fn matmul(
    c: &mut [f32],
    stride: usize,
    size: (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write,
) {
    if size.0 == 0 || size.1 == 0 {
        return;
    }
    check(c, stride, size, a, b);
    if size.0 <= FEW_ROWS && a.col == 1 && b.row == 1 {
        few_rows(c, stride, size, a, b, write);
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if own_kernel() {
        // SAFETY: AVX-512 is there, and all bounds were checked.
        unsafe { blocked(c, stride, size, a, b, write) };
        return;
    }
    fixed_tiles(c, stride, size, a, b, write);
}

/// Up to so many rows, packing would cost more than the product.
const FEW_ROWS: usize = 4;

/// Each element a sum of products along two rows: A row-major, B the transpose of a row-major matrix.
fn few_rows(
    c: &mut [f32],
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write,
) {
    const COLUMNS: usize = 64;
    let c = SharedMut::new(c);
    (0..n.div_ceil(COLUMNS)).into_par_iter().for_each(|task| {
        let columns = task * COLUMNS..n.min((task + 1) * COLUMNS);
        for i in 0..m {
            // SAFETY: parts of different rows or columns do not overlap.
            let c = unsafe { c.slice(i * stride + columns.start, columns.len()) };
            dots(c, &a.data[i * a.row..][..k], &b.data[columns.start * b.col..], b.col, write == Write::Add);
        }
    });
}

multiversion! {
    /// `c[j]` = (or +=) x · (row j of `rows`, `stride` apart).
    fn dots(c: &mut [f32], x: &[f32], rows: &[f32], stride: usize, add: bool) {
        for (j, c) in c.iter_mut().enumerate() {
            let value = dot(x, &rows[j * stride..][..x.len()]);
            *c = if add { *c + value } else { value };
        }
    }
}

/// The same for one product whose operands fit the caches, on the calling thread and without packing.
/// B should be contiguous in its columns: it is copied otherwise.
///
/// # Panics
/// If a view or `c` is too small, or k is 0.
pub(crate) fn matmul_small(
    c: &mut [f32],
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write,
) {
    check(c, stride, (m, n, k), a, b);
    #[cfg(target_arch = "x86_64")]
    if own_kernel() && b.col == 1 {
        for j in (0..n).step_by(NR) {
            for i in (0..m).step_by(MR) {
                let left = Left { ptr: a.data[i * a.row..].as_ptr(), row: a.row, col: a.col };
                let right = Right { ptr: b.data[j..].as_ptr(), stride: b.row };
                let add = write == Write::Add;
                let target = Target { ptr: c[i * stride + j..].as_mut_ptr(), stride, add };
                // SAFETY: AVX-512 is there, and all bounds were checked.
                unsafe { avx512::tile(MR.min(m - i), NR.min(n - j), k, left, right, target) };
            }
        }
        return;
    }
    // SAFETY: bounds checked above; `c` is borrowed exclusively.
    unsafe { gemm_tile(c.as_mut_ptr(), stride, (m, n, k), a, b, write) }
}

/// Depth of a block: its sums are added to C before the next block's. Part of what decides the bits.
#[cfg(target_arch = "x86_64")]
fn depth(k: usize) -> usize {
    const LONGEST: usize = 512;
    k.div_ceil(k.div_ceil(LONGEST)).next_multiple_of(8)
}

/// Goto's loops around the kernel. For a block of k, of rows and of columns: pack both sides once, in parallel,
/// then run the tiles in parallel. The packed right side of a task stays in L2, a panel of the left one in L1.
///
/// # Safety
/// The CPU must have AVX-512; bounds must have been checked.
#[cfg(target_arch = "x86_64")]
unsafe fn blocked(
    c: &mut [f32],
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write,
) {
    /// Rows packed at once, and rows and columns of a task; multiples of the tile.
    const ROWS: usize = 170 * MR;
    const COLUMNS: usize = 32 * NR;
    const TASK_ROWS: usize = 10 * MR;
    const TASK_COLUMNS: usize = 8 * NR;
    let depth = depth(k);
    let (rows, columns) = (ROWS.min(m.next_multiple_of(MR)), COLUMNS.min(n.next_multiple_of(NR)));
    let c = SharedMut::new(c);
    with_scratch((rows + columns) * depth + 32, |scratch| {
        let aligned = scratch.as_ptr().align_offset(64).min(16);
        let (left, right) = scratch[aligned..].split_at_mut((rows * depth).next_multiple_of(16));
        let (left, right) = (SharedMut::new(left), SharedMut::new(right));
        for p0 in (0..k).step_by(depth) {
            let kc = depth.min(k - p0);
            let add = write == Write::Add || p0 > 0;
            for i0 in (0..m).step_by(rows) {
                let mc = rows.min(m - i0);
                let a_at = a.data.as_ptr().wrapping_add(i0 * a.row + p0 * a.col);
                // SAFETY: panels are disjoint parts of `left`, which has room for `rows` × `depth`.
                unsafe { pack_block::<MR>(a_at, (a.row, a.col), (mc, kc), left) };
                for j0 in (0..n).step_by(columns) {
                    let nc = columns.min(n - j0);
                    let b_at = b.data.as_ptr().wrapping_add(p0 * b.row + j0 * b.col);
                    // SAFETY: as above, for `right`.
                    unsafe { pack_block::<NR>(b_at, (b.col, b.row), (nc, kc), right) };
                    let tasks = (mc.div_ceil(TASK_ROWS), nc.div_ceil(TASK_COLUMNS));
                    (0..tasks.0 * tasks.1).into_par_iter().for_each(|task| {
                        let (ti, tj) = (task % tasks.0 * TASK_ROWS, task / tasks.0 * TASK_COLUMNS);
                        for i in (ti..mc.min(ti + TASK_ROWS)).step_by(MR) {
                            for j in (tj..nc.min(tj + TASK_COLUMNS)).step_by(NR) {
                                let left = Left { ptr: left.at(i * kc), row: 1, col: MR };
                                let right = Right { ptr: right.at(j * kc), stride: NR };
                                let ptr = c.at((i0 + i) * stride + j0 + j);
                                let target = Target { ptr, stride, add };
                                // SAFETY: tiles of C are disjoint; the packed panels hold kc steps of them.
                                unsafe {
                                    avx512::tile(MR.min(mc - i), NR.min(nc - j), kc, left, right, target);
                                }
                            }
                        }
                    });
                }
            }
        }
    });
}

/// Packs `lines` lines of k values into panels of `WIDTH` lines, in parallel.
///
/// # Safety
/// The source must be readable for these sizes and strides; `to` needs room for whole panels of k values.
#[cfg(target_arch = "x86_64")]
unsafe fn pack_block<const WIDTH: usize>(
    from: *const f32,
    (line, step): (usize, usize),
    (lines, k): (usize, usize),
    to: SharedMut,
) {
    /// Panels of a task, and steps packed for one panel before its neighbours' turn (they share cache lines).
    const PANELS: usize = 8;
    const STEPS: usize = 16;
    let from = SharedMut::from_const(from);
    (0..lines.div_ceil(WIDTH * PANELS)).into_par_iter().for_each(|task| {
        for p in (0..k).step_by(STEPS) {
            for first in (task * PANELS * WIDTH..lines).step_by(WIDTH).take(PANELS) {
                let source = from.at_unchecked(first * line + p * step);
                let target = to.at(first * k + p * WIDTH);
                // SAFETY: the caller's contract; panels are disjoint.
                unsafe {
                    avx512::pack::<WIDTH>(
                        source,
                        (line, step),
                        (WIDTH.min(lines - first), STEPS.min(k - p)),
                        target,
                    );
                }
            }
        }
    });
}

/// The `gemm` crate on fixed tiles of C, in parallel.
fn fixed_tiles(
    c: &mut [f32],
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write,
) {
    const TILE_M: usize = 512;
    const TILE_N: usize = 512;
    let (tiles_m, tiles_n) = (m.div_ceil(TILE_M), n.div_ceil(TILE_N));
    let c = SharedMut::new(c);
    (0..tiles_m * tiles_n).into_par_iter().for_each(|tile| {
        let (i, j) = (tile / tiles_n * TILE_M, tile % tiles_n * TILE_N);
        let (tm, tn) = (TILE_M.min(m - i), TILE_N.min(n - j));
        let a = View { data: &a.data[i * a.row..], ..a };
        let b = View { data: &b.data[j * b.col..], ..b };
        // SAFETY: tiles of C are disjoint, and the bounds of all three matrices were checked.
        unsafe { gemm_tile(c.at(i * stride + j), stride, (tm, tn, k), a, b, write) };
    });
}

/// # Safety
/// `c` must be writable for (m, n) with `stride`, and the views readable for (m, k) and (k, n).
unsafe fn gemm_tile(
    c: *mut f32,
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
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
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.731 + seed).sin()).collect()
    }

    /// All four ways to lay the operands out, all three implementations, against sums in f64.
    fn compare(m: usize, n: usize, k: usize, pad: usize) {
        let (am, an) = (noise(m * (k + pad), 0.1), noise(k * (m + pad), 0.2));
        let (bn, bt) = (noise(k * (n + pad), 0.3), noise(n * (k + pad), 0.4));
        let old = noise(m * (n + pad), 0.5);
        for a in [View::rows(&am, k + pad), View::rows(&an, m + pad).t()] {
            for b in [View::rows(&bn, n + pad), View::rows(&bt, k + pad).t()] {
                for write in [Write::Set, Write::Add] {
                    let run = |f: &dyn Fn(&mut [f32])| {
                        let mut c = old.clone();
                        f(&mut c);
                        for i in 0..m {
                            for j in 0..n + pad {
                                let at = i * (n + pad) + j;
                                let mut want = f64::from(old[at]);
                                if j < n {
                                    want *= f64::from(u8::from(write == Write::Add));
                                    want += (0..k)
                                        .map(|p| {
                                            let (x, y) = (
                                                a.data[i * a.row + p * a.col],
                                                b.data[p * b.row + j * b.col],
                                            );
                                            f64::from(x) * f64::from(y)
                                        })
                                        .sum::<f64>();
                                }
                                let tolerance = 4e-6 * (k as f64).sqrt() + 2e-6 * want.abs();
                                assert!(
                                    (f64::from(c[at]) - want).abs() < tolerance,
                                    "({i}, {j}): {} {want}",
                                    c[at]
                                );
                            }
                        }
                        c
                    };
                    let stride = n + pad;
                    let once = run(&|c| matmul(c, stride, (m, n, k), a, b, write));
                    run(&|c| fixed_tiles(c, stride, (m, n, k), a, b, write));
                    let small = run(&|c| matmul_small(c, stride, (m, n, k), a, b, write));
                    if own_kernel() && b.col == 1 && k <= 512 && m > FEW_ROWS {
                        assert_eq!(once, small, "the kernel's sums depend on the packing");
                    }
                    for threads in [1, 3] {
                        let pool = crate::ComputePool::new(threads).unwrap();
                        let again = pool.install(|| run(&|c| matmul(c, stride, (m, n, k), a, b, write)));
                        assert_eq!(again, once);
                    }
                }
            }
        }
    }

    #[test]
    fn odd_sizes() {
        for (m, n, k) in
            [(1, 1, 1), (12, 32, 8), (13, 33, 9), (25, 17, 600), (130, 300, 31), (7, 1100, 5), (3, 700, 70)]
        {
            compare(m, n, k, 0);
            compare(m, n, k, 3);
        }
        compare(2100, 5, 3, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_size(m in 1usize..60, n in 1usize..80, k in 1usize..90, pad in 0usize..5) {
            compare(m, n, k, pad);
        }
    }
}
