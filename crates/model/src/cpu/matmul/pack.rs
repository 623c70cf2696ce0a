//! Packing: operands copied into panels that a kernel reads from front to back.

use rayon::prelude::*;

use crate::cpu::scratch::SharedMut;

/// Packs `lines` lines of k values into panels of `WIDTH` lines, in parallel: value (line, p) of a panel goes to
/// p·WIDTH + line. Source element (line, p) is at `from + line·line_stride + p·step`. Lines that the last panel lacks are
/// zero.
///
/// # Safety
/// The source must be readable for these sizes and strides; `to` needs room for whole panels of k values.
pub(super) unsafe fn pack_block<const WIDTH: usize>(
    from: *const f32,
    (line_stride, step): (usize, usize),
    (lines, k): (usize, usize),
    to: SharedMut,
) {
    /// Lines of a task, whole panels of them: long rows of a source whose lines are contiguous.
    const LINES: usize = 192;
    /// Steps of a task.
    const DEPTH: usize = 64;
    /// Steps packed for one panel before its neighbours' turn, as they share cache lines.
    const STEPS: usize = 16;
    let group = LINES / WIDTH * WIDTH;
    let groups = lines.div_ceil(group);
    let from = SharedMut::from_const(from);
    (0..groups * k.div_ceil(DEPTH)).into_par_iter().for_each(|task| {
        let (start, p0) = (task % groups * group, task / groups * DEPTH);
        for p in (p0..k.min(p0 + DEPTH)).step_by(STEPS) {
            for first in (start..lines.min(start + group)).step_by(WIDTH) {
                let source = from.at_unchecked(first * line_stride + p * step);
                let target = to.at(first * k + p * WIDTH);
                let size = (WIDTH.min(lines - first), STEPS.min(k - p));
                // SAFETY: the caller's contract; panels are disjoint.
                unsafe { pack::<WIDTH>(source, (line_stride, step), size, target) };
            }
        }
    });
}

/// Packs `lines` (≤ `WIDTH`) lines of k values into one panel.
///
/// # Safety
/// The source must be readable for these sizes, `to` writable for `k·WIDTH` values.
unsafe fn pack<const WIDTH: usize>(
    from: *const f32,
    (line_stride, step): (usize, usize),
    (lines, k): (usize, usize),
    to: *mut f32,
) {
    // SAFETY: every offset is within the sizes promised by the caller.
    unsafe {
        if lines == WIDTH && line_stride == 1 {
            for p in 0..k {
                std::ptr::copy_nonoverlapping(from.add(p * step), to.add(p * WIDTH), WIDTH);
            }
        } else if lines == WIDTH && step == 1 && WIDTH.is_multiple_of(4) {
            let whole = k / 4 * 4;
            for p in (0..whole).step_by(4) {
                for i in (0..WIDTH).step_by(4) {
                    transpose_4x4(from.add(i * line_stride + p), line_stride, to.add(p * WIDTH + i), WIDTH);
                }
            }
            for p in whole..k {
                for i in 0..WIDTH {
                    *to.add(p * WIDTH + i) = *from.add(i * line_stride + p);
                }
            }
        } else {
            for p in 0..k {
                for i in 0..WIDTH {
                    *to.add(p * WIDTH + i) =
                        if i < lines { *from.add(i * line_stride + p * step) } else { 0.0 };
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
    // SAFETY: the caller's contract.
    unsafe {
        let rows: [[f32; 4]; 4] =
            std::array::from_fn(|i| from.add(i * from_stride).cast::<[f32; 4]>().read());
        for p in 0..4 {
            to.add(p * to_stride).cast::<[f32; 4]>().write(rows.map(|row| row[p]));
        }
    }
}
