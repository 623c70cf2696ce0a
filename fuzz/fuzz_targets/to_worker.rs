//! Messages of the coordinator.

#![no_main]

skipstone_fuzz::target!("to_worker");
