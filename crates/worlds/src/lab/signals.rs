//! Ctrl-C and SIGTERM: the first asks for an end, the second ends at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A flag that the first Ctrl-C or SIGTERM of the process sets. A second one ends the process.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub fn stop_on_interrupt() -> io::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
        // In this order: the flag that ends the process is looked at before it is set.
        signal_hook::flag::register_conditional_shutdown(signal, code, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// Elsewhere Ctrl-C ends the process at once; what was finished is kept all the same.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn stop_on_interrupt() -> io::Result<Arc<AtomicBool>> {
    Ok(Arc::new(AtomicBool::new(false)))
}
