//! Counts the memory that is taken while a reader reads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// The system's allocator, with a count of the bytes that are taken and of the most that ever were. A program that
/// measures has it as its `#[global_allocator]`.
#[derive(Debug)]
pub struct Meter;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// Held while one reader is measured: the counts are the whole process's, since readers may use threads.
static ONE: Mutex<()> = Mutex::new(());

fn add(bytes: usize) {
    let taken = TAKEN.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    MOST.fetch_max(taken, Relaxed);
}

fn remove(bytes: usize) {
    TAKEN.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        remove(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As if it moved: for a moment both are there.
        add(size);
        // SAFETY: as the caller promised.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        remove(layout.size());
        moved
    }
}

/// What `work` returns, and the most bytes that it held at once, on whatever thread.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = TAKEN.load(Relaxed);
    MOST.store(before, Relaxed);
    let made = work();
    (made, MOST.load(Relaxed).saturating_sub(before))
}
