//! The kernel for every other CPU, in plain Rust over arrays that the compiler turns into vectors: with fused
//! multiply-adds where the target has them (all of aarch64), rounding twice where it does not (x86-64 without AVX2).

use super::kernel::{Kernel, Left, Right, Target};

/// Plain Rust.
pub(super) struct Portable;

/// Whether `f32::mul_add` is an instruction and not a call of libm.
pub(super) const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

impl Kernel for Portable {
    const MR: usize = if FUSED { 6 } else { 4 };
    const NR: usize = if FUSED { 16 } else { 8 };
    const TASK_ROWS: usize = 12 * Self::MR;
    const GROUP: usize = 16 * 1024;
    const IN_PLACE_COLUMNS: usize = usize::MAX;

    unsafe fn tile((m, n, k): (usize, usize, usize), a: Left, b: Right, c: Target) {
        // SAFETY: the caller's contract.
        let sum = unsafe {
            if m == Self::MR && n == Self::NR {
                sums::<true>((m, n, k), a, b)
            } else {
                sums::<false>((m, n, k), a, b)
            }
        };
        for (i, sum) in sum.iter().enumerate().take(m) {
            for (j, s) in sum.iter().enumerate().take(n) {
                let offset = i * c.stride + j;
                // SAFETY: element (i, j) is within (m, n).
                unsafe { *c.ptr.add(offset) = c.base.map_or(*s, |base| *base.add(offset) + s) };
            }
        }
    }
}

/// The product, in full tiles; in a partial one (`FULL` is false) its last row again, and zeros beyond its columns.
///
/// # Safety
/// As [`Kernel::tile`].
#[inline]
unsafe fn sums<const FULL: bool>(
    (m, n, k): (usize, usize, usize),
    a: Left,
    b: Right,
) -> [[f32; Portable::NR]; Portable::MR] {
    let mut sum = [[0.0f32; Portable::NR]; Portable::MR];
    for p in 0..k {
        let mut columns = [0.0f32; Portable::NR];
        let count = if FULL { columns.len() } else { n };
        // SAFETY: `count` columns are there, by the caller's contract.
        unsafe { std::ptr::copy_nonoverlapping(b.ptr.add(p * b.stride), columns.as_mut_ptr(), count) };
        for (i, sum) in sum.iter_mut().enumerate() {
            let row = if FULL { i } else { i.min(m - 1) };
            // SAFETY: row and step are within (m, k).
            let x = unsafe { *a.ptr.add(row * a.row + p * a.col) };
            for (s, y) in sum.iter_mut().zip(&columns) {
                *s = multiply_add(x, *y, *s);
            }
        }
    }
    sum
}

#[inline]
fn multiply_add(x: f32, y: f32, sum: f32) -> f32 {
    if FUSED { x.mul_add(y, sum) } else { x * y + sum }
}
