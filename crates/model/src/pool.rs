//! Threads and buffers that a backend keeps between calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{ModelError, Result};

/// The threads that carry a backend's parallel loops. Clones share the same threads.
///
/// No result depends on how many there are: all loops run over fixed tiles, and sums are added in fixed order.
#[derive(Clone, Debug)]
pub struct ComputePool(Option<Arc<rayon::ThreadPool>>);

impl ComputePool {
    /// A pool of its own.
    ///
    /// # Errors
    /// [`ModelError::Threads`] if `threads` is 0 or the system refuses.
    pub fn new(threads: usize) -> Result<Self> {
        if threads == 0 {
            return Err(ModelError::Threads { threads, why: "there must be at least one".to_owned() });
        }
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("compute-{i}"))
            .build()
            .map(|pool| Self(Some(Arc::new(pool))))
            .map_err(|e| ModelError::Threads { threads, why: e.to_string() })
    }

    /// Runs in whatever rayon pool the caller is in (rayon's global one outside of any).
    pub fn ambient() -> Self {
        Self(None)
    }

    /// Runs `f` with this pool's threads as rayon's current ones.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.0.as_ref().map_or_else(rayon::current_num_threads, |p| p.current_num_threads())
    }
}

/// Buffers kept for reuse, by length: in steady state nothing is allocated.
///
/// It keeps no more of a length than it has lent: what is given to it beyond that (a part of a gradient, made elsewhere) is
/// freed, as nobody would ever take it.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    free: BTreeMap<usize, Vec<Vec<f32>>>,
    /// Taken and not given back, by length.
    lent: BTreeMap<usize, usize>,
}

impl BufferPool {
    /// A buffer of that length with arbitrary (initialised) contents.
    pub(crate) fn take(&mut self, len: usize) -> Vec<f32> {
        *self.lent.entry(len).or_default() += 1;
        self.free.get_mut(&len).and_then(Vec::pop).unwrap_or_else(|| vec![0.0; len])
    }

    /// Takes a buffer back.
    pub(crate) fn give(&mut self, buffer: Vec<f32>) {
        if let Some(lent) = self.lent.get_mut(&buffer.len()).filter(|lent| **lent > 0) {
            *lent -= 1;
            self.free.entry(buffer.len()).or_default().push(buffer);
        }
    }

    /// Bytes waiting for reuse.
    pub(crate) fn bytes(&self) -> u64 {
        self.free.iter().map(|(len, list)| (len * list.len() * 4) as u64).sum()
    }

    /// Frees all that waits.
    pub(crate) fn clear(&mut self) {
        self.free.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_lent_is_not_kept() {
        let mut pool = BufferPool::default();
        let (one, two) = (pool.take(8), pool.take(8));
        for _ in 0..100 {
            pool.give(vec![0.0; 5]);
        }
        assert_eq!(pool.bytes(), 0);
        pool.give(one);
        pool.give(two);
        pool.give(vec![0.0; 8]);
        assert_eq!(pool.bytes(), 2 * 8 * 4);
        assert_eq!(pool.take(8).len(), 8);
        assert_eq!(pool.bytes(), 8 * 4);
    }
}
