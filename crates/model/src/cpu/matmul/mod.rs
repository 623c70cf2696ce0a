//! Matrix products whose bits depend neither on the number of threads nor on the CPU, as long as it has fused
//! multiply-add: one driver ([`blocked`]) over one small [`kernel::Kernel`] for each instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocked;
mod kernel;
mod pack;
mod portable;

use rayon::prelude::*;

use super::scratch::SharedMut;
use crate::simd::{Isa, dot, isa, multiversion};
use blocked::blocked;
use kernel::{Kernel, Left, Right, Target};

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
#[derive(Clone, Copy)]
pub(crate) enum Write<'a> {
    /// C = A·B.
    Set,
    /// C += A·B.
    Add,
    /// C = this + A·B, laid out like C.
    Onto(&'a [f32]),
}

impl Write<'_> {
    /// Where the values are that the product is added to.
    fn base(self, c: SharedMut) -> Option<SharedMut> {
        match self {
            Write::Set => None,
            Write::Add => Some(c),
            Write::Onto(base) => Some(SharedMut::from_const(base.as_ptr())),
        }
    }
}

/// # Panics
/// If anything is out of bounds.
fn check(
    c: &[f32],
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write<'_>,
) {
    if let Write::Onto(base) = write {
        assert!(base.len() >= c.len(), "base out of bounds");
    }
    assert!((m - 1) * stride + n <= c.len() && (n <= stride || m == 1), "destination out of bounds");
    a.check(m, k);
    b.check(k, n);
}

/// C (m, n), row-major with `stride` = A (m, k) · B (k, n), or added to what `write` says, in parallel.
///
/// # Panics
/// If a view or `c` is too small, or k is 0.
pub(crate) fn matmul(
    c: &mut [f32],
    stride: usize,
    size: (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write<'_>,
) {
    if size.0 == 0 || size.1 == 0 {
        return;
    }
    check(c, stride, size, a, b, write);
    if size.0 <= FEW_ROWS && a.col == 1 && b.row == 1 {
        few_rows(c, stride, size, a, b, write);
        return;
    }
    matmul_on(isa(), c, stride, size, a, b, write);
}

/// [`matmul`] on the blocked kernel of an instruction set that the CPU must have; bounds must have been checked.
fn matmul_on(
    isa: Isa,
    c: &mut [f32],
    stride: usize,
    size: (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write<'_>,
) {
    // SAFETY: the instruction set was found on this CPU, and all bounds were checked.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => blocked::<avx512::Avx512, 12, 32>(c, stride, size, a, b, write),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => blocked::<avx2::Avx2, 6, 16>(c, stride, size, a, b, write),
            Isa::Baseline => {
                const MR: usize = portable::Portable::MR;
                const NR: usize = portable::Portable::NR;
                blocked::<portable::Portable, MR, NR>(c, stride, size, a, b, write);
            }
        }
    }
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
    write: Write<'_>,
) {
    const COLUMNS: usize = 64;
    let c = SharedMut::new(c);
    (0..n.div_ceil(COLUMNS)).into_par_iter().for_each(|task| {
        let columns = task * COLUMNS..n.min((task + 1) * COLUMNS);
        for i in 0..m {
            // SAFETY: parts of different rows or columns do not overlap.
            let c = unsafe { c.slice(i * stride + columns.start, columns.len()) };
            if let Write::Onto(base) = write {
                c.copy_from_slice(&base[i * stride + columns.start..][..columns.len()]);
            }
            let add = !matches!(write, Write::Set);
            dots(c, &a.data[i * a.row..][..k], &b.data[columns.start * b.col..], b.col, add);
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

/// The same for one product whose operands fit the caches, on the calling thread and without packing; B contiguous in
/// its columns.
///
/// # Panics
/// If a view or `c` is too small, k is 0, or B's columns are not contiguous.
pub(crate) fn matmul_small(
    c: &mut [f32],
    stride: usize,
    size: (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write<'_>,
) {
    check(c, stride, size, a, b, write);
    assert!(b.col == 1, "B must be contiguous in its columns");
    // SAFETY: the instruction set was found on this CPU, and all bounds were checked.
    unsafe {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unpacked::<avx512::Avx512>(c, stride, size, a, b, write),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unpacked::<avx2::Avx2>(c, stride, size, a, b, write),
            Isa::Baseline => unpacked::<portable::Portable>(c, stride, size, a, b, write),
        }
    }
}

/// # Safety
/// The CPU must have the kernel's instructions; bounds must have been checked.
unsafe fn unpacked<K: Kernel>(
    c: &mut [f32],
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write<'_>,
) {
    let c = SharedMut::new(c);
    let base = write.base(c);
    for j in (0..n).step_by(K::NR) {
        for i in (0..m).step_by(K::MR) {
            let left = Left { ptr: a.data[i * a.row..].as_ptr(), row: a.row, col: a.col };
            let right = Right { ptr: b.data[j..].as_ptr(), stride: b.row };
            let at = i * stride + j;
            let base = base.map(|base| base.at_unchecked(at));
            let target = Target { ptr: c.at(at), stride, base };
            // SAFETY: the caller's contract.
            unsafe { K::tile((K::MR.min(m - i), K::NR.min(n - j), k), left, right, target) };
        }
    }
}

#[cfg(test)]
mod tests;
