//! Small buffers of a compute thread.

use std::cell::Cell;

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Lends `f` a buffer of `len` values with arbitrary contents. It is kept for the thread's next call; a nested
/// call gets a fresh one.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = SCRATCH.take();
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let result = f(&mut buffer[..len]);
    SCRATCH.set(buffer);
    result
}

/// A pointer that tasks on several threads may write through, each to places of its own.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut(*mut f32, usize);

// SAFETY: only `slice` gives access, and its contract makes concurrent users disjoint.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    /// Shares a slice for the duration of a parallel loop that borrows it.
    pub(crate) fn new(slice: &mut [f32]) -> Self {
        Self(slice.as_mut_ptr(), slice.len())
    }

    /// The part `start..start + len`.
    ///
    /// # Safety
    /// The slice given to `new` must still be borrowed, and no other part in use at the same time may overlap.
    ///
    /// # Panics
    /// If the part is out of bounds.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's contract")]
    pub(crate) unsafe fn slice<'a>(&self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start <= self.1 && len <= self.1 - start, "tile out of bounds");
        // SAFETY: in bounds by the assertion; exclusive and alive by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }

    /// Shares a pointer that will only be read through.
    pub(crate) fn from_const(ptr: *const f32) -> Self {
        Self(ptr.cast_mut(), 0)
    }

    /// The raw pointer at `start`, wherever that is.
    pub(crate) fn at_unchecked(&self, start: usize) -> *const f32 {
        self.0.wrapping_add(start)
    }

    /// The raw pointer at `start`.
    ///
    /// # Panics
    /// If `start` is out of bounds.
    pub(crate) fn at(&self, start: usize) -> *mut f32 {
        assert!(start <= self.1, "tile out of bounds");
        self.0.wrapping_add(start)
    }
}
