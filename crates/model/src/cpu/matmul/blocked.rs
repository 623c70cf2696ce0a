//! Goto's loops around a kernel, shared by all instruction sets.

use rayon::prelude::*;

use super::kernel::{Kernel, Left, Right, Target};
use super::pack::pack_block;
use super::{View, Write};
use crate::cpu::scratch::{SharedMut, with_scratch};

/// Most steps of k in a block: its sums are added to C before the next block's. Part of what decides the bits, and so
/// the same for all kernels.
pub(super) const DEPTH: usize = 256;
/// Most rows of A and columns of B packed at once.
const ROWS: usize = 2048;
const COLUMNS: usize = 1024;
/// Multiply-adds, at least, that are worth a task of their own (some 20 µs).
const TASK_WORK: usize = 1 << 20;
/// Tasks for each thread, so that a slow one does not hold up the others for long.
const TASKS: usize = 4;

/// Length of the parts that `len` is cut into: about equal, at most `longest`, whole multiples of `unit`.
pub(super) fn part(len: usize, longest: usize, unit: usize) -> usize {
    len.div_ceil(len.div_ceil(longest)).next_multiple_of(unit)
}

/// C (m, n) = A · B, or added to what `write` says. For a block of k, of rows and of columns: pack both sides once, in parallel, then run the
/// tiles in parallel. A task's rows of the left side stay in L2, and beside them one group of columns of the right side
/// after another; a panel of the left side stays in L1 while it meets a group.
///
/// How the tasks are cut depends on the number of threads, and the bits do not: see [`Kernel`].
///
/// # Safety
/// The CPU must have the kernel's instructions; bounds must have been checked.
pub(super) unsafe fn blocked<K: Kernel, const MR: usize, const NR: usize>(
    c: &mut [f32],
    stride: usize,
    (m, n, k): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    write: Write<'_>,
) {
    const { assert!(MR == K::MR && NR == K::NR) };
    let depth = part(k, DEPTH, 8);
    let (rows, columns) = (part(m, ROWS, MR), part(n, COLUMNS, NR));
    let in_place = a.col == 1 && n <= K::IN_PLACE_COLUMNS;
    let left_len = if in_place { 0 } else { (rows * depth).next_multiple_of(16) };
    let c = SharedMut::new(c);
    let base = write.base(c);
    with_scratch(left_len + columns * depth + 16, |scratch| {
        let aligned = scratch.as_ptr().align_offset(64).min(16);
        let (left, right) = scratch[aligned..].split_at_mut(left_len);
        let (left, right) = (SharedMut::new(left), SharedMut::new(right));
        for p0 in (0..k).step_by(depth) {
            let kc = depth.min(k - p0);
            let base = if p0 > 0 { Some(c) } else { base };
            for i0 in (0..m).step_by(rows) {
                let mc = rows.min(m - i0);
                let a_at = a.data.as_ptr().wrapping_add(i0 * a.row + p0 * a.col);
                if !in_place {
                    // SAFETY: panels are disjoint parts of `left`, which has room for `rows` × `depth`.
                    unsafe { pack_block::<MR>(a_at, (a.row, a.col), (mc, kc), left) };
                }
                let a_at = SharedMut::from_const(a_at);
                for j0 in (0..n).step_by(columns) {
                    let nc = columns.min(n - j0);
                    let b_at = b.data.as_ptr().wrapping_add(p0 * b.row + j0 * b.col);
                    // SAFETY: as above, for `right`.
                    unsafe { pack_block::<NR>(b_at, (b.col, b.row), (nc, kc), right) };
                    let (task_rows, task_columns) = task::<K>(mc, nc, kc);
                    let tasks = (mc.div_ceil(task_rows), nc.div_ceil(task_columns));
                    let group = (K::GROUP / kc / NR).max(1) * NR;
                    (0..tasks.0 * tasks.1).into_par_iter().for_each(|task| {
                        let (ti, tj) = (task % tasks.0 * task_rows, task / tasks.0 * task_columns);
                        let (i_end, j_end) = (mc.min(ti + task_rows), nc.min(tj + task_columns));
                        for g in (tj..j_end).step_by(group) {
                            for i in (ti..i_end).step_by(MR) {
                                let left = if in_place {
                                    Left { ptr: a_at.at_unchecked(i * a.row), row: a.row, col: 1 }
                                } else {
                                    Left { ptr: left.at(i * kc), row: 1, col: MR }
                                };
                                for j in (g..j_end.min(g + group)).step_by(NR) {
                                    let size = (MR.min(mc - i), NR.min(nc - j), kc);
                                    let right = Right { ptr: right.at(j * kc), stride: NR };
                                    let at = (i0 + i) * stride + j0 + j;
                                    let base = base.map(|base| base.at_unchecked(at));
                                    let target = Target { ptr: c.at(at), stride, base };
                                    // SAFETY: tiles of C are disjoint; the panels hold kc steps of them.
                                    unsafe { K::tile(size, left, right, target) };
                                }
                            }
                        }
                    });
                }
            }
        }
    });
}

/// Rows and columns of a task: rows by the size of the L2 cache, columns so that all threads have several tasks.
fn task<K: Kernel>(rows: usize, columns: usize, depth: usize) -> (usize, usize) {
    let task_rows = part(rows, K::TASK_ROWS, K::MR);
    let wanted = TASKS * rayon::current_num_threads();
    let even = columns.div_ceil(wanted.div_ceil(rows.div_ceil(task_rows)));
    let worth = TASK_WORK / (task_rows * depth);
    (task_rows, even.max(worth).next_multiple_of(K::NR))
}
