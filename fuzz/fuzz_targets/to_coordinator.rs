//! Messages of a worker.

#![no_main]

skipstone_fuzz::target!("to_coordinator");
