//! Ctrl-C and SIGTERM: once to finish the iteration and save, twice to end at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the signals that ask for an end.
#[derive(Debug)]
pub(super) struct Signals {
    count: Arc<AtomicUsize>,
    #[cfg(unix)]
    handle: signal_hook::iterator::Handle,
}

impl Signals {
    #[cfg(unix)]
    pub(super) fn listen() -> io::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        std::thread::spawn(move || {
            for _ in signals.forever() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { count, handle })
    }

    /// Elsewhere Ctrl-C ends the parent at once, and with it the children; `state/` is as the last save left it.
    #[cfg(not(unix))]
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { count: Arc::new(AtomicUsize::new(0)) })
    }

    /// As after so many signals, whatever comes.
    #[cfg(all(test, unix, feature = "iroh"))]
    pub(super) fn counted(count: usize) -> io::Result<Self> {
        let signals = Self::listen()?;
        signals.count.store(count, Ordering::Relaxed);
        Ok(signals)
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        #[cfg(unix)]
        self.handle.close();
    }
}
