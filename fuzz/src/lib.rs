//! One fuzz target for each reader of outside bytes. What is checked is in `crates/readers`.

pub use libfuzzer_sys;
pub use skipstone_readers::Meter;

use skipstone_readers::Reader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// What the last panic said.
static LAST: Mutex<String> = Mutex::new(String::new());

/// Notes what panics say, in the place of the fuzzer's hook, which would end the process at panics that a reader catches
/// (a library's, on its own input) too.
pub fn note_panics() {
    std::panic::set_hook(Box::new(|panic| {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
}

/// A fuzz target for the reader of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        #[global_allocator]
        static METER: $crate::Meter = $crate::Meter;

        $crate::libfuzzer_sys::fuzz_target!(init: $crate::note_panics(), |bytes: &[u8]| {
            $crate::try_on($name, bytes);
        });
    };
}

/// Gives the input to a reader.
///
/// Ends the process when a promise is broken: that is how the fuzzer hears of it.
pub fn try_on(name: &str, bytes: &[u8]) {
    let tried = Reader::named(name).map(|reader| catch_unwind(AssertUnwindSafe(|| reader.try_on(bytes))));
    let why = match tried {
        Some(Ok(Ok(_))) => return,
        Some(Ok(Err(broken))) => broken.to_string(),
        Some(Err(_)) => LAST.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        None => "there is no such reader".to_owned(),
    };
    eprintln!("{name}: {why}");
    std::process::abort();
}
