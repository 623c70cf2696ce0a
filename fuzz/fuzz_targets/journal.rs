//! The coordinator's journal.

#![no_main]

skipstone_fuzz::target!("journal");
