//! What a kernel is: the innermost part of a matrix product, for one instruction set.

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

/// C, row-major, and what the product is added to, if anything: often C itself, else of the same stride.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) ptr: *mut f32,
    pub(super) stride: usize,
    pub(super) base: Option<*const f32>,
}

/// Multiplies into one tile of C, which stays in registers while k runs (Goto & van de Geijn 2008, "Anatomy of
/// High-Performance Matrix Multiplication").
///
/// Each element of C is one chain of fused multiply-adds from zero in the order of k, then stored or added to the base,
/// whatever the tile's size: kernels of different shapes give the same bits, and cutting C differently does
/// not change one. (Only the portable kernel on a CPU without fused multiply-add rounds twice.)
pub(super) trait Kernel {
    /// Rows of a full tile of C.
    const MR: usize;
    /// Columns of a full tile of C.
    const NR: usize;
    /// Rows of A, at most, that one task works on: times a block's depth they take a small part of an L2 cache.
    const TASK_ROWS: usize;
    /// Values of B that a task's rows meet one after another before the next: a small part of an L2 cache too.
    const GROUP: usize;
    /// Up to so many columns of C, a row-major A is read where it lies: packing it would cost more than it saves.
    const IN_PLACE_COLUMNS: usize;

    /// C (m, n) = A (m, k) · B (k, n), plus the base, for m ≤ [`Self::MR`], n ≤ [`Self::NR`].
    ///
    /// # Safety
    /// The CPU must have the kernel's instructions; the matrices must be valid for these sizes.
    unsafe fn tile(size: (usize, usize, usize), a: Left, b: Right, c: Target);
}
